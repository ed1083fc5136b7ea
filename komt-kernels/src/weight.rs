//! [`HostWeight`] and [`SharedBytes`]: a matrix as it lies in a file.

use crate::quant::QuantLayout;
use std::ops::Range;
use std::sync::Arc;

/// How the numbers of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// 8 bits with a scale for 32 columns: 8.25 bits a weight and 32 a row ([`QuantLayout`]).
    Q8,
    /// 4 bits with a scale for 16 columns: 4.5 bits a weight and 32 a row ([`QuantLayout`]).
    Q4,
}

impl WeightFormat {
    /// Bytes of a matrix `[rows, cols]`.
    pub fn bytes(self, rows: usize, cols: usize) -> usize {
        match self {
            WeightFormat::F32 => 4 * rows * cols,
            WeightFormat::F16 | WeightFormat::Bf16 => 2 * rows * cols,
            WeightFormat::Q8 | WeightFormat::Q4 => QuantLayout::new(self, rows, cols).size_bytes(),
        }
    }

    /// Whether it is q8 or q4.
    pub fn is_quantised(self) -> bool {
        matches!(self, WeightFormat::Q8 | WeightFormat::Q4)
    }
}

/// A row-major matrix `[rows, cols]`, borrowed from wherever the file is, possibly in pieces that are stacked: q, k and v
/// become one matrix, gate and up another. Little-endian, of any alignment. A quantised matrix is one part: the bytes of its
/// [`QuantLayout`].
#[derive(Debug, Clone, Copy)]
pub struct HostWeight<'a> {
    /// Rows of all parts together: outputs.
    pub rows: usize,
    /// Columns: inputs.
    pub cols: usize,
    /// How the numbers are stored.
    pub format: WeightFormat,
    /// The rows' bytes, in order.
    pub parts: &'a [&'a [u8]],
}

impl HostWeight<'_> {
    /// Panics unless the parts make up the matrix: the loader has compared shapes before.
    pub(crate) fn check(&self) {
        let bytes: usize = self.parts.iter().map(|part| part.len()).sum();
        let expected = self.format.bytes(self.rows, self.cols);
        assert_eq!(bytes, expected, "HostWeight [{}, {}] {:?}: bytes", self.rows, self.cols, self.format);
        assert!(!self.format.is_quantised() || self.parts.len() == 1, "HostWeight {:?}: parts", self.format);
    }
}

/// Bytes that a backend may keep as they are: a part of a mapped file, or of memory that nobody else needs.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl SharedBytes {
    /// The bytes `range` of `owner`.
    ///
    /// # Panics
    /// When the range is not within the owner.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= owner.as_ref().as_ref().len(),
            "SharedBytes: {range:?}"
        );
        Self { owner, range }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.owner.as_ref().as_ref()[self.range.clone()]
    }
}

impl std::fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedBytes({:?})", self.range)
    }
}

/// Zeroed bytes that begin at a multiple of 64: no vector of them crosses a cache line. Many of them lie in huge pages where the
/// system has any.
#[derive(Debug, Clone)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: 64 bytes without padding, and all zeros are a value.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above, and any bytes are a value.
unsafe impl bytemuck::Pod for Line {}

impl AlignedBytes {
    /// `len` zeros; `None` where there is no memory for them.
    pub fn zeroed(len: usize) -> Option<Self> {
        let mut lines = bytemuck::try_zeroed_vec(len.div_ceil(64)).ok()?;
        crate::cpu::pages::ask_for_huge::<Line>(&mut lines);
        Some(Self { lines, len })
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl AsMut<[u8]> for AlignedBytes {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
