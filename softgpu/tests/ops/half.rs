//! f16, bf16 and their pairs (PTX ISA 9.7.4). f16: 1 = 3c00, 2 = 4000, 1.5 = 3e00, -1 = bc00. bf16: 1 = 3f80, 2 = 4000, 1.5 = 3fc0.

use super::harness::{Row, check};

#[test]
fn arithmetic_of_f16() {
    const ROWS: &[Row] = &[
        ("add.f16 %h9, %h0, %h1;", &[0x3c00, 0x4000], 0x4200),
        ("add.rn.f16 %h9, %h0, %h1;", &[0x6800, 0x3c00], 0x6800), // 2048 + 1: a tie, to even
        ("add.ftz.f16 %h9, %h0, %h1;", &[0x0001, 0x0001], 0),
        ("add.sat.f16 %h9, %h0, %h1;", &[0x3c00, 0x3c00], 0x3c00),
        ("sub.f16 %h9, %h0, %h1;", &[0x3c00, 0x4000], 0xbc00),
        ("sub.rn.ftz.sat.f16 %h9, %h0, %h1;", &[0x3c00, 0x4000], 0),
        ("mul.f16 %h9, %h0, %h1;", &[0x3e00, 0x3e00], 0x4080), // 2.25
        ("mul.rn.f16 %h9, %h0, %h1;", &[0x7bff, 0x4000], 0x7c00),
        ("fma.rn.f16 %h9, %h0, %h1, %h2;", &[0x3c01, 0x3c01, 0xbc02], 0x0010), // 2^-20
        ("fma.rn.ftz.f16 %h9, %h0, %h1, %h2;", &[0x3c01, 0x3c01, 0xbc02], 0),
        ("fma.rn.relu.f16 %h9, %h0, %h1, %h2;", &[0x3c00, 0xbc00, 0], 0),
        ("fma.rn.sat.f16 %h9, %h0, %h1, %h2;", &[0x3c00, 0x3c00, 0x3c00], 0x3c00),
        ("neg.f16 %h9, %h0;", &[0x3c00], 0xbc00),
        ("abs.f16 %h9, %h0;", &[0xbc00], 0x3c00),
        ("min.f16 %h9, %h0, %h1;", &[0x3c00, 0xbc00], 0xbc00),
        ("max.f16 %h9, %h0, %h1;", &[0x3c00, 0x7e00], 0x3c00),
        ("max.NaN.f16 %h9, %h0, %h1;", &[0x3c00, 0x7e00], 0x7fff),
        ("min.ftz.f16 %h9, %h0, %h1;", &[0x0001, 0x3c00], 0),
        ("min.xorsign.abs.f16 %h9, %h0, %h1;", &[0xc000, 0x3c00], 0xbc00),
        ("add.ftz.sat.f16 %h9, %h0, %h1;", &[0x3c00, 0x8001], 0x3c00),
        ("sub.sat.f16 %h9, %h0, %h1;", &[0x3c00, 0x4000], 0),
        ("mul.sat.f16 %h9, %h0, %h1;", &[0x4000, 0x4000], 0x3c00),
        ("mul.ftz.f16 %h9, %h0, %h1;", &[0x0001, 0x4000], 0),
        ("fma.rn.ftz.sat.f16 %h9, %h0, %h1, %h2;", &[0x3c00, 0x3c00, 0x0001], 0x3c00),
        ("fma.rn.ftz.relu.f16 %h9, %h0, %h1, %h2;", &[0xbc00, 0x3c00, 0], 0),
        ("neg.ftz.f16 %h9, %h0;", &[0x0001], 0x8000),
        ("abs.ftz.f16 %h9, %h0;", &[0x8001], 0),
        ("min.NaN.f16 %h9, %h0, %h1;", &[0x7e00, 0x3c00], 0x7fff),
        ("max.ftz.f16 %h9, %h0, %h1;", &[0x8001, 0x8000], 0x8000),
        ("max.NaN.xorsign.abs.f16 %h9, %h0, %h1;", &[0xc000, 0x3c00], 0xc000),
        ("ex2.approx.f16 %h9, %h0;", &[0x4200], 0x4800),
        ("tanh.approx.f16 %h9, %h0;", &[0x7c00], 0x3c00),
    ];
    check(ROWS);
}

