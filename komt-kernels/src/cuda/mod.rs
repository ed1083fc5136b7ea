//! [`Cuda`]: every operation on an NVIDIA GPU, by hand-written kernels that are compiled when the device is opened.

#![allow(dead_code, unused_imports)] // until the operations are there

mod buffer;
mod context;
mod launch;

use crate::{Elem, Result};
pub use buffer::{CudaBuf, CudaWeight};
use half::{bf16, f16};
pub(crate) use launch::{Grid, KernelSpec, Params, Source};
use std::marker::PhantomData;

/// The 16-bit types that activations, weights and the KV cache may have: `bf16` (sm_80 and newer) or `f16`.
pub trait CudaAct: Elem + sealed::Sealed {
    /// Whether it is `f16`.
    const IS_F16: bool;
}

impl CudaAct for bf16 {
    const IS_F16: bool = false;
}
impl CudaAct for f16 {
    const IS_F16: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// The backend for NVIDIA GPUs, with activations of type `A`.
#[derive(Debug, Clone)]
pub struct Cuda<A: CudaAct> {
    _act: PhantomData<fn() -> A>,
}

impl<A: CudaAct> Cuda<A> {
    /// Launches a kernel of [`Source::kernels`] with one parameter.
    pub(crate) fn launch<P: Params>(&mut self, kernel: &'static str, grid: Grid, params: P) -> Result<()> {
        let _ = (kernel, grid, params);
        Ok(())
    }

    /// Multiprocessors.
    pub(crate) fn sm_count(&self) -> u32 {
        0
    }

    /// Compute capability, (major, minor).
    pub(crate) fn arch(&self) -> (u32, u32) {
        (8, 0)
    }

    /// Scratch memory, 256-byte aligned: address and bytes (32 MiB). Kernels run one after the other, and an operation's
    /// launches are not interleaved with another's: what an operation leaves there is its own until it returns.
    pub(crate) fn workspace(&self) -> (u64, usize) {
        (0, 32 << 20)
    }
}
