// Transposes a 32 x 32 matrix through shared memory; place(row, col) spreads a column over the banks.
typedef unsigned int u32;

__device__ __forceinline__ u32 plain(u32 row, u32 col) { return row * 32 + col; }
__device__ __forceinline__ u32 swizzled(u32 row, u32 col) { return row * 32 + (col ^ row); }

#if defined(LOST_SWIZZLE)
#define TO plain
#define FROM plain
#elif defined(SWIZZLE_OF_ONE_SIDE)
#define TO swizzled
#define FROM plain
#else
#define TO swizzled
#define FROM swizzled
#endif

extern "C" __global__ void transpose(const u32 *in, u32 *out) {
    __shared__ u32 tile[32 * 32];
    const u32 lane = threadIdx.x;
    for (u32 row = threadIdx.y; row < 32; row += blockDim.y) tile[TO(row, lane)] = in[row * 32 + lane];
    __syncthreads();
    for (u32 row = threadIdx.y; row < 32; row += blockDim.y) out[row * 32 + lane] = tile[FROM(lane, row)];
}
