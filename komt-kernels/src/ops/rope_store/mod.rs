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

use crate::cpu::{Cpu, SharedMut};
use crate::{AttnShape, KvBuf, MAX_HEAD_DIM, RowBuf, StepBuf};
use komt_cache::PAD_SLOT;

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

/// One implementation for every instruction set: a few hundred multiplications a row; sine and cosine are the libm's.
pub(crate) fn run(
    cpu: &Cpu,
    qkv: &mut RowBuf<Vec<f32>>,
    kv: &mut KvBuf<Vec<u32>>,
    step: &StepBuf<Vec<u32>>,
    inv_freq: &[f32],
    attn: AttnShape,
) {
    check(qkv, kv, step, inv_freq.len(), attn);
    let (cols, q_dim, kv_dim) = (qkv.cols, attn.q_dim(), attn.kv_dim());
    let (positions, rows) = (step.positions(), SharedMut::new(&mut qkv.buf));
    cpu.for_ranges(positions.len(), 4, |range| {
        for r in range {
            // SAFETY: each row belongs to one task.
            let row = unsafe { rows.slice(r * cols, q_dim + kv_dim) };
            rotate(row, positions[r], inv_freq);
        }
    });
    // On one thread: nothing forbids a plan that gives two tokens the same slot, and this is a copy of a few rows.
    for (row, &slot) in qkv.buf.chunks_exact(cols).zip(step.slots()) {
        if slot != PAD_SLOT {
            let (k, v) = row[q_dim..].split_at(kv_dim);
            kv.store(slot as usize, k, v);
        }
    }
}

/// Rotates every head of `heads` (`[.., head_dim]`) by position `pos`.
fn rotate(heads: &mut [f32], pos: u32, inv_freq: &[f32]) {
    let half = inv_freq.len();
    let (mut cos, mut sin) = ([0.0; MAX_HEAD_DIM / 2], [0.0; MAX_HEAD_DIM / 2]);
    for (i, &freq) in inv_freq.iter().enumerate() {
        (sin[i], cos[i]) = (pos as f32 * freq).sin_cos();
    }
    for head in heads.chunks_exact_mut(2 * half) {
        let (a, b) = head.split_at_mut(half);
        for i in 0..half {
            (a[i], b[i]) = (a[i] * cos[i] - b[i] * sin[i], b[i] * cos[i] + a[i] * sin[i]);
        }
    }
}
