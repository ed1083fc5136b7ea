//! The device's memory: allocations with a red zone between them, what of them has been written, and what is freed.
//! What has not reads as ones, in float as NaN, whether anybody checks or not.
//!
//! Every address is handed out once: freed ranges stay reserved, so that a later use is known for what it is. Data is held in
//! atomics and accessed relaxed, because blocks of a launch run in parallel on the host and may race (which is then reported).

mod allocation;
mod shadow;
mod zeroed;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};

pub(crate) use allocation::{Allocation, Mark};
pub(crate) use shadow::{Access, Clash, Shadow};

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
    /// A kernel stored in the byte what it had from nobody.
    #[error("the byte at {addr:#x} holds an undefined value ({near}); the first in its allocation: {first}")]
    Undefined {
        /// The first such byte.
        addr: u64,
        /// Its allocation, in words.
        near: String,
        /// Kernel, instruction and place of the first store of such a value in the allocation since all of it was written.
        first: String,
    },
    /// Not the start of a live allocation.
    #[error("{addr:#x} is not the start of a live allocation")]
    NotAllocated {
        /// What was to be freed.
        addr: u64,
    },
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
        // A launch that runs on another thread still sees it.
        if Arc::strong_count(&allocation) > 1 {
            allocation.poison();
        }
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
            let near = allocation.describe(addr);
            return Err(match (allocation.mark_at(offset + first), allocation.first_undefined()) {
                (Mark::Undefined, Some(first)) => MemoryError::Undefined { addr, near, first },
                _ => MemoryError::NotWritten { addr, near },
            });
        }
        allocation.read(offset, out);
        Ok(())
    }

    /// Sets bytes to a value.
    pub fn set(&self, addr: u64, value: u8, bytes: u64) -> Result<(), MemoryError> {
        let (allocation, offset) = self.locate(addr, bytes)?;
        allocation.set(offset, bytes as usize, value);
        Ok(())
    }

    /// Copies bytes within the device; what was not written at the source is not written at the destination.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryError> {
        let (source, source_at) = self.locate(from, bytes)?;
        let (target, target_at) = self.locate(to, bytes)?;
        let mut data = vec![0; bytes as usize];
        source.read(source_at, &mut data);
        let marks: Vec<Mark> = (0..data.len()).map(|at| source.mark_at(source_at + at)).collect();
        let first = source.first_undefined();
        target.write(target_at, &data);
        for (at, &mark) in marks.iter().enumerate().filter(|(_, mark)| **mark != Mark::Written) {
            target.mark(target_at + at, 1, mark);
        }
        if let Some(first) = first.filter(|_| marks.contains(&Mark::Undefined)) {
            target.note_undefined(|| first);
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

    #[test]
    fn copies_carry_who_stored_what_is_undefined() {
        let memory = Memory::new(4096);
        let (from, to) = (memory.alloc(16).unwrap(), memory.alloc(16).unwrap());
        memory.write(from, &[7; 16]).unwrap();
        let view = memory.view();
        view.live[0].mark(5, 2, Mark::Undefined);
        view.live[0].note_undefined(|| "somebody".to_owned());
        view.live[0].note_undefined(|| "somebody later".to_owned());
        memory.copy(to, from, 16).unwrap();
        let (near, first) = (view.live[1].describe(to + 5), "somebody".to_owned());
        let mut out = [0; 16];
        assert_eq!(memory.read(to, &mut out), Err(MemoryError::Undefined { addr: to + 5, near, first }));
        memory.read(to + 7, &mut out[..9]).unwrap();
        // When all is written, that is over.
        memory.set(to, 1, 16).unwrap();
        memory.read(to, &mut out).unwrap();
        assert_eq!(view.live[1].first_undefined(), None);
        assert!(view.live[0].first_undefined().is_some());
    }

    #[test]
    fn what_nobody_wrote_and_what_is_freed_is_poison() {
        let memory = Memory::new(4096);
        let addr = memory.alloc(12).unwrap();
        memory.write(addr, &[0; 4]).unwrap();
        let view = memory.view();
        assert_eq!([0, 4, 8].map(|at| view.live[0].load(at, 4)), [0, 0xffff_ffff, 0xffff_ffff]);
        assert_eq!(view.live[0].update(4, 4, |old| old - 1), 0xffff_ffff);
        assert_eq!(view.live[0].load(4, 2), 0xfffe);
        memory.free(addr).unwrap();
        assert_eq!([0, 4, 8].map(|at| view.live[0].load(at, 4)), [0xffff_ffff; 3]);
        assert_eq!(view.live[0].mark_at(0), Mark::Unwritten);
    }
}
