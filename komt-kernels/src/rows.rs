//! [`Rows`]: the only activation type, and [`KvLayer`].

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

/// The cached keys and values of one layer: `[n_slots, kv_dim]` each.
#[derive(Debug)]
pub struct KvBuf<S> {
    /// Keys, rotated.
    pub k: S,
    /// Values.
    pub v: S,
    /// Slots that there are.
    pub n_slots: usize,
    /// Width of a slot.
    pub kv_dim: usize,
}

/// The cached keys and values of one layer on backend `B`.
pub type KvLayer<B> = KvBuf<<B as Backend>::Buf<<B as Backend>::Kv>>;

impl<S> KvBuf<S> {
    /// Room for `n_slots` tokens.
    ///
    /// # Errors
    /// Out of memory.
    pub fn alloc<B: Backend<Buf<<B as Backend>::Kv> = S>>(
        b: &mut B,
        n_slots: usize,
        kv_dim: usize,
    ) -> Result<Self> {
        let k = b.alloc::<B::Kv>(n_slots * kv_dim)?;
        let v = b.alloc::<B::Kv>(n_slots * kv_dim)?;
        Ok(Self { k, v, n_slots, kv_dim })
    }
}
