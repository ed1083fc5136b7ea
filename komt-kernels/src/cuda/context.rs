//! [`Context`]: one device and its primary context, shared by everything that is open on it.
//!
//! * One thread at a time talks to a device: who holds [`Work`]. A step holds it from its first launch to its last, so that
//!   no other thread's work gets into a recording.
//! * What is dropped is kept until nobody works on the device, and given back after all that was launched has run.
//! * A context that an error has broken is *lost*: nothing is called in it any more, and opening the device again resets it.

use super::driver::{self, CudaDevice, describe};
use crate::{Error, Result};
use cudarc::driver::{DriverError, result, sys};
use komt_cache::StepDims;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};

/// One device and its primary context.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) device: CudaDevice,
    pub(super) device_handle: sys::CUdevice,
    handle: sys::CUcontext,
    id: u64,
    work: Mutex<()>,
    doing: Mutex<Doing>,
    garbage: Mutex<Vec<Garbage>>,
    n_freed: AtomicU64,
    lost: OnceLock<(String, String)>, // step, reason
    was_reset: AtomicBool,
}

// SAFETY: the handle is an address that the driver takes from any thread.
unsafe impl Send for Context {}
// SAFETY: as above; calls are serialised by `work`.
unsafe impl Sync for Context {}

/// What was launched last, for errors that show themselves later.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Doing {
    /// The operation.
    pub op: &'static str,
    /// The step that it belongs to, or comes after.
    pub step: Option<StepDims>,
    /// Whether the step is replayed from a recording.
    pub replayed: bool,
    /// Whether each launch is waited for.
    pub sync: bool,
}

impl std::fmt::Display for Doing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.replayed, self.op) {
            (true, _) => write!(f, "a recorded step")?,
            (false, "") => write!(f, "the device")?,
            (false, op) if self.sync => write!(f, "{op}")?,
            (false, op) => write!(f, "what was launched up to {op}, or {op} itself,")?,
        }
        match self.step {
            Some(StepDims { n_tokens, n_seqs, n_logits }) => {
                write!(f, " (in or after a step of {n_tokens} tokens, {n_seqs} sequences, {n_logits} logits)")
            }
            None => Ok(()),
        }
    }
}

/// The right to call the driver: its context is this thread's current one.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    _guard: Option<MutexGuard<'a, ()>>, // `None`: held further up
}

/// What is to be given back to the driver.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Garbage {
    Memory(u64),
    Pinned(*mut c_void),
    Module(sys::CUmodule),
    Stream(sys::CUstream),
    Event(sys::CUevent),
    Graph(sys::CUgraphExec),
}

/// For each device the context that was opened last.
static CONTEXTS: Mutex<BTreeMap<usize, (Weak<Context>, u64)>> = Mutex::new(BTreeMap::new());

impl Context {
    /// The context of a device: the one that is open already, or a fresh one.
    pub(crate) fn open(ordinal: usize) -> Result<Arc<Self>> {
        let found; // dropped after the guard: dropping the last reference takes it
        let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        let (handle, device) = driver::handle(ordinal)?;
        let (old, last_id) = contexts.get(&ordinal).cloned().unwrap_or_default();
        found = old.upgrade();
        match &found {
            Some(context) if context.probe() => return Ok(context.clone()),
            Some(context) if context.lost.get().is_some() => context.reset(),
            // An error that passes: others may live in this context, and so may we again.
            Some(context) => return Ok(context.clone()),
            None => {}
        }
        let id = last_id + 1;
        let context = Arc::new(Self::retain(handle, device, id)?);
        contexts.insert(ordinal, (Arc::downgrade(&context), id));
        Ok(context)
    }

