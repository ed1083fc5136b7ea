// out [rows, n] = x [rows, k] . w [n, k]^T on tensor cores, for 9 rows and more.
//
// A block of 4 warps computes BM rows by BN columns of out. Tiles of BK columns of x and w go through STAGES buffers in
// shared memory, by cp.async of 16 bytes; ldmatrix takes the fragments from there, mma accumulates in f32.
//   skinny (9 to 64 rows): BM 16, 32 or 64 by BN 64. The four warps have the same tile and a quarter of each stage's
//     columns; their sums are added in the order of the warps, through shared memory. Bound by the bytes of w.
//   gemm (more rows): 128 by 128, a warp has 64 by 64: 64 mma to 16 ldmatrix a stage, so BK 32 and three stages, 48 KiB,
//     leave room for two blocks on every multiprocessor of 100 KiB.
// Where the tiles are too few for the device, gridDim.z blocks share the columns of a tile (split-K): f32 partial sums in
// the workspace, added in order by matmul_reduce.
//
// Swizzle: a row of a tile is BK / 8 chunks of 16 bytes, chunk c of row r lies at c ^ r % 8 (BK 64; in two rows of 64
// bytes, BK 32: c ^ r / 2 % 4), so that the eight rows of an ldmatrix matrix, and the eight lanes that write 128 bytes,
// meet every bank once: no conflicts.
//
// Preconditions: k % 32 == 0; x, w 16-byte aligned; grid (tiles of rows, tiles of columns, splits), splits <= tiles of k;
// with SwiGLU n / 2 % 8 == 0. Edges: rows beyond the last of x (gemm) or w repeat it, missing rows of x (skinny) and
// columns are zeros and not read; nothing of them is stored.
// Bytes moved: w once for each tile of rows, x once for each tile of columns; partial sums 8 bytes each and split.
//
// The main loop of gemm, in instructions of sm_80 for 64 mma of a tile (share of HMMA; sm_75: 75 %, sm_90: 61 %):
//   103.7 (62 %)  as it is: a round of three tiles, every address a register and a constant
//   112.3 (57 %)  addresses in shared memory computed again from the thread's index, as the compiler would: hence keep()
//   119.3 (54 %)  and rows of x beyond the last filled with zeros, at a predicate a copy
//   133   (48 %)  one tile a round: the stage's offset in a register, 64-bit sums for every source
// For sm_120 ptxas 12.9 puts a NOP behind every mma: 157 instructions (41 %), 101 without them.
// Sums stored from the registers, pair by pair: 6,264 instructions of code (now 1,344), half of each sector in 16 bits.

// What becomes of a sum; the same numbers in cuda.rs.
enum Epilogue : u32 { STORE, ADD_F32, STORE_F32, SWIGLU };

struct TileParams {
    const A *x;      // [rows, k]
    const A *w;      // [n, k]
    void *out;       // [rows, n]: A, or f32; with SwiGLU A [rows, n / 2]
    float *partials; // [splits, rows, n], where there are several splits
    u32 rows, n, k;
    u32 epilogue; // Epilogue
};
static_assert(sizeof(TileParams) == 48, "TileParams");

constexpr int THREADS = 128;

// Bytes from the start of a tile to a chunk of a row.
template <int BK> DEVICE u32 swizzled(u32 row, u32 chunk) {
    static_assert(BK == 32 || BK == 64, "swizzle");
    return row * (BK * 2) + ((chunk ^ (BK == 64 ? row % 8 : row / 2 % 4)) * 16);
}

// Columns c.. c + 3 of row r, to partial sums or to out by any epilogue but SWIGLU. c % 4 == 0.
DEVICE void store4(const TileParams &p, u32 r, u32 c, float4 v) {
    const u64 at = u64(r) * p.n + c;
    const bool vectors = p.n % 4 == 0; // else rows are misaligned for them
    const float sums[4] = {v.x, v.y, v.z, v.w};
    if (gridDim.z > 1 || p.epilogue != STORE) {
        float *to = gridDim.z > 1 ? p.partials + u64(blockIdx.z) * p.rows * p.n + at : static_cast<float *>(p.out) + at;
        const float add = gridDim.z == 1 && p.epilogue == ADD_F32 ? 1.0f : 0.0f;
        if (vectors) {
            const float4 old = add != 0.0f ? *reinterpret_cast<float4 *>(to) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            *reinterpret_cast<float4 *>(to) = make_float4(v.x + old.x, v.y + old.y, v.z + old.z, v.w + old.w);
        } else {
            for (u32 i = 0; i < 4; i++) {
                if (c + i < p.n) to[i] = (add != 0.0f ? to[i] : 0.0f) + sums[i];
            }
        }
    } else {
        A *to = static_cast<A *>(p.out) + at;
        if (vectors) {
            *reinterpret_cast<uint2 *>(to) = make_uint2(pack2(v.x, v.y), pack2(v.z, v.w));
        } else {
            for (u32 i = 0; i < 4; i++) {
                if (c + i < p.n) to[i] = to_a(sums[i]);
            }
        }
    }
}

