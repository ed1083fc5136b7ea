//! AVX2: `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs in 16 bits, which must not overflow; 8 outputs at a
//! time, half a block.

use super::pack::group_bytes;
use super::{Block, GROUP, Job, Next, Tiles, ask_ahead};
use crate::cpu::Avx2;
use crate::quant::BLOCK_ROWS;
use std::arch::x86_64::*;
use std::ops::Range;

/// The outputs of `blocks`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run(token: Avx2, job: &Job<'_>, blocks: Range<usize>) {
    job.run(token, blocks);
}

impl Tiles for Avx2 {
    #[inline(always)]
    fn tile<const ROWS: usize>(
        self,
        x: &[u8],
        groups: usize,
        w: Block<'_>,
        mut next: Next,
    ) -> [[f32; BLOCK_ROWS]; ROWS] {
        let parts = if w.q4 { 2 } else { 1 };
        let quants_bytes = if w.q4 { 256 } else { 512 }; // of a group
        assert!(x.len() == ROWS * groups * group_bytes(parts) && w.row_scales.len() == BLOCK_ROWS * 4);
        assert!(w.quants.len() == groups * quants_bytes && w.scales.len() == groups * parts * BLOCK_ROWS);
        let mut out = [[0f32; BLOCK_ROWS]; ROWS];
        for half in 0..2 {
            // SAFETY: the token proves that the CPU has the instructions; the lengths were just compared.
            unsafe {
                let mut acc = [_mm256_setzero_ps(); ROWS];
                let mut x = x.as_ptr();
                let mut quants = w.quants.as_ptr().add(half * 32);
                let mut scales = w.scales.as_ptr().add(half * 8);
                for _ in 0..groups {
                    if half == 0 {
                        ask_ahead(quants, quants_bytes);
                        next.ask();
                    }
                    let t = if w.q4 {
                        group_q4::<ROWS>(x.cast(), quants, scales)
                    } else {
                        group_q8::<ROWS>(x.cast(), quants, scales)
                    };
                    let xs = x.add(ROWS * (GROUP + 4 * parts)).cast::<f32>();
                    for (r, (acc, t)) in acc.iter_mut().zip(t).enumerate() {
                        *acc = _mm256_fmadd_ps(t, _mm256_set1_ps(xs.add(r).read_unaligned()), *acc);
                    }
                    x = x.add(ROWS * group_bytes(parts));
                    quants = quants.add(quants_bytes);
                    scales = scales.add(parts * BLOCK_ROWS);
                }
                let row_scales = _mm256_loadu_ps(w.row_scales.as_ptr().cast::<f32>().add(half * 8));
                for (out, acc) in out.iter_mut().zip(acc) {
                    _mm256_storeu_ps(out.as_mut_ptr().add(half * 8), _mm256_mul_ps(acc, row_scales));
                }
            }
        }
        out
    }
}

/// Word `i` of `p`, in all lanes.
///
/// # Safety
/// The word can be read, and the CPU has AVX2.
#[inline(always)]
unsafe fn splat(p: *const i32, i: usize) -> __m256i {
    // SAFETY: as the caller vouches.
    unsafe { _mm256_set1_epi32(p.add(i).read_unaligned()) }
}

/// The sums of a group of q8, times their scales: |w| times x with the sign of w, as 255 * 127 * 2 would not fit into 16 bits
/// and 128 * 127 * 2 = 32,512 does. So nothing is to be taken off, and the starts are not used.
///
/// # Safety
/// x, quants and scales of a group can be read, and the CPU has AVX2.
#[inline(always)]
unsafe fn group_q8<const ROWS: usize>(x: *const i32, quants: *const u8, scales: *const u8) -> [__m256; ROWS] {
    // SAFETY: as the caller vouches.
    unsafe {
        let mut sums = [_mm256_setzero_si256(); ROWS];
        for k in 0..8 {
            let w = _mm256_xor_si256(_mm256_loadu_si256(quants.add(k * 64).cast()), _mm256_set1_epi8(-128));
            let size = _mm256_abs_epi8(w);
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_sign_epi8(splat(x, k * ROWS + r), w);
                let pairs = _mm256_maddubs_epi16(size, x);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
        }
        let scale = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(scales.cast())));
        let mut t = [_mm256_setzero_ps(); ROWS];
        for (t, sum) in t.iter_mut().zip(sums) {
            *t = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
        }
        t
    }
}

/// The sums of the two groups of q4, times their scales. A sum of a group fits into 16 bits: its four products of a lane's half
/// are at most 8 * 15 * 127 = 15,240, and the start, which stands in the lower half, is at most 16 * 8 * 127 = 16,256.
///
/// # Safety
/// As for `group_q8`.
#[inline(always)]
unsafe fn group_q4<const ROWS: usize>(x: *const i32, quants: *const u8, scales: *const u8) -> [__m256; ROWS] {
    // SAFETY: as the caller vouches.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let mut sums = [_mm256_setzero_si256(); ROWS];
        for part in 0..2 {
            let w01 = _mm256_loadu_si256(quants.add(2 * part * 64).cast());
            let w23 = _mm256_loadu_si256(quants.add((2 * part + 1) * 64).cast());
            let (w0, w2) = (_mm256_and_si256(w01, low), _mm256_and_si256(w23, low));
            let w1 = _mm256_and_si256(_mm256_srli_epi32::<4>(w01), low);
            let w3 = _mm256_and_si256(_mm256_srli_epi32::<4>(w23), low);
            // A scale in both halves of a lane.
            let scale = _mm256_cvtepi8_epi32(_mm_loadl_epi64(scales.add(part * BLOCK_ROWS).cast()));
            let scale = _mm256_blend_epi16::<0b1010_1010>(scale, _mm256_slli_epi32::<16>(scale));
            for (r, sum) in sums.iter_mut().enumerate() {
                let mut pairs = _mm256_and_si256(splat(x, (8 + part) * ROWS + r), _mm256_set1_epi32(0xffff));
                for (k, w) in [w0, w1, w2, w3].into_iter().enumerate() {
                    let x = splat(x, (4 * part + k) * ROWS + r);
                    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w, x));
                }
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, scale));
            }
        }
        let mut t = [_mm256_setzero_ps(); ROWS];
        for (t, sum) in t.iter_mut().zip(sums) {
            *t = _mm256_cvtepi32_ps(sum);
        }
        t
    }
}
