//! [`Rows`]: the only activation type.

use crate::{Backend, Result};
use bytemuck::Pod;
use half::{bf16, f16};

/// A number that buffers hold.
pub trait Elem: Pod + Default + Send + Sync + PartialEq + std::fmt::Debug + 'static {
    /// The value as f32 (for ids: the nearest).
    fn to_f32(self) -> f32;
}

impl Elem for f32 {
    fn to_f32(self) -> f32 {
        self
    }
}
impl Elem for u32 {
    fn to_f32(self) -> f32 {
        self as f32
    }
}
impl Elem for f16 {
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
}
impl Elem for bf16 {
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
}

/// `rows x cols` numbers, row-major, contiguous, in the buffer type `S`. The capacity is fixed; `rows` changes per step.
#[derive(Debug)]
pub struct RowBuf<S> {
    /// `[max_rows, cols]`, of which the first `rows` rows are in use.
    pub buf: S,
    /// Rows in use.
    pub rows: usize,
    /// Width.
    pub cols: usize,
    /// Rows that there is room for.
    pub max_rows: usize,
}

/// Rows of `T` on backend `B`. (An alias, so that a backend that wraps another shares its types.)
pub type Rows<B, T> = RowBuf<<B as Backend>::Buf<T>>;

impl<S> RowBuf<S> {
    /// Room for `max_rows` rows of `cols` columns; none is in use yet.
    ///
    /// # Errors
    /// Out of memory.
    pub fn alloc<B: Backend<Buf<T> = S>, T: Elem>(b: &mut B, max_rows: usize, cols: usize) -> Result<Self> {
        Ok(Self { buf: b.alloc::<T>(max_rows * cols)?, rows: 0, cols, max_rows })
    }
}
