//! Who accessed which byte, for the detection of races: the last writer and two readers of each byte.
//!
//! A race is two accesses to one byte, one of them a write, by different warps with nothing that orders them. Order within a
//! block comes from barriers, told by vector clocks: warp w has seen warp u up to clock `seen[u]` (as in FastTrack, Flanagan and
//! Freund 2009). Different blocks of a launch are never ordered. Two readers suffice: a writer clashes if any reader other than
//! itself is unordered, and of two different ones at least one is other than itself.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::*};

use super::zeroed::Zeroed;

/// Blocks in entries. More than that share names; a race between two of them goes unseen.
const BLOCKS: u64 = 0xfffd;
/// Bits of a block in an entry, at most. The clock has what is left.
const MAX_BLOCK_BITS: u32 = 16;
/// Set in the entry of an atomic access.
const ATOMIC: u32 = 1;
/// Where warp and clock begin in an entry.
const WARP: u32 = 1;
const CLOCK: u32 = 6;
/// Bytes whose entries are reset together at the first access of a launch.
const PAGE: usize = 4096;

/// Who accesses.
pub(crate) struct Access<'a> {
    /// As [`Access::entry`] makes it.
    pub entry: u32,
    /// As [`Access::block_at`] says.
    pub block_at: u32,
    /// For each warp of the block, the clock up to which this warp has seen it.
    pub seen: &'a [u32; 32],
    /// Number of the launch, not 0.
    pub launch: u32,
}

impl Access<'_> {
    /// Where the block begins in entries of so many blocks. Clocks run up to 2^25 - 1 for up to two, to 1023 for more than 32768;
    /// what comes later counts as ordered.
    #[inline]
    pub fn block_at(blocks: u64) -> u32 {
        let bits = u64::BITS - blocks.saturating_sub(1).leading_zeros();
        u32::BITS - bits.clamp(1, MAX_BLOCK_BITS)
    }

    /// The entry of a warp: `block` linear in the grid, `warp` in the block, its `clock`, which is not 0: that is "nobody".
    #[inline]
    pub fn entry(block_at: u32, block: u64, warp: u32, clock: u32) -> u32 {
        let last = (1 << (block_at - CLOCK)) - 1;
        ((block % BLOCKS) as u32) << block_at | clock.min(last) << CLOCK | warp << WARP
    }

    /// The same, made atomically: no clash with other atomic accesses.
    pub fn atomically(&self) -> Self {
        Self { entry: self.entry | ATOMIC, ..*self }
    }

    /// Whether the earlier access may not have happened before this one.
    #[inline]
    fn is_unordered(&self, earlier: u32) -> bool {
        if earlier == 0 || earlier == self.entry || (earlier & self.entry & ATOMIC != 0) {
            return false;
        }
        if earlier >> self.block_at != self.entry >> self.block_at {
            return true;
        }
        let warp = earlier >> WARP & 31;
        let clock = (earlier & ((1 << self.block_at) - 1)) >> CLOCK;
        warp != self.entry >> WARP & 31 && clock > self.seen[warp as usize]
    }
}

/// Two accesses without order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    /// The byte, as an offset into the memory shadowed.
    pub offset: usize,
    /// The other access was a write.
    pub other_wrote: bool,
    /// The other access was atomic.
    pub other_atomic: bool,
    /// The other is of another block.
    pub other_block: bool,
    /// Warp of the other.
    pub other_warp: u32,
}

/// Entries at one granularity.
struct Entries {
    writers: Zeroed<AtomicU32>,
    readers: [Zeroed<AtomicU32>; 2],
    /// For each page: twice the number of the launch that its entries are of, plus one while they are being reset.
    pages: Zeroed<AtomicU32>,
    /// Entries of a page.
    per_page: usize,
}

impl Entries {
    fn new(len: usize, per_page: usize) -> Option<Self> {
        Some(Self {
            writers: Zeroed::new(len)?,
            readers: [Zeroed::new(len)?, Zeroed::new(len)?],
            pages: Zeroed::new(len.div_ceil(per_page))?,
            per_page,
        })
    }

