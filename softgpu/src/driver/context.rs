//! The primary context: its memory, and everything that has a handle.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::capture::{Capture, Exec, Graph};
use super::module::{Function, LoadedImage};
use super::queue::{Event, Stream};
use super::work::HostRange;
use super::{Error, Session};
use crate::memory::Memory;

/// The null stream, which waits for all blocking streams and lets them wait.
pub(crate) const LEGACY_STREAM: u64 = 1;
/// The stream of the thread. Threads share it here.
pub(crate) const PER_THREAD_STREAM: u64 = 2;
/// What host memory holds before somebody writes it.
const PINNED_POISON: u8 = 0xcb;
const PAGE_BYTES: usize = 4096;

/// Page-locked memory of the host.
pub(crate) struct Pinned {
    pub bytes: usize,
    /// Ours to free; `None`: registered by the application.
    layout: Option<Layout>,
}

pub(crate) struct Context {
    pub handle: u64,
    pub memory: Arc<Memory>,
    /// Allocations that the application may use in what it submits now: address -> bytes. One that is freed in stream order
    /// is gone from here at once.
    pub device: BTreeMap<u64, u64>,
    /// Page-locked memory: address -> what it is.
    pub pinned: BTreeMap<usize, Pinned>,
    pub streams: BTreeMap<u64, Stream>,
    pub events: HashMap<u64, Event>,
    pub modules: HashMap<u64, Arc<LoadedImage>>,
    pub functions: HashMap<u64, Function>,
    pub captures: HashMap<u64, Capture>,
    pub graphs: HashMap<u64, Graph>,
    pub execs: HashMap<u64, Exec>,
    pub pool_attributes: HashMap<u32, u64>,
    pub limits: HashMap<u32, usize>,
    /// The error that every later call returns.
    pub sticky: Option<Error>,
}

impl Context {
    fn new(handle: u64, memory_bytes: u64) -> Self {
        let streams = [
            (LEGACY_STREAM, Stream::new(true, 0)),
            // Blocking, as the document says of the per-thread stream.
            (PER_THREAD_STREAM, Stream::new(true, 0)),
        ];
        Self {
            handle,
            memory: Arc::new(Memory::new(memory_bytes)),
            device: BTreeMap::new(),
            pinned: BTreeMap::new(),
            streams: streams.into(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            captures: HashMap::new(),
            graphs: HashMap::new(),
            execs: HashMap::new(),
            pool_attributes: HashMap::new(),
            limits: HashMap::new(),
            sticky: None,
        }
    }

    /// Device and pinned allocations that are not freed.
    pub fn live_allocations(&self) -> usize {
        self.device.len() + self.pinned.len()
    }

    /// Their bytes.
    pub fn live_bytes(&self) -> u64 {
        self.device.values().sum::<u64>() + self.pinned.values().map(|block| block.bytes as u64).sum::<u64>()
    }

    /// Streams, events, modules, graphs that are not destroyed.
    pub fn live_handles(&self) -> usize {
        let streams =
            self.streams.iter().filter(|(handle, stream)| **handle > PER_THREAD_STREAM && !stream.destroyed);
        streams.count() + self.events.len() + self.modules.len() + self.graphs.len() + self.execs.len()
    }

    /// The allocation, a module's variables included, that holds all of the bytes: (address, bytes).
    pub fn device_range(&self, addr: u64, bytes: u64) -> Option<(u64, u64)> {
        let inside = |&(start, len): &(u64, u64)| {
            addr >= start && addr.checked_add(bytes).is_some_and(|end| end <= start + len)
        };
        let own = self.device.range(..=addr).next_back().map(|(&start, &len)| (start, len));
        let globals = || self.modules.values().flat_map(|module| module.globals()).find(inside);
        own.filter(inside).or_else(globals)
    }

    /// The page-locked block that holds all of the bytes.
    pub fn pinned_range(&self, range: HostRange) -> bool {
        let block = self.pinned.range(..=range.start).next_back();
        block.is_some_and(|(&start, block)| range.end() <= start + block.bytes)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        for (start, block) in &self.pinned {
            block.free(*start);
        }
    }
}

impl Pinned {
    fn free(&self, start: usize) {
        if let Some(layout) = self.layout {
            // SAFETY: `host_alloc` got the block at this address with this layout; it leaves the table when it is freed.
            unsafe { dealloc(start as *mut u8, layout) };
        }
    }
}

impl Session {
    /// Retains the primary context, made if nobody had it.
    pub fn retain(&mut self) -> u64 {
        if self.context.is_none() {
            let handle = self.handle();
            self.context = Some(Context::new(handle, self.spec.memory_bytes));
        }
        self.retained += 1;
        self.context.as_ref().map_or(0, |context| context.handle)
    }

