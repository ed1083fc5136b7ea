//! Control flow, barriers, exchange between lanes, matrix multiplication.

use super::super::code::{BarMode, Barrier, Kind, ShflMode, Slot, VoteMode};
use super::{Decoder, Result, call_parts, take};
use crate::mma::Mma;
use crate::num::Ty;
use crate::ptx::{Instruction, Operand};

impl Decoder<'_> {
    pub(super) fn sync(&mut self, one: &Instruction, modifiers: &[&str]) -> Result<(Kind, String)> {
        let modifiers = modifiers.to_vec();
        let (kind, class) = match one.opcode.as_str() {
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" => {
                (self.control(one, &modifiers)?, "branch")
            }
            "bar" | "barrier" => (self.barrier(one, modifiers)?, "bar"),
            "shfl" => (self.shfl(one, modifiers)?, "shfl"),
            "vote" => (self.vote(one, modifiers)?, "vote"),
            "match" => (self.matching(one, modifiers)?, "vote"),
            "redux" => (self.redux(one, modifiers)?, "vote"),
            "activemask" => match (&modifiers[..], &one.operands[..]) {
                (["b32"], [to]) => (Kind::ActiveMask { d: self.target(to)? }, "vote"),
                _ => return Err("unknown form".to_owned()),
            },
            _ => (self.mma(one, modifiers)?, "mma"),
        };
        Ok((kind, class.to_owned()))
    }

    fn control(&mut self, one: &Instruction, modifiers: &[&str]) -> Result<Kind> {
        let known = match one.opcode.as_str() {
            "bra" | "call" | "ret" => matches!(modifiers, [] | ["uni"]),
            "brx" => matches!(modifiers, ["idx"] | ["idx", "uni"]),
            _ => modifiers.is_empty(),
        };
        if !known {
            return Err("unknown modifiers".to_owned());
        }
        Ok(match (one.opcode.as_str(), &one.operands[..]) {
            ("bra", [label]) => Kind::Branch { target: self.label(label)? },
            ("brx", [index, Operand::Symbol(table)]) => {
                let kernel = &self.module.kernels[self.functions[self.now]];
                let labels = kernel.targets.get(table).ok_or("no such table of labels")?;
                let targets = labels.iter().map(|label| self.label(&Operand::Symbol(label.clone())));
                let targets = targets.collect::<Result<Vec<_>>>()?;
                self.width(index, 32)?;
                Kind::BranchTable { index: self.source(index, Ty::U32)?, targets }
            }
            ("call", _) => {
                let (_, name, _) = call_parts(one)?;
                let function = self.functions.iter().position(|&f| self.module.kernels[f].name == name);
                let function = function.ok_or("no such function")?;
                Kind::Call { target: self.starts[function], link: self.link(function)? }
            }
            ("ret", []) => self.end(),
            ("exit", []) => Kind::Exit,
            ("trap" | "brkpt", []) => Kind::Trap,
            _ => return Err("unknown operands".to_owned()),
        })
    }

    fn barrier(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<Kind> {
        if modifiers == ["warp", "sync"] && one.opcode == "bar" {
            let [members] = &one.operands[..] else {
                return Err("expected a mask".to_owned());
            };
            self.width(members, 32)?;
            return Ok(Kind::WarpBarrier { members: self.source(members, Ty::B32)? });
        }
        take(&mut modifiers, "cta");
        if one.opcode == "barrier" {
            take(&mut modifiers, "aligned");
        }
        let first = modifiers.first().copied().unwrap_or("");
        let mode = match &modifiers[..] {
            ["sync"] => BarMode::Sync,
            ["arrive"] => BarMode::Arrive,
            ["red", "popc", "u32"] => BarMode::Popc,
            ["red", "and", "pred"] => BarMode::And,
            ["red", "or", "pred"] => BarMode::Or,
            _ => return Err("unknown barrier".to_owned()),
        };
        let mut operands = one.operands.iter();
        let mut d = Slot::Sink;
        if first == "red" {
            let to = operands.next().ok_or("expected operands")?;
            self.width(to, if mode == BarMode::Popc { 32 } else { 1 })?;
            d = self.target(to)?;
        }
        let id = operands.next().ok_or("expected operands")?;
        self.width(id, 32)?;
        let id = self.source(id, Ty::U32)?;
        let mut rest: Vec<&Operand> = operands.collect();
        let source = match (first, rest.pop()) {
            ("red", Some(operand)) => Some(self.pred(operand)?),
            ("red", None) => return Err("expected a predicate".to_owned()),
            (_, Some(operand)) => {
                rest.push(operand);
                None
            }
            _ => None,
        };
        if rest.len() > 1 {
            return Err("too many operands".to_owned());
        }
        rest.iter().try_for_each(|operand| self.width(operand, 32))?;
        let threads = rest.first().map(|operand| self.source(operand, Ty::U32)).transpose()?;
        if mode == BarMode::Arrive && threads.is_none() {
            return Err("expected the number of threads".to_owned());
        }
        Ok(Kind::Barrier(Barrier { mode, id, threads, source, d }))
    }

    /// Destination register and predicate of `d|p`.
    fn register_and_predicate(&mut self, operand: &Operand) -> Result<(Slot, Option<u32>)> {
        match operand {
            Operand::Pair(d, p) => Ok((self.reg(*d), Some(self.predicate(*p, false)?.index))),
            _ => Ok((self.target(operand)?, None)),
        }
    }

    fn shfl(&mut self, one: &Instruction, modifiers: Vec<&str>) -> Result<Kind> {
        let mode = match modifiers[..] {
            ["sync", "up", "b32"] => ShflMode::Up,
            ["sync", "down", "b32"] => ShflMode::Down,
            ["sync", "bfly", "b32"] => ShflMode::Bfly,
            ["sync", "idx", "b32"] => ShflMode::Idx,
            _ => return Err("unknown shuffle".to_owned()),
        };
        let [to, a, b, c, members] = &one.operands[..] else {
            return Err("expected five operands".to_owned());
        };
        let (d, p) = self.register_and_predicate(to)?;
        let (a, b) = (self.source(a, Ty::B32)?, self.source(b, Ty::U32)?);
        let (c, members) = (self.source(c, Ty::U32)?, self.source(members, Ty::B32)?);
        Ok(Kind::Shfl { mode, d, p, a, b, c, members })
    }

    fn vote(&mut self, one: &Instruction, modifiers: Vec<&str>) -> Result<Kind> {
        let mode = match modifiers[..] {
            ["sync", "all", "pred"] => VoteMode::All,
            ["sync", "any", "pred"] => VoteMode::Any,
            ["sync", "uni", "pred"] => VoteMode::Uni,
            ["sync", "ballot", "b32"] => VoteMode::Ballot,
            _ => return Err("unknown vote".to_owned()),
        };
        let [to, p, members] = &one.operands[..] else {
            return Err("expected three operands".to_owned());
        };
        let (d, p) = (self.target(to)?, self.pred(p)?);
        Ok(Kind::Vote { mode, d, p, members: self.source(members, Ty::B32)? })
    }

    fn matching(&mut self, one: &Instruction, modifiers: Vec<&str>) -> Result<Kind> {
        let (all, ty) = match modifiers[..] {
            ["any", "sync", ty] => (false, ty),
            ["all", "sync", ty] => (true, ty),
            _ => return Err("unknown form".to_owned()),
        };
        let ty = Ty::from_name(ty).ok_or("unknown type")?;
        let [to, a, members] = &one.operands[..] else {
            return Err("expected three operands".to_owned());
        };
        let (d, p) = self.register_and_predicate(to)?;
        if p.is_some() && !all {
            return Err("a predicate goes with .all".to_owned());
        }
        let a = self.source(a, ty)?;
        Ok(Kind::Match { all, d, p, a, members: self.source(members, Ty::B32)? })
    }

    fn redux(&mut self, one: &Instruction, modifiers: Vec<&str>) -> Result<Kind> {
        let f: fn(u32, u32) -> u32 = match modifiers[..] {
            ["sync", "add", "u32" | "s32"] => u32::wrapping_add,
            ["sync", "min", "u32"] => u32::min,
            ["sync", "max", "u32"] => u32::max,
            ["sync", "min", "s32"] => |a, b| (a as i32).min(b as i32) as u32,
            ["sync", "max", "s32"] => |a, b| (a as i32).max(b as i32) as u32,
            ["sync", "and", "b32"] => |a, b| a & b,
            ["sync", "or", "b32"] => |a, b| a | b,
            ["sync", "xor", "b32"] => |a, b| a ^ b,
            _ => return Err("unknown reduction".to_owned()),
        };
        let [to, a, members] = &one.operands[..] else {
            return Err("expected three operands".to_owned());
        };
        let (d, a) = (self.target(to)?, self.source(a, Ty::B32)?);
        Ok(Kind::Redux { f, d, a, members: self.source(members, Ty::B32)? })
    }

    fn mma(&mut self, one: &Instruction, mut modifiers: Vec<&str>) -> Result<Kind> {
        if one.opcode != "mma" {
            return Err("unknown instruction".to_owned());
        }
        let satfinite = take(&mut modifiers, "satfinite");
        if !["sync", "aligned", "row", "col"].into_iter().all(|name| take(&mut modifiers, name)) {
            return Err("unknown mma".to_owned());
        }
        let [shape, d, a, b, c] = modifiers[..] else {
            return Err("unknown mma".to_owned());
        };
        let ty = |name: &str| Ty::from_name(name).ok_or("unknown type".to_owned());
        let (m, rest) = shape.strip_prefix('m').and_then(|s| s.split_once('n')).ok_or("unknown shape")?;
        let (n, k) = rest.split_once('k').ok_or("unknown shape")?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| "unknown shape".to_owned());
        let form = Mma::new(number(m)?, number(n)?, number(k)?, ty(d)?, ty(a)?, ty(b)?, ty(c)?, satfinite);
        let form = form.ok_or("a form of mma that is not executed")?;
        let [d, a, b, c] = &one.operands[..] else {
            return Err("expected four operands".to_owned());
        };
        let d = self.targets_w(d)?;
        let (a, b, c) = (self.sources_w(a)?, self.sources_w(b)?, self.sources_w(c)?);
        let counts = (form.c_registers(), form.a_registers(), form.b_registers(), form.c_registers());
        if (d.len(), a.len(), b.len(), c.len()) != counts {
            return Err("number of registers".to_owned());
        }
        Ok(Kind::Mma { form, d, a, b, c })
    }
}
