//! [`Config`]: the shape of a model, from `config.json` of transformers 4 and 5.

use crate::fields::Fields;
use crate::{Error, Result};
use komt_kernels::{AttnShape, MAX_HEAD_DIM};
use serde_json::Value;
use std::path::Path;

/// The shape of a Mistral-architecture model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Width of the residual stream (`hidden_size`).
    pub dim: usize,
    /// Width inside the feed-forward block (`intermediate_size`).
    pub hidden_dim: usize,
    /// Layers (`num_hidden_layers`).
    pub n_layers: usize,
    /// Query heads (`num_attention_heads`).
    pub n_heads: usize,
    /// Key and value heads (`num_key_value_heads`).
    pub n_kv_heads: usize,
    /// Width of a head (`head_dim`; `dim / n_heads` where the file does not say).
    pub head_dim: usize,
    /// Token ids (`vocab_size`).
    pub vocab_size: usize,
    /// Keys that a query sees, itself included (`sliding_window`); `None`: all.
    pub window: Option<usize>,
    /// Base of the rotary frequencies (`rope_theta`, or `rope_parameters.rope_theta`).
    pub rope_theta: f32,
    /// Added to the mean square in RMSNorm (`rms_norm_eps`).
    pub norm_eps: f32,
    /// Positions that the model was made for (`max_position_embeddings`).
    pub max_context: usize,
    /// The embedding table is the output matrix too (`tie_word_embeddings`).
    pub tied: bool,
    /// Ids that end a text (`eos_token_id`: one or a list).
    pub eos: Vec<u32>,
}

impl Config {
    /// Reads `config.json`. `MistralForCausalLM` and those `LlamaForCausalLM` that compute the same; where a field is
    /// missing, transformers' default for the architecture.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Json`], [`Error::Config`], and [`Error::Unsupported`] for whatever the forward pass does
    /// not compute: other architectures, rope scaling, biases, other activations, experts, quantised weights.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|source| Error::File { path: path.into(), source })?;
        Self::from_json(path, &text)
    }

    fn from_json(path: &Path, text: &[u8]) -> Result<Self> {
        let fields = Fields::parse(path, text)?;
        let is_llama = fields.is_llama()?;
        fields.refuse_what_is_not_computed()?;
        let (dim, n_heads) = (fields.count("hidden_size", None)?, fields.count("num_attention_heads", None)?);
        let config = Config {
            dim,
            hidden_dim: fields.count("intermediate_size", None)?,
            n_layers: fields.count("num_hidden_layers", None)?,
            n_heads,
            n_kv_heads: fields.count("num_key_value_heads", Some(if is_llama { n_heads } else { 8 }))?,
            head_dim: fields.count("head_dim", Some(dim / n_heads))?,
            vocab_size: fields.count("vocab_size", None)?,
            window: fields.window(is_llama)?,
            rope_theta: fields.rope_theta()?,
            norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
            max_context: fields
                .count("max_position_embeddings", Some(if is_llama { 2048 } else { 4096 * 32 }))?,
            tied: fields.flag("tie_word_embeddings")?,
            eos: fields.ids("eos_token_id")?,
        };
        config.check(&fields)?;
        Ok(config)
    }

    /// Relations between the fields.
    fn check(&self, fields: &Fields) -> Result<()> {
        let Self { n_heads, n_kv_heads, head_dim, .. } = *self;
        if !n_heads.is_multiple_of(n_kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {n_heads}");
            return Err(fields.wrong("num_key_value_heads", &expected, n_kv_heads));
        }
        if !head_dim.is_multiple_of(2) || head_dim == 0 || head_dim > MAX_HEAD_DIM {
            return Err(fields.wrong("head_dim", &format!("an even number in 2..={MAX_HEAD_DIM}"), head_dim));
        }
        Ok(())
    }

    /// Width of all query heads.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// The shape of attention.
    pub fn attn(&self) -> AttnShape {
        let Self { n_heads, n_kv_heads, head_dim, window, .. } = *self;
        AttnShape { n_heads, n_kv_heads, head_dim, window }
    }

    /// Rotary frequencies `[head_dim / 2]`: `1 / theta^(2i / head_dim)`, with the roundings of transformers: the power
    /// and the reciprocal are single precision numbers (modeling_rope_utils.py, `_compute_default_rope_parameters`).
    pub fn inv_freq(&self) -> Vec<f32> {
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / self.head_dim as f32;
            1.0 / (f64::from(self.rope_theta).powf(f64::from(exponent)) as f32)
        };
        (0..self.head_dim / 2).map(frequency).collect()
    }
}

