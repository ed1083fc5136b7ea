//! A CUDA driver in software, for tests only: it executes the PTX of our kernels on the host, stricter than hardware.

pub mod exec;
pub mod memory;
pub mod ptx;
pub mod spec;

pub use spec::DeviceSpec;

pub mod mma;
pub mod num;

pub mod control;
mod driver;
pub mod softgpu;

pub use control::{Fault, LaunchRecord, Options, QueueMode};
pub use softgpu::{Guard, SoftGpu, SoftGpuError};
