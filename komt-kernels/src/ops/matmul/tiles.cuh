// out [rows, n] = x [rows, k] . w [n, k]^T on tensor cores, for 9 rows and more: the template; tiles.cu and tiles_quant.cu have
// the kernels.
//
// A block of 4 warps computes BM rows by BN columns of out. Tiles of BK columns of x and w go through STAGES buffers in
// shared memory, by cp.async of 16 bytes; ldmatrix takes the fragments from there, mma accumulates in f32.
//   skinny (9 to 64 rows): BM 16, 32 or 64 by BN 64. The four warps have the same tile and a quarter of each stage's
//     columns; their sums are added in the order of the warps, through shared memory. Bound by the bytes of w.
//   gemm (more rows): 128 by 128, a warp has 64 by 64: 64 mma to 16 ldmatrix a stage, so BK 32 and three stages, 48 KiB,
//     leave room for two blocks on every multiprocessor of 100 KiB.
// Quantised matrices (BITS 8 and 4; quant.cuh) come to shared memory packed. ldmatrix gives each lane the words of its fragments;
// they become (quant * scale) in the type A on the way to mma, rounded to it once, and the sums take the row's scale in f32. Each
// row's scales of a stage are made pairs of A by one thread, which loads them a tile ahead. For gemm the four warps stand side by
// side, 128 by 32, so that nobody's weights are unpacked twice.
// Where the tiles are too few for the device, gridDim.z blocks share the columns of a tile (split-K): f32 partial sums in
// the workspace, added in order by matmul_reduce.
//
// Swizzle: a row of a tile is C chunks of 16 bytes (BK / 8 of them; quantised BK * BITS / 128), chunk c of row r lies at
// c ^ r / (8 / C) % C, so that the eight rows of an ldmatrix matrix, and the eight lanes that write 128 bytes, meet every
// bank once: no conflicts.
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
// Quantised: 178 (36 %, q4) and 190 (34 %, q8); with the warps two by two, so that each unpacks twice as much, some 230 (27 %).
// For sm_120 ptxas 12.9 puts a NOP behind every mma: 157 instructions (41 %), 101 without them.
// Sums stored from the registers, pair by pair: 6,264 instructions of code (now 1,344), half of each sector in 16 bits.

// What becomes of a sum; the same numbers in cuda.rs.
enum Epilogue : u32 { STORE, ADD_F32, STORE_F32, SWIGLU };

struct TileParams {
    const A *x;      // [rows, k]
    const u8 *w;     // [n, k] of A, or as in quant.cuh
    void *out;       // [rows, n]: A, or f32; with SwiGLU A [rows, n / 2]
    float *partials; // [splits, rows, n], where there are several splits
    u32 rows, n, k;
    u32 epilogue; // Epilogue
};
static_assert(sizeof(TileParams) == 48, "TileParams");

constexpr int THREADS = 128;

