// x[r, :] = table[ids[r], :], widened to f32. x [n_tokens, dim], table [vocab_size, dim] of A.
//
// Mapping: block (y, r): a stretch of row r; thread: 8 numbers, one 16-byte load and two 16-byte stores.
// Preconditions: dim % 8 == 0; 16-byte aligned buffers. An id that the table lacks gives a row of NaN.
// Moves n_tokens * dim * (2 + 4) bytes.

struct EmbedParams {
    float *x;
    const A *table;
    const u32 *ids; // [n_tokens]
    u32 dim;
    u32 vocab_size;
};
static_assert(sizeof(EmbedParams) == 32, "EmbedParams");

extern "C" __global__ void __launch_bounds__(128) embed(const EmbedParams p) {
    const u32 r = blockIdx.x, c = (blockIdx.y * 128 + threadIdx.x) * 8;
    if (c >= p.dim) return;
    const u32 id = p.ids[r];
    float f[8];
    if (id < p.vocab_size) {
        unpack8(f, load16_nc(p.table + u64(id) * p.dim + c));
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) f[i] = __uint_as_float(0x7fc00000u);
    }
    float4 *to = reinterpret_cast<float4 *>(p.x + u64(r) * p.dim + c);
    to[0] = make_float4(f[0], f[1], f[2], f[3]);
    to[1] = make_float4(f[4], f[5], f[6], f[7]);
}
