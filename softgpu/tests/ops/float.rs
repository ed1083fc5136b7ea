//! f32 and f64 (PTX ISA 9.7.3), comparisons and selection (9.7.6).

use super::harness::{INF, NAN, NINF, Row, check, check_on, d, f, i};

/// 1 + 2^-23 and 1 - 2^-24: the neighbours of 1.
const UP: u64 = 0x3f80_0001;
const DOWN: u64 = 0x3f7f_ffff;
const TINY: u64 = f(f32::MIN_POSITIVE);

#[test]
fn arithmetic_of_f32() {
    const ROWS: &[Row] = &[
        ("add.f32 %r9, %r0, %r1;", &[f(1.5), f(2.25)], f(3.75)),
        ("add.rn.f32 %r9, %r0, 0f3F800000;", &[f(1.5)], f(2.5)),
        ("add.f32 %r9, %r0, %r1;", &[INF, NINF], NAN),
        // 1 + 2^-30.
        ("add.rn.f32 %r9, %r0, %r1;", &[f(1.0), 0x3080_0000], f(1.0)),
        ("add.rz.f32 %r9, %r0, %r1;", &[f(-1.0), 0xb080_0000], f(-1.0)),
        ("add.rm.f32 %r9, %r0, %r1;", &[f(1.0), 0xb080_0000], DOWN),
        ("add.rp.f32 %r9, %r0, %r1;", &[f(1.0), 0x3080_0000], UP),
        ("add.ftz.f32 %r9, %r0, %r1;", &[1, 1], 0),
        ("add.rn.ftz.f32 %r9, %r0, %r1;", &[TINY, 0x8040_0000], TINY),
        ("add.sat.f32 %r9, %r0, %r1;", &[f(0.75), f(0.5)], f(1.0)),
        ("add.ftz.sat.f32 %r9, %r0, %r1;", &[f(0.75), f(-2.0)], 0),
        ("sub.f32 %r9, %r0, %r1;", &[f(1.5), f(2.25)], f(-0.75)),
        ("sub.rn.f32 %r9, %r0, %r1;", &[f(1.5), f(1.5)], 0),
        ("sub.rm.f32 %r9, %r0, %r1;", &[f(1.5), f(1.5)], 0x8000_0000),
        ("sub.ftz.f32 %r9, %r0, %r1;", &[f(1.0), 1], f(1.0)),
        ("sub.rz.f32 %r9, %r0, %r1;", &[f(1.0), 0x3080_0000], DOWN),
        ("sub.rp.f32 %r9, %r0, %r1;", &[f(1.0), 0x3080_0000], f(1.0)),
        ("sub.sat.f32 %r9, %r0, %r1;", &[f(1.0), f(2.0)], 0),
        ("mul.f32 %r9, %r0, %r1;", &[f(1.5), f(-2.0)], f(-3.0)),
        ("mul.rn.f32 %r9, %r0, %r1;", &[UP, UP], 0x3f80_0002),
        ("mul.rp.f32 %r9, %r0, %r1;", &[UP, UP], 0x3f80_0003),
        ("mul.rz.f32 %r9, %r0, %r1;", &[DOWN, DOWN], 0x3f7f_fffe),
        ("mul.ftz.f32 %r9, %r0, %r1;", &[TINY, f(0.5)], 0),
        ("mul.f32 %r9, %r0, %r1;", &[TINY, f(0.5)], 0x0040_0000),
        ("mul.sat.f32 %r9, %r0, %r1;", &[f(3.0), f(2.0)], f(1.0)),
        ("mul.rm.f32 %r9, %r0, %r1;", &[UP, UP], 0x3f80_0002),
        ("mul.ftz.sat.f32 %r9, %r0, %r1;", &[f(-1.0), f(1.0)], 0),
        ("mul.f32 %r9, %r0, %r1;", &[INF, 0], NAN),
        // (1 + 2^-23)(1 - 2^-24) - 1 = 2^-24 - 2^-47: exact only when fused.
        ("fma.rn.f32 %r9, %r0, %r1, %r2;", &[UP, DOWN, f(-1.0)], 0x337f_fffe),
        ("fma.rm.f32 %r9, %r0, %r1, %r2;", &[UP, UP, 0], 0x3f80_0002),
        ("fma.rp.f32 %r9, %r0, %r1, %r2;", &[UP, UP, 0], 0x3f80_0003),
        ("fma.rz.f32 %r9, %r0, %r1, %r2;", &[UP, UP, 1], 0x3f80_0002),
        ("fma.rn.ftz.f32 %r9, %r0, %r1, %r2;", &[f(1.0), 1, f(2.0)], f(2.0)),
        ("fma.rn.sat.f32 %r9, %r0, %r1, %r2;", &[f(1.0), f(1.0), f(1.0)], f(1.0)),
        ("fma.rp.ftz.sat.f32 %r9, %r0, %r1, %r2;", &[UP, UP, 0], f(1.0)),
        ("mad.rn.f32 %r9, %r0, %r1, %r2;", &[f(2.0), f(3.0), f(4.0)], f(10.0)),
        ("mad.rz.f32 %r9, %r0, %r1, %r2;", &[UP, UP, 1], 0x3f80_0002),
        ("neg.f32 %r9, %r0;", &[f(2.0)], f(-2.0)),
        ("neg.ftz.f32 %r9, %r0;", &[1], 0x8000_0000),
        ("abs.f32 %r9, %r0;", &[f(-2.0)], f(2.0)),
        ("abs.ftz.f32 %r9, %r0;", &[0x8000_0001], 0),
        ("copysign.f32 %r9, %r0, %r1;", &[f(-1.0), f(3.0)], f(-3.0)),
    ];
    check(ROWS);
}

