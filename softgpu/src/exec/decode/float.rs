//! Floating point arithmetic and conversions.

use super::super::code::{Kind, Slot};
use super::super::vector;
use super::{Decoder, Result, last_type, none_left, take};
use crate::num::{self, Conversion, FloatMode, FloatOp, Round, TestKind, Ty};
use crate::ptx::{Instruction, Operand};

/// Operation and class of a floating point opcode.
fn operation(opcode: &str) -> Option<(FloatOp, &'static str)> {
    Some(match opcode {
        "add" => (FloatOp::Add, "float"),
        "sub" => (FloatOp::Sub, "float"),
        "mul" => (FloatOp::Mul, "float"),
        "fma" | "mad" => (FloatOp::Fma, "fma"),
        "div" => (FloatOp::Div, "div"),
        "min" => (FloatOp::Min, "float"),
        "max" => (FloatOp::Max, "float"),
        "neg" => (FloatOp::Neg, "float"),
        "abs" => (FloatOp::Abs, "float"),
        "copysign" => (FloatOp::CopySign, "float"),
        "sqrt" => (FloatOp::Sqrt, "mufu"),
        "rcp" => (FloatOp::Rcp, "mufu"),
        "rsqrt" => (FloatOp::Rsqrt, "mufu"),
        "ex2" => (FloatOp::Ex2, "mufu"),
        "lg2" => (FloatOp::Lg2, "mufu"),
        "sin" => (FloatOp::Sin, "mufu"),
        "cos" => (FloatOp::Cos, "mufu"),
        "tanh" => (FloatOp::Tanh, "mufu"),
        _ => return None,
    })
}

/// The modifiers of arithmetic, all understood.
fn mode(mut modifiers: Vec<&str>) -> Result<FloatMode> {
    let mut mode = FloatMode::default();
    for (name, round) in [("rn", Round::Rn), ("rz", Round::Rz), ("rm", Round::Rm), ("rp", Round::Rp)] {
        if take(&mut modifiers, name) {
            mode.round = round;
        }
    }
    mode.ftz = take(&mut modifiers, "ftz");
    mode.sat = take(&mut modifiers, "sat");
    mode.relu = take(&mut modifiers, "relu");
    mode.nan = take(&mut modifiers, "NaN");
    mode.xorsign_abs = take(&mut modifiers, "xorsign");
    if mode.xorsign_abs && !take(&mut modifiers, "abs") {
        return Err("expected .xorsign.abs".to_owned());
    }
    take(&mut modifiers, "approx");
    take(&mut modifiers, "full");
    none_left(&modifiers)?;
    Ok(mode)
}

