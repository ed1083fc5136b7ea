// Threads that wait for ever.
typedef unsigned int u32;

// Threads at the barrier; 32 of warp 0 arrive, 32 of warp 1 wait.
#ifdef WRONG_COUNT
#define COUNT "96"
#else
#define COUNT "64"
#endif

// Warp 0 hands 32 numbers over to warp 1.
extern "C" __global__ void hand_over(const u32 *in, u32 *out) {
    __shared__ u32 x[32];
    const u32 t = threadIdx.x;
    if (t < 32) {
        x[t] = in[t];
#ifndef DROPPED_ARRIVE
        asm volatile("bar.arrive 1, " COUNT ";" ::: "memory");
#endif
    } else {
        asm volatile("bar.sync 1, " COUNT ";" ::: "memory"); // caught: dropped_arrive, wrong_count
        out[t - 32] = x[t - 32];
    }
}

// The same by a flag.
extern "C" __global__ void signal(const u32 *in, u32 *out) {
    __shared__ u32 x, flag;
    const u32 t = threadIdx.x;
    if (t == 0) flag = 0;
    __syncthreads();
    if (t == 0) {
        atomicExch(&x, in[0]);
        __threadfence_block();
#ifndef DROPPED_SIGNAL
        atomicExch(&flag, 1);
#endif
    }
    if (t == 32) {
        while (atomicAdd(&flag, 0) == 0) { // caught: dropped_signal
        }
        __threadfence_block();
        out[0] = atomicAdd(&x, 0);
    }
}

// Stores n, n - 1, ... 1 in this order in one place.
extern "C" __global__ void count_down(volatile u32 *out, u32 n) {
#ifdef PAST_ZERO
    const u32 step = 2;
#else
    const u32 step = 1;
#endif
#pragma unroll 1
    for (u32 i = n; i != 0; i -= step) *out = i; // caught: past_zero
}
