//! Scalar arithmetic of f16 and bf16 (PTX ISA 9.7.4): each result is the exact one, rounded once.

use super::round::{BF16, F16, Format, odd_add, odd_fma, round_f64, widen};
use super::{FloatMode, FloatOp, Round, Ty, approx};

/// `.ftz` on a value of a 16-bit format.
#[inline]
pub(super) fn flush_bits(bits: u16, format: Format, ftz: bool) -> u16 {
    if ftz && u32::from(bits) & format.infinity() == 0 { bits & 0x8000 } else { bits }
}

/// `op.ty` for ty = f16 or bf16; `None` where PTX has no such form.
#[inline]
pub(super) fn small(op: FloatOp, ty: Ty, mode: &FloatMode, a: u16, b: u16, c: u16) -> Option<u16> {
    let format = if ty == Ty::F16 { F16 } else { BF16 };
    let flush = |bits| flush_bits(bits, format, mode.ftz);
    let (a, b, c) = (flush(a), flush(b), flush(c));
    match op {
        FloatOp::Neg => return Some(a ^ 0x8000),
        FloatOp::Abs => return Some(a & 0x7fff),
        FloatOp::Min | FloatOp::Max => return Some(extremum(op == FloatOp::Min, format, mode, a, b)),
        _ => {}
    }
    let value = |bits: u16| widen(u32::from(bits), format);
    let (x, y, z) = (value(a), value(b), value(c));
    let exact = match op {
        FloatOp::Add => odd_add(x, y),
        FloatOp::Sub => odd_add(x, -y),
        FloatOp::Mul => x * y,
        FloatOp::Fma => odd_fma(x, y, z),
        FloatOp::Ex2 => approx::ex2_f64(x),
        FloatOp::Tanh => x.tanh(),
        _ => return None,
    };
    Some(finish(flush_bits(round_f64(exact, format, Round::Rn) as u16, format, mode.ftz), format, mode))
}

/// sat and relu of a result.
fn finish(bits: u16, format: Format, mode: &FloatMode) -> u16 {
    let nan = u32::from(bits & 0x7fff) > format.infinity();
    let one = ((1 << (format.exponent - 1)) - 1) << format.fraction;
    match (mode.sat, mode.relu) {
        (true, _) if nan || bits & 0x8000 != 0 => 0,
        (true, _) => bits.min(one),
        (_, true) if !nan && bits & 0x8000 != 0 => 0,
        _ => bits,
    }
}

fn extremum(least: bool, format: Format, mode: &FloatMode, a: u16, b: u16) -> u16 {
    let nan = |bits: u16| u32::from(bits & 0x7fff) > format.infinity();
    let (sign, a, b) = if mode.xorsign_abs { ((a ^ b) & 0x8000, a & 0x7fff, b & 0x7fff) } else { (0, a, b) };
    let picked = match (nan(a), nan(b)) {
        (true, true) => return format.nan() as u16,
        (true, _) | (_, true) if mode.nan => return format.nan() as u16,
        (true, false) => b,
        (false, true) => a,
        _ => {
            // Sign-magnitude order: -0 below +0.
            let key =
                |bits: u16| if bits & 0x8000 != 0 { -i32::from(bits & 0x7fff) - 1 } else { i32::from(bits) };
            if (key(a) < key(b)) == least { a } else { b }
        }
    };
    let x = picked | sign;
    if mode.relu && x & 0x8000 != 0 { 0 } else { x }
}
