//! The shape of a model, from the metadata of a GGUF file.
//!
//! Only `general.architecture = llama` is read: llama.cpp's converter writes it for Mistral and for Llama, and has no other
//! name for this graph.
//!
//! # The sliding window
//! `llama.attention.sliding_window` where the file has it. The usual converters leave it out and llama.cpp computes without
//! one; so does this, then, and results are those of Mistral-7B-v0.1's own directory (window 4,096) for the first 4,096
//! tokens, which is also as far as an engine goes by default where there is no window.

use super::parse::{Header, Value};
use crate::fields::Fields;
use crate::{Config, Error, Result};
use komt_kernels::MAX_HEAD_DIM;
use serde_json::Map;
use std::path::Path;

/// Metadata of what the forward pass does not compute, and the value with which it is computed; `None`: none.
const NOT_COMPUTED: [(&str, Option<f64>, &str); 14] = [
    ("expert_count", Some(0.0), "one feed-forward block a layer"),
    ("expert_used_count", Some(0.0), "one feed-forward block a layer"),
    ("rope.scaling.factor", Some(1.0), "rotary embedding without scaling"),
    ("rope.scale_linear", Some(1.0), "rotary embedding without scaling"),
    ("rope.scaling.attn_factor", Some(1.0), "rotary embedding without scaling"),
    ("attention.clamp_kqv", Some(0.0), "attention without clamping"),
    ("attention.max_alibi_bias", Some(0.0), "attention without biases"),
    ("attention.scale", None, "attention scaled by 1 / sqrt(head_dim)"),
    ("attn_logit_softcapping", Some(0.0), "attention without soft caps"),
    ("final_logit_softcapping", Some(0.0), "logits without soft caps"),
    ("logit_scale", Some(1.0), "logits without scale"),
    ("residual_scale", Some(1.0), "a residual stream without scale"),
    ("embedding_scale", Some(1.0), "embeddings without scale"),
    ("attention.sliding_window_pattern", None, "one kind of attention in all layers"),
];

/// Reads the fields of `config.json` from where GGUF has them.
pub(super) fn config(path: &Path, header: &Header) -> Result<Config> {
    let fields = fields(path, header);
    let key = |name: &str| format!("llama.{name}");
    let count = |name: &str, default| fields.count(&key(name), default);
    match fields.value("general.architecture").and_then(|value| value.as_str()) {
        Some("llama") => {}
        found => {
            let found = found.unwrap_or("missing");
            return Err(fields.unsupported(
                "general.architecture",
                found,
                "llama, which Mistral's files say,",
            ));
        }
    }
    refuse_what_is_not_computed(&fields)?;
    let (dim, n_heads) = (count("embedding_length", None)?, count("attention.head_count", None)?);
    let head_dim = count("attention.key_length", Some(dim / n_heads))?;
    let config = Config {
        dim,
        hidden_dim: count("feed_forward_length", None)?,
        n_layers: count("block_count", None)?,
        n_heads,
        n_kv_heads: count("attention.head_count_kv", Some(n_heads))?,
        head_dim,
        vocab_size: count("vocab_size", vocabulary(header))?,
        window: window(&fields)?,
        rope_theta: fields.positive(&key("rope.freq_base"), 10_000.0)?,
        norm_eps: fields.positive(&key("attention.layer_norm_rms_epsilon"), f32::NAN)?,
        max_context: count("context_length", None)?,
        tied: !header.tensors.contains_key("output.weight"),
        eos: eos(&fields)?,
    };
    for name in ["attention.value_length", "rope.dimension_count"] {
        let found = count(name, Some(head_dim))?;
        if found != head_dim {
            return Err(fields.unsupported(&key(name), found, &format!("the width of a head, {head_dim},")));
        }
    }
    check(&config, &fields)?;
    if config.n_layers > header.tensors.len() {
        let expected = format!("no more than the {} tensors of the file", header.tensors.len());
        return Err(fields.wrong("llama.block_count", &expected, config.n_layers));
    }
    Ok(config)
}