#[test]
fn least_and_greatest() {
    const ROWS: &[Row] = &[
        ("min.f32 %r9, %r0, %r1;", &[f(1.0), f(-2.0)], f(-2.0)),
        ("min.f32 %r9, %r0, %r1;", &[NAN, f(-2.0)], f(-2.0)),
        ("min.f32 %r9, %r0, %r1;", &[0, 0x8000_0000], 0x8000_0000),
        ("max.f32 %r9, %r0, %r1;", &[f(1.0), f(-2.0)], f(1.0)),
        ("max.ftz.f32 %r9, %r0, %r1;", &[1, 0x8000_0000], 0),
        ("max.NaN.f32 %r9, %r0, %r1;", &[f(1.0), 0x7fc0_0000], NAN),
        ("min.ftz.NaN.f32 %r9, %r0, %r1;", &[f(1.0), f(2.0)], f(1.0)),
        ("max.xorsign.abs.f32 %r9, %r0, %r1;", &[f(-3.0), f(2.0)], f(-3.0)),
        ("min.NaN.xorsign.abs.f32 %r9, %r0, %r1;", &[f(-3.0), f(-2.0)], f(2.0)),
        ("min.xorsign.abs.f32 %r9, %r0, %r1;", &[f(3.0), f(-2.0)], f(-2.0)),
        ("max.NaN.xorsign.abs.f32 %r9, %r0, %r1;", &[f(-3.0), f(-2.0)], f(3.0)),
        ("min.ftz.xorsign.abs.f32 %r9, %r0, %r1;", &[0x8000_0001, f(1.0)], 0x8000_0000),
        ("min.f64 %d9, %d0, %d1;", &[d(1.0), d(-2.0)], d(-2.0)),
        ("max.f64 %d9, %d0, %d1;", &[d(1.0), d(-2.0)], d(1.0)),
        ("max.f64 %d9, %d0, %d1;", &[d(f64::NAN), d(-2.0)], d(-2.0)),
    ];
    check(ROWS);
}

