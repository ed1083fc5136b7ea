//! Arithmetic of f64 under every rounding (PTX ISA 9.7.3): the nearest result, moved by the sign of its error.

use super::Round;
use super::float::{FloatMode, FloatOp, zero_sum};
use super::round::{step, sum_error};

pub(super) fn float_f64(op: FloatOp, mode: &FloatMode, a: f64, b: f64, c: f64) -> Option<f64> {
    Some(match op {
        FloatOp::Add => f64_add(a, b, mode.round),
        FloatOp::Sub => f64_sub(a, b, mode.round),
        FloatOp::Mul => f64_mul(a, b, mode.round),
        FloatOp::Fma => f64_fma(a, b, c, mode.round),
        FloatOp::Div => f64_div(a, b, mode.round),
        FloatOp::Sqrt => f64_sqrt(a, mode.round),
        FloatOp::Rcp => f64_div(1.0, a, mode.round),
        // rsqrt.approx.f64: PTX allows 2^-20 relative; this is within 1 ulp.
        FloatOp::Rsqrt => 1.0 / a.sqrt(),
        FloatOp::Min | FloatOp::Max => match (a.is_nan(), b.is_nan()) {
            (true, true) => f64::NAN,
            (true, false) => b,
            (false, true) => a,
            _ => {
                let a_first = if a == b { a.is_sign_negative() } else { a < b };
                if a_first == (op == FloatOp::Min) { a } else { b }
            }
        },
        FloatOp::Neg => -a,
        FloatOp::Abs => a.abs(),
        FloatOp::CopySign => b.abs().copysign(a),
        FloatOp::Ex2 | FloatOp::Lg2 | FloatOp::Sin | FloatOp::Cos | FloatOp::Tanh => return None,
    })
}

/// `nearest` moved to the neighbour that `round` asks for; `error` has the sign of exact minus nearest.
#[inline]
fn directed(nearest: f64, error: f64, round: Round) -> f64 {
    let max = f64::MAX;
    match round {
        Round::Rz if nearest.is_infinite() => max.copysign(nearest),
        Round::Rm if nearest == f64::INFINITY => max,
        Round::Rp if nearest == f64::NEG_INFINITY => -max,
        _ if !nearest.is_finite() || error.is_nan() || error == 0.0 => nearest,
        Round::Rz if (error > 0.0) != (nearest > 0.0) => step(nearest, error > 0.0),
        Round::Rm if error < 0.0 => step(nearest, false),
        Round::Rp if error > 0.0 => step(nearest, true),
        _ => nearest,
    }
}

/// `add.rnd.f64`.
#[inline]
pub fn f64_add(a: f64, b: f64, round: Round) -> f64 {
    let sum = a + b;
    if round == Round::Rn || a.is_infinite() || b.is_infinite() {
        return sum;
    }
    directed(zero_sum(sum, a, b, round), sum_error(a, b, sum), round)
}

/// `sub.rnd.f64`.
#[inline]
pub fn f64_sub(a: f64, b: f64, round: Round) -> f64 {
    f64_add(a, -b, round)
}

/// `mul.rnd.f64`. Directed roundings take the error from an fma, which is exact unless the error itself underflows.
#[inline]
pub fn f64_mul(a: f64, b: f64, round: Round) -> f64 {
    let product = a * b;
    if round == Round::Rn || a.is_infinite() || b.is_infinite() {
        return product;
    }
    directed(product, a.mul_add(b, -product), round)
}

/// `fma.rnd.f64`. Directed roundings take the error's sign by Boldo and Muller's ErrFma, right unless something in it underflows.
#[inline]
pub fn f64_fma(a: f64, b: f64, c: f64, round: Round) -> f64 {
    let nearest = a.mul_add(b, c);
    if round == Round::Rn || !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return nearest;
    }
    let product = a * b;
    let low = a.mul_add(b, -product);
    let sum = c + low;
    let sum_low = sum_error(c, low, sum);
    let top = product + sum;
    let top_low = sum_error(product, sum, top);
    let error = ((top - nearest) + top_low) + sum_low;
    directed(zero_sum(nearest, product, c, round), error, round)
}

/// `div.rnd.f64`.
#[inline]
pub fn f64_div(a: f64, b: f64, round: Round) -> f64 {
    let quotient = a / b;
    if round == Round::Rn || a.is_infinite() || b.is_infinite() || b == 0.0 {
        return quotient;
    }
    let rest = (-quotient).mul_add(b, a);
    directed(quotient, if b < 0.0 { -rest } else { rest }, round)
}

/// `sqrt.rnd.f64`.
#[inline]
pub fn f64_sqrt(a: f64, round: Round) -> f64 {
    let root = a.sqrt();
    if round == Round::Rn || root.is_nan() || root.is_infinite() {
        return root;
    }
    directed(root, (-root).mul_add(root, a), round)
}
