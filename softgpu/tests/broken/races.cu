// Two threads, one place, no order.
typedef unsigned int u32;

// Neighbours of a warp exchange their numbers through shared memory.
extern "C" __global__ void exchange(const u32 *in, u32 *out) {
    __shared__ u32 x[64];
    const u32 t = threadIdx.x;
#ifdef TWO_LANES_ONE_PLACE
    x[t / 2 * 2] = in[t]; // caught: two_lanes_one_place
#else
    x[t] = in[t]; // caught: missing_warp_barrier
#endif
#ifndef MISSING_WARP_BARRIER
    __syncwarp();
#endif
    out[t] = x[t ^ 1]; // caught: missing_warp_barrier
}

// How often each number below 32 occurs. In our data those of a warp are different, and all warps have the same.
extern "C" __global__ void histogram(const u32 *in, u32 *out) {
    __shared__ u32 count[32];
    const u32 t = threadIdx.x;
    if (t < 32) count[t] = 0;
    __syncthreads();
#ifdef NOT_ATOMIC
    count[in[t]] += 1; // caught: not_atomic
#else
    atomicAdd(&count[in[t]], 1); // caught: read_beside_atomics
#endif
#ifndef READ_BESIDE_ATOMICS
    __syncthreads();
#endif
    if (t < 32) out[t] = count[t]; // caught: read_beside_atomics
}

// The sum over all blocks.
extern "C" __global__ void total(const u32 *in, u32 *out) {
    const u32 v = in[blockIdx.x];
#ifdef NOT_ATOMIC
    if (threadIdx.x == 0) *out += v; // caught: blocks_not_atomic
#else
    if (threadIdx.x == 0) atomicAdd(out, v);
#endif
}

// Each block has 64 numbers of a result.
extern "C" __global__ void parts(const u32 *in, u32 *out) {
#ifdef OVERLAP
    const u32 i = blockIdx.x * 63 + threadIdx.x;
#else
    const u32 i = blockIdx.x * 64 + threadIdx.x;
#endif
    out[i] = in[i] + blockIdx.x; // caught: overlap
}

// Sums of neighbours; in place it would be a race, between warps as between blocks.
extern "C" __global__ void neighbours(const u32 *in, u32 *out, u32 n) {
    const u32 i = blockIdx.x * 64 + threadIdx.x;
    if (i >= n) return;
    const u32 sum = in[i] + (i + 1 < n ? in[i + 1] : 0); // caught: in_place, in_place_in_one_block
    out[i] = sum; // caught: in_place, in_place_in_one_block
}

// Reverses 64 numbers by way of scratch in global memory.
extern "C" __global__ void reverse(const u32 *in, u32 *scratch, u32 *out) {
    const u32 t = threadIdx.x;
    scratch[t] = in[t]; // caught: missing_global_barrier
#ifndef MISSING_GLOBAL_BARRIER
    __syncthreads();
#endif
    out[t] = scratch[63 - t]; // caught: missing_global_barrier
}
