//! The device's memory: allocations with a red zone between them, what of them has been written, and what is freed.
//!
//! Every address is handed out once: freed ranges stay reserved, so that a later use is known for what it is. Data is held in
//! atomics and accessed relaxed, because blocks of a launch run in parallel on the host and may race (which is then reported).

mod shadow;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

pub(crate) use shadow::{Access, Clash, Shadow, Zeroed};

/// Where allocations begin: far from what a small or negative index makes of a null pointer.
const BASE: u64 = 0x7f00_0000_0000;
/// Alignment of allocations, as cuMemAlloc promises.
const ALIGN: u64 = 256;
/// Unmapped bytes between two allocations.
const RED_ZONE: u64 = 4096;

/// Why an access to device memory failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// No allocation holds all of the bytes.
    #[error("{bytes} bytes at {addr:#x}: out of bounds ({near})")]
    OutOfBounds {
        /// First byte.
        addr: u64,
        /// Bytes accessed.
        bytes: u64,
        /// The nearest allocation below, in words.
        near: String,
    },
    /// The allocation has been freed.
    #[error("{bytes} bytes at {addr:#x}: use after free ({near})")]
    Freed {
        /// First byte.
        addr: u64,
        /// Bytes accessed.
        bytes: u64,
        /// The freed allocation, in words.
        near: String,
    },
    /// Nobody has written the byte.
    #[error("the byte at {addr:#x} has never been written ({near})")]
    NotWritten {
        /// The first such byte.
        addr: u64,
        /// Its allocation, in words.
        near: String,
    },
    /// Not the start of a live allocation.
    #[error("{addr:#x} is not the start of a live allocation")]
    NotAllocated {
        /// What was to be freed.
        addr: u64,
    },
}

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
    constant: AtomicBool,
    /// Who accessed what in the launch that runs; made at the first access by a kernel.
    shadow: OnceLock<Shadow>,
}

/// A one in each of `count` bytes from byte `first`.
#[inline]
fn bytes_mask(first: usize, count: usize) -> u64 {
    (0x0101_0101_0101_0101 >> (8 * (8 - count))) << (8 * first)
}

