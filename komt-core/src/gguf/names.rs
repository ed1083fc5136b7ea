//! ggml's names of tensors and order of rows, against Hugging Face's.

/// Names within a layer: ggml's and Hugging Face's.
const IN_LAYER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Hugging Face's name of a tensor, `None` for one that the forward pass has no use for.
pub(super) fn hugging_face(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, tensor) = name.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once('.')?;
    let is_number = layer == "0" || (layer.bytes().all(|b| b.is_ascii_digit()) && !layer.starts_with('0'));
    let (_, theirs) = IN_LAYER.iter().find(|(ours, _)| *ours == tensor)?;
    (is_number && !layer.is_empty()).then(|| format!("model.layers.{layer}.{theirs}.weight"))
}

/// Whether llama.cpp's converter puts this tensor's rows in pairs, by Hugging Face's name.
pub(super) fn has_pairs(name: &str) -> bool {
    name.ends_with(".self_attn.q_proj.weight") || name.ends_with(".self_attn.k_proj.weight")
}

/// Where row `row` of a q or k matrix lies in the file. Rotary embedding turns two rows of a head together: Hugging Face's
/// are half a head apart, llama.cpp's side by side. With heads of 6 rows, rows 0 1 2 3 4 5 lie at 0 2 4 1 3 5.
pub(super) fn row_in_pairs(row: usize, head_dim: usize) -> usize {
    let (head, i, half) = (row / head_dim, row % head_dim, head_dim / 2);
    head * head_dim + i % half * 2 + i / half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_layers_and_of_what_is_not_used() {
        let name = |ours| hugging_face(ours);
        assert_eq!(name("blk.10.ffn_down.weight").as_deref(), Some("model.layers.10.mlp.down_proj.weight"));
        assert_eq!(name("output.weight").as_deref(), Some("lm_head.weight"));
        for other in [
            "rope_freqs.weight",
            "blk.0.attn_q.bias",
            "blk.0.ffn_gate_inp.weight",
            "blk..attn_q.weight",
            "blk.00.attn_q.weight",
            "blk.+1.attn_q.weight",
            "token_embd.bias",
            "",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn pairs_by_eye() {
        let rows: Vec<_> = (0..12).map(|row| row_in_pairs(row, 6)).collect();
        assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
