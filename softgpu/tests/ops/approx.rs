//! The approximations at many points of their ranges, against f64: within the error that the PTX ISA allows (9.7.3.8, 9.7.3.13 to 9.7.3.22,
//! 9.7.4.9, 9.7.4.10). The references are other formulas than those of `num`.

use std::f64::consts::{FRAC_PI_2, LN_2, PI};
use std::ops::RangeInclusive;

use super::harness::run_block;

/// Points of a range.
const N: u64 = 4096;

#[derive(Clone, Copy)]
enum Bound {
    /// In units of the last place, counted from the nearest f32.
    Ulps(i64),
    Relative(f64),
    Absolute(f64),
}

impl Bound {
    /// The error in units of what is allowed.
    fn used(self, got: f64, want: f64) -> f64 {
        match self {
            Bound::Ulps(allowed) => {
                let order = |x: f32| {
                    let magnitude = i64::from(x.to_bits() & 0x7fff_ffff);
                    if x.is_sign_negative() { -magnitude } else { magnitude }
                };
                (order(got as f32) - order(want as f32)).abs() as f64 / allowed as f64
            }
            Bound::Relative(_) if got == want => 0.0,
            Bound::Relative(allowed) => ((got - want) / want).abs() / allowed,
            Bound::Absolute(allowed) => (got - want).abs() / allowed,
        }
    }
}

/// Runs `text`, which makes `%r9` of `%r1`, on all points.
fn sweep(text: &str, decode: fn(u32) -> f64, points: &[u32], reference: impl Fn(f64) -> f64, bound: Bound) {
    let body = format!(
        "mul.wide.u32 %d1, %r0, 4; add.u64 %d1, %in, %d1; ld.global.u32 %r1, [%d1]; mov.u32 %r9, 0; {text}"
    );
    for chunk in points.chunks(1024) {
        let blocks = chunk.len().div_ceil(128) as u32;
        let (got, _) = run_block(blocks, 128, &body, chunk).unwrap_or_else(|e| panic!("{text}\n{e}"));
        for (&x, &y) in chunk.iter().zip(&got) {
            let (x, y) = (decode(x), decode(y));
            let want = reference(x);
            let used = bound.used(y, want);
            assert!(used <= 1.0, "{text} of {x:e}: {y:e}, not {want:e}: {used} of the error allowed");
        }
    }
}

fn single(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits))
}

/// Of f32, with and without `.ftz`: `name` is `ex2.approx`.
fn both(name: &str, points: &[u32], reference: impl Fn(f64) -> f64, bound: Bound) {
    sweep(&format!("{name}.f32 %r9, %r1;"), single, points, &reference, bound);
    sweep(&format!("{name}.ftz.f32 %r9, %r1;"), single, points, &reference, bound);
}

fn evenly(from: f64, to: f64) -> Vec<u32> {
    (0..N).map(|i| ((from + (to - from) * i as f64 / (N - 1) as f64) as f32).to_bits()).collect()
}

/// Between two positive numbers, as many in each binade.
fn by_binade(from: f32, to: f32) -> Vec<u32> {
    let (from, to) = (u64::from(from.to_bits()), u64::from(to.to_bits()));
    (0..N).map(|i| (from + (to - from) * i / (N - 1)) as u32).collect()
}

/// The same and their opposites.
fn signed(points: Vec<u32>) -> Vec<u32> {
    let negative: Vec<u32> = points.iter().map(|bits| bits | 0x8000_0000).collect();
    [points, negative].concat()
}

/// The least number, and the least that is normal.
const LEAST: f32 = f32::from_bits(1);
const TINY: f32 = f32::MIN_POSITIVE;
/// Just below 2^126.
const LARGE: f32 = 8.5e37;

#[test]
fn powers_of_two() {
    let reference = |x: f64| (x * LN_2).exp();
    both("ex2.approx", &evenly(-125.9, 127.9), reference, Bound::Ulps(2));
    both("ex2.approx", &signed(by_binade(LEAST, 1.0)), reference, Bound::Ulps(2));
    // Subnormal results.
    sweep("ex2.approx.f32 %r9, %r1;", single, &evenly(-149.0, -126.1), reference, Bound::Ulps(2));
    sweep("ex2.approx.ftz.f32 %r9, %r1;", single, &evenly(-149.0, -126.1), |_| 0.0, Bound::Ulps(1));
}

