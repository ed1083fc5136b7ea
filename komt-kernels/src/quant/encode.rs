//! The same as `scalar::encode_block` with a row in each lane: the same operations in the same order, none of them fused, so that
//! the bytes are the same on every instruction set.

use super::scalar::unit;
use super::{BLOCK_ROWS, QuantLayout};
use crate::WeightFormat;
use crate::cpu::Kernel;
use crate::cpu::simd::Simd;

/// Columns of the longest group.
const MAX_GROUP: usize = 32;

/// Encodes `rows [n <= 16][cols]` to a block's quants, row scales and scales.
pub(crate) struct EncodeBlock<'a> {
    pub layout: &'a QuantLayout,
    pub rows: &'a [f32],
    pub quants: &'a mut [u8],
    pub row_scales: &'a mut [f32],
    pub scales: &'a mut [u8],
}

impl Kernel for EncodeBlock<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let cols = self.layout.cols;
        let mut inverse = [0f32; BLOCK_ROWS]; // of each row's unit; 0 for rows that are not there
        for (r, row) in self.rows.chunks_exact(cols).enumerate() {
            (self.row_scales[r], inverse[r]) = unit(self.layout, row);
        }
        let group = self.layout.group();
        for g in 0..self.layout.padded_cols() / group {
            for first in (0..BLOCK_ROWS).step_by(S::LANES) {
                if self.layout.format == WeightFormat::Q8 {
                    self.group::<S, true>(s, g, first, &inverse);
                } else {
                    self.group::<S, false>(s, g, first, &inverse);
                }
            }
        }
    }
}

