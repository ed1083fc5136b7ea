//! `atom` and `red` (PTX ISA 9.7.13.5 and 9.7.13.6).

use super::super::code::{Atomic, Kind, ScalarFn, Slot};
use super::hints::hints;
use super::memory::{name_of, space};
use super::{Decoder, Result, last_type, none_left, take};
use crate::num::{self, FloatMode, FloatOp, IntOp, Ty};
use crate::ptx::{Instruction, Space};

impl Decoder<'_> {
    pub(super) fn atomic(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let returns = one.opcode == "atom";
        let ty = last_type(&mut modifiers)?;
        let space = space(&mut modifiers);
        let hints = hints(&one.opcode, &mut modifiers)?;
        let noftz = take(&mut modifiers, "noftz");
        let half = matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2);
        let name = if modifiers.is_empty() { "" } else { modifiers.remove(0) };
        none_left(&modifiers)?;
        let is_swap = matches!(name, "exch" | "cas");
        if !types(name).contains(&ty) || noftz != half || is_swap && !returns {
            return Err("unknown atomic operation".to_owned());
        }
        if !matches!(space, Space::Global | Space::Shared | Space::Generic) {
            return Err(format!("not an instruction of {} memory", name_of(space)));
        }
        let operands = self.without_policy(&one.operands, &hints)?;
        let (d, rest) = match operands {
            [d, rest @ ..] if returns => (Some(d), rest),
            rest => (None, rest),
        };
        let (place, b, c) = match rest {
            [place, b] if name != "cas" => (place, b, None),
            [place, b, c] if name == "cas" => (place, b, Some(c)),
            _ => return Err("number of operands".to_owned()),
        };
        for operand in d.into_iter().chain([b]).chain(c) {
            self.width(operand, ty.bits())?;
        }
        let (addr, space) = self.address_in(space, place)?;
        let atomic = Atomic {
            space,
            bytes: ty.bytes() as usize,
            d: d.map_or(Ok(Slot::Sink), |d| self.target(d))?,
            addr,
            b: self.source(b, ty)?,
            c: c.map_or(Ok(Slot::Sink), |c| self.source(c, ty))?,
            f: combine(name, ty).ok_or("unknown atomic operation")?,
            replaces: name == "exch",
        };
        Ok((Kind::Atomic(atomic), format!("atom.{}", name_of(space))))
    }
}

/// The types that an operation has.
fn types(name: &str) -> &'static [Ty] {
    match name {
        "add" => &[Ty::U32, Ty::S32, Ty::U64, Ty::F32, Ty::F64, Ty::F16, Ty::F16x2, Ty::Bf16, Ty::Bf16x2],
        "min" | "max" => &[Ty::U32, Ty::S32, Ty::U64, Ty::S64],
        "inc" | "dec" => &[Ty::U32],
        "and" | "or" | "xor" | "exch" => &[Ty::B32, Ty::B64],
        "cas" => &[Ty::B16, Ty::B32, Ty::B64],
        _ => &[],
    }
}

/// What an atomic stores: a function of (old, b, c).
fn combine(name: &str, ty: Ty) -> Option<ScalarFn> {
    let integer =
        |op: IntOp| -> Option<ScalarFn> { Some(Box::new(move |a, b, _| num::integer(op, ty, a, b, 0))) };
    match name {
        "exch" => Some(Box::new(|_, b, _| b)),
        "cas" => {
            // A 16-bit register may carry rubbish above.
            let mask = u64::MAX >> (64 - ty.bits());
            Some(Box::new(move |old, b, c| if old == b & mask { c } else { old }))
        }
        "add" if ty.is_float() => {
            let mode = FloatMode::default();
            Some(Box::new(move |a, b, _| num::float(FloatOp::Add, ty, &mode, a, b, 0).unwrap_or(0)))
        }
        "add" => integer(IntOp::Add),
        "min" => integer(IntOp::Min),
        "max" => integer(IntOp::Max),
        "and" => integer(IntOp::And),
        "or" => integer(IntOp::Or),
        "xor" => integer(IntOp::Xor),
        "inc" => Some(Box::new(|old, b, _| if old >= b { 0 } else { old + 1 })),
        "dec" => Some(Box::new(|old, b, _| if old == 0 || old > b { b } else { old - 1 })),
        _ => None,
    }
}
