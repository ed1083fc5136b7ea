//! Sums to outputs, with AVX-512 F.

use super::{Job, Output, Outs, PANEL, SUMS, TILE, Weights, pack};
use crate::cpu::simd::Simd;
use crate::cpu::x86::Avx512;
use crate::ops::matmul::Epilogue;
use std::arch::x86_64::*;
use std::ops::Range;

impl Job<'_> {
    /// Sums `[outs][rows][2][2][16][16]` of panels to their places in the output: all outputs of 16 rows before the next rows.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW; nobody else touches these outputs.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn store(&self, rows: &Range<usize>, outs: &Outs, sums: &[f32]) {
        let s = Avx512::new().expect("as the caller vouches");
        for r in 0..2 * rows.len() {
            let row = rows.start * PANEL + r * TILE;
            let n_rows = self.packing.rows.saturating_sub(row).min(TILE);
            let tile = |o: usize| {
                let block = &sums[(o / 2 * rows.len() + r / 2) * SUMS..][..SUMS];
                let tile = if self.outs_left() { o % 2 * 2 + r % 2 } else { r % 2 * 2 + o % 2 };
                &block[tile * TILE * TILE..][..TILE * TILE]
            };
            for o in 0..2 * outs.n {
                let out = outs.start * PANEL + o * TILE;
                let n_outs = self.out_cols.saturating_sub(out).min(TILE);
                if n_outs == 0 {
                    break;
                }
                let mut values = [_mm512_setzero_ps(); TILE];
                self.finish(tile(o), out, &mut values);
                if self.output == Output::Swiglu {
                    let mut ups = values;
                    self.finish(tile(2 * outs.n + o), self.out_cols + out, &mut ups);
                    for (value, up) in values.iter_mut().zip(ups) {
                        *value = s.mul(s.silu(*value), up);
                    }
                }
                for (r, &value) in values.iter().enumerate().take(n_rows) {
                    // SAFETY: as the caller vouches.
                    unsafe { self.store_row(row + r, out, n_outs, value) };
                }
            }
        }
    }

    /// A tile of sums, of rows of w from `out` on, as rows of x: transposed or with their scales.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn finish(&self, tile: &[f32], out: usize, values: &mut [__m512; TILE]) {
        let sums = values.iter_mut().zip(tile.chunks_exact(TILE));
        match self.w {
            Weights::Quant(layout, bytes) => {
                // Blocks are padded to 16 rows.
                let scales = &bytes[layout.quants_bytes() + out * 4..][..TILE * 4];
                // SAFETY: 16 numbers.
                let scales = unsafe { _mm512_loadu_ps(scales.as_ptr().cast()) };
                for (value, sums) in sums {
                    // SAFETY: 16 numbers.
                    *value = _mm512_mul_ps(unsafe { _mm512_loadu_ps(sums.as_ptr()) }, scales);
                }
            }
            Weights::Bf16(_) | Weights::F16(_) => {
                let mut columns = [_mm512_setzero_si512(); TILE];
                for (column, (_, sums)) in columns.iter_mut().zip(sums) {
                    // SAFETY: 16 numbers.
                    *column = unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) };
                }
                pack::transpose(&mut columns);
                for (value, column) in values.iter_mut().zip(columns) {
                    *value = _mm512_castsi512_ps(column);
                }
            }
        }
    }

    /// `n_outs` values of a row from column `out` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store_row(&self, row: usize, out: usize, n_outs: usize, values: __m512) {
        let mask = ((1u32 << n_outs) - 1) as u16;
        // SAFETY: these outputs belong to this task alone; masked lanes are neither read nor written.
        unsafe {
            let to = self.out.slice(row * self.out_cols + out, n_outs).as_mut_ptr();
            let values = match self.output {
                Output::Sums(Epilogue::Add) => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), values),
                Output::Sums(Epilogue::Store) | Output::Swiglu => values,
            };
            _mm512_mask_storeu_ps(to, mask, values);
        }
    }
}
