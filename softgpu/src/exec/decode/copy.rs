//! `cp.async` (PTX ISA 9.7.9.25.3).

use super::super::code::{Copy, Kind, Slot};
use super::hints::hints;
use super::{Decoder, Result, none_left, take};
use crate::num::Ty;
use crate::ptx::{Instruction, Operand, Space};

impl Decoder<'_> {
    pub(super) fn copy(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<(Kind, String)> {
        let class = "cp.async".to_owned();
        match (&modifiers[..], &one.operands[..]) {
            (["async", "commit_group"], []) => return Ok((Kind::CopyCommit, class)),
            (["async", "wait_all"], []) => return Ok((Kind::CopyWait(None), class)),
            (["async", "wait_group"], [Operand::Int(groups)]) => {
                return Ok((Kind::CopyWait(Some(*groups as u32)), class));
            }
            _ => {}
        }
        let (ca, cg) = (modifiers.contains(&"ca"), modifiers.contains(&"cg"));
        let hints = hints(&one.opcode, &mut modifiers)?;
        let is_known = take(&mut modifiers, "async")
            && (take(&mut modifiers, "shared") || take(&mut modifiers, "shared::cta"))
            && take(&mut modifiers, "global");
        if !is_known || ca == cg {
            return Err("unknown copy".to_owned());
        }
        none_left(&modifiers)?;
        let [to, from, Operand::Int(bytes), rest @ ..] = self.without_policy(&one.operands, &hints)? else {
            return Err("expected addresses and a size".to_owned());
        };
        if !(matches!(bytes, 4 | 8) && ca || *bytes == 16) {
            return Err("size of the copy".to_owned());
        }
        let mut copy = Copy {
            shared: self.address_in(Space::Shared, to)?.0,
            global: self.address_in(Space::Global, from)?.0,
            bytes: *bytes as u32,
            source_bytes: None,
            ignore: None,
        };
        // Size of the source, or a predicate that says to ignore it.
        match rest {
            [] => {}
            [size @ Operand::Int(_)] => copy.source_bytes = Some(self.source(size, Ty::U32)?),
            [Operand::NotReg(register)] => copy.ignore = Some(self.predicate(*register, true)?),
            [operand @ Operand::Reg(register)] => match self.reg(*register) {
                Slot::P(_) => copy.ignore = Some(self.predicate(*register, false)?),
                slot => {
                    self.width(operand, 32)?;
                    copy.source_bytes = Some(slot);
                }
            },
            _ => return Err("too many operands".to_owned()),
        }
        Ok((Kind::CopyAsync(copy), class))
    }
}
