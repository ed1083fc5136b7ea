// What every kernel begins with: types, the 16-bit activation type `A`, loads, reductions, asynchronous copies, tensor
// cores. All inline PTX of the project is here. Freestanding: no header of the toolkit is included.
//
// The compiler is given KOMT_F16 (1: A is IEEE binary16, 0: bfloat16, sm_80 and newer) and KOMT_SM (75, 80, ...).

#if !KOMT_F16 && KOMT_SM < 80
#error "bfloat16 needs sm_80"
#endif

#pragma nv_diag_suppress 177 // declared but never used: each source takes what it needs of this file

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;

#define DEVICE __device__ __forceinline__

#define INFINITY __uint_as_float(0x7f800000u)

// ---- numbers --------------------------------------------------------------------------------------------------------

// An activation, weight or cached value. Two of them in a u32: the one at the lower address in the lower half.
struct alignas(2) A {
    u16 bits;
};
static_assert(sizeof(A) == 2, "A");

DEVICE float to_f32(A a) {
#if KOMT_F16
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(a.bits));
    return f;
#else
    return __uint_as_float(u32(a.bits) << 16);
#endif
}

// Rounded to nearest even.
DEVICE A to_a(float f) {
    A a;
#if KOMT_F16
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(a.bits) : "f"(f));
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(a.bits) : "f"(f));
#endif
    return a;
}

// The two numbers of a pair. bf16: one shift, one and.
DEVICE float2 unpack2(u32 pair) {
#if KOMT_F16
    float2 f;
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
        : "=f"(f.x), "=f"(f.y)
        : "r"(pair));
    return f;
#else
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
#endif
}

// A pair of two numbers, each rounded to nearest even.
DEVICE u32 pack2(float low, float high) {
    u32 pair;
#if KOMT_F16 && KOMT_SM >= 80
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#elif KOMT_F16
    asm("{ .reg .b16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h}; }"
        : "=r"(pair)
        : "f"(low), "f"(high));
#else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
    return pair;
}

// a * b + c of two pairs, each rounded once.
DEVICE u32 fma2(u32 a, u32 b, u32 c) {
    u32 d;
#if KOMT_F16
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
#else
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
#endif
    return d;
}

// Eight numbers of 16 bytes.
DEVICE void unpack8(float (&f)[8], uint4 v) {
    const u32 pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 two = unpack2(pairs[i]);
        f[2 * i] = two.x;
        f[2 * i + 1] = two.y;
    }
}

DEVICE uint4 pack8(const float (&f)[8]) {
    return make_uint4(pack2(f[0], f[1]), pack2(f[2], f[3]), pack2(f[4], f[5]), pack2(f[6], f[7]));
}

// Numbers 0 and 2 of four signed 8-bit numbers, exactly. f16: 1024 + (b + 128) is made of bits, and 1152 taken off; bf16 has 8 bits:
// 128 + (b mod 128) likewise, less 128 or, below zero, 256. lop3 takes one constant of its own only, the mask; the others stay in
// registers when the assembler does not know that blockDim.y is 1.
DEVICE u32 even_a(u32 four) {
#if KOMT_F16
    u32 pair;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(pair) : "r"((four & 0x00ff00ffu) ^ 0x64806480u * blockDim.y), "r"(0x64806480u));
    return pair;
#else
    const u32 base = 0x43004300u * blockDim.y;
    return fma2((four & 0x00800080u) | base, 0xbf80bf80u, (four & 0x007f007fu) | base);
#endif
}

// Numbers 1 and 3.
DEVICE u32 odd_a(u32 four) { return even_a(four >> 8); }

// Eight numbers in the order of two words of 8 bits that become pairs: (0, 2), (1, 3), (4, 6), (5, 7).
DEVICE uint4 in_word_order(uint4 v) {
    return make_uint4(__byte_perm(v.x, v.y, 0x5410), __byte_perm(v.x, v.y, 0x7632), __byte_perm(v.z, v.w, 0x5410),
                      __byte_perm(v.z, v.w, 0x7632));
}

// g / (1 + e^-g). Relative error about 2^-21 + |g| 2^-24 (ex2.approx and div.approx: 2 ulp each, and the product with
// log2 e): a thousandth of an A's rounding for |g| < 10; below that e^-g dominates and the result is tiny.
DEVICE float silu(float g) {
    return __fdividef(g, 1.0f + __expf(-g));
}

// 2^x, relative error 2^-22; 2^-inf = 0, and results below 2^-126 are 0.
DEVICE float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- memory ---------------------------------------------------------------------------------------------------------

