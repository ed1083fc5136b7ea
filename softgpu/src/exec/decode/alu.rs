//! Moves, logic of predicates, comparisons and selections.

use super::super::code::{Compare, Kind, Logic, ScalarFn, Slot};
use super::super::vector;
use super::{Decoder, Result, last_type, none_left, take, types};
use crate::num::{self, Cmp, Ty};
use crate::ptx::{Instruction, Operand};

impl Decoder<'_> {
    pub(super) fn alu(&mut self, one: &Instruction, modifiers: &[&str]) -> Result<(Kind, String)> {
        let mut modifiers = modifiers.to_vec();
        let int = |kind| Ok((kind, "int".to_owned()));
        match one.opcode.as_str() {
            "setp" => return int(self.setp(one, modifiers)?),
            "set" => return int(self.set(one, modifiers)?),
            "selp" => return int(self.selp(one, &mut modifiers)?),
            "slct" => return int(self.slct(one, modifiers)?),
            "dp4a" | "dp2a" => return int(self.dot(one, modifiers)?),
            "testp" => return self.testp(one, modifiers),
            _ => {}
        }
        if one.opcode == "prmt" && modifiers.len() == 2 {
            // The one whose mode follows the type.
            modifiers.swap(0, 1);
        }
        if modifiers.last() == Some(&"f32x2") {
            return self.float_pair(one, modifiers);
        }
        let ty = last_type(&mut modifiers)?;
        if one.opcode == "mov" {
            none_left(&modifiers)?;
            return Ok((self.mov(one, ty)?, "mov".to_owned()));
        }
        if ty.is_float() {
            return self.float(one, modifiers, ty);
        }
        if ty == Ty::Pred {
            none_left(&modifiers)?;
            return int(self.logic(one)?);
        }
        int(self.integer(one, modifiers, ty)?)
    }

    fn mov(&mut self, one: &Instruction, ty: Ty) -> Result<Kind> {
        let [to, from] = &one.operands[..] else {
            return Err("expected two operands".to_owned());
        };
        match (to, from) {
            (_, Operand::Vector(parts)) => {
                let part = self.part(ty, parts, to)?;
                let bits = part.bits();
                let s = parts.iter().map(|operand| self.source(operand, part)).collect::<Result<_>>()?;
                Ok(Kind::Pack { d: self.target(to)?, s, bits })
            }
            (Operand::Vector(parts), _) => {
                let bits = self.part(ty, parts, from)?.bits();
                let d = parts.iter().map(|operand| self.target(operand)).collect::<Result<_>>()?;
                Ok(Kind::Unpack { d, s: self.source(from, ty)?, bits })
            }
            (_, Operand::Int(value)) if ty == Ty::Pred => {
                let (d, _) = self.two_predicates(to)?;
                let a = self.source(&Operand::Int(u64::from(*value != 0)), Ty::B32)?;
                let b = self.source(&Operand::Int(1), Ty::B32)?;
                let f = vector::compare(Cmp::Eq, Ty::B32).map(Compare::W).ok_or("no comparison")?;
                Ok(Kind::SetP { f, d, d2: None, a, b, logic: Logic::First, c: None })
            }
            _ if ty == Ty::Pred => self.logic(one),
            _ => self.fast_or_scalar(one, "mov", ty, Box::new(|a, _, _| a)),
        }
    }

    /// The type of each part of a register that is put together or taken apart.
    fn part(&self, ty: Ty, parts: &[Operand], whole: &Operand) -> Result<Ty> {
        let part = match (ty, parts.len()) {
            (Ty::B16, 2) | (Ty::B32, 4) => Ty::B8,
            (Ty::B32, 2) | (Ty::B64, 4) => Ty::B16,
            (Ty::B64, 2) => Ty::B32,
            _ => return Err("unknown split of a register".to_owned()),
        };
        self.width(whole, ty.bits())?;
        parts.iter().try_for_each(|operand| self.width(operand, part.bits()))?;
        Ok(part)
    }

    fn logic(&mut self, one: &Instruction) -> Result<Kind> {
        let [to, first, rest @ ..] = &one.operands[..] else {
            return Err("expected more operands".to_owned());
        };
        let Slot::P(d) = self.target(to)? else {
            return Err("expected a predicate".to_owned());
        };
        let mut a = self.pred(first)?;
        let b = match rest.first() {
            Some(operand) => self.pred(operand)?,
            None => a,
        };
        let f = match one.opcode.as_str() {
            "and" => Logic::And,
            "or" => Logic::Or,
            "xor" => Logic::Xor,
            "mov" => Logic::First,
            "not" => {
                a.negated = !a.negated;
                Logic::First
            }
            _ => return Err("not known for predicates".to_owned()),
        };
        Ok(Kind::Logic { f, d, a, b })
    }

    /// The vector form if there is one, else lane by lane. All operands have the type of the instruction.
    pub(super) fn fast_or_scalar(
        &mut self,
        one: &Instruction,
        name: &str,
        ty: Ty,
        scalar: ScalarFn,
    ) -> Result<Kind> {
        let d = self.target(one.operands.first().ok_or("expected operands")?)?;
        let mut s = [Slot::Sink; 3];
        if one.operands.len() > 4 {
            return Err("too many operands".to_owned());
        }
        for (slot, operand) in s.iter_mut().zip(&one.operands[1..]) {
            *slot = self.source(operand, ty)?;
        }
        let first = match s[0] {
            Slot::W(index) | Slot::D(index) => index,
            _ => return Err("expected a register".to_owned()),
        };
        let dense = |slot: Slot| match slot {
            Slot::W(index) | Slot::D(index) => index,
            _ => first,
        };
        let all_w = s.iter().all(|slot| matches!(slot, Slot::W(_) | Slot::Sink));
        let all_d = s.iter().all(|slot| matches!(slot, Slot::D(_) | Slot::Sink));
        match (d, vector::narrow(name, ty), vector::long(name, ty)) {
            (Slot::W(d), Some(f), _) if all_w && ty.bits() <= 32 => Ok(Kind::W { f, d, s: s.map(dense) }),
            (Slot::D(d), _, Some(f)) if all_d && ty.bits() == 64 => Ok(Kind::D { f, d, s: s.map(dense) }),
            _ => Ok(Kind::Scalar { f: scalar, d, s }),
        }
    }

    /// Lane by lane, operands of these types.
    pub(super) fn scalar(&mut self, one: &Instruction, types: &[Ty], f: ScalarFn) -> Result<Kind> {
        let d = self.target(one.operands.first().ok_or("expected operands")?)?;
        let mut s = [Slot::Sink; 3];
        if one.operands.len() - 1 > types.len() {
            return Err("too many operands".to_owned());
        }
        for (slot, (operand, ty)) in s.iter_mut().zip(one.operands[1..].iter().zip(types)) {
            *slot = self.source(operand, *ty)?;
        }
        Ok(Kind::Scalar { f, d, s })
    }

    fn setp(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<Kind> {
        let ty = last_type(&mut modifiers)?;
        let ftz = take(&mut modifiers, "ftz");
        if modifiers.is_empty() || matches!(ty, Ty::F16x2 | Ty::Bf16x2) {
            return Err("unknown comparison".to_owned());
        }
        let cmp = Cmp::from_name(modifiers.remove(0)).ok_or("unknown comparison")?;
        types::comparison(cmp, ty, ftz)?;
        let logic = match modifiers.pop() {
            None => Logic::First,
            Some("and") => Logic::And,
            Some("or") => Logic::Or,
            Some("xor") => Logic::Xor,
            Some(other) => return Err(format!("unknown modifier `.{other}`")),
        };
        none_left(&modifiers)?;
        let [to, a, b, rest @ ..] = &one.operands[..] else {
            return Err("expected more operands".to_owned());
        };
        let (d, d2) = self.two_predicates(to)?;
        let (a, b) = (self.source(a, ty)?, self.source(b, ty)?);
        let f = match (a, b) {
            (Slot::W(_), Slot::W(_)) if !ftz => vector::compare(cmp, ty).map(Compare::W),
            (Slot::D(_), Slot::D(_)) => vector::compare_long(cmp, ty).map(Compare::D),
            _ => None,
        };
        let f = f.unwrap_or_else(|| Compare::Scalar(Box::new(move |a, b| num::compare(cmp, ty, ftz, a, b))));
        let c = rest.first().map(|operand| self.pred(operand)).transpose()?;
        if c.is_some() != (logic != Logic::First) {
            return Err("a third operand goes with .and, .or, .xor".to_owned());
        }
        Ok(Kind::SetP { f, d, d2, a, b, logic, c })
    }

    /// `p` or `p|q`; `None` for `_`.
    pub(super) fn two_predicates(&mut self, operand: &Operand) -> Result<(Option<u32>, Option<u32>)> {
        let index = |slot: Slot| match slot {
            Slot::P(index) => Ok(Some(index)),
            Slot::Sink => Ok(None),
            _ => Err("expected a predicate".to_owned()),
        };
        match operand {
            Operand::Pair(first, second) => Ok((index(self.reg(*first))?, index(self.reg(*second))?)),
            _ => Ok((index(self.target(operand)?)?, None)),
        }
    }

    fn set(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<Kind> {
        let ty = last_type(&mut modifiers)?;
        let to = last_type(&mut modifiers)?;
        let ftz = take(&mut modifiers, "ftz");
        let [name] = modifiers[..] else {
            return Err("unknown comparison".to_owned());
        };
        let cmp = Cmp::from_name(name).ok_or("unknown comparison")?;
        types::comparison(cmp, ty, ftz)?;
        let pair = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
        let yes: u64 = match to {
            Ty::F32 => 0x3f80_0000,
            Ty::F16 | Ty::F16x2 => 0x3c00,
            Ty::Bf16 | Ty::Bf16x2 => 0x3f80,
            Ty::U32 | Ty::S32 => 0xffff_ffff,
            _ => return Err("unknown type".to_owned()),
        };
        if pair != matches!(to, Ty::F16x2 | Ty::Bf16x2) {
            return Err("pairs are compared into pairs".to_owned());
        }
        let half = move |a, b| if num::compare(cmp, ty, ftz, a, b) { yes } else { 0 };
        let f = move |a: u64, b: u64, _| half(a, b) | if pair { half(a >> 16, b >> 16) << 16 } else { 0 };
        self.scalar(one, &[ty, ty], Box::new(f))
    }

    fn selp(&mut self, one: &Instruction, modifiers: &mut Vec<&str>) -> Result<Kind> {
        let ty = last_type(modifiers)?;
        none_left(modifiers)?;
        let [to, a, b, p] = &one.operands[..] else {
            return Err("expected four operands".to_owned());
        };
        let (a, b, p) = (self.source(a, ty)?, self.source(b, ty)?, self.pred(p)?);
        Ok(Kind::SelP { d: self.target(to)?, a, b, p })
    }

    fn slct(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<Kind> {
        let by = last_type(&mut modifiers)?;
        let ty = last_type(&mut modifiers)?;
        let ftz = take(&mut modifiers, "ftz");
        none_left(&modifiers)?;
        types::chosen(ty)?;
        if ftz && by != Ty::F32 {
            return Err("unknown modifier `.ftz`".to_owned());
        }
        let single = move |c: u64| {
            let c = f32::from_bits(c as u32);
            if ftz { num::flush_f32(c) } else { c }
        };
        let f = move |a, b, c: u64| {
            let first = if by == Ty::F32 { single(c) >= 0.0 } else { (c as u32 as i32) >= 0 };
            if first { a } else { b }
        };
        self.scalar(one, &[ty, ty, by], Box::new(f))
    }
}
