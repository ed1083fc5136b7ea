//! Values worked out by hand from the PTX ISA's definitions, and an exact integer oracle for the roundings.

use super::*;

const MODES: [Round; 4] = [Round::Rn, Round::Rz, Round::Rm, Round::Rp];

fn mode(round: Round) -> FloatMode {
    FloatMode { round, ..FloatMode::default() }
}

/// xorshift64*: the tests' only source of numbers.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// `value * 2^scale` rounded to `format`, by integer arithmetic alone: the candidates' magnitudes are compared exactly.
fn oracle(value: i128, scale: i32, format: Format, round: Round) -> u32 {
    let magnitude = value.unsigned_abs();
    let negative = value < 0;
    let min = 2 - (1 << (format.exponent - 1)) - format.fraction as i32; // exponent of the least subnormal
    let bits = 128 - magnitude.leading_zeros() as i32;
    let unit = (scale + bits - 1 - format.fraction as i32).max(min);
    // magnitude * 2^scale = (q + rest) * 2^unit
    let shift = unit - scale;
    let (q, twice_rest_cmp, exact) = if shift <= 0 {
        (magnitude << -shift, std::cmp::Ordering::Less, true)
    } else if shift > 126 {
        (0, std::cmp::Ordering::Less, magnitude == 0)
    } else {
        let rest = magnitude & ((1 << shift) - 1);
        (magnitude >> shift, rest.cmp(&(1 << (shift - 1))), rest == 0)
    };
    let up = match round {
        Round::Rn => twice_rest_cmp.is_gt() || (twice_rest_cmp.is_eq() && q & 1 == 1),
        Round::Rm => negative && !exact,
        Round::Rp => !negative && !exact,
        _ => false,
    };
    let result = f64::from((q + u128::from(up)) as u32) * 2f64.powi(unit);
    // An f64 holds every candidate: nothing is rounded here, only overflow goes to infinity.
    let bits = round_f64(result, format, Round::Rn);
    if negative { bits | format.sign() } else { bits }
}

/// A float of `format` with an exponent within 2^-`spread` to 2^`spread`, as (integer, scale, value).
fn small_float(state: &mut u64, format: Format, spread: u32) -> (i128, i32, f64) {
    let bits = next(state);
    let significand = (bits & ((1 << (format.fraction + 1)) - 1)) as i128;
    let significand = if bits >> 40 & 1 == 1 { -significand } else { significand };
    let scale = (bits >> 41) as i32 % (2 * spread as i32) - spread as i32;
    (significand, scale, significand as f64 * 2f64.powi(scale))
}

#[test]
fn f32_add_mul_fma_are_the_exact_result_rounded_once() {
    let mut state = 1;
    for i in 0..200_000 {
        let [(a, ea, x), (b, eb, y), (c, ec, z)] = std::array::from_fn(|_| small_float(&mut state, F32, 18));
        let (x, y, z) = (x as f32, y as f32, z as f32);
        let round = MODES[i % 4];
        let low = ea.min(eb);
        let sum = (a << (ea - low)) + (b << (eb - low));
        let expect = |v, s| f32::from_bits(oracle(v, s, F32, round));
        assert_eq!(f32_add(x, y, mode(round)), expect(sum, low), "{x} + {y} {round:?}");
        assert_eq!(f32_mul(x, y, mode(round)), expect(a * b, ea + eb), "{x} * {y} {round:?}");
        let low = (ea + eb).min(ec);
        let exact = ((a * b) << (ea + eb - low)) + (c << (ec - low));
        assert_eq!(f32_fma(x, y, z, mode(round)), expect(exact, low), "fma({x}, {y}, {z}) {round:?}");
    }
}

