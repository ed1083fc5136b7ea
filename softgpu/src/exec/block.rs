//! A block: its warps in turn, its barriers.

use super::code::{BarMode, Barrier, Code, Kind, Op};
use super::shared::Shared;
use super::transfer::Loaded;
use super::warp::{Exec, FULL, Fault, Place, State, Warp, fault, lanes};
use super::{ComplaintKind, Running};

/// Counters of a worker, summed over its blocks.
#[derive(Default)]
pub(super) struct Counts {
    /// By class: (threads, warps).
    pub classes: Vec<(u64, u64)>,
    /// By index of the allocation: bytes (loaded, stored).
    pub allocations: Vec<(u64, u64)>,
    pub load_bytes: u64,
    pub store_bytes: u64,
    pub global_requests: u64,
    pub global_sectors: u64,
    pub shared_requests: u64,
    pub shared_wavefronts: u64,
    pub shared_wavefronts_ideal: u64,
}

/// One of the sixteen barriers.
#[derive(Default)]
struct Gate {
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

/// What a worker keeps from block to block.
pub(super) struct Block<'a> {
    pub launch: &'a Running<'a>,
    pub shared: Shared,
    pub counts: Counts,
    /// Number of the block in the grid.
    pub linear: u64,
    /// Room for the values of a load or store.
    pub scratch: Option<Box<Loaded>>,
    warps: Vec<Warp>,
    gates: Vec<Gate>,
    id: [u32; 3],
    /// Warp instructions executed.
    steps: u64,
}

/// A fault with its warp and its instruction.
pub(super) struct Located {
    pub fault: Box<Fault>,
    pub thread: [u32; 3],
    pub block: [u32; 3],
    pub pc: u32,
}

