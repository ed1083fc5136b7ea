// The sum of 2048 numbers. Each load of a warp reads 128 bytes in one piece; the edit gives each thread a piece of its own.
typedef unsigned int u32;

extern "C" __global__ void coalesced(const u32 *in, u32 *out) {
    const u32 t = threadIdx.x;
    u32 sum = 0;
#pragma unroll 1
    for (u32 i = 0; i < 8; i++) {
#ifdef PIECE_OF_ITS_OWN
        sum += in[t * 8 + i];
#else
        sum += in[i * 256 + t];
#endif
    }
    atomicAdd(out, sum);
}
