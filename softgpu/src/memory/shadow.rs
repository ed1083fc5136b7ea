//! Who accessed which byte, for the detection of races: the last writer and two readers of each byte.
//!
//! A race is two accesses to one byte, one of them a write, by different warps with nothing that orders them. Order within a
//! block comes from barriers, told by vector clocks: warp w has seen warp u up to clock `seen[u]` (as in FastTrack, Flanagan and
//! Freund 2009). Different blocks of a launch are never ordered. Two readers suffice: a writer clashes if any reader other than
//! itself is unordered, and of two different ones at least one is other than itself.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::*};

/// Types for which all bytes zero is a value.
///
/// # Safety
/// All bytes zero is a value, and dropping one does nothing.
pub(crate) unsafe trait ZeroIsValue {}
// SAFETY: integers.
unsafe impl ZeroIsValue for AtomicU8 {}
// SAFETY: integers.
unsafe impl ZeroIsValue for AtomicU32 {}
// SAFETY: integers.
unsafe impl ZeroIsValue for AtomicU64 {}

/// A slice of zeros, of which the host gives pages only when they are written.
pub(crate) struct Zeroed<T: ZeroIsValue> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: owns its elements, as a `Box<[T]>` does.
unsafe impl<T: ZeroIsValue + Send> Send for Zeroed<T> {}
// SAFETY: as above.
unsafe impl<T: ZeroIsValue + Sync> Sync for Zeroed<T> {}

impl<T: ZeroIsValue> Zeroed<T> {
    /// `None` when the host has not enough memory.
    pub fn new(len: usize) -> Option<Self> {
        let layout = Layout::array::<T>(len).ok()?;
        if layout.size() == 0 {
            return Some(Self { start: NonNull::dangling(), len: 0 });
        }
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        Some(Self { start: NonNull::new(start.cast())?, len })
    }

    /// The first element.
    pub fn as_ptr(&self) -> *mut T {
        self.start.as_ptr()
    }
}

