//! Lanes that go different ways: where they wait for each other, and what becomes of those that wait in vain.

use super::ComplaintKind;
use super::block::Block;
use super::code::{Kind, Op, Slot};
use super::warp::{Exec, FULL, State, Warp, fault, lanes};

impl Block<'_> {
    /// Instructions for which lanes wait for each other.
    pub(super) fn collective(&mut self, warp: &mut Warp, kind: &Kind, op: &Op, mut mask: u32) -> Exec {
        if warp.waiting != 0 {
            warp.join();
            mask = warp.active & op.guard.map_or(FULL, |guard| warp.pred(guard).0);
        }
        if mask == 0 {
            warp.pc += 1;
            return Ok(());
        }
        let members = match kind {
            Kind::Shfl { members, .. }
            | Kind::Vote { members, .. }
            | Kind::Match { members, .. }
            | Kind::Redux { members, .. }
            | Kind::WarpBarrier { members } => warp.members(*members, mask)?,
            // PTX wants all threads of the warp. Hardware lets those go that have ended; we do not.
            Kind::Barrier(_) => warp.threads,
            _ => FULL,
        };
        if !self.gather(warp, members, mask)? {
            return Ok(());
        }
        warp.stuck = 0;
        match kind {
            Kind::Shfl { .. } => warp.shfl(kind, mask)?,
            Kind::Vote { .. } => warp.vote(kind, mask)?,
            Kind::Match { .. } => warp.matching(kind, mask)?,
            Kind::Redux { .. } => warp.redux(kind, mask)?,
            Kind::LdMatrix { d, addr, trans } => self.ldmatrix(warp, d, addr, *trans)?,
            Kind::StMatrix { s, addr, trans } => self.stmatrix(warp, s, addr, *trans)?,
            Kind::Mma { form, d, a, b, c } => warp.mma(form, d, [a, b, c]),
            Kind::Barrier(barrier) => return self.barrier(warp, barrier, mask),
            Kind::WarpBarrier { members } => self.warp_barrier(warp, *members, mask),
            _ => {}
        }
        warp.pc += 1;
        Ok(())
    }

    /// Orders lanes with those that they name. All are here, in one group or several.
    fn warp_barrier(&mut self, warp: &Warp, members: Slot, mask: u32) {
        let named = warp.get(members);
        let mut rest = mask;
        while rest != 0 {
            let group = named[rest.trailing_zeros() as usize] as u32 & mask;
            if group == warp.threads {
                self.shared.lanes.order(warp.index);
            } else {
                self.shared.lanes.order_lanes(warp.index, group);
            }
            rest &= !group;
        }
    }

    /// True when all lanes named are here; else those that are wait, and others run.
    fn gather(&mut self, warp: &mut Warp, members: u32, mask: u32) -> Exec<bool> {
        let missing = members & !mask;
        if missing == 0 {
            return Ok(true);
        }
        let ended = missing & !warp.live;
        let skipping = missing & warp.active;
        if ended != 0 || skipping != 0 {
            let (who, why) =
                if skipping != 0 { (skipping, "skip it by their predicate") } else { (ended, "have ended") };
            let what = format!("lanes {mask:#010x} need lanes {members:#010x}, of which {who:#010x} {why}");
            return fault(ComplaintKind::Divergence, mask, what);
        }
        let here = warp.active;
        let nobody_runs = warp.live & !warp.waiting & !here == 0;
        for lane in lanes(here) {
            warp.pcs[lane] = warp.pc;
        }
        warp.waiting |= here;
        if nobody_runs {
            warp.stuck |= here;
        }
        warp.active = 0;
        if warp.reschedule() { Ok(false) } else { self.stuck(warp).map(|()| false) }
    }

    /// All lanes wait for others.
    pub(super) fn stuck(&self, warp: &mut Warp) -> Exec {
        let Some(first) = lanes(warp.waiting).min_by_key(|&lane| warp.pcs[lane]) else {
            return fault(ComplaintKind::Deadlock, 1, "no lane can run");
        };
        let at = warp.pcs[first];
        let here = lanes(warp.waiting).filter(|&lane| warp.pcs[lane] == at);
        let here = here.fold(0u32, |mask, lane| mask | 1 << lane);
        let elsewhere = lanes(warp.live & !here).map(|lane| {
            let (text, line) = self.launch.instruction(warp.pcs[lane]);
            format!("lane {lane} waits at `{text}` (PTX line {line})")
        });
        let other = elsewhere.take(1).next().unwrap_or_default();
        warp.pc = at;
        fault(
            ComplaintKind::Divergence,
            here,
            format!("only lanes {here:#010x} of the warp come here; {other}"),
        )
    }

    pub(super) fn branch_table(&mut self, warp: &mut Warp, index: Slot, targets: &[u32], mask: u32) -> Exec {
        let index = warp.sure(index, mask, "the index of the branch")?;
        if let Some(lane) = lanes(mask).find(|&lane| index[lane] as usize >= targets.len()) {
            let what = format!("index {} of a table of {} labels", index[lane], targets.len());
            return fault(ComplaintKind::OutOfBounds, 1 << lane, what);
        }
        self.scatter(warp, mask, |lane| targets[index[lane] as usize])
    }

    /// Sends each lane to its own place.
    pub(super) fn scatter(&mut self, warp: &mut Warp, mask: u32, to: impl Fn(usize) -> u32) -> Exec {
        for lane in lanes(warp.active) {
            warp.pcs[lane] = if mask >> lane & 1 == 1 { to(lane) } else { warp.pc + 1 };
        }
        warp.active = 0;
        if warp.reschedule() { Ok(()) } else { self.stuck(warp) }
    }

    pub(super) fn exit(&mut self, warp: &mut Warp, mask: u32) -> Exec {
        warp.live &= !mask;
        warp.active &= !mask;
        warp.stuck = 0;
        if warp.active != 0 {
            warp.pc += 1;
        } else if warp.live == 0 {
            warp.state = State::Done;
        } else if !warp.reschedule() {
            return self.stuck(warp);
        }
        Ok(())
    }
}

pub(super) fn is_collective(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Shfl { .. }
            | Kind::Vote { .. }
            | Kind::Match { .. }
            | Kind::Redux { .. }
            | Kind::WarpBarrier { .. }
            | Kind::Barrier(_)
            | Kind::LdMatrix { .. }
            | Kind::StMatrix { .. }
            | Kind::Mma { .. }
    )
}
