// Attention of sequences with one row in the step: the group's queries against every visible key, split over the keys.
// (Formula and shapes: mod.rs. A sequence with more rows is prefill.cu's, and skipped here.)
//
// attention_decode_{head_dim}: block (kv head and 8 of its query heads, sequence, split), 4 warps. The visible pages (16 keys
// each) are dealt to the splits in runs; the warps of a block take the pages of its run in turn. For a page:
//   S [16 heads, 16 keys] = Q . K^T and O^T [head_dim, 8 heads] += V^T . P^T by mma, both operands straight from global memory:
//   the order of a contraction's terms is free, so that a lane's 16 bytes of K serve two steps of the mma, and its 16 bytes
//   of four rows of V are exchanged in pairs. Nothing passes through shared memory, every byte of K and V is read once
//   for 8 query heads, all loads have 16 bytes (head_dim 96: a third of V in 8), and a page's 8 KiB (head_dim 128) are
//   under way together on sm_75 and sm_80; on sm_90 and sm_120 ptxas puts V's loads behind the first mma, which waits
//   for K: 4 KiB a warp, of 12 warps (sm_120: 8) on a multiprocessor.
// Softmax: running maximum and sum per warp, in f32, to base 2; P is rounded to A for the mma, which adds the error of one rounding
// of A to that of the output: NMSE 2 * 2.8e-6 (bf16), 2 * 4.3e-8 (f16).
// At the end the warps' results are merged in their order through shared memory; the splits' go to the workspace.
//
// attention_combine_{head_dim}: warp: one query head of one sequence, merges the splits in their order. Not launched for one split.
//
// Preconditions: n_heads % n_kv_heads == 0; 16-byte aligned buffers; a row's own key is in the cache.
// A row with PAD_SLOT reads nothing and is set to zero.
// Moves, per sequence: 2 * keys * kv_dim * 2 bytes of K and V (once for every 8 query heads of a kv head), q_dim * 4 bytes of q and out;
// partials: n_splits * n_heads * (head_dim + 2) * 4 bytes, written and read.

struct AttentionDecodeParams {
    A *out;               // [n_tokens, q_dim]
    const A *qkv;         // [n_tokens, q_dim + 2 kv_dim]
    const A *k;           // [n_slots, kv_dim]
    const A *v;           // [n_slots, kv_dim]
    const u32 *positions; // [n_tokens]
    const u32 *slots;     // [n_tokens]
    const u32 *q_start;   // [n_seqs + 1]
    const u32 *pages;     // [n_seqs, table_len]
    float *partials;      // [n_seqs, n_heads, n_splits, head_dim] sums, then as many (maximum, sum of weights) less head_dim
    u32 table_len;
    u32 window; // 2^32 - 1: none
    u32 n_seqs;
    u32 n_heads;
    u32 n_kv_heads;
    u32 n_splits;
    float scale; // log2(e) / sqrt(head_dim)
    u32 padding;
};
static_assert(sizeof(AttentionDecodeParams) == 104, "AttentionDecodeParams");

constexpr u32 PAGE = 16, PAD_SLOT = ~0u;
constexpr u32 WARPS = 4, THREADS = 32 * WARPS;
constexpr u32 HEADS = 8;     // query heads of a block: the columns of an mma
constexpr u32 MIN_PAGES = 8; // of a split: two for every warp; shorter runs cost more in merging than they gain

// The visible pages and how they are dealt to splits.
struct Run {
    u32 pos, first;              // keys first ..= pos
    u32 first_page, n_pages, length; // pages of the sequence, and of a split

    DEVICE Run(u32 pos, u32 window, u32 n_splits)
        : pos(pos), first(pos + 1 > window ? pos + 1 - window : 0), first_page(first / PAGE),
          n_pages(pos / PAGE - first_page + 1), length(max((n_pages + n_splits - 1) / n_splits, MIN_PAGES)) {}

    DEVICE u32 n_used_splits() const { return (n_pages + length - 1) / length; }
};

