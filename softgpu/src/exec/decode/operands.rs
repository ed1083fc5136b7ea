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
                let value = special(name)?;
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

    pub(super) fn target_w(&mut self, operand: &Operand) -> Result<u32> {
        match self.target(operand)? {
            Slot::W(index) => Ok(index),
            Slot::Sink => match self.register(32) {
                Slot::W(index) => Ok(index),
                _ => Err("no register".to_owned()),
            },
            _ => Err("expected a 32-bit destination".to_owned()),
        }
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
            Base::Reg(register) => (Addr { base: self.reg(*register), offset: *offset }, None),
            Base::Zero => (Addr { base: Slot::Sink, offset: *offset }, None),
            Base::Symbol(name) => {
                let place = self.place(name)?;
                (Addr { base: Slot::Sink, offset: offset.wrapping_add(place.at as i64) }, Some(place.space))
            }
        })
    }

    pub(super) fn label(&self, operand: &Operand) -> Result<u32> {
        let Operand::Symbol(name) = operand else {
            return Err("expected a label".to_owned());
        };
        let kernel = &self.module.kernels[self.functions[self.now]];
        let at = kernel.labels.get(name).ok_or_else(|| format!("no label `{name}`"))?;
        Ok(self.starts[self.now] + at)
    }
}

fn special(name: &str) -> Result<Initial> {
    let (base, component) = name.split_once('.').unwrap_or((name, ""));
    let dim = match component {
        "x" | "" => 0,
        "y" => 1,
        "z" => 2,
        _ => return Err(format!("unknown register `{name}`")),
    };
    Ok(match base {
        "%tid" => Initial::Tid(dim),
        "%ntid" => Initial::Ntid(dim),
        "%ctaid" => Initial::Ctaid(dim),
        "%nctaid" => Initial::Nctaid(dim),
        "%laneid" => Initial::Lane,
        "%warpid" => Initial::Warp,
        "%nwarpid" => Initial::Warps,
        "%lanemask_eq" => Initial::Mask(0),
        "%lanemask_lt" => Initial::Mask(1),
        "%lanemask_le" => Initial::Mask(2),
        "%lanemask_gt" => Initial::Mask(3),
        "%lanemask_ge" => Initial::Mask(4),
        "%dynamic_smem_size" => Initial::DynamicShared,
        "%total_smem_size" => Initial::TotalShared,
        // Times and places say nothing here.
        "%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo" | "%smid" => {
            Initial::Const(0)
        }
        "%nsmid" => Initial::Const(1),
        _ => return Err(format!("unknown register `{name}`")),
    })
}
