//! Quantised weights times x rounded to 8 bits: products of whole numbers.
//!
//! ```text
//! x[r, c] ~ xs[r, G] * q[r, c]     G: groups of 32 columns, xs = largest |x| of the group / 127, q the nearest of -127..=127
//! out[r, o] = row_scale[o] * sum_G xs[r, G] * t[o, G]
//! t[o, G] = sum_g scale[o, g] * (sum_c stored[o, c] * q[r, c] - offset * sum_c q[r, c])      g: 1 (q8) or 2 (q4) groups of G
//! ```
//! The inner sums are whole numbers below 2^24. Their products with a scale are rounded once (q8) or not at all (q4), and
//! one accumulator runs over the groups in order: every instruction set has the bits of the twin in `scalar`, whatever the
//! number of rows and threads.
//!
//! A group of x with an infinite value or a NaN makes the row's outputs NaN. One whose values are all below 1e-36 counts as
//! zeros.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod pack;
mod scalar;
#[cfg(test)]
mod tests;

use super::Epilogue;
use crate::Result;
use crate::cpu::simd::{prefetch, prefetch_far};
use crate::cpu::{Cpu, Isa, SharedMut, dispatch};
use crate::quant::{BLOCK_ROWS, QuantLayout};
use crate::{RowBuf, WeightFormat};
use pack::{Pack, Packing};
use std::ops::Range;

/// Columns of x that share a scale.
const GROUP: usize = 32;

pub(super) fn run(
    cpu: &mut Cpu,
    out: &mut RowBuf<Vec<f32>>,
    x: &RowBuf<Vec<f32>>,
    layout: &QuantLayout,
    bytes: &[u8],
    epilogue: Epilogue,
) -> Result<()> {
    let mut scratch = std::mem::take(&mut cpu.scratch);
    let packing = Packing::new(layout, x.rows, max_tile_rows(cpu.isa(), layout.format));
    let packed = scratch.get(packing.size_bytes())?;
    let to = SharedMut::new(&mut *packed);
    cpu.for_ranges(packing.tiles(), 1 + 16_384 / (packing.tile_rows * x.cols), |tiles| {
        dispatch(cpu.isa(), Pack { packing, x: &x.buf, to, tiles });
    });
    let job = Job { out: SharedMut::new(&mut out.buf), x: packed, packing, layout, bytes, epilogue };
    // A task of 128 K products takes a few microseconds, the price of handing it to another thread.
    let grain = 1 + 131_072 / (BLOCK_ROWS * layout.cols * x.rows.max(1));
    cpu.for_ranges(layout.blocks(), grain, |blocks| enter(cpu.isa(), &job, blocks));
    cpu.scratch = scratch;
    Ok(())
}

/// Rows of x that a tile takes at most: as many as the registers hold.
fn max_tile_rows(isa: Isa, format: WeightFormat) -> usize {
    match (isa >= Isa::Avx512Vnni, format) {
        (true, WeightFormat::Q8) => 12, // a sum and an accumulator each, and a vector of weights: 25 of 32
        (true, _) => 8,                 // two sums and an accumulator each, two vectors of weights: 26
        (false, _) => 4,                // 4 sums, 4 accumulators, 4 vectors of weights: 12 of 16
    }
}

/// The operation.
pub(super) struct Job<'a> {
    out: SharedMut<'a, f32>, // [n_rows, layout.rows]
    x: &'a [u8],
    packing: Packing,
    layout: &'a QuantLayout,
    bytes: &'a [u8],
    epilogue: Epilogue,
}

/// One block of weights, 16 outputs.
#[derive(Clone, Copy)]
struct Block<'a> {
    quants: &'a [u8],
    scales: &'a [u8],     // [groups][16], i8
    row_scales: &'a [u8], // [16], f32
    q4: bool,
}

/// Tiles of outputs on one instruction set. Methods are `#[inline(always)]`, so that they are compiled for it.
trait Tiles: Copy {
    /// `ROWS` rows of x by 16 outputs: `x` is a tile of a [`Packing`] with `groups` groups; `next` is asked for meanwhile.
    fn tile<const ROWS: usize>(
        self,
        x: &[u8],
        groups: usize,
        w: Block<'_>,
        next: Next,
    ) -> [[f32; BLOCK_ROWS]; ROWS];
}

/// How far ahead quants are asked for: a third of a microsecond at 12 GB/s.
const PREFETCH_BYTES: usize = 4096;

/// Asks for the quants of a group further on.
#[inline(always)]
fn ask_ahead(quants: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        prefetch(quants.wrapping_add(PREFETCH_BYTES + line));
    }
}

