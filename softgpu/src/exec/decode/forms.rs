//! Which forms PTX has: number and widths of operands, modifiers that must or may stand there. What ptxas refuses is refused here, so that
//! nothing is executed by guesswork. (PTX ISA 9.7.1 to 9.7.9; memory and barriers check themselves.)

use super::{Decoder, Result, types};
use crate::num::{Round, Ty};
use crate::ptx::{Instruction, Operand, Register};

impl Decoder<'_> {
    /// Checks an instruction that works on registers; others pass.
    pub(super) fn check_form(&self, one: &Instruction) -> Result<()> {
        let modifiers: Vec<&str> = one.modifiers.iter().map(String::as_str).collect();
        if one.opcode == "cvt" {
            let (to, from) = conversion(&modifiers)?;
            let (d, sources) = one.operands.split_first().ok_or("expected operands")?;
            self.fits(d, to)?;
            return sources.iter().try_for_each(|source| self.fits(source, from));
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
        if modifiers.contains(&"f32x2") {
            return float(&one.opcode, Ty::F32, &modifiers);
        }
        let Some(ty) = modifiers.iter().rev().find_map(|name| Ty::from_name(name)) else {
            return Ok(());
        };
        types::check(&one.opcode, ty, modifiers.contains(&"cc"))?;
        if ty.is_float() { float(&one.opcode, ty, &modifiers) } else { integer(&one.opcode, ty, &modifiers) }
    }

    /// The register as it was declared.
    pub(super) fn declared(&self, register: u32) -> Option<&Register> {
        self.module.kernels[self.functions[self.now]].registers.get(register as usize)
    }

    /// A register has the width of its operand's type, exactly; the second of a pair is a predicate.
    pub(super) fn width(&self, operand: &Operand, bits: u32) -> Result<()> {
        let check = |register: u32, bits: u32| match self.declared(register) {
            Some(found) if found.bits != bits => {
                Err(format!("{} has {} bits, not {bits}", found.name, found.bits))
            }
            _ => Ok(()),
        };
        match operand {
            Operand::Reg(register) | Operand::NotReg(register) => check(*register, bits),
            Operand::Pair(first, second) => check(*first, bits).and_then(|()| check(*second, 1)),
            _ => Ok(()),
        }
    }

    /// In loads, stores and conversions a register may be wider than an integer, never narrower (PTX ISA 9.4.1). Floats fit exactly: PTX
    /// lets untyped registers be wider, of which nobody makes use.
    pub(super) fn fits(&self, operand: &Operand, ty: Ty) -> Result<()> {
        match operand {
            Operand::Reg(register) => match self.declared(*register) {
                Some(found) if found.bits < ty.bits() || ty.is_float() && found.bits > ty.bits() => {
                    Err(format!("{} has {} bits, the type {}", found.name, found.bits, ty.bits()))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether the operand is a register wider than the type.
    pub(super) fn is_wider(&self, operand: &Operand, ty: Ty) -> bool {
        let Operand::Reg(register) = operand else {
            return false;
        };
        self.declared(*register).is_some_and(|found| found.bits > ty.bits())
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
        // Of three numbers: f32 alone, and without the sign of all.
        "min" | "max"
            if one.operands.len() == 4 && modifiers.contains(&"f32") && !modifiers.contains(&"xorsign") =>
        {
            vec![b; 4]
        }
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
        "shfl" => vec![32; 5],
        "vote" => vec![b, 1, 32],
        "match" => vec![32, b, 32],
        "redux" => vec![32; 3],
        "activemask" => vec![32],
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
        "mad" if half => &[],
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
        // rsqrt.approx.ftz.f64 is another function, of the upper word.
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
    let (kinds, mut options) = (roundings(opcode, ty), options(opcode, ty));
    if modifiers.contains(&"f32x2") {
        if !matches!(opcode, "add" | "sub" | "mul" | "fma") {
            return Err("not an instruction of .f32x2".to_owned());
        }
        options = &["ftz"];
    }
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
    if modifiers.contains(&"sat") && modifiers.contains(&"relu") {
        return Err("either .sat or .relu".to_owned());
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
    let wide = !has("wide") || matches!(opcode, "mul" | "mad");
    match () {
        () if (part != parts || !wide) && !setp => Err("unknown or missing part of the product".to_owned()),
        () if has("sat") && !saturates => Err("unknown modifier `.sat`".to_owned()),
        () if has("relu") && !relus => Err("unknown modifier `.relu`".to_owned()),
        () => Ok(()),
    }
}

/// `cvt`: which roundings a pair of types must, may and must not have (PTX ISA 9.7.9.21). The two types, the destination's first.
fn conversion(modifiers: &[&str]) -> Result<(Ty, Ty)> {
    let has = |name| modifiers.contains(&name);
    let types: Vec<Ty> = modifiers.iter().filter_map(|name| Ty::from_name(name)).collect();
    let [to, from] = types[..] else {
        return Err("expected two types".to_owned());
    };
    let scalar = |ty: Ty| ty.is_int() || matches!(ty, Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::F64);
    let packed = matches!(to, Ty::F16x2 | Ty::Bf16x2);
    let from_single = from == Ty::F32 && (packed || to == Ty::Tf32);
    if !(scalar(from) && scalar(to) || from_single) {
        return Err("not a conversion of these types".to_owned());
    }
    let rounds: Vec<Round> = modifiers.iter().filter_map(|name| Round::from_name(name)).collect();
    // The forms with two roundings, to nearest and to zero; tf32 has one more.
    let short = from_single || has("relu") || has("satfinite");
    let narrows = to.bits() < from.bits()
        || (to.bits() == from.bits() && to != from)
        || (from.is_int() && to.is_float());
    let allowed = match (from.is_float(), to.is_float(), &rounds[..]) {
        (_, _, [Round::Rn | Round::Rz]) if short => true,
        (_, _, [Round::Rna]) if to == Ty::Tf32 => !has("relu"),
        _ if short => false,
        (false, false, list) => list.is_empty(),
        (true, false, [round]) => round.to_integer(),
        (_, true, [round]) if narrows => !round.to_integer() && *round != Round::Rna,
        (true, true, [round]) => to == from && round.to_integer(),
        (true, true, []) => !narrows,
        _ => false,
    };
    if !allowed {
        return Err("unknown or missing rounding".to_owned());
    }
    let half = packed || matches!(to, Ty::F16 | Ty::Bf16 | Ty::Tf32);
    let single = from == Ty::F32 || to == Ty::F32;
    match () {
        () if short && !(half && from == Ty::F32) => Err("unknown modifier".to_owned()),
        () if has("sat") && (short || to == Ty::Bf16) => Err("unknown modifier `.sat`".to_owned()),
        () if has("ftz") && (short || !single) => Err("unknown modifier `.ftz`".to_owned()),
        () => Ok((to, from)),
    }
}
