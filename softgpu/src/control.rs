//! How a test tells the software GPU what to be and how to fail, and asks what happened: requests and replies in JSON, because
//! the driver is a library of its own, loaded by its path, with its own copy of every static.

use serde::{Deserialize, Serialize};

use crate::exec::{Counters, RunOptions};
use crate::spec::DeviceSpec;

/// When queued work is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum QueueMode {
    /// Only when something waits for it: what was not waited for has not happened.
    #[default]
    Lazy,
    /// Some of it at each call, drawn from the seed: the same every time.
    Drawn(u64),
    /// On a thread, as soon as it is submitted. Streams take turns by the seed.
    Thread(u64),
}

/// How the driver behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How kernels run.
    pub run: RunOptions,
    /// When they do.
    pub queue: QueueMode,
    /// Keep a [`LaunchRecord`] of each launch.
    pub record_launches: bool,
    /// Complaints are not printed. For tests that expect them.
    pub quiet: bool,
}

/// A way to fail. Faults of different kinds add up, one of the same kind replaces the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Fault {
    /// No fault: forgets all.
    None,
    /// `cuInit` finds no device.
    NoDevice,
    /// The driver is of another version, and knows the PTX of its time.
    DriverVersion(i32),
    /// One allocation, of device or pinned memory or for a variable of a module, finds no memory.
    AllocationFails {
        /// Counted from now, from 1.
        nth: u64,
    },
    /// One launch fails.
    LaunchFails {
        /// Counted from now, from 1. What is not sticky counts submitted launches, of kernels and of graphs; what is sticky,
        /// executed kernels, those of graphs included.
        nth: u64,
        /// False: the submission is refused with `CUDA_ERROR_INVALID_VALUE`, and nothing else happens. True: the kernel's
        /// execution fails with `CUDA_ERROR_LAUNCH_FAILED`, and so does each later call.
        sticky: bool,
    },
    /// One waiting call (for a stream, an event, the context, a copy) fails as after a kernel that failed: sticky.
    SynchronizeFails {
        /// Counted from now, from 1.
        nth: u64,
    },
    /// Every PTX is newer than the driver.
    PtxTooNew,
}

/// A launch that was executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// Name of the kernel.
    pub kernel: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub dynamic_shared_bytes: u32,
    /// A node of a graph.
    pub from_graph: bool,
    /// What it did.
    pub counters: Counters,
}

/// How often a function of the API was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    /// As exported: `cuLaunchKernel`.
    pub function: String,
    /// Calls.
    pub calls: u64,
}

/// What is asked of the library.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Build,
    Reset(Box<DeviceSpec>),
    Fault(Fault),
    Options(Options),
    TakeLaunches,
    TakeComplaints,
    TakeCalls,
    LiveAllocations,
    LiveBytes,
    LiveHandles,
    LiveRetains,
    Pending,
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Build(String),
    Launches(Vec<LaunchRecord>),
    Texts(Vec<String>),
    Calls(Vec<CallCount>),
    Count(u64),
    Refused(String),
}

/// Names the build of this crate: the library that a test loads must be of the same.
pub(crate) const BUILD: &str = env!("KOMT_SOFTGPU_BUILD");
