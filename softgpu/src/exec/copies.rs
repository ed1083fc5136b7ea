//! Asynchronous copies of a warp: taken at once from the source, put into shared memory when they are waited for. Until then others
//! may neither touch the destination nor write the source.

use std::ops::Range;

use super::code::{Copy, D};
use super::warp::{Exec, Warp, fault, lanes};
use super::{Block, ComplaintKind};

/// What a copy reads: an allocation and the bytes there.
struct Source {
    index: usize,
    range: Range<usize>,
    /// The warp's clock when the copy began.
    clock: u32,
}

/// A copy of one lane.
pub(super) struct Pending {
    lane: u32,
    to: u32,
    bytes: u32,
    data: [u8; 16],
    defined: u16,
    /// `None`: all zeros, or nobody checks.
    source: Option<Source>,
    /// Number of its group, once committed.
    group: Option<u32>,
}

/// What a warp has under way.
#[derive(Default)]
pub(super) struct Copies {
    pending: Vec<Pending>,
    /// Groups that each lane has committed.
    groups: [u32; 32],
}

impl Copies {
    /// The first of these bytes of an allocation that a copy reads.
    fn reads(&self, index: usize, range: &Range<usize>) -> Option<usize> {
        let sources = self.pending.iter().filter_map(|one| one.source.as_ref());
        let mut both = sources
            .filter(|source| source.index == index)
            .map(|source| source.range.start.max(range.start)..source.range.end.min(range.end));
        both.find(|both| !both.is_empty()).map(|both| both.start)
    }
}

/// Where in an allocation the unfinished copies of a block read: nowhere else need a store look for them.
pub(super) struct Reading {
    index: usize,
    range: Range<usize>,
    copies: usize,
}

impl Block<'_> {
    pub(super) fn copy_async(&mut self, warp: &mut Warp, copy: &Copy, mask: u32) -> Exec {
        let to = warp.addresses(&copy.shared, mask)?;
        let mut sizes: D = [u64::from(copy.bytes); 32];
        if let Some(slot) = copy.source_bytes {
            sizes = warp.sure(slot, mask, "the size of the source")?;
        }
        if let Some(pred) = copy.ignore {
            let (value, defined) = warp.pred(pred);
            if mask & !defined != 0 {
                return fault(
                    ComplaintKind::Undefined,
                    mask & !defined,
                    "the predicate was never given a value",
                );
            }
            lanes(mask & value).for_each(|lane| sizes[lane] = 0);
        }
        let reading = lanes(mask).filter(|&lane| sizes[lane] > 0).fold(0, |mask, lane| mask | 1 << lane);
        let from = warp.addresses(&copy.global, reading)?;
        let bytes = copy.bytes as usize;
        if let Some(lane) = lanes(mask).find(|&lane| sizes[lane] > u64::from(copy.bytes)) {
            return fault(ComplaintKind::OutOfBounds, 1 << lane, "the source is larger than the copy");
        }
        let found = self.find_global(&from, reading, |lane| sizes[lane] as usize, bytes)?;
        self.count_global(&from, reading, bytes, true, &found);
        // It stores as `st.shared` of as many bytes does, zeros too.
        self.count_shared(&to, mask, bytes);
        for lane in lanes(mask) {
            let at = self.shared_at(to[lane], bytes, lane)?;
            self.shared_write_check(warp, at, bytes, lane)?;
            self.lane_check_write(warp, at, bytes, lane)?;
            let mut one = Pending {
                lane: lane as u32,
                to: at as u32,
                bytes: copy.bytes,
                data: [0; 16],
                defined: 0xffff,
                source: None,
                group: None,
            };
            let size = sizes[lane] as usize;
            if size > 0 {
                let (index, offset) = found[lane];
                self.global_read_check(warp, index, offset, size, lane)?;
                let allocation = &self.launch.view.live[index];
                for byte in 0..size {
                    one.data[byte] = allocation.load(offset + byte, 1) as u8;
                    if self.launch.checks && !allocation.is_defined(offset + byte, 1) {
                        one.defined &= !(1 << byte);
                    }
                }
                if self.launch.checks {
                    self.begin_reading(index, offset..offset + size);
                    one.source = Some(Source { index, range: offset..offset + size, clock: warp.clock });
                }
            }
            self.shared.pending[at..at + bytes].fill(true);
            self.shared.n_pending += bytes;
            warp.copies.pending.push(one);
        }
        Ok(())
    }

    fn begin_reading(&mut self, index: usize, range: Range<usize>) {
        match self.reading.iter_mut().find(|known| known.index == index) {
            Some(known) => {
                known.range = known.range.start.min(range.start)..known.range.end.max(range.end);
                known.copies += 1;
            }
            None => self.reading.push(Reading { index, range, copies: 1 }),
        }
    }

    fn end_reading(&mut self, index: usize) {
        if let Some(at) = self.reading.iter().position(|known| known.index == index) {
            self.reading[at].copies -= 1;
            if self.reading[at].copies == 0 {
                self.reading.swap_remove(at);
            }
        }
    }

    /// The warp of an unfinished copy that reads some of these bytes of an allocation, and the first of them.
    pub(super) fn copy_that_reads(
        &self,
        warp: &Warp,
        index: usize,
        range: Range<usize>,
    ) -> Option<(u32, usize)> {
        let near =
            |one: &Reading| one.index == index && one.range.start < range.end && range.start < one.range.end;
        if !self.reading.iter().any(near) {
            return None;
        }
        // The warp that runs is not among the block's.
        let mut warps = self.warps.iter().chain([warp]);
        warps.find_map(|one| one.copies.reads(index, &range).map(|at| (one.index, at)))
    }

    pub(super) fn copy_commit(&mut self, warp: &mut Warp, mask: u32) {
        for one in
            warp.copies.pending.iter_mut().filter(|one| one.group.is_none() && mask >> one.lane & 1 == 1)
        {
            one.group = Some(warp.copies.groups[one.lane as usize]);
        }
        lanes(mask).for_each(|lane| warp.copies.groups[lane] += 1);
    }

    /// Finishes the copies of all but the last `outstanding` groups; without a number, all copies, committed or not.
    pub(super) fn copy_wait(&mut self, warp: &mut Warp, outstanding: Option<u32>, mask: u32) -> Exec {
        let groups = warp.copies.groups;
        let is_done = |one: &Pending| {
            let mine = mask >> one.lane & 1 == 1;
            mine && match (outstanding, one.group) {
                (None, _) => true,
                (Some(outstanding), Some(group)) => group + outstanding < groups[one.lane as usize],
                (Some(_), None) => false,
            }
        };
        let (done, rest) = std::mem::take(&mut warp.copies.pending).into_iter().partition(is_done);
        warp.copies.pending = rest;
        let done: Vec<Pending> = done;
        for one in &done {
            let (at, bytes, lane) = (one.to as usize, one.bytes as usize, one.lane as usize);
            if let Some(Source { index, range, clock }) = &one.source {
                self.end_reading(*index);
                // Read when it began, or now, or at any time between.
                if *clock != warp.clock {
                    self.global_read_check(warp, *index, range.start, range.len(), lane)?;
                }
            }
            self.shared.pending[at..at + bytes].fill(false);
            self.shared.n_pending -= bytes;
            self.shared.bytes[at..at + bytes].copy_from_slice(&one.data[..bytes]);
            for byte in 0..bytes {
                self.shared.defined[at + byte] = (one.defined >> byte & 1) as u8;
            }
            self.shared_write_check(warp, at, bytes, lane)?;
            self.lane_note_write(warp, at, bytes, lane);
        }
        Ok(())
    }
}
