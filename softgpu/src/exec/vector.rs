//! Arithmetic on whole warps: the instructions of inner loops. The others go lane by lane through `num`.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use super::code::{D, DFn, NarrowFn, ShiftFn, W, WFn, WideFn};
use crate::num::{Cmp, Ty};

/// The NaN of PTX's f32 results.
const NAN: u32 = 0x7fff_ffff;

macro_rules! w {
    (|$a:ident, $b:ident, $c:ident| $value:expr) => {{
        fn lanes(out: &mut W, a: &W, b: &W, c: &W) {
            for i in 0..32 {
                let ($a, $b, $c) = (a[i], b[i], c[i]);
                out[i] = $value;
            }
        }
        lanes as WFn
    }};
}

macro_rules! d {
    (|$a:ident, $b:ident, $c:ident| $value:expr) => {{
        fn lanes(out: &mut D, a: &D, b: &D, c: &D) {
            for i in 0..32 {
                let ($a, $b, $c) = (a[i], b[i], c[i]);
                out[i] = $value;
            }
        }
        lanes as DFn
    }};
}

macro_rules! wide {
    (|$a:ident, $b:ident, $c:ident| $value:expr) => {{
        fn lanes(out: &mut D, a: &W, b: &W, c: &D) {
            for i in 0..32 {
                let ($a, $b, $c) = (a[i], b[i], c[i]);
                out[i] = $value;
            }
        }
        lanes as WideFn
    }};
}

macro_rules! shift {
    (|$a:ident, $b:ident| $value:expr) => {{
        fn lanes(out: &mut D, a: &D, b: &W) {
            for i in 0..32 {
                let ($a, $b) = (a[i], b[i]);
                out[i] = $value;
            }
        }
        lanes as ShiftFn
    }};
}

macro_rules! compare {
    ($register:ty, |$a:ident, $b:ident| $value:expr) => {{
        fn lanes(a: &$register, b: &$register) -> u32 {
            let mut mask = 0;
            for i in 0..32 {
                let ($a, $b) = (a[i], b[i]);
                mask |= u32::from($value) << i;
            }
            mask
        }
        lanes
    }};
}

#[inline]
fn canonical(x: f32) -> u32 {
    if x.is_nan() { NAN } else { x.to_bits() }
}

#[inline]
fn f(x: u32) -> f32 {
    f32::from_bits(x)
}

fn fma(out: &mut W, a: &W, b: &W, c: &W) {
    crate::num::fma_f32_warp(out, a, b, c, false);
}