impl Allocation {
    fn new(addr: u64, bytes: u64) -> Option<Self> {
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

    fn write(&self, offset: usize, bytes: &[u8]) {
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

    fn read(&self, offset: usize, out: &mut [u8]) {
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

/// The allocations as a launch sees them.
#[derive(Clone)]
pub(crate) struct View {
    /// By address.
    pub live: Vec<Arc<Allocation>>,
    /// Freed ranges, by address: (address, bytes).
    freed: Vec<(u64, u64)>,
}

impl View {
    /// The index in `live` of the allocation that holds all of the bytes.
    pub fn find(&self, addr: u64, bytes: u64) -> Option<usize> {
        let index = self.live.partition_point(|allocation| allocation.addr <= addr).checked_sub(1)?;
        let allocation = &self.live[index];
        let end = addr.checked_add(bytes)?;
        (end <= allocation.addr + allocation.bytes).then_some(index)
    }

    /// Why [`View::find`] found nothing.
    pub fn why_not(&self, addr: u64, bytes: u64) -> MemoryError {
        let below = self.freed.partition_point(|range| range.0 <= addr).checked_sub(1);
        if let Some(&(start, size)) = below.map(|index| &self.freed[index])
            && addr < start + size
        {
            return MemoryError::Freed {
                addr,
                bytes,
                near: format!("{size} bytes at {start:#x} were freed"),
            };
        }
        let index = self.live.partition_point(|allocation| allocation.addr <= addr).checked_sub(1);
        let near =
            index.map_or_else(|| "no allocation is near".to_owned(), |index| self.live[index].describe(addr));
        MemoryError::OutOfBounds { addr, bytes, near }
    }
}

#[derive(Default)]
struct Map {
    live: BTreeMap<u64, Arc<Allocation>>,
    freed: BTreeMap<u64, u64>,
    next: u64,
    used_bytes: u64,
}

/// The memory of one device.
pub struct Memory {
    total_bytes: u64,
    map: RwLock<Map>,
}

impl Memory {
    /// A device with so many bytes; those of the host are taken when they are written.
    pub fn new(total_bytes: u64) -> Self {
        Self { total_bytes, map: RwLock::new(Map { next: BASE, ..Map::default() }) }
    }

    fn map(&self) -> std::sync::RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn map_mut(&self) -> std::sync::RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory that nobody has written yet, 256-byte aligned; `None` when there is not enough.
    pub fn alloc(&self, bytes: u64) -> Option<u64> {
        let mut map = self.map_mut();
        let rounded = bytes.checked_next_multiple_of(ALIGN)?;
        if rounded > self.total_bytes - map.used_bytes {
            return None;
        }
        let addr = map.next;
        let allocation = Allocation::new(addr, bytes)?;
        map.next = (addr + rounded + RED_ZONE).next_multiple_of(ALIGN);
        map.used_bytes += rounded;
        map.live.insert(addr, Arc::new(allocation));
        Some(addr)
    }

    /// Makes an allocation constant for kernels; the host still writes it.
    pub(crate) fn make_constant(&self, addr: u64) {
        if let Some(allocation) = self.map().live.get(&addr) {
            allocation.constant.store(true, Relaxed);
        }
    }

    /// Frees an allocation; its addresses are never handed out again.
    pub fn free(&self, addr: u64) -> Result<(), MemoryError> {
        let mut map = self.map_mut();
        let Some(allocation) = map.live.remove(&addr) else {
            return Err(MemoryError::NotAllocated { addr });
        };
        map.used_bytes -= allocation.bytes.next_multiple_of(ALIGN);
        map.freed.insert(addr, allocation.bytes);
        Ok(())
    }

    /// The allocation that holds all of the bytes, and the offset of the first in it.
    fn locate(&self, addr: u64, bytes: u64) -> Result<(Arc<Allocation>, usize), MemoryError> {
        let map = self.map();
        if let Some((&start, allocation)) = map.live.range(..=addr).next_back()
            && addr.checked_add(bytes).is_some_and(|end| end <= start + allocation.bytes)
        {
            return Ok((Arc::clone(allocation), (addr - start) as usize));
        }
        drop(map);
        Err(self.view().why_not(addr, bytes))
    }

    /// Writes bytes; they count as written from here on.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let (allocation, offset) = self.locate(addr, bytes.len() as u64)?;
        allocation.write(offset, bytes);
        Ok(())
    }

    /// Reads bytes; each must have been written.
    pub fn read(&self, addr: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let (allocation, offset) = self.locate(addr, out.len() as u64)?;
        if !allocation.is_defined(offset, out.len()) {
            let first = (0..out.len()).find(|at| !allocation.is_defined(offset + at, 1)).unwrap_or(0);
            let addr = addr + first as u64;
            return Err(MemoryError::NotWritten { addr, near: allocation.describe(addr) });
        }
        allocation.read(offset, out);
        Ok(())
    }

    /// Sets bytes to a value.
    pub fn set(&self, addr: u64, value: u8, bytes: u64) -> Result<(), MemoryError> {
        let (allocation, offset) = self.locate(addr, bytes)?;
        for at in 0..bytes as usize {
            allocation.atomic8(offset + at).store(value, Relaxed);
        }
        allocation.mark_defined(offset, bytes as usize, true);
        Ok(())
    }

    /// Copies bytes within the device; what was not written at the source is not written at the destination.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryError> {
        let (source, source_at) = self.locate(from, bytes)?;
        let (target, target_at) = self.locate(to, bytes)?;
        let mut data = vec![0; bytes as usize];
        source.read(source_at, &mut data);
        let defined: Vec<bool> = (0..data.len()).map(|at| source.is_defined(source_at + at, 1)).collect();
        target.write(target_at, &data);
        for (at, _) in defined.iter().enumerate().filter(|(_, defined)| !**defined) {
            target.mark_defined(target_at + at, 1, false);
        }
        Ok(())
    }

    /// Bytes that can still be allocated, if in one piece of a multiple of 256.
    pub fn free_bytes(&self) -> u64 {
        self.total_bytes - self.map().used_bytes
    }

    /// What is allocated: (address, bytes), by address.
    pub fn live(&self) -> Vec<(u64, u64)> {
        self.map().live.values().map(|allocation| (allocation.addr, allocation.bytes)).collect()
    }

    /// The allocations as they are now.
    pub(crate) fn view(&self) -> View {
        let map = self.map();
        View {
            live: map.live.values().cloned().collect(),
            freed: map.freed.iter().map(|(&addr, &bytes)| (addr, bytes)).collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_read_back_and_the_rest_is_not_written() {
        let memory = Memory::new(1 << 20);
        let addr = memory.alloc(100).unwrap();
        memory.write(addr + 3, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).unwrap();
        let mut out = [0; 11];
        memory.read(addr + 3, &mut out).unwrap();
        assert_eq!(out, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        let error = memory.read(addr + 4, &mut out).unwrap_err();
        assert_eq!(
            error,
            MemoryError::NotWritten { addr: addr + 14, near: error_near(&memory, addr, 14) },
            "{error}"
        );
    }

    fn error_near(memory: &Memory, addr: u64, at: u64) -> String {
        memory.view().live[0].describe(addr + at)
    }

    #[test]
    fn what_is_freed_is_known() {
        let memory = Memory::new(1024);
        let addr = memory.alloc(1000).unwrap();
        assert_eq!(memory.alloc(1), None);
        memory.free(addr).unwrap();
        assert_eq!(memory.free_bytes(), 1024);
        assert!(matches!(memory.write(addr + 10, &[1]), Err(MemoryError::Freed { .. })));
        assert!(matches!(memory.free(addr), Err(MemoryError::NotAllocated { .. })));
        let again = memory.alloc(1000).unwrap();
        assert!(again > addr);
        assert!(matches!(memory.write(again + 1000, &[1]), Err(MemoryError::OutOfBounds { .. })));
    }

    #[test]
    fn copies_carry_what_is_not_written() {
        let memory = Memory::new(4096);
        let (from, to) = (memory.alloc(16).unwrap(), memory.alloc(16).unwrap());
        memory.write(from, &[7; 8]).unwrap();
        memory.set(to, 1, 16).unwrap();
        memory.copy(to, from, 16).unwrap();
        let mut out = [0; 8];
        memory.read(to, &mut out).unwrap();
        assert_eq!(out, [7; 8]);
        assert!(matches!(memory.read(to + 8, &mut out), Err(MemoryError::NotWritten { .. })));
    }
}
