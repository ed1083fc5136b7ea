//! One allocation: its data, and which of its bytes have been written.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::shadow::Shadow;
use super::zeroed::Zeroed;

/// What bytes hold before they are written, and after they are freed: numbers that are not, whatever the type of float.
const POISON: u8 = 0xff;

/// What a byte holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing: nobody has written it.
    Unwritten,
    /// A value.
    Written,
    /// What a kernel stored that had it from nobody.
    Undefined,
}

/// Bits in the mark of a byte.
const WRITTEN: u64 = 1;
const UNDEFINED: u64 = 2;

/// One allocation.
pub(crate) struct Allocation {
    /// Device address of the first byte.
    pub addr: u64,
    /// Size as it was asked for.
    pub bytes: u64,
    /// Little-endian, as the device's, and complemented: zeros, which cost the host nothing, are poison.
    data: Zeroed<AtomicU64>,
    /// A byte for each, eight in a word: [`WRITTEN`], [`UNDEFINED`] or nothing. What is written may be both.
    marks: Zeroed<AtomicU64>,
    /// Every byte is known to have been written: spares the look at `marks`.
    all_written: AtomicBool,
    /// Who stored the first undefined value since all was written.
    first_undefined: Mutex<Option<String>>,
    /// Constant memory: kernels do not write it.
    pub constant: AtomicBool,
    /// Who accessed what in the launch that runs; made at the first access by a kernel.
    shadow: OnceLock<Shadow>,
}

/// A one in each of `count` bytes from byte `first`.
#[inline]
fn bytes_mask(first: usize, count: usize) -> u64 {
    (0x0101_0101_0101_0101 >> (8 * (8 - count))) << (8 * first)
}

impl Allocation {
    pub fn new(addr: u64, bytes: u64) -> Option<Self> {
        let len = usize::try_from(bytes).ok()?;
        Some(Self {
            addr,
            bytes,
            data: Zeroed::new(len.div_ceil(8))?,
            marks: Zeroed::new(len.div_ceil(8))?,
            all_written: AtomicBool::new(false),
            first_undefined: Mutex::new(None),
            constant: AtomicBool::new(false),
            shadow: OnceLock::new(),
        })
    }

    /// Whether kernels must not write it.
    pub fn is_constant(&self) -> bool {
        self.constant.load(Relaxed)
    }

    /// The race shadow; `None` when the host has no memory for it.
    pub fn shadow(&self) -> Option<&Shadow> {
        if self.shadow.get().is_none() {
            let _ = self.shadow.set(Shadow::new(self.bytes as usize)?);
        }
        self.shadow.get()
    }

    /// The race shadow, if a kernel has accessed the allocation.
    pub fn shadow_if_used(&self) -> Option<&Shadow> {
        self.shadow.get()
    }

    #[inline]
    fn pointer(&self, offset: usize, width: usize) -> *mut u8 {
        assert!(offset + width <= self.data.len() * 8 && offset.is_multiple_of(width));
        self.data.as_ptr().cast::<u8>().wrapping_add(offset)
    }

    /// The atomic under a `u8` of the data.
    #[inline]
    fn atomic8(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: `pointer` checked bounds and alignment; all accesses to `data` are atomic, and it lives as long as `self`.
        unsafe { AtomicU8::from_ptr(self.pointer(offset, 1)) }
    }