// WM x WN x WK warps; a warp has BM / WM rows, BN / WN columns, and every WK-th 16 of a stage's BK columns of k.
template <int BM, int BN, int BK, int WM, int WN, int WK, int STAGES> struct Tile {
    static constexpr int TM = BM / WM / 16, TN = BN / WN / 8; // mma tiles of a warp
    static constexpr int X_BYTES = BM * BK * 2, STAGE_BYTES = X_BYTES + BN * BK * 2;
    static constexpr int CHUNKS = BK / 8, PASS = THREADS / CHUNKS; // rows that the block copies at once
    static constexpr int X_COPIES = (BM + PASS - 1) / PASS, W_COPIES = BN / PASS;
    static_assert(WM * WN * WK * 32 == THREADS && BM % PASS == 0 && BN % PASS == 0, "Tile");

    // Sources of this thread's copies, at its column of the first tile in the current round of STAGES.
    const A *x_from[X_COPIES], *w_from[W_COPIES];
    bool x_valid[X_COPIES];
    u32 column; // of the same
    u32 to;     // their destination in the first stage
    u32 x_at[BK / 16 / WK], w_at[BK / 16 / WK]; // fragments of this lane, in the first stage

    DEVICE void begin(const TileParams &p, u32 wm, u32 wn, u32 wk, u32 first) {
        const u32 lane = threadIdx.x % 32, row = threadIdx.x / CHUNKS;
        const u32 shared = shared_address(dynamic_shared());
        to = shared + swizzled<BK>(row, threadIdx.x % CHUNKS);
        keep(to);
        column = first * BK + threadIdx.x % CHUNKS * 8;
#pragma unroll
        for (int i = 0; i < X_COPIES; i++) {
            const u32 r = blockIdx.x * BM + row + i * PASS;
            x_valid[i] = WK == 1 || r < p.rows;
            x_from[i] = p.x + u64(min(r, p.rows - 1)) * p.k + column;
        }
#pragma unroll
        for (int i = 0; i < W_COPIES; i++) {
            const u32 b = row + i * PASS;
            const u32 plain = min(blockIdx.y * BN + b, p.n - 1);
            const u32 gate = min(blockIdx.y * (BN / 2) + b / 16 * 8 + b % 8, p.n / 2 - 1);
            const u32 r = p.epilogue == SWIGLU ? gate + b / 8 % 2 * (p.n / 2) : plain;
            w_from[i] = p.w + u64(r) * p.k + column;
        }
        // Matrices of x are (rows 0.., k 0..), (8.., 0..), (0.., 8..), (8.., 8..), of w with the middle two exchanged, so
        // that registers 0, 1 are one mma's b and 2, 3 the next one's.
        const u32 x_row = wm * TM * 16 + lane % 16, w_row = wn * TN * 8 + lane / 16 * 8 + lane % 8;
#pragma unroll
        for (int s = 0; s < BK / 16 / WK; s++) {
            const u32 chunk = 2 * (s * WK + wk);
            x_at[s] = shared + swizzled<BK>(x_row, chunk + lane / 16);
            w_at[s] = shared + X_BYTES + swizzled<BK>(w_row, chunk + lane / 8 % 2);
            keep(x_at[s]);
            keep(w_at[s]);
        }
    }

    // Starts the copy of tile `tile` of the round into its stage.
    DEVICE void load(const TileParams &p, int tile) const {
        const u32 stage = to + tile % STAGES * STAGE_BYTES;
        const bool inside = BK == 32 || column + tile * BK < p.k;
#pragma unroll
        for (int i = 0; i < X_COPIES; i++) {
            cp_async16(stage + i * PASS * BK * 2, x_from[i] + tile * BK, x_valid[i] && inside);
        }
#pragma unroll
        for (int i = 0; i < W_COPIES; i++) cp_async16(stage + X_BYTES + i * PASS * BK * 2, w_from[i] + tile * BK, inside);
    }

    DEVICE void multiply(float (&sums)[TM][TN][4], u32 stage) const {
#pragma unroll
        for (int s = 0; s < BK / 16 / WK; s++) {
            u32 x[TM][4], w[TN / 2][4];
#pragma unroll
            for (int i = 0; i < TM; i++) ldmatrix_x4(x[i], x_at[s] + stage * STAGE_BYTES + i * 16 * BK * 2);
#pragma unroll
            for (int j = 0; j < TN / 2; j++) ldmatrix_x4(w[j], w_at[s] + stage * STAGE_BYTES + j * 16 * BK * 2);
#pragma unroll
            for (int i = 0; i < TM; i++) {
#pragma unroll
                for (int j = 0; j < TN; j++) mma_16816(sums[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]);
            }
        }
    }

    DEVICE void run(const TileParams &p) {
        const u32 warp = threadIdx.x / 32, tiles = (p.k + BK - 1) / BK;
        const u32 first = tiles * blockIdx.z / gridDim.z;
        u32 left = tiles * (blockIdx.z + 1) / gridDim.z - first;
        const u32 wk = warp % WK, wn = warp / WK % WN, wm = warp / WK / WN;
        begin(p, wm, wn, wk, first);
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            if (s < left) load(p, s);
            cp_async_commit();
        }
        float sums[TM][TN][4] = {};
        for (;;) {
#pragma unroll
            for (int s = 0; s < STAGES; s++) {
                if (left == 0) goto done;
                cp_async_wait<STAGES - 2>();
                __syncthreads(); // the copies of all threads are there, and all are done with the stage that is filled next
                if (left >= STAGES) load(p, s + STAGES - 1);
                cp_async_commit();
                multiply(sums, s);
                left--;
            }
            column += STAGES * BK;
#pragma unroll
            for (int i = 0; i < X_COPIES; i++) x_from[i] += STAGES * BK;
#pragma unroll
            for (int i = 0; i < W_COPIES; i++) w_from[i] += STAGES * BK;
        }
    done:
        finish(p, sums, wm, wn);
    }

    // Sums go through shared memory, so that what is stored is whole sectors, and the warps' parts are added: f32
    // [warps][SLICE rows][64 columns], chunk c of 16 bytes of row r at c ^ 2 * (r % 4), without conflicts either way.
    // gemm: every warp its own 32 rows, twice, since more than 32 KiB would not fit; skinny: all rows at once.
    static constexpr int SLICE = WK == 1 ? 32 : BM, WIDTH = TN * 8, GROUP = WK == 1 ? 32 : THREADS;
    static_assert(WIDTH == 64 && TM * 16 % SLICE == 0, "slices");
    static_assert(THREADS / 32 * SLICE * WIDTH * 4 <= STAGES * STAGE_BYTES, "sums in shared memory");

    DEVICE static u32 place(u32 row, u32 chunk) {
        return row * (WIDTH / 4) + (chunk ^ (row % 4 * 2));
    }

    // The sum over the warps that share a tile, in their order.
    DEVICE static float4 sum4(const float4 *sums, u32 row, u32 chunk) {
        float4 sum = sums[place(row, chunk)];
#pragma unroll
        for (int i = 1; i < WK; i++) {
            const float4 v = sums[i * SLICE * WIDTH / 4 + place(row, chunk)];
            sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
        }
        return sum;
    }

    DEVICE void finish(const TileParams &p, const float (&sums)[TM][TN][4], u32 wm, u32 wn) {
        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        float4 *all = reinterpret_cast<float4 *>(dynamic_shared());
        float4 *mine = all + warp * (SLICE * WIDTH / 4);
        cp_async_wait<0>();
#pragma unroll 1
        for (u32 pass = 0; pass < TM * 16 / SLICE; pass++) {
            __syncthreads();
#pragma unroll
            for (int i = 0; i < TM; i++) {
                if (pass != i * 16 / SLICE) continue;
                const u32 row = i * 16 % SLICE + lane / 4;
#pragma unroll
                for (int j = 0; j < TN; j++) {
                    const u32 chunk = j * 2 + lane % 4 / 2, pair = lane % 2;
                    const float(&s)[4] = sums[i][j];
                    reinterpret_cast<float2 *>(mine + place(row, chunk))[pair] = make_float2(s[0], s[1]);
                    reinterpret_cast<float2 *>(mine + place(row + 8, chunk))[pair] = make_float2(s[2], s[3]);
                }
            }
            __syncthreads();
            const u32 row = blockIdx.x * BM + wm * TM * 16 + pass * SLICE;
            store(p, WK == 1 ? mine : all, row, wn * WIDTH);
        }
    }

    // SLICE rows of sums, from row `row` of out and the block's column `column` on, by GROUP threads.
    DEVICE void store(const TileParams &p, const float4 *sums, u32 row, u32 column) const {
        const u32 thread = threadIdx.x % GROUP, hidden = p.n / 2;
        if (p.epilogue != SWIGLU) {
#pragma unroll 2
            for (u32 i = thread; i < SLICE * WIDTH / 4; i += GROUP) {
                const u32 r = i / (WIDTH / 4), chunk = i % (WIDTH / 4);
                const u32 c = blockIdx.y * BN + column + chunk * 4;
                if (row + r < p.rows && c < p.n) store4(p, row + r, c, sum4(sums, r, chunk));
            }
            return;
        }
        // Of 16 columns the first 8 are gates, the others the ups of the same outputs. Eight lanes take four chunks of each of
        // two rows, which the swizzle keeps in different banks; of one row they would meet twice.
#pragma unroll 2
        for (u32 i = thread; i < SLICE * WIDTH / 8; i += GROUP) {
            const u32 r = i / 16 * 2 + i / 4 % 2, half = i / 8 % 2 * 4 + i % 4, chunk = half / 2 * 4 + half % 2;
            const u32 c = (blockIdx.y * BN + column) / 2 + half * 4;
            if (row + r >= p.rows || c >= hidden) continue;
            const float4 gate = sum4(sums, r, chunk), up = sum4(sums, r, chunk + 2);
            if (gridDim.z > 1) {
                store4(p, row + r, c, gate);
                store4(p, row + r, hidden + c, up);
            } else {
                uint2 *to = reinterpret_cast<uint2 *>(static_cast<A *>(p.out) + u64(row + r) * hidden + c);
                *to = make_uint2(pack2(silu(gate.x) * up.x, silu(gate.y) * up.y),
                                 pack2(silu(gate.z) * up.z, silu(gate.w) * up.w));
            }
        }
    }
};