/// What is to come into the second-level cache meanwhile: the x of the next tile, a few lines at each group. Two threads that
/// wait for the third level both lose a sixth of their time.
#[derive(Clone, Copy)]
struct Next {
    x: *const u8,
    lines: usize,
}

impl Next {
    /// Nothing: x stays where it is.
    const NONE: Next = Next { x: std::ptr::null(), lines: 0 };

    /// Asks for the lines of a group.
    #[inline(always)]
    fn ask(&mut self) {
        for _ in 0..self.lines {
            prefetch_far(self.x);
            self.x = self.x.wrapping_add(64);
        }
    }
}

/// The outputs of `blocks`.
fn enter(isa: Isa, job: &Job<'_>, blocks: Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::cpu::{Avx2, Avx512Vnni};
        if isa >= Isa::Avx512Vnni {
            let token = Avx512Vnni::new().expect("Isa::check found AVX-512 VNNI");
            // SAFETY: the token exists, so the CPU has AVX-512 F, BW, VL and VNNI.
            return unsafe { avx512::run(token, job, blocks) };
        }
        if isa >= Isa::Avx2 {
            let token = Avx2::new().expect("Isa::check found AVX2");
            // SAFETY: the token exists, so the CPU has AVX2 and FMA.
            return unsafe { avx2::run(token, job, blocks) };
        }
    }
    let _ = isa;
    job.run(scalar::Twin, blocks);
}

impl Job<'_> {
    /// For a panel of blocks that stays in the second-level cache, all of x passes by, tile after tile.
    #[inline(always)]
    fn run<T: Tiles>(&self, t: T, blocks: Range<usize>) {
        const PANEL_BYTES: usize = 256 << 10;
        let panel = (PANEL_BYTES / self.layout.block_bytes().max(1)).max(1);
        let tiles = self.packing.tiles();
        for first in blocks.clone().step_by(panel) {
            let panel = first..blocks.end.min(first + panel);
            for tile in 0..tiles {
                for block in panel.clone() {
                    let next = match tiles {
                        1 => Next::NONE,
                        _ => self.next((tile + 1) % tiles, block - first, panel.len()),
                    };
                    match self.packing.rows_of(tile) {
                        1 => self.tile::<T, 1>(t, tile, block, next),
                        2 => self.tile::<T, 2>(t, tile, block, next),
                        3 => self.tile::<T, 3>(t, tile, block, next),
                        4 => self.tile::<T, 4>(t, tile, block, next),
                        5 => self.tile::<T, 5>(t, tile, block, next),
                        6 => self.tile::<T, 6>(t, tile, block, next),
                        7 => self.tile::<T, 7>(t, tile, block, next),
                        8 => self.tile::<T, 8>(t, tile, block, next),
                        9 => self.tile::<T, 9>(t, tile, block, next),
                        10 => self.tile::<T, 10>(t, tile, block, next),
                        11 => self.tile::<T, 11>(t, tile, block, next),
                        _ => self.tile::<T, 12>(t, tile, block, next),
                    }
                }
            }
        }
    }

    /// Part `i` of `n` of a tile's x.
    fn next(&self, tile: usize, i: usize, n: usize) -> Next {
        let lines = self.packing.tile_rows * self.packing.row_bytes() / 64 / n;
        let x = self.x.as_ptr().wrapping_add(self.packing.tile_at(tile) + i * lines * 64);
        Next { x, lines: lines.div_ceil(self.packing.groups) }
    }

    #[inline(always)]
    fn tile<T: Tiles, const ROWS: usize>(&self, t: T, tile: usize, block: usize, next: Next) {
        let layout = self.layout;
        let part = |at: usize, len: usize| &self.bytes[at + block * len..][..len];
        let w = Block {
            quants: part(0, layout.block_bytes()),
            scales: part(layout.scales_at(), layout.block_scales()),
            row_scales: part(layout.quants_bytes(), BLOCK_ROWS * 4),
            q4: layout.format == WeightFormat::Q4,
        };
        let x = &self.x[self.packing.tile_at(tile)..][..ROWS * self.packing.row_bytes()];
        let sums = t.tile::<ROWS>(x, self.packing.groups, w, next);
        let n = BLOCK_ROWS.min(layout.rows - block * BLOCK_ROWS);
        for (r, sums) in sums.iter().enumerate() {
            let at = (tile * self.packing.tile_rows + r) * layout.rows + block * BLOCK_ROWS;
            // SAFETY: these outputs belong to this task alone.
            let to = unsafe { self.out.slice(at, n) };
            match self.epilogue {
                Epilogue::Store => to.copy_from_slice(&sums[..n]),
                Epilogue::Add => to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum),
            }
        }
    }
}
