// Attention of sequences with several rows in the step: tiles of queries against tiles of keys (arXiv:2307.08691).
// (Formula and shapes: mod.rs. A sequence with one row is decode.cuh's, and skipped here.) How tiles of K and V come to shared
// memory: prefill.cu for a cache of A, prefill_q8.cu for one in 8 bits.
//
// attention_prefill_{head_dim}: block (tile of queries, kv head), 4 warps of 16 rows. The rows of a tile are the query heads of one kv
// head for 64 / group consecutive tokens of one sequence, token by token: each tile of K and V is loaded once for all of
// them. Grid x is the most tiles that a step of these dimensions can have; surplus blocks find no tile and return. Later
// tiles, which see more keys, come first.
// Per tile of 64 keys: S = Q . K^T by mma (Q from registers, K by 16-byte loads of shared memory: the order of a contraction's terms
// is free, so that 16 bytes serve two steps), online softmax to base 2 in f32, O += P . V by mma (V by ldmatrix.trans).
// Key tiles that no query of the tile sees are skipped; keys that none sees are not read and count as zero.
// P is rounded to A for the mma, which adds the error of one rounding of A to that of the output: NMSE 2 * 2.8e-6 (bf16),
// 2 * 4.3e-8 (f16).
//
// Shared memory: tiles of K and V, rows of 16-byte units, of which unit u of row k lies at u ^ swizzle(k): see there.
//
// Preconditions: n_heads % n_kv_heads == 0, group <= 64; 16-byte aligned buffers; rows of a sequence are consecutive positions;
// their own keys are in the cache.
// Moves, per tile: its q and out once, and 2 * keys * head_dim numbers of K and V (from the L2 cache but for the first tile).

struct AttentionPrefillParams {
    A *out;               // [n_tokens, q_dim]
    const A *qkv;         // [n_tokens, q_dim + 2 kv_dim]
    const void *k;        // [n_slots, kv_dim] of A, or 8 bits
    const void *v;        // [n_slots, kv_dim]
    const float *k_scales; // of q8: [n_pages, n_kv_heads, PAGE]
    const float *v_scales;
    const u32 *positions; // [n_tokens]
    const u32 *q_start;   // [n_seqs + 1]
    const u32 *pages;     // [n_seqs, table_len]
    u32 table_len;
    u32 window; // 2^32 - 1: none
    u32 n_seqs;
    u32 n_heads;
    u32 n_kv_heads;
    float scale; // log2(e) / sqrt(head_dim)
};
static_assert(sizeof(AttentionPrefillParams) == 96, "AttentionPrefillParams");

constexpr u32 PAGE = 16;
constexpr u32 WARPS = 4, THREADS = 32 * WARPS;
constexpr u32 ROWS = 16 * WARPS; // (token, head) of a tile
constexpr u32 KEYS = 64;         // of a tile: four pages

// Which queries a block has, and the keys that they see.
struct Queries {
    bool none = true;
    u32 seq, row, n_tokens; // rows row .. row + n_tokens of the step
    u32 pos;                // of the first
    u32 first_key, last_key;

    // Counts the tiles of the sequences, 32 at a time, up to the block's. All warps do the same.
    DEVICE Queries(const AttentionPrefillParams &p, u32 tokens_per_tile) {
        const u32 lane = threadIdx.x % 32, wanted = gridDim.x - 1 - blockIdx.x;
        for (u32 before = 0, start = 0; start < p.n_seqs; start += 32) {
            const u32 s = start + lane;
            const u32 len = s < p.n_seqs ? p.q_start[s + 1] - p.q_start[s] : 0;
            const u32 n = len > 1 ? (len + tokens_per_tile - 1) / tokens_per_tile : 0;
            u32 up_to = before + n;
#pragma unroll
            for (u32 lanes = 1; lanes < 32; lanes *= 2) {
                const u32 other = __shfl_up_sync(~0u, up_to, lanes) - before;
                if (lane >= lanes) up_to += other;
            }
            const u32 reached = __ballot_sync(~0u, up_to > wanted);
            if (reached) {
                const u32 owner = __ffs(reached) - 1;
                const u32 tile = wanted - __shfl_sync(~0u, up_to - n, owner);
                none = false;
                seq = start + owner;
                row = p.q_start[seq] + tile * tokens_per_tile;
                n_tokens = min(p.q_start[seq + 1] - row, tokens_per_tile);
                pos = p.positions[row];
                first_key = pos + 1 > p.window ? pos + 1 - p.window : 0;
                last_key = pos + n_tokens - 1;
                return;
            }
            before = __shfl_sync(~0u, up_to, 31);
        }
    }
};