/// Numbers and texts of the metadata; arrays by their length alone, so that one in place of a number is told.
fn fields(path: &Path, header: &Header) -> Fields {
    let json = |value: &Value| -> serde_json::Value {
        match value {
            Value::Unsigned(n) => (*n).into(),
            Value::Signed(n) => (*n).into(),
            // JSON has no NaN and no infinity: as texts they are wrong wherever a number is needed.
            Value::Float(n) if !n.is_finite() => n.to_string().into(),
            Value::Float(n) => (*n).into(),
            Value::Bool(flag) => (*flag).into(),
            Value::Text(text) => text.as_str().into(),
            Value::Array(array) => format!("an array of {}", array.len).into(),
        }
    };
    let map: Map<_, _> = header.metadata.iter().map(|(key, value)| (key.clone(), json(value))).collect();
    Fields::new(path, map)
}

fn refuse_what_is_not_computed(fields: &Fields) -> Result<()> {
    for (name, neutral, supported) in NOT_COMPUTED {
        let key = format!("llama.{name}");
        if let Some(found) = fields.value(&key).filter(|value| neutral.is_none() || value.as_f64() != neutral)
        {
            return Err(fields.unsupported(&key, found, supported));
        }
    }
    for (name, neutral, supported) in [
        ("llama.rope.scaling.type", "none", "rotary embedding without scaling"),
        ("llama.attention.causal", "true", "causal attention"),
        ("llama.use_parallel_residual", "false", "one block after the other"),
        ("split.count", "1", "a file that is whole"),
    ] {
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), String::from);
        let found = fields.value(name).map(text);
        if let Some(found) =
            found.filter(|found| found != neutral && !(name == "split.count" && found == "0"))
        {
            return Err(fields.unsupported(name, found, supported));
        }
    }
    Ok(())
}

/// Rows of the embedding, where nothing says how many ids there are.
fn vocabulary(header: &Header) -> Option<usize> {
    match header.metadata.get("tokenizer.ggml.tokens") {
        Some(Value::Array(tokens)) => Some(tokens.len).filter(|&len| len > 0),
        _ => header.tensors.get("token_embd.weight").map(|info| info.shape[0]),
    }
}

/// A window of 0 is none.
fn window(fields: &Fields) -> Result<Option<usize>> {
    const KEY: &str = "llama.attention.sliding_window";
    match fields.value(KEY) {
        None => Ok(None),
        Some(value) if value.as_u64() == Some(0) => Ok(None),
        Some(_) => Ok(Some(fields.count(KEY, None)?)),
    }
}

/// End of text, of turn, and of message, as far as they are there.
fn eos(fields: &Fields) -> Result<Vec<u32>> {
    let mut eos = vec![];
    for role in ["eos", "eot", "eom"] {
        let key = format!("tokenizer.ggml.{role}_token_id");
        if fields.value(&key).is_some_and(|id| id.as_i64() == Some(-1)) {
            continue; // no such token, as in the tokenizer
        }
        for id in fields.ids(&key)? {
            if id != u32::MAX && !eos.contains(&id) {
                eos.push(id);
            }
        }
    }
    Ok(eos)
}

fn check(config: &Config, fields: &Fields) -> Result<()> {
    let &Config { n_heads, n_kv_heads, head_dim, .. } = config;
    if !n_heads.is_multiple_of(n_kv_heads) {
        let expected = format!("a divisor of llama.attention.head_count = {n_heads}");
        return Err(fields.wrong("llama.attention.head_count_kv", &expected, n_kv_heads));
    }
    if !head_dim.is_multiple_of(2) || head_dim == 0 || head_dim > MAX_HEAD_DIM {
        let expected = format!("an even number in 2..={MAX_HEAD_DIM}");
        return Err(fields.wrong("llama.attention.key_length", &expected, head_dim));
    }
    Ok(())
}

/// The tokenizer's part of the metadata, by its short name.
pub(super) fn of_tokenizer<'a>(header: &'a Header, name: &str) -> Option<&'a Value> {
    header.metadata.get(&format!("tokenizer.ggml.{name}"))
}

/// An error that names a key of the tokenizer.
pub(super) fn wrong_key(path: &Path, name: &str, expected: &str, found: impl ToString) -> Error {
    super::parse::wrong(path, &format!("tokenizer.ggml.{name}"), expected, found)
}
