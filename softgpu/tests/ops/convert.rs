//! `cvt` (PTX ISA 9.7.9.21), `cvta`.

use super::harness::{INF, NAN, NINF, Row, check, check_on, d, f, i};

#[test]
fn between_integers() {
    const ROWS: &[Row] = &[
        ("cvt.u64.u32 %d9, %r0;", &[0xffff_ffff], 0xffff_ffff),
        ("cvt.s64.s32 %d9, %r0;", &[0xffff_ffff], i(-1)),
        ("cvt.u64.u16 %d9, %h0;", &[0xffff], 0xffff),
        ("cvt.u32.u64 %r9, %d0;", &[0x5_0000_0007], 7),
        ("cvt.u32.u16 %r9, %h0;", &[0xffff], 0xffff),
        ("cvt.s32.s16 %r9, %h0;", &[0xffff], 0xffff_ffff),
        ("cvt.u16.u32 %h9, %r0;", &[0x1_2345], 0x2345),
        ("cvt.s32.s8 %r9, %r0;", &[0x1280], 0xffff_ff80),
        ("cvt.u32.u8 %r9, %r0;", &[0x1280], 0x80),
        ("cvt.s16.s8 %h9, %r0;", &[0x80], 0xff80),
        ("cvt.s16.s8 %h9, %h0;", &[0x80], 0xff80),
        ("cvt.u8.u32 %r9, %r0;", &[0x1280], 0x80),
        ("cvt.s8.s32 %r9, %r0;", &[0x1280], 0xffff_ff80),
        ("cvt.sat.s8.s32 %r9, %r0;", &[200], 127),
        ("cvt.sat.u8.s32 %r9, %r0;", &[i(-1)], 0),
        ("cvt.sat.s32.s64 %r9, %d0;", &[1 << 40], 0x7fff_ffff),
        ("cvt.sat.u16.u32 %h9, %r0;", &[0x1_0000], 0xffff),
        ("cvt.sat.u32.s64 %r9, %d0;", &[i(-5)], 0),
        ("cvt.sat.s16.u16 %h9, %h0;", &[0xffff], 0x7fff),
        ("cvt.sat.u64.s64 %d9, %d0;", &[i(-1)], 0),
        ("cvt.sat.s64.u64 %d9, %d0;", &[i(-1)], 0x7fff_ffff_ffff_ffff),
        ("cvt.u64.u8 %d9, %r0;", &[0x1ff], 0xff),
        ("cvt.s64.s8 %d9, %h0;", &[0x80], i(-128)),
        ("cvt.s64.s16 %d9, %h0;", &[0x8000], i(-0x8000)),
        // A wider register is filled with the sign, or with zeros.
        ("cvt.s16.s32 %r9, %r0;", &[0x1_8000], 0xffff_8000),
        ("cvt.u16.u32 %r9, %r0;", &[0x1_8000], 0x8000),
        ("cvt.s8.s32 %d9, %r0;", &[0x80], i(-128)),
        ("cvt.u8.u32 %d9, %r0;", &[0x1ff], 0xff),
        ("cvt.s32.s64 %d9, %d0;", &[0x5_ffff_ffff], i(-1)),
        ("cvta.to.global.u64 %d9, %d0;", &[0x1234], 0x1234),
        ("cvta.global.u64 %d9, %d0;", &[0x1234], 0x1234),
    ];
    check(ROWS);
}

