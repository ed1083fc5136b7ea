//! The fast forms are what `num` says, lane by lane.

use super::super::code::{D, W};
use super::{compare, compare_long, convert, long, narrow, shift, wide};
use crate::num::{self, Cmp, Conversion, FloatMode, FloatOp, IntOp, Ty};

const TYPES: [Ty; 15] = [
    Ty::B16,
    Ty::B32,
    Ty::B64,
    Ty::U8,
    Ty::U16,
    Ty::U32,
    Ty::U64,
    Ty::S8,
    Ty::S16,
    Ty::S32,
    Ty::S64,
    Ty::F16,
    Ty::Bf16,
    Ty::F32,
    Ty::F64,
];

const NAMES: [(&str, Option<IntOp>, Option<FloatOp>); 17] = [
    ("not", Some(IntOp::Not), None),
    ("and", Some(IntOp::And), None),
    ("or", Some(IntOp::Or), None),
    ("xor", Some(IntOp::Xor), None),
    ("shl", Some(IntOp::Shl), None),
    ("shr", Some(IntOp::Shr), None),
    ("add", Some(IntOp::Add), Some(FloatOp::Add)),
    ("sub", Some(IntOp::Sub), Some(FloatOp::Sub)),
    ("neg", Some(IntOp::Neg), Some(FloatOp::Neg)),
    ("abs", Some(IntOp::Abs), Some(FloatOp::Abs)),
    ("mul", None, Some(FloatOp::Mul)),
    ("fma", None, Some(FloatOp::Fma)),
    ("mul.lo", Some(IntOp::MulLo), None),
    ("mul.hi", Some(IntOp::MulHi), None),
    ("mad.lo", Some(IntOp::MadLo), None),
    ("min", Some(IntOp::Min), Some(FloatOp::Min)),
    ("max", Some(IntOp::Max), Some(FloatOp::Max)),
];

const COMPARISONS: [Cmp; 12] = [
    Cmp::Eq,
    Cmp::Ne,
    Cmp::Lt,
    Cmp::Le,
    Cmp::Gt,
    Cmp::Ge,
    Cmp::Lo,
    Cmp::Ls,
    Cmp::Hi,
    Cmp::Hs,
    Cmp::Ltu,
    Cmp::Neu,
];

/// Lanes with the values at which things go wrong, and random ones.
fn lanes(seed: u64) -> D {
    const EDGES: [u64; 8] = [0, u64::MAX, 1 << 63, 0x8000_0000, 0x7f80_0000, 0x7fc0_0001, 0x3f80_0000, 33];
    let mut state = seed;
    std::array::from_fn(|lane| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (state >> 20).is_multiple_of(3) {
            EDGES[(state as usize >> 8) % 8]
        } else {
            state.rotate_left(lane as u32)
        }
    })
}

fn low(x: &D) -> W {
    x.map(|x| x as u32)
}

/// What the interpreter would do without the fast form; `None`: no such instruction.
fn slow(int: Option<IntOp>, float: Option<FloatOp>, ty: Ty, [a, b, c]: [u64; 3]) -> Option<u64> {
    if ty.is_float() {
        return num::float(float?, ty, &FloatMode::default(), a, b, c);
    }
    Some(num::integer(int?, ty, a, b, c))
}

