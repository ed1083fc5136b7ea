// Kernels that are wrong in one way each, beside a twin that is right: `BROKEN` is the first template argument. Compiled for sm_80 by
// NVRTC 12.9: --gpu-architecture=compute_80 -lineinfo --std=c++17, named broken.cu.
#define PAIR(name, ...)                                                        \
    extern "C" __global__ void name##_right(__VA_ARGS__)                      \
    {                                                                          \
        name<false>(NAMES);                                                    \
    }                                                                          \
    extern "C" __global__ void name##_broken(__VA_ARGS__)                     \
    {                                                                          \
        name<true>(NAMES);                                                     \
    }

typedef unsigned int u32;

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void copy_16(void* to, const void* from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n\tcp.async.commit_group;" ::"r"(shared_address(to)), "l"(from)
                 : "memory");
}
__device__ __forceinline__ void wait_all() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

// Threads take what others put into shared memory: a barrier lies between.
template <bool BROKEN> __device__ __forceinline__ void exchange(const float* x, float* y)
{
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    if (!BROKEN) __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];
}

// The tile is written again only when all have read it.
template <bool BROKEN> __device__ __forceinline__ void tiles(const float* x, float* y)
{
    __shared__ float s[64];
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        s[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        sum += s[63 - threadIdx.x];
        if (!BROKEN) __syncthreads();
    }
    y[threadIdx.x] = sum;
}

// Each thread reads its own copy: it waits for it.
template <bool BROKEN> __device__ __forceinline__ void copy_own(const float* x, float* y)
{
    __shared__ __align__(16) float4 s[64];
    copy_16(&s[threadIdx.x], x + 4 * threadIdx.x);
    if (!BROKEN) wait_all();
    y[threadIdx.x] = s[threadIdx.x].x;
}

// Each thread reads another's copy: that has waited, and a barrier lies between.
template <bool BROKEN> __device__ __forceinline__ void copy_others(const float* x, float* y)
{
    __shared__ __align__(16) float4 s[64];
    copy_16(&s[threadIdx.x], x + 4 * threadIdx.x);
    wait_all();
    if (!BROKEN) __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x].x;
}

// 64 threads for 60 elements.
template <bool BROKEN> __device__ __forceinline__ void tail(const float* x, float* y)
{
    if (threadIdx.x < 60 + (BROKEN ? 1 : 0)) y[threadIdx.x] = x[threadIdx.x];
}

// Rows of 64 bytes: without the swizzle, rows 0, 2, 4, 6 lie in the same banks.
template <bool BROKEN> __device__ __forceinline__ void swizzle(const float* x, float* y)
{
    __shared__ __align__(128) uint4 s[32 * 4];
    for (int i = threadIdx.x; i < 128; i += 32) {
        int row = i / 4, column = i % 4;
        s[row * 4 + (BROKEN ? column : column ^ (row / 2 % 4))] = ((const uint4*)x)[i];
    }
    __syncwarp();
    int row = threadIdx.x;
    u32 a, b, c, d, at = shared_address(&s[row * 4 + (BROKEN ? 1 : 1 ^ (row / 2 % 4))]);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(at));
    y[threadIdx.x] = __uint_as_float(a ^ b ^ c ^ d);
}

// All lanes named take part.
template <bool BROKEN> __device__ __forceinline__ void shuffle(const float* x, float* y)
{
    float v = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) v += __shfl_xor_sync(BROKEN ? 0xffffffffu : 0x0000ffffu, v, 1);
    y[threadIdx.x] = v;
}

// All threads of a warp come to the barrier.
template <bool BROKEN> __device__ __forceinline__ void barrier(const float* x, float* y)
{
    if (!BROKEN || threadIdx.x < 40) __syncthreads();
    y[threadIdx.x] = x[threadIdx.x];
}

// As many threads come as are waited for.
template <bool BROKEN> __device__ __forceinline__ void deadlock(const float* x, float* y)
{
    asm volatile("bar.sync 1, %0;" ::"n"(BROKEN ? 96 : 64) : "memory");
    y[threadIdx.x] = x[threadIdx.x];
}

