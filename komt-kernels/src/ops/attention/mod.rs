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
mod state;

use crate::cpu::{Cpu, Isa, SharedMut, dispatch};
use crate::kv::with_kv;
use crate::{AttnShape, KvBuf, MAX_HEAD_DIM, RowBuf, StepBuf};
use komt_cache::first_visible;
use simd::{What, Work};
use state::Partials;

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

/// What attention keeps between its calls on a CPU; a copy begins with nothing.
#[derive(Debug, Default)]
pub(crate) struct AttentionScratch(Vec<f32>);

impl Clone for AttentionScratch {
    fn clone(&self) -> Self {
        Self::default()
    }
}

pub(crate) fn run(
    cpu: &mut Cpu,
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
    let mut scratch = std::mem::take(&mut cpu.attention_scratch);
    let split = Split::of(step, attn, cpu.threads());
    if split.n_parts > 1 && scratch.0.is_empty() {
        scratch.0 = bytemuck::zeroed_vec(state::PARTIALS_LEN);
    }
    let partials = Partials { memory: SharedMut::new(&mut scratch.0), n_parts: split.n_parts };
    let out = SharedMut::new(&mut out.buf);
    let (qkv, scales, block_rows) = (&qkv.buf, kv.scales(), split.block_rows);
    let run = |n: usize, grain: usize, what: What| {
        cpu.for_ranges(n, grain, |range| {
            let work = Work { what, range, partials };
            with_kv!(kv, |k, v| {
                dispatch(cpu.isa(), simd::Attention { out, qkv, k, v, scales, step, attn, block_rows, work });
            });
        });
    };
    if split.n_parts > 1 {
        run(split.n_items * split.n_parts, 1, What::Parts);
        run(split.n_items, 4, What::Merge);
    } else {
        run(split.n_items, split.grain, What::Items);
    }
    cpu.attention_scratch = scratch;
}

/// How the work is shared out: what the numbers are does not depend on it.
struct Split {
    block_rows: usize,
    n_items: usize,
    /// Parts that an item's keys are cut into; 1: an item is one task.
    n_parts: usize,
    /// Items that are worth handing over.
    grain: usize,
}

impl Split {
    fn of(step: &StepBuf<Vec<u32>>, attn: AttnShape, threads: usize) -> Self {
        // Enough tasks for threads to come late: eight each.
        let n_tasks = 8 * threads;
        let (n_rows, block_items) = (step.dims.n_tokens, attn.block_items());
        let max_rows = simd::MAX_QUERIES / attn.group().min(simd::MAX_GROUP);
        let block_rows = (n_rows * block_items / n_tasks).clamp(1, max_rows);
        let n_items = n_rows.div_ceil(block_rows) * block_items;
        let page = |pos: usize| pos / (komt_cache::PAGE * simd::PART_PAGES);
        let spans = step.positions().iter().map(|&pos| {
            let first = first_visible(pos as usize, attn.window);
            (pos as usize + 1 - first, page(pos as usize) + 1 - page(first))
        });
        let (n_keys, n_parts) = spans.fold((0, 1), |(n, parts), (keys, p)| (n + keys, parts.max(p)));
        let is_split = threads > 1 && n_items < n_tasks && n_items * n_parts <= state::MAX_PARTIALS;
        // As of a matmul: a task of 32 K multiplications.
        let work = 2 * n_keys * attn.q_dim() / n_items.max(1);
        Self {
            block_rows,
            n_items,
            n_parts: if is_split { n_parts } else { 1 },
            grain: 1 + 32_768 / work.max(1),
        }
    }
}
