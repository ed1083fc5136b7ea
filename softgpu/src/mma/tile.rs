//! The arithmetic of one mma: fragments to small tiles, the product, and back.

use super::Form;
use crate::num::{F32, Ty, bf16_to_f32, f16_to_f32, f32_to_f16};

type Word = [u32; 32];
/// Rows 8h + g of the accumulators: `[h][g][column]`.
type Acc = [[[f32; 8]; 8]; 2];

/// What C and D are.
#[derive(Clone, Copy)]
pub(super) enum Sums {
    F32,
    /// Two to a register.
    F16,
    /// Products of bytes and their sums are integers below 2^24, exact in f32; only adding c needs integers.
    Int {
        satfinite: bool,
    },
}

/// One mma; `form` and the number of registers agree.
pub(super) fn multiply(form: &Form, sums: Sums, d: &mut [Word], a: &[&Word], b: &[&Word], c: &[&Word]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the features were detected.
        return unsafe { multiply_avx2(form, sums, d, a, b, c) };
    }
    choose::<false>(form, sums, d, a, b, c);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_avx2(form: &Form, sums: Sums, d: &mut [Word], a: &[&Word], b: &[&Word], c: &[&Word]) {
    choose::<true>(form, sums, d, a, b, c);
}

#[inline(always)]
fn choose<const FUSED: bool>(form: &Form, sums: Sums, d: &mut [Word], a: &[&Word], b: &[&Word], c: &[&Word]) {
    let mut acc = load(sums, c);
    match (form.per, form.chunks) {
        (2, 2) => accumulate::<FUSED, 2, 2>(form, &mut acc, a, b),
        (2, _) => accumulate::<FUSED, 2, 1>(form, &mut acc, a, b),
        (1, 2) => accumulate::<FUSED, 1, 2>(form, &mut acc, a, b),
        (1, _) => accumulate::<FUSED, 1, 1>(form, &mut acc, a, b),
        (_, 2) => accumulate::<FUSED, 4, 2>(form, &mut acc, a, b),
        _ => accumulate::<FUSED, 4, 1>(form, &mut acc, a, b),
    }
    store(sums, &acc, d, c);
}

/// `FUSED` only chooses the instruction: products of two such elements are exact in f32 (at most 22 bits), so a fused step rounds as
/// multiply then add does. `PER` elements to a register, `CHUNKS` registers of B.
#[inline(always)]
fn accumulate<const FUSED: bool, const PER: usize, const CHUNKS: usize>(
    form: &Form,
    acc: &mut Acc,
    a: &[&Word],
    b: &[&Word],
) {
    let mut right = [[[[0.0; 8]; PER]; 4]; CHUNKS];
    for (right, word) in right.iter_mut().zip(b) {
        columns(form.b, word, right);
    }
    for (half, acc) in acc.iter_mut().enumerate().take(form.halves) {
        // A copy, so that it stays in registers: 8 of 8 lanes.
        let mut sums = *acc;
        for (chunk, right) in right.iter().enumerate() {
            let mut left = [[0.0; 32]; PER];
            spread(form.a, a[chunk * form.halves + half], &mut left);
            for t in 0..4 {
                for i in 0..PER {
                    for (g, row) in sums.iter_mut().enumerate() {
                        let x = left[i][g * 4 + t];
                        for (sum, y) in row.iter_mut().zip(&right[t][i]) {
                            *sum = if FUSED { x.mul_add(*y, *sum) } else { x * y + *sum };
                        }
                    }
                }
            }
        }
        *acc = sums;
    }
}

/// The elements of a register, lane by lane: `out[i][lane]`.
#[inline(always)]
fn spread<const PER: usize>(ty: Ty, word: &Word, out: &mut [[f32; 32]; PER]) {
    for (i, out) in out.iter_mut().enumerate() {
        let shift = (32 / PER * i) as u32;
        match ty {
            Ty::Bf16 => convert(word, out, |x| bf16_to_f32((x >> shift) as u16)),
            Ty::F16 => convert(word, out, |x| f16_to_f32((x >> shift) as u16)),
            Ty::S8 => convert(word, out, |x| f32::from((x >> shift) as i8)),
            Ty::U8 => convert(word, out, |x| f32::from((x >> shift) as u8)),
            // tf32: hardware ignores the lowest 13 bits.
            _ => convert(word, out, |x| f32::from_bits(x & 0xffff_e000)),
        }
    }
}

#[inline(always)]
fn convert(word: &Word, out: &mut [f32; 32], f: impl Fn(u32) -> f32) {
    for (out, &x) in out.iter_mut().zip(word) {
        *out = f(x);
    }
}

/// A register of B as rows of k: lane 4g + t, element i is (k = t * PER + i, column g). The answer is `[t][i][g]`.
#[inline(always)]
fn columns<const PER: usize>(ty: Ty, word: &Word, out: &mut [[[f32; 8]; PER]; 4]) {
    let mut lanes = [[0.0; 32]; PER];
    spread(ty, word, &mut lanes);
    for (t, out) in out.iter_mut().enumerate() {
        for (out, lanes) in out.iter_mut().zip(&lanes) {
            for (g, x) in out.iter_mut().enumerate() {
                *x = lanes[g * 4 + t];
            }
        }
    }
}

#[inline(always)]
fn load(sums: Sums, c: &[&Word]) -> Acc {
    let mut acc = [[[0.0; 8]; 8]; 2];
    match sums {
        Sums::Int { .. } => {}
        Sums::F16 => {
            for (acc, word) in acc.iter_mut().zip(c) {
                for lane in 0..32 {
                    let (g, t) = (lane / 4, lane % 4);
                    acc[g][2 * t] = f16_to_f32(word[lane] as u16);
                    acc[g][2 * t + 1] = f16_to_f32((word[lane] >> 16) as u16);
                }
            }
        }
        Sums::F32 => {
            for (acc, words) in acc.iter_mut().zip(c.chunks_exact(2)) {
                for (r, word) in words.iter().enumerate() {
                    for (lane, bits) in word.iter().enumerate() {
                        acc[lane / 4][2 * (lane % 4) + r] = f32::from_bits(*bits);
                    }
                }
            }
        }
    }
    acc
}

#[inline(always)]
fn store(sums: Sums, acc: &Acc, d: &mut [Word], c: &[&Word]) {
    match sums {
        Sums::F16 => {
            for (acc, word) in acc.iter().zip(d) {
                for (lane, bits) in word.iter_mut().enumerate() {
                    let (g, t) = (lane / 4, lane % 4);
                    let (lo, hi) = (f32_to_f16(acc[g][2 * t]), f32_to_f16(acc[g][2 * t + 1]));
                    *bits = u32::from(lo) | u32::from(hi) << 16;
                }
            }
        }
        Sums::F32 => {
            for (acc, words) in acc.iter().zip(d.chunks_exact_mut(2)) {
                for (r, word) in words.iter_mut().enumerate() {
                    for (lane, bits) in word.iter_mut().enumerate() {
                        let x = acc[lane / 4][2 * (lane % 4) + r];
                        *bits = if x.is_nan() { F32.nan() } else { x.to_bits() };
                    }
                }
            }
        }
        Sums::Int { satfinite } => {
            for (r, word) in d.iter_mut().enumerate() {
                for (lane, bits) in word.iter_mut().enumerate() {
                    let (sum, start) =
                        (acc[r / 2][lane / 4][2 * (lane % 4) + r % 2] as i32, c[r][lane] as i32);
                    *bits =
                        if satfinite { start.saturating_add(sum) } else { start.wrapping_add(sum) } as u32;
                }
            }
        }
    }
}
