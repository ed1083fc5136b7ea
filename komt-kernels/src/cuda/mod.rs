//! [`Cuda`]: every operation on an NVIDIA GPU, by hand-written kernels that are compiled when the device is opened.
//!
//! Needed at run time are the driver and NVRTC, which [`CudaOptions::nvrtc`] tells how to find; nothing to build. Kernels are
//! compiled for the device's own architecture, and kept on disk ([`CudaOptions::cache`]). All work goes to one stream;
//! [`Backend::download`](crate::Backend::download) alone waits for it.
//!
//! Variables: `KOMT_NVRTC` (the compiler's file or directory), `KOMT_CUDA_CACHE` (a directory, or `off`), and
//! `KOMT_CUDA_SYNC=1`, which waits for each operation, so that errors name it, and records no steps.

mod backend;
mod buffer;
mod cache;
mod compile;
mod context;
mod driver;
mod graph;
mod kernels;
mod launch;
mod library;
mod nvrtc;
mod options;
mod repack;
mod transfer;

use crate::{Elem, Error, Result};
pub(crate) use buffer::Packing;
pub use buffer::{CudaBuf, CudaWeight};
use compile::Compiler;
pub use compile::{Compiled, compile_all, find_nvrtc};
use context::{Context, Garbage, Work};
use cudarc::driver::{result, sys};
pub use driver::{CudaDevice, device, devices};
use graph::Recordings;
use half::{bf16, f16};
use kernels::Kernels;
pub(crate) use launch::{Grid, KernelSpec, MAX_BLOCKS_YZ, Params, Source, seqs_in_grid};
pub use options::{CudaCache, CudaOptions};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use transfer::Staging;

/// The 16-bit types that activations, weights and the KV cache may have: `bf16` (sm_80 and newer) or `f16`.
pub trait CudaAct: Elem + sealed::Sealed {
    /// Whether it is `f16`.
    const IS_F16: bool;
    /// Rounded to nearest even.
    fn from_f32(value: f32) -> Self;
    /// Whether it is an infinity.
    fn is_infinite(self) -> bool;
}

macro_rules! impl_cuda_act {
    ($act:ty, $is_f16:expr) => {
        impl sealed::Sealed for $act {}
        impl CudaAct for $act {
            const IS_F16: bool = $is_f16;
            fn from_f32(value: f32) -> Self {
                <$act>::from_f32(value)
            }
            fn is_infinite(self) -> bool {
                <$act>::is_infinite(self)
            }
        }
    };
}

impl_cuda_act!(bf16, false);
impl_cuda_act!(f16, true);

mod sealed {
    pub trait Sealed {}
}

/// Bytes of [`Cuda::workspace`].
const WORKSPACE_BYTES: usize = 32 << 20;

/// The backend for NVIDIA GPUs, with activations of type `A`. Cloning is cheap: clones share the device, its kernels and
/// the scratch memory, and may be used from several threads, whose steps then take turns.
///
/// Recordings of steps ([`Backend::record`](crate::Backend::record)) belong to the value: one clone is for one set of
/// activations, cache and step.
#[derive(Debug)]
pub struct Cuda<A: CudaAct> {
    recordings: Recordings, // dropped before the modules whose kernels they refer to
    shared: Arc<Shared>,
    mode: Mode,
    op: &'static str,
    _act: PhantomData<fn() -> A>,
}

/// What clones share. Dropped in the order of its members: the stream last.
#[derive(Debug)]
struct Shared {
    kernels: Kernels,
    workspace: CudaBuf<u8>,
    staging: Mutex<Staging>,
    stream: Stream,
    context: Arc<Context>,
    is_sync: bool,
    counts: Counts,
    recording_failure: OnceLock<String>,
}

#[derive(Debug, Default)]
struct Counts {
    launches: AtomicU64,
    recordings: AtomicU64,
    replays: AtomicU64,
}

/// What a device was given to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CudaCounts {
    /// Launches of single kernels, those into recordings included.
    pub launches: u64,
    /// Steps that were recorded.
    pub recordings: u64,
    /// Steps that were replayed.
    pub replays: u64,
}

/// Whether a step is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Idle,
    /// It, or a single operation, is launched as it is; this thread has the context's [`Work`].
    Step,
    /// It is recorded.
    Record,
}

#[derive(Debug)]
struct Stream {
    handle: sys::CUstream,
    context: Arc<Context>,
}

// SAFETY: the handle is an address that the driver takes from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above; calls are serialised by the context's `Work`.
unsafe impl Sync for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        self.context.discard(Garbage::Stream(self.handle));
    }
}

