//! Operands into tiles, with AVX-512 F and BW.

use super::{Job, PANEL, Packing, TILE, TILE_BYTES, TILE_COLS, Weights};
use crate::WeightFormat;
use crate::quant::QuantLayout;
use std::arch::x86_64::*;

/// The bits of `left` columns, at most 32.
pub(super) fn mask_of(left: usize) -> u32 {
    if left >= TILE_COLS { u32::MAX } else { (1 << left) - 1 }
}

/// 16 numbers to nearest bf16, ties to even, in the upper halves; a NaN stays one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn round(v: __m512) -> __m512i {
    let bits = _mm512_castps_si512(v);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
    _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000))
}

/// The upper halves of 32 lanes, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn upper_halves(a: __m512i, b: __m512i) -> __m512i {
    // Words 1, 3, .. of a, then of b (from word 32 on).
    const ODD: [u16; 32] = {
        let mut words = [0; 32];
        let mut i = 0;
        while i < 32 {
            words[i] = 2 * i as u16 + 1;
            i += 1;
        }
        words
    };
    // SAFETY: 64 bytes.
    let odd = unsafe { _mm512_loadu_si512(ODD.as_ptr().cast()) };
    _mm512_permutex2var_epi16(a, odd, b)
}

/// `left` numbers (at most 32) and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_f32(from: *const f32, left: usize) -> __m512i {
    let mask = mask_of(left);
    // SAFETY: as the caller vouches: masked lanes are not read.
    let (a, b) = unsafe {
        (
            _mm512_maskz_loadu_ps(mask as u16, from),
            _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16)),
        )
    };
    upper_halves(round(a), round(b))
}

/// A row of x, rounded, and zeros to the end of `to`.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn row(x: &[f32], to: &mut [u8]) {
    for (x, to) in x.chunks(TILE_COLS).zip(to.chunks_exact_mut(2 * TILE_COLS)) {
        // SAFETY: as many numbers as are left; 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), load_f32(x.as_ptr(), x.len())) };
    }
}

/// 16 x 16 numbers of 32 bits with rows and columns exchanged.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn transpose(m: &mut [__m512i; TILE]) {
    // Lane L of 128 bits of `quads[4 g + j]` has column 4 L + j of rows 4 g to 4 g + 3.
    let mut quads = *m;
    for g in (0..TILE).step_by(4) {
        let (a, b) = (_mm512_unpacklo_epi32(m[g], m[g + 1]), _mm512_unpackhi_epi32(m[g], m[g + 1]));
        let (c, d) = (_mm512_unpacklo_epi32(m[g + 2], m[g + 3]), _mm512_unpackhi_epi32(m[g + 2], m[g + 3]));
        quads[g] = _mm512_unpacklo_epi64(a, c);
        quads[g + 1] = _mm512_unpackhi_epi64(a, c);
        quads[g + 2] = _mm512_unpacklo_epi64(b, d);
        quads[g + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for j in 0..4 {
        let even = |a, b| _mm512_shuffle_i32x4::<0x88>(a, b);
        let odd = |a, b| _mm512_shuffle_i32x4::<0xdd>(a, b);
        let (a, b) = (even(quads[j], quads[4 + j]), even(quads[8 + j], quads[12 + j]));
        let (c, d) = (odd(quads[j], quads[4 + j]), odd(quads[8 + j], quads[12 + j]));
        m[j] = even(a, b);
        m[4 + j] = even(c, d);
        m[8 + j] = odd(a, b);
        m[12 + j] = odd(c, d);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store_tile(to: &mut [u8], tile: &[__m512i; TILE]) {
    for (to, &row) in to[..TILE_BYTES].chunks_exact_mut(64).zip(tile) {
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), row) };
    }
}

/// Column block `block` of panel `panel` of x, rounded, as left or right tiles; zeros where x has no rows or columns.
///
/// # Safety
/// The CPU has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn x(packing: &Packing, x: &[f32], panel: usize, block: usize, right: bool, to: &mut [u8]) {
    for (tile, to) in packing.tiles_of(block).zip(to.chunks_exact_mut(2 * TILE_BYTES)) {
        let col = tile * TILE_COLS;
        for (half, to) in to.chunks_exact_mut(TILE_BYTES).enumerate() {
            let mut rows = [_mm512_setzero_si512(); TILE];
            let first = panel * PANEL + half * TILE;
            for (r, row) in rows.iter_mut().enumerate().take(packing.rows.saturating_sub(first)) {
                let x = &x[(first + r) * packing.cols..][col..packing.cols];
                // SAFETY: as many numbers as are left.
                *row = unsafe { load_f32(x.as_ptr(), x.len()) };
            }
            if right {
                transpose(&mut rows);
            }
            store_tile(to, &rows);
        }
    }
}

