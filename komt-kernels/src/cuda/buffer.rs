//! Memory of the device.

use super::context::Context;
use std::marker::PhantomData;
use std::sync::Arc;

/// Memory of the device for elements of `T`. It is given back some time after it is dropped, when nothing that was launched
/// can use it any more.
#[derive(Debug)]
pub struct CudaBuf<T> {
    ptr: u64,
    len: usize,
    context: Arc<Context>,
    _elements: PhantomData<fn() -> T>,
}

impl<T> CudaBuf<T> {
    /// Address on the device, divisible by 256.
    pub fn ptr(&self) -> u64 {
        self.ptr
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A matrix `[rows, cols]` in the activation type, row-major: `cols` is a multiple of 32, so that rows are 64-byte aligned.
#[derive(Debug)]
pub struct CudaWeight<A> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: CudaBuf<A>,
}
