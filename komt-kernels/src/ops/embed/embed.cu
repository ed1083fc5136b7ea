// x[r, :] = table[ids[r], :], widened to f32. x [n_tokens, dim], table [vocab_size, dim] of A, or in q8 or q4
// (quant.cuh): then row_scale * (scale * quant), rounded once.
//
// Mapping: block (y, r): a stretch of row r; thread: 8 numbers, one 16-byte load and two 16-byte stores. Quantised: neighbours
// share a unit of 16 (q8) or 32 columns, and take pair c / 8 of its four words.
// Preconditions: dim % 8 == 0, quantised dim % 32 == 0; 16-byte aligned buffers. An id that the table lacks gives a row of NaN.
// Moves n_tokens * dim * (2 + 4) bytes; quantised the table's bits instead of 2.

struct EmbedParams {
    float *x;
    const u8 *table;
    const u32 *ids; // [n_tokens]
    u32 dim;
    u32 vocab_size;
};
static_assert(sizeof(EmbedParams) == 32, "EmbedParams");

template <int BITS> DEVICE void load8(float (&f)[8], const EmbedParams &p, u32 id, u32 c) {
    if constexpr (BITS == 16) {
        unpack8(f, load16_nc(p.table + (u64(id) * p.dim + c) * 2));
    } else {
        using Q = Quant<BITS>;
        const uint4 unit = load16_nc(p.table + u64(id) * Q::row_bytes(p.dim) + c / Q::UNIT * 16);
        const u8 *scales = Q::scales(p.table, p.vocab_size, p.dim) + u64(id) * Q::scale_bytes(p.dim);
        const float scale = float(static_cast<signed char>(scales[c / Q::GROUP]));
        const float row_scale = Q::row_scales(p.table, p.vocab_size, p.dim)[id];
        const u32 words[4] = {unit.x, unit.y, unit.z, unit.w}, shift = c % Q::UNIT / 8 * BITS;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            f[i] = row_scale * (scale * float(Q::whole(words[i / 2] >> shift >> i % 2 * 16)));
        }
    }
}

template <int BITS> DEVICE void embed_row(const EmbedParams &p) {
    const u32 r = blockIdx.x, c = (blockIdx.y * 128 + threadIdx.x) * 8;
    if (c >= p.dim) return;
    const u32 id = p.ids[r];
    float f[8];
    if (id < p.vocab_size) {
        load8<BITS>(f, p, id, c);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) f[i] = __uint_as_float(0x7fc00000u);
    }
    float4 *to = reinterpret_cast<float4 *>(p.x + u64(r) * p.dim + c);
    to[0] = make_float4(f[0], f[1], f[2], f[3]);
    to[1] = make_float4(f[4], f[5], f[6], f[7]);
}

extern "C" __global__ void __launch_bounds__(128) embed(const EmbedParams p) {
    embed_row<16>(p);
}
extern "C" __global__ void __launch_bounds__(128) embed_q8(const EmbedParams p) {
    embed_row<8>(p);
}
extern "C" __global__ void __launch_bounds__(128) embed_q4(const EmbedParams p) {
    embed_row<4>(p);
}
