//! A few rows of x, w in bf16: rows of w are read from end to end, which is how memory is fastest, and pairs of numbers multiplied at
//! once (`vdpbf16ps`) with up to four rows of x.
//!
//! x is rounded as for the panels. A sum has four accumulators of 16 lanes, for every fourth piece of 32 columns, and runs over the
//! columns in order: its bits depend on the rounded row and on the row of w alone.

use super::{TILE_COLS, pack};
use crate::cpu::{Cpu, Isa, SharedMut};
use crate::ops::matmul::Epilogue;
use crate::{Result, RowBuf};
use half::bf16;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of x that a row of w is multiplied with at once: 16 accumulators.
const ROWS: usize = 4;

/// Pieces of 32 columns at once: as many as the instruction's latency needs with one row.
const PIECES: usize = 4;

/// Rows of w that stay in the second-level cache while all of x passes by.
const BLOCK_BYTES: usize = 256 << 10;

/// The proof that the CPU has AVX-512 F, BW and BF16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops::matmul) struct Lines(());

impl Lines {
    /// What `isa`, which `Isa::check` has let through, has.
    pub(in crate::ops::matmul) fn new(isa: Isa) -> Option<Self> {
        (isa >= Isa::Avx512Vnni && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }
}

/// The operation.
struct Job<'a> {
    out: SharedMut<'a, f32>, // [n_rows, n_outs]
    x: &'a [u8],             // [n_rows, cols] of bf16, rows padded with zeros to whole pieces
    n_rows: usize,
    w: &'a [bf16], // [n_outs, cols]
    n_outs: usize,
    cols: usize,
    epilogue: Epilogue,
}

pub(in crate::ops::matmul) fn run(
    cpu: &mut Cpu,
    _: Lines,
    out: &mut RowBuf<Vec<f32>>,
    x: &RowBuf<Vec<f32>>,
    w: &[bf16],
    epilogue: Epilogue,
) -> Result<()> {
    let (cols, n_outs) = (x.cols, out.cols);
    let mut scratch = std::mem::take(&mut cpu.scratch);
    let row_bytes = cols.next_multiple_of(TILE_COLS) * 2;
    let packed = scratch.get(x.rows * row_bytes)?;
    let to = SharedMut::new(&mut *packed);
    cpu.for_ranges(x.rows, 1 + 16_384 / cols, |rows| {
        for r in rows {
            // SAFETY: each row belongs to one task; `Lines` is the proof of AVX-512 F and BW.
            unsafe { pack::row(&x.buf[r * cols..][..cols], to.slice(r * row_bytes, row_bytes)) };
        }
    });
    let out = SharedMut::new(&mut out.buf);
    let job = Job { out, x: packed, n_rows: x.rows, w, n_outs, cols, epilogue };
    // A task of 128 K products takes a few microseconds, the price of handing it to another thread.
    cpu.for_ranges(n_outs, 1 + 131_072 / (cols * x.rows), |outs| {
        // SAFETY: `Lines` is the proof of the instructions.
        unsafe { job.outputs(outs) };
    });
    cpu.scratch = scratch;
    Ok(())
}

impl Job<'_> {
    /// The outputs `outs`, for all rows of x.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn outputs(&self, outs: Range<usize>) {
        let block = (BLOCK_BYTES / (self.cols * 2)).max(1);
        for first in outs.clone().step_by(block) {
            for row in (0..self.n_rows).step_by(ROWS) {
                for out in first..outs.end.min(first + block) {
                    match self.n_rows - row {
                        1 => self.output::<1>(row, out),
                        2 => self.output::<2>(row, out),
                        3 => self.output::<3>(row, out),
                        _ => self.output::<ROWS>(row, out),
                    }
                }
            }
        }
    }

    /// Output `out` of `N` rows from `row` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn output<const N: usize>(&self, row: usize, out: usize) {
        let stride = self.cols.next_multiple_of(TILE_COLS) * 2;
        let x = self.x[row * stride..][..N * stride].as_ptr();
        let w = &self.w[out * self.cols..][..self.cols];
        let mut sums = [[_mm512_setzero_ps(); PIECES]; N];
        let whole = self.cols - self.cols % (PIECES * TILE_COLS);
        for col in (0..whole).step_by(PIECES * TILE_COLS) {
            for piece in 0..PIECES {
                let col = col + piece * TILE_COLS;
                // SAFETY: 32 columns of w, and of each row of x.
                unsafe {
                    let w = _mm512_loadu_si512(w.as_ptr().add(col).cast());
                    add::<N>(&mut sums, piece, x.add(col * 2), stride, w);
                }
            }
        }
        for (piece, col) in (whole..self.cols).step_by(TILE_COLS).enumerate() {
            // SAFETY: the columns of the mask are in the row of w, others are not read; rows of x are padded.
            unsafe {
                let w = _mm512_maskz_loadu_epi16(pack::mask_of(self.cols - col), w.as_ptr().add(col).cast());
                add::<N>(&mut sums, piece, x.add(col * 2), stride, w);
            }
        }
        for (r, [a, b, c, d]) in sums.into_iter().enumerate() {
            let sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
            // SAFETY: this output belongs to this task alone.
            let to = unsafe { self.out.slice((row + r) * self.n_outs + out, 1) };
            match self.epilogue {
                Epilogue::Store => to[0] = sum,
                Epilogue::Add => to[0] += sum,
            }
        }
    }
}

/// Adds the products of 32 columns of w with `N` rows of x, `stride` bytes apart.
///
/// # Safety
/// 64 bytes of each row can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn add<const N: usize>(
    sums: &mut [[__m512; PIECES]; N],
    piece: usize,
    x: *const u8,
    stride: usize,
    w: __m512i,
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: as the caller vouches; both types are 64 bytes without a form of their own.
        unsafe {
            let x: __m512bh = std::mem::transmute(_mm512_loadu_si512(x.add(r * stride).cast()));
            sums[piece] = _mm512_dpbf16_ps(sums[piece], x, std::mem::transmute::<__m512i, __m512bh>(w));
        }
    }
}