// One page's K and V of a lane (g = lane / 4, t = lane % 4). Keys that are not visible count as zero and are not read.
template <u32 HEAD_DIM> struct Tile {
    static constexpr u32 K_PARTS = HEAD_DIM / 32, V_PARTS = HEAD_DIM / 64, V_HALF = HEAD_DIM % 64 / 32;
    uint4 k[2][K_PARTS];                 // keys g, g + 8: numbers 32 i + 8 t .. + 8
    uint4 v[V_PARTS][4];                 // keys 2 t, 2 t + 1, 2 t + 8, 2 t + 9: numbers 64 i + 8 g .. + 8
    uint2 v_half[V_HALF ? V_HALF : 1][4]; // the same keys: numbers 64 + 4 g .. + 4

    DEVICE void load(const A *k_page, const A *v_page, u32 kv_dim, const Run &run, u32 page) {
        const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        auto visible = [&](u32 key) { return page * PAGE + key >= run.first && page * PAGE + key <= run.pos; };
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            const u32 key = g + 8 * h;
            const A *row = k_page + key * kv_dim + 8 * t;
#pragma unroll
            for (u32 i = 0; i < K_PARTS; i++) {
                k[h][i] = visible(key) ? load16_once(row + 32 * i) : make_uint4(0, 0, 0, 0);
            }
        }
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const u32 key = 2 * t + j % 2 + j / 2 * 8;
            const A *row = v_page + key * kv_dim;
#pragma unroll
            for (u32 i = 0; i < V_PARTS; i++) {
                v[i][j] = visible(key) ? load16_once(row + 64 * i + 8 * g) : make_uint4(0, 0, 0, 0);
            }
            if (V_HALF) v_half[0][j] = visible(key) ? load8_once(row + 64 * V_PARTS + 4 * g) : make_uint2(0, 0);
        }
    }
};

// acc (numbers 2 w, 2 w + 1 of the lane's run, heads 2 t and 2 t + 1) += pairs of four keys, exchanged to pairs of two keys.
DEVICE void add_values(float (&acc)[4], u32 v0, u32 v1, u32 v2, u32 v3, u32 p_low, u32 p_high) {
    const u32 a[4] = {__byte_perm(v0, v1, 0x5410), __byte_perm(v0, v1, 0x7632), __byte_perm(v2, v3, 0x5410),
                      __byte_perm(v2, v3, 0x7632)};
    mma_16816(acc, a, p_low, p_high);
}

// What a warp has seen: for head g the maximum and (this lane's part of) the sum, for heads 2 t and 2 t + 1 its part of the output.
template <u32 HEAD_DIM> struct Warp {
    using Page = Tile<HEAD_DIM>;
    uint4 q[Page::K_PARTS]; // head g, numbers 32 i + 8 t .. + 8
    float max = -INFINITY, sum = 0.0f;
    float acc[HEAD_DIM / 16][4]; // 4 of V's words a part; [0], [2]: head 2 t; [1], [3]: head 2 t + 1

    DEVICE void scores(float (&s)[4], const Page &page, const Run &run, u32 page_index, float scale) {
        float half[2][4] = {};
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
#pragma unroll
            for (u32 i = 0; i < Page::K_PARTS; i++) {
                const u32 first[4] = {q[i].x, 0, q[i].y, 0}, second[4] = {q[i].z, 0, q[i].w, 0};
                mma_16816(half[h], first, page.k[h][i].x, page.k[h][i].y);
                mma_16816(half[h], second, page.k[h][i].z, page.k[h][i].w);
            }
        }
        const u32 t = threadIdx.x % 4;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const u32 key = page_index * PAGE + 2 * t + j % 2 + j / 2 * 8;
            s[j] = key >= run.first && key <= run.pos ? half[j / 2][j % 2] * scale : -INFINITY;
        }
    }

    DEVICE void add(const Page &page, const Run &run, u32 page_index, float scale) {
        float s[4];
        scores(s, page, run, page_index, scale);
        float seen = fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3]));
        seen = fmaxf(seen, __shfl_xor_sync(~0u, seen, 1));
        seen = fmaxf(seen, __shfl_xor_sync(~0u, seen, 2));
        const float new_max = fmaxf(max, seen); // finite: a page has a visible key
        const float shrink = exp2_approx(max - new_max);
        max = new_max;
#pragma unroll
        for (u32 j = 0; j < 4; j++) s[j] = exp2_approx(s[j] - max);
        sum = sum * shrink + (s[0] + s[1]) + (s[2] + s[3]);
        const u32 p_low = pack2(s[0], s[1]), p_high = pack2(s[2], s[3]);

        const u32 t = threadIdx.x % 4;
        const float shrink0 = __shfl_sync(~0u, shrink, 8 * t), shrink1 = __shfl_sync(~0u, shrink, 8 * t + 4);
#pragma unroll
        for (u32 i = 0; i < HEAD_DIM / 16; i++) {
            acc[i][0] *= shrink0, acc[i][1] *= shrink1, acc[i][2] *= shrink0, acc[i][3] *= shrink1;
        }
