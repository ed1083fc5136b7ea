//! Fences, prefetches, waits: what they do does not show here. Only forms that PTX has.

use super::super::code::Kind;
use super::{Decoder, Result};
use crate::num::Ty;
use crate::ptx::{Instruction, Operand};

impl Decoder<'_> {
    pub(super) fn quiet(&mut self, one: &Instruction, modifiers: &[&str]) -> Result<(Kind, String)> {
        let place = match (one.opcode.as_str(), modifiers, &one.operands[..]) {
            ("membar", ["cta" | "gl" | "sys"], []) => None,
            ("fence", ["cta" | "cluster" | "gpu" | "sys"], []) => None,
            ("fence", ["sc" | "acq_rel" | "acquire" | "release", "cta" | "cluster" | "gpu" | "sys"], []) => {
                None
            }
            ("membar" | "fence", ["proxy", "alias" | "async"], []) => None,
            ("membar" | "fence", ["proxy", "async", "global" | "shared::cta"], []) => None,
            ("griddepcontrol", ["launch_dependents" | "wait"], []) => None,
            ("prefetch", ["L1" | "L2"] | ["global" | "local", "L1" | "L2"], [place]) => Some(place),
            ("prefetch", ["global", "L2::evict_last" | "L2::evict_normal"], [place]) => Some(place),
            ("prefetchu", ["L1"], [place]) => Some(place),
            (
                "applypriority",
                ["L2::evict_normal"] | ["global", "L2::evict_normal"],
                [place, Operand::Int(128)],
            ) => Some(place),
            ("nanosleep", ["u32"], [time]) => {
                self.width(time, 32)?;
                self.source(time, Ty::U32)?;
                None
            }
            ("pmevent", [] | ["mask"], [Operand::Int(_)]) => None,
            ("setmaxnreg", ["inc" | "dec", "sync", "aligned", "u32"], [Operand::Int(_)])
                if self.module.suffix == Some('a') =>
            {
                None
            }
            ("discard", ..) => return Err("what it destroys would stay here".to_owned()),
            _ => return Err("unknown form".to_owned()),
        };
        if let Some(place) = place {
            self.address(place)?;
        }
        Ok((Kind::Nop, "other".to_owned()))
    }
}
