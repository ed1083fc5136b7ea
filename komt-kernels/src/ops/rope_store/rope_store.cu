// Rotary position embedding of q and k in place, and k and v to their slots (formula: mod.rs), in f32, rounded to A once.
// qkv [n_tokens, q_dim + 2 kv_dim] of A, inv_freq [head_dim / 2] of f32, k and v caches [n_slots, kv_dim] of A.
//
// Mapping: blocks (r, y): row r; every block makes the row's head_dim / 2 cosines and sines in shared memory. Then an item
// is 8 pairs of one head (numbers i .. i + 8 and i + head_dim / 2 ..: two 16-byte loads, two or four 16-byte stores) or 8
// numbers of v; items go round the threads of the row's blocks.
// Preconditions: head_dim 64, 96 or 128 (a multiple of 16, at most 128); 16-byte aligned buffers; slots of rows differ or are
// PAD_SLOT, which stores nothing; 0 <= inv_freq <= 1, positions below 2^30, an engine's own limit. Cosines and sines err by less
// than 2^-23 up to position 2^24. From there on positions are rounded to f32, as in the reference, and up to 2^30 the error
// stays below 2^-17; further positions turn by whatever angle.
// Moves n_tokens * (2 q_dim + 5 kv_dim) * 2 bytes (q and k read and written, k and v to the cache, v read); rope_store_q8
// n_tokens * ((2 q_dim + 3 kv_dim) * 2 + 2 kv_dim + 8 n_kv_heads), scales included.

struct RopeStoreParams {
    A *qkv;
    A *k;
    A *v;
    const float *inv_freq;
    const u32 *positions; // [n_tokens]
    const u32 *slots;     // [n_tokens]
    float *k_scales;      // of q8: [n_pages, n_kv_heads, PAGE]
    float *v_scales;
    u32 n_heads;
    u32 n_kv_heads;
    u32 head_dim;
    u32 padding;
};
static_assert(sizeof(RopeStoreParams) == 80, "RopeStoreParams");

constexpr u32 PAGE = 16, PAD_SLOT = ~0u;
constexpr u32 THREADS = 128;

// Sine and cosine of 0 <= x <= 2^24, absolute error below 2^-23; of x < 2^30, below 2^-17. (sincosf is as exact, but takes a slow
// path through local memory from 105,615 on; sin.approx errs by 2^-11 and more there.)
// x = n pi / 2 + r. pi / 2 = HIGH - LOW with HIGH of 24 bits. n is of a rounded product, and off by n 2^-23 at most: so what is
// left is reduced again, else r would exceed 0.79 from 2^18 on and 2 from 2^24 on. Differences with HIGH are exact: multiples of
// 2^-23 (times the last bit of n, where that is more than 1) that fit in 24 bits. Those with LOW round by 2^-25 where r < 1, and
// what HIGH - LOW lacks is n 2e-15.
// Then Taylor: the first terms left out are r^11 / 11! = 2e-9 and r^12 / 12! = 1e-10.
DEVICE void sin_cos(float x, float &sin, float &cos) {
    constexpr float TWO_BY_PI = 0.63661977236758134308f;
    constexpr float HIGH = 1.57079637050628662109375f, LOW = 4.37113900018624283e-8f;
    const float n = rintf(x * TWO_BY_PI);
    float r = fmaf(n, -HIGH, x);
    r = fmaf(n, LOW, r);
    const float again = rintf(r * TWO_BY_PI);
    r = fmaf(again, -HIGH, r);
    r = fmaf(again, LOW, r);
    const float rr = r * r;
    float s = fmaf(rr, 1.0f / 362880.0f, -1.0f / 5040.0f);
    s = fmaf(rr, s, 1.0f / 120.0f);
    s = fmaf(rr, s, -1.0f / 6.0f);
    s = fmaf(rr * r, s, r);
    float c = fmaf(rr, -1.0f / 3628800.0f, 1.0f / 40320.0f);
    c = fmaf(rr, c, -1.0f / 720.0f);
    c = fmaf(rr, c, 1.0f / 24.0f);
    c = fmaf(rr, c, -0.5f);
    c = fmaf(rr, c, 1.0f);
    const int quarter = int(n) + int(again);
    sin = quarter & 1 ? c : s;
    cos = quarter & 1 ? s : c;
    if (quarter & 2) sin = -sin;
    if ((quarter + 1) & 2) cos = -cos;
}