impl<A: CudaAct> Cuda<A> {
    /// Opens the device with this number, and compiles the kernels for it.
    ///
    /// # Errors
    /// Each with its own variant: no driver, too old a driver, no NVRTC, no such device, one without kernels for `A`, kernels
    /// that do not compile or are refused, out of memory.
    pub fn new(ordinal: usize) -> Result<Self> {
        Self::with(CudaOptions::default().ordinal(ordinal))
    }

    /// As `options` say.
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn with(options: CudaOptions) -> Result<Self> {
        let context = Context::open(options.ordinal)?;
        let device = &context.device;
        let unsupported = |needed| {
            let found = format!("sm_{}{}", device.arch.0, device.arch.1);
            Err(Error::UnsupportedDevice { device: device.name.clone(), found, needed })
        };
        if device.arch < (7, 5) {
            return unsupported("sm_75 or newer is needed");
        }
        if !A::IS_F16 && !device.has_bf16() {
            return unsupported("bf16 needs sm_80 or newer; f16 works");
        }
        let cache = options.cache_dir();
        let compiler =
            Compiler::new::<A>(device.driver_version, device.arch, options.nvrtc.as_deref(), cache)?;
        let kernels = Kernels::load(&context, &compiler)?;
        let work = context.work()?;
        let handle = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|error| context.failed("cuStreamCreate", error))?;
        let stream = Stream { handle, context: context.clone() };
        let workspace = CudaBuf::undefined(&context, &work, WORKSPACE_BYTES)?;
        let staging = Mutex::new(Staging::new(&context, &work)?);
        drop(work);
        let (is_sync, counts) = (options.is_sync(), Counts::default());
        let recording_failure = OnceLock::new();
        let shared =
            Shared { kernels, workspace, staging, stream, context, is_sync, counts, recording_failure };
        Ok(Self::of(Arc::new(shared)))
    }

    fn of(shared: Arc<Shared>) -> Self {
        Self { shared, recordings: Recordings::default(), mode: Mode::Idle, op: "", _act: PhantomData }
    }

    /// The device.
    pub fn device(&self) -> &CudaDevice {
        &self.shared.context.device
    }

    /// What was done so far, by all clones.
    pub fn counts(&self) -> CudaCounts {
        let Counts { launches, recordings, replays } = &self.shared.counts;
        let [launches, recordings, replays] =
            [launches, recordings, replays].map(|count| count.load(Ordering::Relaxed));
        CudaCounts { launches, recordings, replays }
    }

    /// Why a step could not be recorded, where that ever happened: it ran all the same, as later ones do.
    pub fn recording_failure(&self) -> Option<&str> {
        self.shared.recording_failure.get().map(String::as_str)
    }

    /// Multiprocessors.
    pub(crate) fn sm_count(&self) -> u32 {
        self.device().sm_count
    }

    /// Scratch memory, 256-byte aligned: address and bytes (32 MiB). Kernels run one after the other, and an operation's
    /// launches are not interleaved with another's: what an operation leaves there is its own until it returns.
    pub(crate) fn workspace(&self) -> (u64, usize) {
        (self.shared.workspace.ptr(), WORKSPACE_BYTES)
    }

    /// Runs an operation: nobody else's launches come between its own.
    fn op(&mut self, op: &'static str, run: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let shared = self.shared.clone();
        let _work = self.work(&shared)?;
        self.op = op;
        shared.context.set_doing(|doing| {
            (doing.op, doing.replayed, doing.sync) = (op, false, shared.is_sync);
        });
        match self.mode {
            Mode::Idle => self.in_mode(Mode::Step, run),
            Mode::Step | Mode::Record => run(self),
        }
    }

    /// Runs a body in another mode, and returns from it in any case: a panic is a shape that does not fit, a bug of the
    /// caller, and the device is to work still.
    fn in_mode(&mut self, mode: Mode, body: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let before = std::mem::replace(&mut self.mode, mode);
        let done = catch_unwind(AssertUnwindSafe(|| body(self)));
        self.mode = before;
        done.unwrap_or_else(|panic| {
            if mode == Mode::Record {
                self.abandon_capture();
            }
            resume_unwind(panic)
        })
    }

    /// The right to call the driver, which a step under way has got already.
    fn work<'a>(&self, shared: &'a Shared) -> Result<Work<'a>> {
        match self.mode {
            Mode::Idle => shared.context.work(),
            Mode::Step | Mode::Record => shared.context.work_of_step(),
        }
    }
}

impl<A: CudaAct> Clone for Cuda<A> {
    /// A backend on the same device, without recordings.
    fn clone(&self) -> Self {
        Self::of(self.shared.clone())
    }
}
