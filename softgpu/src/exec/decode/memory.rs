//! Loads, stores, atomics, asynchronous copies, conversions of addresses.

use super::super::code::{Atomic, Compare, Copy, Kind, Logic, ScalarFn, Slot, Transfer};
use super::super::vector;
use super::{Decoder, Result, last_type, none_left, take, window};
use crate::num::{self, FloatMode, FloatOp, IntOp, Ty};
use crate::ptx::{Base, Instruction, Operand, Space};

/// The state space among the modifiers, taken off; generic if there is none.
fn space(modifiers: &mut Vec<&str>) -> Space {
    for (name, space) in [
        ("global", Space::Global),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("local", Space::Local),
        ("const", Space::Const),
        ("param", Space::Param),
        ("param::entry", Space::Param),
        ("param::func", Space::Param),
    ] {
        if take(modifiers, name) {
            return space;
        }
    }
    Space::Generic
}

/// Takes off what tells caches what to do, and scopes; true if the access is atomic.
fn hints(modifiers: &mut Vec<&str>) -> bool {
    modifiers.retain(|name| {
        !matches!(*name, "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "nc" | "weak")
            && !name.starts_with("L1::")
            && !name.starts_with("L2::")
            && !matches!(*name, "cta" | "gpu" | "sys" | "cluster" | "gl")
    });
    let before = modifiers.len();
    modifiers
        .retain(|name| !matches!(*name, "volatile" | "relaxed" | "acquire" | "release" | "acq_rel" | "mmio"));
    modifiers.len() < before
}

impl Decoder<'_> {
    pub(super) fn memory(&mut self, one: &Instruction, modifiers: &[&str]) -> Result<(Kind, String)> {
        let modifiers = modifiers.to_vec();
        match one.opcode.as_str() {
            "ld" | "ldu" | "st" => self.transfer(one, modifiers),
            "atom" | "red" => self.atomic(one, modifiers),
            "cp" => self.copy(one, modifiers),
            "ldmatrix" | "stmatrix" => self.matrix(one, modifiers),
            "cvta" => Ok((self.cvta(one, modifiers)?, "int".to_owned())),
            "createpolicy" => {
                // Policies say nothing here.
                let zero = self.d(&Operand::Int(0), Ty::B64)?;
                let d = self.target(one.operands.first().ok_or("expected operands")?)?;
                let f: ScalarFn = Box::new(|a, _, _| a);
                Ok((Kind::Scalar { f, d, s: [Slot::D(zero), Slot::Sink, Slot::Sink] }, "other".to_owned()))
            }
            _ => Ok((self.isspacep(one, modifiers)?, "int".to_owned())),
        }
    }

    fn transfer(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let is_load = one.opcode != "st";
        let ty = last_type(&mut modifiers)?;
        let lanes =
            [("v2", 2), ("v4", 4), ("v8", 8)].into_iter().find(|(name, _)| take(&mut modifiers, name));
        let lanes = lanes.map_or(1, |(_, lanes)| lanes);
        let mut space = space(&mut modifiers);
        let is_atomic = hints(&mut modifiers);
        none_left(&modifiers)?;
        let (first, second) = match &one.operands[..] {
            // A cache policy may follow.
            [first, second] | [first, second, _] => (first, second),
            _ => return Err("expected two operands".to_owned()),
        };
        let (data, place) = if is_load { (first, second) } else { (second, first) };
        let (addr, symbol_space) = self.address(place)?;
        // Parameters of functions and of calls live in local memory.
        if let (Space::Param, Some(known)) = (space, symbol_space) {
            space = known;
        }
        if symbol_space.is_some_and(|known| space == Space::Generic && known != Space::Global) {
            return Err("a generic address of this variable needs cvta".to_owned());
        }
        let list = match data {
            Operand::Vector(list) => list.clone(),
            other => vec![other.clone()],
        };
        if list.len() != lanes || list.len() * ty.bytes() as usize > 32 {
            return Err("number of registers".to_owned());
        }
        let registers = list
            .iter()
            .map(|operand| if is_load { self.target(operand) } else { self.source(operand, ty) })
            .collect::<Result<Vec<_>>>()?;
        if space == Space::Param && is_load && matches!(addr.base, Slot::Sink) {
            let offset = u32::try_from(addr.offset).map_err(|_| "outside of the parameters")?;
            return Ok((Kind::ReadParam { registers, ty, offset }, "ld.param".to_owned()));
        }
        let bytes = list.len() as u32 * ty.bytes();
        let class = format!("{}.{}.{bytes}", if is_load { "ld" } else { "st" }, name_of(space));
        let transfer = Transfer { space, ty, registers, addr, is_atomic };
        Ok((if is_load { Kind::Load(transfer) } else { Kind::Store(transfer) }, class))
    }

    fn atomic(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let ty = last_type(&mut modifiers)?;
        let space = space(&mut modifiers);
        hints(&mut modifiers);
        take(&mut modifiers, "noftz");
        let [name] = modifiers[..] else {
            return Err("unknown atomic operation".to_owned());
        };
        let f = combine(name, ty).ok_or("unknown atomic operation")?;
        let (d, rest) = match (one.opcode.as_str(), &one.operands[..]) {
            ("atom", [d, rest @ ..]) => (self.target(d)?, rest),
            (_, rest) => (Slot::Sink, rest),
        };
        let [place, b, c @ ..] = rest else {
            return Err("expected more operands".to_owned());
        };
        let (addr, _) = self.address(place)?;
        let b = self.source(b, ty)?;
        let c = match (name, c.first()) {
            ("cas", Some(operand)) => self.source(operand, ty)?,
            ("cas", None) => return Err("expected four operands".to_owned()),
            _ => Slot::Sink,
        };
        let atomic = Atomic { space, bytes: ty.bytes() as usize, d, addr, b, c, f, replaces: name == "exch" };
        Ok((Kind::Atomic(atomic), format!("atom.{}", name_of(space))))
    }

    fn copy(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let class = "cp.async".to_owned();
        match modifiers[..] {
            ["async", "commit_group"] => return Ok((Kind::CopyCommit, class)),
            ["async", "wait_all"] => return Ok((Kind::CopyWait(None), class)),
            ["async", "wait_group"] => {
                let [Operand::Int(groups)] = one.operands[..] else {
                    return Err("expected a number".to_owned());
                };
                return Ok((Kind::CopyWait(Some(groups as u32)), class));
            }
            _ => {}
        }
        let cg = modifiers.contains(&"cg");
        take(&mut modifiers, "async");
        hints(&mut modifiers);
        if !((take(&mut modifiers, "shared") || take(&mut modifiers, "shared::cta"))
            && take(&mut modifiers, "global"))
        {
            return Err("unknown copy".to_owned());
        }
        none_left(&modifiers)?;
        let [to, from, Operand::Int(bytes), rest @ ..] = &one.operands[..] else {
            return Err("expected addresses and a size".to_owned());
        };
        if !(matches!(bytes, 4 | 8) && !cg || *bytes == 16) {
            return Err("size of the copy".to_owned());
        }
        let mut copy = Copy {
            shared: self.address(to)?.0,
            global: self.address(from)?.0,
            bytes: *bytes as u32,
            source_bytes: None,
            ignore: None,
        };
        // The third operand: size of the source, or a predicate that says to ignore it. The fourth: a cache policy.
        match rest.first() {
            Some(Operand::Reg(register)) => match self.reg(*register) {
                Slot::P(_) => copy.ignore = Some(self.predicate(*register, false)?),
                // A 64-bit register is a cache policy.
                Slot::D(_) => {}
                slot => copy.source_bytes = Some(slot),
            },
            Some(operand @ Operand::Int(_)) => copy.source_bytes = Some(self.source(operand, Ty::U32)?),
            Some(Operand::NotReg(register)) => copy.ignore = Some(self.predicate(*register, true)?),
            _ => {}
        }
        Ok((Kind::CopyAsync(copy), class))
    }

    fn matrix(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let ty = last_type(&mut modifiers)?;
        let trans = take(&mut modifiers, "trans");
        let count =
            [("x1", 1), ("x2", 2), ("x4", 4)].into_iter().find(|(name, _)| take(&mut modifiers, name));
        let known = take(&mut modifiers, "sync") && take(&mut modifiers, "m8n8") && ty == Ty::B16;
        take(&mut modifiers, "aligned");
        let is_shared = space(&mut modifiers) == Space::Shared;
        none_left(&modifiers)?;
        let (Some((_, count)), true) = (count, known) else {
            return Err("unknown form".to_owned());
        };
        if !is_shared {
            return Err("generic addresses are not known here".to_owned());
        }
        let (registers, place) = match (&one.operands[..], one.opcode.as_str()) {
            ([registers, place], "ldmatrix") | ([place, registers], _) => (registers, place),
            _ => return Err("expected two operands".to_owned()),
        };
        let registers = self.vector_w(registers)?;
        if registers.len() != count {
            return Err("number of registers".to_owned());
        }
        let (addr, _) = self.address(place)?;
        Ok(if one.opcode == "ldmatrix" {
            (Kind::LdMatrix { d: registers, addr, trans }, "ldmatrix".to_owned())
        } else {
            (Kind::StMatrix { s: registers, addr, trans }, "stmatrix".to_owned())
        })
    }

    /// 32-bit registers of a vector operand, or of a single one.
    pub(super) fn vector_w(&mut self, operand: &Operand) -> Result<Vec<u32>> {
        match operand {
            Operand::Vector(list) => list.iter().map(|operand| self.w(operand, Ty::B32)).collect(),
            other => Ok(vec![self.w(other, Ty::B32)?]),
        }
    }

    fn cvta(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<Kind> {
        let ty = last_type(&mut modifiers)?;
        let to = take(&mut modifiers, "to");
        let base = window(space(&mut modifiers))?;
        none_left(&modifiers)?;
        let [target, source] = &one.operands[..] else {
            return Err("expected two operands".to_owned());
        };
        let (Slot::D(d), 64) = (self.target(target)?, ty.bits()) else {
            return Err("only 64-bit addresses are known".to_owned());
        };
        let a = match source {
            Operand::Address(Base::Zero, _) => return Err("expected an address".to_owned()),
            source => self.d(source, Ty::U64)?,
        };
        let base = self.d(&Operand::Int(base), Ty::U64)?;
        let f = vector::long(if to { "sub" } else { "add" }, Ty::U64).ok_or("no such operation")?;
        Ok(Kind::D { f, d, s: [a, base, base] })
    }

    fn isspacep(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<Kind> {
        let asked = space(&mut modifiers);
        none_left(&modifiers)?;
        let [target, source] = &one.operands[..] else {
            return Err("expected two operands".to_owned());
        };
        let ((d, d2), a) = (self.two_predicates(target)?, self.source(source, Ty::U64)?);
        let f = Compare::Scalar(Box::new(move |a, _| super::super::space_of(a) == asked));
        Ok(Kind::SetP { f, d, d2, a, b: a, logic: Logic::First, c: None })
    }
}

fn name_of(space: Space) -> &'static str {
    match space {
        Space::Generic => "generic",
        Space::Global => "global",
        Space::Const => "const",
        Space::Shared => "shared",
        Space::Local => "local",
        Space::Param => "param",
    }
}

/// What an atomic stores: a function of (old, b, c).
fn combine(name: &str, ty: Ty) -> Option<ScalarFn> {
    let integer =
        |op: IntOp| -> Option<ScalarFn> { Some(Box::new(move |a, b, _| num::integer(op, ty, a, b, 0))) };
    let float = |op: FloatOp| -> Option<ScalarFn> {
        let mode = FloatMode::default();
        num::float(op, ty, &mode, 0, 0, 0)?;
        Some(Box::new(move |a, b, _| num::float(op, ty, &mode, a, b, 0).unwrap_or(0)))
    };
    match (name, ty.is_float()) {
        ("exch", _) => Some(Box::new(|_, b, _| b)),
        ("cas", _) => Some(Box::new(|old, b, c| if old == b { c } else { old })),
        ("add", true) => float(FloatOp::Add),
        ("min", true) => float(FloatOp::Min),
        ("max", true) => float(FloatOp::Max),
        ("add", false) => integer(IntOp::Add),
        ("min", false) => integer(IntOp::Min),
        ("max", false) => integer(IntOp::Max),
        ("and", false) => integer(IntOp::And),
        ("or", false) => integer(IntOp::Or),
        ("xor", false) => integer(IntOp::Xor),
        ("inc", false) => Some(Box::new(|old, b, _| if old >= b { 0 } else { old + 1 })),
        ("dec", false) => Some(Box::new(|old, b, _| if old == 0 || old > b { b } else { old - 1 })),
        _ => None,
    }
}
