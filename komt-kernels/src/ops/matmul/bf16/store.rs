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
                let mut values = [_mm512_setzero_si512(); TILE];
                for (value, from) in values.iter_mut().zip(tile.chunks_exact(TILE)) {
                    // SAFETY: 16 numbers.
                    *value = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
                }
                if self.outs_left() {
                    pack::transpose(&mut values);
                }
                // SAFETY: as the caller vouches.
                unsafe { self.store_tile(row, n_rows, out, n_outs, &values) };
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store_tile(
        &self,
        row: usize,
        n_rows: usize,
        out: usize,
        n_outs: usize,
        values: &[__m512i; TILE],
    ) {
        let mask = ((1u32 << n_outs) - 1) as u16;
        let mut scale = _mm512_set1_ps(1.0);
        if let (Weights::Quant(layout, bytes), 1..) = (self.w, n_outs) {
            let scales = &bytes[layout.quants_bytes() + out * 4..][..TILE * 4];
            // SAFETY: 16 numbers: blocks are padded to 16 rows.
            scale = unsafe { _mm512_loadu_ps(scales.as_ptr().cast()) };
        }
        for (r, &value) in values.iter().enumerate().take(n_rows) {
            let sum = _mm512_mul_ps(_mm512_castsi512_ps(value), scale);
            // SAFETY: these outputs belong to this task alone; masked lanes are neither read nor written.
            unsafe {
                let to = self.out.slice((row + r) * self.n_outs + out.min(self.n_outs), n_outs).as_mut_ptr();
                let sum = match self.epilogue {
                    Epilogue::Store => sum,
                    Epilogue::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sum),
                };
                _mm512_mask_storeu_ps(to, mask, sum);
            }
        }
    }
}