#[test]
fn least_and_greatest_of_three() {
    const ROWS: &[Row] = &[
        ("min.f32 %r9, %r0, %r1, %r2;", &[f(3.0), f(-2.0), f(1.0)], f(-2.0)),
        ("min.f32 %r9, %r0, %r1, %r2;", &[f(3.0), f(-2.0), f(-4.0)], f(-4.0)),
        ("min.f32 %r9, %r0, %r1, %r2;", &[NAN, f(5.0), f(4.0)], f(4.0)),
        ("max.f32 %r9, %r0, %r1, %r2;", &[f(3.0), f(-2.0), f(7.0)], f(7.0)),
        ("max.f32 %r9, %r0, %r1, %r2;", &[f(3.0), NAN, f(1.0)], f(3.0)),
        ("max.NaN.f32 %r9, %r0, %r1, %r2;", &[f(3.0), f(1.0), NAN], NAN),
        ("min.ftz.f32 %r9, %r0, %r1, %r2;", &[1, f(2.0), 0x8000_0001], 0x8000_0000),
        ("min.ftz.NaN.f32 %r9, %r0, %r1, %r2;", &[f(1.0), f(2.0), f(0.5)], f(0.5)),
    ];
    check_on(100, ROWS);
}

/// Two numbers, the lower first.
const fn pair(lo: f32, hi: f32) -> u64 {
    f(hi) << 32 | f(lo)
}

#[test]
fn arithmetic_of_f32x2() {
    // 2^-30 above, -2^-30 below; the least subnormal above, its opposite below.
    const SMALL: u64 = 0x3080_0000_b080_0000;
    const LEAST: u64 = 0x0000_0001_8000_0001;
    const ROWS: &[Row] = &[
        ("add.f32x2 %d9, %d0, %d1;", &[pair(1.5, -2.0), pair(2.25, 1.0)], pair(3.75, -1.0)),
        ("add.rn.f32x2 %d9, %d0, %d1;", &[pair(1.0, -1.0), SMALL], pair(1.0, -1.0)),
        ("add.rz.f32x2 %d9, %d0, %d1;", &[pair(1.0, -1.0), SMALL], 0xbf7f_ffff_3f7f_ffff),
        ("add.rm.f32x2 %d9, %d0, %d1;", &[pair(1.0, 1.0), LEAST], 0x3f80_0000_3f7f_ffff),
        ("add.rp.f32x2 %d9, %d0, %d1;", &[pair(1.0, 1.0), LEAST], 0x3f80_0001_3f80_0000),
        ("add.rm.ftz.f32x2 %d9, %d0, %d1;", &[pair(1.0, 1.0), LEAST], pair(1.0, 1.0)),
        ("sub.f32x2 %d9, %d0, %d1;", &[pair(1.5, 1.0), pair(2.25, -1.0)], pair(-0.75, 2.0)),
        ("sub.rp.f32x2 %d9, %d0, %d1;", &[pair(1.0, 1.0), SMALL], 0x3f80_0000_3f80_0001),
        ("mul.f32x2 %d9, %d0, %d1;", &[pair(1.5, -3.0), pair(-2.0, 0.5)], pair(-3.0, -1.5)),
        ("mul.rz.f32x2 %d9, %d0, %d0;", &[0x3f7f_ffff_3f80_0001], 0x3f7f_fffe_3f80_0002),
        ("mul.ftz.f32x2 %d9, %d0, %d1;", &[pair(2.0, f32::MIN_POSITIVE), pair(3.0, 0.5)], pair(6.0, 0.0)),
        // Below (1 + 2^-23)(1 - 2^-24) - 1, above 1 * 2 + 3.
        (
            "fma.rn.f32x2 %d9, %d0, %d1, %d2;",
            &[0x3f80_0000_3f80_0001, 0x4000_0000_3f7f_ffff, pair(-1.0, 3.0)],
            0x40a0_0000_337f_fffe,
        ),
        ("fma.rp.f32x2 %d9, %d0, %d0, %d1;", &[0x3f80_0001_3f80_0001, 0], 0x3f80_0003_3f80_0003),
        ("fma.rz.ftz.f32x2 %d9, %d0, %d1, %d2;", &[pair(1.0, 1.0), LEAST, pair(2.0, 3.0)], pair(2.0, 3.0)),
    ];
    check_on(100, ROWS);
}