#[test]
fn logarithms() {
    let reference = |x: f64| x.ln() / LN_2;
    let allowed = 2f64.powi(-22);
    both("lg2.approx", &evenly(0.5001, 1.9999), reference, Bound::Absolute(allowed));
    both("lg2.approx", &by_binade(TINY, 0.5), reference, Bound::Relative(allowed));
    both("lg2.approx", &by_binade(2.0, f32::MAX), reference, Bound::Relative(allowed));
    sweep("lg2.approx.f32 %r9, %r1;", single, &by_binade(LEAST, TINY), reference, Bound::Relative(allowed));
}

#[test]
fn sines_and_cosines() {
    let sin = |x: f64| -(x + FRAC_PI_2).cos();
    let cos = |x: f64| (x + FRAC_PI_2).sin();
    for (periods, error) in [(1.0, -20.5), (50.0, -14.7)] {
        let points = evenly(-2.0 * PI * periods, 2.0 * PI * periods);
        both("sin.approx", &points, sin, Bound::Absolute(2f64.powf(error)));
        both("cos.approx", &points, cos, Bound::Absolute(2f64.powf(error)));
    }
    let small = signed(by_binade(LEAST, 1.0));
    both("sin.approx", &small, sin, Bound::Absolute(2f64.powf(-20.5)));
    both("cos.approx", &small, cos, Bound::Absolute(2f64.powf(-20.5)));
}

/// Of what is large it is 1, and e^2x would be too large.
fn tanh(x: f64) -> f64 {
    let e = (2.0 * x).exp_m1();
    if x.abs() > 20.0 { x.signum() } else { e / (e + 2.0) }
}

#[test]
fn hyperbolic_tangents() {
    let points = signed(by_binade(LEAST, f32::MAX));
    sweep("tanh.approx.f32 %r9, %r1;", single, &points, tanh, Bound::Relative(2f64.powi(-11)));
}

#[test]
fn reciprocals_and_quotients() {
    both("rcp.approx", &signed(by_binade(TINY, LARGE)), |x| 1.0 / x, Bound::Ulps(1));
    let beyond = signed([by_binade(LEAST, TINY), by_binade(LARGE, f32::MAX)].concat());
    sweep("rcp.approx.f32 %r9, %r1;", single, &beyond, |x| 1.0 / x, Bound::Ulps(1));
    let points = signed(by_binade(TINY, LARGE));
    for form in ["approx", "approx.ftz", "full", "full.ftz"] {
        let text = format!("div.{form}.f32 %r9, 0f3F8CCCCD, %r1;");
        sweep(&text, single, &points, |x| f64::from(1.1f32) / x, Bound::Ulps(2));
    }
}

#[test]
fn square_roots() {
    let (root, inverse) = (|x: f64| x.powf(0.5), |x: f64| x.powf(-0.5));
    let (one, other) = (Bound::Relative(2f64.powi(-23)), Bound::Relative(2f64.powf(-22.9)));
    both("sqrt.approx", &by_binade(TINY, f32::MAX), root, one);
    both("rsqrt.approx", &by_binade(TINY, f32::MAX), inverse, other);
    sweep("sqrt.approx.f32 %r9, %r1;", single, &by_binade(LEAST, TINY), root, one);
    sweep("rsqrt.approx.f32 %r9, %r1;", single, &by_binade(LEAST, TINY), inverse, other);
}

/// All numbers of 16 bits in a range.
fn halves(form: &str, decode: fn(u32) -> f64, range: RangeInclusive<f64>, of: fn(f64) -> f64, bound: Bound) {
    let points: Vec<u32> = (0..=0xffff).filter(|bits| range.contains(&decode(*bits))).collect();
    let text = format!("cvt.u16.u32 %h1, %r1; {form} %h2, %h1; cvt.u32.u16 %r9, %h2;");
    sweep(&text, decode, &points, of, bound);
}

#[test]
fn all_numbers_of_16_bits() {
    let f16 = |bits: u32| f64::from(::half::f16::from_bits(bits as u16).to_f32());
    let bf16 = |bits: u32| f64::from(::half::bf16::from_bits(bits as u16).to_f32());
    let ex2 = |x: f64| (x * LN_2).exp();
    let finite = f64::MIN..=f64::MAX;
    // Where the result is normal and finite.
    halves("ex2.approx.f16", f16, -14.0..=15.99, ex2, Bound::Relative(2f64.powf(-9.9)));
    halves("ex2.approx.ftz.bf16", bf16, -126.0..=127.5, ex2, Bound::Relative(2f64.powi(-7)));
    halves("tanh.approx.f16", f16, finite.clone(), tanh, Bound::Absolute(2f64.powf(-10.987)));
    halves("tanh.approx.bf16", bf16, finite, tanh, Bound::Absolute(2f64.powi(-8)));
}
