// Attention of sequences with several rows: of a cache in 8 bits, kv.rs. (prefill.cuh)
//
// attention_prefill_q8_{head_dim}: tiles of K and V become A, exactly, on their way to shared memory, once for all rows, and stay in
// the order in which that makes pairs of four numbers: (0, 2), (1, 3). Queries are brought to the same order, results back from
// it. Scores are multiplied by the scales of K, weights by those of V before they are rounded to A.
// The next tile's K is loaded, to registers, before this one's softmax and P . V, V before S.

// What weights are multiplied by beside the scale of a value: products reach 64 times the value, and half precision then holds them
// as well as it holds values.
constexpr float V_FACTOR = 64.0f;

// A thread's part of a tile of K or V on its way: 16 numbers of a few keys, and the scale of one. Eight lanes store one unit each of
// 16 bytes at a time, and meet eight groups of 4 banks (Layout): four units of two rows with different swizzles, or (head_dim
// 96) two units of four rows.
template <u32 HEAD_DIM> struct Part {
    using L = Layout<HEAD_DIM>;
    static constexpr u32 TURNS = KEYS * HEAD_DIM / 16 / THREADS;
    // From turn to turn: rows (multiples of 8: their swizzle is the same), or for 96 numbers.
    static constexpr u32 ROW_STEP = HEAD_DIM == 96 ? 0 : KEYS / TURNS, STEP = HEAD_DIM == 96 ? 32 : 0;
    uint4 numbers[TURNS];
    float scale; // of key threadIdx.x

    static DEVICE u32 first_row() {
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        if (HEAD_DIM == 96) return threadIdx.x / 8 * 4 + lane / 2 % 4;
        if (HEAD_DIM == 64) return warp * 8 + lane / 16 * 4 + lane / 4 % 2 * 2 + lane / 8 % 2;
        return warp * 4 + lane / 4 % 2 * 2 + lane / 16;
    }
    // The first of 16 numbers.
    static DEVICE u32 first_number() {
        const u32 lane = threadIdx.x % 32;
        return (HEAD_DIM == 96 ? lane % 2 : HEAD_DIM == 64 ? lane % 4 : lane / 8 % 2 * 4 + lane % 4) * 16;
    }

    // Keys `tile * KEYS ..`.
    DEVICE void load(const AttentionPrefillParams &p, const void *from, const float *scales, const Queries &queries, u32 tile) {
        const u32 page = page_of(p, queries, tile);
        const u32 kv_dim = p.n_kv_heads * HEAD_DIM, kv_head = blockIdx.y, row = first_row();
        auto seen = [&](u32 key) { return tile * KEYS + key >= queries.first_key && tile * KEYS + key <= queries.last_key; };
        const u32 in_page = kv_head * HEAD_DIM + first_number() + row % PAGE * kv_dim;
#pragma unroll
        for (u32 turn = 0; turn < TURNS; turn++) {
            const u32 key = turn * ROW_STEP + row, of_page = __shfl_sync(~0u, page, key / PAGE);
            const u8 *at = static_cast<const u8 *>(from) + (u64(of_page) * (PAGE * kv_dim) + in_page + turn * STEP);
            numbers[turn] = seen(key) ? load16_nc(at) : make_uint4(0, 0, 0, 0);
        }
        const u32 key = threadIdx.x % KEYS, of_page = __shfl_sync(~0u, page, key / PAGE);
        scale = threadIdx.x < KEYS && seen(key) ? scales[(u64(of_page) * p.n_kv_heads + kv_head) * PAGE + key % PAGE] : 0.0f;
    }

    DEVICE void store(u8 *tile, float *scales, float factor) const {
        const u32 first = L::at(first_row(), first_number() / 8);
#pragma unroll
        for (u32 turn = 0; turn < TURNS; turn++) {
            const uint4 from = numbers[turn];
            u8 *to = tile + turn * (ROW_STEP * L::ROW_BYTES + STEP * 2);
            *reinterpret_cast<uint4 *>(to + first) = make_uint4(even_a(from.x), odd_a(from.x), even_a(from.y), odd_a(from.y));
            *reinterpret_cast<uint4 *>(to + (first ^ 16)) = make_uint4(even_a(from.z), odd_a(from.z), even_a(from.w), odd_a(from.w));
        }
        if (threadIdx.x < KEYS) scales[threadIdx.x] = scale * factor;
    }
};

// Scores or weights of rows g and g + 8, times their keys' scales.
DEVICE void scale_keys(float (&s)[KEYS / 8][4], const float *scales) {
#pragma unroll
    for (u32 i = 0; i < KEYS / 8; i++) {
        const float2 two = *reinterpret_cast<const float2 *>(scales + 8 * i + threadIdx.x % 4 * 2);
        s[i][0] *= two.x, s[i][1] *= two.y, s[i][2] *= two.x, s[i][3] *= two.y;
    }
}

template <u32 HEAD_DIM> DEVICE void attention_prefill(const AttentionPrefillParams &p) {
    using L = Layout<HEAD_DIM>;
    __shared__ __align__(128) u8 k_tile[L::BYTES], v_tile[L::BYTES];
    __shared__ __align__(16) float k_scales[KEYS], v_scales[KEYS];
    const Queries queries(p, ROWS / (p.n_heads / p.n_kv_heads));
    if (queries.none) return;
    const u32 first = queries.first_key / KEYS, last = queries.last_key / KEYS;
    Part<HEAD_DIM> k, v;
    k.load(p, p.k, p.k_scales, queries, first);

    Rows<HEAD_DIM> rows;
    rows.begin(p, queries, in_word_order);
    for (u32 tile = first; tile <= last; tile++) {
        float s[KEYS / 8][4];
        k.store(k_tile, k_scales, 1.0f);
        v.load(p, p.v, p.v_scales, queries, tile);
        __syncthreads(); // K is there; nobody reads V any more
        rows.scores(s, k_tile);
        scale_keys(s, k_scales);
        v.store(v_tile, v_scales, V_FACTOR);
        if (tile < last) k.load(p, p.k, p.k_scales, queries, tile + 1);
        if (needs_mask(p, queries, tile)) rows.mask(s, tile * KEYS, p.window);
        rows.softmax(s, p.scale);
        __syncthreads(); // V is there; nobody reads K any more
        scale_keys(s, v_scales);
        rows.add_values(s, shared_address(v_tile));
    }
    rows.finish(p, queries, k_tile, 1.0f / V_FACTOR, in_word_order);
}

// As PREFILL_BOUNDS, but for sm_100: there registers are missing for three blocks.
#define PREFILL_Q8_BOUNDS(HEAD_DIM) __launch_bounds__(THREADS, HEAD_DIM == 64 && KOMT_SM != 100 ? 3 : 2)

#define INSTANCE(HEAD_DIM)                                                                                                \
    extern "C" __global__ void PREFILL_Q8_BOUNDS(HEAD_DIM) attention_prefill_q8_##HEAD_DIM(const AttentionPrefillParams p) { \
        attention_prefill<HEAD_DIM>(p);                                                                                   \
    }
INSTANCE(64)
INSTANCE(96)
INSTANCE(128)