#pragma unroll
        for (u32 i = 0; i < Page::V_PARTS; i++) {
            const uint4(&v)[4] = page.v[i];
            add_values(acc[4 * i], v[0].x, v[1].x, v[2].x, v[3].x, p_low, p_high);
            add_values(acc[4 * i + 1], v[0].y, v[1].y, v[2].y, v[3].y, p_low, p_high);
            add_values(acc[4 * i + 2], v[0].z, v[1].z, v[2].z, v[3].z, p_low, p_high);
            add_values(acc[4 * i + 3], v[0].w, v[1].w, v[2].w, v[3].w, p_low, p_high);
        }
        if (Page::V_HALF) {
            const uint2(&v)[4] = page.v_half[0];
            add_values(acc[4 * Page::V_PARTS], v[0].x, v[1].x, v[2].x, v[3].x, p_low, p_high);
            add_values(acc[4 * Page::V_PARTS + 1], v[0].y, v[1].y, v[2].y, v[3].y, p_low, p_high);
        }
    }
};

// The warps' results in shared memory.
template <u32 HEAD_DIM> struct Merge {
    static constexpr u32 UNITS = HEAD_DIM / 4;
    float4 acc[WARPS][HEADS][UNITS];
    float max[WARPS][HEADS], sum[WARPS][HEADS];

    // Where unit u (4 numbers) of a head lies: eight lanes of a store have heads 0, 2, 4, 6 and units u, u + 2, and this
    // sends them to eight different groups of banks; after the last 64 numbers units u, u + 1.
    static DEVICE u32 place(u32 head, u32 u) {
        const bool whole = u < HEAD_DIM / 64 * 16;
        return u ^ (whole ? head / 2 % 2 + head / 4 * 4 : head / 2 * 2);
    }

    DEVICE void put(const Warp<HEAD_DIM> &w) {
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        float total = w.sum + __shfl_xor_sync(~0u, w.sum, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        if (t == 0) max[warp][g] = w.max, sum[warp][g] = total;
#pragma unroll
        for (u32 i = 0; i < HEAD_DIM / 16; i += 2) {
            const bool whole = i / 4 < HEAD_DIM / 64; // else the 32 numbers after the last 64
            const u32 u = whole ? i / 4 * 16 + 2 * g + i % 4 / 2 : i / 4 * 16 + g;
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                const u32 head = 2 * t + h;
                acc[warp][head][place(head, u)] = make_float4(w.acc[i][h], w.acc[i][h + 2], w.acc[i + 1][h], w.acc[i + 1][h + 2]);
            }
        }
    }

    DEVICE float max_of(u32 head) const {
        float m = max[0][head];
#pragma unroll
        for (u32 w = 1; w < WARPS; w++) m = fmaxf(m, max[w][head]);
        return m;
    }

    // Sum of weights and of weighted values (unit u), relative to the maximum m of all warps. A warp without a page has a
    // maximum of -inf and counts nothing.
    DEVICE float4 merged(u32 head, u32 u, float m, float &total) const {
        float4 all = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        total = 0.0f;
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) {
            const float weight = exp2_approx(max[w][head] - m);
            const float4 a = acc[w][head][place(head, u)];
            total += weight * sum[w][head];
            all.x += weight * a.x, all.y += weight * a.y, all.z += weight * a.z, all.w += weight * a.w;
        }
        return all;
    }
};

DEVICE float2 *split_stats(const AttentionDecodeParams &p, u32 head_dim) {
    return reinterpret_cast<float2 *>(p.partials + u64(p.n_seqs) * p.n_heads * p.n_splits * head_dim);
}

