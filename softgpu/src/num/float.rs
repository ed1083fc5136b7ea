//! Arithmetic of f32 under every rounding, and the dispatcher over all floating point types (PTX ISA 9.7.3 and 9.7.4).

use super::double::float_f64;
use super::round::{F32, flush_f32, odd_add, odd_fma, round_f64, to_odd};
use super::{Round, Ty, approx, small};

/// Modifiers of a floating point instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FloatMode {
    /// Rounding; instructions without one (min, neg, approximations) ignore it.
    pub round: Round,
    /// Subnormal inputs and results become zero of their sign.
    pub ftz: bool,
    /// The result is clamped to [0, 1]; NaN becomes +0.
    pub sat: bool,
    /// `.relu` of fma/min/max: negative becomes +0, NaN stays.
    pub relu: bool,
    /// `.NaN` of min/max: NaN if any operand is.
    pub nan: bool,
    /// `.xorsign.abs` of min/max: compares magnitudes, the result's sign is the xor of the signs.
    pub xorsign_abs: bool,
}

/// An operation of [`float`]. `Div`, `Rcp` and `Sqrt` are correctly rounded under `mode.round`: use round to nearest for the `.approx` and
/// `.full` forms, whose documented error bounds are wider (2 ulp for division, about 1 ulp for the others). One thing that hardware does is
/// not done: `div.approx` by a divisor of 2^126 or more gives 0 there, the quotient here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum FloatOp {
    Add,
    Sub,
    Mul,
    /// `fma` and `mad`: one rounding.
    Fma,
    Div,
    Min,
    Max,
    Neg,
    Abs,
    /// `copysign d, a, b`: the sign of a on the magnitude of b.
    CopySign,
    Sqrt,
    Rcp,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

