// out[i, :] = x[logit_rows[i], :]. out [n_logits, dim], x [n_tokens, dim], both of A.
//
// Mapping: block (i, y): a stretch of row i; thread: 8 numbers, one 16-byte load and store.
// Preconditions: dim % 8 == 0; 16-byte aligned buffers; logit_rows[i] < n_tokens.
// Moves n_logits * dim * (2 + 2) bytes.

struct TakeRowsParams {
    A *out;
    const A *x;
    const u32 *logit_rows; // [n_logits]
    u32 dim;
    u32 padding;
};
static_assert(sizeof(TakeRowsParams) == 32, "TakeRowsParams");

extern "C" __global__ void __launch_bounds__(128) take_rows(const TakeRowsParams p) {
    const u32 i = blockIdx.x, c = (blockIdx.y * 128 + threadIdx.x) * 8;
    if (c >= p.dim) return;
    const uint4 v = load16_nc(p.x + u64(p.logit_rows[i]) * p.dim + c);
    *reinterpret_cast<uint4 *>(p.out + u64(i) * p.dim + c) = v;
}