/// `opcode` with the modifiers that choose the operation, for operands of up to 32 bits; `None`: there is no fast form.
#[rustfmt::skip]
pub(super) fn narrow(name: &str, ty: Ty) -> Option<WFn> {
    let is_32 = ty.bits() == 32;
    let is_16 = ty.bits() == 16;
    Some(match name {
        "mov" if is_32 => w!(|a, _b, _c| a),
        "mov" if is_16 => w!(|a, _b, _c| a & 0xffff),
        "not" if is_32 => w!(|a, _b, _c| !a),
        "and" if ty.bits() <= 32 => w!(|a, b, _c| a & b),
        "or" if ty.bits() <= 32 => w!(|a, b, _c| a | b),
        "xor" if ty.bits() <= 32 => w!(|a, b, _c| a ^ b),
        "shl" if is_32 => w!(|a, b, _c| if b > 31 { 0 } else { a << (b & 31) }),
        "shr" if ty == Ty::S32 => w!(|a, b, _c| ((a as i32) >> b.min(31)) as u32),
        "shr" if is_32 => w!(|a, b, _c| if b > 31 { 0 } else { a >> (b & 31) }),
        "prmt" => w!(|a, b, c| crate::num::prmt(crate::num::PrmtMode::Index, a, b, c)),
        _ if matches!(ty, Ty::U32 | Ty::S32) => match name {
            "add" => w!(|a, b, _c| a.wrapping_add(b)),
            "sub" => w!(|a, b, _c| a.wrapping_sub(b)),
            "neg" => w!(|a, _b, _c| a.wrapping_neg()),
            "mul.lo" => w!(|a, b, _c| a.wrapping_mul(b)),
            "mad.lo" => w!(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
            "min" if ty == Ty::S32 => w!(|a, b, _c| (a as i32).min(b as i32) as u32),
            "max" if ty == Ty::S32 => w!(|a, b, _c| (a as i32).max(b as i32) as u32),
            "min" => w!(|a, b, _c| a.min(b)),
            "max" => w!(|a, b, _c| a.max(b)),
            _ => return None,
        },
        _ if ty == Ty::F32 => match name {
            "add" => w!(|a, b, _c| canonical(f(a) + f(b))),
            "sub" => w!(|a, b, _c| canonical(f(a) - f(b))),
            "mul" => w!(|a, b, _c| canonical(f(a) * f(b))),
            "fma" => fma,
            "neg" => w!(|a, _b, _c| a ^ 0x8000_0000),
            "max" => w!(|a, b, _c| {
                let key = |x: u32| (x as i32) ^ (((x as i32) >> 31) as u32 >> 1) as i32;
                if f(a).is_nan() { canonical(f(b)) } else if f(b).is_nan() || key(a) >= key(b) { a } else { b }
            }),
            _ => return None,
        },
        _ => return None,
    })
}

/// The same for 64 bits.
#[rustfmt::skip]
pub(super) fn long(name: &str, ty: Ty) -> Option<DFn> {
    Some(match name {
        "mov" => d!(|a, _b, _c| a),
        "not" => d!(|a, _b, _c| !a),
        "and" => d!(|a, b, _c| a & b),
        "or" => d!(|a, b, _c| a | b),
        "xor" => d!(|a, b, _c| a ^ b),
        "add" if ty.is_int() => d!(|a, b, _c| a.wrapping_add(b)),
        "sub" if ty.is_int() => d!(|a, b, _c| a.wrapping_sub(b)),
        "mul.lo" if ty.is_int() => d!(|a, b, _c| a.wrapping_mul(b)),
        "mad.lo" if ty.is_int() => d!(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        _ => return None,
    })
}

/// `mul.wide` and `mad.wide` of 32-bit factors, and conversions from 32 to 64 bits.
#[rustfmt::skip]
pub(super) fn wide(name: &str, ty: Ty) -> Option<WideFn> {
    let signed = |x: u32| i64::from(x as i32) as u64;
    let _ = signed;
    Some(match (name, ty) {
        ("mul.wide", Ty::U32) => wide!(|a, b, _c| u64::from(a) * u64::from(b)),
        ("mul.wide", Ty::S32) => wide!(|a, b, _c| i64::from(a as i32).wrapping_mul(i64::from(b as i32)) as u64),
        ("mad.wide", Ty::U32) => wide!(|a, b, c| (u64::from(a) * u64::from(b)).wrapping_add(c)),
        ("mad.wide", Ty::S32) => wide!(|a, b, c| (i64::from(a as i32).wrapping_mul(i64::from(b as i32)) as u64).wrapping_add(c)),
        ("cvt", Ty::U32) => wide!(|a, _b, _c| u64::from(a)),
        ("cvt", Ty::S32) => wide!(|a, _b, _c| i64::from(a as i32) as u64),
        _ => return None,
    })
}

/// `shl.b64`, `shr.u64`, `shr.s64`.
#[rustfmt::skip]
pub(super) fn shift(name: &str, ty: Ty) -> Option<ShiftFn> {
    Some(match name {
        "shl" => shift!(|a, b| if b > 63 { 0 } else { a << (b & 63) }),
        "shr" if ty == Ty::S64 => shift!(|a, b| ((a as i64) >> b.min(63)) as u64),
        "shr" => shift!(|a, b| if b > 63 { 0 } else { a >> (b & 63) }),
        _ => return None,
    })
}

/// `cvt.u32.u64`.
pub(super) fn truncate() -> NarrowFn {
    fn lanes(out: &mut W, a: &D) {
        for i in 0..32 {
            out[i] = a[i] as u32;
        }
    }
    lanes
}

/// A conversion of inner loops: widening of bf16 and 16-bit integers, cuts to 16 bits.
#[rustfmt::skip]
pub(super) fn convert(to: Ty, from: Ty) -> Option<WFn> {
    Some(match (to, from) {
        (Ty::U32 | Ty::S32, Ty::U32 | Ty::S32) => w!(|a, _b, _c| a),
        (Ty::U32 | Ty::S32, Ty::U16) => w!(|a, _b, _c| a & 0xffff),
        (Ty::U16 | Ty::S16, Ty::U16 | Ty::S16 | Ty::U32 | Ty::S32) => w!(|a, _b, _c| a & 0xffff),
        (Ty::F32, Ty::Bf16) => w!(|a, _b, _c| a << 16),
        _ => return None,
    })
}

/// Integer and f32 comparisons.
#[rustfmt::skip]
pub(super) fn compare(cmp: Cmp, ty: Ty) -> Option<fn(&W, &W) -> u32> {
    Some(match (cmp, ty) {
        (Cmp::Eq, Ty::U32 | Ty::S32 | Ty::B32) => compare!(W, |a, b| a == b),
        (Cmp::Ne, Ty::U32 | Ty::S32 | Ty::B32) => compare!(W, |a, b| a != b),
        (Cmp::Lt | Cmp::Lo, Ty::U32) => compare!(W, |a, b| a < b),
        (Cmp::Le | Cmp::Ls, Ty::U32) => compare!(W, |a, b| a <= b),
        (Cmp::Gt | Cmp::Hi, Ty::U32) => compare!(W, |a, b| a > b),
        (Cmp::Ge | Cmp::Hs, Ty::U32) => compare!(W, |a, b| a >= b),
        (Cmp::Lt, Ty::S32) => compare!(W, |a, b| (a as i32) < b as i32),
        (Cmp::Le, Ty::S32) => compare!(W, |a, b| a as i32 <= b as i32),
        (Cmp::Gt, Ty::S32) => compare!(W, |a, b| a as i32 > b as i32),
        (Cmp::Ge, Ty::S32) => compare!(W, |a, b| a as i32 >= b as i32),
        (Cmp::Lt, Ty::F32) => compare!(W, |a, b| f(a) < f(b)),
        (Cmp::Gt, Ty::F32) => compare!(W, |a, b| f(a) > f(b)),
        _ => return None,
    })
}

/// 64-bit comparisons.
#[rustfmt::skip]
pub(super) fn compare_long(cmp: Cmp, ty: Ty) -> Option<fn(&D, &D) -> u32> {
    Some(match (cmp, ty) {
        (Cmp::Eq, Ty::U64 | Ty::S64 | Ty::B64) => compare!(D, |a, b| a == b),
        (Cmp::Ne, Ty::U64 | Ty::S64 | Ty::B64) => compare!(D, |a, b| a != b),
        (Cmp::Lt | Cmp::Lo, Ty::U64) => compare!(D, |a, b| a < b),
        (Cmp::Ge | Cmp::Hs, Ty::U64) => compare!(D, |a, b| a >= b),
        (Cmp::Lt, Ty::S64) => compare!(D, |a, b| (a as i64) < b as i64),
        (Cmp::Ge, Ty::S64) => compare!(D, |a, b| a as i64 >= b as i64),
        _ => return None,
    })
}