    /// Releases it; the last one ends it.
    pub fn release(&mut self) -> Result<(), Error> {
        self.retained = self.retained.checked_sub(1).ok_or(Error::INVALID_CONTEXT)?;
        if self.retained == 0 {
            self.end_context();
        }
        Ok(())
    }

    /// Ends the context: what is queued runs first, since its buffers may still be there. What is not freed is counted, unless
    /// the context was broken, when every call that would have freed it failed.
    pub fn end_context(&mut self) {
        let _ = self.finish_all();
        self.wait_until_idle();
        if let Some(context) = self.context.take().filter(|context| context.sticky.is_none()) {
            self.left_allocations += context.live_allocations();
            self.left_handles += context.live_handles();
        }
        self.notify();
    }

    /// A fresh context under the same handle, for all who retain it.
    pub fn reset_context(&mut self) {
        let handle = self.context.as_ref().map(|context| context.handle);
        self.end_context();
        self.context = handle.map(|handle| Context::new(handle, self.spec.memory_bytes));
    }

    /// Allocates device memory.
    pub fn alloc(&mut self, bytes: u64) -> Result<u64, Error> {
        if bytes == 0 {
            return Err(Error::INVALID_VALUE);
        }
        let fails = self.faults.allocation_fails();
        let context = self.context()?;
        let addr = if fails { None } else { context.memory.alloc(bytes) };
        let addr = addr.ok_or(Error::OUT_OF_MEMORY)?;
        context.device.insert(addr, bytes);
        Ok(addr)
    }

    /// Takes an allocation out of the application's hands; its memory goes when the caller frees it.
    pub fn forget_allocation(&mut self, function: &str, addr: u64) -> Result<(), Error> {
        if self.context()?.device.remove(&addr).is_none() {
            self.complain(format!("{function}: {addr:#x} is not the start of a live allocation"));
            return Err(Error::INVALID_VALUE);
        }
        Ok(())
    }

    /// Frees device memory at once: whatever is still queued finds it freed.
    pub fn free(&mut self, function: &str, addr: u64) -> Result<(), Error> {
        self.forget_allocation(function, addr)?;
        let memory = Arc::clone(&self.context()?.memory);
        memory.free(addr).map_err(|_| Error::INVALID_VALUE)
    }

    /// Allocates page-locked memory, poisoned.
    pub fn host_alloc(&mut self, bytes: usize) -> Result<usize, Error> {
        if bytes == 0 {
            return Err(Error::INVALID_VALUE);
        }
        if self.faults.allocation_fails() {
            return Err(Error::OUT_OF_MEMORY);
        }
        let context = self.context()?;
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).map_err(|_| Error::OUT_OF_MEMORY)?;
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            return Err(Error::OUT_OF_MEMORY);
        }
        // SAFETY: `bytes` bytes at `start` are ours.
        unsafe { start.write_bytes(PINNED_POISON, bytes) };
        context.pinned.insert(start as usize, Pinned { bytes, layout: Some(layout) });
        Ok(start as usize)
    }

    /// Page-locks the application's memory.
    pub fn host_register(&mut self, range: HostRange) -> Result<(), Error> {
        let context = self.context()?;
        let before = context.pinned.range(..range.end()).next_back();
        if before.is_some_and(|(&start, block)| start + block.bytes > range.start) {
            return Err(Error::HOST_MEMORY_ALREADY_REGISTERED);
        }
        context.pinned.insert(range.start, Pinned { bytes: range.bytes, layout: None });
        Ok(())
    }

    /// Frees page-locked memory, or lets go of registered memory. Queued copies that use it are a complaint, and do not run.
    pub fn host_free(&mut self, function: &str, start: usize, registered: bool) -> Result<(), Error> {
        let block = self.context()?.pinned.get(&start);
        let Some(block) = block.filter(|block| block.layout.is_none() == registered) else {
            self.complain(format!("{function}: {start:#x} is not the start of such host memory"));
            return Err(if registered { Error::HOST_MEMORY_NOT_REGISTERED } else { Error::INVALID_VALUE });
        };
        let range = HostRange { start, bytes: block.bytes };
        self.withdraw_copies(function, range);
        if let Some(block) = self.context()?.pinned.remove(&start) {
            block.free(start);
        }
        Ok(())
    }
}
