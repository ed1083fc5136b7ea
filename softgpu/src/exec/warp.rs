//! A warp: its registers with what is defined of them, and which lanes are where.

use super::ComplaintKind;
use super::code::{Addr, Code, D, Initial, Pred, Slot, W};
use super::copies::Copies;

/// All lanes.
pub(super) const FULL: u32 = u32::MAX;

/// A complaint before it knows kernel and block.
#[derive(Debug)]
pub(super) struct Fault {
    pub kind: ComplaintKind,
    pub lane: u32,
    pub detail: String,
}

pub(super) type Exec<T = ()> = Result<T, Box<Fault>>;

/// A complaint about the lowest lane of a mask.
pub(super) fn fault<T>(kind: ComplaintKind, lanes: u32, detail: impl Into<String>) -> Exec<T> {
    Err(Box::new(Fault { kind, lane: lanes.trailing_zeros().min(31), detail: detail.into() }))
}

/// The lanes of a mask.
pub(super) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros();
        (mask != 0).then(|| {
            mask &= mask - 1;
            lane as usize
        })
    })
}

/// Why a warp does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// At this barrier of the block.
    Barrier(u32),
    Done,
}

pub(super) struct Warp {
    pub w: Vec<W>,
    pub d: Vec<D>,
    pub p: Vec<u32>,
    /// For each register, the lanes that hold a value.
    pub w_defined: Vec<u32>,
    pub d_defined: Vec<u32>,
    pub p_defined: Vec<u32>,
    /// CC.CF.
    pub carry: u32,
    /// In the block.
    pub index: u32,
    /// Lanes that are threads of the block.
    pub threads: u32,
    /// Lanes that have not ended.
    pub live: u32,
    /// Lanes that execute at `pc`.
    pub active: u32,
    /// Lanes that wait at an instruction for others to come there.
    pub waiting: u32,
    /// Of those, the ones that have been looked at since anything changed.
    pub stuck: u32,
    pub pc: u32,
    /// Where the lanes that are not active stand.
    pub pcs: [u32; 32],
    /// The lowest of those that can run.
    pub next: u32,
    pub state: State,
    /// Counts barriers.
    pub clock: u32,
    /// Clocks of the other warps that are before everything from now on.
    pub seen: [u32; 32],
    pub copies: Copies,
    /// Local memory, lane by lane, and which bytes hold a value.
    pub local: Vec<u8>,
    pub local_defined: Vec<u8>,
}

/// What specials depend on.
pub(super) struct Place {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub id: [u32; 3],
    pub dynamic_shared: u32,
    pub total_shared: u32,
}

impl Warp {
    pub fn new(code: &Code, index: u32) -> Self {
        Self {
            w: vec![[0; 32]; code.sizes[0]],
            d: vec![[0; 32]; code.sizes[1]],
            p: vec![0; code.sizes[2]],
            w_defined: vec![0; code.sizes[0]],
            d_defined: vec![0; code.sizes[1]],
            p_defined: vec![0; code.sizes[2]],
            carry: 0,
            index,
            threads: 0,
            live: 0,
            active: 0,
            waiting: 0,
            stuck: 0,
            pc: 0,
            pcs: [0; 32],
            next: u32::MAX,
            state: State::Done,
            clock: 1,
            seen: [0; 32],
            copies: Copies::default(),
            local: vec![0; code.local_bytes * 32],
            local_defined: vec![0; code.local_bytes * 32],
        }
    }

    /// Stands in for a warp that is being run.
    pub fn empty(index: u32) -> Self {
        let nothing = Code {
            ops: Vec::new(),
            places: Vec::new(),
            classes: Vec::new(),
            sizes: [0; 3],
            initial_w: Vec::new(),
            initial_d: Vec::new(),
            local_bytes: 0,
            static_shared_bytes: 0,
            dynamic_shared_start: 0,
        };
        Self::new(&nothing, index)
    }

