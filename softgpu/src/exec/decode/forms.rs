//! Which forms PTX has: number and widths of operands, modifiers that must or may stand there. What ptxas refuses is refused here, so that
//! nothing is executed by guesswork. (PTX ISA 9.7.1 to 9.7.9; memory and warp instructions check themselves.)

use super::{Decoder, Result};
use crate::num::{Round, Ty};
use crate::ptx::{Instruction, Operand};

impl Decoder<'_> {
    /// Checks an instruction that works on the registers of one lane; others pass.
    pub(super) fn check_form(&self, one: &Instruction) -> Result<()> {
        let modifiers: Vec<&str> = one.modifiers.iter().map(String::as_str).collect();
        if one.opcode == "cvt" {
            return conversion(&modifiers);
        }
        let Some(widths) = widths(one, &modifiers) else {
            return Ok(());
        };
        if widths.len() != one.operands.len() {
            return Err(format!("expected {} operands", widths.len()));
        }
        for (operand, bits) in one.operands.iter().zip(widths) {
            self.width(operand, bits)?;
        }
        match modifiers.iter().rev().find_map(|name| Ty::from_name(name)) {
            _ if modifiers.contains(&"f32x2") => float(&one.opcode, Ty::F32, &modifiers),
            Some(ty) if ty.is_float() => float(&one.opcode, ty, &modifiers),
            Some(ty) => integer(&one.opcode, ty, &modifiers),
            None => Ok(()),
        }
    }

    /// A register has the width of its operand's type, exactly.
    fn width(&self, operand: &Operand, bits: u32) -> Result<()> {
        let registers = &self.module.kernels[self.functions[self.now]].registers;
        let check = |register: u32| match registers.get(register as usize) {
            Some(found) if found.bits != bits => {
                Err(format!("{} has {} bits, not {bits}", found.name, found.bits))
            }
            _ => Ok(()),
        };
        match operand {
            Operand::Reg(register) | Operand::NotReg(register) => check(*register),
            Operand::Pair(first, second) => check(*first).and_then(|()| check(*second)),
            _ => Ok(()),
        }
    }
}

/// Bits of each operand, the destination first; `None`: not checked here.
fn widths(one: &Instruction, modifiers: &[&str]) -> Option<Vec<u32>> {
    let types: Vec<u32> = modifiers
        .iter()
        .filter_map(|name| if *name == "f32x2" { Some(64) } else { Ty::from_name(name).map(Ty::bits) })
        .collect();
    let b = *types.last()?;
    let (first, wide) = (types[0], if modifiers.contains(&"wide") { 2 * b } else { b });
    let is_vector = |operand: &Operand| matches!(operand, Operand::Vector(_));
    Some(match one.opcode.as_str() {
        "mov" if one.operands.iter().any(is_vector) => return None,
        "mov" | "neg" | "abs" | "not" | "cnot" | "brev" | "sqrt" | "rcp" | "rsqrt" | "ex2" | "lg2"
        | "sin" | "cos" | "tanh" => vec![b; 2],
        "popc" | "clz" | "bfind" => vec![32, b],
        "min" | "max" if one.operands.len() == 4 => vec![b; 4],
        "add" | "sub" | "div" | "rem" | "and" | "or" | "xor" | "copysign" | "addc" | "subc" | "mul24"
        | "min" | "max" => vec![b; 3],
        "mul" => vec![wide, b, b],
        "mad" | "fma" | "madc" => vec![wide, b, b, wide],
        "sad" | "mad24" => vec![b; 4],
        "shl" | "shr" => vec![b, b, 32],
        "shf" | "prmt" | "fns" | "dp4a" | "dp2a" => vec![32; 4],
        "lop3" => vec![32; 5],
        "bfe" => vec![b, b, 32, 32],
        "bfi" => vec![b, b, b, 32, 32],
        "selp" => vec![b, b, b, 1],
        "slct" => vec![first, first, first, b],
        "set" => vec![first, b, b],
        "setp" if ["and", "or", "xor"].iter().any(|name| modifiers.contains(name)) => vec![1, b, b, 1],
        "setp" => vec![1, b, b],
        "testp" => vec![1, b],
        _ => return None,
    })
}

fn is_rounding(name: &str) -> bool {
    matches!(name, "rn" | "rz" | "rm" | "rp")
}

/// How a result is rounded: exactly one of these words has to stand there, or may (`""`).
fn roundings(opcode: &str, ty: Ty) -> &'static [&'static str] {
    let half = matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2);
    match opcode {
        "add" | "sub" | "mul" if half => &["", "rn"],
        "add" | "sub" | "mul" => &["", "rn", "rz", "rm", "rp"],
        "fma" if half => &["rn"],
        "fma" | "mad" => &["rn", "rz", "rm", "rp"],
        "div" if ty == Ty::F32 => &["rn", "rz", "rm", "rp", "approx", "full"],
        "sqrt" | "rcp" if ty == Ty::F32 => &["rn", "rz", "rm", "rp", "approx"],
        "div" | "sqrt" | "rcp" => &["rn", "rz", "rm", "rp"],
        "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => &["approx"],
        _ => &[""],
    }
}

