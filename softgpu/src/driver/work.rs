//! What streams have to do, and doing it.

use std::ffi::c_void;
use std::sync::Arc;

use super::error::Error;
use super::module::LoadedImage;
use crate::exec::{self, Complaint, ComplaintKind, Counters, Launch, RunOptions};
use crate::memory::{Memory, MemoryError};
use crate::spec::DeviceSpec;

/// Bytes of the host, by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostRange {
    pub start: usize,
    pub bytes: usize,
}

impl HostRange {
    pub fn new(start: *const c_void, bytes: usize) -> Self {
        Self { start: start as usize, bytes }
    }

    pub fn end(self) -> usize {
        self.start.saturating_add(self.bytes)
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// Its bytes now.
    pub fn copied(self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes];
        // SAFETY: the application gave the range as the source of a copy: it is readable. Page-locked ranges are used only while
        // they are in the context's table.
        unsafe { std::ptr::copy_nonoverlapping(self.start as *const u8, bytes.as_mut_ptr(), self.bytes) };
        bytes
    }

    fn fill(self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.bytes);
        // SAFETY: as in `copied`, for the destination of a copy.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start as *mut u8, self.bytes) };
    }
}

/// Where a copy to the device has its bytes from.
#[derive(Clone, Debug)]
pub(crate) enum HostSource {
    /// Taken when the copy was submitted.
    Taken(Vec<u8>),
    /// Page-locked memory, read when the copy runs.
    Pinned(HostRange),
}

/// A kernel with everything that its launch needs.
#[derive(Clone)]
pub(crate) struct KernelLaunch {
    pub image: Arc<LoadedImage>,
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared_bytes: u32,
    pub params: Vec<u8>,
    pub from_graph: bool,
}

/// A function of the application.
#[derive(Clone, Copy)]
pub(crate) struct HostCall {
    pub function: extern "C" fn(*mut c_void),
    pub data: usize,
}

/// One thing to do.
#[derive(Clone)]
pub(crate) enum Work {
    Launch(Arc<KernelLaunch>),
    Upload {
        to: u64,
        from: HostSource,
    },
    /// Pageable memory is written only while the submitting call waits.
    Download {
        from: u64,
        to: HostRange,
        pinned: bool,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: u64,
    },
    /// `pattern` repeated.
    Fill {
        to: u64,
        pattern: Vec<u8>,
        count: u64,
    },
    Free {
        addr: u64,
    },
    Record {
        event: u64,
        recording: u64,
    },
    Host(HostCall),
    /// Only waits for what it depends on.
    Nothing,
}

/// How a piece of work failed.
pub(crate) struct Failure {
    pub error: Error,
    pub complaint: String,
}

/// What doing it gave.
pub(crate) type Outcome = Result<Option<Counters>, Failure>;

impl Work {
    /// Page-locked memory that it uses.
    pub fn host_range(&self) -> Option<HostRange> {
        match self {
            Self::Upload { from: HostSource::Pinned(range), .. }
            | Self::Download { to: range, pinned: true, .. } => Some(*range),
            _ => None,
        }
    }

    /// In words, for complaints.
    pub fn describe(&self) -> String {
        match self {
            Self::Launch(launch) => format!("the launch of `{}`", launch.kernel),
            Self::Upload { to, .. } => format!("a copy from the host to {to:#x}"),
            Self::Download { from, to, .. } => {
                format!("a copy of {} bytes from {from:#x} to the host", to.bytes)
            }
            Self::Copy { to, from, bytes } => format!("a copy of {bytes} bytes from {from:#x} to {to:#x}"),
            Self::Fill { to, .. } => format!("a fill of {to:#x}"),
            Self::Free { addr } => format!("freeing {addr:#x}"),
            Self::Record { .. } => "recording an event".to_owned(),
            Self::Host(_) => "a host function".to_owned(),
            Self::Nothing => "waiting".to_owned(),
        }
    }

    /// Does it. Records of events are the caller's business.
    pub fn run(&self, memory: &Memory, spec: &DeviceSpec, options: &RunOptions) -> Outcome {
        match self {
            Self::Launch(launch) => return launch.run(memory, spec, options).map(Some),
            Self::Host(call) => {
                super::IN_HOST_FUNCTION.set(true);
                (call.function)(call.data as *mut c_void);
                super::IN_HOST_FUNCTION.set(false);
                Ok(())
            }
            Self::Upload { to, from: HostSource::Taken(bytes) } => memory.write(*to, bytes),
            Self::Upload { to, from: HostSource::Pinned(range) } => memory.write(*to, &range.copied()),
            Self::Download { from, to, .. } => {
                let mut bytes = vec![0; to.bytes];
                memory.read(*from, &mut bytes).map(|()| to.fill(&bytes))
            }
            Self::Copy { to, from, bytes } => memory.copy(*to, *from, *bytes),
            Self::Fill { to, pattern, count } => match pattern[..] {
                [value] => memory.set(*to, value, *count),
                _ => memory.write(*to, &pattern.repeat(*count as usize)),
            },
            Self::Free { addr } => memory.free(*addr),
            Self::Record { .. } | Self::Nothing => Ok(()),
        }
        .map(|()| None)
        .map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &MemoryError) -> Failure {
        let code = match error {
            // Hardware would deliver rubbish. Whoever downloads what nobody computed has forgotten something.
            MemoryError::NotWritten { .. } | MemoryError::Undefined { .. } => Error::LAUNCH_FAILED,
            _ => Error::ILLEGAL_ADDRESS,
        };
        Failure { error: code, complaint: format!("{}: {error}", self.describe()) }
    }
}

impl KernelLaunch {
    fn run(&self, memory: &Memory, spec: &DeviceSpec, options: &RunOptions) -> Result<Counters, Failure> {
        if self.image.is_unloaded() {
            let complaint = format!("kernel `{}` runs after its module was unloaded", self.kernel);
            return Err(Failure { error: Error::ILLEGAL_ADDRESS, complaint });
        }
        let Some(kernel) = self.image.module().kernel(&self.kernel) else {
            return Err(Failure {
                error: Error::NOT_FOUND,
                complaint: format!("kernel `{}` is not there", self.kernel),
            });
        };
        let launch = Launch {
            kernel,
            grid: self.grid,
            block: self.block,
            dynamic_shared_bytes: self.dynamic_shared_bytes,
            params: &self.params,
        };
        let failed = |complaint: Complaint| Failure {
            error: error_of(complaint.kind),
            complaint: complaint.to_string(),
        };
        exec::run(&launch, self.image.loaded(), memory, spec, options).map_err(failed)
    }
}

/// The error that a card would report, or the nearest.
fn error_of(kind: ComplaintKind) -> Error {
    match kind {
        ComplaintKind::OutOfBounds | ComplaintKind::UseAfterFree => Error::ILLEGAL_ADDRESS,
        ComplaintKind::Misaligned => Error::MISALIGNED_ADDRESS,
        ComplaintKind::Deadlock => Error::LAUNCH_TIMEOUT,
        ComplaintKind::Trap => Error::ILLEGAL_INSTRUCTION,
        _ => Error::LAUNCH_FAILED,
    }
}