/// A question of `testp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum TestKind {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// `op{.mode}.ty` of operands as bit patterns; unused operands are ignored. `None`: PTX has no such form. f32, f64, f16, bf16 and the packed
/// 16-bit types. Three-operand `min`/`max` are two calls.
pub fn float(op: FloatOp, ty: Ty, mode: &FloatMode, a: u64, b: u64, c: u64) -> Option<u64> {
    match ty {
        Ty::F32 => {
            let (a, b, c) = (f32::from_bits(a as u32), f32::from_bits(b as u32), f32::from_bits(c as u32));
            Some(u64::from(float_f32(op, mode, a, b, c).to_bits()))
        }
        Ty::F64 => {
            let (a, b, c) = (f64::from_bits(a), f64::from_bits(b), f64::from_bits(c));
            float_f64(op, mode, a, b, c).map(f64::to_bits)
        }
        Ty::F16 | Ty::Bf16 => small::small(op, ty, mode, a as u16, b as u16, c as u16).map(u64::from),
        Ty::F16x2 | Ty::Bf16x2 => {
            let half = if ty == Ty::F16x2 { Ty::F16 } else { Ty::Bf16 };
            let lo = small::small(op, half, mode, a as u16, b as u16, c as u16)?;
            let hi = small::small(op, half, mode, (a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16)?;
            Some(u64::from(lo) | u64::from(hi) << 16)
        }
        _ => None,
    }
}

fn float_f32(op: FloatOp, mode: &FloatMode, a: f32, b: f32, c: f32) -> f32 {
    let unary = |f: fn(f32) -> f32| f32_unary(f, a, mode);
    match op {
        FloatOp::Add => f32_add(a, b, *mode),
        FloatOp::Sub => f32_sub(a, b, *mode),
        FloatOp::Mul => f32_mul(a, b, *mode),
        FloatOp::Fma => f32_fma(a, b, c, *mode),
        FloatOp::Div => f32_div(a, b, *mode),
        FloatOp::Min => f32_min(a, b, *mode),
        FloatOp::Max => f32_max(a, b, *mode),
        // Sign operations: of a NaN too, as bits.
        FloatOp::Neg => -flush_if(a, mode.ftz),
        FloatOp::Abs => flush_if(a, mode.ftz).abs(),
        FloatOp::CopySign => b.abs().copysign(a),
        FloatOp::Sqrt => f32_sqrt(a, *mode),
        FloatOp::Rcp => f32_div(1.0, a, *mode),
        FloatOp::Rsqrt => unary(approx::rsqrt_approx),
        FloatOp::Ex2 => unary(approx::ex2_approx),
        FloatOp::Lg2 => unary(approx::lg2_approx),
        FloatOp::Sin => unary(approx::sin_approx),
        FloatOp::Cos => unary(approx::cos_approx),
        FloatOp::Tanh => unary(approx::tanh_approx),
    }
}

fn f32_unary(f: fn(f32) -> f32, a: f32, mode: &FloatMode) -> f32 {
    finish_f32(f(flush_if(a, mode.ftz)), *mode)
}

#[inline]
fn flush_if(x: f32, ftz: bool) -> f32 {
    if ftz { flush_f32(x) } else { x }
}

/// ftz, canonical NaN, sat, relu of an f32 result.
#[inline]
fn finish_f32(x: f32, mode: FloatMode) -> f32 {
    if x.is_nan() {
        return if mode.sat { 0.0 } else { f32::from_bits(F32.nan()) };
    }
    let x = flush_if(x, mode.ftz);
    if mode.sat {
        return if x > 0.0 { x.min(1.0) } else { 0.0 };
    }
    if mode.relu && x <= 0.0 { 0.0 } else { x }
}

#[inline]
fn narrow_f32(odd: f64, round: Round) -> f32 {
    if round == Round::Rn { odd as f32 } else { f32::from_bits(round_f64(odd, F32, round)) }
}

/// An exact zero sum of non-zero terms is -0 when rounding down, else +0 (IEEE 754, 6.3). Equal-signed zeros keep their sign.
#[inline]
pub(super) fn zero_sum(x: f64, a: f64, b: f64, round: Round) -> f64 {
    if x == 0.0
        && round == Round::Rm
        && !(a == 0.0 && b == 0.0 && a.is_sign_positive() && b.is_sign_positive())
    {
        -0.0
    } else {
        x
    }
}

/// `add{.rnd}{.ftz}{.sat}.f32`.
#[inline]
pub fn f32_add(a: f32, b: f32, mode: FloatMode) -> f32 {
    let (a, b) = (flush_if(a, mode.ftz), flush_if(b, mode.ftz));
    if mode.round == Round::Rn {
        return finish_f32(a + b, mode);
    }
    let (a, b) = (f64::from(a), f64::from(b));
    finish_f32(narrow_f32(zero_sum(odd_add(a, b), a, b, mode.round), mode.round), mode)
}

/// `sub{.rnd}{.ftz}{.sat}.f32`.
#[inline]
pub fn f32_sub(a: f32, b: f32, mode: FloatMode) -> f32 {
    f32_add(a, -b, mode)
}

/// `mul{.rnd}{.ftz}{.sat}.f32`.
#[inline]
pub fn f32_mul(a: f32, b: f32, mode: FloatMode) -> f32 {
    let (a, b) = (flush_if(a, mode.ftz), flush_if(b, mode.ftz));
    if mode.round == Round::Rn {
        return finish_f32(a * b, mode);
    }
    finish_f32(narrow_f32(f64::from(a) * f64::from(b), mode.round), mode)
}

/// `fma.rnd{.ftz}{.sat}.f32`: one rounding. [`fma_f32_warp`] does 32 of the plain form at once.
#[inline]
pub fn f32_fma(a: f32, b: f32, c: f32, mode: FloatMode) -> f32 {
    let (a, b, c) = (flush_if(a, mode.ftz), flush_if(b, mode.ftz), flush_if(c, mode.ftz));
    if mode.round == Round::Rn {
        return finish_f32(fma_rn(a, b, c), mode);
    }
    let (a, b, c) = (f64::from(a), f64::from(b), f64::from(c));
    let (product, odd) = (a * b, odd_fma(a, b, c));
    finish_f32(narrow_f32(zero_sum(odd, product, c, mode.round), mode.round), mode)
}

/// Without a call to libm: the product is exact in f64, the sum is rounded to odd there, then to nearest.
#[inline]
fn fma_rn(a: f32, b: f32, c: f32) -> f32 {
    odd_fma(f64::from(a), f64::from(b), f64::from(c)) as f32
}

/// `fma.rn.f32` (`ftz`: `fma.rn.ftz.f32`) on all 32 lanes: `out[i] = a[i] * b[i] + c[i]`, one rounding each.
#[inline]
pub fn fma_f32_warp(out: &mut [u32; 32], a: &[u32; 32], b: &[u32; 32], c: &[u32; 32], ftz: bool) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the features were detected.
        return unsafe { fma_f32_warp_avx2(out, a, b, c, ftz) };
    }
    fma_f32_lanes(out, a, b, c, ftz);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma,avx2")]