#[test]
fn division_and_functions_of_f32() {
    const ROWS: &[Row] = &[
        ("div.rn.f32 %r9, %r0, %r1;", &[f(1.0), f(3.0)], 0x3eaa_aaab),
        ("div.rz.f32 %r9, %r0, %r1;", &[f(1.0), f(3.0)], 0x3eaa_aaaa),
        ("div.rm.f32 %r9, %r0, %r1;", &[f(-1.0), f(3.0)], 0xbeaa_aaab),
        ("div.rp.f32 %r9, %r0, %r1;", &[f(1.0), f(3.0)], 0x3eaa_aaab),
        ("div.rp.ftz.f32 %r9, %r0, %r1;", &[f(-1.0), f(3.0)], 0xbeaa_aaaa),
        ("div.rn.ftz.f32 %r9, %r0, %r1;", &[f(1.0), 1], INF),
        ("div.full.f32 %r9, %r0, %r1;", &[f(6.0), f(2.0)], f(3.0)),
        ("div.full.ftz.f32 %r9, %r0, %r1;", &[f(6.0), f(4.0)], f(1.5)),
        ("div.approx.f32 %r9, %r0, %r1;", &[f(1.0), f(8.0)], f(0.125)),
        ("div.approx.ftz.f32 %r9, %r0, %r1;", &[f(1.0), f(0.0)], INF),
        ("rcp.rn.f32 %r9, %r0;", &[f(3.0)], 0x3eaa_aaab),
        ("rcp.rz.f32 %r9, %r0;", &[f(3.0)], 0x3eaa_aaaa),
        ("rcp.rm.f32 %r9, %r0;", &[f(3.0)], 0x3eaa_aaaa),
        ("rcp.rp.ftz.f32 %r9, %r0;", &[f(-3.0)], 0xbeaa_aaaa),
        ("rcp.approx.f32 %r9, %r0;", &[f(4.0)], f(0.25)),
        ("rcp.approx.ftz.f32 %r9, %r0;", &[0x8000_0001], NINF),
        ("sqrt.rn.f32 %r9, %r0;", &[f(2.0)], 0x3fb5_04f3),
        ("sqrt.rp.f32 %r9, %r0;", &[f(2.0)], 0x3fb5_04f4),
        ("sqrt.rz.f32 %r9, %r0;", &[f(2.0)], 0x3fb5_04f3),
        ("sqrt.rm.f32 %r9, %r0;", &[f(2.0)], 0x3fb5_04f3),
        ("sqrt.rn.ftz.f32 %r9, %r0;", &[f(-1.0)], NAN),
        ("sqrt.approx.f32 %r9, %r0;", &[f(9.0)], f(3.0)),
        ("sqrt.approx.ftz.f32 %r9, %r0;", &[0x8000_0000], 0x8000_0000),
        ("rsqrt.approx.f32 %r9, %r0;", &[f(16.0)], f(0.25)),
        ("rsqrt.approx.ftz.f32 %r9, %r0;", &[1], INF),
        ("ex2.approx.f32 %r9, %r0;", &[f(-3.0)], f(0.125)),
        ("ex2.approx.f32 %r9, %r0;", &[f(-127.0)], 0x0040_0000),
        ("ex2.approx.ftz.f32 %r9, %r0;", &[f(-127.0)], 0),
        ("ex2.approx.ftz.f32 %r9, %r0;", &[NINF], 0),
        ("lg2.approx.f32 %r9, %r0;", &[f(0.125)], f(-3.0)),
        ("lg2.approx.ftz.f32 %r9, %r0;", &[1], NINF),
        ("sin.approx.f32 %r9, %r0;", &[f(0.0)], 0),
        ("sin.approx.ftz.f32 %r9, %r0;", &[INF], NAN),
        ("cos.approx.f32 %r9, %r0;", &[f(0.0)], f(1.0)),
        ("cos.approx.ftz.f32 %r9, %r0;", &[f(0.0)], f(1.0)),
        ("tanh.approx.f32 %r9, %r0;", &[NINF], f(-1.0)),
    ];
    check(ROWS);
}

