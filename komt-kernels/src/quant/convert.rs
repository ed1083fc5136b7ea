//! [`Cpu::quantise`] and [`Cpu::convert`]: matrices brought into a format.

use super::{BLOCK_ROWS, EncodeBlock, QuantLayout, RowSource, encode_block};
use crate::cpu::{SharedMut, dispatch};
use crate::{AlignedBytes, Cpu, Error, HostWeight, Isa, Result, SharedBytes, WeightFormat};
use bytemuck::Pod;
use half::{bf16, f16};
use std::sync::{Arc, Mutex, PoisonError};

/// A number that is not one, or not in the format: its row and column. The first of a matrix is told.
type Unfit = (usize, usize, f32);

impl Cpu {
    /// A matrix in q8 or q4: the scale of each group is the one with the least squared error. The bytes of a [`QuantLayout`].
    ///
    /// # Errors
    /// `Error::OutOfMemory`; `Error::WeightRange` for a weight that is not finite.
    pub fn quantise(&self, format: WeightFormat, source: &dyn RowSource) -> Result<SharedBytes> {
        let layout = QuantLayout::new(format, source.rows(), source.cols());
        self.aligned(layout.size_bytes(), |bytes| {
            let (quants, rest) = bytes.split_at_mut(layout.quants_bytes());
            let (row_scales, scales) = rest.split_at_mut(layout.blocks() * BLOCK_ROWS * 4);
            let quants = SharedMut::new(quants);
            let row_scales = SharedMut::<f32>::new(bytemuck::cast_slice_mut(row_scales));
            let scales = SharedMut::new(scales);
            let unfit = FirstUnfit::default();
            self.for_ranges(layout.blocks(), 1, |blocks| {
                let mut rows = vec![0.0; BLOCK_ROWS * layout.cols];
                for block in blocks {
                    let first = block * BLOCK_ROWS;
                    let rows = &mut rows[..BLOCK_ROWS.min(layout.rows - first) * layout.cols];
                    for (r, row) in rows.chunks_exact_mut(layout.cols).enumerate() {
                        source.read(first + r, row);
                    }
                    // SAFETY: each block belongs to one task.
                    let (quants, row_scales, scales) = unsafe {
                        (
                            quants.slice(block * layout.block_bytes(), layout.block_bytes()),
                            row_scales.slice(first, BLOCK_ROWS),
                            scales.slice(block * layout.block_scales(), layout.block_scales()),
                        )
                    };
                    if self.isa() == Isa::Scalar {
                        encode_block(&layout, rows, quants, row_scales, scales);
                    } else {
                        let layout = &layout;
                        dispatch(self.isa(), EncodeBlock { layout, rows, quants, row_scales, scales });
                    }
                    unfit.see(not_finite(rows, first, layout.cols));
                }
            });
            unfit.told(format)
        })
    }

    /// A matrix in any format: rounded to the nearest number where that is f32, f16 or bf16, else [`Cpu::quantise`].
    ///
    /// # Errors
    /// `Error::OutOfMemory`; `Error::WeightRange` for a weight that is not finite, or is not in the format.
    pub fn convert(&self, format: WeightFormat, source: &dyn RowSource) -> Result<SharedBytes> {
        match format {
            WeightFormat::F32 => self.round(format, source, |x| x, |x| x),
            WeightFormat::F16 => self.round(format, source, f16::from_f32, f16::to_f32),
            WeightFormat::Bf16 => self.round(format, source, bf16::from_f32, bf16::to_f32),
            WeightFormat::Q8 | WeightFormat::Q4 => self.quantise(format, source),
        }
    }

    fn round<T: Pod + Send>(
        &self,
        format: WeightFormat,
        source: &dyn RowSource,
        narrow: impl Fn(f32) -> T + Sync,
        widen: impl Fn(T) -> f32 + Sync,
    ) -> Result<SharedBytes> {
        let (rows, cols) = (source.rows(), source.cols());
        self.aligned(format.bytes(rows, cols), |bytes| {
            let numbers: &mut [T] = bytemuck::cast_slice_mut(bytes);
            let numbers = SharedMut::new(numbers);
            let unfit = FirstUnfit::default();
            self.for_ranges(rows, 1, |rows| {
                let mut row = vec![0.0; cols];
                for r in rows {
                    source.read(r, &mut row);
                    // SAFETY: each row belongs to one task.
                    let out = unsafe { numbers.slice(r * cols, cols) };
                    let mut is_finite = true;
                    for (out, &x) in out.iter_mut().zip(&row) {
                        *out = narrow(x);
                        is_finite &= widen(*out).is_finite();
                    }
                    if !is_finite {
                        let at = out.iter().position(|&x| !widen(x).is_finite());
                        unfit.see(at.map(|c| (r, c, row[c])));
                    }
                }
            });
            unfit.told(format)
        })
    }

    /// Memory that begins at a cache line, filled by `fill`.
    pub(crate) fn aligned(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<SharedBytes> {
        let mut bytes = AlignedBytes::zeroed(len)
            .ok_or_else(|| Error::OutOfMemory { device: "CPU".into(), bytes: len })?;
        fill(bytes.as_mut())?;
        Ok(SharedBytes::new(Arc::new(bytes), 0..len))
    }
}

fn not_finite(rows: &[f32], first: usize, cols: usize) -> Option<Unfit> {
    let at = rows.iter().position(|x| !x.is_finite())?;
    Some((first + at / cols, at % cols, rows[at]))
}

/// The first of what several threads find.
#[derive(Default)]
struct FirstUnfit(Mutex<Option<Unfit>>);

impl FirstUnfit {
    fn see(&self, unfit: Option<Unfit>) {
        let Some(new) = unfit else { return };
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none_or(|first| new.0 < first.0) {
            *first = Some(new);
        }
    }

    fn told(self, format: WeightFormat) -> Result<()> {
        let unfit = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some((row, col, value)) = unfit else { return Ok(()) };
        let (format, max) = match format {
            WeightFormat::F32 => ("f32", f32::MAX),
            WeightFormat::F16 => ("f16", f16::MAX.to_f32()),
            WeightFormat::Bf16 => ("bf16", bf16::MAX.to_f32()),
            WeightFormat::Q8 => ("q8", f32::MAX),
            WeightFormat::Q4 => ("q4", f32::MAX),
        };
        Err(Error::WeightRange { row, col, value, format, min: -max, max })
    }
}

/// Matrices of f32, f16 or bf16, in one part.
impl RowSource for HostWeight<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, row: usize, out: &mut [f32]) {
        let size = self.format.bytes(1, self.cols);
        let bytes = &self.parts[0][row * size..][..size];
        match self.format {
            WeightFormat::F32 => widen(bytes, out, f32::from_le_bytes),
            WeightFormat::F16 => widen(bytes, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
            WeightFormat::Bf16 => widen(bytes, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            WeightFormat::Q8 | WeightFormat::Q4 => {
                QuantLayout::new(self.format, self.rows, self.cols).decode_row(self.parts[0], row, out);
            }
        }
    }
}

fn widen<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    let (numbers, _) = bytes.as_chunks::<N>();
    out.iter_mut().zip(numbers).for_each(|(out, &bytes)| *out = f(bytes));
}