// Who waits for a flag waits for somebody to set it.
template <bool BROKEN> __device__ __forceinline__ void spin(const float* x, float* y)
{
    if (BROKEN) while (*(volatile const float*)x == 0.0f) {}
    y[threadIdx.x] = x[threadIdx.x];
}

// Each block has its own part of y.
template <bool BROKEN> __device__ __forceinline__ void blocks(const float* x, float* y)
{
    y[threadIdx.x + (BROKEN ? 0 : 64 * blockIdx.x)] = x[threadIdx.x];
}

// Global memory orders no more than shared memory does.
template <bool BROKEN> __device__ __forceinline__ void global_exchange(const float* x, float* y)
{
    y[threadIdx.x] = x[threadIdx.x];
    if (!BROKEN) __syncthreads();
    y[64 + threadIdx.x] = ((volatile float*)y)[63 - threadIdx.x];
}

// What nobody wrote: it may be loaded and passed over, but decides nothing.
template <bool BROKEN> __device__ __forceinline__ void unwritten(const float* x, float* y)
{
    __shared__ float s[64];
    if (!BROKEN) s[threadIdx.x] = 0;
    float v = *(volatile float*)&s[threadIdx.x];
    if (v > 1.0f) y[threadIdx.x + 1] = 0;
    y[threadIdx.x] = x[threadIdx.x];
}

// What nobody wrote, in a result.
template <bool BROKEN> __device__ __forceinline__ void unwritten_result(const float* x, float* y)
{
    __shared__ float s[64];
    if (!BROKEN) s[threadIdx.x] = 0;
    y[threadIdx.x] = x[threadIdx.x] + *(volatile float*)&s[threadIdx.x];
}

// Pairs begin at even elements.
template <bool BROKEN> __device__ __forceinline__ void pairs(const float* x, float* y)
{
    float2 v = *(const float2*)(x + 2 * (threadIdx.x % 16) + (BROKEN ? 1 : 0));
    y[threadIdx.x] = v.x + v.y;
}

// One lane writes to one place.
template <bool BROKEN> __device__ __forceinline__ void one_place(const float* x, float* y)
{
    y[BROKEN ? 0 : threadIdx.x] = x[threadIdx.x];
}

// Shared memory has an end.
template <bool BROKEN> __device__ __forceinline__ void shared_tail(const float* x, float* y)
{
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = *(volatile float*)&s[(threadIdx.x + 1) % (BROKEN ? 65 : 64)];
}

// The kernel gives up.
template <bool BROKEN> __device__ __forceinline__ void give_up(const float* x, float* y)
{
    y[threadIdx.x] = x[threadIdx.x];
    if (BROKEN && threadIdx.x == 33) __trap();
}

// Atomics need no order among each other; what reads their sum does.
template <bool BROKEN> __device__ __forceinline__ void sums(const float* x, float* y)
{
    __shared__ u32 sum;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    atomicAdd(&sum, x[threadIdx.x] > 0.0f ? 1u : 2u);
    if (!BROKEN) __syncthreads();
    y[threadIdx.x] = *(volatile u32*)&sum;
}

#define NAMES x, y
PAIR(exchange, const float* x, float* y)
PAIR(tiles, const float* x, float* y)
PAIR(copy_own, const float* x, float* y)
PAIR(copy_others, const float* x, float* y)
PAIR(tail, const float* x, float* y)
PAIR(swizzle, const float* x, float* y)
PAIR(shuffle, const float* x, float* y)
PAIR(barrier, const float* x, float* y)
PAIR(deadlock, const float* x, float* y)
PAIR(spin, const float* x, float* y)
PAIR(blocks, const float* x, float* y)
PAIR(global_exchange, const float* x, float* y)
PAIR(unwritten, const float* x, float* y)
PAIR(unwritten_result, const float* x, float* y)
PAIR(pairs, const float* x, float* y)
PAIR(one_place, const float* x, float* y)
PAIR(shared_tail, const float* x, float* y)
PAIR(give_up, const float* x, float* y)
PAIR(sums, const float* x, float* y)