#[test]
fn arithmetic_of_f16x2() {
    const ROWS: &[Row] = &[
        ("add.f16x2 %r9, %r0, %r1;", &[0x3c00_4000, 0x3c00_3c00], 0x4000_4200),
        ("add.rn.f16x2 %r9, %r0, %r1;", &[0x6800_0000, 0x3c00_0000], 0x6800_0000),
        ("sub.f16x2 %r9, %r0, %r1;", &[0x3c00_4000, 0x3c00_3c00], 0x0000_3c00),
        ("mul.f16x2 %r9, %r0, %r1;", &[0x3e00_4000, 0x3e00_bc00], 0x4080_c000),
        ("mul.ftz.f16x2 %r9, %r0, %r1;", &[0x0001_4000, 0x3c00_3c00], 0x0000_4000),
        ("fma.rn.f16x2 %r9, %r0, %r1, %r2;", &[0x3c01_3c00, 0x3c01_4000, 0xbc02_3c00], 0x0010_4200),
        ("fma.rn.relu.f16x2 %r9, %r0, %r1, %r2;", &[0x3c00_3c00, 0xbc00_3c00, 0], 0x0000_3c00),
        ("neg.f16x2 %r9, %r0;", &[0x3c00_bc00], 0xbc00_3c00),
        ("abs.f16x2 %r9, %r0;", &[0xbc00_bc00], 0x3c00_3c00),
        ("min.f16x2 %r9, %r0, %r1;", &[0x3c00_4000, 0x4000_3c00], 0x3c00_3c00),
        ("max.f16x2 %r9, %r0, %r1;", &[0x3c00_4000, 0x4000_3c00], 0x4000_4000),
        ("max.NaN.f16x2 %r9, %r0, %r1;", &[0x7e00_4000, 0x4000_3c00], 0x7fff_4000),
        ("add.ftz.f16x2 %r9, %r0, %r1;", &[0x0001_3c00, 0x0001_3c00], 0x0000_4000),
        ("add.sat.f16x2 %r9, %r0, %r1;", &[0x3c00_bc00, 0x3c00_0000], 0x3c00_0000),
        ("sub.rn.sat.f16x2 %r9, %r0, %r1;", &[0x4000_3c00, 0x3c00_4000], 0x3c00_0000),
        ("mul.sat.f16x2 %r9, %r0, %r1;", &[0x4000_3800, 0x4000_3c00], 0x3c00_3800),
        ("fma.rn.sat.f16x2 %r9, %r0, %r1, %r2;", &[0x3c00_bc00, 0x3c00_3c00, 0x3c00_0000], 0x3c00_0000),
        ("fma.rn.ftz.f16x2 %r9, %r0, %r1, %r2;", &[0x3c01_3c00, 0x3c01_4000, 0xbc02_3c00], 0x0000_4200),
        ("neg.ftz.f16x2 %r9, %r0;", &[0x0001_3c00], 0x8000_bc00),
        ("abs.ftz.f16x2 %r9, %r0;", &[0x8001_bc00], 0x0000_3c00),
        ("min.NaN.f16x2 %r9, %r0, %r1;", &[0x7e00_4000, 0x4000_3c00], 0x7fff_3c00),
        ("min.xorsign.abs.f16x2 %r9, %r0, %r1;", &[0xc000_c000, 0x3c00_bc00], 0xbc00_3c00),
        ("ex2.approx.f16x2 %r9, %r0;", &[0x0000_3c00], 0x3c00_4000),
        ("tanh.approx.f16x2 %r9, %r0;", &[0x0000_fc00], 0x0000_bc00),
    ];
    check(ROWS);
}

