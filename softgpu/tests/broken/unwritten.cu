// What nobody wrote, used in three ways. The edit: one number less is written.
typedef unsigned int u32;

#ifdef FILL_ONE_SHORT
#define FILLED 63
#else
#define FILLED 64
#endif

extern "C" __global__ void gather(const u32 *index, const u32 *table, u32 *out) {
    __shared__ u32 x[64];
    const u32 t = threadIdx.x;
    if (t < FILLED) x[t] = index[t];
    __syncthreads();
    out[t] = table[(x[63 - t] * 3 + 1) % 64]; // caught: used_as_address
}

extern "C" __global__ void count_large(const u32 *in, u32 *out) {
    __shared__ u32 x[64];
    const u32 t = threadIdx.x;
    if (t < FILLED) x[t] = in[t];
    __syncthreads();
    if (x[63 - t] > 31) atomicAdd(out, 1); // caught: used_as_condition
}

extern "C" __global__ void reversed(const u32 *in, u32 *out) {
    __shared__ u32 x[64];
    const u32 t = threadIdx.x;
    if (t < FILLED) x[t] = in[t] + 1;
    __syncthreads();
    out[t] = x[63 - t] * 2; // caught: copied_out
}

// Pairs of numbers are loaded, one of each pair is used: nobody need have written the other half.
extern "C" __global__ void firsts(const uint2 *in, u32 *out) {
    uint2 v;
    asm("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(__cvta_generic_to_global(in + threadIdx.x)));
#ifdef SECONDS
    const u32 index = v.y;
#else
    const u32 index = v.x;
#endif
    out[index] = threadIdx.x; // caught: seconds
}
