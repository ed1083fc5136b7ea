// out [rows, n] = x [rows, k] . w [n, k]^T for 1 to 8 rows: the weights stream by once, for all rows together.
//
// Mapping: a warp owns 4 rows of w; `split` warps of a block (1, 2 or 4) share them, each with every split-th pair of
// chunks of 256 columns. A lane holds 8 columns of a chunk: one 16-byte load for each row of w, eight of them under way.
// Sums: a lane's columns in order, then the lanes in a tree, then the warps in order: neither the number of rows nor
// the instance changes the bits of a row.
//
// Preconditions: k % 32 == 0; x, w 16-byte aligned; rows <= ROWS, the instance; with SwiGLU n is even, gates are the
// rows [0, n / 2) of w, ups the others, and n / 2 is even.
// Instructions a weight in the main loop, sm_80: 2.7 for one row, 4.0 for two, 6.7 for four, 11.9 for eight. A chunk of its own
// for each warp instead of pairs costs 0.25 more in addresses.
// Bytes moved: n k 2 of w, once; of x rows * k * 2 for each warp, nearly all from the L1 cache.

// What becomes of a sum; the same numbers in cuda.rs.
enum Epilogue : u32 { STORE, ADD_F32, STORE_F32, SWIGLU };

struct GemvParams {
    const A *x;   // [rows, k]
    const A *w;   // [n, k]
    void *out;    // [rows, n]: A, or f32; with SwiGLU A [rows, n / 2]
    u32 rows, n, k;
    u32 epilogue; // Epilogue
    u32 split_log2; // warps to a group of four rows of w: 1, 2 or 4
    u32 unused;
};
static_assert(sizeof(GemvParams) == 48, "GemvParams");

constexpr int WARPS = 4;
constexpr int OUTS = 4;
constexpr int CHUNK = 32 * 8; // columns that a warp loads at once

// Sums of N values over the lanes of a warp. Each step halves the values that a lane still looks after; for N values at
// the start, lane l ends with the value l / (32 / N). The tree is the same for every N.
template <int N, int LANES = 16> DEVICE float warp_sums(const float (&v)[N], u32 lane) {
    if constexpr (LANES == 0) {
        return v[0];
    } else if constexpr (N == 1) {
        const float sum[1] = {v[0] + __shfl_xor_sync(~0u, v[0], LANES)};
        return warp_sums<1, LANES / 2>(sum, lane);
    } else {
        const bool upper = lane & LANES;
        float half[N / 2];
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            const float keep = upper ? v[i + N / 2] : v[i];
            const float give = upper ? v[i] : v[i + N / 2];
            half[i] = keep + __shfl_xor_sync(~0u, give, LANES);
        }
        return warp_sums<N / 2, LANES / 2>(half, lane);
    }
}

// The products of N chunks from column `at` of this lane on. TAIL: columns from k on count as zeros.
template <int ROWS, int N, bool TAIL>
DEVICE void chunks(float (&sums)[OUTS * ROWS], const A *const (&w)[OUTS], const A *const (&x)[ROWS], u32 at, u32 k) {
    uint4 weights[N][OUTS];
#pragma unroll
    for (int i = 0; i < N; i++) {
#pragma unroll
        for (int o = 0; o < OUTS; o++) {
            weights[i][o] = make_uint4(0, 0, 0, 0);
            if (!TAIL || at + i * CHUNK < k) weights[i][o] = load16_once((w[o] + at) + i * CHUNK);
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        float f[OUTS][8];
#pragma unroll
        for (int o = 0; o < OUTS; o++) unpack8(f[o], weights[i][o]);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            uint4 v = make_uint4(0, 0, 0, 0);
            if (!TAIL || at + i * CHUNK < k) v = load16_nc((x[r] + at) + i * CHUNK);
            float g[8];
            unpack8(g, v);
#pragma unroll
            for (int o = 0; o < OUTS; o++) {
#pragma unroll
                for (int c = 0; c < 8; c++) sums[o * ROWS + r] = fmaf(f[o][c], g[c], sums[o * ROWS + r]);
            }
        }
    }
}

template <int ROWS> DEVICE void gemv(const GemvParams &p) {
    constexpr int V = OUTS * ROWS; // value o * ROWS + r: row o of the four of w, row r of x
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 split = 1 << p.split_log2, part = warp & (split - 1);
    const u32 group = (blockIdx.x * WARPS + warp) >> p.split_log2;
    // Rows of w: first, first + 1, first + second, first + second + 1.
    const bool swiglu = p.epilogue == SWIGLU;
    const u32 first = group * (swiglu ? 2 : 4), second = swiglu ? p.n / 2 : 2;
    const bool active = first < (swiglu ? p.n / 2 : p.n);

    float sums[V] = {};
    if (active) {
        const A *w[OUTS], *x[ROWS];
#pragma unroll
        for (int o = 0; o < OUTS; o++) w[o] = p.w + u64(min(first + o % 2 + o / 2 * second, p.n - 1)) * p.k;
#pragma unroll
        for (int r = 0; r < ROWS; r++) x[r] = p.x + min(u32(r), p.rows - 1) * p.k;
        const u32 pair = 2 * CHUNK;
        u32 at = part * pair;
        for (; at + pair <= p.k; at += split * pair) chunks<ROWS, 2, false>(sums, w, x, at + lane * 8, p.k);
        for (u32 end = min(at + pair, p.k); at < end; at += CHUNK) chunks<ROWS, 1, true>(sums, w, x, at + lane * 8, p.k);
    }
    float sum = warp_sums<V>(sums, lane);
    const u32 value = lane / (32 / V);

    __shared__ float shared[WARPS][V];
    if (split > 1) {
        if (lane % (32 / V) == 0) shared[warp][value] = sum;
        __syncthreads();
        if (part != 0) return;
        for (u32 i = 1; i < split; i++) sum += shared[warp + i][value];
    }

    const u32 o = value / ROWS, r = value % ROWS;
    const u32 row = first + o % 2 + o / 2 * second;
    const float up = __shfl_xor_sync(~0u, sum, 16); // of lanes 0..15, which have the gates
    if (!active || lane % (32 / V) != 0 || r >= p.rows || row >= p.n) return;
    const u64 at = u64(r) * p.n + row;
    if (p.epilogue == STORE) {
        static_cast<A *>(p.out)[at] = to_a(sum);
    } else if (p.epilogue == ADD_F32) {
        static_cast<float *>(p.out)[at] += sum;
    } else if (p.epilogue == STORE_F32) {
        static_cast<float *>(p.out)[at] = sum;
    } else if (o < 2) {
        static_cast<A *>(p.out)[u64(r) * second + row] = to_a(silu(sum) * up);
    }
}

#define GEMV(ROWS)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 3) matmul_gemv_##ROWS(const GemvParams p) {                  \
        gemv<ROWS>(p);                                                                                                 \
    }
GEMV(1)
GEMV(2)
GEMV(4)
GEMV(8)
