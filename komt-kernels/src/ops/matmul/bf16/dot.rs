//! Dot products of pairs, `vdpbf16ps`: 8 rows of the left side at a time, each pair broadcast, by 32 of the right one.

use super::{Left, PANEL, TILE, TILE_BYTES};
use std::arch::x86_64::*;

/// Rows of the left side whose sums are in registers: with two vectors each, 16 accumulators, more than the instruction's
/// latency needs, and 10 loads for 16 products.
const ROWS: usize = 8;

/// As `amx::multiply`.
///
/// # Safety
/// The CPU has AVX-512-BF16; `left` and `right` have `n` steps, `c` has `SUMS` numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn multiply(left: Left, right: *const u8, c: *mut f32, n: usize, first: bool) {
    for row in (0..PANEL).step_by(ROWS) {
        let from = if row < TILE { left.first } else { left.second };
        // SAFETY: rows of the tiles that the caller vouches for; their sums lie in tiles of 1 KiB, two for 16 rows.
        unsafe {
            let a = from.add(row % TILE * left.stride);
            let c = c.add(row / TILE * 2 * (TILE_BYTES / 4) + row % TILE * TILE);
            rows(a, left, right, c, n, first);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn rows(a: *const u8, left: Left, right: *const u8, c: *mut f32, n: usize, first: bool) {
    const NEXT: usize = TILE_BYTES / 4; // numbers to the sums of the second right tile
    // SAFETY: as the caller vouches.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        if !first {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm512_loadu_ps(c.add(r * TILE)), _mm512_loadu_ps(c.add(NEXT + r * TILE))];
            }
        }
        for step in 0..n {
            let (a, b) = (a.add(step * left.step), right.add(step * 2 * TILE_BYTES));
            for pair in 0..TILE {
                let b0: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.add(pair * 64).cast()));
                let b1: __m512bh =
                    std::mem::transmute(_mm512_loadu_si512(b.add(TILE_BYTES + pair * 64).cast()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let two = a.add(r * left.stride + pair * 4).cast::<i32>().read_unaligned();
                    let two: __m512bh = std::mem::transmute(_mm512_set1_epi32(two));
                    sums[0] = _mm512_dpbf16_ps(sums[0], two, b0);
                    sums[1] = _mm512_dpbf16_ps(sums[1], two, b1);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(c.add(r * TILE), sums[0]);
            _mm512_storeu_ps(c.add(NEXT + r * TILE), sums[1]);
        }
    }
}