    /// Makes the entries those of this launch.
    #[inline]
    fn touch(&self, range: &Range<usize>, launch: u32) {
        for page in range.start / self.per_page..range.end.div_ceil(self.per_page) {
            while self.pages[page].load(Acquire) != launch * 2 {
                self.reset(page, launch);
            }
        }
    }

    /// Whether any entry may be of this launch.
    #[inline]
    fn is_touched(&self, range: &Range<usize>, launch: u32) -> bool {
        let pages = range.start / self.per_page..range.end.div_ceil(self.per_page);
        self.pages[pages].iter().any(|page| page.load(Acquire) == launch * 2)
    }

    #[cold]
    fn reset(&self, page: usize, launch: u32) {
        let old = self.pages[page].load(Acquire);
        let busy = launch * 2 + 1;
        if old == launch * 2 {
            return;
        }
        if old == busy || self.pages[page].compare_exchange(old, busy, AcqRel, Acquire).is_err() {
            std::hint::spin_loop();
            return;
        }
        let end = self.writers.len().min((page + 1) * self.per_page);
        for entries in [&self.writers, &self.readers[0], &self.readers[1]] {
            for entry in &entries[page * self.per_page..end] {
                entry.store(0, Relaxed);
            }
        }
        self.pages[page].store(launch * 2, Release);
    }

    /// Checks a load against writers; the entry that clashes and its place.
    #[inline]
    fn check_read(&self, access: &Access<'_>, range: Range<usize>) -> Result<(), (usize, u32)> {
        for (at, writer) in self.writers[range.clone()].iter().enumerate() {
            let writer = writer.load(Relaxed);
            if writer != 0 && access.is_unordered(writer) {
                return Err((range.start + at, writer));
            }
        }
        Ok(())
    }

    #[inline]
    fn note_read(&self, access: &Access<'_>, range: Range<usize>) {
        for (at, reader) in self.readers[0][range.clone()].iter().enumerate() {
            let first = reader.load(Relaxed);
            if first == access.entry {
                continue;
            }
            // A slot is ours when it is free, of our own warp, or of one whose access is before ours.
            if !access.is_unordered(first) {
                reader.store(access.entry, Relaxed);
            } else {
                self.readers[1][range.start + at].store(access.entry, Relaxed);
            }
        }
    }