impl Decoder<'_> {
    pub(super) fn float(
        &mut self,
        one: &Instruction,
        modifiers: Vec<&str>,
        ty: Ty,
    ) -> Result<(Kind, String)> {
        let (op, class) = operation(&one.opcode).ok_or("unknown instruction")?;
        let mode = mode(modifiers)?;
        num::float(op, ty, &mode, 0, 0, 0).ok_or("unknown form")?;
        let three = one.operands.len() == 4 && matches!(op, FloatOp::Min | FloatOp::Max);
        let f = move |a, b, c| {
            let first = num::float(op, ty, &mode, a, b, c).unwrap_or(0);
            if three { num::float(op, ty, &mode, first, c, 0).unwrap_or(0) } else { first }
        };
        let plain = mode == FloatMode::default() && !three;
        let name = match op {
            _ if !plain => "",
            FloatOp::Fma => "fma",
            _ => one.opcode.as_str(),
        };
        Ok((self.fast_or_scalar(one, name, ty, Box::new(f))?, class.to_owned()))
    }

    /// `fma.rn.f32x2` and its like: two f32 in 64 bits.
    pub(super) fn float_pair(
        &mut self,
        one: &Instruction,
        mut modifiers: Vec<&str>,
    ) -> Result<(Kind, String)> {
        modifiers.pop();
        let (op, class) = operation(&one.opcode).ok_or("unknown instruction")?;
        let mode = mode(modifiers)?;
        let half = move |a: u64, b: u64, c: u64, by: u32| {
            num::float(
                op,
                Ty::F32,
                &mode,
                a >> by & 0xffff_ffff,
                b >> by & 0xffff_ffff,
                c >> by & 0xffff_ffff,
            )
            .unwrap_or(0)
        };
        let f = move |a, b, c| half(a, b, c, 0) | half(a, b, c, 32) << 32;
        Ok((self.scalar(one, &[Ty::B64; 3], Box::new(f))?, class.to_owned()))
    }

    pub(super) fn testp(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let ty = last_type(&mut modifiers)?;
        let kind = match modifiers[..] {
            ["finite"] => TestKind::Finite,
            ["infinite"] => TestKind::Infinite,
            ["number"] => TestKind::Number,
            ["notanumber"] => TestKind::NotANumber,
            ["normal"] => TestKind::Normal,
            ["subnormal"] => TestKind::Subnormal,
            _ => return Err("unknown test".to_owned()),
        };
        let [to, a] = &one.operands[..] else {
            return Err("expected two operands".to_owned());
        };
        let ((d, d2), a) = (self.two_predicates(to)?, self.source(a, ty)?);
        let f = super::super::code::Compare::Scalar(Box::new(move |a, _| num::testp(kind, ty, a)));
        let logic = super::super::code::Logic::First;
        Ok((Kind::SetP { f, d, d2, a, b: a, logic, c: None }, "float".to_owned()))
    }

    pub(super) fn convert(&mut self, one: &Instruction, modifiers: &[&str]) -> Result<(Kind, String)> {
        let mut modifiers = modifiers.to_vec();
        let from = last_type(&mut modifiers)?;
        let to = last_type(&mut modifiers)?;
        let mut mode = Conversion::default();
        let is_rounded = modifiers.iter().any(|name| Round::from_name(name).is_some());
        for name in ["rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi"] {
            if take(&mut modifiers, name) {
                mode.round = Round::from_name(name).unwrap_or_default();
            }
        }
        mode.ftz = take(&mut modifiers, "ftz");
        mode.sat = take(&mut modifiers, "sat");
        mode.relu = take(&mut modifiers, "relu");
        mode.satfinite = take(&mut modifiers, "satfinite");
        none_left(&modifiers)?;
        let class = "cvt".to_owned();
        if matches!(to, Ty::F16x2 | Ty::Bf16x2) {
            if from != Ty::F32 || one.operands.len() != 3 {
                return Err("packed conversions are from two f32".to_owned());
            }
            let f = move |a: u64, b: u64, _| u64::from(num::convert_packed(to, &mode, a as u32, b as u32));
            return Ok((self.scalar(one, &[Ty::F32; 2], Box::new(f))?, class));
        }
        let [target, source] = &one.operands[..] else {
            return Err("expected two operands".to_owned());
        };
        let d = self.target(target)?;
        let s = self.source(source, from)?;
        // The vector forms do not fill a wider register with the sign of a narrower result.
        let fills = to.is_signed() && self.is_wider(target, to);
        if mode == Conversion::default()
            && !(is_rounded || fills)
            && let Some(kind) = self.fast_convert(to, from, d, s)?
        {
            return Ok((kind, class));
        }
        // Results narrower than their register are sign-extended by `num`, which all registers take as they come.
        let f = Box::new(move |a, _, _| num::convert(to, from, &mode, a));
        Ok((Kind::Scalar { f, d, s: [s, Slot::Sink, Slot::Sink] }, class))
    }

    fn fast_convert(&mut self, to: Ty, from: Ty, d: Slot, s: Slot) -> Result<Option<Kind>> {
        Ok(match (d, s) {
            (Slot::D(d), Slot::W(a)) if to.is_int() && to.bits() == 64 => {
                let c = self.d(&Operand::Int(0), Ty::U64)?;
                vector::wide("cvt", from).map(|f| Kind::Wide { f, d, a, b: a, c })
            }
            (Slot::W(d), Slot::D(a))
                if to.is_int() && to.bits() == 32 && from.bits() == 64 && from.is_int() =>
            {
                Some(Kind::Narrow { f: vector::truncate(), d, a })
            }
            (Slot::W(d), Slot::W(a)) => vector::convert(to, from).map(|f| Kind::W { f, d, s: [a, a, a] }),
            _ => None,
        })
    }
}