// Where cos(i) lies in shared memory, sin(i) SINES after it: an item reads i .. i + 8 as two float4, and the items of a
// quarter-warp then read consecutive ones (8 apart they would meet in the same banks); the second ones begin 48 after the
// first, not 32, so that a warp that stores 32 numbers reaches all banks.
constexpr u32 SECOND = 48, SINES = 80;
DEVICE u32 place(u32 i) {
    return (i & 4) / 4 * SECOND + i / 8 * 4 + i % 4;
}

// The cosines and sines of row r.
DEVICE void make_turn(float (&turn)[2 * SINES], const RopeStoreParams &p, u32 r) {
    if (threadIdx.x < p.head_dim / 2) {
        float sin, cos;
        sin_cos(float(p.positions[r]) * p.inv_freq[threadIdx.x], sin, cos);
        turn[place(threadIdx.x)] = cos;
        turn[place(threadIdx.x) + SINES] = sin;
    }
    __syncthreads();
}

// Numbers 8 piece .. of both halves of a head, turned.
DEVICE void rotate(float (&a)[8], float (&b)[8], const float (&turn)[2 * SINES], u32 piece) {
#pragma unroll
    for (u32 i = 0; i < 8; i += 4) {
        const float4 c4 = *reinterpret_cast<const float4 *>(turn + i / 4 * SECOND + piece * 4);
        const float4 s4 = *reinterpret_cast<const float4 *>(turn + SINES + i / 4 * SECOND + piece * 4);
        const float c[4] = {c4.x, c4.y, c4.z, c4.w}, s[4] = {s4.x, s4.y, s4.z, s4.w};
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const float first = a[i + j], second = b[i + j];
            a[i + j] = first * c[j] - second * s[j];
            b[i + j] = second * c[j] + first * s[j];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) rope_store(const RopeStoreParams p) {
    __shared__ __align__(16) float turn[2 * SINES]; // cosines, sines
    const u32 r = blockIdx.x, half = p.head_dim / 2, pieces = half / 8;
    const u32 q_dim = p.n_heads * p.head_dim, kv_dim = p.n_kv_heads * p.head_dim;
    make_turn(turn, p, r);

    A *row = p.qkv + u64(r) * (q_dim + 2 * kv_dim);
    const u32 slot = p.slots[r];
    const bool store = slot != PAD_SLOT;
    const u64 cache = u64(slot) * kv_dim;
    const u32 rotated = (p.n_heads + p.n_kv_heads) * pieces, items = rotated + kv_dim / 8;
    for (u32 item = blockIdx.y * THREADS + threadIdx.x; item < items; item += gridDim.y * THREADS) {
        if (item >= rotated) {
            const u32 c = (item - rotated) * 8;
            if (store) {
                const uint4 v = *reinterpret_cast<const uint4 *>(row + q_dim + kv_dim + c);
                *reinterpret_cast<uint4 *>(p.v + cache + c) = v;
            }
            continue;
        }
        const u32 head = item / pieces, piece = item % pieces;
        A *at = row + head * p.head_dim + piece * 8;
        float a[8], b[8];
        unpack8(a, *reinterpret_cast<const uint4 *>(at));
        unpack8(b, *reinterpret_cast<const uint4 *>(at + half));
        rotate(a, b, turn, piece);
        const uint4 first = pack8(a), second = pack8(b);
        *reinterpret_cast<uint4 *>(at) = first;
        *reinterpret_cast<uint4 *>(at + half) = second;
        if (store && head >= p.n_heads) {
            A *to = p.k + cache + (head - p.n_heads) * p.head_dim + piece * 8;
            *reinterpret_cast<uint4 *>(to) = first;
            *reinterpret_cast<uint4 *>(to + half) = second;
        }
    }
}

// Eight numbers times `inverse`, rounded to 8 bits: ties to even.
DEVICE uint2 round8(const float (&f)[8], float inverse) {
    u32 words[2] = {0, 0};
#pragma unroll
    for (u32 i = 0; i < 8; i++) words[i / 4] |= (u32(__float2int_rn(f[i] * inverse)) & 0xff) << i % 4 * 8;
    return make_uint2(words[0], words[1]);
}

// The same with a cache in 8 bits (kv.rs): what a row holds afterwards, in A, is what is rounded. Mapping: eight lanes a head, of q, k
// and v alike, of which head_dim / 16 have 16 numbers each; heads go round the warps of the row's blocks. Preconditions and bytes
// moved: above.
extern "C" __global__ void __launch_bounds__(THREADS) rope_store_q8(const RopeStoreParams p) {
    __shared__ __align__(16) float turn[2 * SINES]; // cosines, sines
    const u32 r = blockIdx.x, half = p.head_dim / 2, pieces = half / 8;
    const u32 heads = p.n_heads + 2 * p.n_kv_heads, kv_dim = p.n_kv_heads * p.head_dim;
    make_turn(turn, p, r);

    A *row = p.qkv + u64(r) * heads * p.head_dim;
    const u32 slot = p.slots[r], piece = threadIdx.x % 8;
    for (u32 first = (blockIdx.y * THREADS + threadIdx.x) / 32 * 4; first < heads; first += gridDim.y * THREADS / 8) {
        const u32 head = first + threadIdx.x / 8 % 4;
        const bool active = head < heads && piece < pieces, is_v = head >= p.n_heads + p.n_kv_heads;
        A *at = row + head * p.head_dim + piece * 8;
        float a[8] = {}, b[8] = {};
        if (active) {
            uint4 low = *reinterpret_cast<const uint4 *>(at), high = *reinterpret_cast<const uint4 *>(at + half);
            unpack8(a, low);
            unpack8(b, high);
            if (!is_v) {
                rotate(a, b, turn, piece);
                low = pack8(a), high = pack8(b);
                *reinterpret_cast<uint4 *>(at) = low;
                *reinterpret_cast<uint4 *>(at + half) = high;
                unpack8(a, low);
                unpack8(b, high);
            }
        }
        // Magnitudes are ordered as their bits are, NaN above infinity.
        u32 largest = 0;
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            largest = max(largest, max(__float_as_uint(a[i]) & 0x7fffffffu, __float_as_uint(b[i]) & 0x7fffffffu));
        }
#pragma unroll
        for (u32 lanes = 1; lanes < 8; lanes *= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, lanes));
        if (!active || head < p.n_heads || slot == PAD_SLOT) continue;
        const float most = __uint_as_float(largest);
        const float inverse = most >= 127.0f * 1.17549435e-38f ? __fdiv_rn(127.0f, most) : 0.0f;
        const u32 kv_head = head - p.n_heads - (is_v ? p.n_kv_heads : 0);
        u8 *to = reinterpret_cast<u8 *>(is_v ? p.v : p.k) + u64(slot) * kv_dim + kv_head * p.head_dim + piece * 8;
        *reinterpret_cast<uint2 *>(to) = round8(a, inverse);
        *reinterpret_cast<uint2 *>(to + half) = round8(b, inverse);
        float *scales = is_v ? p.v_scales : p.k_scales;
        if (piece == 0) scales[(u64(slot / PAGE) * p.n_kv_heads + kv_head) * PAGE + slot % PAGE] = most * (1.0f / 127.0f);
    }
}
