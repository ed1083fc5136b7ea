// Attention of sequences with one row in the step: the group's queries against every visible key, split over the keys.
// (Formula and shapes: mod.rs. A sequence with more rows is prefill.cuh's, and skipped here.) What a lane holds of a page, and how it
// is multiplied: `Page`, of decode.cu for a cache of A, of decode_q8.cu for one in 8 bits.
//
// attention_decode_{head_dim}: block (kv head and 8 of its query heads, sequence, split), 4 warps. The visible pages (16 keys
// each) are dealt to the splits in runs; the warps of a block take the pages of its run in turn. For a page:
//   S [16 heads, 16 keys] = Q . K^T and O^T [head_dim, 8 heads] += V^T . P^T by mma, both operands straight from global memory:
//   the order of a contraction's terms is free, so that a lane's 16 bytes of K serve several steps of the mma, and its bytes
//   of four rows of V are exchanged in pairs. Nothing passes through shared memory, and every byte of K and V is read once
//   for 8 query heads.
// Softmax: running maximum and sum per warp, in f32, to base 2; P is rounded to A for the mma, which adds the error of one rounding
// of A to that of the output: NMSE 2 * 2.8e-6 (bf16), 2 * 4.3e-8 (f16).
// At the end the warps' results are merged in their order through shared memory; the splits' go to the workspace (decode.cu merges them).
//
// Preconditions: n_heads % n_kv_heads == 0; 16-byte aligned buffers; a row's own key is in the cache; n_seqs <= 65,535 (grid y).
// A row with PAD_SLOT reads nothing and is set to zero.
// Moves, per sequence: keys * kv_dim numbers of K and of V (once for every 8 query heads of a kv head), q_dim * 4 bytes of q and out;
// partials: n_splits * n_heads * (head_dim + 2) * 4 bytes.

