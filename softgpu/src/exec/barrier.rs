//! Barriers of a block, and what happens when nobody comes.

use super::ComplaintKind;
use super::block::{Block, Located};
use super::code::{BarMode, Barrier, Kind};
use super::warp::{Exec, FULL, Fault, State, Warp, fault};

/// One of the sixteen barriers.
#[derive(Default)]
pub(super) struct Gate {
    /// Warps that have come, those that only arrived included.
    arrived: u32,
    /// What they have seen.
    seen: [u32; 32],
    /// Threads of `bar.red`: that came, and whose predicate holds.
    threads: u32,
    holding: u32,
    /// Warps that wait, with their instruction.
    waiting: Vec<(u32, u32)>,
    /// Threads expected, if told.
    expected: Option<u32>,
}

impl Block<'_> {
    pub(super) fn barrier(&mut self, warp: &mut Warp, one: &Barrier, mask: u32) -> Exec {
        let id =
            warp.sure(one.id, mask, "the number of the barrier")?[mask.trailing_zeros() as usize] as usize;
        let Some(gate) = self.gates.get_mut(id) else {
            return fault(ComplaintKind::Unsupported, mask, format!("barrier {id} of 16"));
        };
        if let Some(threads) = one.threads {
            let threads =
                warp.sure(threads, mask, "the number of threads")?[mask.trailing_zeros() as usize] as u32;
            if threads == 0 || !threads.is_multiple_of(32) || gate.expected.is_some_and(|old| old != threads)
            {
                return fault(ComplaintKind::Divergence, mask, format!("{threads} threads at barrier {id}"));
            }
            gate.expected = Some(threads);
        }
        if let Some(source) = one.source {
            let (value, defined) = warp.pred(source);
            if mask & !defined != 0 {
                return fault(
                    ComplaintKind::Undefined,
                    mask & !defined,
                    "the predicate was never given a value",
                );
            }
            gate.threads += mask.count_ones();
            gate.holding += (value & mask).count_ones();
        }
        gate.arrived |= 1 << warp.index;
        for (seen, mine) in gate.seen.iter_mut().zip(&warp.seen) {
            *seen = (*seen).max(*mine);
        }
        gate.seen[warp.index as usize] = warp.clock;
        warp.clock += 1;
        self.shared.lanes.order(warp.index);
        if one.mode != BarMode::Arrive {
            gate.waiting.push((warp.index, warp.pc));
            warp.state = State::Barrier(id as u32);
        }
        warp.pc += 1;
        Ok(())
    }

    /// Lets the warps go on if all have come.
    pub(super) fn open(&mut self, id: usize) {
        let gate = &self.gates[id];
        let complete = match gate.expected {
            _ if gate.arrived == 0 => false,
            Some(threads) => gate.arrived.count_ones() * 32 >= threads,
            None => {
                let mut living = self.warps.iter().filter(|warp| warp.state != State::Done);
                living.all(|warp| gate.arrived >> warp.index & 1 == 1)
            }
        };
        if !complete {
            return;
        }
        let gate = std::mem::take(&mut self.gates[id]);
        for (index, pc) in gate.waiting {
            let warp = &mut self.warps[index as usize];
            for (seen, theirs) in warp.seen.iter_mut().zip(&gate.seen) {
                *seen = (*seen).max(*theirs);
            }
            warp.state = State::Ready;
            if let Kind::Barrier(one) = &self.launch.code.ops[pc as usize].kind {
                let value = match one.mode {
                    BarMode::Popc => gate.holding,
                    BarMode::And => u32::from(gate.holding == gate.threads),
                    BarMode::Or => u32::from(gate.holding > 0),
                    BarMode::Sync | BarMode::Arrive => continue,
                };
                warp.set(one.d, &[u64::from(value); 32], warp.active, FULL);
            }
        }
    }

    pub(super) fn deadlock(&self) -> Located {
        let waiting = |warp: &&Warp| matches!(warp.state, State::Barrier(_));
        let first = self.warps.iter().find(waiting);
        let words: Vec<String> = self
            .warps
            .iter()
            .map(|warp| match warp.state {
                State::Barrier(id) => format!("warp {} waits at barrier {id}", warp.index),
                State::Done => format!("warp {} has ended", warp.index),
                State::Ready => format!("warp {} runs", warp.index),
            })
            .collect();
        let fault = Fault { kind: ComplaintKind::Deadlock, lane: 0, detail: words.join(", ") };
        let (pc, thread) = first.map_or((0, [0; 3]), |warp| {
            let lane = warp.live.trailing_zeros().min(31);
            (warp.pc.saturating_sub(1), warp.thread(self.launch.block, lane))
        });
        Located { fault: Box::new(fault), thread, block: self.id, pc }
    }
}