    fn retain(device_handle: sys::CUdevice, device: CudaDevice, id: u64) -> Result<Self> {
        let failed =
            |call, error| Error::Driver { device: device.name.clone(), call, reason: describe(error) };
        // The second try is for a context that another library of this process broke.
        for is_last in [false, true] {
            // SAFETY: the handle is the driver's.
            let handle = unsafe { result::primary_ctx::retain(device_handle) }
                .map_err(|error| failed("cuDevicePrimaryCtxRetain", error))?;
            // SAFETY: the context was just retained.
            let works = unsafe { result::ctx::set_current(handle) }.and_then(|()| result::mem_get_info());
            let Err(error) = works else {
                return Ok(Self {
                    device,
                    device_handle,
                    handle,
                    id,
                    work: Mutex::default(),
                    doing: Mutex::default(),
                    garbage: Mutex::default(),
                    n_freed: AtomicU64::new(0),
                    lost: OnceLock::new(),
                    was_reset: AtomicBool::new(false),
                });
            };
            let is_last = is_last || !is_sticky(error);
            // SAFETY: nothing of ours lives in it: the context that we had is lost or gone. What others have there is lost, too.
            unsafe {
                if !is_last {
                    let _ = sys::cuDevicePrimaryCtxReset_v2(device_handle);
                }
                let _ = result::primary_ctx::release(device_handle);
            }
            if is_last {
                return Err(failed("cuMemGetInfo", error));
            }
        }
        unreachable!("the last try returns")
    }

    /// Whether the context works still, as far as that can be told without waiting for a step.
    fn probe(&self) -> bool {
        self.work().is_ok_and(|work| self.free_bytes(&work).is_ok()) && self.lost.get().is_none()
    }

    /// Destroys a lost context with all that is in it.
    fn reset(&self) {
        let _ = self.lost.set(("the device".into(), "it was reset".into()));
        let _work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.was_reset.swap(true, Ordering::Relaxed) {
            // SAFETY: the context is lost: none of its handles is passed to the driver again.
            let _ = unsafe { sys::cuDevicePrimaryCtxReset_v2(self.device_handle) };
        }
    }

