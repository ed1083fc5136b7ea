//! AVX-512 VNNI: `vpdpbusd` adds four products of unsigned weights and signed x to each of 16 lanes, one lane an output.

use super::pack::group_bytes;
use super::{Block, Job, Next, Tiles, ask_ahead};
use crate::cpu::Avx512Vnni;
use crate::quant::BLOCK_ROWS;
use std::arch::x86_64::*;
use std::ops::Range;

/// The outputs of `blocks`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn run(token: Avx512Vnni, job: &Job<'_>, blocks: Range<usize>) {
    job.run(token, blocks);
}

impl Tiles for Avx512Vnni {
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
        // SAFETY: the token proves that the CPU has the instructions; the lengths were just compared.
        unsafe {
            let mut acc = [_mm512_setzero_ps(); ROWS];
            let (mut x, mut quants, mut scales) = (x.as_ptr(), w.quants.as_ptr(), w.scales.as_ptr());
            for _ in 0..groups {
                ask_ahead(quants, quants_bytes);
                next.ask();
                if w.q4 {
                    add_q4(&mut acc, x.cast(), quants, scales);
                } else {
                    add_q8(&mut acc, x.cast(), quants, scales);
                }
                x = x.add(ROWS * group_bytes(parts));
                quants = quants.add(quants_bytes);
                scales = scales.add(parts * BLOCK_ROWS);
            }
            let row_scales = _mm512_loadu_ps(w.row_scales.as_ptr().cast());
            let mut out = [[0f32; BLOCK_ROWS]; ROWS];
            for (out, acc) in out.iter_mut().zip(acc) {
                _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(acc, row_scales));
            }
            out
        }
    }
}

/// Word `i` of `p`, in all lanes.
///
/// # Safety
/// The word can be read, and the CPU has AVX-512F.
#[inline(always)]
unsafe fn splat(p: *const i32, i: usize) -> __m512i {
    // SAFETY: as the caller vouches.
    unsafe { _mm512_set1_epi32(p.add(i).read_unaligned()) }
}

/// 16 scales.
///
/// # Safety
/// 16 bytes can be read, and the CPU has AVX-512F.
#[inline(always)]
unsafe fn load_scales(p: *const u8) -> __m512i {
    // SAFETY: as the caller vouches.
    unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
}

/// `xs * t + acc` for row `r`; `x` is a tile's group, whose scales begin at word `at`.
///
/// # Safety
/// The scales can be read, and the CPU has AVX-512F.
#[inline(always)]
unsafe fn add<const ROWS: usize>(acc: &mut [__m512; ROWS], r: usize, t: __m512, x: *const i32, at: usize) {
    // SAFETY: as the caller vouches.
    unsafe { acc[r] = _mm512_fmadd_ps(t, _mm512_castsi512_ps(splat(x, at + r)), acc[r]) };
}

/// Adds a group of q8: its sums, times their scales, times those of x.
///
/// # Safety
/// x, quants and scales of a group can be read, and the CPU has AVX-512 VNNI.
#[inline(always)]
unsafe fn add_q8<const ROWS: usize>(
    acc: &mut [__m512; ROWS],
    x: *const i32,
    quants: *const u8,
    scales: *const u8,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let mut sums = [_mm512_setzero_si512(); ROWS];
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = splat(x, 8 * ROWS + r);
        }
        for k in 0..8 {
            let w = _mm512_loadu_si512(quants.add(k * 64).cast());
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_dpbusd_epi32(*sum, w, splat(x, k * ROWS + r));
            }
        }
        let scale = _mm512_cvtepi32_ps(load_scales(scales));
        for (r, sum) in sums.into_iter().enumerate() {
            add(acc, r, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), x, 9 * ROWS);
        }
    }
}

/// Adds the two groups of q4. A sum is at most 16 * 8 * 127 = 16,256 and fits into 16 bits: so the two of a row are put into the
/// halves of a word, and one instruction multiplies them by their scales and adds the products.
///
/// # Safety
/// As for `add_q8`.
#[inline(always)]
unsafe fn add_q4<const ROWS: usize>(
    acc: &mut [__m512; ROWS],
    x: *const i32,
    quants: *const u8,
    scales: *const u8,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let low = _mm512_set1_epi8(15);
        let mut sums = [[_mm512_setzero_si512(); ROWS]; 2];
        for (part, sums) in sums.iter_mut().enumerate() {
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = splat(x, (8 + part) * ROWS + r);
            }
            for chunk in part * 2..part * 2 + 2 {
                let w = _mm512_loadu_si512(quants.add(chunk * 64).cast());
                let (w0, w1) = (_mm512_and_si512(w, low), _mm512_and_si512(_mm512_srli_epi32::<4>(w), low));
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_dpbusd_epi32(*sum, w0, splat(x, 2 * chunk * ROWS + r));
                }
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_dpbusd_epi32(*sum, w1, splat(x, (2 * chunk + 1) * ROWS + r));
                }
            }
        }
        let scale = halves(load_scales(scales), load_scales(scales.add(BLOCK_ROWS)));
        for (r, (a, b)) in sums[0].into_iter().zip(sums[1]).enumerate() {
            add(acc, r, _mm512_cvtepi32_ps(_mm512_madd_epi16(halves(a, b), scale)), x, 10 * ROWS);
        }
    }
}

/// The lower halves of the words of `a` and `b`, `b`'s above.
#[inline(always)]
unsafe fn halves(a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: called with the instructions of this file.
    unsafe { _mm512_mask_blend_epi16(0xaaaa_aaaa, a, _mm512_slli_epi32::<16>(b)) }
}