#[test]
fn f16_and_bf16_fma_round_once() {
    let mut state = 2;
    for i in 0..200_000 {
        let (format, ty) = if i % 2 == 0 { (F16, Ty::F16) } else { (BF16, Ty::Bf16) };
        let [(a, ea, x), (b, eb, y), (c, ec, z)] =
            std::array::from_fn(|_| small_float(&mut state, format, 12));
        let bits = |x| u64::from(round_f64(x, format, Round::Rn));
        // f16's smallest subnormal is 2^-24: operands must be what they were meant to be.
        if [x, y, z].iter().any(|&v| round::widen(bits(v) as u32, format) != v) {
            continue;
        }
        let low = (ea + eb).min(ec);
        let exact = ((a * b) << (ea + eb - low)) + (c << (ec - low));
        let got = float(FloatOp::Fma, ty, &FloatMode::default(), bits(x), bits(y), bits(z)).unwrap();
        let expect = oracle(exact, low, format, Round::Rn);
        assert!(got == u64::from(expect) || exact == 0, "fma({x}, {y}, {z}) {ty:?}: {got:#x} {expect:#x}");
    }
}

#[test]
fn a_double_rounding_would_show() {
    // f16: a = 1 + 2^-10, b = 1 + 2^-9: a*b = 1 + 3*2^-10 + 2^-19. Plus c = 2^-24 * k leaves the nearest f16 at 1 + 3*2^-10.
    let fma = |a, b, c| float(FloatOp::Fma, Ty::F16, &FloatMode::default(), a, b, c);
    assert_eq!(fma(0x3c01, 0x3c02, 0), Some(0x3c03));
    // 2048 + 1 is a tie (ulp 2): to even, 2048; with 2^-24 more it is not: 2050. f32 cannot hold 2049 + 2^-24.
    assert_eq!(fma(0x3c00, 0x3c00, 0x6800), Some(0x6800));
    let sum = odd_add(2049.0, 2f64.powi(-24));
    assert_eq!(round_f64(sum, F16, Round::Rn), 0x6801);
    // f32: 2^24 + 1 + 2^-40 via fma.
    let x = f32_fma(1.0 + f32::EPSILON, 1.0 - f32::EPSILON, 0.0, mode(Round::Rp));
    assert_eq!(x, 1.0); // 1 - 2^-46, up
    assert_eq!(
        f32_fma(1.0 + f32::EPSILON, 1.0 - f32::EPSILON, 0.0, mode(Round::Rz)),
        1.0 - f32::EPSILON / 2.0
    );
}

#[test]
fn division_and_roots_bracket_the_exact_value() {
    let mut state = 3;
    for _ in 0..50_000 {
        let [(.., x), (.., y)] = std::array::from_fn(|_| small_float(&mut state, F32, 18));
        if x == 0.0 || y == 0.0 {
            continue;
        }
        let (a, b) = (x as f32, y as f32);
        let by = |round| f64::from(f32_div(a, b, mode(round)));
        let (down, up, zero) = (by(Round::Rm), by(Round::Rp), by(Round::Rz));
        // down <= x / y <= up, adjacent or equal: compare down * y with x exactly (48 bits).
        let sign = y.signum();
        assert!(down * y * sign <= x * sign && x * sign <= up * y * sign, "{a} / {b}");
        assert!(down == up || f64::from((down as f32).next_up()) == up);
        assert_eq!(zero, if x * sign > 0.0 { down } else { up });
        let root = |round| f64::from(f32_sqrt(a.abs(), mode(round)));
        let (down, up) = (root(Round::Rm), root(Round::Rp));
        assert!(down * down <= x.abs() && x.abs() <= up * up, "sqrt {a}");
        assert!(down == up || f64::from((down as f32).next_up()) == up);
        assert_eq!(root(Round::Rz), down);
    }
    assert_eq!(f32_div(1.0, 3.0, mode(Round::Rm)).to_bits(), 0x3eaa_aaaa);
    assert_eq!(f32_div(1.0, 3.0, mode(Round::Rp)).to_bits(), 0x3eaa_aaab);
    assert_eq!(f32_sqrt(2.0, mode(Round::Rm)).to_bits(), 0x3fb5_04f3);
    assert_eq!(f32_sqrt(2.0, mode(Round::Rp)).to_bits(), 0x3fb5_04f4);
}

