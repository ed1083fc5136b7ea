//! Memory of the device.

use super::context::{Context, Garbage, Work};
use crate::{Error, Result};
use cudarc::driver::{result, sys};
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
    /// Memory of undefined content.
    pub(super) fn undefined(context: &Arc<Context>, work: &Work<'_>, len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| bytes <= isize::MAX as usize);
        let too_many = || Error::OutOfMemory { device: context.device.name.clone(), bytes: usize::MAX };
        let ptr = context.alloc(work, bytes.ok_or_else(too_many)?.max(1))?;
        Ok(Self { ptr, len, context: context.clone(), _elements: PhantomData })
    }

    /// Memory of zeros, once what `stream` does before is done.
    pub(super) fn zeroed(
        context: &Arc<Context>,
        work: &Work<'_>,
        stream: sys::CUstream,
        len: usize,
    ) -> Result<Self> {
        let buf = Self::undefined(context, work, len)?;
        if len > 0 {
            // SAFETY: the buffer has that many bytes.
            unsafe { result::memset_d8_async(buf.ptr, 0, len * size_of::<T>(), stream) }
                .map_err(|error| context.failed("cuMemsetD8Async", error))?;
        }
        Ok(buf)
    }

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

impl<T> Drop for CudaBuf<T> {
    fn drop(&mut self) {
        self.context.discard(Garbage::Memory(self.ptr));
    }
}

/// How the numbers of a matrix lie on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// In the activation type, row-major.
    Act,
    /// As `quant.cuh` says.
    Q8,
    Q4,
}

/// A matrix `[rows, cols]` in the activation type, row-major, or quantised. `cols` is a multiple of 32, so that rows are aligned
/// for loads of 16 bytes.
#[derive(Debug)]
pub struct CudaWeight<A> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) packing: Packing,
    pub(crate) data: CudaBuf<u8>,
    _act: PhantomData<fn() -> A>,
}

impl<A> CudaWeight<A> {
    pub(super) fn new(rows: usize, cols: usize, packing: Packing, data: CudaBuf<u8>) -> Self {
        Self { rows, cols, packing, data, _act: PhantomData }
    }

    /// Address on the device, divisible by 256.
    pub fn ptr(&self) -> u64 {
        self.data.ptr()
    }

    /// Bytes on the device.
    pub fn size_bytes(&self) -> usize {
        self.data.len()
    }
}
