// Barriers of a block.
typedef unsigned int u32;

// The sum of each block's 256 numbers: a tree in shared memory.
extern "C" __global__ void reduce(const float *in, float *out) {
    __shared__ float x[256];
    const u32 t = threadIdx.x;
    x[t] = in[blockIdx.x * 256 + t]; // caught: missing_first_barrier
#ifndef MISSING_FIRST_BARRIER
    __syncthreads();
#endif
#pragma unroll 1
    for (u32 half = 128; half > 0; half /= 2) {
        if (t < half) {
            x[t] += x[t + half]; // caught: missing_first_barrier, missing_barrier, barrier_of_warps_only, warp_in_step
        }
#if defined(BARRIER_OF_WARPS_ONLY) // half 32: warp 0 reads what warp 1 wrote
        __syncwarp();
#elif defined(WARP_IN_STEP) // the last steps are of one warp, but its lanes need order, too
        if (half > 32) __syncthreads();
#elif !defined(MISSING_BARRIER)
        __syncthreads();
#endif
    }
    if (t == 0) out[blockIdx.x] = x[0];
}

// Turns the first n of 64 numbers around, then passes each to the thread before.
extern "C" __global__ void turn(const u32 *in, u32 *out, u32 n) {
    __shared__ u32 x[64];
    const u32 t = threadIdx.x;
    if (t < n) {
        x[t] = in[t];
#ifdef DIVERGENT_BARRIER
        __syncthreads(); // caught: divergent_barrier
#endif
    }
#ifndef DIVERGENT_BARRIER
    __syncthreads();
#endif
    const u32 v = t < n ? x[n - 1 - t] : 0;
    __syncthreads(); // caught: divergent_barrier
    x[t] = v;
    __syncthreads();
    out[t] = x[(t + 1) % 64];
}

// Turns them around and no more. Hardware lets threads go that have ended; PTX wants whole warps at a barrier, and so do we.
extern "C" __global__ void turn_only(const u32 *in, u32 *out, u32 n) {
    __shared__ u32 x[64];
    const u32 t = threadIdx.x;
#ifdef EARLY_RETURN
    if (t >= n) return;
#endif
    if (t < n) x[t] = in[t];
    __syncthreads(); // caught: early_return
    if (t < n) out[t] = x[n - 1 - t];
}