#[test]
fn f64_directed_roundings() {
    let tiny = f64::EPSILON / 4.0;
    assert_eq!(f64_add(1.0, tiny, Round::Rz), 1.0);
    assert_eq!(f64_add(1.0, tiny, Round::Rp), 1.0 + f64::EPSILON);
    assert_eq!(f64_add(1.0, -tiny, Round::Rz), 1.0 - f64::EPSILON / 2.0);
    assert_eq!(f64_add(1.0, -1.0, Round::Rm).to_bits(), (-0.0f64).to_bits());
    let x = 1.0 + f64::EPSILON;
    assert_eq!(f64_mul(x, x, Round::Rm), 1.0 + 2.0 * f64::EPSILON);
    assert_eq!(f64_mul(x, x, Round::Rp), 1.0 + 3.0 * f64::EPSILON);
    assert_eq!(f64_fma(x, x, -1.0, Round::Rz), 2.0 * f64::EPSILON + f64::EPSILON * f64::EPSILON);
    assert_eq!(f64_fma(1.0, 1.0, 1e-300, Round::Rp), 1.0 + f64::EPSILON);
    assert_eq!(f64_div(1.0, 3.0, Round::Rp), (1.0f64 / 3.0).next_up());
    assert_eq!(f64_div(-1.0, 3.0, Round::Rz), -1.0 / 3.0);
    assert_eq!(f64_sqrt(2.0, Round::Rm), 2f64.sqrt().next_down());
    assert_eq!(f64_mul(f64::MAX, 2.0, Round::Rz), f64::MAX);
}

#[test]
fn ftz_sat_relu_and_nan() {
    let ftz = FloatMode { ftz: true, ..FloatMode::default() };
    let sat = FloatMode { sat: true, ..FloatMode::default() };
    let least = f32::from_bits(1);
    assert_eq!(f32_add(least, 0.0, FloatMode::default()).to_bits(), 1);
    assert_eq!(f32_add(-least, -0.0, ftz).to_bits(), 0x8000_0000);
    assert_eq!(f32_mul(f32::MIN_POSITIVE, 0.5, ftz), 0.0);
    assert_eq!((f32_add(0.75, 0.75, sat), f32_add(-1.0, 0.5, sat)), (1.0, 0.0));
    assert_eq!(f32_add(f32::NAN, 0.5, sat).to_bits(), 0);
    assert_eq!(f32_mul(f32::INFINITY, 0.0, FloatMode::default()).to_bits(), 0x7fff_ffff);
    let relu = FloatMode { relu: true, ..FloatMode::default() };
    let fma = |mode: &FloatMode, ty, a, b, c| float(FloatOp::Fma, ty, mode, a, b, c);
    assert_eq!(fma(&relu, Ty::F16x2, 0xbc00_3c00, 0x3c00_3c00, 0), Some(0x0000_3c00)); // -1, 1
    assert_eq!(fma(&relu, Ty::Bf16, 0x7fc1, 0x3f80, 0), Some(0x7fff));
    let one = FloatMode::default();
    assert_eq!(float(FloatOp::Add, Ty::Bf16x2, &one, 0x3f80_4000, 0x3f80_bf80, 0), Some(0x4000_3f80)); // 1+1, 2-1
    assert_eq!(float(FloatOp::Ex2, Ty::F16, &one, 0x4200, 0, 0), Some(0x4800)); // 2^3
    assert_eq!(float(FloatOp::Sqrt, Ty::F16, &one, 0x4200, 0, 0), None);
}

#[test]
fn min_and_max() {
    let plain = FloatMode::default();
    let nan = FloatMode { nan: true, ..plain };
    assert_eq!((f32_min(f32::NAN, 2.0, plain), f32_max(2.0, f32::NAN, plain)), (2.0, 2.0));
    assert_eq!(f32_min(f32::NAN, 2.0, nan).to_bits(), 0x7fff_ffff);
    assert_eq!(f32_max(-0.0, 0.0, plain).to_bits(), 0);
    assert_eq!(f32_min(0.0, -0.0, plain).to_bits(), 0x8000_0000);
    let xor = FloatMode { xorsign_abs: true, ..plain };
    assert_eq!(f32_max(-3.0, 2.0, xor), -3.0);
    assert_eq!(f32_min(-3.0, -2.0, xor), 2.0);
    let half = |op, mode: &FloatMode, a, b| float(op, Ty::F16, mode, a, b, 0).unwrap();
    assert_eq!(half(FloatOp::Max, &plain, 0x8000, 0x0000), 0);
    assert_eq!(half(FloatOp::Min, &plain, 0xc000, 0x3c00), 0xc000); // -2, 1
    assert_eq!(half(FloatOp::Min, &plain, 0x7e00, 0x3c00), 0x3c00);
    assert_eq!(half(FloatOp::Max, &nan, 0x7e00, 0x3c00), 0x7fff);
}

