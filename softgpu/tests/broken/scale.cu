// out = in * factor, with a tail.
typedef unsigned int u32;

extern "C" __global__ void scale(const float *in, float *out, float factor, u32 n) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
#if defined(OFF_BY_ONE)
    if (i <= n)
#elif !defined(DROPPED_GUARD)
    if (i < n)
#endif
        out[i] = in[i] * factor; // caught: off_by_one, dropped_guard, freed_input, freed_output, unwritten_input
}

// The same, four numbers of 16 bytes at a time; n is a multiple of four.
extern "C" __global__ void scale4(const float *in, float *out, float factor, u32 n) {
    const u32 i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
#ifdef MISALIGNED_LOAD
    const u32 at = i + 2;
#else
    const u32 at = i;
#endif
    const float4 v = *reinterpret_cast<const float4 *>(in + at); // caught: misaligned_load, misaligned_argument
    *reinterpret_cast<float4 *>(out + i) = make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);
}
