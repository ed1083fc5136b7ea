// out [rows, n] = x [rows, k] . w [n, k]^T for 1 to 8 rows and w in q8 or q4 (quant.cuh): the weights stream by once, for all rows
// together, and one kernel does any number of rows at the same price.
//
// Mapping: a warp owns 16 rows of w; `split` warps of a block (1, 2 or 4) share them, each with every split-th 128 columns. These
// come with the same columns of x to shared memory of the warp's own, STAGES deep, by cp.async; ldmatrix gives fragments, the
// quants become exact numbers of type A in registers, and mma multiplies them: w is its a [16, 16], x its b [16, 8]. Each
// group's sum begins at zero and is scaled in f32: nothing is rounded to 16 bits but the result.
// Sums: a group's columns in the tensor core, groups in order, then the warps in order: the number of rows does not change the
// bits of a row.
//
// Shared memory of a warp's stage: [16 rows][CHUNKS] chunks of quants, chunk c of row r at c ^ r / 2 % 4 (q4; q8: c ^ r % 8);
// [rows][16] chunks of x, chunk c of row r at c ^ r; [16] rows' scales. No bank conflicts.
//
// Preconditions: k % 32 == 0; x, w 16-byte aligned; 1 <= rows <= 8; with SwiGLU n / 2 % 8 == 0. Edges: rows beyond the last repeat
// it, columns from k on are zeros and not read.
// Instructions a weight in the main loop, sm_80 in bf16: 4.1 (q4) and 4.0 (q8) for eight rows, 0.3 fewer for one or two; 2.3 of
// them (1.9) unpack, multiply and scale. Both constants of (v & mask) | base in the instruction, as ptxas would: 0.5 (1.0) more;
// destinations in shared memory not kept in registers: 0.7 (1.8) more.
// Bytes moved: w, once, 16 bytes wide but for the scales; of x rows * k * 2 for each warp, nearly all from the L2 cache.

// What becomes of a sum; the same numbers in cuda.rs.
enum Epilogue : u32 { STORE, ADD_F32, STORE_F32, SWIGLU };

struct GemvParams {
    const A *x;   // [rows, k]
    const u8 *w;  // [n, k], as in quant.cuh
    void *out;    // [rows, n]: A, or f32; with SwiGLU A [rows, n / 2]
    u32 rows, n, k;
    u32 epilogue; // Epilogue
    u32 split_log2; // warps to a group of 16 rows of w: 1, 2 or 4
    u32 unused;
};
static_assert(sizeof(GemvParams) == 48, "GemvParams");

constexpr u32 WARPS = 4;
constexpr u32 COLS = 128; // of a stage