#[test]
fn arithmetic_of_f64() {
    const ROWS: &[Row] = &[
        ("add.f64 %d9, %d0, %d1;", &[d(1.5), d(2.25)], d(3.75)),
        ("add.rn.f64 %d9, %d0, 0d3FF0000000000000;", &[d(1.5)], d(2.5)),
        ("add.rp.f64 %d9, %d0, %d1;", &[d(1.0), d(1e-300)], 0x3ff0_0000_0000_0001),
        ("sub.f64 %d9, %d0, %d1;", &[d(1.5), d(2.25)], d(-0.75)),
        ("sub.rz.f64 %d9, %d0, %d1;", &[d(1.0), d(1e-300)], 0x3fef_ffff_ffff_ffff),
        ("mul.f64 %d9, %d0, %d1;", &[d(1.5), d(-2.0)], d(-3.0)),
        ("mul.rp.f64 %d9, %d0, %d1;", &[0x3ff0_0000_0000_0001, 0x3ff0_0000_0000_0001], 0x3ff0_0000_0000_0003),
        ("fma.rn.f64 %d9, %d0, %d1, %d2;", &[d(2.0), d(3.0), d(4.0)], d(10.0)),
        ("fma.rm.f64 %d9, %d0, %d1, %d2;", &[d(1.0), d(1.0), d(-1e-300)], 0x3fef_ffff_ffff_ffff),
        ("div.rn.f64 %d9, %d0, %d1;", &[d(1.0), d(4.0)], d(0.25)),
        ("rcp.rn.f64 %d9, %d0;", &[d(4.0)], d(0.25)),
        ("sqrt.rn.f64 %d9, %d0;", &[d(2.25)], d(1.5)),
        ("add.rz.f64 %d9, %d0, %d1;", &[d(1.0), d(1e-300)], d(1.0)),
        ("add.rm.f64 %d9, %d0, %d1;", &[d(1.0), d(-1e-300)], 0x3fef_ffff_ffff_ffff),
        ("sub.rp.f64 %d9, %d0, %d1;", &[d(1.0), d(-1e-300)], 0x3ff0_0000_0000_0001),
        ("sub.rm.f64 %d9, %d0, %d1;", &[d(1.0), d(1e-300)], 0x3fef_ffff_ffff_ffff),
        ("mul.rn.f64 %d9, %d0, %d1;", &[d(1.5), d(2.0)], d(3.0)),
        ("mul.rz.f64 %d9, %d0, %d0;", &[0x3ff0_0000_0000_0001], 0x3ff0_0000_0000_0002),
        ("mul.rm.f64 %d9, %d0, %d0;", &[0x3ff0_0000_0000_0001], 0x3ff0_0000_0000_0002),
        ("fma.rp.f64 %d9, %d0, %d1, %d2;", &[d(1.0), d(1.0), d(1e-300)], 0x3ff0_0000_0000_0001),
        ("fma.rz.f64 %d9, %d0, %d1, %d2;", &[d(1.0), d(1.0), d(-1e-300)], 0x3fef_ffff_ffff_ffff),
        ("mad.rn.f64 %d9, %d0, %d1, %d2;", &[d(2.0), d(3.0), d(4.0)], d(10.0)),
        // 1 / 3 is 0x3fd5_5555_5555_5555 and a third of a unit; sqrt 2 is 0x3ff6_a09e_667f_3bcc and most of one.
        ("div.rz.f64 %d9, %d0, %d1;", &[d(1.0), d(3.0)], 0x3fd5_5555_5555_5555),
        ("div.rp.f64 %d9, %d0, %d1;", &[d(1.0), d(3.0)], 0x3fd5_5555_5555_5556),
        ("div.rm.f64 %d9, %d0, %d1;", &[d(-1.0), d(3.0)], 0xbfd5_5555_5555_5556),
        ("rcp.rp.f64 %d9, %d0;", &[d(3.0)], 0x3fd5_5555_5555_5556),
        ("rcp.rz.f64 %d9, %d0;", &[d(-3.0)], 0xbfd5_5555_5555_5555),
        ("sqrt.rz.f64 %d9, %d0;", &[d(2.0)], 0x3ff6_a09e_667f_3bcc),
        ("sqrt.rm.f64 %d9, %d0;", &[d(2.0)], 0x3ff6_a09e_667f_3bcc),
        ("sqrt.rp.f64 %d9, %d0;", &[d(2.0)], 0x3ff6_a09e_667f_3bcd),
        ("rsqrt.approx.f64 %d9, %d0;", &[d(16.0)], d(0.25)),
        ("neg.f64 %d9, %d0;", &[d(2.0)], d(-2.0)),
        ("abs.f64 %d9, %d0;", &[d(-2.0)], d(2.0)),
        ("copysign.f64 %d9, %d0, %d1;", &[d(-1.0), d(3.0)], d(-3.0)),
    ];
    check(ROWS);
}