// Bytes from the start of a tile to a chunk of a row.
template <int CHUNKS> DEVICE u32 swizzled(u32 row, u32 chunk) {
    static_assert(CHUNKS <= 8 && 8 % CHUNKS == 0, "swizzle");
    return row * (CHUNKS * 16) + (chunk ^ row / (8 / CHUNKS) % CHUNKS) * 16;
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

// The scales of a row of w in a stage, GROUPS of them in one load, and where they go as pairs of A.
template <int BITS, int GROUPS> struct Scales {
    static constexpr u32 BYTES = GROUPS * 4;
    const u8 *from;
    u32 to, raw;

    DEVICE void load(u32 offset) {
        if constexpr (GROUPS == 4) raw = *reinterpret_cast<const u32 *>(from + offset);
        if constexpr (GROUPS == 2) raw = *reinterpret_cast<const u16 *>(from + offset);
        if constexpr (GROUPS == 1) raw = from[offset];
    }
    DEVICE void store(u8 *stage, const Quant<BITS> &q) const {
        u8 *at = stage + to;
        if constexpr (GROUPS == 4) {
            *reinterpret_cast<uint4 *>(at) = make_uint4(q.template scale_pair<0>(raw), q.template scale_pair<1>(raw),
                                                        q.template scale_pair<2>(raw), q.template scale_pair<3>(raw));
        } else if constexpr (GROUPS == 2) {
            *reinterpret_cast<uint2 *>(at) = make_uint2(q.template scale_pair<0>(raw), q.template scale_pair<1>(raw));
        } else {
            *reinterpret_cast<u32 *>(at) = q.template scale_pair<0>(raw);
        }
    }
};

// WM x WN x WK warps; a warp has BM / WM rows, BN / WN columns, and every WK-th 16 of a stage's BK columns of k.
// BITS of a number of w: 16 is A, 8 and 4 are quantised.
template <int BITS, int BM, int BN, int BK, int WM, int WN, int WK, int STAGES> struct Tile {
    static constexpr int TM = BM / WM / 16, TN = BN / WN / 8; // mma tiles of a warp
    static constexpr bool QUANT = BITS != 16;
    static constexpr int GROUPS = BK / (BITS == 4 ? 16 : 32); // of a row's scales in a stage
    static constexpr int X_BYTES = BM * BK * 2, W_ROW = BK * BITS / 8, W_BYTES = BN * W_ROW;
    static constexpr int STAGE_BYTES = X_BYTES + W_BYTES + (QUANT ? BN * GROUPS * 4 : 0);
    static constexpr int CHUNKS = BK / 8, PASS = THREADS / CHUNKS; // rows that the block copies at once
    static constexpr int W_CHUNKS = W_ROW / 16, W_PASS = THREADS / W_CHUNKS;
    static constexpr int X_COPIES = (BM + PASS - 1) / PASS, W_COPIES = BN / W_PASS;
    static_assert(WM * WN * WK * 32 == THREADS && BM % PASS == 0 && BN % W_PASS == 0 && BN <= THREADS, "Tile");

    // Sources of this thread's copies, at its column of the first tile in the current round of STAGES.
    const A *x_from[X_COPIES];
    const u8 *w_from[W_COPIES];
    bool x_valid[X_COPIES];
    u32 column, w_column; // of the same
    u32 to, w_to;         // their destination in the first stage
    u32 x_at[BK / 16 / WK], w_at[BK / 16 / WK]; // fragments of this lane, in the first stage
    Quant<BITS> quant;
    Scales<BITS, GROUPS> scales;
    u32 s_at, half; // this lane's scales in the first stage; by what its warp shifts words of two steps

    // The row of w that is column b of the block's.
    DEVICE static u32 w_row(const TileParams &p, u32 b) {
        const u32 plain = min(blockIdx.y * BN + b, p.n - 1);
        const u32 gate = min(blockIdx.y * (BN / 2) + b / 16 * 8 + b % 8, p.n / 2 - 1);
        return p.epilogue == SWIGLU ? gate + b / 8 % 2 * (p.n / 2) : plain;
    }

    DEVICE void begin(const TileParams &p, u32 wm, u32 wn, u32 wk, u32 first) {
        const u32 lane = threadIdx.x % 32, row = threadIdx.x / CHUNKS;
        const u32 shared = shared_address(dynamic_shared());
        to = shared + swizzled<CHUNKS>(row, threadIdx.x % CHUNKS);
        keep(to);
        column = first * BK + threadIdx.x % CHUNKS * 8;
        if constexpr (QUANT) {
            w_to = shared + X_BYTES + swizzled<W_CHUNKS>(threadIdx.x / W_CHUNKS, threadIdx.x % W_CHUNKS);
            keep(w_to);
            w_column = first * BK + threadIdx.x % W_CHUNKS * Quant<BITS>::UNIT;
        }
#pragma unroll
        for (int i = 0; i < X_COPIES; i++) {
            const u32 r = blockIdx.x * BM + row + i * PASS;
            x_valid[i] = WK == 1 || r < p.rows;
            x_from[i] = p.x + u64(min(r, p.rows - 1)) * p.k + column;
        }
#pragma unroll
        for (int i = 0; i < W_COPIES; i++) {
            if constexpr (QUANT) {
                const u32 r = w_row(p, threadIdx.x / W_CHUNKS + i * W_PASS);
                w_from[i] = p.w + u64(r) * Quant<BITS>::row_bytes(p.k) + w_column / 8 * BITS;
            } else {
                w_from[i] = p.w + (u64(w_row(p, row + i * PASS)) * p.k + column) * 2;
            }
        }
        if constexpr (QUANT) {
            using Q = Quant<BITS>;
            const u32 r = w_row(p, min(threadIdx.x, BN - 1));
            scales.from = Q::scales(p.w, p.n, p.k) + u64(r) * Q::scale_bytes(p.k) + first * GROUPS;
            scales.to = X_BYTES + W_BYTES + threadIdx.x * scales.BYTES;
            s_at = X_BYTES + W_BYTES + (wn * TN * 8 + lane / 4) * scales.BYTES + wk * 16 / Q::GROUP * 4;
            half = wk % 2 * 8;
            quant.begin();
        }
        // Matrices of x are (rows 0.., k 0..), (8.., 0..), (0.., 8..), (8.., 8..), of w with the middle two exchanged, so
        // that registers 0, 1 are one mma's b and 2, 3 the next one's.
        const u32 x_row = wm * TM * 16 + lane % 16, w_row = wn * TN * 8 + lane / 16 * 8 + lane % 8; // of the tile
#pragma unroll
        for (int s = 0; s < BK / 16 / WK; s++) {
            const u32 chunk = 2 * (s * WK + wk);
            x_at[s] = shared + swizzled<CHUNKS>(x_row, chunk + lane / 16);
            if constexpr (QUANT) {
                // Four times eight rows of the words that hold this step.
                const u32 unit = (s * WK + wk) * 16 / Quant<BITS>::UNIT;
                w_at[s] = shared + X_BYTES + swizzled<W_CHUNKS>(wn * TN * 8 + lane, unit);
            } else {
                w_at[s] = shared + X_BYTES + swizzled<CHUNKS>(w_row, chunk + lane / 8 % 2);
            }
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
        for (int i = 0; i < W_COPIES; i++) {
            if constexpr (QUANT) {
                const bool w_inside = BK <= Quant<BITS>::UNIT || w_column + tile * BK < p.k;
                cp_async16(w_to + tile % STAGES * STAGE_BYTES + i * W_PASS * W_ROW, w_from[i] + tile * W_ROW, w_inside);
            } else {
                cp_async16(stage + X_BYTES + i * PASS * BK * 2, w_from[i] + tile * BK * 2, inside);
            }
        }
    }

    // The fragments of step s of w: pairs of registers as if ldmatrix had read them in the type A.
    DEVICE void unpack(u32 (&w)[TN / 2][4], u32 (&words)[TN / 4][4], u32 stage, int s) const {
        using Q = Quant<BITS>;
        const bool is_new = BITS == 8 || WK > 1 || s % 2 == 0; // else the words' other halves
        const u8 *at = dynamic_shared() + stage * STAGE_BYTES + s_at + (WK == 1 ? s * 16 / Q::GROUP * 4 : 0);
#pragma unroll
        for (int j = 0; j < TN / 4; j++) {
            if (is_new) ldmatrix_x4(words[j], w_at[s] + stage * STAGE_BYTES + j * 32 * W_ROW);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const u32 scale = *reinterpret_cast<const u32 *>(at + (j * 4 + i) * 8 * scales.BYTES);
                const u32 word = BITS == 8 ? words[j][i] : words[j][i] >> (WK == 1 ? s % 2 * 8 : half);
                w[j * 2 + i / 2][i % 2 * 2] = fma2(quant.template pair<0>(word), scale, 0x80008000); // - 0
                w[j * 2 + i / 2][i % 2 * 2 + 1] = fma2(quant.template pair<1>(word), scale, 0x80008000);
            }
        }
    }

    DEVICE void multiply(float (&sums)[TM][TN][4], u32 stage) const {
        u32 words[TN / 4][4];
#pragma unroll
        for (int s = 0; s < BK / 16 / WK; s++) {
            u32 x[TM][4], w[TN / 2][4];
#pragma unroll
            for (int i = 0; i < TM; i++) ldmatrix_x4(x[i], x_at[s] + stage * STAGE_BYTES + i * 16 * BK * 2);
            if constexpr (QUANT) {
                unpack(w, words, stage, s);
            } else {
#pragma unroll
                for (int j = 0; j < TN / 2; j++) ldmatrix_x4(w[j], w_at[s] + stage * STAGE_BYTES + j * 16 * BK * 2);
            }
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
            if (s < left) {
                load(p, s);
                if constexpr (QUANT) {
                    if (threadIdx.x < BN) scales.load(s * GROUPS);
                    if (threadIdx.x < BN) scales.store(dynamic_shared() + s * STAGE_BYTES, quant);
                }
            }
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
                if constexpr (QUANT) {
                    if (left >= STAGES && threadIdx.x < BN) scales.load((s + STAGES - 1) * GROUPS);
                }
                multiply(sums, s);
                if constexpr (QUANT) {
                    const int stage = (s + STAGES - 1) % STAGES;
                    if (left >= STAGES && threadIdx.x < BN) scales.store(dynamic_shared() + stage * STAGE_BYTES, quant);
                }
                left--;
            }
            column += STAGES * BK;
#pragma unroll
            for (int i = 0; i < X_COPIES; i++) x_from[i] += STAGES * BK;
#pragma unroll
            for (int i = 0; i < W_COPIES; i++) w_from[i] += STAGES * W_ROW;
            if constexpr (QUANT) {
                w_column += STAGES * BK;
                scales.from += STAGES * GROUPS;
            }
        }
    done:
        finish(p, sums, wm, wn);
    }

    // Sums go through shared memory, so that what is stored is whole sectors, and the warps' parts are added: f32
    // [warps][SLICE rows][WIDTH columns], chunk c of 16 bytes of row r at c ^ 2 * (r % 4), without conflicts either way.
    // gemm: every warp its own 32 rows, in turns, since more than 32 KiB would not fit; skinny: all rows at once.
    static constexpr int SLICE = WK == 1 ? 32 : BM, WIDTH = TN * 8, GROUP = WK == 1 ? 32 : THREADS;
    static_assert((WIDTH == 64 || WIDTH == 32) && TM * 16 % SLICE == 0, "slices");

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
            const u32 chunk = thread % (WIDTH / 4), c = blockIdx.y * BN + column + chunk * 4;
            if (c >= p.n) return;
            const float4 scale = row_scales(p, c);
#pragma unroll 2
            for (u32 r = thread / (WIDTH / 4); r < SLICE; r += GROUP / (WIDTH / 4)) {
                if (row + r < p.rows) store4(p, row + r, c, scaled(sum4(sums, r, chunk), scale));
            }
            return;
        }
        // Of 16 columns the first 8 are gates, the others the ups of the same outputs. Eight lanes take four chunks of each of
        // two rows, which the swizzle keeps in different banks; of one row they would meet twice.
        constexpr u32 FOURS = WIDTH / 8; // of outputs of a row
        const u32 four = thread / 8 % (FOURS / 4) * 4 + thread % 4, chunk = four / 2 * 4 + four % 2;
        const u32 c = (blockIdx.y * BN + column) / 2 + four * 4;
        if (c >= hidden) return;
        const float4 gate_scale = row_scales(p, c), up_scale = row_scales(p, hidden + c);
#pragma unroll 2
        for (u32 r = thread / (2 * FOURS) * 2 + thread / 4 % 2; r < SLICE; r += GROUP / FOURS) {
            if (row + r >= p.rows) continue;
            const float4 gate = scaled(sum4(sums, r, chunk), gate_scale), up = scaled(sum4(sums, r, chunk + 2), up_scale);
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

    // Of the rows c.. c + 3 of w.
    DEVICE static float4 row_scales(const TileParams &p, u32 c) {
        if constexpr (!QUANT) return make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        return *reinterpret_cast<const float4 *>(Quant<BITS>::row_scales(p.w, p.n, p.k) + c);
    }
    DEVICE static float4 scaled(float4 v, float4 s) {
        if constexpr (!QUANT) return v;
        return make_float4(v.x * s.x, v.y * s.y, v.z * s.z, v.w * s.w);
    }
};

// Dynamic shared memory: STAGES * STAGE_BYTES, and no less than the sums of all warps: 512 * SLICE * WIDTH.
#define TILE(NAME, BLOCKS, ...)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const TileParams p) {                           \
        Tile<__VA_ARGS__> tile;                                                                                        \
        tile.run(p);                                                                                                   \
    }