template <int BITS> struct Gemv {
    using Q = Quant<BITS>;
    static constexpr u32 CHUNKS = COLS / Q::UNIT;      // of 16 bytes, of a row in a stage
    static constexpr u32 STAGES = BITS == 4 ? 4 : 3;   // 3 KiB of q4 under way for each warp, 4 KiB of q8
    static constexpr u32 W_BYTES = 16 * CHUNKS * 16, S_BYTES = COLS / Q::GROUP; // scales: of a row
    static constexpr u32 W_COPIES = CHUNKS / 2;        // of a lane

    Q quant;
    // Sources of this lane's next copies, of which the tile is `next`.
    const u8 *w_from[W_COPIES], *s_from;
    const A *x_from;
    u32 next;
    u32 memory, stage_bytes;               // the warp's shared memory
    u32 w_to[W_COPIES], x_to[4], s_to;     // destinations of copies from there on
    u32 w_at[CHUNKS / 2], x_at[4], s_at;   // fragments

    // Bytes from the start of a stage to a chunk of a row of quants.
    DEVICE static u32 swizzled(u32 row, u32 chunk) {
        return (row * CHUNKS + (chunk ^ row / (8 / CHUNKS) % CHUNKS)) * 16;
    }

    // Rows of w: first + 0..7 and first + second + 0..7.
    DEVICE void begin(const GemvParams &p, u32 first, u32 second, u32 part) {
        quant.begin();
        next = part;
        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        stage_bytes = W_BYTES + p.rows * 256 + 16 * S_BYTES;
        memory = shared_address(dynamic_shared()) + warp * STAGES * stage_bytes;
        const u32 chunk = lane % CHUNKS;
#pragma unroll
        for (u32 i = 0; i < W_COPIES; i++) {
            const u32 row = lane / CHUNKS + i * (32 / CHUNKS);
            const u32 r = min(first + row % 8 + row / 8 * second, p.n - 1);
            w_from[i] = p.w + u64(r) * Q::row_bytes(p.k) + (part * CHUNKS + chunk) * 16;
            w_to[i] = swizzled(row, chunk);
        }
        const u32 r = min(first + lane % 8 + lane / 8 % 2 * second, p.n - 1);
        s_from = Q::scales(p.w, p.n, p.k) + u64(r) * Q::scale_bytes(p.k) + part * S_BYTES;
        s_to = W_BYTES + p.rows * 256 + lane % 16 * S_BYTES;
        s_at = W_BYTES + p.rows * 256 + lane / 4 * S_BYTES;
        x_from = p.x + u64(lane / 16) * p.k + part * COLS + lane % 16 * 8;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 row = lane / 16 + i * 2;
            x_to[i] = W_BYTES + row * 256 + (lane % 16 ^ row) * 16;
        }
        // Matrices of w are (rows 0.., unit 0), (8.., 0), (0.., 1), (8.., 1); those of x four chunks, of missing rows the last one's.
#pragma unroll
        for (u32 i = 0; i < CHUNKS / 2; i++) w_at[i] = swizzled(lane % 16, i * 2 + lane / 16);
        const u32 x_row = min(lane % 8, p.rows - 1);
#pragma unroll
        for (u32 i = 0; i < 4; i++) x_at[i] = W_BYTES + x_row * 256 + ((i * 4 + lane / 8) ^ x_row) * 16;
        // Else they are computed again for each tile.
#pragma unroll
        for (u32 i = 0; i < W_COPIES; i++) keep(w_to[i]);
#pragma unroll
        for (u32 i = 0; i < CHUNKS / 2; i++) keep(w_at[i]);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            keep(x_to[i]);
            keep(x_at[i]);
        }
        keep(s_to);
        keep(s_at);
    }

    // Starts the copy of tile `next`, and goes on to the warp's next one.
    DEVICE void load(const GemvParams &p, u32 stage, u32 split) {
        const u32 lane = threadIdx.x % 32;
        const bool inside = next * CHUNKS + lane % CHUNKS < p.k / Q::UNIT;
#pragma unroll
        for (u32 i = 0; i < W_COPIES; i++) {
            cp_async16(stage + w_to[i], w_from[i], inside);
            w_from[i] += split * (CHUNKS * 16);
        }
        if (lane < 16) cp_async_few<S_BYTES>(stage + s_to, s_from);
        s_from += split * S_BYTES;
        const bool x_inside = next * COLS + lane % 16 * 8 < p.k;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            if (lane / 16 + i * 2 < p.rows) cp_async16(stage + x_to[i], x_from + i * 2 * p.k, x_inside);
        }
        x_from += split * COLS;
        next += split;
    }

    DEVICE void add_scaled(float (&sums)[4], const float (&part)[4], float low, float high) const {
        sums[0] = fmaf(part[0], low, sums[0]);
        sums[1] = fmaf(part[1], low, sums[1]);
        sums[2] = fmaf(part[2], high, sums[2]);
        sums[3] = fmaf(part[3], high, sums[3]);
    }

    DEVICE void multiply(float (&sums)[4], u32 stage) const {
        const u8 *s = dynamic_shared() + (stage - shared_address(dynamic_shared())) + s_at;
        u32 low[S_BYTES / 4], high[S_BYTES / 4]; // 128 is added to each byte
        if constexpr (S_BYTES == 8) {
            const uint2 l = *reinterpret_cast<const uint2 *>(s), h = *reinterpret_cast<const uint2 *>(s + 8 * S_BYTES);
            low[0] = l.x ^ 0x80808080, low[1] = l.y ^ 0x80808080;
            high[0] = h.x ^ 0x80808080, high[1] = h.y ^ 0x80808080;
        } else {
            low[0] = *reinterpret_cast<const u32 *>(s) ^ 0x80808080;
            high[0] = *reinterpret_cast<const u32 *>(s + 8 * S_BYTES) ^ 0x80808080;
        }
        u32 w[4];
#pragma unroll
        for (u32 c = 0; c < 4; c++) { // 32 columns
            u32 x[4];
            ldmatrix_x4(x, stage + x_at[c]);
            float part[4];
            if constexpr (BITS == 4) {
                if (c % 2 == 0) ldmatrix_x4(w, stage + w_at[c / 2]);
                const u32 l = w[c % 2 * 2], h = w[c % 2 * 2 + 1];
                const u32 a[4] = {quant.template pair<0>(l), quant.template pair<0>(h), quant.template pair<1>(l), quant.template pair<1>(h)};
                mma_16816_first(part, a, x[0], x[1]);
                add_scaled(sums, part, quant.scale(low, 2 * c), quant.scale(high, 2 * c));
                const u32 b[4] = {quant.template pair<2>(l), quant.template pair<2>(h), quant.template pair<3>(l), quant.template pair<3>(h)};
                mma_16816_first(part, b, x[2], x[3]);
                add_scaled(sums, part, quant.scale(low, 2 * c + 1), quant.scale(high, 2 * c + 1));
            } else {
                ldmatrix_x4(w, stage + w_at[c]);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const u32 l = w[2 * i], h = w[2 * i + 1];
                    const u32 a[4] = {quant.template pair<0>(l), quant.template pair<0>(h), quant.template pair<1>(l), quant.template pair<1>(h)};
                    if (i == 0) mma_16816_first(part, a, x[0], x[1]);
                    if (i == 1) mma_16816(part, a, x[2], x[3]);
                }
                add_scaled(sums, part, quant.scale(low, c), quant.scale(high, c));
            }
        }
    }

    DEVICE void run(const GemvParams &p) {
        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const u32 split = 1 << p.split_log2, part = warp & (split - 1);
        const u32 group = (blockIdx.x * WARPS + warp) >> p.split_log2;
        const bool swiglu = p.epilogue == SWIGLU;
        const u32 first = group * (swiglu ? 8 : 16), second = swiglu ? p.n / 2 : 8, end = swiglu ? p.n / 2 : p.n;
        const u32 tiles = first < end ? (p.k + COLS - 1) / COLS : 0;

        begin(p, first, second, part);
        u32 fill = memory;
        const u32 after = memory + STAGES * stage_bytes;
#pragma unroll
        for (u32 s = 0; s < STAGES - 1; s++, fill += stage_bytes) {
            if (next < tiles) load(p, fill, split);
            cp_async_commit();
        }
        float sums[4] = {};
        u32 stage = memory;
        for (u32 tile = part; tile < tiles; tile += split) {
            cp_async_wait<STAGES - 2>();
            __syncwarp(); // the copies of all lanes are there, and all are done with the stage that is filled next
            if (next < tiles) load(p, fill, split);
            cp_async_commit();
            multiply(sums, stage);
            stage = stage + stage_bytes == after ? memory : stage + stage_bytes;
            fill = fill + stage_bytes == after ? memory : fill + stage_bytes;
        }

        __shared__ float4 shared[WARPS][32];
        if (split > 1) {
            if (part != 0) shared[warp][lane] = make_float4(sums[0], sums[1], sums[2], sums[3]);
            __syncthreads();
            if (part != 0) return;
            for (u32 i = 1; i < split; i++) {
                const float4 v = shared[warp + i][lane];
                sums[0] += v.x, sums[1] += v.y, sums[2] += v.z, sums[3] += v.w;
            }
        }
        finish(p, sums, first + lane / 4, second, end);
    }

    // Sums 0, 1 are of row `low` of w and the rows 2 t, 2 t + 1 of x, sums 2, 3 of row low + second.
    DEVICE void finish(const GemvParams &p, const float (&sums)[4], u32 low, u32 second, u32 end) const {
        const u32 t = threadIdx.x % 4, high = low + second;
        if (low >= end || 2 * t >= p.rows) return;
        const float *scales = Q::row_scales(p.w, p.n, p.k);
        const float low_scale = scales[low], high_scale = high < p.n ? scales[high] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            const u32 r = 2 * t + i;
            if (r >= p.rows) return;
            const float a = sums[i] * low_scale, b = sums[2 + i] * high_scale;
            if (p.epilogue == SWIGLU) {
                static_cast<A *>(p.out)[u64(r) * end + low] = to_a(silu(a) * b);
            } else {
                store(p, u64(r) * p.n + low, a);
                if (high < p.n) store(p, u64(r) * p.n + high, b);
            }
        }
    }

    DEVICE static void store(const GemvParams &p, u64 at, float sum) {
        if (p.epilogue == STORE) {
            static_cast<A *>(p.out)[at] = to_a(sum);
        } else {
            float *to = static_cast<float *>(p.out) + at;
            *to = p.epilogue == ADD_F32 ? *to + sum : sum;
        }
    }
};

// Dynamic shared memory: WARPS * STAGES * stage_bytes.
#define GEMV(BITS)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 4) matmul_gemv_q##BITS(const GemvParams p) {              \
        Gemv<BITS> gemv;                                                                                               \
        gemv.run(p);                                                                                                   \
    }
GEMV(8)
GEMV(4)
