//! A block: its warps in turn, its barriers.

use super::barrier::Gate;
use super::code::{Code, Kind, Op};
use super::copies::Reading;
use super::flow::is_collective;
use super::shared::Shared;
use super::transfer::Loaded;
use super::warp::{Exec, FULL, Fault, Place, State, Warp, fault};
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

/// What a worker keeps from block to block.
pub(super) struct Block<'a> {
    pub launch: &'a Running<'a>,
    pub shared: Shared,
    pub counts: Counts,
    /// Number of the block in the grid.
    pub linear: u64,
    /// Room for the values of a load or store.
    pub scratch: Option<Box<Loaded>>,
    pub warps: Vec<Warp>,
    pub gates: Vec<Gate>,
    /// Sources of unfinished copies.
    pub reading: Vec<Reading>,
    pub id: [u32; 3],
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
            reading: Vec::new(),
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
        self.reading.clear();
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
}