template <u32 HEAD_DIM> DEVICE void attention_decode(const AttentionDecodeParams &p) {
    __shared__ __align__(16) Merge<HEAD_DIM> merge;
    const u32 seq = blockIdx.y, split = blockIdx.z, row = p.q_start[seq];
    if (p.q_start[seq + 1] - row != 1) return;
    const u32 group = p.n_heads / p.n_kv_heads, turns = (group + HEADS - 1) / HEADS;
    const u32 kv_head = blockIdx.x / turns, first_in_group = blockIdx.x % turns * HEADS;
    const u32 n_heads = min(group - first_in_group, HEADS), first_head = kv_head * group + first_in_group;
    const u32 q_dim = p.n_heads * HEAD_DIM, kv_dim = p.n_kv_heads * HEAD_DIM;
    A *out = p.out + u64(row) * q_dim + first_head * HEAD_DIM;
    constexpr u32 UNITS = HEAD_DIM / 4;

    if (p.slots[row] == PAD_SLOT) {
        for (u32 e = threadIdx.x; split == 0 && e < n_heads * UNITS; e += THREADS) {
            reinterpret_cast<uint2 *>(out)[e] = make_uint2(0, 0);
        }
        return;
    }
    const Run run(p.positions[row], p.window, p.n_splits);
    const u32 begin = run.first_page + split * run.length;
    const u32 end = min(begin + run.length, run.first_page + run.n_pages);
    if (begin >= end) return;

    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    Warp<HEAD_DIM> w;
    const A *q = p.qkv + u64(row) * (q_dim + 2 * kv_dim) + (first_head + g) * HEAD_DIM + 8 * t;
#pragma unroll
    for (u32 i = 0; i < HEAD_DIM / 32; i++) w.q[i] = g < n_heads ? load16_nc(q + 32 * i) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (u32 i = 0; i < HEAD_DIM / 16; i++) w.acc[i][0] = w.acc[i][1] = w.acc[i][2] = w.acc[i][3] = 0.0f;

    const u32 *table = p.pages + seq * p.table_len;
    const u32 stride = WARPS % p.table_len;
    u32 entry = (begin + warp) % p.table_len, next = table[entry];
    for (u32 page = begin + warp; page < end; page += WARPS) {
        const u64 at = u64(next) * PAGE * kv_dim + kv_head * HEAD_DIM;
        entry += stride;
        if (entry >= p.table_len) entry -= p.table_len;
        next = table[entry]; // ahead of its use: K and V wait for it
        Tile<HEAD_DIM> tile;
        tile.load(p.k + at, p.v + at, kv_dim, run, page);
        __syncwarp(); // keeps ptxas (sm_75, sm_80) from moving loads behind the first mma, which waits for others
        w.add(tile, run, page, p.scale);
    }
    merge.put(w);
    __syncthreads();

    for (u32 e = threadIdx.x; e < n_heads * UNITS; e += THREADS) {
        const u32 head = e / UNITS, u = e % UNITS;
        const float m = merge.max_of(head);
        float total;
        float4 all = merge.merged(head, u, m, total);
        if (p.n_splits == 1) {
            const float scale = 1.0f / total;
            const uint2 pairs = make_uint2(pack2(all.x * scale, all.y * scale), pack2(all.z * scale, all.w * scale));
            reinterpret_cast<uint2 *>(out)[e] = pairs;
            continue;
        }
        const u64 place = (u64(seq) * p.n_heads + first_head + head) * p.n_splits + split;
        reinterpret_cast<float4 *>(p.partials)[place * UNITS + u] = all;
        if (u == 0) split_stats(p, HEAD_DIM)[place] = make_float2(m, total);
    }
}

template <u32 HEAD_DIM> DEVICE void attention_combine(const AttentionDecodeParams &p) {
    constexpr u32 OWN = HEAD_DIM / 32; // numbers of a lane: lane, lane + 32, ..
    const u32 head = blockIdx.x * WARPS + threadIdx.x / 32, seq = blockIdx.y, lane = threadIdx.x % 32, row = p.q_start[seq];
    if (head >= p.n_heads || p.q_start[seq + 1] - row != 1 || p.slots[row] == PAD_SLOT) return;
    const u32 n_used = Run(p.positions[row], p.window, p.n_splits).n_used_splits();
    const u64 first = (u64(seq) * p.n_heads + head) * p.n_splits;
    const float2 *stats = split_stats(p, HEAD_DIM) + first;
    const float *partial = p.partials + first * HEAD_DIM + lane;

    float max = -INFINITY;
    for (u32 i = lane; i < n_used; i += 32) max = fmaxf(max, stats[i].x);
    max = warp_max(max);
    float total = 0.0f, all[OWN] = {};
#pragma unroll 4
    for (u32 i = 0; i < n_used; i++) {
        const float2 s = stats[i];
        const float weight = exp2_approx(s.x - max);
        total += weight * s.y;
#pragma unroll
        for (u32 j = 0; j < OWN; j++) all[j] += weight * partial[i * HEAD_DIM + 32 * j];
    }
    A *out = p.out + (u64(row) * p.n_heads + head) * HEAD_DIM + lane;
    const float scale = 1.0f / total;
#pragma unroll
    for (u32 j = 0; j < OWN; j++) out[32 * j] = to_a(all[j] * scale);
}

// At least three blocks a multiprocessor (168 registers) where ptxas then keeps all loads of a page together; from sm_90 on it
// does so neither with the bound nor without, and on sm_120 the bound would spill.
#define INSTANCE(HEAD_DIM)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, KOMT_SM < 90 ? 3 : 1) attention_decode_##HEAD_DIM(                              \
        const AttentionDecodeParams p) {                                                                               \
        attention_decode<HEAD_DIM>(p);                                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_combine_##HEAD_DIM(const AttentionDecodeParams p) { \
        attention_combine<HEAD_DIM>(p);                                                                                \
    }
INSTANCE(64)
INSTANCE(96)
INSTANCE(128)
