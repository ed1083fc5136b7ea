//! Causal attention with a sliding window and grouped queries (arXiv:1706.03762 section 3.2.1; arXiv:2305.13245;
//! arXiv:2310.06825 section 2), over a paged cache:
//!
//! ```text
//! out[r, h, :] = sum_j softmax_j(q[r, h, :] . k[slot(j), h / group, :] / sqrt(head_dim)) v[slot(j), h / group, :]
//! j in first_visible(pos, window)..=pos
//! ```
//! Shapes: out `[n_tokens, q_dim]`, qkv `[n_tokens, q_dim + 2 kv_dim]` (only q is read), cache `[n_slots, kv_dim]` twice.
//! The step's own keys are in the cache already. Everything is f32 on CPUs, where
//! keys and values are widened as they are read, whatever the cache's format; scales of q8 multiply a key's score, and the weight
//! of a value. On CUDA the weights are rounded to 16 bits for
//! the product with v.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod scalar;
mod simd;

use crate::cpu::{Cpu, Isa, SharedMut, dispatch};
use crate::kv::with_kv;
use crate::{AttnShape, KvBuf, MAX_HEAD_DIM, RowBuf, StepBuf};

fn check<A, K, S>(out: &RowBuf<A>, qkv: &RowBuf<A>, kv: &KvBuf<K>, step: &StepBuf<S>, attn: AttnShape) {
    assert_eq!(
        (out.rows, out.cols, qkv.rows, qkv.cols, kv.kv_dim, kv.head_dim),
        (
            step.dims.n_tokens,
            attn.q_dim(),
            step.dims.n_tokens,
            attn.q_dim() + 2 * attn.kv_dim(),
            attn.kv_dim(),
            attn.head_dim
        ),
        "attention: out [{}, {}], qkv [{}, {}], cache [{}, {}], {attn:?}",
        out.rows,
        out.cols,
        qkv.rows,
        qkv.cols,
        kv.n_slots,
        kv.kv_dim
    );
    assert!(attn.head_dim <= MAX_HEAD_DIM, "attention: {attn:?}");
    assert_eq!(attn.n_heads % attn.n_kv_heads, 0, "attention: {attn:?}");
}

pub(crate) fn run(
    cpu: &Cpu,
    out: &mut RowBuf<Vec<f32>>,
    qkv: &RowBuf<Vec<f32>>,
    kv: &KvBuf<Vec<u32>>,
    step: &StepBuf<Vec<u32>>,
    attn: AttnShape,
) {
    check(out, qkv, kv, step, attn);
    if cpu.isa() == Isa::Scalar {
        return scalar::attention(&mut out.buf, &qkv.buf, kv, step, attn);
    }
    let out = SharedMut::new(&mut out.buf);
    // One item: one row with one key head and the query heads that share it.
    cpu.for_ranges(qkv.rows * attn.n_kv_heads, 1, |items| {
        let (qkv, scales, isa) = (&qkv.buf, kv.scales(), cpu.isa());
        with_kv!(kv, |k, v| dispatch(isa, simd::Attention { out, qkv, k, v, scales, step, attn, items }));
    });
}
