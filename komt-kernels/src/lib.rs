//! What a device must do for a Mistral-architecture model.
//!
//! [`Backend`] is the table of contents: four ways to move memory, nine operations, two hooks for recording, and what a device
//! may add to that, each with a default. An
//! operation is what one fused kernel does, over rows of fixed width; there is no tensor library underneath. Each has a
//! folder in `ops/` with its formula, its shape check, a scalar reference that can be trusted by reading, and the fast
//! paths that are held against it.
//!
//! [`Cpu`] is the backend for CPUs: the scalar reference, AVX2 and AVX-512 chosen at run time, and a portable path
//! for every other target, on threads of its own. [`Cuda`] (feature `cuda`) is the backend for NVIDIA GPUs: hand-written kernels
//! compiled for the device when it is opened.
//!
//! ```
//! use komt_kernels::{Backend, Cpu, HostWeight, Rows, WeightFormat};
//!
//! let mut cpu = Cpu::new()?;
//! // W = [[1, 2], [3, 4], [5, 6]], x = [[10, 1]]: out = x . W^T
//! let w = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0];
//! let parts = [bytemuck::cast_slice(&w)];
//! let w = cpu.load_weight(HostWeight { rows: 3, cols: 2, format: WeightFormat::F32, parts: &parts })?;
//! let mut x: Rows<Cpu, f32> = Rows::<Cpu, f32>::alloc(&mut cpu, 1, 2)?;
//! cpu.upload(&mut x.buf, &[10.0, 1.0])?;
//! let mut out: Rows<Cpu, f32> = Rows::<Cpu, f32>::alloc(&mut cpu, 1, 3)?;
//! (x.rows, out.rows) = (1, 1);
//! cpu.matmul(&mut out, &x, &w)?;
//! assert_eq!(out.buf, [12.0, 34.0, 56.0]);
//! # Ok::<(), komt_kernels::Error>(())
//! ```

mod backend;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
mod kv;
mod ops;
pub mod quant;
mod rows;
mod step;
mod tap;
mod weight;

pub use backend::{AttnShape, Backend, MAX_CANDIDATES, NO_TOKEN};
pub use cpu::{Cpu, CpuOptions, CpuWeight, Isa, Precision};
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use error::{Error, Result};
pub use kv::{KvBuf, KvFormat, KvLayer};
pub use rows::{Elem, RowBuf, Rows};
pub use step::{Step, StepBuf, StepCapacity};
pub use tap::{Tap, TapEvent};
pub use weight::{AlignedBytes, HostWeight, SharedBytes, WeightFormat};

/// Largest head_dim that the attention kernels hold on their stacks.
pub const MAX_HEAD_DIM: usize = 256;
