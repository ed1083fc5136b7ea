//! How ggml stores numbers, and what the bytes mean (source: ggml's ggml-common.h and ggml-quants.c; read, not copied).
//!
//! Blocks of consecutive columns; `d`, `m` and `dmin` are f16. A nibble byte holds two columns that are half a run apart: 16
//! in the blocks of 32, 32 in those of 256.
//!
//! ```text
//!        columns bytes
//! Q4_0   32   18   d, 16 nibble bytes                            w = d * (q - 8)
//! Q4_1   32   20   d, m, 16 nibble bytes                         w = d * q + m
//! Q5_0   32   22   d, 32 high bits, 16 nibble bytes              w = d * (q - 16)
//! Q5_1   32   24   d, m, 32 high bits, 16 nibble bytes           w = d * q + m
//! Q8_0   32   34   d, 32 i8                                      w = d * q
//! Q4_K  256  144   d, dmin, 12 packed bytes, 128 nibble bytes    w = d * scale * q - dmin * min
//! Q5_K  256  176   d, dmin, 12 packed bytes, 32 bytes of high bits, 128 nibble bytes         the same
//! Q6_K  256  210   128 bytes of low nibbles, 64 of high pairs, 16 i8 scales, d       w = d * scale * (q - 32)
//! ```
//! In Q4_K and Q5_K 32 columns share a scale and a min of 6 bits each, in Q6_K 16 columns share a scale.

use half::f16;

/// What a tensor's numbers are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)] // ggml's names
pub(super) enum ElementKind {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// ggml's names by number; "" where a number is not in use any more.
const ALL_NAMES: [&str; 31] = [
    "F32", "F16", "Q4_0", "Q4_1", "", "", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",
    "I16", "I32", "I64", "F64", "IQ1_M", "BF16",
];

impl ElementKind {
    /// Those that are read.
    pub const NAMES: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K";

    /// The kind with this number; the name of one that is not read.
    pub fn of_number(number: u32) -> Result<Self, String> {
        Ok(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            other => {
                let name = ALL_NAMES.get(other as usize).filter(|name| !name.is_empty());
                return Err(name.map_or_else(|| format!("type {other}"), |name| name.to_string()));
            }
        })
    }

    /// Columns of a block.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row.
    pub fn row_bytes(self, cols: usize) -> usize {
        cols / self.block_len() * self.block_bytes()
    }