    /// Ready for a block.
    pub fn start(&mut self, code: &Code, place: &Place) {
        self.w_defined.fill(0);
        self.d_defined.fill(0);
        self.p_defined.fill(0);
        self.local_defined.fill(0);
        for &(index, initial) in &code.initial_w {
            let index = index as usize;
            self.w[index] = std::array::from_fn(|lane| self.initial(initial, place, lane as u32) as u32);
            self.w_defined[index] = FULL;
        }
        for &(index, initial) in &code.initial_d {
            let index = index as usize;
            self.d[index] = std::array::from_fn(|lane| self.initial(initial, place, lane as u32));
            self.d_defined[index] = FULL;
        }
        let threads: u32 = place.block.iter().product();
        let mine = threads - (self.index * 32).min(threads);
        self.live = if mine >= 32 { FULL } else { (1 << mine) - 1 };
        (self.threads, self.active) = (self.live, self.live);
        (self.waiting, self.stuck, self.carry, self.pc, self.next) = (0, 0, 0, 0, u32::MAX);
        self.state = State::Ready;
        self.clock = 1;
        self.seen = [0; 32];
        self.copies = Copies::default();
    }

    /// `threadIdx` of a lane.
    pub fn thread(&self, block: [u32; 3], lane: u32) -> [u32; 3] {
        let linear = self.index * 32 + lane;
        [linear % block[0], linear / block[0] % block[1], linear / (block[0] * block[1])]
    }

    fn initial(&self, initial: Initial, place: &Place, lane: u32) -> u64 {
        let thread = self.thread(place.block, lane);
        match initial {
            Initial::Const(value) => value,
            Initial::Tid(dim) => u64::from(thread[usize::from(dim)]),
            Initial::Ntid(dim) => u64::from(place.block[usize::from(dim)]),
            Initial::Ctaid(dim) => u64::from(place.id[usize::from(dim)]),
            Initial::Nctaid(dim) => u64::from(place.grid[usize::from(dim)]),
            Initial::Lane => u64::from(lane),
            Initial::Warp => u64::from(self.index),
            Initial::Warps => u64::from(place.block.iter().product::<u32>().div_ceil(32)),
            Initial::Mask(which) => {
                let le = u32::MAX >> (31 - lane);
                let all = [1 << lane, le >> 1, le, !le, u32::MAX << lane];
                u64::from(all[usize::from(which)])
            }
            Initial::DynamicShared => u64::from(place.dynamic_shared),
            Initial::TotalShared => u64::from(place.total_shared),
        }
    }

    pub fn set_w(&mut self, index: u32, value: &W, mask: u32, defined: u32) {
        let index = index as usize;
        if mask == FULL {
            self.w[index] = *value;
            self.w_defined[index] = defined;
            return;
        }
        let register = &mut self.w[index];
        for lane in 0..32 {
            register[lane] = if mask >> lane & 1 == 1 { value[lane] } else { register[lane] };
        }
        self.w_defined[index] = self.w_defined[index] & !mask | defined & mask;
    }

    pub fn set_d(&mut self, index: u32, value: &D, mask: u32, defined: u32) {
        let index = index as usize;
        if mask == FULL {
            self.d[index] = *value;
            self.d_defined[index] = defined;
            return;
        }
        let register = &mut self.d[index];
        for lane in 0..32 {
            register[lane] = if mask >> lane & 1 == 1 { value[lane] } else { register[lane] };
        }
        self.d_defined[index] = self.d_defined[index] & !mask | defined & mask;
    }

    pub fn set_p(&mut self, index: u32, value: u32, mask: u32, defined: u32) {
        let index = index as usize;
        self.p[index] = self.p[index] & !mask | value & mask;
        self.p_defined[index] = self.p_defined[index] & !mask | defined & mask;
    }

    /// A register of any file, widened.
    pub fn get(&self, slot: Slot) -> D {
        match slot {
            Slot::W(index) => std::array::from_fn(|lane| u64::from(self.w[index as usize][lane])),
            Slot::D(index) => self.d[index as usize],
            Slot::P(index) => std::array::from_fn(|lane| u64::from(self.p[index as usize] >> lane & 1)),
            Slot::Sink => [0; 32],
        }
    }