    /// The atomic under an aligned `u16` of the data.
    #[inline]
    fn atomic16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: as in `atomic8`.
        unsafe { AtomicU16::from_ptr(self.pointer(offset, 2).cast()) }
    }

    /// The atomic under an aligned `u32` of the data.
    #[inline]
    fn atomic32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `atomic8`.
        unsafe { AtomicU32::from_ptr(self.pointer(offset, 4).cast()) }
    }

    /// The atomic under an aligned `u64` of the data.
    #[inline]
    fn atomic64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `atomic8`.
        unsafe { AtomicU64::from_ptr(self.pointer(offset, 8).cast()) }
    }

    /// An aligned element of `width` 1, 2, 4 or 8 bytes.
    #[inline]
    pub fn load(&self, offset: usize, width: usize) -> u64 {
        match width {
            1 => u64::from(!self.atomic8(offset).load(Relaxed)),
            2 => u64::from(!self.atomic16(offset).load(Relaxed)),
            4 => u64::from(!self.atomic32(offset).load(Relaxed)),
            _ => !self.atomic64(offset).load(Relaxed),
        }
    }

    /// Stores an aligned element of `width` 1, 2, 4 or 8 bytes.
    #[inline]
    pub fn store(&self, offset: usize, width: usize, value: u64) {
        match width {
            1 => self.atomic8(offset).store(!(value as u8), Relaxed),
            2 => self.atomic16(offset).store(!(value as u16), Relaxed),
            4 => self.atomic32(offset).store(!(value as u32), Relaxed),
            _ => self.atomic64(offset).store(!value, Relaxed),
        }
    }

    /// Replaces an aligned element of `width` 2, 4 or 8 bytes by `next` of it, in one step. What it was.
    pub fn update(&self, offset: usize, width: usize, next: impl Fn(u64) -> u64) -> u64 {
        match width {
            2 => {
                let f = |old: u16| Some(!(next(u64::from(!old)) as u16));
                let (Ok(old) | Err(old)) = self.atomic16(offset).fetch_update(Relaxed, Relaxed, f);
                u64::from(!old)
            }
            4 => {
                let f = |old: u32| Some(!(next(u64::from(!old)) as u32));
                let (Ok(old) | Err(old)) = self.atomic32(offset).fetch_update(Relaxed, Relaxed, f);
                u64::from(!old)
            }
            _ => {
                let f = |old: u64| Some(!next(!old));
                let (Ok(old) | Err(old)) = self.atomic64(offset).fetch_update(Relaxed, Relaxed, f);
                !old
            }
        }
    }

    /// Whether all of the bytes have been written.
    #[inline]
    pub fn is_defined(&self, offset: usize, bytes: usize) -> bool {
        if self.all_written.load(Acquire) {
            return true;
        }
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let word = self.marks[at / 8].load(Relaxed);
            let upto = end.min(at / 8 * 8 + 8);
            let wanted = bytes_mask(at % 8, upto - at) * WRITTEN;
            if word & wanted != wanted {
                return false;
            }
            at = upto;
        }
        true
    }

    /// What a byte holds.
    pub fn mark_at(&self, offset: usize) -> Mark {
        if self.is_defined(offset, 1) {
            return Mark::Written;
        }
        let mark = self.marks[offset / 8].load(Relaxed) >> (8 * (offset % 8));
        if mark & UNDEFINED != 0 { Mark::Undefined } else { Mark::Unwritten }
    }

    /// Marks bytes.
    #[inline]
    pub fn mark(&self, offset: usize, bytes: usize, mark: Mark) {
        if self.all_written.load(Acquire) {
            if mark == Mark::Written {
                return;
            }
            self.mark_each();
        }
        if mark == Mark::Written && bytes as u64 == self.bytes {
            *self.undefined() = None;
            self.all_written.store(true, Relaxed);
            return;
        }
        let (clear, set) = match mark {
            Mark::Unwritten => (WRITTEN | UNDEFINED, 0),
            Mark::Written => (0, WRITTEN),
            Mark::Undefined => (WRITTEN, UNDEFINED),
        };
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let word = &self.marks[at / 8];
            let upto = end.min(at / 8 * 8 + 8);
            let ones = bytes_mask(at % 8, upto - at);
            if upto - at == 8 {
                word.store(ones * set, Relaxed);
            } else {
                if clear != 0 {
                    word.fetch_and(!(ones * clear), Relaxed);
                }
                if set != 0 {
                    word.fetch_or(ones * set, Relaxed);
                }
            }
            at = upto;
        }
    }

    /// From here on each byte has its own mark; they have not been kept while all were written.
    #[cold]
    fn mark_each(&self) {
        // Two blocks may come here at once: the second must not undo what the first has marked since.
        let _one_at_a_time = self.undefined();
        if self.all_written.load(Relaxed) {
            self.marks.iter().for_each(|word| word.store(bytes_mask(0, 8) * WRITTEN, Relaxed));
            self.all_written.store(false, Release);
        }
    }

    fn undefined(&self) -> MutexGuard<'_, Option<String>> {
        self.first_undefined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps who stored an undefined value, if it is the first.
    pub fn note_undefined(&self, who: impl FnOnce() -> String) {
        self.undefined().get_or_insert_with(who);
    }

    /// Who stored the first undefined value, in words.
    pub fn first_undefined(&self) -> Option<String> {
        self.undefined().clone()
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if (offset + at).is_multiple_of(8) && bytes.len() - at >= 8 {
                let word = bytes[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
                self.store(offset + at, 8, word);
                at += 8;
            } else {
                self.store(offset + at, 1, u64::from(bytes[at]));
                at += 1;
            }
        }
        self.mark(offset, bytes.len(), Mark::Written);
    }

    /// Sets bytes to a value.
    pub fn set(&self, offset: usize, bytes: usize, value: u8) {
        self.fill(offset, bytes, value);
        self.mark(offset, bytes, Mark::Written);
    }

    fn fill(&self, offset: usize, bytes: usize, value: u8) {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let width = if at.is_multiple_of(8) && end - at >= 8 { 8 } else { 1 };
            self.store(at, width, u64::from_le_bytes([value; 8]));
            at += width;
        }
    }

    /// Makes the bytes what they were before anybody wrote them, for those who do not know that they are freed.
    pub fn poison(&self) {
        self.fill(0, self.bytes as usize, POISON);
        self.mark(0, self.bytes as usize, Mark::Unwritten);
    }

    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let mut at = 0;
        while at < out.len() {
            if (offset + at).is_multiple_of(8) && out.len() - at >= 8 {
                out[at..at + 8].copy_from_slice(&self.load(offset + at, 8).to_le_bytes());
                at += 8;
            } else {
                out[at] = self.load(offset + at, 1) as u8;
                at += 1;
            }
        }
    }

    /// In words: "inside 4096 bytes at 0x7f0000000000".
    pub fn describe(&self, addr: u64) -> String {
        let (base, bytes) = (self.addr, self.bytes);
        let end = base + bytes;
        if addr < end {
            format!("byte {} of the allocation of {bytes} bytes at {base:#x}", addr - base)
        } else {
            format!("{} bytes past the end of the allocation of {bytes} bytes at {base:#x}", addr - end)
        }
    }
}
