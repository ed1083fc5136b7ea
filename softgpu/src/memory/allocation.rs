//! One allocation: its data, and which of its bytes have been written.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::shadow::Shadow;
use super::zeroed::Zeroed;

/// One allocation.
pub(crate) struct Allocation {
    /// Device address of the first byte.
    pub addr: u64,
    /// Size as it was asked for.
    pub bytes: u64,
    /// Little-endian, as the device's.
    data: Zeroed<AtomicU64>,
    /// One byte for each, eight in a word: 1 when written.
    defined: Zeroed<AtomicU64>,
    /// Every byte is known to have been written: spares the look at `defined`.
    all_defined: AtomicBool,
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
            defined: Zeroed::new(len.div_ceil(8))?,
            all_defined: AtomicBool::new(false),
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
    pub fn atomic8(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: `pointer` checked bounds and alignment; all accesses to `data` are atomic, and it lives as long as `self`.
        unsafe { AtomicU8::from_ptr(self.pointer(offset, 1)) }
    }

    /// The atomic under an aligned `u16` of the data.
    #[inline]
    pub fn atomic16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: as in `atomic8`.
        unsafe { AtomicU16::from_ptr(self.pointer(offset, 2).cast()) }
    }

    /// The atomic under an aligned `u32` of the data.
    #[inline]
    pub fn atomic32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `atomic8`.
        unsafe { AtomicU32::from_ptr(self.pointer(offset, 4).cast()) }
    }

    /// The atomic under an aligned `u64` of the data.
    #[inline]
    pub fn atomic64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `atomic8`.
        unsafe { AtomicU64::from_ptr(self.pointer(offset, 8).cast()) }
    }

    /// An aligned element of `width` 1, 2, 4 or 8 bytes.
    #[inline]
    pub fn load(&self, offset: usize, width: usize) -> u64 {
        match width {
            1 => u64::from(self.atomic8(offset).load(Relaxed)),
            2 => u64::from(self.atomic16(offset).load(Relaxed)),
            4 => u64::from(self.atomic32(offset).load(Relaxed)),
            _ => self.atomic64(offset).load(Relaxed),
        }
    }

    /// Stores an aligned element of `width` 1, 2, 4 or 8 bytes.
    #[inline]
    pub fn store(&self, offset: usize, width: usize, value: u64) {
        match width {
            1 => self.atomic8(offset).store(value as u8, Relaxed),
            2 => self.atomic16(offset).store(value as u16, Relaxed),
            4 => self.atomic32(offset).store(value as u32, Relaxed),
            _ => self.atomic64(offset).store(value, Relaxed),
        }
    }

    /// Whether all of the bytes have been written.
    #[inline]
    pub fn is_defined(&self, offset: usize, bytes: usize) -> bool {
        if self.all_defined.load(Relaxed) {
            return true;
        }
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let word = self.defined[at / 8].load(Relaxed);
            let upto = end.min(at / 8 * 8 + 8);
            let wanted = bytes_mask(at % 8, upto - at);
            if word & wanted != wanted {
                return false;
            }
            at = upto;
        }
        true
    }

    /// Marks bytes as written, or as holding nothing that may be used.
    #[inline]
    pub fn mark_defined(&self, offset: usize, bytes: usize, defined: bool) {
        if self.all_defined.load(Relaxed) {
            if defined {
                return;
            }
            // From here on the bytes tell; they have not been kept while the flag was up.
            self.defined.iter().for_each(|word| word.store(bytes_mask(0, 8), Relaxed));
            self.all_defined.store(false, Relaxed);
        }
        if defined && bytes as u64 == self.bytes {
            self.all_defined.store(true, Relaxed);
            return;
        }
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let word = &self.defined[at / 8];
            let upto = end.min(at / 8 * 8 + 8);
            let mask = bytes_mask(at % 8, upto - at);
            if upto - at == 8 {
                word.store(if defined { mask } else { 0 }, Relaxed);
            } else if defined {
                word.fetch_or(mask, Relaxed);
            } else {
                word.fetch_and(!mask, Relaxed);
            }
            at = upto;
        }
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if (offset + at).is_multiple_of(8) && bytes.len() - at >= 8 {
                let word = bytes[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
                self.atomic64(offset + at).store(word, Relaxed);
                at += 8;
            } else {
                self.atomic8(offset + at).store(bytes[at], Relaxed);
                at += 1;
            }
        }
        self.mark_defined(offset, bytes.len(), true);
    }

    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let mut at = 0;
        while at < out.len() {
            if (offset + at).is_multiple_of(8) && out.len() - at >= 8 {
                let word = self.atomic64(offset + at).load(Relaxed);
                out[at..at + 8].copy_from_slice(&word.to_le_bytes());
                at += 8;
            } else {
                out[at] = self.atomic8(offset + at).load(Relaxed);
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
