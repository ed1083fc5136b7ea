//! Instructions that the lanes of a warp execute together: exchange, votes, matrices.

use super::code::{Addr, D, Kind, ShflMode, Slot, VoteMode};
use super::warp::{Exec, FULL, Warp, fault, lanes};
use super::{Block, ComplaintKind};
use crate::mma::{self, Mma};

impl Warp {
    /// The lanes that the instruction names, those of all its lanes together.
    pub fn members(&self, members: Slot, mask: u32) -> Exec<u32> {
        let values = self.sure(members, mask, "the mask of lanes")?;
        let mut all = 0;
        for lane in lanes(mask) {
            if values[lane] as u32 >> lane & 1 == 0 {
                let what = format!("lane {lane} is not in its own mask of lanes {:#010x}", values[lane]);
                return fault(ComplaintKind::Divergence, 1 << lane, what);
            }
            all |= values[lane] as u32;
        }
        Ok(all)
    }

    /// `shfl.sync`: PTX ISA 9.7.9.6. A lane that takes from one that does not take part gets an undefined value.
    pub fn shfl(&mut self, kind: &Kind, mask: u32) -> Exec {
        let Kind::Shfl { mode, d, p, a, b, c, .. } = kind else {
            return Ok(());
        };
        let (value, defined) = (self.get(*a), self.defined(*a));
        let by = self.sure(*b, mask, "the lane to take from")?;
        let c = self.sure(*c, mask, "the clamp of the shuffle")?;
        let (mut out, mut valid, mut out_defined) = ([0; 32], 0, FULL);
        for lane in lanes(mask) {
            let (by, clamp, segment) =
                (by[lane] as i64 & 31, (c[lane] & 31) as i64, (c[lane] >> 8 & 31) as i64);
            let at = lane as i64;
            let max = at & segment | clamp & !segment;
            let (from, inside) = match mode {
                ShflMode::Up => (at - by, at - by >= max),
                ShflMode::Down => (at + by, at + by <= max),
                ShflMode::Bfly => (at ^ by, at ^ by <= max),
                ShflMode::Idx => {
                    let from = at & segment | by & !segment;
                    (from, from <= max)
                }
            };
            let from = if inside { from as usize } else { lane };
            out[lane] = value[from];
            valid |= u32::from(inside) << lane;
            if (mask & defined) >> from & 1 == 0 {
                out_defined &= !(1 << lane);
            }
        }
        self.set(*d, &out, mask, out_defined);
        if let Some(p) = p {
            self.set_p(*p, valid, mask, FULL);
        }
        Ok(())
    }

    pub fn vote(&mut self, kind: &Kind, mask: u32) -> Exec {
        let Kind::Vote { mode, d, p, members } = kind else {
            return Ok(());
        };
        let (value, defined) = self.pred(*p);
        let members = self.get(*members);
        let (mut out, mut out_defined) = ([0; 32], FULL);
        for lane in lanes(mask) {
            let group = members[lane] as u32 & mask;
            let yes = value & group;
            out[lane] = match mode {
                VoteMode::All => u64::from(yes == group),
                VoteMode::Any => u64::from(yes != 0),
                VoteMode::Uni => u64::from(yes == group || yes == 0),
                VoteMode::Ballot => u64::from(yes),
            };
            if group & !defined != 0 {
                out_defined &= !(1 << lane);
            }
        }
        self.set(*d, &out, mask, out_defined);
        Ok(())
    }

    pub fn matching(&mut self, kind: &Kind, mask: u32) -> Exec {
        let Kind::Match { all, d, p, a, members } = kind else {
            return Ok(());
        };
        let value = self.sure(*a, mask, "the value to match")?;
        let members = self.get(*members);
        let (mut out, mut valid) = ([0; 32], 0);
        for lane in lanes(mask) {
            let group = members[lane] as u32 & mask;
            let same = lanes(group).filter(|&other| value[other] == value[lane]);
            let same = same.fold(0u32, |mask, other| mask | 1 << other);
            let is = !all || same == group;
            out[lane] = if is { u64::from(same) } else { 0 };
            valid |= u32::from(is) << lane;
        }
        self.set(*d, &out, mask, FULL);
        if let Some(p) = p {
            self.set_p(*p, valid, mask, FULL);
        }
        Ok(())
    }

    pub fn redux(&mut self, kind: &Kind, mask: u32) -> Exec {
        let Kind::Redux { f, d, a, members } = kind else {
            return Ok(());
        };
        let (value, defined) = (self.get(*a), self.defined(*a));
        let members = self.get(*members);
        let (mut out, mut out_defined) = ([0; 32], FULL);
        for lane in lanes(mask) {
            let group = members[lane] as u32 & mask;
            out[lane] = lanes(group).map(|other| value[other] as u32).reduce(f).map_or(0, u64::from);
            if group & !defined != 0 {
                out_defined &= !(1 << lane);
            }
        }
        self.set(*d, &out, mask, out_defined);
        Ok(())
    }

    /// A row of A or a column of B with an undefined element makes what depends on it undefined, and nothing else.
    pub fn mma(&mut self, form: &Mma, d: &[u32], [a, b, c]: [&[u32]; 3]) {
        let mut out = [[0; 32]; 4];
        let get = |list: &[u32]| {
            let mut words = [&self.w[0]; 4];
            words.iter_mut().zip(list).for_each(|(word, &index)| *word = &self.w[index as usize]);
            words
        };
        let (a_words, b_words, c_words) = (get(a), get(b), get(c));
        form.run(&mut out[..d.len()], &a_words[..a.len()], &b_words[..b.len()], &c_words[..c.len()]);
        let all = |list: &[u32]| list.iter().fold(FULL, |all, &index| all & self.w_defined[index as usize]);
        let mut defined = [FULL; 4];
        if all(a) & all(b) & all(c) != FULL {
            defined = self.mma_defined(d.len(), a, b, c);
        }
        for (at, &index) in d.iter().enumerate() {
            self.set_w(index, &out[at], FULL, defined[at]);
        }
    }