struct AttentionDecodeParams {
    A *out;               // [n_tokens, q_dim]
    const A *qkv;         // [n_tokens, q_dim + 2 kv_dim]
    const void *k;        // [n_slots, kv_dim] of A, or 8 bits
    const void *v;        // [n_slots, kv_dim]
    const float *k_scales; // of q8: [n_pages, n_kv_heads, PAGE]
    const float *v_scales;
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
static_assert(sizeof(AttentionDecodeParams) == 120, "AttentionDecodeParams");

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

// Page: a lane's numbers of a page's K and V.
//   load(p, at, scales, run, page)   K and V at number `at`, scales of 8 bits at PAGE * `scales`; keys that are not visible count as
//                                    zero and are not read
//   load_q(q, head, valid)           a query in the order of K; `valid` or zero
//   products(s, q)                   s[0][.], s[1][.] += keys 2 t, 2 t + 1 and 2 t + 8, 2 t + 9 by head g
//   of_key(score, j), of_value(weight, j)    what scales make of them for key j of these four
//   add_values(acc, p_low, p_high)   acc += V by the weights of heads 2 t, 2 t + 1
//   unit(i, g), place(head, u), result(sums) where the sums of acc[i], acc[i + 1] belong in the head, in units of 4 numbers, where they lie
//                                    in shared memory, and what they are
//
// What a warp has seen: for head g the maximum and (this lane's part of) the sum, for heads 2 t and 2 t + 1 its part of the output
// (g = lane / 4, t = lane % 4).
template <class Page> struct Warp {
    static constexpr u32 HEAD_DIM = Page::DIM;
    uint4 q[HEAD_DIM / 32]; // head g, in the page's order
    float max = -INFINITY, sum = 0.0f;
    float acc[HEAD_DIM / 16][4]; // in the page's order; [0], [2]: head 2 t; [1], [3]: head 2 t + 1

    DEVICE void scores(float (&s)[4], const Page &page, const Run &run, u32 page_index, float scale) const {
        float half[2][4] = {};
        page.products(half, q);
        const u32 t = threadIdx.x % 4;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const u32 key = page_index * PAGE + 2 * t + j % 2 + j / 2 * 8;
            const float score = page.of_key(half[j / 2][j % 2] * scale, j);
            s[j] = key >= run.first && key <= run.pos ? score : -INFINITY;
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
#pragma unroll
        for (u32 j = 0; j < 4; j++) s[j] = page.of_value(s[j], j);
        const u32 p_low = pack2(s[0], s[1]), p_high = pack2(s[2], s[3]);

        const u32 t = threadIdx.x % 4;
        const float shrink0 = __shfl_sync(~0u, shrink, 8 * t), shrink1 = __shfl_sync(~0u, shrink, 8 * t + 4);
#pragma unroll
        for (u32 i = 0; i < HEAD_DIM / 16; i++) {
            acc[i][0] *= shrink0, acc[i][1] *= shrink1, acc[i][2] *= shrink0, acc[i][3] *= shrink1;
        }
        page.add_values(acc, p_low, p_high);
    }
};

// The warps' results in shared memory.
template <class Page> struct Merge {
    static constexpr u32 UNITS = Page::DIM / 4;
    float4 acc[WARPS][HEADS][UNITS];
    float max[WARPS][HEADS], sum[WARPS][HEADS];

    DEVICE void put(const Warp<Page> &w) {
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        float total = w.sum + __shfl_xor_sync(~0u, w.sum, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        if (t == 0) max[warp][g] = w.max, sum[warp][g] = total;
#pragma unroll
        for (u32 i = 0; i < Page::DIM / 16; i += 2) {
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                const u32 head = 2 * t + h;
                acc[warp][head][Page::place(head, Page::unit(i, g))] =
                    Page::result(make_float4(w.acc[i][h], w.acc[i][h + 2], w.acc[i + 1][h], w.acc[i + 1][h + 2]));
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
            const float4 a = acc[w][head][Page::place(head, u)];
            total += weight * sum[w][head];
            all.x += weight * a.x, all.y += weight * a.y, all.z += weight * a.z, all.w += weight * a.w;
        }
        return all;
    }
};

DEVICE float2 *split_stats(const AttentionDecodeParams &p, u32 head_dim) {
    return reinterpret_cast<float2 *>(p.partials + u64(p.n_seqs) * p.n_heads * p.n_splits * head_dim);
}

template <class Page> DEVICE void attention_decode(const AttentionDecodeParams &p) {
    constexpr u32 HEAD_DIM = Page::DIM, UNITS = HEAD_DIM / 4;
    __shared__ __align__(16) Merge<Page> merge;
    const u32 seq = blockIdx.y, split = blockIdx.z, row = p.q_start[seq];
    if (p.q_start[seq + 1] - row != 1) return;
    const u32 group = p.n_heads / p.n_kv_heads, turns = (group + HEADS - 1) / HEADS;
    const u32 kv_head = blockIdx.x / turns, first_in_group = blockIdx.x % turns * HEADS;
    const u32 n_heads = min(group - first_in_group, HEADS), first_head = kv_head * group + first_in_group;
    const u32 q_dim = p.n_heads * HEAD_DIM, kv_dim = p.n_kv_heads * HEAD_DIM;
    A *out = p.out + u64(row) * q_dim + first_head * HEAD_DIM;

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

    const u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
    Warp<Page> w;
    Page::load_q(w.q, p.qkv + u64(row) * (q_dim + 2 * kv_dim) + (first_head + g) * HEAD_DIM, g < n_heads);
#pragma unroll
    for (u32 i = 0; i < HEAD_DIM / 16; i++) w.acc[i][0] = w.acc[i][1] = w.acc[i][2] = w.acc[i][3] = 0.0f;

    const u32 *table = p.pages + seq * p.table_len;
    const u32 stride = WARPS % p.table_len;
    u32 entry = (begin + warp) % p.table_len, next = table[entry];
    for (u32 page = begin + warp; page < end; page += WARPS) {
        const u32 index = next;
        const u64 at = u64(next) * PAGE * kv_dim + kv_head * HEAD_DIM;
        entry += stride;
        if (entry >= p.table_len) entry -= p.table_len;
        next = table[entry]; // ahead of its use: K and V wait for it
        Page tile;
        tile.load(p, at, u64(index) * p.n_kv_heads + kv_head, run, page);
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

// At least three blocks a multiprocessor (168 registers) where ptxas then keeps all loads of a page together; from sm_90 on it
// does so neither with the bound nor without, and on sm_120 the bound would spill.
#define DECODE_BOUNDS __launch_bounds__(THREADS, KOMT_SM < 90 ? 3 : 1)
