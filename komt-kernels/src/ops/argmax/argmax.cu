// The id of each row's largest logit, or its k largest with their ids (what counts as larger, and the rows that have no
// answer: mod.rs). logits [n_rows, vocab_size] of f32.
//
// A logit and its id make one number of 64 bits: the logit's bits, turned so that they compare like logits, above the id's
// complement, so that lower ids win ties. All are different, and the largest is the same in whatever order they are looked at.
//
// argmax: block: one row. Thread: ids thread, thread + 1024, ..
// argmax_candidates: block: one row. The k-th largest of the threads' 1024 maxima bounds the k-th largest logit from below; only k
// threads have logits above it, which they collect in shared memory, where they are sorted. A row with more than LIST of
// them (k * vocab_size / 1024 at worst, about k of random ones) has no answer.
// Preconditions: argmax_candidates: k <= 128, k <= vocab_size.
// Moves n_rows * vocab_size * 4 bytes, argmax_candidates k threads' share of it twice.

struct ArgmaxParams {
    u32 *ids;           // [n_rows], or [n_rows, k]
    float *values;      // [n_rows, k]
    const float *logits; // [n_rows, vocab_size]
    u32 vocab_size;
    u32 k;
};
static_assert(sizeof(ArgmaxParams) == 32, "ArgmaxParams");

constexpr u32 THREADS = 1024, LIST = 2048;
constexpr u32 NO_TOKEN = ~0u;

DEVICE u64 ranked(float logit, u32 id) {
    u32 bits = __float_as_uint(logit == 0.0f ? 0.0f : logit); // 0 and -0 are equal
    bits = logit != logit ? ~0u : bits >> 31 ? ~bits : bits | 1u << 31;
    return u64(bits) << 32 | (~id & 0xffffffffull);
}
DEVICE u32 id_of(u64 rank) {
    return ~u32(rank);
}
// Whether a row with this largest logit has an answer: it is neither NaN nor an infinity.
DEVICE bool is_usable(u64 largest) {
    const u32 bits = u32(largest >> 32);
    return bits > 0x007fffffu && bits < 0xff800000u;
}
DEVICE u64 larger(u64 a, u64 b) {
    return a > b ? a : b;
}

// The largest of the logits thread, thread + THREADS, ..; 0 is below all.
DEVICE u64 own_largest(const float *row, u32 n) {
    u64 best = 0;
#pragma unroll 8
    for (u32 id = threadIdx.x; id < n; id += THREADS) best = larger(best, ranked(row[id], id));
    return best;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) argmax(const ArgmaxParams p) {
    __shared__ u64 of_warps[THREADS / 32];
    u64 best = own_largest(p.logits + u64(blockIdx.x) * p.vocab_size, p.vocab_size);
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) best = larger(best, __shfl_xor_sync(~0u, best, lanes));
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x < 32) {
        best = of_warps[threadIdx.x];
#pragma unroll
        for (int lanes = 16; lanes > 0; lanes /= 2) best = larger(best, __shfl_xor_sync(~0u, best, lanes));
        if (threadIdx.x == 0) p.ids[blockIdx.x] = is_usable(best) ? id_of(best) : NO_TOKEN;
    }
}

// Where the i-th of a sorted list lies. The network has half a warp take every other number, or every other two, four or eight: so
// they lie in different banks.
DEVICE u32 place(u32 i) {
    return i ^ i / 16 % 2 * 15;
}

// Sorts list[n], n a power of two, in whatever order, largest first (Batcher's bitonic network). Begins and ends with a barrier.
DEVICE void sort(u64 *list, u32 n) {
    for (u32 size = 2; size <= n; size *= 2) {
        for (u32 stride = size / 2; stride > 0; stride /= 2) {
            __syncthreads();
            for (u32 i = threadIdx.x; i < n / 2; i += THREADS) {
                const u32 low = 2 * i - i % stride, a = place(low), b = place(low + stride);
                const u64 first = list[a], second = list[b];
                if ((first < second) == ((low & size) == 0)) list[a] = second, list[b] = first;
            }
        }
    }
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) argmax_candidates(const ArgmaxParams p) {
    __shared__ u64 list[LIST];
    __shared__ u32 n_found;
    const float *row = p.logits + u64(blockIdx.x) * p.vocab_size;
    const u64 own = own_largest(row, p.vocab_size);
    list[threadIdx.x] = own;
    if (threadIdx.x == 0) n_found = 0;
    sort(list, THREADS);
    const u64 bound = list[place(p.k - 1)], largest = list[place(0)];
    __syncthreads();
    if (own >= bound && own > 0) {
        for (u32 id = threadIdx.x; id < p.vocab_size; id += THREADS) {
            const u64 rank = ranked(row[id], id);
            if (rank < bound) continue;
            const u32 at = atomicAdd(&n_found, 1u);
            if (at < LIST) list[at] = rank;
        }
    }
    __syncthreads();
    const u32 n = n_found;
    u32 *ids = p.ids + u64(blockIdx.x) * p.k;
    float *values = p.values + u64(blockIdx.x) * p.k;
    if (!is_usable(largest) || n > LIST) {
        if (threadIdx.x < p.k) ids[threadIdx.x] = NO_TOKEN, values[threadIdx.x] = -INFINITY;
        return;
    }
    u32 size = 2;
    while (size < n) size *= 2;
    for (u32 i = n + threadIdx.x; i < size; i += THREADS) list[i] = 0;
    sort(list, size);
    if (threadIdx.x < p.k) {
        const u32 id = id_of(list[place(threadIdx.x)]);
        ids[threadIdx.x] = id;
        values[threadIdx.x] = row[id];
    }
}
