// Attention of sequences with one row: of a cache of A; and what merges the splits of a row. (decode.cuh)
//
// attention_decode_{head_dim}: all loads have 16 bytes (head_dim 96: a third of V in 8), and a page's 8 KiB (head_dim 128) are
// under way together on sm_75 and sm_80; on sm_90 and sm_120 ptxas puts V's loads behind the first mma, which waits for K:
// 4 KiB a warp, of 12 warps (sm_120: 8) on a multiprocessor.
//
// attention_combine_{head_dim}: warp: one query head of one sequence, merges the splits in their order. Not launched for one split.

// One page's K and V of a lane (g = lane / 4, t = lane % 4). Keys that are not visible count as zero and are not read.
template <u32 HEAD_DIM> struct Tile {
    static constexpr u32 DIM = HEAD_DIM;
    static constexpr u32 K_PARTS = HEAD_DIM / 32, V_PARTS = HEAD_DIM / 64, V_HALF = HEAD_DIM % 64 / 32;
    uint4 k[2][K_PARTS];                 // keys g, g + 8: numbers 32 i + 8 t .. + 8
    uint4 v[V_PARTS][4];                 // keys 2 t, 2 t + 1, 2 t + 8, 2 t + 9: numbers 64 i + 8 g .. + 8
    uint2 v_half[V_HALF ? V_HALF : 1][4]; // the same keys: numbers 64 + 4 g .. + 4

    DEVICE void load(const AttentionDecodeParams &p, u64 at, u64, const Run &run, u32 page) {
        const u32 kv_dim = p.n_kv_heads * HEAD_DIM;
        const A *k_page = static_cast<const A *>(p.k) + at, *v_page = static_cast<const A *>(p.v) + at;
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

    static DEVICE void load_q(uint4 (&q)[HEAD_DIM / 32], const A *head, bool valid) {
        head += threadIdx.x % 4 * 8;
#pragma unroll
        for (u32 i = 0; i < HEAD_DIM / 32; i++) q[i] = valid ? load16_nc(head + 32 * i) : make_uint4(0, 0, 0, 0);
    }

    DEVICE void products(float (&s)[2][4], const uint4 (&q)[HEAD_DIM / 32]) const {
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
#pragma unroll
            for (u32 i = 0; i < K_PARTS; i++) {
                const u32 first[4] = {q[i].x, 0, q[i].y, 0}, second[4] = {q[i].z, 0, q[i].w, 0};
                mma_16816(s[h], first, k[h][i].x, k[h][i].y);
                mma_16816(s[h], second, k[h][i].z, k[h][i].w);
            }
        }
    }

    DEVICE float of_key(float score, u32) const { return score; }
    DEVICE float of_value(float weight, u32) const { return weight; }

    // acc[i]: numbers 2 i, 2 i + 1 of the lane's runs in V.
    DEVICE void add_values(float (&acc)[HEAD_DIM / 16][4], u32 p_low, u32 p_high) const {
#pragma unroll
        for (u32 i = 0; i < V_PARTS; i++) {
            add_pairs(acc[4 * i], v[i][0].x, v[i][1].x, v[i][2].x, v[i][3].x, p_low, p_high);
            add_pairs(acc[4 * i + 1], v[i][0].y, v[i][1].y, v[i][2].y, v[i][3].y, p_low, p_high);
            add_pairs(acc[4 * i + 2], v[i][0].z, v[i][1].z, v[i][2].z, v[i][3].z, p_low, p_high);
            add_pairs(acc[4 * i + 3], v[i][0].w, v[i][1].w, v[i][2].w, v[i][3].w, p_low, p_high);
        }
        if (V_HALF) {
            const uint2(&half)[4] = v_half[0];
            add_pairs(acc[4 * V_PARTS], half[0].x, half[1].x, half[2].x, half[3].x, p_low, p_high);
            add_pairs(acc[4 * V_PARTS + 1], half[0].y, half[1].y, half[2].y, half[3].y, p_low, p_high);
        }
    }

    // Pairs of numbers of four keys, exchanged to pairs of two keys.
    static DEVICE void add_pairs(float (&acc)[4], u32 v0, u32 v1, u32 v2, u32 v3, u32 p_low, u32 p_high) {
        const u32 a[4] = {__byte_perm(v0, v1, 0x5410), __byte_perm(v0, v1, 0x7632), __byte_perm(v2, v3, 0x5410),
                          __byte_perm(v2, v3, 0x7632)};
        mma_16816(acc, a, p_low, p_high);
    }

    static DEVICE bool in_whole_64(u32 unit) { return unit < HEAD_DIM / 64 * 16; } // else of the last 32 numbers
    static DEVICE u32 unit(u32 i, u32 g) { return in_whole_64(i / 4 * 16) ? i / 4 * 16 + 2 * g + i % 4 / 2 : i / 4 * 16 + g; }

    // Eight lanes of a store have heads 0, 2, 4, 6 and units u, u + 2, and this sends them to eight different groups of banks; after the
    // last 64 numbers units u, u + 1.
    static DEVICE u32 place(u32 head, u32 u) { return u ^ (in_whole_64(u) ? head / 2 % 2 + head / 4 * 4 : head / 2 * 2); }
    static DEVICE float4 result(float4 sums) { return sums; }
};

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

#define INSTANCE(HEAD_DIM)                                                                                             \
    extern "C" __global__ void DECODE_BOUNDS attention_decode_##HEAD_DIM(const AttentionDecodeParams p) {              \
        attention_decode<Tile<HEAD_DIM>>(p);                                                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_combine_##HEAD_DIM(const AttentionDecodeParams p) { \
        attention_combine<HEAD_DIM>(p);                                                                                \
    }
INSTANCE(64)
INSTANCE(96)
INSTANCE(128)