#[test]
fn sixteen_bit_formats_there_and_back() {
    for bits in 0..=u16::MAX {
        let nan16 = bits & 0x7fff > 0x7c00;
        assert_eq!(f32_to_f16(f16_to_f32(bits)), if nan16 { 0x7fff } else { bits });
        let nan = bits & 0x7fff > 0x7f80;
        assert_eq!(f32_to_bf16(bf16_to_f32(bits)), if nan { 0x7fff } else { bits });
        assert!(nan16 || f16_to_f32(bits).to_bits() == half::f16::from_bits(bits).to_f32().to_bits());
    }
    let mut state = 4;
    for _ in 0..500_000 {
        let x = f32::from_bits(next(&mut state) as u32);
        if !x.is_nan() {
            assert_eq!(u32::from(f32_to_f16(x)), round_f64(f64::from(x), F16, Round::Rn), "{x}");
            assert_eq!(u32::from(f32_to_bf16(x)), round_f64(f64::from(x), BF16, Round::Rn), "{x}");
        }
    }
    assert_eq!((f32_to_f16(65519.99), f32_to_f16(65520.0), f32_to_f16(2f32.powi(-25))), (0x7bff, 0x7c00, 0));
    assert_eq!(f32_to_f16(2f32.powi(-25) * 1.001), 1);
}

#[test]
fn conversions() {
    let cvt = |to, from, round, a: u64| convert(to, from, &Conversion { round, ..Conversion::default() }, a);
    let bits = |x: f32| u64::from(x.to_bits());
    // Floats to integers: the four roundings, clamping, NaN.
    let table: [(f32, [i32; 4]); 4] =
        [(2.5, [2, 2, 2, 3]), (-2.5, [-2, -2, -3, -2]), (3.5, [4, 3, 3, 4]), (3e9, [i32::MAX; 4])];
    for (x, expect) in table {
        let got = [Round::Rni, Round::Rzi, Round::Rmi, Round::Rpi]
            .map(|round| cvt(Ty::S32, Ty::F32, round, bits(x)) as i32);
        assert_eq!(got, expect, "{x}");
    }
    assert_eq!(cvt(Ty::U8, Ty::F32, Round::Rzi, bits(300.0)), 255);
    assert_eq!(cvt(Ty::U32, Ty::F32, Round::Rzi, bits(-1.0)), 0);
    assert_eq!(cvt(Ty::S32, Ty::F32, Round::Rzi, bits(f32::NAN)), 0);
    assert_eq!(cvt(Ty::S64, Ty::F32, Round::Rzi, bits(f32::NAN)), 1 << 63);
    assert_eq!(cvt(Ty::F32, Ty::F32, Round::Rni, bits(-0.5)), bits(-0.0));
    // Integers to floats: 2^24 + 1 is a tie in f32; u64::MAX.
    assert_eq!(cvt(Ty::F32, Ty::U32, Round::Rn, 16_777_217), bits(16_777_216.0));
    assert_eq!(cvt(Ty::F32, Ty::U32, Round::Rp, 16_777_217), bits(16_777_218.0));
    assert_eq!(cvt(Ty::F32, Ty::S32, Round::Rn, 0xffff_ffff), bits(-1.0));
    assert_eq!(cvt(Ty::F32, Ty::U64, Round::Rz, u64::MAX), 0x5f7f_ffff);
    assert_eq!(cvt(Ty::F64, Ty::U64, Round::Rn, u64::MAX), 2f64.powi(64).to_bits());
    assert_eq!(cvt(Ty::F16, Ty::S16, Round::Rn, 2049), 0x6800);
    // Integers: truncation, extension, saturation.
    assert_eq!(cvt(Ty::S32, Ty::S8, Round::Rn, 0xff80), 0xffff_ffff_ffff_ff80);
    assert_eq!(cvt(Ty::U16, Ty::S32, Round::Rn, 0x1_2345), 0x2345);
    let sat = Conversion { sat: true, ..Conversion::default() };
    assert_eq!(convert(Ty::S8, Ty::S32, &sat, 200), 127);
    assert_eq!(convert(Ty::U8, Ty::S32, &sat, 0xffff_ffff), 0);
    assert_eq!(convert(Ty::S32, Ty::U32, &sat, 0xffff_ffff), 0x7fff_ffff);
    assert_eq!(convert(Ty::F32, Ty::F32, &sat, bits(7.0)), bits(1.0));
    // Floats to floats. 1 + 2^-8 is a tie in bf16, 1 + 3 * 2^-8 too.
    assert_eq!(cvt(Ty::Bf16, Ty::F32, Round::Rn, 0x3f80_8000), 0x3f80);
    assert_eq!(cvt(Ty::Bf16, Ty::F32, Round::Rn, 0x3f81_8000), 0x3f82);
    assert_eq!(cvt(Ty::Bf16, Ty::F32, Round::Rz, 0x3f81_8000), 0x3f81);
    assert_eq!(cvt(Ty::Tf32, Ty::F32, Round::Rna, 0x3f80_1000), 0x3f80_2000);
    assert_eq!(cvt(Ty::F32, Ty::F64, Round::Rn, (1.0 + 2f64.powi(-24)).to_bits()), bits(1.0));
    assert_eq!(cvt(Ty::F64, Ty::F32, Round::Rn, bits(1.5)), 1.5f64.to_bits());
    assert_eq!(cvt(Ty::F32, Ty::F16, Round::Rn, 0x0001), bits(2f32.powi(-24)));
    let relu = Conversion { relu: true, ..Conversion::default() };
    let packed = |mode: &Conversion, ty, a: f32, b: f32| convert_packed(ty, mode, a.to_bits(), b.to_bits());
    assert_eq!(packed(&Conversion::default(), Ty::Bf16x2, 1.0, -2.0), 0x3f80_c000);
    assert_eq!(packed(&relu, Ty::F16x2, 1.0, -2.0), 0x3c00_0000);
    let finite = Conversion { satfinite: true, ..Conversion::default() };
    assert_eq!(packed(&finite, Ty::F16x2, 1e9, -1e9), 0x7bff_fbff);
}