#[test]
fn comparisons() {
    const ROWS: &[Row] = &[
        ("setp.eq.f32 %p9, %r0, %r1;", &[0, 0x8000_0000], 1),
        ("setp.ne.f32 %p9, %r0, %r1;", &[NAN, NAN], 0),
        ("setp.neu.f32 %p9, %r0, %r1;", &[NAN, NAN], 1),
        ("setp.lt.f32 %p9, %r0, %r1;", &[f(-1.0), f(1.0)], 1),
        ("setp.ltu.f32 %p9, %r0, %r1;", &[NAN, f(1.0)], 1),
        ("setp.le.f32 %p9, %r0, %r1;", &[f(1.0), f(1.0)], 1),
        ("setp.leu.f32 %p9, %r0, %r1;", &[f(2.0), f(1.0)], 0),
        ("setp.gt.f32 %p9, %r0, %r1;", &[f(2.0), f(1.0)], 1),
        ("setp.gtu.f32 %p9, %r0, %r1;", &[f(2.0), NAN], 1),
        ("setp.ge.f32 %p9, %r0, %r1;", &[NINF, f(1.0)], 0),
        ("setp.geu.f32 %p9, %r0, %r1;", &[f(1.0), f(1.0)], 1),
        ("setp.equ.f32 %p9, %r0, %r1;", &[f(1.0), NAN], 1),
        ("setp.num.f32 %p9, %r0, %r1;", &[f(1.0), INF], 1),
        ("setp.nan.f32 %p9, %r0, %r1;", &[f(1.0), NAN], 1),
        ("setp.eq.ftz.f32 %p9, %r0, 0f00000000;", &[1], 1),
        ("setp.lt.f64 %p9, %d0, %d1;", &[d(1.0), d(2.0)], 1),
        ("setp.eq.s32 %p9, %r0, -1;", &[i(-1)], 1),
        ("setp.ne.b32 %p9, %r0, %r1;", &[1, 2], 1),
        ("setp.lt.s32 %p9, %r0, %r1;", &[i(-1), 0], 1),
        ("setp.ne.s32 %p9, %r0, 0;", &[i(-1)], 1),
        ("setp.eq.b32 %p9, %r0, %r1;", &[5, 5], 1),
        ("setp.eq.s16 %p9, %h0, 5;", &[0x1_0005], 1),
        ("setp.lt.u32 %p9, %r0, %r1;", &[i(-1), 0], 0),
        ("setp.lo.u32 %p9, %r0, %r1;", &[1, 2], 1),
        ("setp.hs.u32 %p9, %r0, %r1;", &[2, 2], 1),
        ("setp.le.s64 %p9, %d0, %d1;", &[i(-5), i(-5)], 1),
        ("setp.eq.s64 %p9, %d0, %d1;", &[i(-5), 5], 0),
        ("setp.lt.u64 %p9, %d0, %d1;", &[5, i(-5)], 1),
        ("setp.ge.u64 %p9, %d0, %d1;", &[5, i(-5)], 0),
        ("setp.gt.u64 %p9, %d0, %d1;", &[i(-5), 5], 1),
        ("setp.ge.s16 %p9, %h0, %h1;", &[0xffff, 0], 0),
        ("setp.ge.u16 %p9, %h0, %h1;", &[0xffff, 0], 1),
        ("setp.eq.b64 %p9, %d0, %d1;", &[7, 7], 1),
        ("setp.lt.and.s32 %p9, %r0, %r1, %p2;", &[1, 2, 0], 0),
        ("setp.lt.or.s32 %p9, %r0, %r1, %p2;", &[3, 2, 1], 1),
        ("setp.lt.xor.s32 %p9, %r0, %r1, !%p2;", &[1, 2, 1], 1),
        ("setp.lt.s32 %p8|%p9, %r0, %r1;", &[1, 2], 0),
        ("setp.gt.f16 %p9, %h0, %h1;", &[0x3c00, 0xbc00], 1),
        ("setp.lt.bf16 %p9, %h0, %h1;", &[0xbf80, 0x3f80], 1),
        ("setp.num.bf16 %p9, %h0, %h1;", &[0x7fc0, 0], 0),
        ("setp.geu.f16 %p9, %h0, %h1;", &[0x7e00, 0], 1),
        ("setp.lt.ftz.f16 %p9, %h0, %h1;", &[1, 2], 0),
        ("setp.eq.f64 %p9, %d0, %d1;", &[0, d(-0.0)], 1),
        ("setp.nan.f64 %p9, %d0, %d1;", &[d(1.0), d(f64::NAN)], 1),
        ("setp.hi.u32 %p9, %r0, %r1;", &[i(-1), 1], 1),
        ("setp.ls.u32 %p9, %r0, %r1;", &[2, 2], 1),
        ("setp.lo.u64 %p9, %d0, %d1;", &[1, i(-1)], 1),
        ("setp.hs.u16 %p9, %h0, %h1;", &[0xffff, 0], 1),
        ("setp.ne.b16 %p9, %h0, %h1;", &[0x1_0005, 0x2_0005], 0),
        ("setp.gt.s64 %p9, %d0, %d1;", &[i(-5), 5], 0),
        ("setp.le.and.f32 %p9, %r0, %r1, !%p2;", &[f(1.0), f(1.0), 0], 1),
        // The second: not less, and.
        ("setp.lt.and.s32 %p8|%p9, %r0, %r1, %p2;", &[3, 2, 1], 1),
        ("set.lt.u32.s32 %r9, %r0, %r1;", &[1, 2], 0xffff_ffff),
        ("set.lt.u32.f32 %r9, %r0, %r1;", &[f(3.0), f(2.0)], 0),
        ("set.eq.f32.u32 %r9, %r0, %r1;", &[2, 2], f(1.0)),
        ("set.gt.f16.f16 %h9, %h0, %h1;", &[0x3c00, 0], 0x3c00),
        ("set.ge.f16x2.f16x2 %r9, %r0, %r1;", &[0x0000_bc00, 0], 0x3c00_0000),
        ("set.lt.u32.bf16 %r9, %h0, %h1;", &[0xbf80, 0], 0xffff_ffff),
        ("set.lt.s32.s32 %r9, %r0, %r1;", &[i(-1), 0], 0xffff_ffff),
        ("set.gt.u32.f64 %r9, %d0, %d1;", &[d(2.0), d(1.0)], 0xffff_ffff),
        ("set.ne.f32.b64 %r9, %d0, %d1;", &[1 << 40, 0], f(1.0)),
        ("set.lt.ftz.u32.f32 %r9, %r0, %r1;", &[1, 2], 0),
        ("set.eq.bf16.bf16 %h9, %h0, %h1;", &[0x3f80, 0x3f80], 0x3f80),
        ("set.ne.bf16x2.bf16x2 %r9, %r0, %r1;", &[0x3f80_0000, 0x3f80_3f80], 0x0000_3f80),
        ("set.equ.f16x2.f16x2 %r9, %r0, %r1;", &[0x7e00_3c00, 0x3c00_4000], 0x3c00_0000),
        ("testp.finite.f32 %p9, %r0;", &[INF], 0),
        ("testp.infinite.f64 %p9, %d0;", &[d(f64::INFINITY)], 1),
        ("testp.number.f32 %p9, %r0;", &[NAN], 0),
        ("testp.notanumber.f32 %p9, %r0;", &[NAN], 1),
        ("testp.normal.f32 %p9, %r0;", &[1], 0),
        ("testp.subnormal.f32 %p9, %r0;", &[1], 1),
        ("testp.infinite.f32 %p9, %r0;", &[NINF], 1),
        ("testp.finite.f64 %p9, %d0;", &[d(1.0)], 1),
        ("testp.number.f64 %p9, %d0;", &[d(f64::INFINITY)], 1),
        ("testp.notanumber.f64 %p9, %d0;", &[d(f64::NAN)], 1),
        ("testp.normal.f64 %p9, %d0;", &[d(1.0)], 1),
        ("testp.subnormal.f64 %p9, %d0;", &[1], 1),
    ];
    check(ROWS);
}

