//! What an instruction needs of `.target` (PTX ISA, "Target ISA Notes" of each). Only what is newer than sm_70.

use super::Result;
use crate::ptx::Instruction;

/// Refuses what is newer than the module's target.
pub(super) fn check(one: &Instruction, target: u32) -> Result<()> {
    match needed(one) {
        newer if newer > target => Err(format!("needs .target sm_{newer} or newer")),
        _ => Ok(()),
    }
}

fn needed(one: &Instruction) -> u32 {
    let has = |name: &str| one.modifiers.iter().any(|modifier| modifier == name);
    let (f16, bf16) = (has("f16") || has("f16x2"), has("bf16") || has("bf16x2"));
    let pairs = has("u16x2") || has("s16x2");
    let three = one.operands.len() == 4;
    let by_opcode = match one.opcode.as_str() {
        "cp" | "redux" | "createpolicy" | "applypriority" => 80,
        "stmatrix" | "griddepcontrol" | "setmaxnreg" => 90,
        "ldmatrix" => 75,
        "mma" => matrix(&has),
        "cvt" => conversion(&has),
        "add" | "sub" | "mul" | "fma" if has("f32x2") => 100,
        "add" | "sub" | "mul" | "set" | "setp" | "atom" | "red" | "ex2" | "tanh" if bf16 => 90,
        "add" if pairs => 90,
        "ex2" if f16 => 75,
        "tanh" => 75,
        "fma" if has("relu") => 80,
        "min" | "max" if three => 100,
        "min" | "max" if pairs || has("relu") => 90,
        "min" | "max" if has("xorsign") => 86,
        "min" | "max" if has("NaN") || f16 => 80,
        "fence" | "membar" if has("async") || has("acquire") || has("release") => 90,
        "ld" | "st" if has("v8") || has("v4") && ["b64", "u64", "s64", "f64"].into_iter().any(has) => 100,
        "ld" | "st" if one.modifiers.iter().any(|name| name.starts_with("L2::evict")) => 100,
        "prefetch" if one.modifiers.iter().any(|name| name.starts_with("L2::evict")) => 80,
        _ => 0,
    };
    let by_modifier = match () {
        () if has("cluster") => 90,
        () if bf16 || has("L2::cache_hint") || has("L2::256B") => 80,
        () if has("L2::64B") || has("L2::128B") => 75,
        () => 0,
    };
    by_opcode.max(by_modifier)
}

fn matrix(has: &impl Fn(&str) -> bool) -> u32 {
    let half = has("m16n8k8") && !has("bf16") && !has("tf32");
    if half || has("m8n8k16") { 75 } else { 80 }
}

fn conversion(has: &impl Fn(&str) -> bool) -> u32 {
    match () {
        () if has("tf32") && !has("rna") && has("satfinite") => 100,
        () if has("tf32") && !has("rna") => 90,
        () if has("bf16") && (has("ftz") || !has("f32")) => 90,
        () if ["f16x2", "bf16x2", "bf16", "tf32", "relu"].into_iter().any(has) => 80,
        () => 0,
    }
}
