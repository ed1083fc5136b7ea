// A tile of 64 chunks of 16 bytes comes by asynchronous copies, those past the n-th as zeros; each thread takes a chunk that
// the other warp has brought.
typedef unsigned int u32;

extern "C" __global__ void copy(const uint4 *in, uint4 *out, u32 n) {
    __shared__ uint4 tile[64];
    const u32 t = threadIdx.x, i = blockIdx.x * 64 + t;
#ifdef DROPPED_ZERO_FILL
    const u32 bytes = 16;
#else
    const u32 bytes = i < n ? 16 : 0;
#endif
#ifdef MISALIGNED
    const u32 to = u32(__cvta_generic_to_shared(tile)) + t * 16 - t % 2 * 8;
#else
    const u32 to = u32(__cvta_generic_to_shared(tile)) + t * 16;
#endif
    const u32 *from = reinterpret_cast<const u32 *>(in + i);
    // caught below: misaligned, dropped_zero_fill, missing_barrier
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
#ifndef MISSING_WAIT
    asm volatile("cp.async.wait_group 0;" ::: "memory");
#endif
#ifndef MISSING_BARRIER
    __syncthreads();
#endif
    out[i] = tile[(t + 32) % 64]; // caught: missing_wait, missing_barrier
}

// The same with each thread taking its own chunk: the wait alone is enough.
extern "C" __global__ void copy_own(const uint4 *in, uint4 *out, u32 n) {
    __shared__ uint4 tile[64];
    const u32 t = threadIdx.x, i = blockIdx.x * 64 + t;
    const u32 to = u32(__cvta_generic_to_shared(tile + t)), bytes = i < n ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(in + i)), "r"(bytes) : "memory");
#ifndef MISSING_WAIT
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
    out[i] = tile[t]; // caught: missing_own_wait
}