// 16 bytes, 16-byte aligned, of memory that nobody writes during the launch and that is read once: weights.
// It passes by the L1 cache, which is left to the activations.
DEVICE uint4 load16_once(const void *p) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(__cvta_generic_to_global(p)));
    return v;
}

// 8 bytes, 8-byte aligned, likewise.
DEVICE uint2 load8_once(const void *p) {
    uint2 v;
    asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
        : "=r"(v.x), "=r"(v.y)
        : "l"(__cvta_generic_to_global(p)));
    return v;
}

// 16 bytes, 16-byte aligned, of memory that nobody writes during the launch and that others read again.
DEVICE uint4 load16_nc(const void *p) {
    uint4 v;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(__cvta_generic_to_global(p)));
    return v;
}

// Address of shared memory as the instructions below want it.
DEVICE u32 shared_address(const void *p) {
    return u32(__cvta_generic_to_shared(p));
}

// Keeps a value in its register: the compiler would otherwise compute it again in every round of a loop.
DEVICE void keep(u32 &v) {
    asm volatile("" : "+r"(v));
}

// Dynamic shared memory of the block, at an address divisible by 128: all 32 banks.
DEVICE u8 *dynamic_shared() {
    extern __shared__ __align__(128) u8 dynamic_shared_bytes[];
    return dynamic_shared_bytes;
}

// ---- reductions: fixed order, the same bits in all lanes ------------------------------------------------------------

DEVICE float warp_sum(float v) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(~0u, v, lanes);
    return v;
}

DEVICE float warp_max(float v) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, lanes));
    return v;
}

// Sum over a block of WARPS warps, in all threads; scratch[WARPS] in shared memory, free again after the next barrier.
template <int WARPS> DEVICE float block_sum(float v, float *scratch) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += scratch[i];
    return sum;
}

// ---- global to shared memory ----------------------------------------------------------------------------------------

// Copies 16 bytes, both addresses 16-byte aligned, or fills with zeros: then `from` is not read. Complete for the thread
// after its cp_async_wait, for others after a barrier behind that. sm_75 copies at once, through registers.
DEVICE void cp_async16(u32 to_shared, const void *from, bool valid) {
#if KOMT_SM >= 80
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to_shared),
                 "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0)
                 : "memory");
#else
    const uint4 v = valid ? load16_nc(from) : make_uint4(0, 0, 0, 0);
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to_shared), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
#endif
}

// Copies 4 or 8 bytes, both addresses aligned to that; otherwise as above.
template <int BYTES> DEVICE void cp_async_few(u32 to_shared, const void *from) {
    static_assert(BYTES == 4 || BYTES == 8, "cp_async_few");
#if KOMT_SM >= 80
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to_shared), "l"(__cvta_generic_to_global(from)), "n"(BYTES)
                 : "memory");
#else
    const u32 *words = static_cast<const u32 *>(from);
    if constexpr (BYTES == 8) {
        const uint2 v = load8_once(words);
        asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(to_shared), "r"(v.x), "r"(v.y) : "memory");
    } else {
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(to_shared), "r"(words[0]) : "memory");
    }
#endif
}

// Ends a group of copies.
DEVICE void cp_async_commit() {
#if KOMT_SM >= 80
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING groups of this thread, the newest, are under way.
template <int PENDING> DEVICE void cp_async_wait() {
#if KOMT_SM >= 80
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// ---- tensor cores ---------------------------------------------------------------------------------------------------

// Matrices of 8 rows of 16 bytes; lanes 8 i .. 8 i + 7 give the addresses of the rows of matrix i. Lane l receives the pair
// l % 4 of row l / 4 of each (trans: of column l / 4).
DEVICE void ldmatrix_x4(u32 (&r)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
DEVICE void ldmatrix_x4_trans(u32 (&r)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
// c [16, 8] += a [16, 16] . b [16, 8], in f32. With g = lane / 4, t = lane % 4, pairs along k:
//   a[0] = (g, 2 t)  a[1] = (g + 8, 2 t)  a[2] = (g, 2 t + 8)  a[3] = (g + 8, 2 t + 8)
//   b0 = (2 t, g)    b1 = (2 t + 8, g)
//   c[0], c[1] = (g, 2 t), (g, 2 t + 1)   c[2], c[3] = (g + 8, 2 t), (g + 8, 2 t + 1)
// sm_75 has the instruction for half the depth only: twice.
DEVICE void mma_16816(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if KOMT_SM < 80
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2]), "r"(a[3]), "r"(b1));
#elif KOMT_F16
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// The same without anything to add to.
DEVICE void mma_16816_first(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#pragma unroll
    for (int i = 0; i < 4; i++) c[i] = 0.0f;
    mma_16816(c, a, b0, b1);
}