// A tile of K or V in shared memory.
template <u32 HEAD_DIM> struct Layout {
    static constexpr u32 UNITS = HEAD_DIM / 8, ROW_BYTES = HEAD_DIM * 2, BYTES = KEYS * ROW_BYTES;
    static_assert(KEYS * UNITS % THREADS == 0, "every thread copies as many units of a tile");

    // Eight lanes reach memory together, and should meet eight groups of 4 banks (128 bytes):
    //   copies:         consecutive units of a row (head_dim 96: of two)
    //   ldmatrix of V:  one unit of rows 8 i .. 8 i + 8
    //   loads of K:     units 4 i .. 4 i + 4 of rows 2 j and 2 j + 1
    // 128 or 256 bytes a row: all rows begin in the same bank; the eight values differ, and those of 2 j and 2 j + 1 in bit 2.
    // 192 bytes a row: rows begin in banks 0 and 16 in turn, so that only pairs of rows need different values.
    static DEVICE u32 swizzle(u32 row) {
        return HEAD_DIM == 96 ? row / 2 % 4 : row % 2 * 4 + row / 2 % 4;
    }
    static DEVICE u32 at(u32 row, u32 unit) { return row * ROW_BYTES + (unit ^ swizzle(row)) * 16; }
};

// The 16 rows of a warp: this lane's parts of rows g and g + 8 (g = lane / 4, t = lane % 4).
template <u32 HEAD_DIM> struct Rows {
    using L = Layout<HEAD_DIM>;
    static constexpr u32 PARTS = HEAD_DIM / 32, TILES = HEAD_DIM / 8;
    uint4 q[2][PARTS];    // numbers 32 i + 8 t .. + 8 of rows g, g + 8
    float acc[TILES][4];  // numbers 8 i + 2 t, + 1 of row g, and of row g + 8
    float max[2], sum[2]; // of rows g, g + 8; sum: of this lane's keys
    u32 pos[2];           // of rows g, g + 8

    // s [keys 8 i + 2 t, + 1 of row g, and of row g + 8] = Q . K^T
    DEVICE void scores(float (&s)[KEYS / 8][4], const u8 *k_tile) const {
        const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
        for (u32 i = 0; i < KEYS / 8; i++) {
            s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0f;
#pragma unroll
            for (u32 c = 0; c < PARTS; c++) {
                const uint4 k = *reinterpret_cast<const uint4 *>(k_tile + L::at(8 * i + g, 4 * c + t));
                const u32 first[4] = {q[0][c].x, q[1][c].x, q[0][c].y, q[1][c].y};
                const u32 second[4] = {q[0][c].z, q[1][c].z, q[0][c].w, q[1][c].w};
                mma_16816(s[i], first, k.x, k.y);
                mma_16816(s[i], second, k.z, k.w);
            }
        }
    }

    // Keys that a row does not see.
    DEVICE void mask(float (&s)[KEYS / 8][4], u32 first_key, u32 window) const {
#pragma unroll
        for (u32 i = 0; i < KEYS / 8; i++) {
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const u32 key = first_key + 8 * i + threadIdx.x % 4 * 2 + j % 2;
                if (key > pos[j / 2] || pos[j / 2] - key >= window) s[i][j] = -INFINITY;
            }
        }
    }

    // s becomes weights 2^(scale s - max); what was summed before shrinks to the new maximum.
    DEVICE void softmax(float (&s)[KEYS / 8][4], float scale) {
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            float seen = s[0][2 * h];
#pragma unroll
            for (u32 i = 0; i < KEYS / 8; i++) seen = fmaxf(seen, fmaxf(s[i][2 * h], s[i][2 * h + 1]));
            seen = fmaxf(seen, __shfl_xor_sync(~0u, seen, 1));
            seen = fmaxf(seen, __shfl_xor_sync(~0u, seen, 2));
            const float new_max = fmaxf(max[h], seen * scale);
            const float from = new_max == -INFINITY ? 0.0f : new_max; // a row that has seen no key yet: weights 2^-inf = 0
            const float shrink = exp2_approx(max[h] - from);
            max[h] = new_max;
            sum[h] *= shrink;
#pragma unroll
            for (u32 i = 0; i < KEYS / 8; i++) {
#pragma unroll
                for (u32 j = 2 * h; j < 2 * h + 2; j++) {
                    s[i][j] = exp2_approx(fmaf(s[i][j], scale, -from));
                    sum[h] += s[i][j];
                }
            }
#pragma unroll
            for (u32 i = 0; i < TILES; i++) acc[i][2 * h] *= shrink, acc[i][2 * h + 1] *= shrink;
        }
    }

    // acc += P . V
    DEVICE void add_values(const float (&s)[KEYS / 8][4], u32 v_tile) {
        const u32 lane = threadIdx.x % 32;
#pragma unroll
        for (u32 j = 0; j < KEYS / 16; j++) {
            const float(&low)[4] = s[2 * j], (&high)[4] = s[2 * j + 1];
            const u32 p[4] = {pack2(low[0], low[1]), pack2(low[2], low[3]), pack2(high[0], high[1]), pack2(high[2], high[3])};
#pragma unroll
            for (u32 i = 0; i < TILES; i += 2) { // matrices: keys 0 .. 8 and 8 .. 16 of unit i, then of unit i + 1
                u32 v[4];
                ldmatrix_x4_trans(v, v_tile + L::at(16 * j + lane % 16, i + lane / 16));
                mma_16816(acc[i], p, v[0], v[1]);
                mma_16816(acc[i + 1], p, v[2], v[3]);
            }
        }
    }

    // The tile's queries, 16 bytes as `order` makes them.
    template <class Order> DEVICE void begin(const AttentionPrefillParams &p, const Queries &queries, Order order) {
        const u32 group = p.n_heads / p.n_kv_heads, kv_head = blockIdx.y;
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            const u32 r = warp * 16 + g + 8 * h, token = r / group;
            const A *from = p.qkv + u64(queries.row + token) * ((p.n_heads + 2 * p.n_kv_heads) * HEAD_DIM) +
                            (kv_head * group + r % group) * HEAD_DIM + 8 * t;
            const bool valid = token < queries.n_tokens; // else a row of zeros at the last position, which nobody stores
#pragma unroll
            for (u32 c = 0; c < PARTS; c++) q[h][c] = order(valid ? load16_nc(from + 32 * c) : make_uint4(0, 0, 0, 0));
            pos[h] = min(queries.pos + token, queries.last_key);
            max[h] = -INFINITY;
            sum[h] = 0.0f;
        }