// Dynamic shared memory: STAGES * STAGE_BYTES.
#define TILE(NAME, BLOCKS, ...)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const TileParams p) {                           \
        Tile<__VA_ARGS__> tile;                                                                                        \
        tile.run(p);                                                                                                   \
    }
TILE(matmul_skinny_16, 4, 16, 64, 64, 1, 1, 4, 4)
TILE(matmul_skinny_32, 3, 32, 64, 64, 1, 1, 4, 4)
TILE(matmul_skinny_64, 2, 64, 64, 64, 1, 1, 4, 4)
TILE(matmul_gemm, 2, 128, 128, 32, 2, 2, 1, 3)

struct ReduceParams {
    const float *partials; // [splits, rows, n]
    void *out;             // as in TileParams
    u32 rows, n, splits;
    u32 epilogue; // Epilogue
};
static_assert(sizeof(ReduceParams) == 32, "ReduceParams");

// The epilogue of tiles whose columns were split. Mapping: a thread has one output; grid (outputs of a row / 256, rows).
// Bytes moved: splits * 4 read for each sum.
extern "C" __global__ void __launch_bounds__(256) matmul_reduce(const ReduceParams p) {
    const u32 r = blockIdx.y, c = blockIdx.x * 256 + threadIdx.x;
    const u32 width = p.epilogue == SWIGLU ? p.n / 2 : p.n;
    if (c >= width) return;
    const float *from = p.partials + u64(r) * p.n + c;
    const u64 split = u64(p.rows) * p.n, at = u64(r) * width + c;
    float sum = 0.0f, up = 0.0f;
    for (u32 s = 0; s < p.splits; s++, from += split) {
        sum += from[0];
        if (p.epilogue == SWIGLU) up += from[width];
    }
    if (p.epilogue == STORE) {
        static_cast<A *>(p.out)[at] = to_a(sum);
    } else if (p.epilogue == ADD_F32) {
        static_cast<float *>(p.out)[at] += sum;
    } else if (p.epilogue == STORE_F32) {
        static_cast<float *>(p.out)[at] = sum;
    } else {
        static_cast<A *>(p.out)[at] = to_a(silu(sum) * up);
    }
}
