// out[s, :] = sum of weights[r] * h[r, :] over the rows r of sequence s, in f32. Rows of weight 0 are not read.
// out [n_seqs, dim] of f32, h [n_tokens, dim] of A, weights [n_tokens] of f32.
//
// Mapping: block (x, s): 256 columns of sequence s; lane: 8 of them; the 4 warps take its rows in turn, and are added up in order.
// Preconditions: dim % 8 == 0; 16-byte aligned buffers; n_seqs <= 65,535 (grid y).
// Moves n_tokens * dim * 2 bytes at most, and n_seqs * dim * 4.

struct PoolParams {
    float *out;
    const A *h;
    const float *weights;
    const u32 *q_start; // [n_seqs + 1]
    u32 dim;
    u32 padding;
};
static_assert(sizeof(PoolParams) == 40, "PoolParams");

constexpr u32 WARPS = 4;

extern "C" __global__ void __launch_bounds__(32 * WARPS) pool(const PoolParams p) {
    __shared__ float4 sums[WARPS][2][32];
    const u32 seq = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32, c = (blockIdx.x * 32 + lane) * 8;
    float sum[8] = {};
    if (c < p.dim) {
        for (u32 r = p.q_start[seq] + warp; r < p.q_start[seq + 1]; r += WARPS) {
            const float weight = p.weights[r];
            if (weight == 0.0f) continue;
            float h[8];
            unpack8(h, load16_nc(p.h + u64(r) * p.dim + c));
#pragma unroll
            for (int i = 0; i < 8; i++) sum[i] += weight * h[i];
        }
    }
    sums[warp][0][lane] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    sums[warp][1][lane] = make_float4(sum[4], sum[5], sum[6], sum[7]);
    __syncthreads();
    if (warp >= 2 || c >= p.dim) return; // warp h: numbers 4 h .. 4 h + 4 of each lane's 8
    float4 all = sums[0][warp][lane];
#pragma unroll
    for (u32 w = 1; w < WARPS; w++) {
        const float4 s = sums[w][warp][lane];
        all.x += s.x, all.y += s.y, all.z += s.z, all.w += s.w;
    }
    reinterpret_cast<float4 *>(p.out + u64(seq) * p.dim + c)[warp] = all;
}