    pub fn defined(&self, slot: Slot) -> u32 {
        match slot {
            Slot::W(index) => self.w_defined[index as usize],
            Slot::D(index) => self.d_defined[index as usize],
            Slot::P(index) => self.p_defined[index as usize],
            Slot::Sink => FULL,
        }
    }

    /// Writes a register of any file, narrowed.
    pub fn set(&mut self, slot: Slot, value: &D, mask: u32, defined: u32) {
        match slot {
            Slot::W(index) => self.set_w(index, &value.map(|value| value as u32), mask, defined),
            Slot::D(index) => self.set_d(index, value, mask, defined),
            Slot::P(index) => {
                let bits = (0..32).fold(0, |bits, lane| bits | ((value[lane] & 1) as u32) << lane);
                self.set_p(index, bits, mask, defined);
            }
            Slot::Sink => {}
        }
    }

    /// A predicate operand: its lanes, and which of them are defined.
    pub fn pred(&self, pred: Pred) -> (u32, u32) {
        let value = self.p[pred.index as usize];
        (if pred.negated { !value } else { value }, self.p_defined[pred.index as usize])
    }

    /// A value that must be defined because it decides something.
    pub fn sure(&self, slot: Slot, mask: u32, what: &str) -> Exec<D> {
        let missing = mask & !self.defined(slot);
        if missing != 0 {
            return fault(ComplaintKind::Undefined, missing, format!("{what} was never given a value"));
        }
        Ok(self.get(slot))
    }

    /// Addresses of the lanes of a mask.
    pub fn addresses(&self, addr: &Addr, mask: u32) -> Exec<D> {
        let mut base = self.sure(addr.base, mask, "the address")?;
        if addr.offset != 0 {
            for one in &mut base {
                *one = one.wrapping_add_signed(addr.offset);
            }
        }
        Ok(base)
    }

    /// Chooses the lanes to run: those at the lowest place, so that the others wait for them where paths meet again. False when none
    /// can run, in which case some wait for others for ever.
    #[must_use]
    pub fn reschedule(&mut self) -> bool {
        for lane in lanes(self.active) {
            self.pcs[lane] = self.pc;
        }
        let mut runnable = self.live & !self.waiting;
        if runnable == 0 {
            // Some may have got what they wait for: each group is looked at again.
            let again = self.waiting & !self.stuck;
            let Some(pc) = lanes(again).map(|lane| self.pcs[lane]).min() else {
                return false;
            };
            runnable =
                lanes(again).filter(|&lane| self.pcs[lane] == pc).fold(0, |mask, lane| mask | 1 << lane);
            self.waiting &= !runnable;
        }
        (self.pc, self.next) = (u32::MAX, u32::MAX);
        for lane in lanes(runnable) {
            self.pc = self.pc.min(self.pcs[lane]);
        }
        self.active = 0;
        for lane in lanes(runnable) {
            if self.pcs[lane] == self.pc {
                self.active |= 1 << lane;
            } else {
                self.next = self.next.min(self.pcs[lane]);
            }
        }
        true
    }

    /// Sends lanes of the active ones to a place, the others to the next instruction.
    pub fn jump(&mut self, taken: u32, target: u32) {
        if taken == self.active {
            self.pc = target;
        } else if taken == 0 {
            self.pc += 1;
        } else {
            let rest = self.active & !taken;
            self.pc += 1;
            for lane in lanes(taken) {
                self.pcs[lane] = target;
            }
            // `reschedule` keeps the places of lanes that are not active.
            self.active = rest;
            let _ = self.reschedule();
        }
    }

    /// Lanes that wait at the place of the active ones join them.
    pub fn join(&mut self) {
        for lane in lanes(self.waiting) {
            if self.pcs[lane] == self.pc {
                self.active |= 1 << lane;
            }
        }
        self.waiting &= !self.active;
    }
}
