//! [`HostWeight`]: a matrix as it lies in a file.

/// How the numbers of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
}

impl WeightFormat {
    /// Bytes of one number.
    pub fn size_bytes(self) -> usize {
        match self {
            WeightFormat::F32 => 4,
            WeightFormat::F16 | WeightFormat::Bf16 => 2,
        }
    }
}

/// A row-major matrix `[rows, cols]`, borrowed from wherever the file is, possibly in pieces that are stacked: q, k and v
/// become one matrix, gate and up another. Little-endian, of any alignment.
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
        let expected = self.rows * self.cols * self.format.size_bytes();
        assert_eq!(bytes, expected, "HostWeight [{}, {}] {:?}: bytes", self.rows, self.cols, self.format);
    }
}
