//! Integer arithmetic, logic and shifts.

use super::super::code::{Kind, ScalarFn, Slot};
use super::super::vector;
use super::{Decoder, Result, last_type, none_left, take, types};
use crate::num::{self, IntOp, PrmtMode, ShfMode, Ty};
use crate::ptx::{Instruction, Operand};

impl Decoder<'_> {
    pub(super) fn integer(&mut self, one: &Instruction, mut modifiers: Vec<&str>, ty: Ty) -> Result<Kind> {
        let opcode = one.opcode.as_str();
        if modifiers.contains(&"cc") || matches!(opcode, "addc" | "subc" | "madc") {
            return self.carry(one, modifiers, ty);
        }
        let part = ["lo", "hi", "wide"].into_iter().find(|part| take(&mut modifiers, part)).unwrap_or("");
        let sat = take(&mut modifiers, "sat");
        let relu = take(&mut modifiers, "relu");
        if let Some(kind) = self.special_integer(one, &mut modifiers, ty, part)? {
            return Ok(kind);
        }
        let op = match (opcode, part, sat, relu) {
            ("add", "", false, false) => IntOp::Add,
            ("add", "", true, false) => IntOp::AddSat,
            ("sub", "", false, false) => IntOp::Sub,
            ("sub", "", true, false) => IntOp::SubSat,
            ("mul", "lo", false, false) => IntOp::MulLo,
            ("mul", "hi", false, false) => IntOp::MulHi,
            ("mad", "lo", false, false) => IntOp::MadLo,
            ("mad", "hi", false, false) => IntOp::MadHi,
            ("mad", "hi", true, false) => IntOp::MadHiSat,
            ("div", "", false, false) => IntOp::Div,
            ("rem", "", false, false) => IntOp::Rem,
            ("min", "", false, false) => IntOp::Min,
            ("min", "", false, true) => IntOp::MinRelu,
            ("max", "", false, false) => IntOp::Max,
            ("max", "", false, true) => IntOp::MaxRelu,
            ("abs", "", false, false) => IntOp::Abs,
            ("neg", "", false, false) => IntOp::Neg,
            ("sad", "", false, false) => IntOp::Sad,
            ("and", "", false, false) => IntOp::And,
            ("or", "", false, false) => IntOp::Or,
            ("xor", "", false, false) => IntOp::Xor,
            ("not", "", false, false) => IntOp::Not,
            ("cnot", "", false, false) => IntOp::Cnot,
            _ => return Err("unknown instruction".to_owned()),
        };
        none_left(&modifiers)?;
        let name = if part.is_empty() { opcode.to_owned() } else { format!("{opcode}.{part}") };
        let name = if sat || relu { "" } else { name.as_str() };
        self.fast_or_scalar(one, name, ty, Box::new(move |a, b, c| num::integer(op, ty, a, b, c)))
    }

    /// Instructions whose operands do not all have the type of the instruction.
    fn special_integer(
        &mut self,
        one: &Instruction,
        modifiers: &mut Vec<&str>,
        ty: Ty,
        part: &str,
    ) -> Result<Option<Kind>> {
        let any = |op: IntOp| -> ScalarFn { Box::new(move |a, b, c| num::integer(op, ty, a, b, c)) };
        let kind = match one.opcode.as_str() {
            "mul" | "mad" if part == "wide" => {
                let op = if one.opcode == "mul" { IntOp::MulWide } else { IntOp::MadWide };
                self.wide(one, ty, any(op))?
            }
            "shl" => self.shift(one, ty, any(IntOp::Shl))?,
            "shr" => self.shift(one, ty, any(IntOp::Shr))?,
            "popc" => self.scalar(one, &[ty], any(IntOp::Popc))?,
            "clz" => self.scalar(one, &[ty], any(IntOp::Clz))?,
            "brev" => self.scalar(one, &[ty], any(IntOp::Brev))?,
            "bfind" => {
                let op = if take(modifiers, "shiftamt") { IntOp::BfindShift } else { IntOp::Bfind };
                self.scalar(one, &[ty], any(op))?
            }
            "bfe" => self.scalar(one, &[ty, Ty::U32, Ty::U32], any(IntOp::Bfe))?,
            "bfi" => self.bfi(one, ty)?,
            "fns" => {
                let f = |a: u64, b: u64, c: u64| u64::from(num::fns(a as u32, b as u32, c as i32));
                self.scalar(one, &[Ty::B32, Ty::B32, Ty::S32], Box::new(f))?
            }
            "lop3" => self.lop3(one)?,
            "prmt" => self.prmt(one, modifiers)?,
            "shf" => self.funnel(one, modifiers)?,
            "mul24" | "mad24" => {
                let (hi, signed, add) = (part == "hi", ty.is_signed(), one.opcode == "mad24");
                let f = move |a: u64, b: u64, c: u64| {
                    let product = num::mul24(hi, signed, a as u32, b as u32);
                    u64::from(product.wrapping_add(if add { c as u32 } else { 0 }))
                };
                self.scalar(one, &[ty; 3], Box::new(f))?
            }
            _ => return Ok(None),
        };
        none_left(modifiers)?;
        Ok(Some(kind))
    }

    fn wide(&mut self, one: &Instruction, ty: Ty, f: ScalarFn) -> Result<Kind> {
        let long = if ty.is_signed() { Ty::S64 } else { Ty::U64 };
        if ty.bits() == 16 {
            let int = if ty.is_signed() { Ty::S32 } else { Ty::U32 };
            return self.scalar(one, &[ty, ty, int], f);
        }
        let name = format!("{}.wide", one.opcode);
        let f = vector::wide(&name, ty).ok_or("unknown type")?;
        let [to, a, b, rest @ ..] = &one.operands[..] else {
            return Err("expected more operands".to_owned());
        };
        let Slot::D(d) = self.target(to)? else {
            return Err("expected a 64-bit destination".to_owned());
        };
        let (a, b) = (self.w(a, ty)?, self.w(b, ty)?);
        let c = self.d(rest.first().unwrap_or(&Operand::Int(0)), long)?;
        Ok(Kind::Wide { f, d, a, b, c })
    }

    fn shift(&mut self, one: &Instruction, ty: Ty, scalar: ScalarFn) -> Result<Kind> {
        let [to, a, b] = &one.operands[..] else {
            return Err("expected three operands".to_owned());
        };
        let b = self.w(b, Ty::U32)?;
        let a = self.source(a, ty)?;
        Ok(match (self.target(to)?, a) {
            (Slot::W(d), Slot::W(a)) if ty.bits() == 32 => {
                let f = vector::narrow(&one.opcode, ty).ok_or("unknown type")?;
                Kind::W { f, d, s: [a, b, b] }
            }
            (Slot::D(d), Slot::D(a)) => {
                let f = vector::shift(&one.opcode, ty).ok_or("unknown type")?;
                Kind::Shift { f, d, a, b }
            }
            (d, a) => Kind::Scalar { f: scalar, d, s: [a, Slot::W(b), Slot::Sink] },
        })
    }

    fn bfi(&mut self, one: &Instruction, ty: Ty) -> Result<Kind> {
        let [to, a, b, pos, len] = &one.operands[..] else {
            return Err("expected five operands".to_owned());
        };
        let (Operand::Int(pos), Operand::Int(len)) = (pos, len) else {
            return Err("bfi with places in registers is not known".to_owned());
        };
        let (pos, len) = (*pos as u32, *len as u32);
        let s = [self.source(a, ty)?, self.source(b, ty)?, Slot::Sink];
        let f = Box::new(move |a, b, _| num::bfi(ty, a, b, pos, len));
        Ok(Kind::Scalar { f, d: self.target(to)?, s })
    }

    fn lop3(&mut self, one: &Instruction) -> Result<Kind> {
        let [to, a, b, c, Operand::Int(lut)] = &one.operands[..] else {
            return Err("expected five operands, the last a number".to_owned());
        };
        let lut = u8::try_from(*lut).map_err(|_| "the table has 8 bits")?;
        let s = [self.source(a, Ty::B32)?, self.source(b, Ty::B32)?, self.source(c, Ty::B32)?];
        let f = Box::new(move |a, b, c| u64::from(num::lop3(a as u32, b as u32, c as u32, lut)));
        Ok(Kind::Scalar { f, d: self.target(to)?, s })
    }

    fn prmt(&mut self, one: &Instruction, modifiers: &mut Vec<&str>) -> Result<Kind> {
        let mode = match modifiers.pop() {
            None => return self.fast_or_scalar(one, "prmt", Ty::B32, Box::new(|a, _, _| a)),
            Some("f4e") => PrmtMode::F4e,
            Some("b4e") => PrmtMode::B4e,
            Some("rc8") => PrmtMode::Rc8,
            Some("ecl") => PrmtMode::Ecl,
            Some("ecr") => PrmtMode::Ecr,
            Some("rc16") => PrmtMode::Rc16,
            Some(other) => return Err(format!("unknown modifier `.{other}`")),
        };
        let f = move |a: u64, b: u64, c: u64| u64::from(num::prmt(mode, a as u32, b as u32, c as u32));
        self.scalar(one, &[Ty::B32; 3], Box::new(f))
    }

    fn funnel(&mut self, one: &Instruction, modifiers: &mut Vec<&str>) -> Result<Kind> {
        let left = take(modifiers, "l");
        if !left && !take(modifiers, "r") {
            return Err("expected .l or .r".to_owned());
        }
        let mode = match (take(modifiers, "wrap"), take(modifiers, "clamp")) {
            (true, false) => ShfMode::Wrap,
            (false, true) => ShfMode::Clamp,
            _ => return Err("expected .wrap or .clamp".to_owned()),
        };
        let f = move |a: u64, b: u64, c: u64| u64::from(num::shf(left, mode, a as u32, b as u32, c as u32));
        self.scalar(one, &[Ty::B32, Ty::B32, Ty::U32], Box::new(f))
    }

    pub(super) fn dot(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<Kind> {
        let hi = take(&mut modifiers, "hi");
        take(&mut modifiers, "lo");
        // The form has looked at b's type.
        let b = last_type(&mut modifiers)?.is_signed();
        let a = last_type(&mut modifiers)?;
        types::check(&one.opcode, a, false)?;
        let a = a.is_signed();
        none_left(&modifiers)?;
        let four = one.opcode == "dp4a";
        let f = move |x: u64, y: u64, z: u64| {
            let (x, y, z) = (x as u32, y as u32, z as u32);
            u64::from(if four { num::dp4a(a, b, x, y, z) } else { num::dp2a(hi, a, b, x, y, z) })
        };
        self.scalar(one, &[Ty::B32; 3], Box::new(f))
    }

    fn carry(&mut self, one: &Instruction, mut modifiers: Vec<&str>, ty: Ty) -> Result<Kind> {
        let writes = take(&mut modifiers, "cc");
        let [to, a, b] = &one.operands[..] else {
            return Err("mad.cc is not known".to_owned());
        };
        none_left(&modifiers)?;
        let f: fn(u64, u64, bool) -> (u64, bool) = match (one.opcode.as_str(), ty.bits() == 64) {
            ("add" | "addc", false) => |a, b, flag| pair(num::add_carry(Ty::U32, a, b, flag)),
            ("add" | "addc", true) => |a, b, flag| pair(num::add_carry(Ty::U64, a, b, flag)),
            ("sub" | "subc", false) => |a, b, flag| pair(num::sub_borrow(Ty::U32, a, b, flag)),
            ("sub" | "subc", true) => |a, b, flag| pair(num::sub_borrow(Ty::U64, a, b, flag)),
            _ => return Err("unknown instruction".to_owned()),
        };
        let (a, b) = (self.source(a, ty)?, self.source(b, ty)?);
        Ok(Kind::Carry { f, d: self.target(to)?, a, b, reads: one.opcode.ends_with('c'), writes })
    }
}

fn pair(carry: num::Carry) -> (u64, bool) {
    (carry.value, carry.carry)
}