#[test]
fn between_integers_and_floats() {
    const ROWS: &[Row] = &[
        ("cvt.rn.f32.s32 %r9, %r0;", &[i(-1)], f(-1.0)),
        ("cvt.rn.f32.u32 %r9, %r0;", &[16_777_217], f(16_777_216.0)),
        ("cvt.rz.f32.u32 %r9, %r0;", &[0xffff_ffff], 0x4f7f_ffff),
        ("cvt.rp.f32.u32 %r9, %r0;", &[16_777_217], f(16_777_218.0)),
        ("cvt.rm.f32.s32 %r9, %r0;", &[i(-16_777_217)], f(-16_777_218.0)),
        ("cvt.rn.f32.s64 %r9, %d0;", &[i(-5)], f(-5.0)),
        ("cvt.rn.f32.u64 %r9, %d0;", &[u64::MAX], 0x5f80_0000),
        ("cvt.rn.f32.u16 %r9, %h0;", &[0xffff], f(65535.0)),
        ("cvt.rn.f32.s8 %r9, %r0;", &[0x80], f(-128.0)),
        ("cvt.rn.f32.u8 %r9, %h0;", &[0xff], f(255.0)),
        ("cvt.rn.f64.s32 %d9, %r0;", &[i(-3)], d(-3.0)),
        ("cvt.rn.f64.u64 %d9, %d0;", &[(1 << 53) + 1], d(9_007_199_254_740_992.0)),
        ("cvt.rn.f16.s32 %h9, %r0;", &[2049], 0x6800),
        ("cvt.rn.f16.u16 %h9, %h0;", &[3], 0x4200),
        ("cvt.rn.bf16.s32 %h9, %r0;", &[3], 0x4040),
        ("cvt.rz.f64.s64 %d9, %d0;", &[(1 << 53) + 1], d(9_007_199_254_740_992.0)),
        ("cvt.rp.f64.u64 %d9, %d0;", &[(1 << 53) + 1], d(9_007_199_254_740_994.0)),
        ("cvt.rm.f64.s64 %d9, %d0;", &[i(-(1 << 53) - 1)], d(-9_007_199_254_740_994.0)),
        ("cvt.rz.f16.u32 %h9, %r0;", &[2049], 0x6800),
        ("cvt.rp.f16.s32 %h9, %r0;", &[2049], 0x6801),
        ("cvt.rn.f16.u64 %h9, %d0;", &[65504], 0x7bff),
        ("cvt.rn.f16.u32 %h9, %r0;", &[65520], 0x7c00), // a tie, to infinity
        ("cvt.rn.bf16.u64 %h9, %d0;", &[257], 0x4380),  // a tie, to 256
        ("cvt.rz.bf16.s32 %h9, %r0;", &[259], 0x4381),
        ("cvt.rni.s32.f32 %r9, %r0;", &[f(2.5)], 2),
        ("cvt.rzi.s32.f32 %r9, %r0;", &[f(-2.5)], i(-2) & 0xffff_ffff),
        ("cvt.rmi.s32.f32 %r9, %r0;", &[f(-2.5)], i(-3) & 0xffff_ffff),
        ("cvt.rpi.s32.f32 %r9, %r0;", &[f(2.25)], 3),
        ("cvt.rpi.ftz.s32.f32 %r9, %r0;", &[1], 0),
        ("cvt.rpi.s32.f32 %r9, %r0;", &[1], 1),
        ("cvt.rzi.s32.f32 %r9, %r0;", &[f(3e9)], 0x7fff_ffff),
        ("cvt.rzi.s32.f32 %r9, %r0;", &[NAN], 0),
        ("cvt.rzi.u32.f32 %r9, %r0;", &[f(-1.0)], 0),
        ("cvt.rzi.u32.f32 %r9, %r0;", &[INF], 0xffff_ffff),
        ("cvt.rni.s8.f32 %r9, %r0;", &[f(-200.0)], 0xffff_ff80),
        ("cvt.rni.sat.s8.f32 %r9, %r0;", &[f(200.0)], 127),
        ("cvt.rzi.u16.f32 %h9, %r0;", &[f(7.9)], 7),
        ("cvt.rzi.s64.f32 %d9, %r0;", &[f(-1.5)], i(-1)),
        ("cvt.rzi.u64.f64 %d9, %d0;", &[d(1e10)], 10_000_000_000),
        ("cvt.rni.s32.f64 %r9, %d0;", &[d(3.5)], 4),
        ("cvt.rzi.s32.f16 %r9, %h0;", &[0xc100], i(-2) & 0xffff_ffff), // -2.5
        ("cvt.rni.u16.f16 %h9, %h0;", &[0x4100], 2),
        ("cvt.rzi.s64.f16 %d9, %h0;", &[0xc100], i(-2)),
        ("cvt.rzi.s32.bf16 %r9, %h0;", &[0xc020], i(-2) & 0xffff_ffff), // -2.5
        ("cvt.rpi.s64.f64 %d9, %d0;", &[d(2.25)], 3),
        ("cvt.rmi.u64.f64 %d9, %d0;", &[d(2.75)], 2),
        ("cvt.rzi.u8.f32 %r9, %r0;", &[f(300.0)], 255),
    ];
    check(ROWS);
}

