//! `cvt` (PTX ISA 9.7.9.21).

use super::int::{extend, mask};
use super::round::{
    BF16, F16, F32, Format, TF32, f32_to_bf16, f32_to_f16, flush_f32, round_f64, to_odd, widen,
};
use super::{Round, Ty};

/// Modifiers of a `cvt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conversion {
    /// The rounding; `Rn` where PTX has none because the conversion is exact.
    pub round: Round,
    /// Subnormal f32 inputs and results become zero of their sign.
    pub ftz: bool,
    /// Integer destinations: clamp (float sources always do). Float destinations: clamp to [0, 1], NaN to +0.
    pub sat: bool,
    /// `.relu`: negative results become +0, NaN canonical.
    pub relu: bool,
    /// `.satfinite`: overflow gives the largest finite value instead of infinity.
    pub satfinite: bool,
}

/// `cvt{.mode}.to.from` of a bit pattern, for scalar types; `Tf32` as a destination is a 32-bit pattern with 13 zero bits below.
/// Packed destinations: [`convert_packed`].
#[inline]
pub fn convert(to: Ty, from: Ty, mode: &Conversion, a: u64) -> u64 {
    // The roundings of inner loops, without the generic way.
    if from == Ty::F32 && *mode == Conversion::default() {
        match to {
            Ty::Bf16 => return u64::from(f32_to_bf16(f32::from_bits(a as u32))),
            Ty::F16 => return u64::from(f32_to_f16(f32::from_bits(a as u32))),
            _ => {}
        }
    }
    match (from.is_float(), to.is_float()) {
        (false, false) => int_to_int(to, from, mode.sat, a),
        (false, true) => int_to_float(to, from, mode, a),
        (true, false) => float_to_int(to, from, mode, source(from, mode.ftz, a)),
        (true, true) => {
            let x = source(from, mode.ftz, a);
            if x.is_nan() && from == to && !mode.sat && !mode.relu {
                return nan(to);
            }
            let x = if mode.round.to_integer() { integral(x, mode.round) } else { x };
            pack(to, x, mode)
        }
    }
}

/// `cvt.rnd{.relu}.f16x2.f32 d, a, b` and its bf16x2 form: a goes to the upper half, b to the lower.
#[inline]
pub fn convert_packed(to: Ty, mode: &Conversion, a: u32, b: u32) -> u32 {
    let half = if to == Ty::F16x2 { Ty::F16 } else { Ty::Bf16 };
    let (hi, lo) = (convert(half, Ty::F32, mode, u64::from(a)), convert(half, Ty::F32, mode, u64::from(b)));
    (hi as u32) << 16 | lo as u32
}

fn format_of(ty: Ty) -> Format {
    match ty {
        Ty::F16 => F16,
        Ty::Bf16 => BF16,
        Ty::Tf32 => TF32,
        _ => F32,
    }
}

/// The operand's value: every source is exact in f64.
#[inline]
fn source(from: Ty, ftz: bool, a: u64) -> f64 {
    match from {
        Ty::F64 => f64::from_bits(a),
        Ty::F32 if ftz => f64::from(flush_f32(f32::from_bits(a as u32))),
        Ty::F32 | Ty::Tf32 => f64::from(f32::from_bits(a as u32)),
        _ => widen(a as u32 & 0xffff, format_of(from)),
    }
}

fn nan(to: Ty) -> u64 {
    match to {
        Ty::F64 => f64::NAN.to_bits(),
        Ty::Tf32 => u64::from(F32.nan()),
        _ => u64::from(format_of(to).nan()),
    }
}

/// A value (exact or rounded to odd) as `to`, with the modifiers.
#[inline]
fn pack(to: Ty, x: f64, mode: &Conversion) -> u64 {
    if x.is_nan() {
        return if mode.sat { 0 } else { nan(to) };
    }
    let x = if mode.sat { if x > 0.0 { x.min(1.0) } else { 0.0 } } else { x };
    let x = if mode.relu && x <= 0.0 { 0.0 } else { x };
    if to == Ty::F64 {
        return x.to_bits();
    }
    let format = format_of(to);
    let mut bits = round_f64(x, format, mode.round);
    if mode.satfinite && bits & (format.sign() - 1) == format.infinity() {
        bits -= 1;
    }
    match to {
        Ty::F32 if mode.ftz => u64::from(flush_f32(f32::from_bits(bits)).to_bits()),
        Ty::Tf32 => u64::from(bits << 13),
        _ => u64::from(bits),
    }
}

/// A float rounded to an integral value, in its own type.
#[inline]
fn integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Rni => x.round_ties_even(),
        Round::Rzi => x.trunc(),
        Round::Rmi => x.floor(),
        Round::Rpi => x.ceil(),
        _ => x,
    }
}

fn int_to_int(to: Ty, from: Ty, sat: bool, a: u64) -> u64 {
    let x = extend(from, a);
    if !sat {
        return extend(to, x);
    }
    let value = if from.is_signed() { i128::from(x as i64) } else { i128::from(x) };
    clamp(to, value)
}

/// An integer clamped to `to`'s range.
fn clamp(to: Ty, value: i128) -> u64 {
    let (least, most) = if to.is_signed() {
        (-(1i128 << (to.bits() - 1)), i128::from(mask(to.bits() - 1)))
    } else {
        (0, i128::from(mask(to.bits())))
    };
    value.clamp(least, most) as u64
}

fn int_to_float(to: Ty, from: Ty, mode: &Conversion, a: u64) -> u64 {
    let x = extend(from, a);
    let value = if from.is_signed() { i128::from(x as i64) } else { i128::from(x) };
    // Exact below 2^53; above, the error of the nearest is exact as an integer.
    let nearest = value as f64;
    let error = value - nearest as i128;
    if to == Ty::F64 {
        return directed(nearest, error, mode).to_bits();
    }
    pack(to, to_odd(nearest, error as f64), mode)
}

/// An integer as f64 in a directed rounding.
fn directed(nearest: f64, error: i128, mode: &Conversion) -> f64 {
    let inward = (error > 0) != (nearest > 0.0);
    match mode.round {
        _ if error == 0 => nearest,
        Round::Rz if inward => super::round::step(nearest, error > 0),
        Round::Rm if error < 0 => nearest.next_down(),
        Round::Rp if error > 0 => nearest.next_up(),
        _ => nearest,
    }
}

/// Clamped to the destination. NaN: 0, but 1 << (bits - 1) where source or destination has 64 bits.
fn float_to_int(to: Ty, from: Ty, mode: &Conversion, x: f64) -> u64 {
    if x.is_nan() {
        let wide = from == Ty::F64 || to.bits() == 64;
        return if wide { extend(to, 1 << (to.bits() - 1)) } else { 0 };
    }
    let x = integral(x, mode.round);
    // `as` saturates; every integer type fits.
    clamp(to, x as i128)
}
