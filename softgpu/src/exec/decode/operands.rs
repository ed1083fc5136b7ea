//! Operands: registers, constants in registers of their own, places of variables.

use super::super::code::{Addr, Initial, Pred, Slot};
use super::{Decoder, Place, Result};
use crate::num::Ty;
use crate::ptx::{Base, Operand, Space};

impl Decoder<'_> {
    /// A constant or special value in a register of the file for `bits`.
    pub(super) fn initial(&mut self, value: Initial, bits: u32) -> Slot {
        let long = bits > 32;
        let known = if long { &self.consts_d } else { &self.consts_w };
        if let Some(&index) = known.get(&value) {
            return if long { Slot::D(index) } else { Slot::W(index) };
        }
        let slot = self.register(if long { 64 } else { 32 });
        match slot {
            Slot::D(index) => {
                self.consts_d.insert(value, index);
                self.code.initial_d.push((index, value));
            }
            Slot::W(index) => {
                self.consts_w.insert(value, index);
                self.code.initial_w.push((index, value));
            }
            _ => {}
        }
        slot
    }

    pub(super) fn constant(&mut self, value: u64, bits: u32) -> Slot {
        let value = if bits >= 64 { value } else { value & ((1 << bits) - 1) };
        self.initial(Initial::Const(value), bits)
    }

    pub(super) fn reg(&self, register: u32) -> Slot {
        self.registers[self.now][register as usize]
    }

    pub(super) fn predicate(&self, register: u32, negated: bool) -> Result<Pred> {
        match self.reg(register) {
            Slot::P(index) => Ok(Pred { index, negated }),
            _ => Err("expected a predicate".to_owned()),
        }
    }

    /// A predicate operand; constants become registers that nobody writes.
    pub(super) fn pred(&mut self, operand: &Operand) -> Result<Pred> {
        match operand {
            Operand::Reg(register) => self.predicate(*register, false),
            Operand::NotReg(register) => self.predicate(*register, true),
            _ => Err("expected a predicate".to_owned()),
        }
    }

    /// A source of a type, in the register file of that type's width (or of the register's).
    pub(super) fn source(&mut self, operand: &Operand, ty: Ty) -> Result<Slot> {
        let bits = ty.bits();
        Ok(match operand {
            Operand::Reg(register) => self.reg(*register),
            Operand::Int(value) => self.constant(*value, bits),
            Operand::F32(value) if ty == Ty::F64 => {
                self.constant(f64::from(f32::from_bits(*value)).to_bits(), 64)
            }
            Operand::F32(value) => self.constant(u64::from(*value), bits),
            Operand::F64(value) if ty == Ty::F32 => {
                self.constant(u64::from((f64::from_bits(*value) as f32).to_bits()), 32)
            }
            Operand::F64(value) => self.constant(*value, bits),
            Operand::Special(name) => {
                let value = self.special(name)?;
                self.initial(value, bits)
            }
            Operand::Symbol(name) => {
                let at = self.place(name)?.at;
                self.constant(at, bits)
            }
            Operand::Address(Base::Symbol(name), offset) => {
                let at = self.place(name)?.at.wrapping_add_signed(*offset);
                self.constant(at, bits)
            }
            _ => return Err("an operand of another kind was expected".to_owned()),
        })
    }

    pub(super) fn w(&mut self, operand: &Operand, ty: Ty) -> Result<u32> {
        match self.source(operand, ty)? {
            Slot::W(index) => Ok(index),
            _ => Err("expected a 32-bit operand".to_owned()),
        }
    }

    pub(super) fn d(&mut self, operand: &Operand, ty: Ty) -> Result<u32> {
        match self.source(operand, ty)? {
            Slot::D(index) => Ok(index),
            _ => Err("expected a 64-bit operand".to_owned()),
        }
    }

    /// A destination; `_` is a register that nobody reads.
    pub(super) fn target(&mut self, operand: &Operand) -> Result<Slot> {
        match operand {
            Operand::Reg(register) => Ok(self.reg(*register)),
            Operand::Sink => Ok(Slot::Sink),
            _ => Err("the destination must be a register".to_owned()),
        }
    }

    /// A 32-bit destination.
    fn target_w(&mut self, operand: &Operand) -> Result<u32> {
        self.width(operand, 32)?;
        match self.target(operand)? {
            Slot::W(index) => Ok(index),
            Slot::Sink => match self.register(32) {
                Slot::W(index) => Ok(index),
                _ => Err("no register".to_owned()),
            },
            _ => Err("expected a 32-bit destination".to_owned()),
        }
    }

    /// 32-bit destinations: those of a vector, or a single one.
    pub(super) fn targets_w(&mut self, operand: &Operand) -> Result<Vec<u32>> {
        match operand {
            Operand::Vector(list) => list.iter().map(|operand| self.target_w(operand)).collect(),
            other => Ok(vec![self.target_w(other)?]),
        }
    }

    /// 32-bit sources.
    pub(super) fn sources_w(&mut self, operand: &Operand) -> Result<Vec<u32>> {
        let list = match operand {
            Operand::Vector(list) => &list[..],
            other => std::slice::from_ref(other),
        };
        list.iter().try_for_each(|operand| self.width(operand, 32))?;
        list.iter().map(|operand| self.w(operand, Ty::B32)).collect()
    }

    pub(super) fn place(&self, name: &str) -> Result<Place> {
        if let Some(place) = self.places.get(&(self.now, name.to_owned())) {
            return Ok(*place);
        }
        if let Some(&at) = self.shared.get(name) {
            return Ok(Place { space: Space::Shared, at: u64::from(at) });
        }
        if let Some(global) = self.globals.get(name) {
            return Ok(Place { space: Space::Global, at: global.0 });
        }
        if self.module.globals().any(|one| one.name == name) {
            return Ok(Place { space: Space::Global, at: 0 });
        }
        Err(format!("unknown name `{name}`"))
    }

    /// An address, and the space that its symbol tells.
    pub(super) fn address(&mut self, operand: &Operand) -> Result<(Addr, Option<Space>)> {
        let Operand::Address(base, offset) = operand else {
            return Err("expected an address in brackets".to_owned());
        };
        Ok(match base {
            Base::Reg(register) => {
                if self.declared(*register).is_some_and(|found| found.bits < 32) {
                    return Err("an address has 32 or 64 bits".to_owned());
                }
                (Addr { base: self.reg(*register), offset: *offset }, None)
            }
            Base::Zero => (Addr { base: Slot::Sink, offset: *offset }, None),
            Base::Symbol(name) => {
                let place = self.place(name)?;
                (Addr { base: Slot::Sink, offset: offset.wrapping_add(place.at as i64) }, Some(place.space))
            }
        })
    }

    /// The address of an instruction that names a space, and the space after all: parameters of functions and of calls are in local
    /// memory. Constant memory is global here.
    pub(super) fn address_in(&mut self, space: Space, operand: &Operand) -> Result<(Addr, Space)> {
        let (addr, of) = self.address(operand)?;
        match (space, of) {
            (_, None) | (Space::Generic | Space::Const, Some(Space::Global)) => Ok((addr, space)),
            (Space::Param, Some(Space::Local)) => Ok((addr, Space::Local)),
            (space, Some(of)) if space == of => Ok((addr, space)),
            (Space::Generic, _) => Err("a generic address of this variable needs cvta".to_owned()),
            _ => Err("the variable is of another space".to_owned()),
        }
    }

    pub(super) fn label(&self, operand: &Operand) -> Result<u32> {
        let Operand::Symbol(name) = operand else {
            return Err("expected a label".to_owned());
        };
        let kernel = &self.module.kernels[self.functions[self.now]];
        let at = kernel.labels.get(name).ok_or_else(|| format!("no label `{name}`"))?;
        Ok(self.starts[self.now] + at)
    }

    fn special(&self, name: &str) -> Result<Initial> {
        let (base, component) = name.split_once('.').unwrap_or((name, ""));
        let dim = ["x", "y", "z"].into_iter().zip(0u8..).find(|(axis, _)| *axis == component);
        Ok(match (base, dim.map(|(_, dim)| dim)) {
            ("%tid", Some(dim)) => Initial::Tid(dim),
            ("%ntid", Some(dim)) => Initial::Ntid(dim),
            ("%ctaid", Some(dim)) => Initial::Ctaid(dim),
            ("%nctaid", Some(dim)) => Initial::Nctaid(dim),
            _ if base != name => return Err(format!("unknown register `{name}`")),
            ("%laneid", _) => Initial::Lane,
            ("%warpid", _) => Initial::Warp,
            ("%nwarpid", _) => Initial::Warps,
            ("%lanemask_eq", _) => Initial::Mask(0),
            ("%lanemask_lt", _) => Initial::Mask(1),
            ("%lanemask_le", _) => Initial::Mask(2),
            ("%lanemask_gt", _) => Initial::Mask(3),
            ("%lanemask_ge", _) => Initial::Mask(4),
            ("%dynamic_smem_size", _) => Initial::DynamicShared,
            ("%total_smem_size", _) => Initial::TotalShared,
            ("%nsmid", _) => Initial::Const(u64::from(self.module.sm_count)),
            // Times and places say nothing here.
            ("%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo" | "%smid", _) => {
                Initial::Const(0)
            }
            _ => return Err(format!("unknown register `{name}`")),
        })
    }
}