    /// Checks a store against writers and readers: place, entry, and whether the other wrote.
    #[inline]
    fn check_write(&self, access: &Access<'_>, range: Range<usize>) -> Result<(), (usize, u32, bool)> {
        for at in range {
            let writer = self.writers[at].load(Relaxed);
            if access.is_unordered(writer) {
                return Err((at, writer, true));
            }
            for readers in &self.readers {
                let reader = readers[at].load(Relaxed);
                if access.is_unordered(reader) {
                    return Err((at, reader, false));
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn note_write(&self, access: &Access<'_>, range: Range<usize>) {
        for writer in &self.writers[range] {
            writer.store(access.entry, Relaxed);
        }
    }
}

/// The entries of one piece of memory: by words of four bytes, and by bytes for accesses that are not of whole words. What is told of a
/// word holds for each of its bytes.
pub(crate) struct Shadow {
    words: Entries,
    bytes: OnceLock<Option<Entries>>,
    len: usize,
}

impl Shadow {
    /// For so many bytes; `None` when the host has not enough memory.
    pub fn new(bytes: usize) -> Option<Self> {
        let words = Entries::new(bytes.div_ceil(4), PAGE / 4)?;
        Some(Self { words, bytes: OnceLock::new(), len: bytes })
    }

    fn clash(access: &Access<'_>, offset: usize, other: u32, other_wrote: bool) -> Clash {
        Clash {
            offset,
            other_wrote,
            other_atomic: other & ATOMIC != 0,
            other_block: other >> access.block_at != access.entry >> access.block_at,
            other_warp: other >> WARP & 31,
        }
    }

    /// The entries of bytes, if any is of this launch.
    #[inline]
    fn bytes_if_touched(&self, range: &Range<usize>, launch: u32) -> Option<&Entries> {
        let entries = self.bytes.get()?.as_ref()?;
        entries.is_touched(range, launch).then_some(entries)
    }

    /// A load of bytes.
    #[inline]
    pub fn read(&self, access: &Access<'_>, offset: usize, bytes: usize) -> Result<(), Clash> {
        let range = offset..offset + bytes;
        let words = offset / 4..range.end.div_ceil(4);
        self.words.touch(&words, access.launch);
        let clash = |(at, other): (usize, u32)| Self::clash(access, at, other, true);
        self.words
            .check_read(access, words.clone())
            .map_err(|(at, other)| clash(((at * 4).max(offset), other)))?;
        if offset.is_multiple_of(4) && bytes.is_multiple_of(4) {
            self.words.note_read(access, words);
            return match self.bytes_if_touched(&range, access.launch) {
                Some(entries) => Self::read_bytes(entries, access, range, false),
                None => Ok(()),
            };
        }
        match self.bytes.get_or_init(|| Entries::new(self.len, PAGE)) {
            Some(entries) => {
                entries.touch(&range, access.launch);
                Self::read_bytes(entries, access, range, true)
            }
            None => Ok(()),
        }
    }

    /// Bytes of pages that the launch has not touched are not looked at.
    #[cold]
    fn read_bytes(
        entries: &Entries,
        access: &Access<'_>,
        range: Range<usize>,
        note: bool,
    ) -> Result<(), Clash> {
        entries.touch(&range, access.launch);
        let checked = entries.check_read(access, range.clone());
        checked.map_err(|(at, other)| Self::clash(access, at, other, true))?;
        if note {
            entries.note_read(access, range);
        }
        Ok(())
    }

    /// A store of bytes.
    #[inline]
    pub fn write(&self, access: &Access<'_>, offset: usize, bytes: usize) -> Result<(), Clash> {
        let range = offset..offset + bytes;
        let words = offset / 4..range.end.div_ceil(4);
        self.words.touch(&words, access.launch);
        let checked = self.words.check_write(access, words.clone());
        checked.map_err(|(at, other, wrote)| Self::clash(access, (at * 4).max(offset), other, wrote))?;
        if offset.is_multiple_of(4) && bytes.is_multiple_of(4) {
            self.words.note_write(access, words);
            return match self.bytes_if_touched(&range, access.launch) {
                Some(entries) => Self::write_bytes(entries, access, range, false),
                None => Ok(()),
            };
        }
        match self.bytes.get_or_init(|| Entries::new(self.len, PAGE)) {
            Some(entries) => Self::write_bytes(entries, access, range, true),
            None => Ok(()),
        }
    }

    #[cold]
    fn write_bytes(
        entries: &Entries,
        access: &Access<'_>,
        range: Range<usize>,
        note: bool,
    ) -> Result<(), Clash> {
        entries.touch(&range, access.launch);
        let checked = entries.check_write(access, range.clone());
        checked.map_err(|(at, other, wrote)| Self::clash(access, at, other, wrote))?;
        if note {
            entries.note_write(access, range);
        }
        Ok(())
    }

    /// Bytes that the launch read and wrote.
    pub fn distinct(&self, launch: u32) -> (u64, u64) {
        let is_used = |entries: &Entries, which: usize, at: usize| {
            let list = if which == 0 { &entries.readers[0] } else { &entries.writers };
            entries.pages[at / entries.per_page].load(Relaxed) == launch * 2 && list[at].load(Relaxed) != 0
        };
        let bytes = self.bytes.get().and_then(Option::as_ref);
        let mut sums = [0, 0];
        for page in 0..self.len.div_ceil(PAGE) {
            let range = page * PAGE..self.len.min((page + 1) * PAGE);
            let fine = bytes.filter(|entries| entries.pages[page].load(Relaxed) == launch * 2);
            if self.words.pages[page].load(Relaxed) != launch * 2 && fine.is_none() {
                continue;
            }
            for (which, sum) in sums.iter_mut().enumerate() {
                *sum += match fine {
                    None => {
                        let words = range.start / 4..range.end.div_ceil(4);
                        let whole = words.filter(|&at| is_used(&self.words, which, at)).count() * 4;
                        whole.min(range.len()) as u64
                    }
                    Some(fine) => {
                        let used =
                            |at: &usize| is_used(&self.words, which, at / 4) || is_used(fine, which, *at);
                        range.clone().filter(used).count() as u64
                    }
                };
            }
        }
        (sums[0], sums[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(warp: u32, clock: u32, seen: &[u32; 32]) -> Access<'_> {
        let block_at = Access::block_at(1);
        Access { entry: Access::entry(block_at, 0, warp, clock), block_at, seen, launch: 1 }
    }

    #[test]
    fn an_entry_has_room_for_its_block_warp_and_clock() {
        let at = [0, 1, 2, 3, 4, 5, 132, 32768, 32769, 1 << 40].map(Access::block_at);
        assert_eq!(at, [31, 31, 31, 30, 30, 29, 24, 17, 16, 16]);
        for (blocks, clock) in [(1, (1 << 25) - 1), (132, (1 << 18) - 1), (1 << 40, 1023)] {
            let block_at = Access::block_at(blocks);
            let access = |block, warp, clock, seen| {
                let entry = Access::entry(block_at, block, warp, clock);
                Access { entry, block_at, seen, launch: 1 }
            };
            let (mut before, mut all) = ([0; 32], [0; 32]);
            (before[31], all[31]) = (clock - 1, clock);
            let last = access(blocks - 1, 31, clock, &all).entry;
            assert!(access(blocks - 1, 0, 1, &before).is_unordered(last), "{blocks} blocks");
            assert!(!access(blocks - 1, 0, 1, &all).is_unordered(last));
            let later = access(blocks - 1, 31, clock + 1, &all);
            assert_eq!(later.entry, last, "counts as ordered");
            assert!(blocks == 1 || access(0, 31, 1, &all).is_unordered(last), "another block");
        }
    }

    #[test]
    fn a_barrier_orders_and_nothing_else_does() {
        let (shadow, unseen) = (Shadow::new(64).unwrap_or_else(|| unreachable!()), [0; 32]);
        let mut seen = [0; 32];
        seen[3] = 1;
        assert_eq!(shadow.write(&access(3, 1, &unseen), 8, 8), Ok(()));
        assert_eq!(shadow.read(&access(3, 1, &unseen), 8, 8), Ok(()));
        let clash = shadow.read(&access(0, 1, &unseen), 4, 8);
        assert!(clash.is_err_and(|clash| clash.offset == 8 && clash.other_warp == 3 && clash.other_wrote));
        assert_eq!(shadow.read(&access(0, 2, &seen), 8, 8), Ok(()));
        // Warp 3 has not seen the reader.
        assert!(shadow.write(&access(3, 2, &unseen), 12, 4).is_err_and(|clash| !clash.other_wrote));
        assert_eq!(shadow.distinct(1), (8, 8));
    }

    #[test]
    fn neighbours_in_a_word_do_not_clash() {
        let (shadow, unseen) = (Shadow::new(64).unwrap_or_else(|| unreachable!()), [0; 32]);
        assert_eq!(shadow.write(&access(0, 1, &unseen), 0, 2), Ok(()));
        assert_eq!(shadow.write(&access(1, 1, &unseen), 2, 2), Ok(()));
        assert!(shadow.write(&access(1, 1, &unseen), 1, 1).is_err());
        assert!(shadow.read(&access(2, 1, &unseen), 0, 4).is_err());
        assert_eq!(shadow.distinct(1), (4, 4));
        let next = Access { launch: 2, ..access(2, 1, &unseen) };
        assert_eq!(shadow.write(&next, 0, 4), Ok(()));
        assert_eq!(shadow.distinct(2), (0, 4));
    }
}
