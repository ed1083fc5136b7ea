//! x, rounded to 8 bits, in the order in which the tiles read it.

use super::GROUP;
use crate::cpu::simd::Simd;
use crate::cpu::{Kernel, SharedMut};
use crate::quant::QuantLayout;
use std::ops::Range;

/// Where the rounded x lies. Rows are in tiles; a tile of n rows has for each group of 32 columns
///
/// ```text
/// quants [8][n][4] i8       columns 4 k .. 4 k + 4 of all rows, for k = 0 .. 8
/// starts [1 or 2][n] i32    -offset * sum of the quants, for each group of the weights
/// scales [n] f32
/// ```
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    pub n_rows: usize,
    /// Rows of a tile; the last may have fewer.
    pub tile_rows: usize,
    /// Columns of x.
    pub cols: usize,
    /// Groups of 32 columns.
    pub groups: usize,
    /// Groups of the weights in one of x.
    pub parts: usize,
    offset: i32,
}

impl Packing {
    /// Tiles of at most `max_rows`, all about the same size.
    pub fn new(layout: &QuantLayout, n_rows: usize, max_rows: usize) -> Self {
        let tiles = n_rows.div_ceil(max_rows).max(1);
        Self {
            n_rows,
            tile_rows: n_rows.div_ceil(tiles).max(1),
            cols: layout.cols,
            groups: layout.padded_cols() / GROUP,
            parts: GROUP / layout.group(),
            offset: i32::from(layout.offset()),
        }
    }

    pub fn tiles(&self) -> usize {
        self.n_rows.div_ceil(self.tile_rows)
    }

    pub fn rows_of(&self, tile: usize) -> usize {
        self.tile_rows.min(self.n_rows - tile * self.tile_rows)
    }

    /// Bytes of a row, in all its groups.
    pub fn row_bytes(&self) -> usize {
        self.groups * group_bytes(self.parts)
    }

    pub fn tile_at(&self, tile: usize) -> usize {
        tile * self.tile_rows * self.row_bytes()
    }

    pub fn size_bytes(&self) -> usize {
        self.n_rows * self.row_bytes()
    }
}

/// Bytes of a row's group: quants, `parts` starts, scale.
pub(super) const fn group_bytes(parts: usize) -> usize {
    GROUP + 4 * parts + 4
}

/// Rounds the rows of `tiles`.
pub(super) struct Pack<'a> {
    pub packing: Packing,
    pub x: &'a [f32],
    pub to: SharedMut<'a, u8>,
    pub tiles: Range<usize>,
}

impl Kernel for Pack<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for tile in self.tiles.clone() {
            let n = self.packing.rows_of(tile);
            // SAFETY: this tile belongs to this task alone.
            let to = unsafe { self.to.slice(self.packing.tile_at(tile), n * self.packing.row_bytes()) };
            for r in 0..n {
                let x =
                    &self.x[(tile * self.packing.tile_rows + r) * self.packing.cols..][..self.packing.cols];
                self.row(x, r, n, to);
            }
        }
    }
}

impl Pack<'_> {
    /// Row `r` of a tile of `n`.
    #[inline(always)]
    fn row(&self, x: &[f32], r: usize, n: usize, to: &mut [u8]) {
        let parts = self.packing.parts;
        for (x, to) in x.chunks(GROUP).zip(to.chunks_exact_mut(n * group_bytes(parts))) {
            let (quants, scale) = match x.try_into() {
                Ok(x) => round_group(x),
                Err(_) => {
                    let mut padded = [0.0; GROUP];
                    padded[..x.len()].copy_from_slice(x);
                    round_group(&padded)
                }
            };
            for k in 0..GROUP / 4 {
                to[(k * n + r) * 4..][..4].copy_from_slice(bytemuck::cast_slice(&quants[k * 4..][..4]));
            }
            let size = GROUP / parts;
            for part in 0..parts {
                let mut sum = 0;
                for &q in &quants[part * size..][..size] {
                    sum += i32::from(q);
                }
                let start = -self.packing.offset * sum;
                to[n * GROUP + (part * n + r) * 4..][..4].copy_from_slice(&start.to_le_bytes());
            }
            to[n * (GROUP + 4 * parts) + r * 4..][..4].copy_from_slice(&scale.to_le_bytes());
        }
    }
}

/// The whole numbers of a group and their scale; a NaN as the scale of a group that is not finite. Plain loops: what a closure holds
/// is compiled for no instruction set, and rounding is then a call for each number.
#[inline(always)]
pub(super) fn round_group(x: &[f32; GROUP]) -> ([i8; GROUP], f32) {
    /// 127 over anything smaller may be infinite.
    const SMALLEST: f32 = 1e-36;
    /// 1.5 * 2^23: added to a number below 2^22 it leaves the nearest whole one, ties to even, in the lower bits.
    const MAGIC: f32 = 12_582_912.0;
    // Without their signs, bits of floats are ordered as whole numbers: numbers, infinity, NaN.
    let mut largest = 0;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return ([0; GROUP], f32::NAN);
    }
    if largest < SMALLEST {
        return ([0; GROUP], 0.0);
    }
    let inverse = 127.0 / largest;
    let mut quants = [0; GROUP];
    for (q, x) in quants.iter_mut().zip(x) {
        *q = (x * inverse + MAGIC).to_bits() as i8;
    }
    (quants, largest / 127.0)
}
