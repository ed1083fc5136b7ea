//! The driver of the software GPU, through unmodified cudarc: what an application sees of a card, and what it sees when it goes
//! wrong.

// Elsewhere a library that is loaded by its path is not found by the driver's name.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod device;
mod errors;
mod graphs;
mod loading;
mod queues;

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, sys};
use cudarc::nvrtc::Ptx;
use komt_softgpu::{DeviceSpec, Guard, Options, QueueMode, SoftGpu};

/// `c[i] = a[i] + b[i]` for i < n.
pub const ADD: &str = include_str!("add.ptx");

/// A software GPU for the test alone.
pub fn gpu(sm: u32) -> Guard {
    SoftGpu::lock(&DeviceSpec::sm(sm)).unwrap()
}

/// One that keeps its complaints to itself: the test wants them.
pub fn quiet(sm: u32) -> Guard {
    let gpu = gpu(sm);
    gpu.options(&Options { quiet: true, ..Options::default() });
    gpu
}

/// One stream on device 0 with the addition, and cudarc's own events off, as our backend has it.
pub struct Bench {
    ctx: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    add: CudaFunction,
}

impl Bench {
    /// Context, stream and kernel.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let ctx = CudaContext::new(0).unwrap();
        // SAFETY: one stream.
        unsafe { ctx.disable_event_tracking() };
        let stream = ctx.new_stream().unwrap();
        let add = ctx.load_module(Ptx::from_src(ADD)).unwrap().load_function("add").unwrap();
        Self { ctx, stream, add }
    }
}

/// Every mode of the queue.
pub fn modes() -> Vec<QueueMode> {
    let drawn = (0..4).map(QueueMode::Drawn);
    [QueueMode::Lazy, QueueMode::Thread(1)].into_iter().chain(drawn).collect()
}

/// The code of an error.
pub fn code(error: DriverError) -> sys::CUresult {
    error.0
}
