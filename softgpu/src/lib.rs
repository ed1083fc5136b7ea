//! A CUDA driver in software, for tests only: it executes the PTX of our kernels on the host, stricter than hardware.
//!
//! The package is two libraries of one source. `libkomt_softgpu.so` exports the CUDA driver API; its SONAME is that of the
//! driver, its file name is not, so that nothing opens it by accident, and everything that looks for the driver finds it once a
//! test has loaded it by its path. The Rust library is the handle by which the test does so:
//!
//! ```no_run
//! use komt_softgpu::{DeviceSpec, Fault, Options, QueueMode, SoftGpu};
//!
//! let gpu = SoftGpu::lock(&DeviceSpec::sm(80))?;               // alone in this process, and like new
//! gpu.options(&Options { queue: QueueMode::Drawn(7), record_launches: true, ..Options::default() });
//! gpu.fault(Fault::AllocationFails { nth: 3 });
//! // ... cudarc as on a card ...
//! assert!(gpu.take_complaints().is_empty());                   // nothing wrong that a card would have let pass
//! assert_eq!(gpu.live_allocations(), 0);                       // nothing left behind
//! for launch in gpu.take_launches() {
//!     println!("{}: {} sectors", launch.kernel, launch.counters.global_sectors);
//! }
//! # Ok::<(), komt_softgpu::SoftGpuError>(())
//! ```
//!
//! From below: `num` and `mma` are the arithmetic of PTX, `ptx` reads it, `memory` is the device's, `exec` runs kernels warp by
//! warp with all checks, `driver` is the API around it with streams as queues that nobody empties until somebody waits.
//!
//! What it cannot show: times; what ptxas makes of the PTX; hardware's order of accumulation in an `mma`; the last bits of
//! approximate instructions; weak memory beyond what barriers and atomics order; the behaviour of real drivers.

pub mod control;
mod driver;
pub mod exec;
pub mod memory;
pub mod mma;
pub mod num;
pub mod ptx;
pub mod softgpu;
pub mod spec;

pub use control::{Fault, LaunchRecord, Options, QueueMode};
pub use softgpu::{Guard, SoftGpu, SoftGpuError};
pub use spec::DeviceSpec;
