//! Sums to outputs, with AVX-512 F.

use super::{Job, PANEL, SUMS, TILE, Weights, pack};
use crate::ops::matmul::Epilogue;
use std::arch::x86_64::*;
use std::ops::Range;

impl Job<'_> {
    /// Sums `[outs][rows][2][2][16][16]` of panels to their places in the output: all outputs of 16 rows before the next rows.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW; nobody else touches these outputs.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn store(&self, rows: &Range<usize>, outs: &Range<usize>, sums: &[f32]) {
        for r in 0..2 * rows.len() {
            let row = rows.start * PANEL + r * TILE;
            let n_rows = self.packing.rows.saturating_sub(row).min(TILE);
            for o in 0..2 * outs.len() {
                let out = outs.start * PANEL + o * TILE;
                let n_outs = self.n_outs.saturating_sub(out).min(TILE);
                let block = &sums[(o / 2 * rows.len() + r / 2) * SUMS..][..SUMS];
                let tile = if self.outs_left() { o % 2 * 2 + r % 2 } else { r % 2 * 2 + o % 2 };
                let tile = &block[tile * TILE * TILE..][..TILE * TILE];
                if n_outs > 0 {
                    // SAFETY: as the caller vouches.
                    unsafe { self.store_tile(row, n_rows, out, n_outs, tile) };
                }
            }
        }
    }

    /// A tile of sums to rows `row..row + n_rows`, columns `out..out + n_outs`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store_tile(&self, row: usize, n_rows: usize, out: usize, n_outs: usize, tile: &[f32]) {
        let tile = tile.chunks_exact(TILE);
        // SAFETY: 16 numbers at each load; the outputs as the caller vouches.
        unsafe {
            match self.w {
                Weights::Quant(layout, bytes) => {
                    // Blocks are padded to 16 rows.
                    let scales = &bytes[layout.quants_bytes() + out * 4..][..TILE * 4];
                    let scales = _mm512_loadu_ps(scales.as_ptr().cast());
                    for (r, sums) in tile.enumerate().take(n_rows) {
                        let sums = _mm512_mul_ps(_mm512_loadu_ps(sums.as_ptr()), scales);
                        self.store_row(row + r, out, n_outs, sums);
                    }
                }
                Weights::Bf16(_) | Weights::F16(_) => {
                    let mut columns = [_mm512_setzero_si512(); TILE];
                    for (column, sums) in columns.iter_mut().zip(tile) {
                        *column = _mm512_loadu_si512(sums.as_ptr().cast());
                    }
                    pack::transpose(&mut columns);
                    for (r, &sums) in columns.iter().enumerate().take(n_rows) {
                        self.store_row(row + r, out, n_outs, _mm512_castsi512_ps(sums));
                    }
                }
            }
        }
    }

    /// `n_outs` sums of a row from column `out` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store_row(&self, row: usize, out: usize, n_outs: usize, sums: __m512) {
        let mask = ((1u32 << n_outs) - 1) as u16;
        // SAFETY: these outputs belong to this task alone; masked lanes are neither read nor written.
        unsafe {
            let to = self.out.slice(row * self.n_outs + out, n_outs).as_mut_ptr();
            let sums = match self.epilogue {
                Epilogue::Store => sums,
                Epilogue::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sums),
            };
            _mm512_mask_storeu_ps(to, mask, sums);
        }
    }
}