fn fma_f32_warp_avx2(out: &mut [u32; 32], a: &[u32; 32], b: &[u32; 32], c: &[u32; 32], ftz: bool) {
    fma_f32_lanes(out, a, b, c, ftz);
}

#[inline(always)]
fn fma_f32_lanes(out: &mut [u32; 32], a: &[u32; 32], b: &[u32; 32], c: &[u32; 32], ftz: bool) {
    let nan = f32::from_bits(F32.nan());
    for i in 0..32 {
        let (a, b, c) = (f32::from_bits(a[i]), f32::from_bits(b[i]), f32::from_bits(c[i]));
        let x = if ftz { flush_f32(a).mul_add(flush_f32(b), flush_f32(c)) } else { a.mul_add(b, c) };
        let x = if ftz { flush_f32(x) } else { x };
        out[i] = if x.is_nan() { nan } else { x }.to_bits();
    }
}

/// `div.rnd{.ftz}.f32`, correctly rounded; with `Rn` also what we answer for `div.approx` and `div.full`.
#[inline]
pub fn f32_div(a: f32, b: f32, mode: FloatMode) -> f32 {
    let (a, b) = (flush_if(a, mode.ftz), flush_if(b, mode.ftz));
    if mode.round == Round::Rn {
        return finish_f32(a / b, mode);
    }
    let (a, b) = (f64::from(a), f64::from(b));
    let quotient = a / b;
    let odd = if quotient.is_finite() && quotient != 0.0 {
        // The remainder is exact in f64; over b it has the sign of the error.
        let rest = (-quotient).mul_add(b, a);
        to_odd(quotient, if b < 0.0 { -rest } else { rest })
    } else {
        quotient
    };
    finish_f32(narrow_f32(odd, mode.round), mode)
}

/// `sqrt.rnd{.ftz}.f32`, correctly rounded; with `Rn` also `sqrt.approx`.
#[inline]
pub fn f32_sqrt(a: f32, mode: FloatMode) -> f32 {
    let a = flush_if(a, mode.ftz);
    if mode.round == Round::Rn {
        return finish_f32(a.sqrt(), mode);
    }
    let a = f64::from(a);
    let root = a.sqrt();
    let odd = if root > 0.0 && root.is_finite() { to_odd(root, (-root).mul_add(root, a)) } else { root };
    finish_f32(narrow_f32(odd, mode.round), mode)
}

/// `min{.ftz}{.NaN}{.xorsign.abs}.f32`: of a NaN and a number, the number; -0 is less than +0.
#[inline]
pub fn f32_min(a: f32, b: f32, mode: FloatMode) -> f32 {
    extremum(a, b, mode, true)
}

/// `max{.ftz}{.NaN}{.xorsign.abs}.f32`.
#[inline]
pub fn f32_max(a: f32, b: f32, mode: FloatMode) -> f32 {
    extremum(a, b, mode, false)
}

#[inline]
pub(super) fn extremum(a: f32, b: f32, mode: FloatMode, least: bool) -> f32 {
    let (a, b) = (flush_if(a, mode.ftz), flush_if(b, mode.ftz));
    let negative = mode.xorsign_abs && a.is_sign_negative() != b.is_sign_negative();
    let (a, b) = if mode.xorsign_abs { (a.abs(), b.abs()) } else { (a, b) };
    let x = if a.is_nan() || b.is_nan() {
        match (mode.nan, a.is_nan(), b.is_nan()) {
            (true, ..) | (_, true, true) => return f32::from_bits(F32.nan()),
            (_, true, _) => b,
            _ => a,
        }
    } else {
        let a_first = if a == b { a.is_sign_negative() } else { a < b };
        if a_first == least { a } else { b }
    };
    let x = if negative { -x } else { x };
    if mode.relu && x <= 0.0 { 0.0 } else { x }
}

/// `testp.kind.ty` of an f32 or f64.
pub fn testp(kind: TestKind, ty: Ty, a: u64) -> bool {
    use std::num::FpCategory as C;
    let class =
        if ty == Ty::F64 { f64::from_bits(a).classify() } else { f32::from_bits(a as u32).classify() };
    match kind {
        TestKind::Finite => !matches!(class, C::Nan | C::Infinite),
        TestKind::Infinite => class == C::Infinite,
        TestKind::Number => class != C::Nan,
        TestKind::NotANumber => class == C::Nan,
        TestKind::Normal => class == C::Normal,
        TestKind::Subnormal => class == C::Subnormal,
    }
}
