// Warp-wide instructions by part of a warp.
typedef unsigned int u32;

__device__ __forceinline__ u32 warp_sum(u32 mask, u32 v) {
#pragma unroll
    for (u32 lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(mask, v, lanes); // caught: guarded_shuffle, missing_member
    return v;
}

// Sums of rows of n <= 32 numbers, a warp for each.
extern "C" __global__ void row_sums(const u32 *in, u32 *out, u32 n) {
    const u32 lane = threadIdx.x % 32, row = threadIdx.x / 32;
#ifdef MISSING_MEMBER
    const u32 mask = 0x7fffffff;
#else
    const u32 mask = 0xffffffff;
#endif
#ifdef GUARDED_SHUFFLE
    if (lane < n) {
        const u32 sum = warp_sum(mask, in[row * n + lane]);
        if (lane == 0) out[row] = sum;
    }
#else
    const u32 sum = warp_sum(mask, lane < n ? in[row * n + lane] : 0);
    if (lane == 0) out[row] = sum;
#endif
}

// How many numbers of a row are odd.
extern "C" __global__ void odd(const u32 *in, u32 *out, u32 n) {
    const u32 lane = threadIdx.x % 32, row = threadIdx.x / 32;
#ifdef GUARDED_VOTE
    if (lane >= n) return;
    const u32 votes = __ballot_sync(0xffffffff, in[row * n + lane] % 2); // caught: guarded_vote
#else
    const u32 votes = __ballot_sync(0xffffffff, lane < n && in[row * n + lane] % 2);
#endif
    if (lane == 0) out[row] = __popc(votes);
}

// Lanes 0 to 15 each pass their number down by one; the last keeps its own.
extern "C" __global__ void pass_down(const u32 *in, u32 *out) {
    const u32 lane = threadIdx.x;
    if (lane < 16) {
#ifdef FROM_ABSENT_LANE
        out[lane] = __shfl_down_sync(0xffff, in[lane], 1); // caught: from_absent_lane
#else
        out[lane] = __shfl_down_sync(0xffff, in[lane], 1, 16);
#endif
    }
}
