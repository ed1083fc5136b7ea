// Attention of sequences with one row, of a cache in 8 bits: kv.rs. (decode.cuh)
//
// attention_decode_q8_{head_dim}: numbers become A in registers, exactly, two at a time; scores are multiplied by the scales of K,
// weights by those of V before they are rounded to A. All loads of K have 16 bytes (head_dim 96: a third in 8), those of V 16 (64: 8;
// 96: 8 and 4); the scales of a page are read once, by a lane each.

// What weights are multiplied by beside the scale of a value: products reach 64 times the value, and half precision then holds them
// as well as it holds values.
constexpr float V_FACTOR = 64.0f;

// One page's K and V of a lane (g = lane / 4, t = lane % 4), in words of four numbers.
template <u32 HEAD_DIM> struct Tile {
    static constexpr u32 DIM = HEAD_DIM, K_PARTS = HEAD_DIM / 64, K_HALF = HEAD_DIM % 64 / 32, V_WORDS = HEAD_DIM / 32;
    uint4 k[2][K_PARTS];          // keys g, g + 8: numbers 64 i + 16 t .. + 16
    uint2 k_half[2];              // numbers 64 + 8 t .. + 8
    u32 v[4][V_WORDS];            // keys 2 t, 2 t + 1, 2 t + 8, 2 t + 9: numbers 16 g .. + 16 (64: 8 g .. + 8; 96: and 64 + 4 g .. + 4)
    float scale;                  // lanes 0 .. 16: of the page's keys, 16 .. 32: of its values

    DEVICE void load(const AttentionDecodeParams &p, u64 at, u64 scales, const Run &run, u32 page) {
        const u32 kv_dim = p.n_kv_heads * HEAD_DIM, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const u8 *k_page = static_cast<const u8 *>(p.k) + at, *v_page = static_cast<const u8 *>(p.v) + at;
        auto visible = [&](u32 key) { return page * PAGE + key >= run.first && page * PAGE + key <= run.pos; };
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            const u32 key = g + 8 * h;
            const u8 *row = k_page + key * kv_dim;
#pragma unroll
            for (u32 i = 0; i < K_PARTS; i++) {
                k[h][i] = visible(key) ? load16_once(row + 64 * i + 16 * t) : make_uint4(0, 0, 0, 0);
            }
            if (K_HALF) k_half[h] = visible(key) ? load8_once(row + 64 + 8 * t) : make_uint2(0, 0);
        }
        const float *of = lane < PAGE ? p.k_scales : p.v_scales;
        scale = visible(lane % PAGE) ? of[scales * PAGE + lane % PAGE] : 0.0f;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const u32 key = 2 * t + j % 2 + j / 2 * 8;
            const u8 *row = v_page + key * kv_dim;
            if constexpr (HEAD_DIM == 128) {
                const uint4 four = visible(key) ? load16_once(row + 16 * g) : make_uint4(0, 0, 0, 0);
                v[j][0] = four.x, v[j][1] = four.y, v[j][2] = four.z, v[j][3] = four.w;
            } else {
                const uint2 two = visible(key) ? load8_once(row + 8 * g) : make_uint2(0, 0);
                v[j][0] = two.x, v[j][1] = two.y;
            }
            if constexpr (HEAD_DIM == 96) {
                v[j][2] = visible(key) ? *reinterpret_cast<const u32 *>(row + 64 + 4 * g) : 0;
            }
        }
    }

    // The numbers beside those of K: of each four words (0, 2), (1, 3), as `even_a` and `odd_a` make them.
    static DEVICE void load_q(uint4 (&q)[HEAD_DIM / 32], const A *head, bool valid) {
        const u32 t = threadIdx.x % 4;
#pragma unroll
        for (u32 i = 0; i < HEAD_DIM / 32; i++) {
            const u32 first = i / 2 < K_PARTS ? i / 2 * 64 + 16 * t + i % 2 * 8 : 64 + 8 * t;
            q[i] = in_word_order(valid ? load16_nc(head + first) : make_uint4(0, 0, 0, 0));
        }
    }

    DEVICE void products(float (&s)[2][4], const uint4 (&q)[HEAD_DIM / 32]) const {
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
#pragma unroll
            for (u32 i = 0; i < K_PARTS; i++) {
                product(s[h], q[2 * i].x, q[2 * i].y, k[h][i].x);
                product(s[h], q[2 * i].z, q[2 * i].w, k[h][i].y);
                product(s[h], q[2 * i + 1].x, q[2 * i + 1].y, k[h][i].z);
                product(s[h], q[2 * i + 1].z, q[2 * i + 1].w, k[h][i].w);
            }
            if constexpr (K_HALF) {
                product(s[h], q[2].x, q[2].y, k_half[h].x);
                product(s[h], q[2].z, q[2].w, k_half[h].y);
            }
        }
    }

    // Of a word of K.
    static DEVICE void product(float (&s)[4], u32 q_even, u32 q_odd, u32 word) {
        const u32 a[4] = {q_even, 0, q_odd, 0};
        mma_16816(s, a, even_a(word), odd_a(word));
    }

    DEVICE float of_key(float score, u32 j) const { return score * scale_of(j, 0); }
    DEVICE float of_value(float weight, u32 j) const { return weight * scale_of(j, PAGE) * V_FACTOR; }
    DEVICE float scale_of(u32 j, u32 first) const {
        return __shfl_sync(~0u, scale, first + threadIdx.x % 4 * 2 + j % 2 + j / 2 * 8);
    }

    // acc[2 w], acc[2 w + 1]: numbers 4 w, 4 w + 1, and 4 w + 2, 4 w + 3 of the lane's words of V.
    DEVICE void add_values(float (&acc)[HEAD_DIM / 16][4], u32 p_low, u32 p_high) const {
#pragma unroll
        for (u32 w = 0; w < V_WORDS; w++) {
            const u32 low01 = __byte_perm(v[0][w], v[1][w], 0x5410), high01 = __byte_perm(v[0][w], v[1][w], 0x7632);
            const u32 low23 = __byte_perm(v[2][w], v[3][w], 0x5410), high23 = __byte_perm(v[2][w], v[3][w], 0x7632);
            const u32 first[4] = {even_a(low01), odd_a(low01), even_a(low23), odd_a(low23)};
            const u32 second[4] = {even_a(high01), odd_a(high01), even_a(high23), odd_a(high23)};
            mma_16816(acc[2 * w], first, p_low, p_high);
            mma_16816(acc[2 * w + 1], second, p_low, p_high);
        }
    }

    static DEVICE u32 unit(u32 i, u32 g) {
        if (HEAD_DIM == 128) return 4 * g + i / 2;
        return i < 4 ? 2 * g + i / 2 : 16 + g; // 64 numbers, and the last 32
    }

    // Eight lanes of a store have heads 0, 2, 4, 6 and units u and u + 2 (128: u + 4; the last 32 of 96: u + 1), and this sends them
    // to eight different groups of banks.
    static DEVICE u32 place(u32 head, u32 u) {
        if (HEAD_DIM == 128) return u ^ head / 2;
        return u ^ (u < 16 ? head / 2 % 2 + head / 4 * 4 : head / 2 * 2);
    }

    static DEVICE float4 result(float4 sums) {
        constexpr float F = 1.0f / V_FACTOR;
        return make_float4(sums.x * F, sums.y * F, sums.z * F, sums.w * F);
    }
};

#define INSTANCE(HEAD_DIM)                                                                                             \
    extern "C" __global__ void DECODE_BOUNDS attention_decode_q8_##HEAD_DIM(const AttentionDecodeParams p) {           \
        attention_decode<Tile<HEAD_DIM>>(p);                                                                           \
    }
INSTANCE(64)
INSTANCE(96)
INSTANCE(128)