#[test]
fn between_floats() {
    const ROWS: &[Row] = &[
        ("cvt.f32.f16 %r9, %h0;", &[0x3e00], f(1.5)),
        ("cvt.f32.f16 %r9, %h0;", &[0x0001], 0x3380_0000),
        ("cvt.ftz.f32.f16 %r9, %h0;", &[0x0001], 0x3380_0000),
        ("cvt.f32.bf16 %r9, %h0;", &[0x3fc0], f(1.5)),
        ("cvt.f64.f32 %d9, %r0;", &[f(1.5)], d(1.5)),
        ("cvt.ftz.f64.f32 %d9, %r0;", &[0x8000_0001], d(-0.0)),
        ("cvt.f64.f16 %d9, %h0;", &[0x3e00], d(1.5)),
        ("cvt.rn.f32.f64 %r9, %d0;", &[0x3ff0_0000_1000_0000], f(1.0)),
        ("cvt.rp.f32.f64 %r9, %d0;", &[0x3ff0_0000_1000_0000], 0x3f80_0001),
        ("cvt.rn.ftz.f32.f64 %r9, %d0;", &[d(1e-40)], 0),
        ("cvt.rn.f16.f32 %h9, %r0;", &[0x3f80_1000], 0x3c00),
        ("cvt.rn.f16.f32 %h9, %r0;", &[0x3f80_3000], 0x3c02),
        ("cvt.rz.f16.f32 %h9, %r0;", &[f(1e9)], 0x7bff),
        ("cvt.rn.f16.f32 %h9, %r0;", &[f(65520.0)], 0x7c00),
        ("cvt.rn.sat.f16.f32 %h9, %r0;", &[f(2.0)], 0x3c00),
        ("cvt.rn.relu.f16.f32 %h9, %r0;", &[f(-2.0)], 0),
        ("cvt.rn.f16.f64 %h9, %d0;", &[d(1.5)], 0x3e00),
        ("cvt.rn.bf16.f32 %h9, %r0;", &[0x3f80_8000], 0x3f80),
        ("cvt.rn.bf16.f32 %h9, %r0;", &[0x3f81_8000], 0x3f82),
        ("cvt.rz.bf16.f32 %h9, %r0;", &[0x3f81_ffff], 0x3f81),
        ("cvt.rn.relu.bf16.f32 %h9, %r0;", &[f(-2.0)], 0),
        ("cvt.rn.bf16.f32 %h9, %r0;", &[0xffc0_0001], 0x7fff),
        ("cvt.rn.f16x2.f32 %r9, %r0, %r1;", &[f(1.0), f(-2.0)], 0x3c00_c000),
        ("cvt.rz.f16x2.f32 %r9, %r0, %r1;", &[f(1e9), f(-2.0)], 0x7bff_c000),
        ("cvt.rn.relu.f16x2.f32 %r9, %r0, %r1;", &[f(1.0), f(-2.0)], 0x3c00_0000),
        ("cvt.rn.bf16x2.f32 %r9, %r0, %r1;", &[f(1.0), f(-2.0)], 0x3f80_c000),
        ("cvt.rz.bf16x2.f32 %r9, %r0, %r1;", &[0x3f81_ffff, f(-2.0)], 0x3f81_c000),
        ("cvt.rn.relu.bf16x2.f32 %r9, %r0, %r1;", &[f(-1.0), f(2.0)], 0x0000_4000),
        ("cvt.rm.f16.f32 %h9, %r0;", &[0x3f80_1000], 0x3c00),
        ("cvt.rp.f16.f32 %h9, %r0;", &[0x3f80_1000], 0x3c01),
        ("cvt.rz.f32.f64 %r9, %d0;", &[0x3ff0_0000_1fff_ffff], f(1.0)),
        ("cvt.rn.sat.f32.f64 %r9, %d0;", &[d(3.0)], f(1.0)),
        ("cvt.rn.bf16.f16 %h9, %h0;", &[0x3c01], 0x3f80),
        ("cvt.rn.f16.bf16 %h9, %h0;", &[0x3fc0], 0x3e00),
        ("cvt.f64.bf16 %d9, %h0;", &[0x3fc0], d(1.5)),
        ("cvt.rz.bf16.f64 %h9, %d0;", &[d(1.999)], 0x3fff),
        ("cvt.rna.tf32.f32 %r9, %r0;", &[0x3f80_1000], 0x3f80_2000),
        ("cvt.rna.tf32.f32 %r9, %r0;", &[0xbf80_1000], 0xbf80_2000),
        ("cvt.rn.tf32.f32 %r9, %r0;", &[0x3f80_1000], 0x3f80_0000),
        ("cvt.rn.tf32.f32 %r9, %r0;", &[0x3f80_3000], 0x3f80_4000),
        ("cvt.rz.tf32.f32 %r9, %r0;", &[0x3f80_3fff], 0x3f80_2000),
        ("cvt.rn.relu.tf32.f32 %r9, %r0;", &[f(-2.0)], 0),
        ("cvt.rni.f32.f32 %r9, %r0;", &[f(2.5)], f(2.0)),
        ("cvt.rzi.f32.f32 %r9, %r0;", &[f(-2.5)], f(-2.0)),
        ("cvt.rmi.f32.f32 %r9, %r0;", &[f(-2.5)], f(-3.0)),
        ("cvt.rpi.ftz.f32.f32 %r9, %r0;", &[f(2.25)], f(3.0)),
        ("cvt.sat.f32.f32 %r9, %r0;", &[f(7.0)], f(1.0)),
        ("cvt.ftz.f32.f32 %r9, %r0;", &[1], 0),
        ("cvt.rmi.f64.f64 %d9, %d0;", &[d(-0.5)], d(-1.0)),
        ("cvt.rni.f16.f16 %h9, %h0;", &[0x4100], 0x4000),
        ("cvt.rmi.f16.f16 %h9, %h0;", &[0xc100], 0xc200),
        ("cvt.rni.bf16.bf16 %h9, %h0;", &[0x4020], 0x4000),
        ("cvt.rzi.f64.f64 %d9, %d0;", &[d(-2.75)], d(-2.0)),
        ("cvt.rpi.f64.f64 %d9, %d0;", &[d(2.25)], d(3.0)),
        ("cvt.sat.f16.f16 %h9, %h0;", &[0x4000], 0x3c00),
        ("cvt.sat.f64.f64 %d9, %d0;", &[d(-1.0)], 0),
    ];
    check(ROWS);
}

