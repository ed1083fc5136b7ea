// out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * w, in f32, rounded to A once.
// out [n_tokens, dim] of A, x [n_tokens, dim] of f32, w [dim] of f32.
//
// Mapping: block: one row; thread: numbers 4 (i threads + thread) .. + 4, of which it keeps the first 16 in registers.
// Rows longer than 16 a thread are read a second time (from the L2 cache) for the rest. The host takes the smallest
// instance that keeps the whole row.
// Preconditions: dim % 4 == 0; 16-byte aligned buffers.
// Moves n_tokens * dim * (4 + 2) bytes, and w, which stays in the L2 cache.
// The sum of squares: per thread in order, then the lanes of a warp, then the warps: the same bits whatever the step.

struct RmsNormParams {
    A *out;
    const float *x;
    const float *w;
    u32 dim;
    float eps;
};
static_assert(sizeof(RmsNormParams) == 32, "RmsNormParams");

DEVICE float squares(float4 v) {
    return v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);
}

DEVICE void store_normed(A *out, float4 v, float scale, float4 w) {
    uint2 pairs;
    pairs.x = pack2(v.x * scale * w.x, v.y * scale * w.y);
    pairs.y = pack2(v.z * scale * w.z, v.w * scale * w.w);
    *reinterpret_cast<uint2 *>(out) = pairs;
}

template <int WARPS> DEVICE void rms_norm(const RmsNormParams &p) {
    constexpr u32 THREADS = 32 * WARPS, KEPT = 4;
    __shared__ float scratch[WARPS];
    const float *x = p.x + u64(blockIdx.x) * p.dim;
    A *out = p.out + u64(blockIdx.x) * p.dim;
    auto at = [](const float *base, u32 c) { return *reinterpret_cast<const float4 *>(base + c); };

    float4 kept[KEPT];
    float sum = 0.0f;
    const u32 first = threadIdx.x * 4;
#pragma unroll
    for (u32 i = 0; i < KEPT; i++) {
        const u32 c = first + i * THREADS * 4;
        kept[i] = c < p.dim ? at(x, c) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        sum += squares(kept[i]);
    }
    for (u32 c = first + KEPT * THREADS * 4; c < p.dim; c += THREADS * 4) sum += squares(at(x, c));

    const float scale = 1.0f / sqrtf(block_sum<WARPS>(sum, scratch) / float(p.dim) + p.eps);
#pragma unroll
    for (u32 i = 0; i < KEPT; i++) {
        const u32 c = first + i * THREADS * 4;
        if (c < p.dim) store_normed(out + c, kept[i], scale, at(p.w, c));
    }
    for (u32 c = first + KEPT * THREADS * 4; c < p.dim; c += THREADS * 4) {
        store_normed(out + c, at(x, c), scale, at(p.w, c));
    }
}

#define INSTANCE(WARPS)                                                                                                \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) rms_norm_##WARPS(const RmsNormParams p) {                 \
        rms_norm<WARPS>(p);                                                                                            \
    }
INSTANCE(4)  // dim up to 2048 in registers
INSTANCE(8)  // 4096
INSTANCE(16) // 8192
INSTANCE(32) // 16384
