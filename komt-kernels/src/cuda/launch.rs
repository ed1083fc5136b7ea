//! What an operation says of its kernels, and how it launches them.

use super::kernels::Kernel;
use super::{Cuda, CudaAct, Mode, Shared};
use crate::{Error, Result};
use cudarc::driver::{DriverError, result};
use std::ffi::c_void;
use std::sync::atomic::Ordering;

/// Blocks of a grid in y, and in z, at most (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
pub(crate) const MAX_BLOCKS_YZ: usize = 65_535;

/// Dimensions of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Blocks in x, y and z. When one is 0, nothing is launched.
    pub blocks: [u32; 3],
    /// Threads of a block, in x.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// A file of kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    /// The file below `ops/`: `matmul/gemv.cu`.
    pub name: &'static str,
    /// Its text, without the prelude.
    pub text: &'static str,
    /// The kernels that it defines.
    pub kernels: &'static [KernelSpec],
}

/// A kernel of a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelSpec {
    /// The name of its `extern "C"` function: `{op}_{variant}`.
    pub name: &'static str,
    /// The most dynamic shared memory that it is launched with.
    pub max_shared_bytes: u32,
}

/// The sequences of a step, which are blocks in y: no more than a grid has there.
pub(crate) fn seqs_in_grid(n_seqs: usize) -> Result<u32> {
    match n_seqs <= MAX_BLOCKS_YZ {
        true => Ok(n_seqs as u32),
        false => {
            let (what, expected) = ("the number of sequences in a step", "65535 at most");
            Err(Error::UnsupportedShape { what, found: n_seqs, expected })
        }
    }
}

/// The one parameter of a kernel, passed by value.
///
/// # Safety
/// The type is `repr(C)`, has no padding that the kernel reads, and is what the kernel takes, byte for byte: u64 (device
/// addresses), u32, i32 and f32 only. Addresses are of live buffers, as large as the kernel makes of the other members.
pub(crate) unsafe trait Params: Copy + 'static {}

impl<A: CudaAct> Cuda<A> {
    /// Launches a kernel of [`Source::kernels`] with one parameter.
    pub(crate) fn launch<P: Params>(
        &mut self,
        kernel: &'static str,
        grid: Grid,
        mut params: P,
    ) -> Result<()> {
        assert!(self.mode != Mode::Idle, "{kernel}: launched by no operation");
        let shared = &self.shared;
        shared.context.check_alive()?;
        let Kernel { function, max_shared_bytes } = shared.kernels.get(kernel);
        assert!(
            grid.shared_bytes <= max_shared_bytes,
            "{kernel}: {grid:?}, {max_shared_bytes} bytes at most"
        );
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let [x, y, z] = grid.blocks;
        let name = || format!("{} ({kernel}, {x} x {y} x {z} blocks of {} threads)", self.op, grid.threads);
        if y.max(z) as usize > MAX_BLOCKS_YZ {
            let reason = format!("a grid has {MAX_BLOCKS_YZ} blocks at most in y and in z");
            return Err(Error::Launch { device: shared.context.device.name.clone(), op: name(), reason });
        }
        let stream = shared.stream.handle;
        let mut pointers: [*mut c_void; 1] = [(&raw mut params).cast()];
        // SAFETY: the kernel takes one parameter of this type, which the driver copies before it returns: `Params`, to whose
        // contract the operation has agreed, vouches for type and content.
        let launched = unsafe {
            let block = (grid.threads, 1, 1);
            result::launch_kernel(function, (x, y, z), block, grid.shared_bytes, stream, &mut pointers)
        };
        shared.counts.launches.fetch_add(1, Ordering::Relaxed);
        launched.map_err(|error| shared.launch_failed(name(), error))?;
        if shared.is_sync {
            // SAFETY: the stream lives.
            unsafe { result::stream::synchronize(stream) }
                .map_err(|error| shared.launch_failed(name(), error))?;
        }
        Ok(())
    }
}

impl Shared {
    pub(super) fn launch_failed(&self, op: String, error: DriverError) -> Error {
        match self.context.failed("cuLaunchKernel", error) {
            Error::Driver { device, reason, .. } => Error::Launch { device, op, reason },
            lost => lost,
        }
    }
}