#[test]
fn arithmetic_of_bf16() {
    const ROWS: &[Row] = &[
        ("add.bf16 %h9, %h0, %h1;", &[0x3f80, 0x4000], 0x4040),
        ("add.rn.bf16 %h9, %h0, %h1;", &[0x4380, 0x3f80], 0x4380), // 256 + 1: a tie
        ("sub.bf16 %h9, %h0, %h1;", &[0x3f80, 0x4000], 0xbf80),
        ("mul.bf16 %h9, %h0, %h1;", &[0x3fc0, 0x3fc0], 0x4010),
        ("fma.rn.bf16 %h9, %h0, %h1, %h2;", &[0x3f81, 0x3f81, 0xbf82], 0x3880), // 2^-14
        ("fma.rn.relu.bf16 %h9, %h0, %h1, %h2;", &[0x3f80, 0xbf80, 0], 0),
        ("neg.bf16 %h9, %h0;", &[0x3f80], 0xbf80),
        ("abs.bf16 %h9, %h0;", &[0xbf80], 0x3f80),
        ("min.bf16 %h9, %h0, %h1;", &[0x3f80, 0xbf80], 0xbf80),
        ("max.NaN.bf16 %h9, %h0, %h1;", &[0x3f80, 0x7fc0], 0x7fff),
        ("max.xorsign.abs.bf16 %h9, %h0, %h1;", &[0xc000, 0x3f80], 0xc000),
        ("max.bf16 %h9, %h0, %h1;", &[0x3f80, 0xbf80], 0x3f80),
        ("min.NaN.bf16 %h9, %h0, %h1;", &[0x7fc0, 0x3f80], 0x7fff),
        ("min.xorsign.abs.bf16 %h9, %h0, %h1;", &[0xc000, 0x3f80], 0xbf80),
        ("ex2.approx.ftz.bf16 %h9, %h0;", &[0x4040], 0x4100),
        ("tanh.approx.bf16 %h9, %h0;", &[0x7f80], 0x3f80),
        ("add.bf16x2 %r9, %r0, %r1;", &[0x3f80_4000, 0x3f80_bf80], 0x4000_3f80),
        ("add.rn.bf16x2 %r9, %r0, %r1;", &[0x4380_0000, 0x3f80_0000], 0x4380_0000),
        ("sub.bf16x2 %r9, %r0, %r1;", &[0x3f80_4000, 0x3f80_3f80], 0x0000_3f80),
        ("mul.bf16x2 %r9, %r0, %r1;", &[0x3fc0_4000, 0x3fc0_bf80], 0x4010_c000),
        ("fma.rn.bf16x2 %r9, %r0, %r1, %r2;", &[0x3f81_3f80, 0x3f81_4000, 0xbf82_3f80], 0x3880_4040),
        ("fma.rn.relu.bf16x2 %r9, %r0, %r1, %r2;", &[0x3f80_3f80, 0xbf80_3f80, 0], 0x0000_3f80),
        ("neg.bf16x2 %r9, %r0;", &[0x3f80_bf80], 0xbf80_3f80),
        ("abs.bf16x2 %r9, %r0;", &[0xbf80_bf80], 0x3f80_3f80),
        ("min.bf16x2 %r9, %r0, %r1;", &[0x3f80_4000, 0x4000_3f80], 0x3f80_3f80),
        ("max.NaN.bf16x2 %r9, %r0, %r1;", &[0x7fc0_4000, 0x4000_3f80], 0x7fff_4000),
        ("max.bf16x2 %r9, %r0, %r1;", &[0x3f80_4000, 0x4000_3f80], 0x4000_4000),
        ("min.NaN.bf16x2 %r9, %r0, %r1;", &[0x7fc0_4000, 0x4000_3f80], 0x7fff_3f80),
        ("max.xorsign.abs.bf16x2 %r9, %r0, %r1;", &[0xc000_3f80, 0x3f80_bf80], 0xc000_bf80),
        ("ex2.approx.ftz.bf16x2 %r9, %r0;", &[0x0000_3f80], 0x3f80_4000),
        ("tanh.approx.bf16x2 %r9, %r0;", &[0x0000_ff80], 0x0000_bf80),
    ];
    check(ROWS);
}
