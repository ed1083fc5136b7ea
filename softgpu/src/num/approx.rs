//! The `.approx` functions (PTX ISA 9.7.3): evaluated in f64 by the host's libm and rounded once to f32. Their error is therefore at most
//! 0.5 ulp plus the libm's (well below 2^-50 relative): inside every bound that the ISA gives, and not bit-equal to hardware, which is free
//! within its own (rsqrt 2^-22.9 and tanh 2^-11 relative, sin and cos 2^-20.5 absolute near zero, ex2, lg2, rcp, sqrt and div 1 to 2 ulp).
//! Tests that compare with a GPU's results must allow the ISA's bounds, not ours.
//!
//! ftz and sat are the caller's ([`super::float`] applies them). NaN in, canonical NaN out (there, too).

/// `ex2.approx.f32`: 2^x. ex2(-inf) = +0, ex2(+inf) = +inf.
#[inline]
pub fn ex2_approx(x: f32) -> f32 {
    ex2_f64(f64::from(x)) as f32
}

/// 2^x in f64. Integers are exact whatever the libm.
#[inline]
pub(super) fn ex2_f64(x: f64) -> f64 {
    x.exp2()
}

/// `lg2.approx.f32`: log2 x; of zero -inf, of a negative NaN.
#[inline]
pub fn lg2_approx(x: f32) -> f32 {
    f64::from(x).log2() as f32
}

/// `rsqrt.approx.f32`: 1 / sqrt x; of +-0 +-inf, of +inf +0, of a negative NaN.
#[inline]
pub fn rsqrt_approx(x: f32) -> f32 {
    (1.0 / f64::from(x).sqrt()) as f32
}

/// `sin.approx.f32`.
#[inline]
pub fn sin_approx(x: f32) -> f32 {
    f64::from(x).sin() as f32
}

/// `cos.approx.f32`.
#[inline]
pub fn cos_approx(x: f32) -> f32 {
    f64::from(x).cos() as f32
}

/// `tanh.approx.f32`. Hardware's relative error reaches 2^-11.
#[inline]
pub fn tanh_approx(x: f32) -> f32 {
    f64::from(x).tanh() as f32
}