impl<T: ZeroIsValue> Deref for Zeroed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` points to `len` elements, all bytes of which were set at first (or none), and we own them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: ZeroIsValue> Drop for Zeroed<T> {
    fn drop(&mut self) {
        if let Ok(layout) = Layout::array::<T>(self.len)
            && layout.size() > 0
        {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

/// Block in an entry: 1 + block % `BLOCKS`, so that 0 is "nobody". More blocks than that share names; a race between two of them
/// goes unseen.
const BLOCKS: u64 = 0xfffd;
/// Set in the entry of an atomic access.
const ATOMIC: u32 = 1 << 10;
/// Clocks of an entry run up to here; what comes later counts as ordered.
const MAX_CLOCK: u32 = ATOMIC - 1;
/// Bytes whose entries are reset together at the first access of a launch.
const PAGE: usize = 4096;

/// Who accesses.
pub(crate) struct Access<'a> {
    /// As [`Access::entry`] makes it: block 16 bits, warp 5, atomic 1, clock 10.
    pub entry: u32,
    /// For each warp of the block, the clock up to which this warp has seen it.
    pub seen: &'a [u32; 32],
    /// Number of the launch, not 0.
    pub launch: u32,
}

impl Access<'_> {
    /// The entry of a warp: `block` linear in the grid, `warp` in the block, its `clock`.
    pub fn entry(block: u64, warp: u32, clock: u32) -> u32 {
        ((block % BLOCKS) as u32 + 1) << 16 | warp << 11 | clock.min(MAX_CLOCK)
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
        if earlier >> 16 != self.entry >> 16 {
            return true;
        }
        let warp = earlier >> 11 & 31;
        warp != self.entry >> 11 & 31 && (earlier & MAX_CLOCK) > self.seen[warp as usize]
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

/// The entries of one piece of memory.
pub(crate) struct Shadow {
    writers: Zeroed<AtomicU32>,
    readers: [Zeroed<AtomicU32>; 2],
    /// For each page: twice the number of the launch that its entries are of, plus one while they are being reset.
    pages: Zeroed<AtomicU32>,
}

impl Shadow {
    /// For so many bytes; `None` when the host has not enough memory.
    pub fn new(bytes: usize) -> Option<Self> {
        Some(Self {
            writers: Zeroed::new(bytes)?,
            readers: [Zeroed::new(bytes)?, Zeroed::new(bytes)?],
            pages: Zeroed::new(bytes.div_ceil(PAGE))?,
        })
    }

    /// Makes the entries those of this launch.
    #[inline]
    fn touch(&self, offset: usize, bytes: usize, launch: u32) {
        for page in offset / PAGE..(offset + bytes).div_ceil(PAGE) {
            while self.pages[page].load(Acquire) != launch * 2 {
                self.reset(page, launch);
            }
        }
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
        let end = self.writers.len().min((page + 1) * PAGE);
        for entries in [&self.writers, &self.readers[0], &self.readers[1]] {
            for entry in &entries[page * PAGE..end] {
                entry.store(0, Relaxed);
            }
        }
        self.pages[page].store(launch * 2, Release);
    }

    fn clash(access: &Access<'_>, offset: usize, other: u32, other_wrote: bool) -> Clash {
        Clash {
            offset,
            other_wrote,
            other_atomic: other & ATOMIC != 0,
            other_block: other >> 16 != access.entry >> 16,
            other_warp: other >> 11 & 31,
        }
    }

    /// A plain load of bytes.
    #[inline]
    pub fn read(&self, access: &Access<'_>, offset: usize, bytes: usize) -> Result<(), Clash> {
        self.touch(offset, bytes, access.launch);
        let end = offset + bytes;
        let writers = &self.writers[offset..end];
        let first = &self.readers[0][offset..end];
        for at in 0..bytes {
            let writer = writers[at].load(Relaxed);
            if access.is_unordered(writer) {
                return Err(Self::clash(access, offset + at, writer, true));
            }
            let reader = first[at].load(Relaxed);
            if reader != access.entry {
                self.note_reader(access, offset + at, reader);
            }
        }
        Ok(())
    }

    #[inline]
    fn note_reader(&self, access: &Access<'_>, at: usize, first: u32) {
        // A slot is ours when it is free, of our own warp, or of one whose access is before ours.
        let same_warp = |other: u32| other >> 11 == access.entry >> 11;
        if same_warp(first) || !access.is_unordered(first) {
            self.readers[0][at].store(access.entry, Relaxed);
        } else {
            self.readers[1][at].store(access.entry, Relaxed);
        }
    }

    /// A plain store of bytes.
    #[inline]
    pub fn write(&self, access: &Access<'_>, offset: usize, bytes: usize) -> Result<(), Clash> {
        self.touch(offset, bytes, access.launch);
        for at in offset..offset + bytes {
            let writer = self.writers[at].load(Relaxed);
            if access.is_unordered(writer) {
                return Err(Self::clash(access, at, writer, true));
            }
            for readers in &self.readers {
                let reader = readers[at].load(Relaxed);
                if access.is_unordered(reader) {
                    return Err(Self::clash(access, at, reader, false));
                }
            }
            self.writers[at].store(access.entry, Relaxed);
        }
        Ok(())
    }

    /// Bytes that the launch read and wrote.
    pub fn distinct(&self, launch: u32) -> (u64, u64) {
        let (mut read, mut written) = (0, 0);
        for page in (0..self.pages.len()).filter(|&page| self.pages[page].load(Relaxed) == launch * 2) {
            let range = page * PAGE..self.writers.len().min((page + 1) * PAGE);
            let used =
                |entries: &[AtomicU32]| entries.iter().filter(|entry| entry.load(Relaxed) != 0).count();
            read += used(&self.readers[0][range.clone()]) as u64;
            written += used(&self.writers[range]) as u64;
        }
        (read, written)
    }
}
