// Quantised matrices [n, k] on the device: w[r, c] = row_scale[r] * scale[r, c / GROUP] * (a whole number of 4 or 8 bits).
//
//   quants     [n][k / UNIT][4] u32    UNIT columns are 16 bytes: 32 (q4) or 16 (q8). Word t has the columns 2 t and 2 t + 1 of
//                                      each 8: what lane t of four holds of a tensor core's fragment. Pair i of a word, for the
//                                      columns 8 i + 2 t and 8 i + 2 t + 1, is at the bits BITS i and 16 + BITS i.
//   scales     [n][padded k / GROUP] i8    k padded to 128, with zeros
//   row_scales [n] f32                     16-byte aligned
//
// Quants of 4 bits are stored with 8 added. Those of 8 bits are two's complement where A is bf16, with 128 added where it is
// f16. cuda/repack.rs writes this. k % 32 == 0.
template <int BITS> struct Quant {
    // What is under the numbers, in registers: lop3 takes one constant of its own only, the mask. The assembler must not know
    // that blockDim.y is 1, else it makes two instructions with a constant each.
    u32 base, minus_base, float_base;

    DEVICE void begin() {
        base = (KOMT_F16 ? 0x64006400 : 0x43004300) * blockDim.y;
        minus_base = 0xc300c300 * blockDim.y;
        float_base = 0x4b000000 * blockDim.y;
    }

    static constexpr u32 GROUP = BITS == 4 ? 16 : 32;
    static constexpr u32 UNIT = 128 / BITS;

    DEVICE static u32 row_bytes(u32 k) {
        return k / 8 * BITS;
    }
    // Bytes of a row's scales.
    DEVICE static u32 scale_bytes(u32 k) {
        return (k + 127) / 128 * (128 / GROUP);
    }
    DEVICE static const u8 *scales(const u8 *w, u32 n, u32 k) {
        return w + u64(n) * row_bytes(k);
    }
    DEVICE static const float *row_scales(const u8 *w, u32 n, u32 k) {
        const u64 end = u64(n) * (row_bytes(k) + scale_bytes(k));
        return reinterpret_cast<const float *>(w + (end + 15) / 16 * 16);
    }

    // Pair PAIR of a word as two exact numbers of type A. An integer in the lowest bits of 128 (bf16) or 1024 (f16) is that number
    // and the integer; one fma takes off what is too much.
    template <int PAIR> DEVICE u32 pair(u32 word) const {
#if KOMT_F16
        if constexpr (BITS == 8) {
            const u32 v = __byte_perm(word, 0x64646464, 0x4040 + PAIR * 0x101 + 0x200);
            return fma2(v, 0x3c003c00, 0xe480e480); // 1 v - 1152
        } else {
            const u32 v = word >> PAIR / 2 * 8;
            if constexpr (PAIR % 2 == 0) return fma2((v & 0x000f000f) | base, 0x3c003c00, 0xe408e408); // 1 v - 1032
            return fma2((v & 0x00f000f0) | base, 0x2c002c00, 0xd480d480); // v / 16 - 72
        }
#else
        const u32 v = word >> PAIR * BITS;
        if constexpr (BITS == 8) return signed_pair(v);
        return fma2((v & 0x000f000f) | base, 0x3f803f80, 0xc308c308); // 1 v - 136
#endif
    }

    // The number in the lowest bits.
    DEVICE static i32 whole(u32 bits) {
        if constexpr (BITS == 4) return i32(bits & 15) - 8;
        return KOMT_F16 ? i32(bits & 255) - 128 : i32(static_cast<signed char>(bits));
    }

    // Scale I of four as two numbers of type A.
    template <int I> DEVICE u32 scale_pair(u32 four) const {
#if KOMT_F16
        return fma2(__byte_perm(four ^ 0x80808080, 0x64646464, 0x4040 + I * 0x101), 0x3c003c00, 0xe480e480);
#else
        return signed_pair(__byte_perm(four, 0, 0x4040 + I * 0x101));
#endif
    }

    // Scale i of those in `words`, of which each byte has 128 added: on 2^23 in f32.
    DEVICE float scale(const u32 *words, int i) const {
        return __uint_as_float(__byte_perm(words[i / 4], float_base, 0x7540 + i % 4)) - 8388736.0f;
    }

#if !KOMT_F16
    // The two's complement of bits 0..7 and 16..23: the lower seven bits on 128, less 128, and less another 128 with the eighth.
    DEVICE u32 signed_pair(u32 v) const {
        return fma2((v & 0x007f007f) | base, 0x3f803f80, (v & 0x00800080) | minus_base);
    }
#endif
};
