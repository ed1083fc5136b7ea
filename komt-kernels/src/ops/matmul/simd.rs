use super::Epilogue;
use crate::cpu::simd::{Simd, Stored, load_at, prefetch};
use crate::cpu::{Kernel, SharedMut};
use std::ops::Range;

/// Rows of `w` in a tile: with `Simd::TILE_ROWS` rows of x it fills the registers with accumulators.
pub(super) const TILE_OUTS: usize = 4;

/// Rows of x up to which weights are asked for before they are needed: with more, there is time enough for them to come.
const MAX_PREFETCH_ROWS: usize = 2;

/// Columns of rows that are over before the processor has noticed that it reads one after the other.
const MAX_SHORT_COLS: usize = 2048;

/// How far ahead columns of longer rows are asked for.
const AHEAD_COLS: usize = 512;

/// Rows of `w` that stay in the second-level cache (64 rows of 4,096 bf16: 512 KiB) while all of x passes by.
const BLOCK_OUTS: usize = 64;

/// The outputs `outs` of the operation, for all rows of x.
///
/// Every output has one accumulator a lane that runs over the columns in order, and one sum at the end: the tile that
/// computes it does not change its bits.
pub(super) struct Matmul<'a, T> {
    pub out: SharedMut<'a, f32>, // [n_rows, n_outs]
    pub x: &'a [f32],            // [n_rows, cols]
    pub n_rows: usize,
    pub w: &'a [T], // [n_outs, cols]
    pub n_outs: usize,
    pub cols: usize,
    pub outs: Range<usize>,
    pub epilogue: Epilogue,
}

impl<T: Stored> Kernel for Matmul<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for block in self.outs.clone().step_by(BLOCK_OUTS) {
            let block_end = self.outs.end.min(block + BLOCK_OUTS);
            let mut row = 0;
            while row < self.n_rows {
                let n = (self.n_rows - row).min(S::TILE_ROWS);
                let mut out = block;
                while out < block_end {
                    let left = block_end - out;
                    match n {
                        5 => self.tiles::<S, 5>(s, row, out, left),
                        4 => self.tiles::<S, 4>(s, row, out, left),
                        3 => self.tiles::<S, 3>(s, row, out, left),
                        2 => self.tiles::<S, 2>(s, row, out, left),
                        _ => self.tiles::<S, 1>(s, row, out, left),
                    }
                    out += TILE_OUTS;
                }
                row += n;
            }
        }
    }
}

impl<T: Stored> Matmul<'_, T> {
    /// A tile of `TILE_OUTS` outputs, or single ones where fewer are left.
    #[inline(always)]
    fn tiles<S: Simd, const ROWS: usize>(&self, s: S, row: usize, out: usize, left: usize) {
        if left >= TILE_OUTS {
            self.tile::<S, ROWS, TILE_OUTS>(s, row, out);
        } else {
            for out in out..out + left {
                self.tile::<S, ROWS, 1>(s, row, out);
            }
        }
    }

    /// `ROWS x OUTS` dot products at once: every vector of w is loaded and widened once for all rows.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const OUTS: usize>(&self, s: S, row: usize, out: usize) {
        let cols = self.cols;
        let x = self.x[row * cols..][..ROWS * cols].as_ptr();
        let w = self.w[out * cols..][..OUTS * cols].as_ptr();
        let mut acc = [[s.splat(0.0); OUTS]; ROWS];
        let n_full = cols - cols % S::LANES;
        // The row of the next tile; of long rows, a part that is soon needed.
        let ahead = if cols <= MAX_SHORT_COLS { OUTS * cols } else { AHEAD_COLS };
        let mut c = 0;
        while c < n_full {
            if ROWS <= MAX_PREFETCH_ROWS {
                for o in 0..OUTS {
                    prefetch(w.wrapping_add(o * cols + ahead + c));
                }
            }
            // SAFETY: LANES columns from `c` on, in each of the rows of the slices taken above.
            unsafe { columns(s, &mut acc, x.add(c), w.add(c), cols, S::LANES) };
            c += S::LANES;
        }
        // The tail stands outside of the loop: its copy would drive the accumulators out of the registers.
        if c < cols {
            // SAFETY: the same for the `cols - c` columns that are left.
            unsafe { columns(s, &mut acc, x.add(c), w.add(c), cols, cols - c) };
        }
        for (r, acc) in acc.iter().enumerate() {
            // SAFETY: these outputs belong to this task alone.
            let to = unsafe { self.out.slice((row + r) * self.n_outs + out, OUTS) };
            for o in 0..OUTS {
                let sum = s.sum(acc[o]);
                match self.epilogue {
                    Epilogue::Store => to[o] = sum,
                    Epilogue::Add => to[o] += sum,
                }
            }
        }
    }
}

/// Adds the products of `left` columns (a vector of them, or the tail) to the accumulators. Rows are `cols` apart.
///
/// # Safety
/// `left` values can be read from `ROWS` rows of `x` and `OUTS` rows of `w`.
#[inline(always)]
unsafe fn columns<S: Simd, T: Stored, const ROWS: usize, const OUTS: usize>(
    s: S,
    acc: &mut [[S::V; OUTS]; ROWS],
    x: *const f32,
    w: *const T,
    cols: usize,
    left: usize,
) {
    let mut weights = [s.splat(0.0); OUTS];
    for (o, weight) in weights.iter_mut().enumerate() {
        // SAFETY: as the caller vouches.
        *weight = unsafe { load_at(s, w.add(o * cols), left) };
    }
    for (r, acc) in acc.iter_mut().enumerate() {
        // SAFETY: as the caller vouches.
        let x = unsafe { load_at(s, x.add(r * cols), left) };
        for o in 0..OUTS {
            acc[o] = s.mul_add(x, weights[o], acc[o]);
        }
    }
}