impl Fields {
    /// Whether it is a Llama; an error when it is neither Llama nor Mistral.
    fn is_llama(&self) -> Result<bool> {
        let named = self.value("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        let kind = named.or_else(|| self.value("model_type").and_then(Value::as_str));
        match kind {
            Some("MistralForCausalLM" | "mistral") => Ok(false),
            Some("LlamaForCausalLM" | "llama") => Ok(true),
            Some(other) => {
                Err(self.unsupported("architectures", other, "MistralForCausalLM (or LlamaForCausalLM)"))
            }
            None => Err(self.wrong("architectures", "[\"MistralForCausalLM\"]", "nothing")),
        }
    }

    fn refuse_what_is_not_computed(&self) -> Result<()> {
        for field in ["attention_bias", "mlp_bias"] {
            if self.flag(field)? {
                return Err(self.unsupported(field, "true", "a model without biases"));
            }
        }
        match self.value("hidden_act").map(|act| act.as_str().unwrap_or("not a name")) {
            None | Some("silu" | "swish") => {}
            Some(other) => return Err(self.unsupported("hidden_act", other, "silu")),
        }
        for field in ["num_local_experts", "num_experts", "n_routed_experts"] {
            if let Some(n) = self.value(field) {
                return Err(self.unsupported(field, n, "one feed-forward block a layer"));
            }
        }
        if let Some(how) = self.value("quantization_config") {
            return Err(self.unsupported("quantization_config", how, "f32, f16 and bf16 weights"));
        }
        for field in ["rope_scaling", "rope_parameters"] {
            let Some(rope) = self.value(field) else { continue };
            let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
            if !matches!(kind, None | Some("default")) || (field == "rope_scaling" && kind.is_none()) {
                return Err(self.unsupported(field, rope, "rotary embedding without scaling"));
            }
            if field == "rope_parameters"
                && rope.get("rope_theta").is_none()
                && self.value("rope_theta").is_none()
            {
                return Err(self.unsupported(field, rope, "one object with rope_theta, for all layers"));
            }
            self.refuse_partial(rope.get("partial_rotary_factor"))?;
        }
        self.refuse_partial(self.value("partial_rotary_factor"))
    }

    fn refuse_partial(&self, factor: Option<&Value>) -> Result<()> {
        match factor {
            Some(factor) if factor.as_f64() != Some(1.0) => {
                Err(self.unsupported("partial_rotary_factor", factor, "1"))
            }
            _ => Ok(()),
        }
    }

    fn window(&self, is_llama: bool) -> Result<Option<usize>> {
        if is_llama {
            return Ok(None); // transformers' Llama does not look at the field
        }
        let window = match self.map.get("sliding_window") {
            // Left out: transformers' MistralConfig then has a window of 4,096.
            None => Some(4096),
            Some(Value::Null) => None,
            Some(_) => Some(self.count("sliding_window", None)?),
        };
        // Transformers 5 can name the kind of each layer.
        let kinds = self.value("layer_types").and_then(Value::as_array);
        let is = |name: &str| kinds.is_none_or(|kinds| kinds.iter().all(|kind| kind.as_str() == Some(name)));
        match kinds {
            Some(_) if is("full_attention") => Ok(None),
            Some(kinds) if !is("sliding_attention") => {
                let found = Value::Array(kinds.clone());
                Err(self.unsupported("layer_types", found, "one kind of attention in all layers"))
            }
            _ => Ok(window),
        }
    }

    /// `rope_theta` of transformers 4, or `rope_parameters.rope_theta` of transformers 5; 10,000 where neither is there,
    /// as in both.
    fn rope_theta(&self) -> Result<f32> {
        match self.value("rope_parameters").and_then(|rope| rope.get("rope_theta")) {
            Some(theta) => theta
                .as_f64()
                .map(|theta| theta as f32)
                .filter(|theta| *theta > 0.0 && theta.is_finite())
                .ok_or_else(|| self.wrong("rope_parameters.rope_theta", "a positive number", theta)),
            None => self.positive("rope_theta", 10_000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Map;

    const BASE: &str = r#"{"architectures":["MistralForCausalLM"],"hidden_size":64,"intermediate_size":96,
        "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":320,"rope_theta":5e5,
        "sliding_window":8,"eos_token_id":2}"#;

    /// The base with some fields replaced.
    fn with(change: &str) -> Result<Config> {
        let mut map: Map<String, Value> = serde_json::from_str(BASE).unwrap();
        map.extend(serde_json::from_str::<Map<String, Value>>(change).unwrap());
        Config::from_json(Path::new("config.json"), &serde_json::to_vec(&map).unwrap())
    }

    #[test]
    fn both_generations_of_files_are_read() {
        let old = with("{}").unwrap();
        assert_eq!((old.head_dim, old.rope_theta, old.window, old.eos.clone()), (16, 5e5, Some(8), vec![2]));
        let new = r#"{"rope_theta":null,"rope_parameters":{"rope_theta":500000.0,"rope_type":"default"},
            "dtype":"bfloat16","eos_token_id":[2],"layer_types":["sliding_attention","sliding_attention"]}"#;
        assert_eq!(with(new).unwrap(), old);
        assert_eq!(with(r#"{"layer_types":["full_attention","full_attention"]}"#).unwrap().window, None);
        assert_eq!(with(r#"{"sliding_window":null}"#).unwrap().window, None);
        assert_eq!(with(r#"{"rope_theta":null}"#).unwrap().rope_theta, 10_000.0);
    }

    #[test]
    fn a_missing_window_is_transformers_default() {
        let mut map: Map<String, Value> = serde_json::from_str(BASE).unwrap();
        map.remove("sliding_window");
        let parse = |map: &Map<String, Value>| {
            Config::from_json(Path::new("c"), &serde_json::to_vec(map).unwrap()).unwrap()
        };
        assert_eq!(parse(&map).window, Some(4096));
        map.insert("architectures".into(), serde_json::json!(["LlamaForCausalLM"]));
        assert_eq!(parse(&map).window, None);
        map.insert("sliding_window".into(), serde_json::json!(8));
        assert_eq!(parse(&map).window, None, "transformers' Llama has no window");
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (change, message) in [
            (
                r#"{"architectures":["MixtralForCausalLM"]}"#,
                "`architectures` is MixtralForCausalLM: only Mistral",
            ),
            (r#"{"rope_scaling":{"type":"linear","factor":2.0}}"#, "`rope_scaling` is"),
            (r#"{"rope_parameters":{"rope_type":"yarn","rope_theta":1e4}}"#, "`rope_parameters` is"),
            (
                r#"{"rope_parameters":{"rope_theta":1e4,"partial_rotary_factor":0.5}}"#,
                "`partial_rotary_factor`",
            ),
            (r#"{"partial_rotary_factor":0.25}"#, "`partial_rotary_factor` is 0.25"),
            (r#"{"rope_theta":null,"rope_parameters":{"full":{"rope_theta":1e4}}}"#, "`rope_parameters` is"),
            (r#"{"rope_theta":null,"rope_parameters":[]}"#, "`rope_parameters` is"),
            (r#"{"attention_bias":true}"#, "`attention_bias` is true"),
            (r#"{"mlp_bias":true}"#, "`mlp_bias` is true"),
            (r#"{"hidden_act":"gelu"}"#, "`hidden_act` is gelu: only silu"),
            (r#"{"num_local_experts":8}"#, "`num_local_experts` is 8"),
            (r#"{"quantization_config":{"bits":4}}"#, "`quantization_config` is"),
            (r#"{"layer_types":["full_attention","sliding_attention"]}"#, "`layer_types` is"),
        ] {
            let error = with(change).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (change, message) in [
            (r#"{"hidden_size":null}"#, "`hidden_size`: expected an integer in 1..2^31, found nothing"),
            (r#"{"hidden_size":-4}"#, "`hidden_size`: expected an integer in 1..2^31, found -4"),
            (r#"{"hidden_size":"64"}"#, "found \"64\""),
            (r#"{"vocab_size":0}"#, "found 0"),
            (r#"{"vocab_size":99999999999}"#, "found 99999999999"),
            (r#"{"num_key_value_heads":3}"#, "expected a divisor of num_attention_heads = 4, found 3"),
            (r#"{"head_dim":7}"#, "`head_dim`: expected an even number"),
            (r#"{"head_dim":512}"#, "found 512"),
            (r#"{"num_attention_heads":128,"num_key_value_heads":128}"#, "`head_dim`"),
            (r#"{"rope_theta":-1}"#, "`rope_theta`: expected a positive number, found -1"),
            (r#"{"rope_parameters":{"rope_theta":1e300}}"#, "`rope_parameters.rope_theta`"),
            (r#"{"sliding_window":0}"#, "`sliding_window`"),
            (r#"{"rms_norm_eps":0}"#, "`rms_norm_eps`"),
            (r#"{"tie_word_embeddings":1}"#, "expected true or false, found 1"),
            (r#"{"eos_token_id":"</s>"}"#, "`eos_token_id`"),
            (r#"{"architectures":null}"#, "`architectures`"),
        ] {
            let error = with(change).unwrap_err();
            assert!(matches!(error, Error::Config { .. }), "{change}: {error}");
            assert!(error.to_string().contains(message), "{change}: {error}");
        }
        for text in ["", "[]", "{", "\u{0}"] {
            let error = Config::from_json(Path::new("config.json"), text.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Json { .. }), "{error}");
        }
    }
}