    fn mma_defined(&self, registers: usize, a: &[u32], b: &[u32], c: &[u32]) -> [u32; 4] {
        let of = |index: u32| self.w_defined[index as usize];
        // Rows g and g + 8: all four lanes of the group, in the registers of that half.
        let row = |half: usize, g: usize| {
            let odd = a.len() > 1;
            let mine = a.iter().enumerate().filter(|(at, _)| !odd || at % 2 == half);
            mine.fold(true, |all, (_, &index)| all && of(index) >> (4 * g) & 15 == 15)
        };
        let column = |n: usize| b.iter().all(|&index| of(index) >> (4 * n) & 15 == 15);
        let mut defined = [0; 4];
        for (at, out) in defined.iter_mut().take(registers).enumerate() {
            for lane in 0..32 {
                let (g, t) = (lane / 4, lane % 4);
                // Four registers: (row half, column) = (at / 2, at % 2). Two: f16 pairs by half, or one half's columns.
                let pairs = registers == 2 && a.len() > 1;
                let (half, columns) = match (registers, pairs) {
                    (4, _) => (at / 2, 2 * t + at % 2..2 * t + at % 2 + 1),
                    (_, true) => (at, 2 * t..2 * t + 2),
                    _ => (0, 2 * t + at..2 * t + at + 1),
                };
                let known = row(half, g) && columns.clone().all(column) && of(c[at]) >> lane & 1 == 1;
                *out |= u32::from(known) << lane;
            }
        }
        defined
    }
}

impl Block<'_> {
    /// Addresses of the rows of `matrices` matrices: of the first lanes.
    fn rows(&mut self, warp: &Warp, addr: &Addr, matrices: usize) -> Exec<D> {
        let used = if matrices == 4 { FULL } else { (1 << (8 * matrices)) - 1 };
        let addrs = warp.addresses(addr, used)?;
        self.counts.shared_requests += 1;
        for matrix in 0..matrices {
            self.counts.shared_wavefronts_ideal += 1;
            self.counts.shared_wavefronts += super::shared::passes(&addrs, 0xff << (8 * matrix), 16);
        }
        Ok(addrs)
    }

    pub(super) fn ldmatrix(&mut self, warp: &mut Warp, d: &[u32], addr: &Addr, trans: bool) -> Exec {
        let addrs = self.rows(warp, addr, d.len())?;
        for (matrix, &register) in d.iter().enumerate() {
            let (mut rows, mut known, mut all) = ([[0; 4]; 8], [[0; 4]; 8], true);
            for row in 0..8 {
                let lane = mma::ldmatrix_lane(matrix, row);
                let at = self.shared_at(addrs[lane], 16, lane)?;
                self.shared_read_check(warp, at, 16, lane)?;
                // Not noted: when one lane has its result, all rows have been read.
                self.lane_check_read(warp, at, 16, lane)?;
                for (word, value) in rows[row].iter_mut().enumerate() {
                    *value = self.shared.load(at + 4 * word, 4) as u32;
                }
                if !self.launch.checks || self.shared.is_defined(at, 16) {
                    known[row] = [u32::MAX; 4];
                    continue;
                }
                all = false;
                for (word, known) in known[row].iter_mut().enumerate() {
                    for byte in 0..4 {
                        let defined = self.shared.defined[at + 4 * word + byte] == 1;
                        *known |= if defined { 0xff << (8 * byte) } else { 0 };
                    }
                }
            }
            let values = mma::ldmatrix(&rows, trans);
            let defined = if all {
                FULL
            } else {
                let bytes = mma::ldmatrix(&known, trans);
                (0..32).fold(0, |mask, lane| mask | u32::from(bytes[lane] == u32::MAX) << lane)
            };
            warp.set_w(register, &values, FULL, defined);
        }
        Ok(())
    }

    pub(super) fn stmatrix(&mut self, warp: &Warp, s: &[u32], addr: &Addr, trans: bool) -> Exec {
        let addrs = self.rows(warp, addr, s.len())?;
        for (matrix, &register) in s.iter().enumerate() {
            let rows = mma::stmatrix(&warp.w[register as usize], trans);
            let known = warp.w_defined[register as usize];
            let known = std::array::from_fn(|lane| if known >> lane & 1 == 1 { u32::MAX } else { 0 });
            let known = mma::stmatrix(&known, trans);
            for row in 0..8 {
                let lane = mma::ldmatrix_lane(matrix, row);
                let at = self.shared_at(addrs[lane], 16, lane)?;
                self.shared_write_check(warp, at, 16, lane)?;
                self.lane_check_write(warp, at, 16, lane)?;
                self.lane_note_write(warp, at, 16, lane);
                for word in 0..4 {
                    let place = at + 4 * word;
                    self.shared.store(place, 4, u64::from(rows[row][word]));
                    for byte in 0..4 {
                        self.shared.defined[place + byte] = (known[row][word] >> (8 * byte) & 1) as u8;
                    }
                }
            }
        }
        Ok(())
    }
}
