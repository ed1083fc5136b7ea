//! Shared memory of a block: what has been written, who accessed it, how often the banks were passed over.

use super::lane_races::LaneRaces;
use super::warp::{Exec, Warp, fault, lanes};
use super::{Block, ComplaintKind};
use crate::memory::{Access, Clash, Shadow};

/// Banks of 4 bytes that answer at once.
const BANKS: usize = 32;

pub(super) struct Shared {
    pub bytes: Vec<u8>,
    pub defined: Vec<u8>,
    /// Bytes that an unfinished copy will write.
    pub pending: Vec<bool>,
    /// How many those are.
    pub n_pending: usize,
    pub shadow: Option<Shadow>,
    pub lanes: LaneRaces,
    /// Number of the block among those that used this memory, as the shadow's launch.
    pub stamp: u32,
}

impl Shared {
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            defined: vec![0; bytes],
            pending: vec![false; bytes],
            n_pending: 0,
            shadow: Shadow::new(bytes),
            lanes: LaneRaces::new(bytes),
            stamp: 0,
        }
    }

    /// Memory for the next block: nothing is written.
    pub fn start(&mut self) {
        // Numbers that are not, as in fresh global memory.
        self.bytes.fill(0xff);
        self.defined.fill(0);
        self.pending.fill(false);
        self.n_pending = 0;
        self.stamp += 1;
        (0..32).for_each(|warp| self.lanes.order(warp));
    }

    /// An element of 1, 2, 4 or 8 bytes.
    pub fn load(&self, at: usize, width: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&self.bytes[at..at + width]);
        u64::from_le_bytes(bytes)
    }

    pub fn store(&mut self, at: usize, width: usize, value: u64) {
        self.bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }

    pub fn is_defined(&self, at: usize, bytes: usize) -> bool {
        self.defined[at..at + bytes].iter().all(|byte| *byte == 1)
    }
}

impl Block<'_> {
    /// The place of an access in shared memory.
    #[inline]
    pub(super) fn shared_at(&self, addr: u64, bytes: usize, lane: usize) -> Exec<usize> {
        let size = self.shared.bytes.len() as u64;
        if !addr.is_multiple_of(bytes as u64) {
            let what = format!("{bytes} bytes at shared address {addr:#x}");
            return fault(ComplaintKind::Misaligned, 1 << lane, what);
        }
        if addr > size || bytes as u64 > size - addr {
            let what = format!(
                "{bytes} bytes at shared address {addr}, the block has {size} bytes of shared memory"
            );
            return fault(ComplaintKind::OutOfBounds, 1 << lane, what);
        }
        Ok(addr as usize)
    }

    /// Who accesses: as in global memory, but here the block is alone.
    #[inline]
    pub(super) fn shared_access<'w>(&self, warp: &'w Warp) -> Access<'w> {
        let block_at = Access::block_at(1);
        let entry = Access::entry(block_at, 0, warp.index, warp.clock);
        Access { entry, block_at, seen: &warp.seen, launch: self.shared.stamp }
    }

    fn shared_clash<T>(&self, warp: &Warp, clash: &Clash, lane: usize, writes: bool) -> Exec<T> {
        let did = if writes { "writes" } else { "reads" };
        let other = if clash.other_wrote { "written" } else { "read" };
        let what = format!(
            "warp {} {did} byte {} of shared memory, {other} by warp {} with no barrier between",
            warp.index, clash.offset, clash.other_warp
        );
        fault(ComplaintKind::Race, 1 << lane, what)
    }

    fn shared_pending<T>(&self, at: usize, lane: usize) -> Exec<T> {
        let what = format!(
            "byte {at} of shared memory is the destination of a cp.async that has not been waited for"
        );
        fault(ComplaintKind::AsyncCopy, 1 << lane, what)
    }

    #[inline]
    pub(super) fn shared_read_check(&self, warp: &Warp, at: usize, bytes: usize, lane: usize) -> Exec {
        if !self.launch.checks {
            return Ok(());
        }
        if self.shared.n_pending > 0
            && let Some(first) = self.shared.pending[at..at + bytes].iter().position(|pending| *pending)
        {
            return self.shared_pending(at + first, lane);
        }
        let access = self.shared_access(warp);
        match self.shared.shadow.as_ref().map(|shadow| shadow.read(&access, at, bytes)) {
            Some(Err(clash)) => self.shared_clash(warp, &clash, lane, false),
            _ => Ok(()),
        }
    }

    #[inline]
    pub(super) fn shared_write_check(&self, warp: &Warp, at: usize, bytes: usize, lane: usize) -> Exec {
        let access = self.shared_access(warp);
        self.shared_write_as(warp, &access, at, bytes, lane)
    }

    pub(super) fn shared_write_as(
        &self,
        warp: &Warp,
        access: &Access<'_>,
        at: usize,
        bytes: usize,
        lane: usize,
    ) -> Exec {
        if !self.launch.checks {
            return Ok(());
        }
        if self.shared.n_pending > 0
            && let Some(first) = self.shared.pending[at..at + bytes].iter().position(|pending| *pending)
        {
            return self.shared_pending(at + first, lane);
        }
        match self.shared.shadow.as_ref().map(|shadow| shadow.write(access, at, bytes)) {
            Some(Err(clash)) => self.shared_clash(warp, &clash, lane, true),
            _ => Ok(()),
        }
    }

    /// Counts the passes over the banks of one access: threads whose bytes fill 128 go together.
    pub(super) fn count_shared(&mut self, at: &[u64; 32], mask: u32, bytes: usize) {
        self.counts.shared_requests += 1;
        let together = if bytes <= 4 { 32 } else { 128 / bytes };
        for first in (0..32).step_by(together) {
            let group = mask & ((((1u64 << together) - 1) as u32) << first);
            if group == 0 {
                continue;
            }
            self.counts.shared_wavefronts_ideal += 1;
            self.counts.shared_wavefronts += passes(at, group, bytes);
        }
    }
}

