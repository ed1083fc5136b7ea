//! The quantised formats, q8 and q4: where their numbers lie, and how a matrix is brought into them.
//!
//! ```text
//! w[r, c] = row_scale[r] * scale[r, c / GROUP] * (stored[r, c] - offset)
//! q8: GROUP 32, stored 1..=255,  offset 128        q4: GROUP 16, stored 0..=15, offset 8
//! ```
//! Scales are whole numbers of -127..=127: a group has a few dozen candidates, so the one with the least error can be searched
//! for, and its sign decides whether the side with one more step lies above zero or below. One f32 for each row gives the unit.

mod convert;
mod encode;
mod scalar;

use crate::WeightFormat;

/// Rows that lie together: as many as AVX-512 has lanes of 32 bits.
pub const BLOCK_ROWS: usize = 16;

/// Columns are padded to a multiple of this; padding holds zeros (`stored == offset`, scale 0).
pub const PAD_COLS: usize = 32;

/// Where the numbers of a quantised matrix `[rows, cols]` lie: little-endian, the same for every device and instruction set.
///
/// ```text
/// quants     [blocks][padded_cols / C][16][4] u8      C = 4 (q8) or 8 (q4): byte j of row i of a block has column
///                                                     c * C + j; in q4 that is the low half, column c * C + 4 + j the high
/// row_scales [blocks][16] f32
/// scales     [blocks][padded_cols / GROUP][16] i8
/// ```
/// A block has 16 rows; those beyond the last are zeros. Worked example, q4 with 32 columns: row 17, column 13 is in block 1,
/// chunk 13 / 8 = 1, row 1, byte 13 % 4 = 1, high half as 13 % 8 >= 4: byte (1 * 4 + 1) * 64 + 1 * 4 + 1 = 325 of the quants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantLayout {
    /// `Q8` or `Q4`.
    pub format: WeightFormat,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

impl QuantLayout {
    /// # Panics
    /// Unless the format is q8 or q4.
    pub fn new(format: WeightFormat, rows: usize, cols: usize) -> Self {
        assert!(format.is_quantised(), "QuantLayout of {format:?}");
        Self { format, rows, cols }
    }

    /// Blocks of 16 rows.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK_ROWS)
    }

    /// Columns with padding.
    pub fn padded_cols(&self) -> usize {
        self.cols.next_multiple_of(PAD_COLS)
    }

    /// Columns that share a scale.
    pub fn group(&self) -> usize {
        match self.format {
            WeightFormat::Q8 => 32,
            _ => 16,
        }
    }

    /// What is taken off a stored number.
    pub fn offset(&self) -> u8 {
        match self.format {
            WeightFormat::Q8 => 128,
            _ => 8,
        }
    }

    /// Columns in the four bytes of a row that lie together.
    pub fn chunk_cols(&self) -> usize {
        match self.format {
            WeightFormat::Q8 => 4,
            _ => 8,
        }
    }

    /// Bytes of the quants of a block.
    pub fn block_bytes(&self) -> usize {
        self.padded_cols() / self.chunk_cols() * 4 * BLOCK_ROWS
    }

    /// Bytes of the scales of a block.
    pub fn block_scales(&self) -> usize {
        self.padded_cols() / self.group() * BLOCK_ROWS
    }

    /// Bytes of all quants: where the row scales begin.
    pub fn quants_bytes(&self) -> usize {
        self.blocks() * self.block_bytes()
    }

    /// Where the scales begin.
    pub fn scales_at(&self) -> usize {
        self.quants_bytes() + self.blocks() * BLOCK_ROWS * 4
    }

    /// Bytes of everything.
    pub fn size_bytes(&self) -> usize {
        self.scales_at() + self.blocks() * self.block_scales()
    }

    /// Bytes and shift of a stored number.
    fn place(&self, row: usize, col: usize) -> (usize, u32) {
        let (block, chunk) = (row / BLOCK_ROWS, col / self.chunk_cols());
        let at = block * self.block_bytes() + (chunk * BLOCK_ROWS + row % BLOCK_ROWS) * 4 + col % 4;
        (at, if self.format == WeightFormat::Q4 && col % 8 >= 4 { 4 } else { 0 })
    }

    fn scale_at(&self, row: usize, group: usize) -> usize {
        self.scales_at() + row / BLOCK_ROWS * self.block_scales() + group * BLOCK_ROWS + row % BLOCK_ROWS
    }

    fn row_scale_at(&self, row: usize) -> usize {
        self.quants_bytes() + row * 4
    }

    /// Row `row` of the matrix in `bytes`, as f32: the meaning of the format, and the twin of everything fast.
    pub fn decode_row(&self, bytes: &[u8], row: usize, out: &mut [f32]) {
        assert!(
            row < self.rows && out.len() == self.cols,
            "decode_row: row {row}, {} columns of {self:?}",
            out.len()
        );
        scalar::decode_row(self, bytes, row, out);
    }
}

/// Rows of a matrix as f32, whatever they are stored as; several threads read at once.
pub trait RowSource: Sync {
    /// Rows of the matrix.
    fn rows(&self) -> usize;
    /// Its columns.
    fn cols(&self) -> usize;
    /// Row `row` to `out [cols]`.
    fn read(&self, row: usize, out: &mut [f32]);
}

pub(crate) use encode::EncodeBlock;
pub(crate) use scalar::encode_block;