#[test]
fn selection() {
    const ROWS: &[Row] = &[
        ("selp.b32 %r9, %r0, %r1, %p2;", &[10, 20, 1], 10),
        ("selp.f32 %r9, %r0, 0f40000000, %p2;", &[f(1.0), 0, 0], f(2.0)),
        ("selp.s32 %r9, -1, 5, %p2;", &[0, 0, 1], 0xffff_ffff),
        ("selp.b16 %h9, %h0, %h1, %p2;", &[10, 20, 0], 20),
        ("selp.u16 %h9, %h0, %h1, %p2;", &[10, 20, 1], 10),
        ("selp.b64 %d9, %d0, %d1, %p2;", &[10, i(-1), 0], i(-1)),
        ("selp.f64 %d9, %d0, %d1, %p2;", &[d(1.0), d(2.0), 1], d(1.0)),
        ("slct.s32.s32 %r9, %r0, %r1, %r2;", &[10, 20, 0], 10),
        ("slct.u32.s32 %r9, %r0, %r1, %r2;", &[10, 20, i(-1)], 20),
        ("slct.b64.s32 %d9, %d0, %d1, %r2;", &[10, 20, i(-1)], 20),
        ("slct.f32.f32 %r9, %r0, %r1, %r2;", &[f(1.0), f(2.0), f(-1.0)], f(2.0)),
        ("slct.f32.f32 %r9, %r0, %r1, %r2;", &[f(1.0), f(2.0), NAN], f(2.0)),
        ("slct.f64.f32 %d9, %d0, %d1, %r2;", &[d(1.0), d(2.0), f(-0.0)], d(1.0)),
        ("slct.b16.s32 %h9, %h0, %h1, %r2;", &[10, 20, i(-1)], 20),
        ("slct.ftz.f32.f32 %r9, %r0, %r1, %r2;", &[f(1.0), f(2.0), 0x8000_0001], f(1.0)),
    ];
    check(ROWS);
}