#pragma unroll
        for (u32 i = 0; i < TILES; i++) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0.0f;
    }

    // Stores acc * factor / sum, through the tile of K, where each warp has rows of its own, so that 16 bytes are stored at once.
    template <class Order>
    DEVICE void finish(const AttentionPrefillParams &p, const Queries &queries, u8 *k_tile, float factor, Order order) const {
        const u32 group = p.n_heads / p.n_kv_heads, kv_head = blockIdx.y;
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            float total = sum[h] + __shfl_xor_sync(~0u, sum[h], 1);
            total += __shfl_xor_sync(~0u, total, 2);
            const float scale = factor / total;
            const u32 r = warp * 16 + g + 8 * h;
#pragma unroll
            for (u32 i = 0; i < TILES; i++) {
                *reinterpret_cast<u32 *>(k_tile + L::at(r, i) + 4 * t) = pack2(acc[i][2 * h] * scale, acc[i][2 * h + 1] * scale);
            }
        }
        __syncwarp();
#pragma unroll
        for (u32 e = lane; e < 16 * L::UNITS; e += 32) {
            const u32 r = warp * 16 + e / L::UNITS, unit = e % L::UNITS, token = r / group;
            if (token >= queries.n_tokens) continue;
            A *out = p.out + u64(queries.row + token) * (p.n_heads * HEAD_DIM) + (kv_head * group + r % group) * HEAD_DIM + unit * 8;
            *reinterpret_cast<uint4 *>(out) = order(*reinterpret_cast<const uint4 *>(k_tile + L::at(r, unit)));
        }
    }
};

// The page of tile `tile` whose number this lane % 4 is.
DEVICE u32 page_of(const AttentionPrefillParams &p, const Queries &queries, u32 tile) {
    return p.pages[queries.seq * p.table_len + (tile * (KEYS / PAGE) + threadIdx.x % 4) % p.table_len];
}

// Whether some row does not see all keys of a tile: the first and the last position of the queries do when all rows do.
DEVICE bool needs_mask(const AttentionPrefillParams &p, const Queries &queries, u32 tile) {
    return tile * KEYS + KEYS - 1 > queries.pos || queries.last_key - tile * KEYS >= p.window;
}

#define PREFILL_BOUNDS(HEAD_DIM) __launch_bounds__(THREADS, HEAD_DIM == 64 ? 3 : 2)