#[test]
fn integers() {
    let int = |op, ty, a: i64, b: i64, c: i64| integer(op, ty, a as u64, b as u64, c as u64) as i64;
    assert_eq!(int(IntOp::Add, Ty::U16, 0xffff, 1, 0), 0);
    assert_eq!(int(IntOp::AddSat, Ty::S32, i64::from(i32::MAX), 1, 0), i64::from(i32::MAX));
    assert_eq!(int(IntOp::SubSat, Ty::S32, i64::from(i32::MIN), 1, 0), i64::from(i32::MIN));
    assert_eq!(int(IntOp::MulHi, Ty::U32, 0xffff_ffff, 0xffff_ffff, 0), 0xffff_fffe);
    assert_eq!(int(IntOp::MulHi, Ty::S32, -1, 5, 0), -1);
    assert_eq!(int(IntOp::MulHi, Ty::U64, -1, -1, 0), -2);
    assert_eq!(int(IntOp::MulWide, Ty::S16, -3, 5, 0), -15);
    assert_eq!(int(IntOp::MulWide, Ty::U32, 0xffff_ffff, 2, 0), 0x1_ffff_fffe);
    assert_eq!(int(IntOp::MadWide, Ty::S32, -2, 3, 1 << 40), (1 << 40) - 6);
    assert_eq!(int(IntOp::MadLo, Ty::S32, 7, 6, -2), 40);
    assert_eq!(
        int(IntOp::MadHiSat, Ty::S32, i64::from(i32::MAX), i64::from(i32::MAX), i64::from(i32::MAX)),
        i64::from(i32::MAX)
    );
    assert_eq!(int(IntOp::Div, Ty::S32, -7, 2, 0), -3);
    assert_eq!(int(IntOp::Div, Ty::U32, -1, 16, 0), 0x0fff_ffff);
    assert_eq!(int(IntOp::Rem, Ty::S32, -7, 2, 0), -1);
    assert_eq!(int(IntOp::Div, Ty::U32, 1, 0, 0), 0xffff_ffff);
    assert_eq!((int(IntOp::Min, Ty::S32, -1, 1, 0), int(IntOp::Min, Ty::U32, -1, 1, 0)), (-1, 1));
    assert_eq!(int(IntOp::MaxRelu, Ty::S32, -5, -9, 0), 0);
    assert_eq!(int(IntOp::Abs, Ty::S32, i64::from(i32::MIN), 0, 0), i64::from(i32::MIN));
    assert_eq!(int(IntOp::Sad, Ty::S32, -4, 6, 100), 110);
    assert_eq!((int(IntOp::Not, Ty::B16, 0, 0, 0), int(IntOp::Cnot, Ty::B32, 0, 0, 0)), (0xffff, 1));
    assert_eq!((int(IntOp::Shl, Ty::B32, 1, 32, 0), int(IntOp::Shl, Ty::B32, 3, 31, 0)), (0, 0x8000_0000));
    assert_eq!((int(IntOp::Shr, Ty::S32, -8, 40, 0), int(IntOp::Shr, Ty::U32, -8, 28, 0)), (-1, 15));
    assert_eq!((int(IntOp::Shr, Ty::S64, -8, 1, 0), int(IntOp::Shr, Ty::U64, -8, 64, 0)), (-4, 0));
    assert_eq!((int(IntOp::Popc, Ty::B32, -1, 0, 0), int(IntOp::Clz, Ty::B32, 1, 0, 0)), (32, 31));
    assert_eq!((int(IntOp::Clz, Ty::B64, 0, 0, 0), int(IntOp::Brev, Ty::B32, 1, 0, 0)), (64, 0x8000_0000));
    assert_eq!(
        (int(IntOp::Bfind, Ty::U32, 0x80, 0, 0), int(IntOp::BfindShift, Ty::U32, 0x80, 0, 0)),
        (7, 24)
    );
    assert_eq!(
        (int(IntOp::Bfind, Ty::S32, -1, 0, 0), int(IntOp::Bfind, Ty::S64, -256, 0, 0)),
        (0xffff_ffff, 7)
    );
    assert_eq!(int(IntOp::Min, Ty::S16x2, 0x0001_ffff, 0xffff_0001, 0), 0xffff_ffff);
}