    /// The numbers of some blocks.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let blocks = bytes.chunks_exact(self.block_bytes());
        assert_eq!(blocks.len() * self.block_len(), out.len(), "decode {self:?}: {} bytes", bytes.len());
        let decode: fn(&[u8], &mut [f32]) = match self {
            Self::F32 => |block, out| out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Self::F16 => |block, out| out[0] = half_at(block, 0),
            Self::BF16 => {
                |block, out| out[0] = f32::from_bits(u32::from(block[0]) << 16 | u32::from(block[1]) << 24)
            }
            Self::Q4_0 => |block, out| q4(&block[2..], out, |q| half_at(block, 0) * f32::from(q as i8 - 8)),
            Self::Q4_1 => |block, out| {
                q4(&block[4..], out, |q| half_at(block, 0) * f32::from(q) + half_at(block, 2));
            },
            Self::Q5_0 => |block, out| q5(&block[2..], out, |q| half_at(block, 0) * f32::from(q as i8 - 16)),
            Self::Q5_1 => |block, out| {
                q5(&block[4..], out, |q| half_at(block, 0) * f32::from(q) + half_at(block, 2));
            },
            Self::Q8_0 => |block, out| {
                let d = half_at(block, 0);
                out.iter_mut().zip(&block[2..]).for_each(|(out, &q)| *out = d * f32::from(q as i8));
            },
            Self::Q4_K => q4_k,
            Self::Q5_K => q5_k,
            Self::Q6_K => q6_k,
        };
        for (block, out) in blocks.zip(out.chunks_exact_mut(self.block_len())) {
            decode(block, out);
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// 16 nibble bytes: byte i has column i in its low half and column 16 + i in its high half.
fn q4(nibbles: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    for i in 0..16 {
        out[i] = value(nibbles[i] & 15);
        out[16 + i] = value(nibbles[i] >> 4);
    }
}

/// 4 bytes whose bit i is the fifth of column i, then 16 nibble bytes.
fn q5(bytes: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let fifth = |col: usize| (bytes[col / 8] >> (col % 8) & 1) << 4;
    for i in 0..16 {
        out[i] = value(bytes[4 + i] & 15 | fifth(i));
        out[16 + i] = value(bytes[4 + i] >> 4 | fifth(16 + i));
    }
}

/// Scale and min of run `j` of 8 in the 12 packed bytes: runs 0..4 have their six bits in bytes j and 4 + j; runs 4..8 have
/// the low four bits in byte 4 + j and the upper two above the six bits of run j - 4.
fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// Byte l of the 32 of a pair of runs has column l of the even run in its low half, that of the odd run in its high half.
fn q4_k(block: &[u8], out: &mut [f32]) {
    k_runs(block, &block[16..], |_, _| 0, out);
}

/// As Q4_K; bit j of byte l of the high bits is the fifth bit of column l of run j.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let high = &block[16..48];
    k_runs(block, &block[48..], |j, l| (high[l] >> j & 1) << 4, out);
}

fn k_runs(block: &[u8], nibbles: &[u8], fifth: impl Fn(usize, usize) -> u8, out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], j);
        let (scale, min) = (d * scale, dmin * min);
        let bytes = &nibbles[j / 2 * 32..][..32];
        for (l, out) in out.iter_mut().enumerate() {
            let q = bytes[l] >> (j % 2 * 4) & 15 | fifth(j, l);
            *out = scale * f32::from(q) - min;
        }
    }
}

/// Two halves of 128 columns, each of four runs of 32. Run j of a half: low nibbles in bytes (j % 2) * 32 + l of its 64, the
/// low halves for j < 2, then the high ones; the upper two bits at 2 j of byte l of its 32.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let (half, j) = (run / 4, run % 4);
        let (low, high) = (&low[half * 64 + j % 2 * 32..], &high[half * 32..]);
        for (l, out) in out.iter_mut().enumerate() {
            let q = low[l] >> (j / 2 * 4) & 15 | (high[l] >> (2 * j) & 3) << 4;
            let scale = d * f32::from(scales[run * 2 + l / 16] as i8);
            *out = scale * f32::from(q as i8 - 32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    /// Bit for bit what the Python package says (testdata/SOURCES.md).
    #[test]
    fn every_kind_means_what_the_package_gguf_says() {
        let text = include_str!("../../../testdata/gguf/blocks.json");
        let cases: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(text).unwrap();
        let kinds: Vec<_> = (0..31).filter_map(|number| ElementKind::of_number(number).ok()).collect();
        assert_eq!((kinds.len(), cases.len()), (11, 11));
        for kind in kinds {
            let case = &cases[&format!("{kind:?}")];
            let expected: Vec<u32> = bytes(&case["f32"])
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            let mut out = vec![0.0; expected.len()];
            kind.decode(&bytes(&case["bytes"]), &mut out);
            assert_eq!(out.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_block_by_eye() {
        // d = 2, and bytes 0x1f: column i is 15 - 8, column 16 + i is 1 - 8, twice.
        let block = [&f16::from_f32(2.0).to_le_bytes()[..], &[0x1f; 16]].concat();
        let mut out = [0.0; 32];
        ElementKind::Q4_0.decode(&block, &mut out);
        assert_eq!(out[..16], [14.0; 16]);
        assert_eq!(out[16..], [-14.0; 16]);
    }

    #[test]
    fn kinds_that_are_not_read_have_names() {
        assert_eq!(ElementKind::of_number(10).unwrap_err(), "Q2_K");
        assert_eq!(ElementKind::of_number(4).unwrap_err(), "type 4");
        assert_eq!(ElementKind::of_number(99).unwrap_err(), "type 99");
    }
}
