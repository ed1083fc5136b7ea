//! Which types an opcode has (PTX ISA 9.7.1, 9.7.2, 9.7.6 to 9.7.9), and which comparisons a type. Floating point arithmetic: `num` knows.

use super::Result;
use crate::num::{Cmp, Ty};

const INTS: &[Ty] = &[Ty::U16, Ty::U32, Ty::U64, Ty::S16, Ty::S32, Ty::S64];
const LONG: &[Ty] = &[Ty::U32, Ty::U64, Ty::S32, Ty::S64];
const BITS: &[Ty] = &[Ty::B16, Ty::B32, Ty::B64];
const SINGLE: &[Ty] = &[Ty::F32, Ty::F64];
const HALVES: &[Ty] = &[Ty::F16, Ty::Bf16];
const PAIRS: &[Ty] = &[Ty::F16x2, Ty::Bf16x2];
const INT_PAIRS: &[Ty] = &[Ty::U16x2, Ty::S16x2];

/// Refuses a type at the end of an instruction that does not go with its opcode; `cc`: the carry is written.
pub(super) fn check(opcode: &str, ty: Ty, cc: bool) -> Result<()> {
    let lists: &[&[Ty]] = match opcode {
        "mov" => &[BITS, INTS, SINGLE, &[Ty::Pred]],
        "selp" => &[BITS, INTS, SINGLE],
        "setp" => &[BITS, INTS, SINGLE, HALVES],
        "set" => &[BITS, INTS, SINGLE, HALVES, PAIRS],
        "slct" => &[&[Ty::S32, Ty::F32]],
        "testp" => &[SINGLE],
        "match" => &[&[Ty::B32, Ty::B64]],
        _ if ty.is_float() => return Ok(()),
        "add" | "sub" if cc => &[LONG],
        "addc" | "subc" => &[LONG],
        "add" | "min" | "max" => &[INTS, INT_PAIRS],
        "sub" | "mul" | "mad" | "div" | "rem" | "sad" => &[INTS],
        "abs" | "neg" => &[&[Ty::S16, Ty::S32, Ty::S64]],
        "mul24" | "mad24" | "dp4a" | "dp2a" => &[&[Ty::U32, Ty::S32]],
        "and" | "or" | "xor" | "not" => &[BITS, &[Ty::Pred]],
        "cnot" | "shl" => &[BITS],
        "shr" => &[BITS, INTS],
        "popc" | "clz" | "brev" | "bfi" => &[&[Ty::B32, Ty::B64]],
        "bfind" | "bfe" => &[LONG],
        "shf" | "prmt" | "fns" | "lop3" | "shfl" | "activemask" => &[&[Ty::B32]],
        "redux" => &[&[Ty::U32, Ty::S32, Ty::B32]],
        _ => return Ok(()),
    };
    allowed(ty, lists)
}

/// What `slct` chooses between, as `selp` does.
pub(super) fn chosen(ty: Ty) -> Result<()> {
    check("selp", ty, false)
}

/// What loads and stores move.
pub(super) fn in_memory(ty: Ty) -> Result<()> {
    allowed(ty, &[BITS, INTS, SINGLE, &[Ty::B8, Ty::U8, Ty::S8]])
}

fn allowed(ty: Ty, lists: &[&[Ty]]) -> Result<()> {
    if lists.iter().any(|list| list.contains(&ty)) {
        return Ok(());
    }
    Err(format!("not an instruction of .{}", ty.name()))
}

/// Untyped bits are equal or not; only numbers without sign are lower or higher, only floats unordered.
pub(super) fn comparison(cmp: Cmp, ty: Ty, ftz: bool) -> Result<()> {
    let is_unsigned = matches!(ty, Ty::U16 | Ty::U32 | Ty::U64);
    let known = match cmp {
        Cmp::Eq | Cmp::Ne => true,
        Cmp::Lt | Cmp::Le | Cmp::Gt | Cmp::Ge => !BITS.contains(&ty),
        Cmp::Lo | Cmp::Ls | Cmp::Hi | Cmp::Hs => is_unsigned,
        _ => ty.is_float(),
    };
    match ftz {
        _ if !known => Err(format!("not a comparison of .{}", ty.name())),
        true if !matches!(ty, Ty::F32 | Ty::F16 | Ty::F16x2) => Err("unknown modifier `.ftz`".to_owned()),
        _ => Ok(()),
    }
}
