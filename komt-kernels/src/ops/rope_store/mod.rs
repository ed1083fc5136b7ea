//! Rotary position embedding of q and k (arXiv:2104.09864, section 3.4), and k and v to their slots.
//!
//! ```text
//! angle(pos, i) = pos * inv_freq[i]                                  i in 0..head_dim / 2, in f32 like transformers
//! (a, b) = (head[i], head[i + head_dim / 2])                         half-split pairing, as Hugging Face stores weights
//! head[i], head[i + head_dim / 2] = a cos - b sin, b cos + a sin
//! ```
//! Shapes: qkv `[n_tokens, q_dim + 2 kv_dim]`, inv_freq `[head_dim / 2]`, cache `[n_slots, kv_dim]` twice. q is rotated in
//! place; k is rotated in place and stored with v, rounded to the cache's format ([`KvBuf::store`]). A row with `PAD_SLOT` stores nothing.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::cpu::simd::{Portable, Simd};
use crate::cpu::{Cpu, Isa, Kernel, SharedMut, dispatch};
use crate::{AttnShape, KvBuf, MAX_HEAD_DIM, RowBuf, StepBuf};
use komt_cache::PAD_SLOT;
use std::ops::Range;

/// `n_freqs`: length of inv_freq.
fn check<A, K, S>(qkv: &RowBuf<A>, kv: &KvBuf<K>, step: &StepBuf<S>, n_freqs: usize, attn: AttnShape) {
    assert_eq!(
        (qkv.rows, qkv.cols, kv.kv_dim, kv.head_dim, 2 * n_freqs),
        (step.dims.n_tokens, attn.q_dim() + 2 * attn.kv_dim(), attn.kv_dim(), attn.head_dim, attn.head_dim),
        "rope_store: qkv [{}, {}], cache [{}, {}], inv_freq [{}], {attn:?}",
        qkv.rows,
        qkv.cols,
        kv.n_slots,
        kv.kv_dim,
        n_freqs
    );
    assert!(attn.head_dim <= MAX_HEAD_DIM, "rope_store: {attn:?}");
}

/// Cosines and sines of a step's rows: what the first layer computed the others find here. A copy begins with none.
#[derive(Debug, Default)]
pub(crate) struct Angles {
    positions: Vec<u32>,
    inv_freq: Vec<f32>,
    /// `[n_tokens, 2, head_dim / 2]`
    cos_sin: Vec<f32>,
}

impl Clone for Angles {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Angles {
    /// Those of this step. Memory is taken for the largest step, once.
    fn set(&mut self, cpu: &Cpu, step: &StepBuf<Vec<u32>>, inv_freq: &[f32]) {
        let positions = step.positions();
        if self.positions == positions && self.inv_freq == inv_freq {
            return;
        }
        let (half, max_tokens) = (inv_freq.len(), step.capacity.max_tokens.max(positions.len()));
        self.inv_freq.clear();
        self.inv_freq.extend_from_slice(inv_freq);
        self.positions.clear();
        self.positions.reserve(max_tokens);
        self.positions.extend_from_slice(positions);
        if self.cos_sin.len() < max_tokens * 2 * half {
            self.cos_sin = vec![0.0; max_tokens * 2 * half];
        }
        let cos_sin = SharedMut::new(&mut self.cos_sin);
        // Sine and cosine are the libm's: some ten nanoseconds each.
        cpu.for_ranges(positions.len(), 1 + 256 / half.max(1), |rows| {
            for r in rows {
                // SAFETY: each row belongs to one task.
                let (cos, sin) = unsafe { cos_sin.slice(r * 2 * half, 2 * half) }.split_at_mut(half);
                for (i, &freq) in inv_freq.iter().enumerate() {
                    (sin[i], cos[i]) = (positions[r] as f32 * freq).sin_cos();
                }
            }
        });
    }
}

/// The same loops for every instruction set, and so the same bits.
pub(crate) fn run(
    cpu: &mut Cpu,
    qkv: &mut RowBuf<Vec<f32>>,
    kv: &mut KvBuf<Vec<u32>>,
    step: &StepBuf<Vec<u32>>,
    inv_freq: &[f32],
    attn: AttnShape,
) {
    check(qkv, kv, step, inv_freq.len(), attn);
    let (cols, q_dim, kv_dim) = (qkv.cols, attn.q_dim(), attn.kv_dim());
    let mut angles = std::mem::take(&mut cpu.angles);
    angles.set(cpu, step, inv_freq);
    let (rows, cos_sin, isa) = (SharedMut::new(&mut qkv.buf), &angles.cos_sin, cpu.isa());
    // A row that several threads share costs more than it brings.
    cpu.for_ranges(step.dims.n_tokens, 1 + 16_384 / (q_dim + kv_dim), |range| {
        let kernel = Rotate { rows, cols, width: q_dim + kv_dim, half: inv_freq.len(), cos_sin, range };
        match isa {
            Isa::Scalar => kernel.run(Portable),
            _ => dispatch(isa, kernel),
        }
    });
    cpu.angles = angles;
    // On one thread: nothing forbids a plan that gives two tokens the same slot, and this is a copy of a few rows.
    for (row, &slot) in qkv.buf.chunks_exact(cols).zip(step.slots()) {
        if slot != PAD_SLOT {
            let (k, v) = row[q_dim..].split_at(kv_dim);
            kv.store(slot as usize, k, v);
        }
    }
}

/// Rotates the heads in the first `width` columns of the rows `range`.
struct Rotate<'a> {
    rows: SharedMut<'a, f32>,
    cols: usize,
    width: usize,
    half: usize,
    cos_sin: &'a [f32],
    range: Range<usize>,
}

impl Kernel for Rotate<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let half = self.half;
        for r in self.range {
            // SAFETY: each row belongs to one task.
            let row = unsafe { self.rows.slice(r * self.cols, self.width) };
            let (cos, sin) = self.cos_sin[r * 2 * half..][..2 * half].split_at(half);
            for head in row.chunks_exact_mut(2 * half) {
                let (a, b) = head.split_at_mut(half);
                for i in 0..half {
                    (a[i], b[i]) = (a[i] * cos[i] - b[i] * sin[i], b[i] * cos[i] + a[i] * sin[i]);
                }
            }
        }
    }
}
