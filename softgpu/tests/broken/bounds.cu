// Past the end of what is not global memory; limits of a launch.
typedef unsigned int u32;

extern "C" __global__ void shared_sums(const u32 *in, u32 *out) {
#ifdef SHARED_ONE_SHORT
    __shared__ u32 x[64];
#else
    __shared__ u32 x[65];
#endif
    const u32 t = threadIdx.x;
    x[t] = in[t];
    if (t == 0) x[64] = 0; // caught: shared_one_short
    __syncthreads();
    out[t] = x[t] + x[t + 1];
}

// Dynamic shared memory: 4 bytes for each thread.
extern "C" __global__ void __launch_bounds__(128) rotate(const u32 *in, u32 *out) {
    extern __shared__ u32 dynamic[];
    const u32 t = threadIdx.x, next = (t + 1) % blockDim.x;
    dynamic[t] = in[t]; // caught: too_little_shared
    __syncthreads();
    out[t] = dynamic[next];
}

// A thread's own array, in local memory, since its indices are not known.
extern "C" __global__ void sort_of(const u32 *in, u32 *out) {
    u32 own[8];
    for (u32 i = 0; i < 8; i++) own[i] = 0;
#ifdef LOCAL_ONE_TOO_MANY
    const u32 limit = 9;
#else
    const u32 limit = 8;
#endif
    u32 sum = 0;
    for (u32 i = 0; i < 16; i++) own[in[(threadIdx.x + i) % 16] % limit] += i; // caught: local_one_too_many
    for (u32 i = 0; i < 8; i++) sum = sum * 3 + own[i];
    out[threadIdx.x] = sum;
}

__constant__ u32 primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};

extern "C" __global__ void prime(const u32 *in, u32 *out) {
    const u32 t = threadIdx.x;
#ifdef CONST_ONE_TOO_MANY
    out[t] = primes[in[t] % 9]; // caught: const_one_too_many
#else
    out[t] = primes[in[t] % 8];
#endif
}

extern "C" __global__ void store_prime(const u32 *in, u32 *out) {
    const u32 t = threadIdx.x;
#ifdef CONST_WRITTEN
    u32 *place = const_cast<u32 *>(primes);
#else
    u32 *place = out;
#endif
    asm volatile("" : "+l"(place));
    place[t] = in[t]; // caught: const_written
}

struct Table {
    u32 n;
    u32 values[8];
};

// A parameter by value, indexed at run time.
extern "C" __global__ void look_up(const u32 *in, u32 *out, const __grid_constant__ Table table) {
    const u32 t = threadIdx.x;
#ifdef PARAM_ONE_TOO_MANY
    const u32 i = in[t] % (table.n + 1);
#else
    const u32 i = in[t] % table.n;
#endif
    out[t] = table.values[i]; // caught: param_one_too_many
}

// A device-side assertion.
extern "C" __global__ void checked(const u32 *in, u32 *out) {
    const u32 t = threadIdx.x;
#ifdef TRAPPED
    if (in[t] >= 63) __trap(); // caught: trapped
#else
    if (in[t] >= 64) __trap();
#endif
    out[t] = in[t];
}
