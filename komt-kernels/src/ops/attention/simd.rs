use crate::cpu::simd::{Simd, Stored, dot, load_at, map_vector, map2};
use crate::cpu::{Kernel, SharedMut};
use crate::kv::scale_at;
use crate::{AttnShape, MAX_HEAD_DIM, StepBuf};
use komt_cache::{PAGE, first_visible};
use std::ops::Range;

/// Query heads that pass over the keys together: 8 accumulators of 256 floats are 8 KiB, a sixth of a first-level cache.
const MAX_GROUP: usize = 8;

/// The items `items` of the operation: item `r * n_kv_heads + g` is row r with key head g.
///
/// One pass over the keys, page by page, with a running maximum (online softmax, arXiv:1805.02867): nothing is
/// allocated, and each key is read once for its whole group of query heads. Pages start at multiples of `PAGE` in
/// absolute positions, so the order of all sums follows from the row's position and window alone.
pub(super) struct Attention<'a, T> {
    pub out: SharedMut<'a, f32>,
    pub qkv: &'a [f32],
    /// `[n_slots, kv_dim]` each, as they are stored.
    pub k: &'a [T],
    pub v: &'a [T],
    /// Of k and v: empty unless they are q8.
    pub scales: (&'a [f32], &'a [f32]),
    pub step: &'a StepBuf<Vec<u32>>,
    pub attn: AttnShape,
    pub items: Range<usize>,
}

/// The state of one query head.
#[derive(Clone, Copy)]
struct Head {
    max: f32,
    sum: f32,
    acc: [f32; MAX_HEAD_DIM],
}

impl<T: Stored> Kernel for Attention<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let group = self.attn.group();
        for item in self.items.clone() {
            let (r, g) = (item / self.attn.n_kv_heads, item % self.attn.n_kv_heads);
            for first in (0..group).step_by(MAX_GROUP) {
                let heads = g * group + first..g * group + group.min(first + MAX_GROUP);
                self.heads(s, r, g, heads);
            }
        }
    }
}

impl<T: Stored> Attention<'_, T> {
    /// Query heads `heads` of row `r`, which all read key head `g`.
    #[inline(always)]
    fn heads<S: Simd>(&self, s: S, r: usize, g: usize, heads: Range<usize>) {
        let AttnShape { head_dim, window, .. } = self.attn;
        let (q_dim, kv_dim) = (self.attn.q_dim(), self.attn.kv_dim());
        let q = &self.qkv[r * (q_dim + 2 * kv_dim)..][..q_dim];
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut states = [Head { max: f32::NEG_INFINITY, sum: 0.0, acc: [0.0; MAX_HEAD_DIM] }; MAX_GROUP];

        let pos = self.step.positions()[r] as usize;
        let table = self.step.table(self.step.seq_of()[r]);
        let first = first_visible(pos, window);
        for logical in first / PAGE..=pos / PAGE {
            let from = first.max(logical * PAGE);
            let n = (pos + 1).min((logical + 1) * PAGE) - from;
            let slot = table[logical % table.len()] as usize * PAGE + from % PAGE;
            let at = slot * kv_dim + g * head_dim;
            let (k, v) = (&self.k[at..], &self.v[at..]);
            let scales_at = scale_at(slot, g, self.attn.n_kv_heads);
            let is_scaled = !self.scales.0.is_empty();
            for (state, h) in states.iter_mut().zip(heads.clone()) {
                let q = &q[h * head_dim..][..head_dim];
                let mut scores = [f32::NEG_INFINITY; PAGE];
                for (j, score) in scores[..n].iter_mut().enumerate() {
                    *score = dot(s, q, &k[j * kv_dim..][..head_dim]) * scale;
                }
                let mut v_scales = [1.0; PAGE];
                if is_scaled {
                    let k_scales = &self.scales.0[scales_at..][..n];
                    scores.iter_mut().zip(k_scales).for_each(|(score, scale)| *score *= scale);
                    v_scales[..n].copy_from_slice(&self.scales.1[scales_at..][..n]);
                }
                state.add_page(s, &mut scores, &v_scales[..n], v, kv_dim, head_dim);
            }
        }
        for (state, h) in states.iter().zip(heads) {
            // SAFETY: these columns of the row belong to this item alone.
            let out = unsafe { self.out.slice(r * q_dim + h * head_dim, head_dim) };
            let scale = s.splat(1.0 / state.sum);
            let acc = &state.acc[..head_dim];
            map2(
                s,
                out,
                acc,
                acc,
                #[inline(always)]
                |s, acc, _| s.mul(acc, scale),
            );
        }
    }
}

impl Head {
    /// Takes in as many keys of a page as there are scales, with these scores; their values are rows of `v`, `stride` apart, times
    /// the scales.
    #[inline(always)]
    fn add_page<S: Simd, T: Stored>(
        &mut self,
        s: S,
        scores: &mut [f32; PAGE],
        v_scales: &[f32],
        v: &[T],
        stride: usize,
        head_dim: usize,
    ) {
        let (acc, n) = (&mut self.acc[..head_dim], v_scales.len());
        let max = scores[..n].iter().copied().fold(self.max, f32::max);
        if max > self.max {
            // What is there was scaled by e^-old: e^(old - max) brings it to the new maximum (0 for the first page).
            let shrink = (self.max - max).exp();
            self.sum *= shrink;
            acc.iter_mut().for_each(|acc| *acc *= shrink);
            self.max = max;
        }
        for i in (0..PAGE).step_by(S::LANES) {
            // SAFETY: PAGE is a multiple of LANES.
            unsafe {
                let p = scores.as_mut_ptr().add(i);
                s.store(p, s.exp(s.add(s.load(p), s.splat(-self.max))));
            }
        }
        scores[..n].iter().for_each(|weight| self.sum += weight);
        scores.iter_mut().zip(v_scales).for_each(|(weight, scale)| *weight *= scale);
        let mut c = 0;
        while c < head_dim {
            let left = head_dim - c;
            map_vector(
                s,
                &mut acc[c..],
                left,
                #[inline(always)]
                |s, mut acc| {
                    for (j, &weight) in scores[..n].iter().enumerate() {
                        let v = v[j * stride + c..][..left].as_ptr();
                        // SAFETY: `left` values of row j from column c on, by the slice just taken.
                        acc = s.mul_add(s.splat(weight), unsafe { load_at(s, v, left) }, acc);
                    }
                    acc
                },
            );
            c += S::LANES;
        }
    }
}
