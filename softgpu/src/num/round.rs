//! Exact values into formats: one rounding, of an `f64` that is exact or rounded to odd.
//!
//! Rounding to odd (the neighbour with an odd last bit whenever the value is inexact) to p + 2 bits or more followed by any rounding to p bits
//! equals that rounding of the exact value (Boldo and Melquiond 2008). f64 has 53 bits, our widest target 24.

use super::Round;

/// A binary format: sign, `exponent` bits, `fraction` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the stored fraction.
    pub fraction: u32,
    /// Bits of the exponent.
    pub exponent: u32,
}

/// IEEE half.
pub const F16: Format = Format { fraction: 10, exponent: 5 };
/// bfloat16.
pub const BF16: Format = Format { fraction: 7, exponent: 8 };
/// TF32 as 19 bits; in a register they stand at the top (`<< 13`).
pub const TF32: Format = Format { fraction: 10, exponent: 8 };
/// IEEE single.
pub const F32: Format = Format { fraction: 23, exponent: 8 };

impl Format {
    /// Bits of +infinity: one above the largest finite value.
    #[inline]
    pub const fn infinity(self) -> u32 {
        ((1 << self.exponent) - 1) << self.fraction
    }

    /// The NaN that PTX instructions produce: sign clear, all other bits set.
    #[inline]
    pub const fn nan(self) -> u32 {
        (1 << (self.exponent + self.fraction)) - 1
    }

    /// The sign bit.
    #[inline]
    pub const fn sign(self) -> u32 {
        1 << (self.exponent + self.fraction)
    }

    const fn min_exponent(self) -> i32 {
        2 - (1 << (self.exponent - 1))
    }
}

/// `x` rounded to `format`, as its bits. NaN becomes the format's canonical NaN; overflow goes to infinity or, as the mode has it, to the
/// largest finite value; subnormals are kept. The integer modes do not belong here and round as their plain counterparts.
#[inline]
pub fn round_f64(x: f64, format: Format, round: Round) -> u32 {
    let bits = x.to_bits();
    let negative = bits >> 63 != 0;
    let sign = if negative { format.sign() } else { 0 };
    if x.is_nan() {
        return format.nan();
    }
    if x.is_infinite() {
        return sign | format.infinity();
    }
    // |x| = significand * 2^(exponent - 52)
    let raw = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let (exponent, significand) = if raw == 0 { (-1022, fraction) } else { (raw - 1023, fraction | 1 << 52) };
    // The target's last place is 2^(max(exponent, min) - fraction).
    let min = format.min_exponent();
    let shift = (exponent.max(min) - format.fraction as i32 - (exponent - 52)).min(63) as u32;
    let mut kept = (significand >> shift) as u32;
    let rest = significand & ((1 << shift) - 1);
    let half = 1u64 << (shift - 1);
    kept += u32::from(match round {
        Round::Rn | Round::Rni => rest > half || (rest == half && kept & 1 == 1),
        Round::Rna => rest >= half,
        Round::Rz | Round::Rzi => false,
        Round::Rm | Round::Rmi => negative && rest != 0,
        Round::Rp | Round::Rpi => !negative && rest != 0,
    });
    // `kept` has the implicit bit when normal, so a carry out of it lands in the exponent by itself.
    let steps = (exponent.max(min) - min) as u64;
    let magnitude = (steps << format.fraction) + u64::from(kept);
    if magnitude < u64::from(format.infinity()) {
        return sign | magnitude as u32;
    }
    let finite = match round {
        Round::Rz | Round::Rzi => true,
        Round::Rm | Round::Rmi => !negative,
        Round::Rp | Round::Rpi => negative,
        _ => false,
    };
    sign | (format.infinity() - u32::from(finite))
}

/// The value of bits of a format with at most 32 bits, exactly.
#[inline]
pub(super) fn widen(bits: u32, format: Format) -> f64 {
    match format {
        F16 => f64::from(f16_to_f32(bits as u16)),
        BF16 => f64::from(bf16_to_f32(bits as u16)),
        TF32 => f64::from(f32::from_bits(bits << 13)),
        _ => f64::from(f32::from_bits(bits)),
    }
}

/// An f16 as f32: exact. A NaN keeps its payload.
#[inline]
pub fn f16_to_f32(bits: u16) -> f32 {
    // Shift exponent and fraction into place, then scale by 2^(127 - 15): that also normalises subnormals.
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let scaled = if magnitude >= 0x7c00 << 13 {
        f32::from_bits(magnitude | 0x7f80_0000)
    } else {
        f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)
    };
    f32::from_bits(scaled.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// A bf16 as f32: exact.
#[inline]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `cvt.rn.f16.f32` without modifiers. NaN becomes 0x7fff.
#[inline]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let exponent = magnitude >> 23;
    if (113..142).contains(&exponent) {
        // Normal in f16 even after rounding up (142 is 2^15): rebias, round to nearest even.
        let rebased = magnitude - (112 << 23);
        let rounded = (rebased + 0xfff + (rebased >> 13 & 1)) >> 13;
        return rounded as u16 | (bits >> 16) as u16 & 0x8000;
    }
    round_f64(f64::from(x), F16, Round::Rn) as u16
}

/// `cvt.rn.bf16.f32` without modifiers. NaN becomes 0x7fff.
#[inline]
pub fn f32_to_bf16(x: f32) -> u16 {
    if x.is_nan() {
        return 0x7fff;
    }
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// `.ftz`: a subnormal becomes zero of its sign.
#[inline]
pub fn flush_f32(x: f32) -> f32 {
    if x.to_bits() & 0x7f80_0000 == 0 { f32::from_bits(x.to_bits() & 0x8000_0000) } else { x }
}

/// `nearest` is a value rounded to nearest even, `error` has the sign of exact minus nearest: the value rounded to odd.
#[inline]
pub(super) fn to_odd(nearest: f64, error: f64) -> f64 {
    if error == 0.0 || nearest.to_bits() & 1 == 1 || !nearest.is_finite() || error.is_nan() {
        nearest
    } else {
        step(nearest, error > 0.0)
    }
}

/// The neighbour of a finite `x`, above or below.
#[inline]
pub(super) fn step(x: f64, up: bool) -> f64 {
    if up { x.next_up() } else { x.next_down() }
}

/// Exact minus rounded, of `a + b` (Knuth's TwoSum): exact unless something overflows.
#[inline]
pub(super) fn sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let b_part = sum - a;
    let a_part = sum - b_part;
    (a - a_part) + (b - b_part)
}

/// `a + b` rounded to odd.
#[inline]
pub fn odd_add(a: f64, b: f64) -> f64 {
    let sum = a + b;
    to_odd(sum, sum_error(a, b, sum))
}

/// `a * b + c` rounded to odd, of operands with at most 24 significant bits and f32's range: the product is exact in f64.
#[inline]
pub fn odd_fma(a: f64, b: f64, c: f64) -> f64 {
    odd_add(a * b, c)
}
