//! Loads, stores, matrices of shared memory, conversions of addresses.

use super::super::code::{Compare, Kind, Logic, Slot, Transfer};
use super::super::vector;
use super::hints::hints;
use super::{Decoder, Result, last_type, none_left, take, types, window};
use crate::num::Ty;
use crate::ptx::{Base, Instruction, Operand, Space};

/// The state space among the modifiers, taken off; generic if there is none.
pub(super) fn space(modifiers: &mut Vec<&str>) -> Space {
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

impl Decoder<'_> {
    pub(super) fn transfer(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let is_load = one.opcode != "st";
        let ty = last_type(&mut modifiers)?;
        types::in_memory(ty)?;
        let lanes =
            [("v2", 2), ("v4", 4), ("v8", 8)].into_iter().find(|(name, _)| take(&mut modifiers, name));
        let lanes: usize = lanes.map_or(1, |(_, lanes)| lanes);
        let space = space(&mut modifiers);
        check_space(one, space, modifiers.contains(&"nc"))?;
        let wide = modifiers.iter().any(|name| name.starts_with("L2::evict"));
        let hints = hints(&one.opcode, &mut modifiers)?;
        none_left(&modifiers)?;
        let [first, second] = self.without_policy(&one.operands, &hints)? else {
            return Err("expected two operands".to_owned());
        };
        let (data, place) = if is_load { (first, second) } else { (second, first) };
        let (addr, space) = self.address_in(space, place)?;
        if space == Space::Param && !is_load {
            return Err("parameters of kernels are not written".to_owned());
        }
        let list = match data {
            Operand::Vector(list) => list.clone(),
            other => vec![other.clone()],
        };
        // 16 bytes at most, or 32 of global memory, in eight or four registers: those alone tell the second-level cache what to keep.
        let bits = lanes as u32 * ty.bits();
        let fits = lanes <= 4 && bits <= 128 || bits == 256 && space == Space::Global && one.opcode != "ldu";
        if list.len() != lanes || !fits || wide && bits != 256 {
            return Err("number of registers".to_owned());
        }
        list.iter().try_for_each(|operand| self.fits(operand, ty))?;
        let registers = list
            .iter()
            .map(|operand| if is_load { self.target(operand) } else { self.source(operand, ty) })
            .collect::<Result<Vec<_>>>()?;
        if space == Space::Param && matches!(addr.base, Slot::Sink) {
            let offset = u32::try_from(addr.offset).map_err(|_| "outside of the parameters")?;
            return Ok((Kind::ReadParam { registers, ty, offset }, "ld.param".to_owned()));
        }
        let class = format!("{}.{}.{}", if is_load { "ld" } else { "st" }, name_of(space), bits / 8);
        let transfer = Transfer { space, ty, registers, addr, is_atomic: hints.is_atomic };
        Ok((if is_load { Kind::Load(transfer) } else { Kind::Store(transfer) }, class))
    }

    pub(super) fn matrix(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let ty = last_type(&mut modifiers)?;
        let trans = take(&mut modifiers, "trans");
        let count =
            [("x1", 1), ("x2", 2), ("x4", 4)].into_iter().find(|(name, _)| take(&mut modifiers, name));
        let known = ["sync", "aligned", "m8n8"].into_iter().all(|name| take(&mut modifiers, name));
        let is_shared = space(&mut modifiers) == Space::Shared;
        none_left(&modifiers)?;
        let (Some((_, count)), true, Ty::B16) = (count, known, ty) else {
            return Err("unknown form".to_owned());
        };
        if !is_shared {
            return Err("generic addresses are not known here".to_owned());
        }
        let is_load = one.opcode == "ldmatrix";
        let (registers, place) = match &one.operands[..] {
            [registers, place] if is_load => (self.targets_w(registers)?, place),
            [place, registers] => (self.sources_w(registers)?, place),
            _ => return Err("expected two operands".to_owned()),
        };
        if registers.len() != count {
            return Err("number of registers".to_owned());
        }
        let (addr, _) = self.address_in(Space::Shared, place)?;
        let kind = if is_load {
            Kind::LdMatrix { d: registers, addr, trans }
        } else {
            Kind::StMatrix { s: registers, addr, trans }
        };
        Ok((kind, one.opcode.clone()))
    }

    /// `cvta`, `isspacep`.
    pub(super) fn generic(&mut self, one: &Instruction, modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let [target, source] = &one.operands[..] else {
            return Err("expected two operands".to_owned());
        };
        self.width(source, 64)?;
        let kind = match one.opcode.as_str() {
            "cvta" => self.cvta(target, source, modifiers)?,
            _ => self.isspacep(target, source, modifiers)?,
        };
        Ok((kind, "int".to_owned()))
    }

    fn cvta(&mut self, target: &Operand, source: &Operand, mut modifiers: Vec<&str>) -> Result<Kind> {
        let ty = last_type(&mut modifiers)?;
        let to = take(&mut modifiers, "to");
        let space = space(&mut modifiers);
        let base = window(space)?;
        none_left(&modifiers)?;
        if space == Space::Generic {
            return Err("expected a space".to_owned());
        }
        let (Slot::D(d), Ty::U64) = (self.target(target)?, ty) else {
            return Err("only 64-bit addresses are known".to_owned());
        };
        let a = match source {
            Operand::Symbol(name) | Operand::Address(Base::Symbol(name), _) if !to => {
                let place = Operand::Address(Base::Symbol(name.clone()), 0);
                self.address_in(space, &place)?;
                self.d(source, Ty::U64)?
            }
            Operand::Reg(_) => self.d(source, Ty::U64)?,
            _ => return Err("expected an address".to_owned()),
        };
        let base = self.d(&Operand::Int(base), Ty::U64)?;
        let f = vector::long(if to { "sub" } else { "add" }, Ty::U64).ok_or("no such operation")?;
        Ok(Kind::D { f, d, s: [a, base, base] })
    }

    fn isspacep(&mut self, target: &Operand, source: &Operand, mut modifiers: Vec<&str>) -> Result<Kind> {
        let asked = space(&mut modifiers);
        none_left(&modifiers)?;
        if !matches!(asked, Space::Global | Space::Shared | Space::Local) {
            return Err("generic addresses do not tell this space".to_owned());
        }
        let ((d, d2), a) = (self.two_predicates(target)?, self.source(source, Ty::U64)?);
        let f = Compare::Scalar(Box::new(move |a, _| super::super::space_of(a) == asked));
        Ok(Kind::SetP { f, d, d2, a, b: a, logic: Logic::First, c: None })
    }
}

/// Spaces that a load or store does not have.
fn check_space(one: &Instruction, space: Space, nc: bool) -> Result<()> {
    let known = match one.opcode.as_str() {
        "ldu" => matches!(space, Space::Global | Space::Generic),
        "st" => space != Space::Const,
        _ => !nc || space == Space::Global,
    };
    if known { Ok(()) } else { Err(format!("not an instruction of {} memory", name_of(space))) }
}

pub(super) fn name_of(space: Space) -> &'static str {
    match space {
        Space::Generic => "generic",
        Space::Global => "global",
        Space::Const => "const",
        Space::Shared => "shared",
        Space::Local => "local",
        Space::Param => "param",
    }
}