    /// Waits for the right to call the driver. Not to be asked for by who has it.
    pub(crate) fn work(&self) -> Result<Work<'_>> {
        let guard = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_alive()?;
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { result::ctx::set_current(self.handle) }
            .map_err(|error| self.failed("cuCtxSetCurrent", error))?;
        self.give_back();
        Ok(Work { _guard: Some(guard) })
    }

    /// The same within a step, whose beginning has got the right.
    pub(crate) fn work_of_step(&self) -> Result<Work<'_>> {
        self.check_alive()?;
        Ok(Work { _guard: None })
    }

    /// What is launched from now on.
    pub(crate) fn set_doing(&self, change: impl FnOnce(&mut Doing)) {
        change(&mut self.doing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The error of a context that is lost.
    pub(crate) fn check_alive(&self) -> Result<()> {
        match self.lost.get() {
            None => Ok(()),
            Some((step, reason)) => Err(Error::DeviceLost {
                device: self.device.name.clone(),
                step: step.clone(),
                reason: reason.clone(),
            }),
        }
    }

    /// Our error for one of the driver's. Those that no context survives make it lost.
    pub(crate) fn failed(&self, call: &'static str, error: DriverError) -> Error {
        if is_sticky(error) {
            let doing = *self.doing.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = self.lost.set((doing.to_string(), describe(error)));
        }
        match self.check_alive() {
            Err(lost) => lost,
            Ok(()) => Error::Driver { device: self.device.name.clone(), call, reason: describe(error) },
        }
    }

    /// Memory that is free.
    pub(crate) fn free_bytes(&self, _work: &Work<'_>) -> Result<u64> {
        let (free, _) = result::mem_get_info().map_err(|error| self.failed("cuMemGetInfo", error))?;
        Ok(free as u64)
    }

    /// `bytes` of memory, of undefined content.
    pub(crate) fn alloc(&self, _work: &Work<'_>, bytes: usize) -> Result<u64> {
        // SAFETY: it is memory of our own; whoever makes a buffer of it fills it.
        unsafe { result::malloc_sync(bytes) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Error::OutOfMemory { device: self.device.name.clone(), bytes }
            }
            _ => self.failed("cuMemAlloc", error),
        })
    }

    /// Gives `garbage` back when nobody uses it any more: now, or when the next one works.
    pub(crate) fn discard(&self, garbage: Garbage) {
        if self.lost.get().is_some() {
            return; // it goes with the context
        }
        self.garbage.lock().unwrap_or_else(PoisonError::into_inner).push(garbage);
        self.n_freed.fetch_add(u64::from(matches!(garbage, Garbage::Memory(_))), Ordering::Relaxed);
        let _work = match self.work.try_lock() {
            Ok(work) => work,
            Err(TryLockError::Poisoned(work)) => work.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // SAFETY: as in `work`.
        if unsafe { result::ctx::set_current(self.handle) }.is_ok() {
            self.give_back();
        }
    }

    /// How many buffers were given back: a recording that is older may refer to one.
    pub(crate) fn n_freed(&self) -> u64 {
        self.n_freed.load(Ordering::Relaxed)
    }

    /// For who holds the work, with the context current.
    fn give_back(&self) {
        let garbage = std::mem::take(&mut *self.garbage.lock().unwrap_or_else(PoisonError::into_inner));
        if garbage.is_empty() || self.lost.get().is_some() {
            return;
        }
        if let Err(error) = result::ctx::synchronize() {
            if !is_sticky(error) {
                // Another time: somebody else may be recording.
                self.garbage.lock().unwrap_or_else(PoisonError::into_inner).extend(garbage);
            }
            let _ = self.failed("cuCtxSynchronize", error);
            return;
        }
        for one in garbage {
            // SAFETY: each was made in this context, is dropped once, and nothing that was launched is still running.
            let _ = unsafe {
                match one {
                    Garbage::Memory(address) => result::free_sync(address),
                    Garbage::Pinned(address) => result::free_host(address),
                    Garbage::Module(module) => result::module::unload(module),
                    Garbage::Stream(stream) => result::stream::destroy(stream),
                    Garbage::Event(event) => result::event::destroy(event),
                    Garbage::Graph(graph) => result::graph::exec_destroy(graph),
                }
            };
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newest = contexts.get(&self.device.ordinal).is_some_and(|(_, id)| *id == self.id);
        // SAFETY: nothing of this context is alive: all of it holds an `Arc` of `self`.
        unsafe {
            if self.lost.get().is_none() && result::ctx::set_current(self.handle).is_ok() {
                self.give_back();
            }
            if self.lost.get().is_some() && is_newest && !self.was_reset.load(Ordering::Relaxed) {
                let _ = sys::cuDevicePrimaryCtxReset_v2(self.device_handle);
            }
            let _ = result::ctx::set_current(std::ptr::null_mut());
            let _ = result::primary_ctx::release(self.device_handle);
        }
    }
}

/// Whether the context answers every later call with this error.
fn is_sticky(error: DriverError) -> bool {
    use sys::CUresult as E;
    matches!(
        error.0,
        E::CUDA_ERROR_ECC_UNCORRECTABLE
            | E::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | E::CUDA_ERROR_CONTAINED
            | E::CUDA_ERROR_ILLEGAL_ADDRESS
            | E::CUDA_ERROR_LAUNCH_TIMEOUT
            | E::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | E::CUDA_ERROR_ASSERT
            | E::CUDA_ERROR_HARDWARE_STACK_ERROR
            | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | E::CUDA_ERROR_MISALIGNED_ADDRESS
            | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | E::CUDA_ERROR_INVALID_PC
            | E::CUDA_ERROR_LAUNCH_FAILED
            | E::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | E::CUDA_ERROR_EXTERNAL_DEVICE
            | E::CUDA_ERROR_INVALID_CONTEXT
            | E::CUDA_ERROR_UNKNOWN
    )
}