/// Other modifiers that a floating point instruction may have.
fn options(opcode: &str, ty: Ty) -> &'static [&'static str] {
    let bf16 = matches!(ty, Ty::Bf16 | Ty::Bf16x2);
    match (opcode, ty) {
        ("setp" | "set" | "slct" | "selp" | "mov" | "testp", _) => &["*"],
        ("min" | "max", Ty::F64) => &[],
        ("min" | "max", _) if bf16 => &["NaN", "xorsign", "abs"],
        ("min" | "max", _) => &["ftz", "NaN", "xorsign", "abs"],
        ("rsqrt", Ty::F64) => &["ftz"],
        (_, Ty::F64) => &[],
        ("fma", _) if bf16 => &["relu"],
        ("ex2", _) if bf16 => &["ftz"],
        (_, Ty::Bf16 | Ty::Bf16x2) => &[],
        ("fma", Ty::F16 | Ty::F16x2) => &["ftz", "sat", "relu"],
        ("add" | "sub" | "mul" | "fma" | "mad", _) => &["ftz", "sat"],
        ("tanh" | "copysign", _) => &[],
        ("ex2", Ty::F16 | Ty::F16x2) => &["ftz"],
        _ => &["ftz"],
    }
}

fn float(opcode: &str, ty: Ty, modifiers: &[&str]) -> Result<()> {
    let (kinds, options) = (roundings(opcode, ty), options(opcode, ty));
    if options == ["*"] {
        return Ok(());
    }
    let is_kind = |name: &str| is_rounding(name) || matches!(name, "approx" | "full");
    let found: Vec<&str> = modifiers.iter().copied().filter(|name| is_kind(name)).collect();
    let allowed = match found[..] {
        [] => kinds.contains(&""),
        [one] => kinds.contains(&one),
        _ => false,
    };
    if !allowed {
        return Err("unknown or missing rounding".to_owned());
    }
    if opcode == "ex2" && matches!(ty, Ty::Bf16 | Ty::Bf16x2) && !modifiers.contains(&"ftz") {
        return Err("ex2 of bf16 has .ftz".to_owned());
    }
    let known = |name: &&str| is_kind(name) || Ty::from_name(name).is_some() || *name == "f32x2";
    match modifiers.iter().find(|name| !known(name) && !options.contains(name)) {
        Some(name) => Err(format!("unknown modifier `.{name}`")),
        None => Ok(()),
    }
}

/// The modifiers that the decoder of integers takes off before it knows whose they are.
fn integer(opcode: &str, ty: Ty, modifiers: &[&str]) -> Result<()> {
    let has = |name| modifiers.contains(&name);
    let part = has("lo") || has("hi") || has("wide");
    let parts = matches!(opcode, "mul" | "mad" | "madc" | "mul24" | "mad24" | "dp2a");
    let saturates = ty == Ty::S32 && (matches!(opcode, "add" | "sub") || opcode == "mad" && has("hi"));
    let relus = matches!(ty, Ty::S32 | Ty::S16x2) && matches!(opcode, "min" | "max");
    let setp = matches!(opcode, "setp" | "set");
    match () {
        () if part != parts && !setp => Err("unknown or missing part of the product".to_owned()),
        () if has("sat") && !saturates => Err("unknown modifier `.sat`".to_owned()),
        () if has("relu") && !relus => Err("unknown modifier `.relu`".to_owned()),
        () => Ok(()),
    }
}

/// `cvt`: which roundings a pair of types must, may and must not have (PTX ISA 9.7.9.21).
fn conversion(modifiers: &[&str]) -> Result<()> {
    let types: Vec<Ty> = modifiers.iter().filter_map(|name| Ty::from_name(name)).collect();
    let [to, from] = types[..] else {
        return Err("expected two types".to_owned());
    };
    let rounds: Vec<Round> = modifiers.iter().filter_map(|name| Round::from_name(name)).collect();
    let packed = matches!(to, Ty::F16x2 | Ty::Bf16x2);
    let narrows = packed
        || to == Ty::Tf32
        || to.bits() < from.bits()
        || (to.bits() == from.bits() && to != from)
        || (from.is_int() && to.is_float());
    let allowed = match (from.is_float(), to.is_float(), &rounds[..]) {
        (false, false, list) => list.is_empty(),
        (true, false, [round]) => round.to_integer(),
        (_, true, [Round::Rna]) => to == Ty::Tf32,
        (_, true, [round]) if narrows => !round.to_integer(),
        (true, true, [round]) => to == from && round.to_integer(),
        (true, true, []) => !narrows,
        _ => false,
    };
    if !allowed {
        return Err("unknown or missing rounding".to_owned());
    }
    let half = packed || matches!(to, Ty::F16 | Ty::Bf16 | Ty::Tf32);
    if (modifiers.contains(&"relu") || modifiers.contains(&"satfinite")) && !(half && from.is_float()) {
        return Err("unknown modifier".to_owned());
    }
    let single = from == Ty::F32 || to == Ty::F32;
    if modifiers.contains(&"ftz") && !single {
        return Err("unknown modifier `.ftz`".to_owned());
    }
    Ok(())
}
