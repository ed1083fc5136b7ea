//! What queries know after some of their keys.

use super::simd::MAX_GROUP;
use crate::MAX_HEAD_DIM;
use crate::cpu::SharedMut;
use crate::cpu::simd::Simd;
use komt_cache::PAGE;
use std::ops::Range;

/// Of each of `n` queries: the largest score, the sum of the weights e^(score - largest), the sum of the values times those.
///
/// In memory: n maxima, n sums, `[n, stride]` accumulators.
pub(super) struct State {
    at: *mut f32,
    n: usize,
    pub stride: usize,
}

impl State {
    /// # Safety
    /// `n * (2 + stride)` numbers at `at`, whose contents come from `reset` before anything else; `stride` is a multiple of 16.
    pub(super) unsafe fn new(at: *mut f32, n: usize, stride: usize) -> Self {
        Self { at, n, stride }
    }

    /// # Safety
    /// As of all below: the state is the caller's alone, and `q < n`.
    pub(super) unsafe fn reset(&self) {
        // SAFETY: the memory that `new` was told of.
        unsafe {
            for q in 0..self.n {
                self.at.add(q).write(f32::NEG_INFINITY);
            }
            std::ptr::write_bytes(self.at.add(self.n), 0, self.n * (1 + self.stride));
        }
    }

    /// # Safety
    /// See `reset`.
    pub(super) unsafe fn acc(&self, q: usize) -> *mut f32 {
        // SAFETY: within the memory that `new` was told of.
        unsafe { self.at.add(2 * self.n + q * self.stride) }
    }

    /// # Safety
    /// See `reset`.
    pub(super) unsafe fn sum(&self, q: usize) -> f32 {
        // SAFETY: as above.
        unsafe { *self.at.add(self.n + q) }
    }

    /// Makes weights of a page's scores, and adds them to the sum. `scales` multiply the scores; `v_scales` what the values are
    /// to be multiplied by, not the sum. Keys that are not seen have no weight.
    ///
    /// # Safety
    /// See `reset`.
    #[inline(always)]
    pub(super) unsafe fn add_scores<S: Simd>(
        &self,
        s: S,
        q: usize,
        scores: &mut [f32; PAGE],
        seen: &Range<usize>,
        scales: &[f32; PAGE],
        v_scales: Option<&[f32]>,
    ) {
        if seen.is_empty() {
            return scores.fill(0.0);
        }
        // SAFETY: as above.
        let (max, sum) = unsafe { (&mut *self.at.add(q), &mut *self.at.add(self.n + q)) };
        // First the scales: those of a slot that nobody has written to may be anything.
        for (score, scale) in scores.iter_mut().zip(scales) {
            *score *= scale;
        }
        scores[..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..].fill(f32::NEG_INFINITY);
        let new = largest(*scores);
        if new > *max {
            // What is there was scaled by e^-old: e^(old - new) brings it to the new maximum (0 for the first page).
            let shrink = (*max - new).exp();
            *sum *= shrink;
            // SAFETY: the query's own accumulator.
            unsafe { self.scale(s, q, shrink) };
            *max = new;
        }
        let mut total = s.splat(0.0);
        for i in (0..PAGE).step_by(S::LANES) {
            // SAFETY: PAGE is a multiple of LANES.
            unsafe {
                let p = scores.as_mut_ptr().add(i);
                s.store(p, s.exp(s.add(s.load(p), s.splat(-*max))));
            }
        }
        // e^-87 is not nothing.
        scores[..seen.start].fill(0.0);
        scores[seen.end..].fill(0.0);
        for i in (0..PAGE).step_by(S::LANES) {
            // SAFETY: likewise.
            total = s.add(total, unsafe { s.load(scores.as_ptr().add(i)) });
        }
        *sum += s.sum(total);
        if let Some(v_scales) = v_scales {
            for (weight, scale) in scores.iter_mut().zip(v_scales) {
                *weight *= scale;
            }
            // Likewise.
            scores[..seen.start].fill(0.0);
            scores[seen.end..].fill(0.0);
        }
    }

    /// # Safety
    /// See `reset`.
    #[inline(always)]
    unsafe fn scale<S: Simd>(&self, s: S, q: usize, factor: f32) {
        // SAFETY: an accumulator has whole vectors.
        unsafe {
            let acc = self.acc(q);
            for c in (0..self.stride).step_by(S::LANES) {
                s.store(acc.add(c), s.mul(s.load(acc.add(c)), s.splat(factor)));
            }
        }
    }

    /// Takes in what the same queries know of later keys. A query that has seen none there stays as it is.
    ///
    /// # Safety
    /// See `reset`, of both.
    #[inline(always)]
    pub(super) unsafe fn merge<S: Simd>(&self, s: S, later: &State) {
        for q in 0..self.n {
            // SAFETY: q < n; an accumulator has whole vectors.
            unsafe {
                let (max, sum) = (&mut *self.at.add(q), &mut *self.at.add(self.n + q));
                let (later_max, later_sum) = (*later.at.add(q), later.sum(q));
                if later_sum == 0.0 {
                    continue;
                }
                let new = max.max(later_max);
                let (a, b) = ((*max - new).exp(), (later_max - new).exp());
                (*max, *sum) = (new, *sum * a + later_sum * b);
                let (acc, later) = (self.acc(q), later.acc(q));
                for c in (0..self.stride).step_by(S::LANES) {
                    let added = s.mul(s.load(later.add(c)), s.splat(b));
                    s.store(acc.add(c), s.mul_add(s.load(acc.add(c)), s.splat(a), added));
                }
            }
        }
    }
}

/// The largest of a page's scores.
#[inline(always)]
fn largest(mut scores: [f32; PAGE]) -> f32 {
    let mut n = PAGE / 2;
    while n > 0 {
        for i in 0..n {
            scores[i] = if scores[i + n] > scores[i] { scores[i + n] } else { scores[i] };
        }
        n /= 2;
    }
    scores[0]
}

/// States of items and their parts, where several threads share an item.
#[derive(Clone, Copy)]
pub(super) struct Partials<'a> {
    /// [`PARTIALS_LEN`] numbers.
    pub memory: SharedMut<'a, f32>,
    /// Of the item with the most.
    pub n_parts: usize,
}

/// Most numbers of a state of an item of one row: how far states are apart.
const STATE_LEN: usize = MAX_GROUP * (2 + MAX_HEAD_DIM);

/// States that there is room for: eight key heads with 65,536 keys each. From memory that is nothing until it is used.
pub(super) const MAX_PARTIALS: usize = 1024;

/// Numbers of all of them.
pub(super) const PARTIALS_LEN: usize = MAX_PARTIALS * STATE_LEN;

impl Partials<'_> {
    /// # Safety
    /// Part `part` of item `item` is the caller's alone while the state is used; `n <= MAX_GROUP`.
    pub(super) unsafe fn state(&self, item: usize, part: usize, n: usize, stride: usize) -> State {
        let len = n * (2 + stride);
        // SAFETY: the caller's promise; `slice` checks the place.
        unsafe {
            let memory = self.memory.slice((item * self.n_parts + part) * STATE_LEN, len);
            State::new(memory.as_mut_ptr(), n, stride)
        }
    }
}
