//! [`Error`].

use crate::{Isa, KvFormat};

/// What can go wrong from outside. Shapes that do not fit together are assertions instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device has no room.
    #[error("{device}: out of memory, {bytes} bytes could not be allocated")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes that were asked for.
        bytes: usize,
    },
    /// An instruction set that this machine does not have.
    #[error("{isa:?} was asked for, this CPU (or the variable KOMT_ISA) has {best:?}")]
    IsaUnavailable {
        /// What was asked for.
        isa: Isa,
        /// The best that is there.
        best: Isa,
    },
    /// The variable `KOMT_ISA` has a word that is no instruction set.
    #[error("KOMT_ISA: expected {names}, found {found:?}")]
    UnknownIsa {
        /// What it has.
        found: String,
        /// What it may have.
        names: String,
    },
    /// A number of threads that makes no sense.
    #[error("threads: expected 1 to {max}, found {found}")]
    Threads {
        /// The most that there may be.
        max: usize,
        /// What was asked for.
        found: usize,
    },
    /// The threads could not be started.
    #[error("threads: {reason}")]
    ThreadPool {
        /// Why.
        reason: String,
    },
    /// There is no NVIDIA driver.
    #[error("CUDA: no driver: {reason}")]
    NoDriver {
        /// What was looked for.
        reason: String,
    },
    /// The driver is older than what is needed.
    #[error("CUDA: the driver is of CUDA {found}, {needed} or newer is needed")]
    DriverTooOld {
        /// The CUDA version of the driver.
        found: String,
        /// The oldest that does, and why.
        needed: String,
    },
    /// The driver has no such device.
    #[error("CUDA: device {ordinal} was asked for, the driver has {found}")]
    NoDevice {
        /// What was asked for.
        ordinal: usize,
        /// How many devices there are.
        found: usize,
    },
    /// A device that our kernels, or those for this type of activations, do not run on.
    #[error("{device}: compute capability {found}, {needed}")]
    UnsupportedDevice {
        /// The device's name.
        device: String,
        /// Its compute capability.
        found: String,
        /// What is needed.
        needed: &'static str,
    },
    /// The run-time compiler is not there.
    #[error(
        "CUDA: no NVRTC, the run-time compiler: looked for {looked}. It comes with the CUDA toolkit, or by `pip install \
         nvidia-cuda-nvrtc-cu12`; the variable KOMT_NVRTC names the file or its directory"
    )]
    NoNvrtc {
        /// Where it was looked for, and what was wrong with what was there.
        looked: String,
    },
    /// A kernel source did not compile.
    #[error("CUDA: {source_name} for {arch}: {log}")]
    Compile {
        /// The source file.
        source_name: String,
        /// The architecture.
        arch: String,
        /// What the compiler said.
        log: String,
    },
    /// The driver refused compiled kernels.
    #[error("{device}: kernels of {source_name} refused: {reason}")]
    KernelRefused {
        /// The device's name.
        device: String,
        /// The source file.
        source_name: String,
        /// What the driver said, to the machine code and to the PTX.
        reason: String,
    },
    /// An operation could not be launched.
    #[error("{device}: {op}: launch failed: {reason}")]
    Launch {
        /// The device's name.
        device: String,
        /// The operation, and the kernel.
        op: String,
        /// What the driver said.
        reason: String,
    },
    /// Something that had been launched failed, or the device did. Everything on this device fails from now on; a backend that
    /// is opened anew works.
    #[error("{device}: {step} failed: {reason}")]
    DeviceLost {
        /// The device's name.
        device: String,
        /// What was running.
        step: String,
        /// What the driver said.
        reason: String,
    },
    /// Another call to the driver failed.
    #[error("{device}: {call}: {reason}")]
    Driver {
        /// The device's name.
        device: String,
        /// The call.
        call: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// A weight that the backend's format cannot hold.
    #[error("weight [{row}, {col}] is {value}, {format} holds {min} to {max}")]
    WeightRange {
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// The value.
        value: f32,
        /// The format.
        format: &'static str,
        /// The smallest number of the format.
        min: f32,
        /// The largest.
        max: f32,
    },
    /// A model's shape that there are no kernels for.
    #[error("{what} is {found}, the kernels of this backend have {expected}")]
    UnsupportedShape {
        /// The dimension.
        what: &'static str,
        /// What it is.
        found: usize,
        /// What it may be.
        expected: &'static str,
    },
    /// A format of the KV cache that there are no kernels for.
    #[error("{device}: a KV cache in {found} was asked for, there is {expected}")]
    UnsupportedKvFormat {
        /// The device's name.
        device: String,
        /// What was asked for.
        found: KvFormat,
        /// What it may be.
        expected: String,
    },
    /// An operation was made to fail by the observer of a [`Tap`](crate::Tap).
    #[error("{op}: stopped by its observer: {reason}")]
    Stopped {
        /// The operation.
        op: &'static str,
        /// What the observer said.
        reason: String,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
