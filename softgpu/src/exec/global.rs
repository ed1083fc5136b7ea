//! Global memory as a block accesses it.

use super::block::Located;
use super::code::D;
use super::warp::{Exec, Fault, Warp, fault, lanes};
use super::{Block, ComplaintKind};
use crate::memory::{Access, Clash, MemoryError};

/// For each lane: index of the allocation among the live ones, offset in it.
pub(super) type Found = [(usize, usize); 32];

impl Block<'_> {
    /// Who accesses, at the warp's place in time.
    #[inline]
    pub(super) fn access<'w>(&self, warp: &'w Warp) -> Access<'w> {
        let (block_at, launch) = (self.launch.block_at, self.launch.number);
        let entry = Access::entry(block_at, self.linear, warp.index, warp.clock);
        Access { entry, block_at, seen: &warp.seen, launch }
    }

    /// Finds the allocations of an access of `size(lane)` bytes, aligned to `align`.
    pub(super) fn find_global(
        &self,
        addrs: &D,
        mask: u32,
        size: impl Fn(usize) -> usize,
        align: usize,
    ) -> Exec<Found> {
        let mut found = [(0, 0); 32];
        let (mut index, mut start, mut end) = (usize::MAX, 0, 0);
        for lane in lanes(mask) {
            let (addr, bytes) = (addrs[lane], size(lane) as u64);
            if !addr.is_multiple_of(align as u64) {
                let what = format!("{align} bytes at {addr:#x}");
                return fault(ComplaintKind::Misaligned, 1 << lane, what);
            }
            if index == usize::MAX || addr < start || addr + bytes > end {
                let Some(hit) = self.launch.view.find(addr, bytes) else {
                    let error = self.launch.view.why_not(addr, bytes);
                    let (kind, near) = match error {
                        MemoryError::Freed { near, .. } => (ComplaintKind::UseAfterFree, near),
                        MemoryError::OutOfBounds { near, .. } => (ComplaintKind::OutOfBounds, near),
                        other => (ComplaintKind::OutOfBounds, other.to_string()),
                    };
                    return fault(kind, 1 << lane, format!("{bytes} bytes at {addr:#x}, {near}"));
                };
                let allocation = &self.launch.view.live[hit];
                (index, start, end) = (hit, allocation.addr, allocation.addr + allocation.bytes);
            }
            found[lane] = (index, (addr - start) as usize);
        }
        Ok(found)
    }

    /// Calls `f(allocation, offset, bytes, a lane)` for stretches of memory that lanes access side by side.
    pub(super) fn stretches(
        found: &Found,
        mask: u32,
        bytes: usize,
        mut f: impl FnMut(usize, usize, usize, usize) -> Exec,
    ) -> Exec {
        let mut run: Option<(usize, usize, usize, usize)> = None;
        for lane in lanes(mask) {
            let (index, offset) = found[lane];
            match &mut run {
                Some((of, start, end, _)) if *of == index && offset >= *start && offset <= *end => {
                    *end = (*end).max(offset + bytes);
                }
                _ => {
                    if let Some((of, start, end, first)) = run {
                        f(of, start, end - start, first)?;
                    }
                    run = Some((index, offset, offset + bytes, lane));
                }
            }
        }
        match run {
            Some((of, start, end, first)) => f(of, start, end - start, first),
            None => Ok(()),
        }
    }

    pub(super) fn global_read_check(
        &self,
        warp: &Warp,
        index: usize,
        offset: usize,
        bytes: usize,
        lane: usize,
    ) -> Exec {
        self.global_check(warp, &self.access(warp), index, (offset, bytes), lane, false)
    }

    pub(super) fn global_check(
        &self,
        warp: &Warp,
        access: &Access<'_>,
        index: usize,
        (offset, bytes): (usize, usize),
        lane: usize,
        writes: bool,
    ) -> Exec {
        if !self.launch.checks {
            return Ok(());
        }
        let allocation = &self.launch.view.live[index];
        if writes && allocation.is_constant() {
            let place = allocation.describe(allocation.addr + offset as u64);
            return fault(
                ComplaintKind::OutOfBounds,
                1 << lane,
                format!("a store to constant memory, {place}"),
            );
        }
        if writes && let Some((reader, at)) = self.copy_that_reads(warp, index, offset..offset + bytes) {
            let place = allocation.describe(allocation.addr + at as u64);
            let what = format!(
                "warp {} writes {place}, the source of a cp.async of warp {reader} that has not been waited for",
                warp.index
            );
            return fault(ComplaintKind::AsyncCopy, 1 << lane, what);
        }
        let Some(shadow) = allocation.shadow() else {
            return Ok(());
        };
        let result =
            if writes { shadow.write(access, offset, bytes) } else { shadow.read(access, offset, bytes) };
        match result {
            Ok(()) => Ok(()),
            Err(clash) => self.global_clash(warp, index, &clash, lane, writes),
        }
    }

    fn global_clash(&self, warp: &Warp, index: usize, clash: &Clash, lane: usize, writes: bool) -> Exec {
        let allocation = &self.launch.view.live[index];
        let did = if writes { "writes" } else { "reads" };
        let other = if clash.other_wrote { "written" } else { "read" };
        let atomically = if clash.other_atomic { " atomically" } else { "" };
        let by = if clash.other_block {
            "another block of the launch".to_owned()
        } else {
            format!("warp {} of the block with no barrier between", clash.other_warp)
        };
        let place = allocation.describe(allocation.addr + clash.offset as u64);
        let what = format!("warp {} {did} {place}, {other}{atomically} by {by}", warp.index);
        fault(ComplaintKind::Race, 1 << lane, what)
    }

    /// Remembers who stored the first undefined value of an allocation: who finds it there will ask.
    #[cold]
    pub(super) fn note_undefined(&self, warp: &Warp, index: usize, offset: usize, lane: usize) {
        self.launch.view.live[index].note_undefined(|| {
            let (lane, detail) = (lane as u32, format!("stored in byte {offset}"));
            let fault = Box::new(Fault { kind: ComplaintKind::Undefined, lane, detail });
            let thread = warp.thread(self.launch.block, lane);
            self.launch.complaint(Located { fault, thread, block: self.id, pc: warp.pc }).to_string()
        });
    }

    /// Counts an access of the lanes of a mask.
    pub(super) fn count_global(&mut self, addrs: &D, mask: u32, bytes: usize, is_load: bool, found: &Found) {
        if mask == 0 {
            return;
        }
        self.counts.global_requests += 1;
        let mut sectors = [0; 64];
        let mut count = 0;
        let mut sorted = true;
        for lane in lanes(mask) {
            for sector in [addrs[lane] / 32, (addrs[lane] + bytes as u64 - 1) / 32] {
                let last = if count > 0 { sectors[count - 1] } else { u64::MAX };
                if count == 0 || last != sector {
                    sorted &= count == 0 || last < sector;
                    sectors[count] = sector;
                    count += 1;
                }
            }
        }
        let used = &mut sectors[..count];
        if !sorted {
            used.sort_unstable();
        }
        let distinct = 1 + used.windows(2).filter(|pair| pair[0] != pair[1]).count();
        self.counts.global_sectors += distinct as u64;
        let total = u64::from(mask.count_ones()) * bytes as u64;
        let first = found[mask.trailing_zeros() as usize].0;
        let together = lanes(mask).all(|lane| found[lane].0 == first);
        let mut count = |index: usize, bytes: u64| {
            let used = &mut self.counts.allocations[index];
            *(if is_load { &mut used.0 } else { &mut used.1 }) += bytes;
        };
        if together {
            count(first, total);
        } else {
            lanes(mask).for_each(|lane| count(found[lane].0, bytes as u64));
        }
        if is_load {
            self.counts.load_bytes += total;
        } else {
            self.counts.store_bytes += total;
        }
    }
}
