//! Asynchronous copies of a warp: taken at once from the source, put into shared memory when they are waited for.

use super::code::{Copy, D};
use super::warp::{Exec, Warp, fault, lanes};
use super::{Block, ComplaintKind};

/// A copy of one lane.
pub(super) struct Pending {
    lane: u32,
    to: u32,
    bytes: u32,
    data: [u8; 16],
    defined: u16,
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
            }
            self.shared.pending[at..at + bytes].fill(true);
            self.shared.n_pending += bytes;
            warp.copies.pending.push(one);
        }
        Ok(())
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
            let (at, bytes) = (one.to as usize, one.bytes as usize);
            self.shared.pending[at..at + bytes].fill(false);
            self.shared.n_pending -= bytes;
            self.shared.bytes[at..at + bytes].copy_from_slice(&one.data[..bytes]);
            for byte in 0..bytes {
                self.shared.defined[at + byte] = (one.defined >> byte & 1) as u8;
            }
            self.shared_write_check(warp, at, bytes, one.lane as usize)?;
            self.lane_note_write(warp, at, bytes, one.lane as usize);
        }
        Ok(())
    }
}