#[test]
fn bits_and_bytes() {
    assert_eq!(bfe(Ty::U32, 0xabcd_1234, 8, 8), 0x12);
    assert_eq!(bfe(Ty::S32, 0x0000_8000, 8, 8), 0xffff_ff80);
    assert_eq!(bfe(Ty::S32, 0x8000_0000, 28, 16), 0xffff_fff8);
    assert_eq!((bfe(Ty::S32, 0x8000_0000, 40, 4), bfe(Ty::U32, !0, 40, 4)), (0xffff_ffff, 0));
    assert_eq!((bfe(Ty::S32, !0, 0, 0), bfe(Ty::S64, 0xf0, 4, 4)), (0, u64::MAX));
    assert_eq!(bfi(Ty::B32, 0xff, 0, 28, 8), 0xf000_0000);
    assert_eq!((bfi(Ty::B32, 0xab, 0x1111_1111, 8, 8), bfi(Ty::B64, 1, 0, 63, 1)), (0x1111_ab11, 1 << 63));
    assert_eq!(lop3(0b1100, 0b1010, 0b0110, 0xea), 0b1110); // (a & b) | c
    assert_eq!(lop3(1, 2, 4, 0x96), 7);
    assert_eq!(shf(true, ShfMode::Wrap, 0x8000_0000, 1, 1), 3);
    assert_eq!(shf(false, ShfMode::Wrap, 0x10, 0xf, 36), 0xf000_0001);
    assert_eq!((shf(false, ShfMode::Clamp, 7, 9, 40), shf(true, ShfMode::Clamp, 7, 9, 40)), (9, 7));
    let (a, b) = (0x3322_1180, 0x7766_5544);
    assert_eq!(prmt(PrmtMode::Index, a, b, 0x7410), 0x7744_1180);
    assert_eq!(prmt(PrmtMode::Index, a, b, 0x0008), 0x8080_80ff);
    assert_eq!(prmt(PrmtMode::F4e, a, b, 1), 0x4433_2211);
    assert_eq!(prmt(PrmtMode::B4e, a, b, 1), 0x6677_8011);
    assert_eq!(prmt(PrmtMode::Rc8, a, b, 2), 0x2222_2222);
    assert_eq!(prmt(PrmtMode::Ecl, a, b, 2), 0x3322_2222);
    assert_eq!(prmt(PrmtMode::Ecr, a, b, 1), 0x1111_1180);
    assert_eq!(prmt(PrmtMode::Rc16, a, b, 1), 0x3322_3322);
    assert_eq!(dp4a(true, true, 0xff02_0304, 0x0501_0101, 10), 14); // -5 + 2 + 3 + 4 + 10
    assert_eq!(dp4a(false, true, 0xff00_0000, 0xff00_0000, 0) as i32, -255);
    assert_eq!(dp2a(false, true, true, 0xffff_0002, 0x7f7f_0305, 1), 8); // 2*5 - 3 + 1
    assert_eq!(dp2a(true, false, false, 0x0001_0002, 0x0305_7f7f, 1), 14);
    assert_eq!(
        (mul24(false, false, 0xff00_0003, 5), mul24(true, true, 0x80_0000, 0x80_0000)),
        (15, 0x4000_0000)
    );
    assert_eq!((fns(0b1011_0100, 0, 2), fns(0b1011_0100, 7, -2), fns(0b100, 3, 1)), (4, 5, u32::MAX));
    assert_eq!(add_carry(Ty::U32, 0xffff_ffff, 0, true), Carry { value: 0, carry: true });
    assert_eq!(sub_borrow(Ty::U32, 0, 0, true), Carry { value: 0xffff_ffff, carry: true });
}

