//! Fragments by the ISA's own index formulas, products by three loops.

use super::Mma;
use crate::num::{BF16, F16, Round, TF32, Ty, convert, round_f64};

/// (row, column) of element i of lane `lane` in A, as PTX ISA 9.7.14.5 writes them for each shape.
fn a_place(m: usize, k: usize, per: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match (m, k, per) {
        (8, 16, 4) => (group, thread * 4 + i),
        // m16n8k8 .f16
        (16, 8, 2) => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
        // m16n8k16 .f16
        (16, 16, 2) => {
            let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
            (row, thread * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
        }
        // m16n8k4, m16n8k8 .tf32
        (16, 4 | 8, 1) => {
            (if i & 1 == 0 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 })
        }
        // m16n8k16 .s8
        (16, 16, 4) => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
        // m16n8k32 .s8
        (16, 32, 4) => {
            let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
            (row, thread * 4 + (i & 3) + if i < 8 { 0 } else { 16 })
        }
        _ => unreachable!(),
    }
}

fn b_place(k: usize, per: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let row = match (k, per) {
        (8, 2) => thread * 2 + i,
        (16, 2) => thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 },
        (4 | 8, 1) => thread + 4 * i,
        (16, 4) => thread * 4 + i,
        (32, 4) => thread * 4 + (i & 3) + if i < 4 { 0 } else { 16 },
        _ => unreachable!(),
    };
    (row, group)
}

/// A small integer, the same for any type: k-sums stay exact in every format.
fn element(seed: usize, i: usize, j: usize, signed: bool) -> i32 {
    let x = ((i * 7 + j * 13 + i * j * 3 + seed) % 7) as i32;
    if signed { x - 3 } else { x }
}

fn encode(ty: Ty, x: i32) -> u32 {
    match ty {
        Ty::F16 => round_f64(x.into(), F16, Round::Rn),
        Ty::Bf16 => round_f64(x.into(), BF16, Round::Rn),
        // Rubbish in the bits that hardware ignores.
        Ty::Tf32 => round_f64(x.into(), TF32, Round::Rn) << 13 | 0x1abc,
        Ty::F32 => (x as f32).to_bits(),
        Ty::S32 => x as u32,
        _ => x as u32 & 0xff,
    }
}

fn pack(words: &mut [[u32; 32]], lane: usize, i: usize, bits: u32, value: u32) {
    let per = (32 / bits) as usize;
    words[i / per][lane] |= value << (bits * (i % per) as u32);
}

fn check(m: usize, k: usize, a_ty: Ty, b_ty: Ty, d_ty: Ty) {
    let form = Mma::new(m as u32, 8, k as u32, d_ty, a_ty, b_ty, d_ty, false).unwrap();
    let (bits, per) = (a_ty.bits(), 32 / a_ty.bits() as usize);
    let (mut a, mut b) = (vec![[0; 32]; form.a_registers()], vec![[0; 32]; form.b_registers()]);
    let (mut c, mut expect) = (vec![[0; 32]; form.c_registers()], vec![[0; 32]; form.c_registers()]);
    let left = |row, col| element(1, row, col, a_ty != Ty::U8);
    let right = |row, col| element(2, row, col, b_ty != Ty::U8);
    for lane in 0..32 {
        for i in 0..m * k / 32 {
            let (row, col) = a_place(m, k, per, lane, i);
            pack(&mut a, lane, i, bits, encode(a_ty, left(row, col)));
        }
        for i in 0..k * 8 / 32 {
            let (row, col) = b_place(k, per, lane, i);
            pack(&mut b, lane, i, bits, encode(b_ty, right(row, col)));
        }
        for i in 0..m * 8 / 32 {
            let (row, col) = ((lane >> 2) + if i < 2 { 0 } else { 8 }, (lane % 4) * 2 + (i & 1));
            let start = element(3, row, col, true);
            let sum = start + (0..k).map(|at| left(row, at) * right(at, col)).sum::<i32>();
            pack(&mut c, lane, i, d_ty.bits(), encode(d_ty, start));
            pack(&mut expect, lane, i, d_ty.bits(), encode(d_ty, sum));
        }
    }
    let mut d = vec![[0xdead_beef; 32]; form.c_registers()];
    let refs = |words: &'static [[u32; 32]]| words.iter().collect::<Vec<_>>();
    let leak = |words: Vec<[u32; 32]>| refs(Box::leak(words.into_boxed_slice()));
    form.run(&mut d, &leak(a), &leak(b), &leak(c));
    assert_eq!(d, expect, "{form:?}");
}

#[test]
fn every_form_is_the_product_of_the_isa_fragments() {
    for k in [8, 16] {
        check(16, k, Ty::F16, Ty::F16, Ty::F32);
        check(16, k, Ty::F16, Ty::F16, Ty::F16);
        check(16, k, Ty::Bf16, Ty::Bf16, Ty::F32);
        check(16, k / 2, Ty::Tf32, Ty::Tf32, Ty::F32);
    }
    for a in [Ty::S8, Ty::U8] {
        for b in [Ty::S8, Ty::U8] {
            check(16, 32, a, b, Ty::S32);
            check(16, 16, a, b, Ty::S32);
            check(8, 16, a, b, Ty::S32);
        }
    }
    assert!(Mma::new(16, 8, 16, Ty::F16, Ty::Bf16, Ty::Bf16, Ty::F16, false).is_none());
    assert!(Mma::new(8, 8, 4, Ty::F32, Ty::F16, Ty::F16, Ty::F32, false).is_none());
    assert!(Mma::new(16, 8, 16, Ty::F32, Ty::F16, Ty::F16, Ty::F32, true).is_none());
}

#[test]
fn integer_overflow_wraps_or_clamps() {
    let (a, b, c) = ([0x7f7f_7f7f; 32], [0x7f7f_7f7f; 32], [i32::MAX as u32; 32]);
    for (satfinite, expect) in [(true, i32::MAX), (false, i32::MAX.wrapping_add(16 * 127 * 127))] {
        let form = Mma::new(8, 8, 16, Ty::S32, Ty::S8, Ty::S8, Ty::S32, satfinite).unwrap();
        let mut d = [[0; 32]; 2];
        form.run(&mut d, &[&a], &[&b], &[&c, &c]);
        assert_eq!(d, [[expect as u32; 32]; 2]);
    }
}

#[test]
fn accumulation_is_in_f32_in_order_of_k() {
    // Row of A: 1 then 2^-12 seven times (bf16 exact), B all ones: each term vanishes beside 2^12 + 0.5 only when rounded away in f32.
    let one = |x: f64| convert(Ty::Bf16, Ty::F64, &Default::default(), x.to_bits()) as u32;
    let pair = |lo: f64, hi: f64| one(lo) | one(hi) << 16;
    let mut a = [pair(2f64.powi(-12), 2f64.powi(-12)); 32];
    for lane in (0..32).step_by(4) {
        a[lane] = pair(4096.0, 2f64.powi(-12));
    }
    let form = Mma::new(16, 8, 8, Ty::F32, Ty::Bf16, Ty::Bf16, Ty::F32, false).unwrap();
    let (b, c) = ([pair(1.0, 1.0); 32], [0; 32]);
    let mut d = [[0; 32]; 4];
    form.run(&mut d, &[&a, &a], &[&b], &[&c, &c, &c, &c]);
    // 4096's ulp is 2^-11: adding 2^-12 is a tie, to even, each time.
    assert!(d.iter().flatten().all(|&bits| f32::from_bits(bits) == 4096.0));
}
