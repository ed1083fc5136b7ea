//! What an operation says of its kernels, and how it launches them.

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

/// The one parameter of a kernel, passed by value.
///
/// # Safety
/// The type is `repr(C)`, has no padding that the kernel reads, and is what the kernel takes, byte for byte: u64 (device
/// addresses), u32, i32 and f32 only. Addresses are of live buffers, as large as the kernel makes of the other members.
pub(crate) unsafe trait Params: Copy + 'static {}
