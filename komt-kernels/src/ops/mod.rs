//! One folder an operation: formula and shape check in `mod.rs`, the scalar reference in `scalar.rs`, the vector kernel
//! in `simd.rs`, the launches of the CUDA kernels (`.cu`) in `cuda.rs`. Where an operation only moves numbers or its loops are few, `mod.rs` is all there is.
//!
//! `check` panics with the operation's name and both shapes: a mismatch is a bug of ours, never of the input.

#[cfg(feature = "cuda")]
pub(crate) mod argmax;
pub(crate) mod attention;
pub(crate) mod embed;
pub(crate) mod matmul;
#[cfg(feature = "cuda")]
pub(crate) mod pool;
pub(crate) mod rms_norm;
pub(crate) mod rope_store;
pub(crate) mod swiglu;
pub(crate) mod take_rows;

/// The CUDA kernels of all operations.
#[cfg(feature = "cuda")]
pub(crate) fn cuda_sources() -> [&'static [crate::cuda::Source]; 9] {
    [
        argmax::cuda::SOURCES,
        attention::cuda::SOURCES,
        embed::cuda::SOURCES,
        matmul::cuda::SOURCES,
        pool::cuda::SOURCES,
        rms_norm::cuda::SOURCES,
        rope_store::cuda::SOURCES,
        swiglu::cuda::SOURCES,
        take_rows::cuda::SOURCES,
    ]
}
