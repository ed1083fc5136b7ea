//! The arithmetic of one mma: fragments to small tiles, the product, and back.

use super::Form;
use crate::num::{F32, Ty, bf16_to_f32, f16_to_f32, f32_to_f16};

type Word = [u32; 32];

/// One mma of floats. `half_acc`: C and D are pairs of f16.
pub(super) fn floats(form: &Form, d: &mut [Word], a: &[&Word], b: &[&Word], c: &[&Word], half_acc: bool) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the features were detected.
        return unsafe { floats_avx2(form, d, a, b, c, half_acc) };
    }
    floats_body::<false>(form, d, a, b, c, half_acc);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn floats_avx2(form: &Form, d: &mut [Word], a: &[&Word], b: &[&Word], c: &[&Word], half_acc: bool) {
    floats_body::<true>(form, d, a, b, c, half_acc);
}

/// `FUSED` only chooses the instruction: products of two such elements are exact in f32 (at most 22 bits), so a fused step rounds as
/// multiply then add does.
#[inline(always)]
fn floats_body<const FUSED: bool>(
    form: &Form,
    d: &mut [Word],
    a: &[&Word],
    b: &[&Word],
    c: &[&Word],
    half_acc: bool,
) {
    let mut left = [[0.0; 32]; 8];
    let mut right = [[0.0; 8]; 16];
    for (r, word) in a.iter().enumerate() {
        spread(form.a, word, &mut left[r * form.per..]);
    }
    let mut lanes = [[0.0; 32]; 2];
    for (r, word) in b.iter().enumerate() {
        spread(form.b, word, &mut lanes);
        columns(&lanes[..form.per], &mut right[r * 4 * form.per..]);
    }
    let mut acc = load_acc(c, half_acc);
    for (half, acc) in acc.iter_mut().enumerate().take(form.halves) {
        for (k, values) in right.iter().enumerate().take(form.chunks * 4 * form.per) {
            let (chunk, t, i) = (k / (4 * form.per), k / form.per % 4, k % form.per);
            let column = &left[(chunk * form.halves + half) * form.per + i];
            for (g, row) in acc.iter_mut().enumerate() {
                let x = column[g * 4 + t];
                for (sum, y) in row.iter_mut().zip(values) {
                    *sum = if FUSED { x.mul_add(*y, *sum) } else { x * y + *sum };
                }
            }
        }
    }
    store_acc(&acc, d, half_acc);
}

/// The elements of a register, lane by lane: `out[i][lane]`.
#[inline(always)]
fn spread(ty: Ty, word: &Word, out: &mut [[f32; 32]]) {
    match ty {
        Ty::Bf16 => {
            for lane in 0..32 {
                out[0][lane] = bf16_to_f32(word[lane] as u16);
                out[1][lane] = bf16_to_f32((word[lane] >> 16) as u16);
            }
        }
        Ty::F16 => {
            for lane in 0..32 {
                out[0][lane] = f16_to_f32(word[lane] as u16);
                out[1][lane] = f16_to_f32((word[lane] >> 16) as u16);
            }
        }
        // tf32: hardware ignores the lowest 13 bits.
        _ => {
            for lane in 0..32 {
                out[0][lane] = f32::from_bits(word[lane] & 0xffff_e000);
            }
        }
    }
}

/// B's lanes as rows of k: lane 4g + t, element i is (k = t * per + i, column g).
#[inline(always)]
fn columns<T: Copy>(lanes: &[[T; 32]], right: &mut [[T; 8]]) {
    for (i, lane) in lanes.iter().enumerate() {
        for t in 0..4 {
            for g in 0..8 {
                right[t * lanes.len() + i][g] = lane[g * 4 + t];
            }
        }
    }
}

type Acc = [[[f32; 8]; 8]; 2];

#[inline(always)]
fn load_acc(c: &[&Word], half_acc: bool) -> Acc {
    let mut acc = [[[0.0; 8]; 8]; 2];
    for (r, word) in c.iter().enumerate() {
        for (lane, &bits) in word.iter().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            if half_acc {
                acc[r][g][2 * t] = f16_to_f32(bits as u16);
                acc[r][g][2 * t + 1] = f16_to_f32((bits >> 16) as u16);
            } else {
                acc[r / 2][g][2 * t + r % 2] = f32::from_bits(bits);
            }
        }
    }
    acc
}

#[inline(always)]
fn store_acc(acc: &Acc, d: &mut [Word], half_acc: bool) {
    for (r, word) in d.iter_mut().enumerate() {
        for (lane, bits) in word.iter_mut().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            *bits = if half_acc {
                u32::from(f32_to_f16(acc[r][g][2 * t])) | u32::from(f32_to_f16(acc[r][g][2 * t + 1])) << 16
            } else {
                let x = acc[r / 2][g][2 * t + r % 2];
                if x.is_nan() { F32.nan() } else { x.to_bits() }
            };
        }
    }
}

/// One mma of 8-bit integers: the sum of products fits 32 bits (32 * 255 * 255), only adding c can overflow.
pub(super) fn integers(form: &Form, d: &mut [Word], a: &[&Word], b: &[&Word], c: &[&Word], satfinite: bool) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was detected.
        return unsafe { integers_avx2(form, d, a, b, c, satfinite) };
    }
    integers_body(form, d, a, b, c, satfinite);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn integers_avx2(form: &Form, d: &mut [Word], a: &[&Word], b: &[&Word], c: &[&Word], satfinite: bool) {
    integers_body(form, d, a, b, c, satfinite);
}

#[inline(always)]
fn integers_body(form: &Form, d: &mut [Word], a: &[&Word], b: &[&Word], c: &[&Word], satfinite: bool) {
    let mut left = [[0; 32]; 16];
    let mut right = [[0; 8]; 32];
    for (r, word) in a.iter().enumerate() {
        spread_bytes(form.a, word, &mut left[r * 4..]);
    }
    let mut lanes = [[0; 32]; 4];
    for (r, word) in b.iter().enumerate() {
        spread_bytes(form.b, word, &mut lanes);
        columns(&lanes, &mut right[r * 16..]);
    }
    for half in 0..form.halves {
        let mut acc = [[0i32; 8]; 8];
        for (k, values) in right.iter().enumerate().take(form.chunks * 16) {
            let column = &left[(k / 16 * form.halves + half) * 4 + k % 4];
            for (g, row) in acc.iter_mut().enumerate() {
                let x = column[g * 4 + k / 4 % 4];
                for (sum, y) in row.iter_mut().zip(values) {
                    *sum = sum.wrapping_add(x * y);
                }
            }
        }
        for r in 2 * half..2 * half + 2 {
            for lane in 0..32 {
                let (sum, start) = (acc[lane / 4][2 * (lane % 4) + r % 2], c[r][lane] as i32);
                d[r][lane] =
                    if satfinite { start.saturating_add(sum) } else { start.wrapping_add(sum) } as u32;
            }
        }
    }
}

#[inline(always)]
fn spread_bytes(ty: Ty, word: &Word, out: &mut [[i32; 32]]) {
    for (i, out) in out.iter_mut().enumerate().take(4) {
        for lane in 0..32 {
            let byte = (word[lane] >> (8 * i)) as u8;
            out[lane] = if ty == Ty::S8 { i32::from(byte as i8) } else { i32::from(byte) };
        }
    }
}