/// A small generator for the order of warps: splitmix64 (Steele, Lea, Flood 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl<'a> Block<'a> {
    pub fn new(launch: &'a Running<'a>) -> Self {
        let threads: u32 = launch.block.iter().product();
        let counts = Counts {
            classes: vec![(0, 0); launch.code.classes.len()],
            allocations: vec![(0, 0); launch.view.live.len()],
            ..Counts::default()
        };
        Self {
            launch,
            shared: Shared::new(launch.shared_bytes as usize),
            counts,
            linear: 0,
            scratch: None,
            warps: (0..threads.div_ceil(32)).map(|index| Warp::new(launch.code, index)).collect(),
            gates: Vec::new(),
            id: [0; 3],
            steps: 0,
        }
    }

    /// Runs the block with this number.
    pub fn run(&mut self, linear: u64) -> Result<(), Located> {
        let launch = self.launch;
        let [x, y, _] = launch.grid.map(u64::from);
        self.id = [linear % x, linear / x % y, linear / (x * y)].map(|one| one as u32);
        self.linear = linear;
        self.steps = 0;
        self.shared.start();
        self.gates = (0..16).map(|_| Gate::default()).collect();
        let place = Place {
            grid: launch.grid,
            block: launch.block,
            id: self.id,
            dynamic_shared: launch.dynamic_shared,
            total_shared: launch.shared_bytes,
        };
        for warp in &mut self.warps {
            warp.start(launch.code, &place);
        }
        let mut dice = launch.seed ^ linear.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        loop {
            let mut progressed = false;
            if launch.seed != 0 {
                for at in (1..order.len()).rev() {
                    order.swap(at, (random(&mut dice) % (at as u64 + 1)) as usize);
                }
            }
            for &index in &order {
                if self.warps[index].state != State::Ready {
                    continue;
                }
                progressed = true;
                // Long turns by default; short ones of any length when the order is to be tried.
                let turn = if launch.seed == 0 { 10_000 } else { 16 + random(&mut dice) % 500 };
                self.turn(index, turn)?;
            }
            if self.warps.iter().all(|warp| warp.state == State::Done) {
                return Ok(());
            }
            if !progressed {
                return Err(self.deadlock());
            }
        }
    }

    /// Runs a warp until it waits, ends or has had its turn.
    fn turn(&mut self, index: usize, turn: u64) -> Result<(), Located> {
        let empty = Warp::empty(index as u32);
        let mut warp = std::mem::replace(&mut self.warps[index], empty);
        let result = self.advance(&mut warp, turn);
        let (pc, block) = (warp.pc, self.launch.block);
        let located = result.map_err(|fault| Located {
            thread: warp.thread(block, fault.lane),
            block: self.id,
            pc,
            fault,
        });
        self.warps[index] = warp;
        located?;
        if self.steps > self.launch.max_instructions {
            let what = format!("{} warp instructions executed and the block has not ended", self.steps);
            let fault = Box::new(Fault { kind: ComplaintKind::Deadlock, lane: 0, detail: what });
            return Err(Located { fault, thread: self.warps[index].thread(block, 0), block: self.id, pc });
        }
        // Who has ended is not waited for; who only arrived still runs.
        for gate in 0..self.gates.len() {
            self.open(gate);
        }
        Ok(())
    }

    fn deadlock(&self) -> Located {
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

    /// Executes up to `turn` instructions.
    fn advance(&mut self, warp: &mut Warp, turn: u64) -> Exec {
        let code: &'a Code = self.launch.code;
        for _ in 0..turn {
            if warp.pc >= warp.next && !warp.reschedule() {
                return self.stuck(warp);
            }
            let op = &code.ops[warp.pc as usize];
            let mut mask = warp.active;
            if let Some(guard) = op.guard {
                let (value, defined) = warp.pred(guard);
                if mask & !defined != 0 {
                    return fault(
                        ComplaintKind::Undefined,
                        mask & !defined,
                        "the predicate was never given a value",
                    );
                }
                mask &= value;
            }
            self.steps += 1;
            let class = &mut self.counts.classes[op.class as usize];
            class.0 += u64::from(mask.count_ones());
            class.1 += 1;
            if warp.alu(&op.kind, mask) {
                warp.pc += 1;
                continue;
            }
            self.execute(warp, op, mask)?;
            if warp.state != State::Ready {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is not arithmetic. Moves on the program counter.
    fn execute(&mut self, warp: &mut Warp, op: &'a Op, mask: u32) -> Exec {
        match &op.kind {
            Kind::Branch { target } => {
                warp.jump(mask, *target);
                return Ok(());
            }
            Kind::BranchTable { index, targets } => return self.branch_table(warp, *index, targets, mask),
            Kind::Call { target, link } => {
                warp.set_d(*link, &[u64::from(warp.pc) + 1; 32], mask, FULL);
                warp.jump(mask, *target);
                return Ok(());
            }
            Kind::Return { link } => {
                let to = warp.d[*link as usize];
                return self.scatter(warp, mask, |lane| to[lane] as u32);
            }
            Kind::Exit => return self.exit(warp, mask),
            _ if mask == 0 && !is_collective(&op.kind) => {}
            Kind::Trap => return fault(ComplaintKind::Trap, mask, "the kernel gave up"),
            Kind::Load(one) => self.load(warp, one, mask)?,
            Kind::Store(one) => self.store(warp, one, mask)?,
            Kind::ReadParam { registers, ty, offset } => {
                self.read_param(warp, registers, *ty, *offset, mask)?
            }
            Kind::Atomic(one) => self.atomic(warp, one, mask)?,
            Kind::CopyAsync(copy) => self.copy_async(warp, copy, mask)?,
            Kind::CopyCommit => self.copy_commit(warp, mask),
            Kind::CopyWait(groups) => self.copy_wait(warp, *groups, mask)?,
            Kind::ActiveMask { d } => warp.set(*d, &[u64::from(mask); 32], mask, FULL),
            Kind::Nop => {}
            kind => return self.collective(warp, kind, op, mask),
        }
        warp.pc += 1;
        Ok(())
    }

    /// Instructions for which lanes wait for each other.
    fn collective(&mut self, warp: &mut Warp, kind: &Kind, op: &Op, mut mask: u32) -> Exec {
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
            _ => {}
        }
        warp.pc += 1;
        Ok(())
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
    fn stuck(&self, warp: &mut Warp) -> Exec {
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

    fn branch_table(
        &mut self,
        warp: &mut Warp,
        index: super::code::Slot,
        targets: &[u32],
        mask: u32,
    ) -> Exec {
        let index = warp.sure(index, mask, "the index of the branch")?;
        if let Some(lane) = lanes(mask).find(|&lane| index[lane] as usize >= targets.len()) {
            let what = format!("index {} of a table of {} labels", index[lane], targets.len());
            return fault(ComplaintKind::OutOfBounds, 1 << lane, what);
        }
        self.scatter(warp, mask, |lane| targets[index[lane] as usize])
    }

    /// Sends each lane to its own place.
    fn scatter(&mut self, warp: &mut Warp, mask: u32, to: impl Fn(usize) -> u32) -> Exec {
        for lane in lanes(warp.active) {
            warp.pcs[lane] = if mask >> lane & 1 == 1 { to(lane) } else { warp.pc + 1 };
        }
        warp.active = 0;
        if warp.reschedule() { Ok(()) } else { self.stuck(warp) }
    }

    fn exit(&mut self, warp: &mut Warp, mask: u32) -> Exec {
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

    fn barrier(&mut self, warp: &mut Warp, one: &Barrier, mask: u32) -> Exec {
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
        if one.mode != BarMode::Arrive {
            gate.waiting.push((warp.index, warp.pc));
            warp.state = State::Barrier(id as u32);
        }
        warp.pc += 1;
        Ok(())
    }

    /// Lets the warps go on if all have come.
    fn open(&mut self, id: usize) {
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
}

fn is_collective(kind: &Kind) -> bool {
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