impl EncodeBlock<'_> {
    /// Group `g` of LANES rows from `first` on.
    #[inline(always)]
    fn group<S: Simd, const Q8: bool>(&mut self, s: S, g: usize, first: usize, inverse: &[f32; BLOCK_ROWS]) {
        let n = if Q8 { 32 } else { 16 };
        let y = self.columns::<S>(s, g * n, n, first, inverse);
        let scale = best_scale::<S, Q8>(s, &y[..n]);
        let one_over = s.select_less(s.abs(scale), s.splat(0.5), s.splat(0.0), s.div(s.splat(1.0), scale));
        let (low, high, offset) = if Q8 { (-127.0, 127.0, 128.0) } else { (-8.0, 7.0, 8.0) };
        let mut stored = [[0f32; 16]; MAX_GROUP];
        for (y, stored) in y[..n].iter().zip(&mut stored) {
            let q = s.clamp(s.round(s.mul(*y, one_over)), low, high);
            // SAFETY: room for 16 >= LANES numbers.
            unsafe { s.store(stored.as_mut_ptr(), s.add(q, s.splat(offset))) };
        }
        let mut scales = [0f32; 16];
        // SAFETY: as above.
        unsafe { s.store(scales.as_mut_ptr(), scale) };
        let at = g * BLOCK_ROWS + first;
        for (to, scale) in self.scales[at..at + S::LANES].iter_mut().zip(scales) {
            *to = scale as i8 as u8;
        }
        self.write::<Q8>(g, first, S::LANES, &stored);
    }

    /// The quants of a group: numbers 4 k .. 4 k + 4 of a row lie together, in q4 with the next four in the upper halves.
    #[inline(always)]
    fn write<const Q8: bool>(
        &mut self,
        g: usize,
        first: usize,
        lanes: usize,
        stored: &[[f32; 16]; MAX_GROUP],
    ) {
        let chunk = if Q8 { 4 } else { 8 };
        let n = if Q8 { 32 } else { 16 };
        for (k, columns) in stored[..n].chunks_exact(chunk).enumerate() {
            let at = ((g * n / chunk + k) * BLOCK_ROWS + first) * 4;
            let to = &mut self.quants[at..at + lanes * 4];
            for (lane, to) in to.chunks_exact_mut(4).enumerate() {
                let mut word = 0u32;
                for (j, column) in columns.iter().enumerate() {
                    let shift = if Q8 { 8 * j } else { 8 * (j % 4) + j / 4 * 4 };
                    word |= (column[lane] as i32 as u32) << shift;
                }
                to.copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// `n` columns from `col` on, each a vector of rows, in their units; zeros beyond the matrix.
    #[inline(always)]
    fn columns<S: Simd>(
        &self,
        s: S,
        col: usize,
        n: usize,
        first: usize,
        inverse: &[f32; BLOCK_ROWS],
    ) -> [S::V; MAX_GROUP] {
        let cols = self.layout.cols;
        let mut numbers = [[0f32; 16]; MAX_GROUP];
        for (lane, row) in self.rows.chunks_exact(cols).skip(first).take(S::LANES).enumerate() {
            for (to, &x) in numbers.iter_mut().zip(&row[col.min(cols)..cols.min(col + n)]) {
                to[lane] = x;
            }
        }
        let mut y = [s.splat(0.0); MAX_GROUP];
        // SAFETY: LANES inverses from `first` on.
        let inverse = unsafe { s.load(inverse.as_ptr().add(first)) };
        for (y, numbers) in y.iter_mut().zip(&numbers) {
            // SAFETY: 16 >= LANES numbers.
            *y = s.mul(unsafe { s.load(numbers.as_ptr()) }, inverse);
        }
        y
    }
}

/// Each lane's scale with the least sum of squared errors, of the candidates that the twin tries.
#[inline(always)]
fn best_scale<S: Simd, const Q8: bool>(s: S, y: &[S::V]) -> S::V {
    let mut largest = s.splat(0.0);
    for &y in y {
        let size = s.abs(y);
        largest = s.select_less(largest, size, size, largest);
    }
    let (from, to, steps) = if Q8 { (0.9, 1.1, 127.0) } else { (0.75, 1.3, 8.0) };
    let whole = s.mul(largest, s.splat(1.0 / steps));
    let from = s.clamp(s.round(s.add(s.mul(whole, s.splat(from)), s.splat(-0.5))), 0.0, 127.0);
    let to = s.clamp(s.round(s.add(s.mul(whole, s.splat(to)), s.splat(0.5))), 0.0, 127.0);
    let mut n = [0f32; 16];
    // SAFETY: room for 16 >= LANES numbers.
    unsafe { s.store(n.as_mut_ptr(), s.add(to, s.mul(from, s.splat(-1.0)))) };
    let n = n.iter().fold(0f32, |m, n| m.max(*n)) as u32;
    let (mut best, mut least) = (s.splat(0.0), s.splat(f32::INFINITY));
    for k in 0..=n {
        let scale = s.add(from, s.splat(k as f32));
        let scale = s.select_less(scale, to, scale, to);
        let one_over = s.select_less(scale, s.splat(0.5), s.splat(0.0), s.div(s.splat(1.0), scale));
        let minus = s.mul(scale, s.splat(-1.0));
        let (mut above, mut below) = (s.splat(0.0), s.splat(0.0)); // errors with the longer side below zero, and above
        for &y in y {
            let q = s.round(s.mul(y, one_over));
            // The product of two whole numbers is exact: fused or not is the same.
            let error = |low, high| s.mul_add(minus, s.clamp(q, low, high), y);
            if Q8 {
                let e = error(-127.0, 127.0);
                above = s.add(above, s.mul(e, e));
            } else {
                let (a, b) = (error(-8.0, 7.0), error(-7.0, 8.0));
                above = s.add(above, s.mul(a, a));
                below = s.add(below, s.mul(b, b));
            }
        }
        best = s.select_less(above, least, scale, best);
        least = s.select_less(above, least, above, least);
        if !Q8 {
            best = s.select_less(below, least, minus, best);
            least = s.select_less(below, least, below, least);
        }
    }
    best
}