#[test]
fn arithmetic() {
    let mut seen = 0;
    for round in 1..200 {
        let [a, b, c] = [round, round << 20, round << 40].map(lanes);
        for (name, int, float) in NAMES {
            for ty in TYPES {
                let mask = if ty.bits() == 64 { u64::MAX } else { (1 << ty.bits()) - 1 };
                if let Some(f) = narrow(name, ty).filter(|_| ty.bits() <= 32) {
                    let mut out = [0; 32];
                    f(&mut out, &low(&a), &low(&b), &low(&c));
                    for lane in 0..32 {
                        // Shift amounts are 32 bits, as they stand.
                        let Some(expect) = slow(int, float, ty, [a[lane], b[lane], c[lane]]) else {
                            continue;
                        };
                        let (got, expect) = (u64::from(out[lane]) & mask, expect & mask);
                        assert_eq!(
                            got,
                            expect,
                            "{name}.{} {:#x} {:#x}",
                            ty.name(),
                            a[lane] as u32,
                            b[lane] as u32
                        );
                        seen += 1;
                    }
                }
                if let Some(f) = long(name, ty).filter(|_| ty.bits() == 64) {
                    let mut out = [0; 32];
                    f(&mut out, &a, &b, &c);
                    for lane in 0..32 {
                        let Some(expect) = slow(int, float, ty, [a[lane], b[lane], c[lane]]) else {
                            continue;
                        };
                        assert_eq!(out[lane], expect, "{name}.{}", ty.name());
                        seen += 1;
                    }
                }
            }
        }
    }
    assert!(seen > 100_000, "{seen}");
}

#[test]
fn wide_products_and_long_shifts() {
    for round in 1..200 {
        let [a, b, c] = [round, round << 20, round << 40].map(lanes);
        for (name, op) in [("mul.wide", IntOp::MulWide), ("mad.wide", IntOp::MadWide)] {
            for ty in [Ty::U32, Ty::S32] {
                let mut out = [0; 32];
                wide(name, ty).unwrap()(&mut out, &low(&a), &low(&b), &c);
                for lane in 0..32 {
                    assert_eq!(
                        out[lane],
                        num::integer(op, ty, a[lane], b[lane], c[lane]),
                        "{name}.{}",
                        ty.name()
                    );
                }
            }
        }
        for (name, op) in [("shl", IntOp::Shl), ("shr", IntOp::Shr)] {
            for ty in [Ty::B64, Ty::U64, Ty::S64] {
                let mut out = [0; 32];
                let amounts = b.map(|x| x as u32 % 80);
                shift(name, ty).unwrap()(&mut out, &a, &amounts);
                for lane in 0..32 {
                    let expect = num::integer(op, ty, a[lane], u64::from(amounts[lane]), 0);
                    assert_eq!(out[lane], expect, "{name}.{}", ty.name());
                }
            }
        }
    }
}

#[test]
fn conversions_and_comparisons() {
    for round in 1..200 {
        let (a, b) = (lanes(round), lanes(round << 20));
        for to in TYPES {
            for from in TYPES {
                let Some(f) = convert(to, from) else { continue };
                let mut out = [0; 32];
                f(&mut out, &low(&a), &low(&a), &low(&a));
                for lane in 0..32 {
                    let expect = num::convert(to, from, &Conversion::default(), a[lane]) as u32;
                    // Widening a NaN: hardware's is not specified bit for bit.
                    let nan = to == Ty::F32
                        && f32::from_bits(expect).is_nan()
                        && f32::from_bits(out[lane]).is_nan();
                    let mask = u32::MAX >> (32 - to.bits());
                    assert!(
                        nan || out[lane] & mask == expect & mask,
                        "cvt.{}.{} {:#x}",
                        to.name(),
                        from.name(),
                        a[lane]
                    );
                }
            }
        }
        for cmp in COMPARISONS {
            for ty in TYPES {
                let expect = |lane: usize| num::compare(cmp, ty, false, a[lane], b[lane]);
                let expect = (0..32).fold(0, |mask, lane| mask | u32::from(expect(lane)) << lane);
                if let Some(f) = compare(cmp, ty).filter(|_| ty.bits() <= 32) {
                    assert_eq!(f(&low(&a), &low(&b)), expect, "setp.{cmp:?}.{}", ty.name());
                }
                if let Some(f) = compare_long(cmp, ty).filter(|_| ty.bits() == 64) {
                    assert_eq!(f(&a, &b), expect, "setp.{cmp:?}.{}", ty.name());
                }
            }
        }
    }
}