/// The most different words that a bank has to give.
pub(super) fn passes(at: &[u64; 32], group: u32, bytes: usize) -> u64 {
    let first = at[group.trailing_zeros() as usize & 31];
    // Threads side by side, or all at one place: by far the most frequent.
    if lanes(group).all(|lane| at[lane] == first)
        || lanes(group).enumerate().all(|(n, lane)| at[lane] == first + (n * bytes) as u64)
    {
        return 1;
    }
    let mut first = [u64::MAX; BANKS];
    let mut more: Vec<u64> = Vec::new();
    for lane in lanes(group) {
        for word in at[lane] / 4..(at[lane] + bytes as u64).div_ceil(4) {
            let slot = &mut first[word as usize % BANKS];
            if *slot == u64::MAX {
                *slot = word;
            } else if *slot != word {
                more.push(word);
            }
        }
    }
    more.sort_unstable();
    more.dedup();
    let mut counts = [1; BANKS];
    for word in more {
        counts[word as usize % BANKS] += 1;
    }
    counts.into_iter().max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn words_of_one_bank_take_one_pass_each() {
        let at = |f: fn(u64) -> u64| std::array::from_fn(|lane| f(lane as u64));
        assert_eq!(passes(&at(|lane| lane * 4), u32::MAX, 4), 1);
        assert_eq!(passes(&at(|_| 8), u32::MAX, 4), 1);
        assert_eq!(passes(&at(|lane| lane * 8), u32::MAX, 4), 2);
        assert_eq!(passes(&at(|lane| lane * 128), u32::MAX, 4), 32);
        // Eight rows of 16 bytes, 64 bytes apart: rows 0, 2, 4, 6 share their banks.
        assert_eq!(passes(&at(|lane| lane * 64), 0xff, 16), 4);
        assert_eq!(passes(&at(|lane| lane * 80), 0xff, 16), 1);
    }
}