#[test]
fn what_is_too_large_becomes_the_largest() {
    const ROWS: &[Row] = &[
        ("cvt.rn.satfinite.f16.f32 %h9, %r0;", &[f(1e9)], 0x7bff),
        ("cvt.rn.satfinite.f16.f32 %h9, %r0;", &[NINF], 0xfbff),
        ("cvt.rn.satfinite.f16.f32 %h9, %r0;", &[NAN], 0x7fff),
        ("cvt.rz.satfinite.f16.f32 %h9, %r0;", &[f(-2.0)], 0xc000),
        ("cvt.rn.satfinite.bf16.f32 %h9, %r0;", &[0x7f7f_ffff], 0x7f7f),
        ("cvt.rn.relu.satfinite.bf16.f32 %h9, %r0;", &[NINF], 0),
        ("cvt.rn.satfinite.f16x2.f32 %r9, %r0, %r1;", &[f(1e9), f(-1e9)], 0x7bff_fbff),
        ("cvt.rz.relu.satfinite.f16x2.f32 %r9, %r0, %r1;", &[INF, f(-1.0)], 0x7bff_0000),
        ("cvt.rn.satfinite.bf16x2.f32 %r9, %r0, %r1;", &[INF, NINF], 0x7f7f_ff7f),
        ("cvt.rna.satfinite.tf32.f32 %r9, %r0;", &[0x7f7f_ffff], 0x7f7f_e000),
        ("cvt.rna.satfinite.tf32.f32 %r9, %r0;", &[INF], 0x7f7f_e000),
    ];
    check(ROWS);
    const NEWER: &[Row] = &[
        ("cvt.rn.satfinite.tf32.f32 %r9, %r0;", &[NINF], 0xff7f_e000),
        ("cvt.rz.satfinite.tf32.f32 %r9, %r0;", &[0x3f80_3fff], 0x3f80_2000),
    ];
    check_on(100, NEWER);
}
