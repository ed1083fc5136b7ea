// out[r, c] = silu(gate_up[r, c]) * gate_up[r, hidden_dim + c], in f32, rounded to A once.
// out [n_tokens, hidden_dim], gate_up [n_tokens, 2 hidden_dim], both of A.
//
// Mapping: block (r, y): a stretch of row r; thread: 8 numbers, two 16-byte loads and one 16-byte store.
// Preconditions: hidden_dim % 8 == 0; 16-byte aligned buffers.
// Moves n_tokens * hidden_dim * (4 + 2) bytes.

struct SwigluParams {
    A *out;
    const A *gate_up;
    u32 hidden_dim;
    u32 padding;
};
static_assert(sizeof(SwigluParams) == 24, "SwigluParams");

extern "C" __global__ void __launch_bounds__(128) swiglu(const SwigluParams p) {
    const u32 r = blockIdx.x, c = (blockIdx.y * 128 + threadIdx.x) * 8;
    if (c >= p.hidden_dim) return;
    const A *row = p.gate_up + u64(r) * 2 * p.hidden_dim + c;
    float gate[8], up[8];
    unpack8(gate, load16_nc(row));
    unpack8(up, load16_nc(row + p.hidden_dim));
#pragma unroll
    for (int i = 0; i < 8; i++) up[i] *= silu(gate[i]);
    *reinterpret_cast<uint4 *>(p.out + u64(r) * p.hidden_dim + c) = pack8(up);
}
