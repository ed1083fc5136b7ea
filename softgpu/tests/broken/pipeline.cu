// Each thread sums its column of 8 tiles of 64 chunks, which come through two buffers, one tile ahead.
typedef unsigned int u32;

__device__ __forceinline__ void load(uint4 *to, const uint4 *from) {
    const u32 shared = u32(__cvta_generic_to_shared(to));
    // caught below: missing_trailing_barrier, missing_barrier, one_buffer
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(__cvta_generic_to_global(from)) : "memory");
}

extern "C" __global__ void pipeline(const uint4 *in, u32 *out) {
    __shared__ uint4 tile[2][64];
    const u32 t = threadIdx.x, tiles = 8;
    u32 sum = 0;
    load(&tile[0][t], in + t);
    asm volatile("cp.async.commit_group;" ::: "memory");
#pragma unroll 1
    for (u32 k = 0; k < tiles; k++) {
#ifdef ONE_BUFFER
        const u32 next = k % 2;
#else
        const u32 next = (k + 1) % 2;
#endif
        if (k + 1 < tiles) load(&tile[next][t], in + (k + 1) * 64 + t);
        asm volatile("cp.async.commit_group;" ::: "memory");
#ifdef WAIT_FOR_ONE_LESS
        asm volatile("cp.async.wait_group 2;" ::: "memory");
#else
        asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
#ifndef MISSING_BARRIER
        __syncthreads();
#endif
        const uint4 v = tile[k % 2][t ^ 32]; // caught: missing_trailing_barrier, missing_barrier, wait_for_one_less, one_buffer
        sum += v.x + v.y + v.z + v.w;
#ifndef MISSING_TRAILING_BARRIER
        __syncthreads();
#endif
    }
    out[t] = sum;
}
