use crate::{AttnShape, KvBuf, StepBuf};
use komt_cache::{PAGE, first_visible};

/// The reference: scores, softmax, weighted sum, one after the other.
pub(super) fn attention(
    out: &mut [f32],
    qkv: &[f32],
    kv: &KvBuf<Vec<u32>>,
    step: &StepBuf<Vec<u32>>,
    attn: AttnShape,
) {
    let (head_dim, q_dim, kv_dim) = (attn.head_dim, attn.q_dim(), attn.kv_dim());
    for r in 0..step.dims.n_tokens {
        let pos = step.positions()[r] as usize;
        let table = step.table(step.seq_of()[r]);
        let slot = |j: usize| table[(j / PAGE) % table.len()] as usize * PAGE + j % PAGE;
        let visible = first_visible(pos, attn.window)..=pos;
        let keys_values: Vec<_> = visible.clone().map(|j| kv.load(slot(j))).collect();
        for h in 0..attn.n_heads {
            let q = &qkv[r * (q_dim + 2 * kv_dim) + h * head_dim..][..head_dim];
            let head = h / attn.group() * head_dim;
            let mut weights = vec![];
            for j in visible.clone() {
                let k = &keys_values[j - visible.start()][0][head..][..head_dim];
                let mut score = 0.0;
                for c in 0..head_dim {
                    score += q[c] * k[c];
                }
                weights.push(score / (head_dim as f32).sqrt());
            }
            let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for weight in &mut weights {
                *weight = (*weight - max).exp();
                sum += *weight;
            }
            let out = &mut out[r * q_dim + h * head_dim..][..head_dim];
            out.fill(0.0);
            for (j, weight) in visible.clone().zip(&weights) {
                let v = &keys_values[j - visible.start()][1][head..][..head_dim];
                for c in 0..head_dim {
                    out[c] += weight / sum * v[c];
                }
            }
        }
    }
}
