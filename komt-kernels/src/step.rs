//! [`Step`]: the device's copy of a [`StepPlan`].

use crate::{Backend, Result};
use komt_cache::{StepDims, StepPlan};
use std::ops::Range;

/// The largest step that buffers are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepCapacity {
    /// Rows.
    pub max_tokens: usize,
    /// Sequences.
    pub max_seqs: usize,
    /// Rows with logits.
    pub max_logits: usize,
    /// Pages in each table.
    pub table_len: usize,
}

/// A step plan in one buffer at fixed addresses: loading it is one copy, and a recording of a step stays valid.
///
/// Layout in u32: ids, positions, slots, seq_of (`max_tokens` each), logit_rows (`max_logits`), q_start
/// (`max_seqs + 1`), pages (`max_seqs * table_len`).
#[derive(Debug)]
pub struct StepBuf<S> {
    /// All arrays, at the offsets of [`StepCapacity`].
    pub buf: S,
    /// Sizes of the step that is loaded.
    pub dims: StepDims,
    /// What there is room for.
    pub capacity: StepCapacity,
    staging: Vec<u32>, // host copy of `buf`
}

/// The device copy of a step plan on backend `B`.
pub type Step<B> = StepBuf<<B as Backend>::Buf<u32>>;

impl StepCapacity {
    fn len(&self) -> usize {
        self.pages_at() + self.max_seqs * self.table_len
    }
    /// Offset of `logit_rows`; the four arrays before it are at multiples of `max_tokens`.
    pub fn logit_rows_at(&self) -> usize {
        4 * self.max_tokens
    }
    /// Offset of `q_start`.
    pub fn q_start_at(&self) -> usize {
        self.logit_rows_at() + self.max_logits
    }
    /// Offset of `pages`.
    pub fn pages_at(&self) -> usize {
        self.q_start_at() + self.max_seqs + 1
    }
    /// Bytes of the device's copy.
    pub fn size_bytes(&self) -> u64 {
        self.len() as u64 * 4
    }
}

impl<S> StepBuf<S> {
    /// Room for steps of up to `capacity`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn alloc<B: Backend<Buf<u32> = S>>(b: &mut B, capacity: StepCapacity) -> Result<Self> {
        let len = capacity.len();
        Ok(Self { buf: b.alloc::<u32>(len)?, dims: StepDims::default(), capacity, staging: vec![0; len] })
    }

    /// Copies `plan` to the device.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// When the plan exceeds the capacity.
    pub fn load<B: Backend<Buf<u32> = S>>(&mut self, b: &mut B, plan: &StepPlan) -> Result<()> {
        let (c, dims) = (self.capacity, plan.dims());
        assert!(
            dims.n_tokens <= c.max_tokens && dims.n_seqs <= c.max_seqs && dims.n_logits <= c.max_logits,
            "Step: {dims:?} exceeds {c:?}"
        );
        assert_eq!(plan.table_len(), c.table_len, "Step: length of the page tables");
        let arrays = [
            (0, &plan.ids),
            (c.max_tokens, &plan.positions),
            (2 * c.max_tokens, &plan.slots),
            (3 * c.max_tokens, &plan.seq_of),
            (c.logit_rows_at(), &plan.logit_rows),
            (c.q_start_at(), &plan.q_start),
            (c.pages_at(), &plan.pages),
        ];
        for (at, array) in arrays {
            self.staging[at..at + array.len()].copy_from_slice(array);
        }
        self.dims = dims;
        b.upload(&mut self.buf, &self.staging[..c.pages_at() + plan.pages.len()])
    }
}

/// The arrays, for a backend whose memory is the host's.
impl StepBuf<Vec<u32>> {
    fn part(&self, range: Range<usize>) -> &[u32] {
        &self.buf[range]
    }
    fn tokens(&self, i: usize) -> &[u32] {
        let at = i * self.capacity.max_tokens;
        self.part(at..at + self.dims.n_tokens)
    }
    /// Token ids, `[n_tokens]`.
    pub fn ids(&self) -> &[u32] {
        self.tokens(0)
    }
    /// Absolute positions, `[n_tokens]`.
    pub fn positions(&self) -> &[u32] {
        self.tokens(1)
    }
    /// Slots, `[n_tokens]`.
    pub fn slots(&self) -> &[u32] {
        self.tokens(2)
    }
    /// Sequence of each row, `[n_tokens]`.
    pub fn seq_of(&self) -> &[u32] {
        self.tokens(3)
    }
    /// Rows with logits, `[n_logits]`.
    pub fn logit_rows(&self) -> &[u32] {
        let at = self.capacity.logit_rows_at();
        self.part(at..at + self.dims.n_logits)
    }
    /// Page table of sequence `seq`, `[table_len]`.
    pub fn table(&self, seq: u32) -> &[u32] {
        let at = self.capacity.pages_at() + seq as usize * self.capacity.table_len;
        self.part(at..at + self.capacity.table_len)
    }
}

/// Where the arrays are, for the launches of kernels.
#[cfg(feature = "cuda")]
impl StepBuf<crate::cuda::CudaBuf<u32>> {
    fn at(&self, offset: usize) -> u64 {
        self.buf.ptr() + 4 * offset as u64
    }
    /// Address of the absolute positions, `[n_tokens]`.
    pub(crate) fn positions_ptr(&self) -> u64 {
        self.at(self.capacity.max_tokens)
    }
    /// Address of the slots, `[n_tokens]`.
    pub(crate) fn slots_ptr(&self) -> u64 {
        self.at(2 * self.capacity.max_tokens)
    }
    /// Address of the rows with logits, `[n_logits]`.
    pub(crate) fn logit_rows_ptr(&self) -> u64 {
        self.at(self.capacity.logit_rows_at())
    }
    /// Address of the first rows of the sequences, `[n_seqs + 1]`.
    pub(crate) fn q_start_ptr(&self) -> u64 {
        self.at(self.capacity.q_start_at())
    }
    /// Address of the page tables, `[n_seqs, table_len]`.
    pub(crate) fn pages_ptr(&self) -> u64 {
        self.at(self.capacity.pages_at())
    }
}
