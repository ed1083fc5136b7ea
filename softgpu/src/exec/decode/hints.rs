//! What tells caches what to do, scopes and orders: of all of it only that an access is atomic matters here.

use super::super::code::{Kind, ScalarFn, Slot};
use super::{Decoder, Result, take};
use crate::num::Ty;
use crate::ptx::{Instruction, Operand};

/// What remains of the modifiers taken off.
pub(super) struct Hints {
    /// Volatile, relaxed, acquire, release: no race with other such.
    pub is_atomic: bool,
    /// `.L2::cache_hint`: the last operand is a policy.
    has_policy: bool,
}

/// Cache operators and orders of an opcode (PTX ISA 9.7.9.1, 9.7.9.8 and on).
fn known(opcode: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match opcode {
        "ld" => (&["ca", "cg", "cs", "lu", "cv", "nc", "weak"], &["volatile", "relaxed", "acquire", "mmio"]),
        "st" => (&["wb", "cg", "cs", "wt", "weak"], &["volatile", "relaxed", "release", "mmio"]),
        "atom" => (&[], &["relaxed", "acquire", "release", "acq_rel"]),
        "red" => (&[], &["relaxed", "release"]),
        "cp" => (&["ca", "cg"], &[]),
        _ => (&[], &[]),
    }
}

fn is_scope(name: &str) -> bool {
    matches!(name, "cta" | "cluster" | "gpu" | "sys")
}

/// How long a line is to stay, and how much to fetch.
fn is_level(opcode: &str, name: &str) -> bool {
    let fetch = matches!(name, "L2::64B" | "L2::128B" | "L2::256B");
    let keep = matches!(
        name,
        "L1::evict_normal"
            | "L1::evict_unchanged"
            | "L1::evict_first"
            | "L1::evict_last"
            | "L1::no_allocate"
            | "L2::evict_normal"
            | "L2::evict_first"
            | "L2::evict_last"
    );
    match opcode {
        "ld" => fetch || keep,
        "st" => keep,
        "cp" => fetch,
        _ => false,
    }
}

/// Takes them off; what the opcode does not have stays, as unknown modifiers.
pub(super) fn hints(opcode: &str, modifiers: &mut Vec<&str>) -> Result<Hints> {
    let (caches, orders) = known(opcode);
    let ordered: Vec<&str> = modifiers.iter().copied().filter(|name| orders.contains(name)).collect();
    let scoped = modifiers.iter().any(|name| is_scope(name));
    let has_policy = opcode != "ldu" && take(modifiers, "L2::cache_hint");
    modifiers.retain(|name| !(caches.contains(name) || orders.contains(name) || is_level(opcode, name)));
    // Atomics may go without order and scope; loads and stores have both or none, but for volatile ones.
    let may_scope = match opcode {
        "atom" | "red" => true,
        _ => ordered.last().is_some_and(|name| *name != "volatile"),
    };
    if may_scope {
        modifiers.retain(|name| !is_scope(name));
    }
    if may_scope && !scoped && matches!(opcode, "ld" | "st") {
        return Err("expected a scope".to_owned());
    }
    if ordered.len() > 1 && ordered != ["mmio", "relaxed"] {
        return Err(format!("unknown modifier `.{}`", ordered[1]));
    }
    Ok(Hints { is_atomic: !ordered.is_empty(), has_policy })
}

impl Decoder<'_> {
    /// The operands without the cache policy, if there is to be one.
    pub(super) fn without_policy<'b>(&self, operands: &'b [Operand], hints: &Hints) -> Result<&'b [Operand]> {
        match operands {
            _ if !hints.has_policy => Ok(operands),
            [rest @ .., policy @ Operand::Reg(_)] => self.width(policy, 64).map(|()| rest),
            _ => Err("expected a cache policy".to_owned()),
        }
    }

    /// `createpolicy`: policies say nothing here.
    pub(super) fn policy(&mut self, one: &Instruction, modifiers: &[&str]) -> Result<(Kind, String)> {
        let first = |name: &str| {
            matches!(name, "L2::evict_last" | "L2::evict_normal" | "L2::evict_first" | "L2::evict_unchanged")
        };
        let second = |name: &str| matches!(name, "L2::evict_first" | "L2::evict_unchanged");
        let known = match modifiers {
            ["range", "global", a, "b64"] | ["fractional" | "range", a, "b64"] => first(a),
            ["range", "global", a, b, "b64"] | ["fractional" | "range", a, b, "b64"] => first(a) && second(b),
            ["cvt", "L2", "b64"] => true,
            _ => false,
        };
        let (d, sources) = one.operands.split_first().ok_or("expected operands")?;
        let fits = match (modifiers.first(), sources) {
            (Some(&"fractional"), [] | [Operand::F32(_) | Operand::F64(_)]) => true,
            (Some(&"range"), [place, first, whole]) => {
                self.address(place)?;
                self.width(first, 32)?;
                self.width(whole, 32)?;
                true
            }
            (Some(&"cvt"), [property]) => self.width(property, 64).is_ok(),
            _ => false,
        };
        if !(known && fits) {
            return Err("unknown policy".to_owned());
        }
        self.width(d, 64)?;
        let zero = self.d(&Operand::Int(0), Ty::B64)?;
        let f: ScalarFn = Box::new(|a, _, _| a);
        let s = [Slot::D(zero), Slot::Sink, Slot::Sink];
        Ok((Kind::Scalar { f, d: self.target(d)?, s }, "other".to_owned()))
    }
}