#[test]
fn comparisons() {
    let f = |cmp, a: f32, b: f32| compare(cmp, Ty::F32, false, a.to_bits().into(), b.to_bits().into());
    assert!(f(Cmp::Lt, 1.0, 2.0) && !f(Cmp::Lt, f32::NAN, 2.0) && f(Cmp::Ltu, f32::NAN, 2.0));
    assert!(f(Cmp::Eq, 0.0, -0.0) && f(Cmp::Nan, f32::NAN, 0.0) && f(Cmp::Num, 1.0, 0.0));
    assert!(!f(Cmp::Ne, f32::NAN, 1.0) && f(Cmp::Neu, f32::NAN, 1.0));
    assert!(compare(Cmp::Eq, Ty::F32, true, 1, 0) && !compare(Cmp::Eq, Ty::F32, false, 1, 0));
    assert!(
        compare(Cmp::Lt, Ty::S32, false, 0xffff_ffff, 0) && !compare(Cmp::Lt, Ty::U32, false, 0xffff_ffff, 0)
    );
    assert!(
        compare(Cmp::Hi, Ty::U32, false, 0xffff_ffff, 0) && compare(Cmp::Gt, Ty::F16, false, 0x3c00, 0xbc00)
    );
    assert!(compare(Cmp::Eq, Ty::B16, false, 0xff_1234, 0x1234));
}

#[test]
fn approximations_and_fused_lanes() {
    assert_eq!((ex2_approx(3.0), ex2_approx(f32::NEG_INFINITY), lg2_approx(8.0)), (8.0, 0.0, 3.0));
    assert_eq!(
        (rsqrt_approx(4.0), rsqrt_approx(0.0), rsqrt_approx(-0.0)),
        (0.5, f32::INFINITY, f32::NEG_INFINITY)
    );
    assert_eq!((sin_approx(0.0), cos_approx(0.0), tanh_approx(f32::INFINITY)), (0.0, 1.0, 1.0));
    assert!(lg2_approx(0.0) == f32::NEG_INFINITY && lg2_approx(-1.0).is_nan());
    let mut state = 5;
    let [a, b, c]: [[u32; 32]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| next(&mut state) as u32));
    for ftz in [false, true] {
        let mut out = [0; 32];
        fma_f32_warp(&mut out, &a, &b, &c, ftz);
        for i in 0..32 {
            let [a, b, c] = [a[i], b[i], c[i]].map(f32::from_bits);
            assert_eq!(out[i], f32_fma(a, b, c, FloatMode { ftz, ..FloatMode::default() }).to_bits());
        }
    }
}
