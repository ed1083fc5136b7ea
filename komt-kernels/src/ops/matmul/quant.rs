use super::Epilogue;
use crate::WeightFormat;
use crate::cpu::simd::Simd;
use crate::cpu::{Kernel, SharedMut};
use crate::quant::{BLOCK_ROWS, QuantLayout};
use std::ops::Range;

/// Columns that are multiplied together: x is padded to a multiple of them.
const STEP: usize = 32;

/// The outputs of `blocks`, for all rows of x, which stays in f32. A lane is an output: weights are widened as they come,
/// to whole numbers, and each group's sum is multiplied by its scale. The order of the sums depends on nothing else.
pub(super) struct MatmulQuant<'a> {
    pub out: SharedMut<'a, f32>, // [n_rows, layout.rows]
    pub x: &'a [f32],            // [n_rows, layout.cols]
    pub n_rows: usize,
    pub layout: QuantLayout,
    pub bytes: &'a [u8],
    pub blocks: Range<usize>,
    pub epilogue: Epilogue,
}

impl Kernel for MatmulQuant<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for block in self.blocks.clone() {
            let mut row = 0;
            while row < self.n_rows {
                let n = (self.n_rows - row).min(S::TILE_ROWS);
                for half in (0..BLOCK_ROWS).step_by(S::LANES) {
                    match n {
                        5 => self.tile::<S, 5>(s, row, block, half),
                        4 => self.tile::<S, 4>(s, row, block, half),
                        3 => self.tile::<S, 3>(s, row, block, half),
                        2 => self.tile::<S, 2>(s, row, block, half),
                        _ => self.tile::<S, 1>(s, row, block, half),
                    }
                }
                row += n;
            }
        }
    }
}

impl MatmulQuant<'_> {
    /// `ROWS` rows by the outputs of the block from `first` on, one vector of them.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&self, s: S, row: usize, block: usize, first: usize) {
        let (layout, cols) = (&self.layout, self.layout.cols);
        let part = |at: usize, len: usize| &self.bytes[at + block * len..][..len];
        let quants = part(0, layout.block_bytes());
        let scales = part(layout.scales_at(), layout.block_scales());
        let x = &self.x[row * cols..][..ROWS * cols];
        let mut acc = [s.splat(0.0); ROWS];
        let n_full = cols / STEP;
        for step in 0..n_full {
            // SAFETY: 32 columns from there on, in each of the rows of the slice.
            unsafe {
                self.step(s, &mut acc, x.as_ptr().add(step * STEP), cols, quants, scales, step, first);
            }
        }
        if n_full * STEP < cols {
            let mut padded = [[0.0; STEP]; ROWS];
            for (r, padded) in padded.iter_mut().enumerate() {
                padded[..cols % STEP].copy_from_slice(&x[r * cols + n_full * STEP..][..cols % STEP]);
            }
            // SAFETY: 32 columns in each of the rows of the padded copy.
            unsafe { self.step(s, &mut acc, padded.as_ptr().cast(), STEP, quants, scales, n_full, first) };
        }
        self.store(s, acc, row, block, first);
    }

    /// Adds the products of 32 columns. Rows of x are `stride` apart.
    ///
    /// # Safety
    /// `ROWS` rows of 32 columns can be read from x.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // A struct for them would be passed through memory.
    unsafe fn step<S: Simd, const ROWS: usize>(
        &self,
        s: S,
        acc: &mut [S::V; ROWS],
        x: *const f32,
        stride: usize,
        quants: &[u8],
        scales: &[u8],
        step: usize,
        first: usize,
    ) {
        let group = self.layout.group();
        let step_bytes = STEP / self.layout.chunk_cols() * 4 * BLOCK_ROWS;
        let quants = &quants[step * step_bytes..][..step_bytes];
        let scales = &scales[step * (STEP / group) * BLOCK_ROWS..][..STEP / group * BLOCK_ROWS];
        for g in 0..STEP / group {
            // One accumulator for each of the four columns that lie together.
            let mut sums = [[s.splat(0.0); 4]; ROWS];
            for four in g * group / 4..(g + 1) * group / 4 {
                // SAFETY: within a step's quants: 4 bytes of each of LANES outputs from `first` on.
                let weights = unsafe { self.four(s, quants.as_ptr().add(first * 4), four) };
                for (r, sums) in sums.iter_mut().enumerate() {
                    for j in 0..4 {
                        // SAFETY: column 4 * four + j < 32 of row r.
                        let x = s.splat(unsafe { *x.add(r * stride + four * 4 + j) });
                        sums[j] = s.mul_add(weights[j], x, sums[j]);
                    }
                }
            }
            // SAFETY: within a step's scales: those of LANES outputs from `first` on.
            let scale = unsafe { s.load_i8(scales.as_ptr().add(g * BLOCK_ROWS + first).cast()) };
            for (acc, sums) in acc.iter_mut().zip(&sums) {
                let sum = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
                *acc = s.mul_add(sum, scale, *acc);
            }
        }
    }

    // No closures here, nor in the vector operations: `array::map` does not always inline them, and what it calls is compiled
    // for no instruction set at all (q8 at 16 rows: 44 instead of 300 GOP/s).

    /// Four columns of LANES outputs, as whole numbers: column j is byte j of a word, in q4 half a byte. Flipping its upper
    /// bit takes off the offset, where the field is read with its sign.
    ///
    /// # Safety
    /// `quants` are those of a step, and `four < 8`.
    #[inline(always)]
    unsafe fn four<S: Simd>(&self, s: S, quants: *const u8, four: usize) -> [S::V; 4] {
        const WORDS: usize = 4 * BLOCK_ROWS;
        // SAFETY: the 8 (q8) or 4 (q4) vectors of a step.
        unsafe {
            if self.layout.format == WeightFormat::Q8 {
                let bits = s.load_bits(quants.add(four * WORDS), 0x8080_8080);
                [s.field(bits, 24, 24), s.field(bits, 16, 24), s.field(bits, 8, 24), s.field(bits, 0, 24)]
            } else {
                let bits = s.load_bits(quants.add(four / 2 * WORDS), 0x8888_8888);
                if four.is_multiple_of(2) {
                    [
                        s.field(bits, 28, 28),
                        s.field(bits, 20, 28),
                        s.field(bits, 12, 28),
                        s.field(bits, 4, 28),
                    ]
                } else {
                    [s.field(bits, 24, 28), s.field(bits, 16, 28), s.field(bits, 8, 28), s.field(bits, 0, 28)]
                }
            }
        }
    }

    #[inline(always)]
    fn store<S: Simd, const ROWS: usize>(
        &self,
        s: S,
        acc: [S::V; ROWS],
        row: usize,
        block: usize,
        first: usize,
    ) {
        let n_outs = self.layout.rows;
        let at = block * BLOCK_ROWS + first;
        let n = n_outs.saturating_sub(at).min(S::LANES);
        let row_scales = &self.bytes[self.layout.quants_bytes() + at * 4..][..S::LANES * 4];
        for (r, acc) in acc.into_iter().enumerate() {
            let mut sums = [0.0; BLOCK_ROWS];
            // SAFETY: LANES scales, and room for LANES <= 16 sums.
            unsafe { s.store(sums.as_mut_ptr(), s.mul(acc, s.load(row_scales.as_ptr().cast()))) };
            // SAFETY: these outputs belong to this task alone.
            let to = unsafe { self.out.slice((row + r) * n_outs + at.min(n_outs), n) };
            match self.epilogue {
                Epilogue::Store => to.copy_from_slice(&sums[..n]),
                Epilogue::Add => to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum),
            }
        }
    }
}