impl Job<'_> {
    /// Column block `block` of panel `panel` of w: left tiles, or right ones of a quantised matrix.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn pack_weights(&self, panel: usize, block: usize, to: &mut [u8]) {
        let (tiles, cols) = (self.packing.tiles_of(block), self.packing.cols);
        for half in 0..2 {
            let row = panel * PANEL + half * TILE;
            let n = self.n_outs.saturating_sub(row).min(TILE);
            for (tile, to) in tiles.clone().zip(to.chunks_exact_mut(2 * TILE_BYTES)) {
                let to = &mut to[half * TILE_BYTES..][..TILE_BYTES];
                match self.w {
                    Weights::Quant(layout, bytes) if n > 0 => dequantise(layout, bytes, row / TILE, tile, to),
                    Weights::Quant(..) => to.fill(0),
                    Weights::Bf16(w) => {
                        copy_rows::<false>(bytemuck::cast_slice(w), row, n, cols, tile * TILE_COLS, to)
                    }
                    Weights::F16(w) => {
                        copy_rows::<true>(bytemuck::cast_slice(w), row, n, cols, tile * TILE_COLS, to)
                    }
                }
            }
        }
    }
}

/// 16 rows of 32 columns from `[row, col]` on, f16 rounded; zeros beyond `n` rows and the last column.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn copy_rows<const F16: bool>(w: &[u16], row: usize, n: usize, cols: usize, col: usize, to: &mut [u8]) {
    let mask = mask_of(cols - col);
    for (r, to) in to.chunks_exact_mut(64).enumerate() {
        let mut v = _mm512_setzero_si512();
        if r < n {
            let from = &w[(row + r) * cols + col..(row + r + 1) * cols];
            // SAFETY: the numbers of the mask are in the row; others are not read.
            v = unsafe { _mm512_maskz_loadu_epi16(mask, from.as_ptr().cast()) };
        }
        if F16 {
            let (a, b) = (_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
            v = upper_halves(round(_mm512_cvtph_ps(a)), round(_mm512_cvtph_ps(b)));
        }
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) };
    }
}

/// 32 columns of a block of 16 rows: `scale * (stored - offset)`, to bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn dequantise(layout: &QuantLayout, bytes: &[u8], block: usize, tile: usize, to: &mut [u8]) {
    let chunks = TILE_COLS / layout.chunk_cols();
    let groups = TILE_COLS / layout.group();
    let quants = &bytes[block * layout.block_bytes() + tile * chunks * 64..][..chunks * 64];
    let scales =
        &bytes[layout.scales_at() + block * layout.block_scales() + tile * groups * TILE..][..groups * TILE];
    let q4 = layout.format == WeightFormat::Q4;
    let (bits, low) = if q4 { (4, 0xf) } else { (8, 0xff) };
    let offset = _mm512_set1_ps(-f32::from(layout.offset()));
    for (c, quants) in quants.chunks_exact(64).enumerate() {
        // SAFETY: 16 scales, and 64 bytes.
        let (scale, v) = unsafe {
            let scale = _mm_loadu_si128(scales[c * groups / chunks * TILE..][..TILE].as_ptr().cast());
            (_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scale)), _mm512_loadu_si512(quants.as_ptr().cast()))
        };
        let zero = _mm512_mul_ps(scale, offset);
        // `shift` is where the number of a column begins. Whole numbers below 2^14: the sum is exact.
        let number = |shift: u32| {
            let stored = _mm512_and_si512(
                _mm512_srl_epi32(v, _mm_cvtsi32_si128(shift as i32)),
                _mm512_set1_epi32(low),
            );
            let number = _mm512_fmadd_ps(_mm512_cvtepi32_ps(stored), scale, zero);
            _mm512_add_epi32(_mm512_castps_si512(number), _mm512_set1_epi32(0x8000))
        };
        let pair = |shift: u32| {
            let (a, b) = (number(shift), number(shift + 8));
            _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_srli_epi32::<16>(a), b)
        };
        let to = &mut to[c * layout.chunk_cols() * 32..][..layout.chunk_cols() * 32];
        // Byte 0 and 1, then 2 and 3; of q4 the low halves before the high ones.
        for (i, to) in to.chunks_exact_mut(64).enumerate() {
            let shift = (i % 2) as u32 * 16 + (i / 2) as u32 * bits;
            // SAFETY: 64 bytes.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), pair(shift)) };
        }
    }
}
