//! Writes GGUF files for the tests: right ones, and wrong ones.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// A value with its type in front.
pub fn u32(n: u32) -> Vec<u8> {
    [4u32.to_le_bytes(), n.to_le_bytes()].concat()
}

pub fn f32(n: f32) -> Vec<u8> {
    [6u32.to_le_bytes(), n.to_le_bytes()].concat()
}

pub fn flag(flag: bool) -> Vec<u8> {
    [&7u32.to_le_bytes()[..], &[flag.into()]].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    [&8u32.to_le_bytes()[..], &string(text)].concat()
}

/// An array of elements of this type, one after the other in `bytes`.
pub fn array(kind: u32, len: usize, bytes: &[u8]) -> Vec<u8> {
    [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &(len as u64).to_le_bytes(), bytes].concat()
}

pub fn texts(texts: &[&str]) -> Vec<u8> {
    array(8, texts.len(), &texts.iter().flat_map(|text| string(text)).collect::<Vec<_>>())
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A tensor: its shape outermost first, ggml's number of its kind, and its place, if not the next.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub kind: u32,
    pub bytes: Vec<u8>,
    pub offset: Option<u64>,
}

#[derive(Clone)]
pub struct File {
    pub version: u32,
    pub keys: Vec<(String, Vec<u8>)>,
    pub tensors: Vec<Tensor>,
    /// What the header says, if not how many there are.
    pub n_tensors: Option<u64>,
    pub n_keys: Option<u64>,
}

impl File {
    /// A model of one layer with 4 ids, 32 columns, 2 heads of 16 and one of keys.
    pub fn tiny() -> Self {
        let shapes: [(&str, &[u64]); 11] = [
            ("token_embd.weight", &[4, 32]),
            ("output_norm.weight", &[32]),
            ("blk.0.attn_norm.weight", &[32]),
            ("blk.0.attn_q.weight", &[32, 32]),
            ("blk.0.attn_k.weight", &[16, 32]),
            ("blk.0.attn_v.weight", &[16, 32]),
            ("blk.0.attn_output.weight", &[32, 32]),
            ("blk.0.ffn_norm.weight", &[32]),
            ("blk.0.ffn_gate.weight", &[64, 32]),
            ("blk.0.ffn_up.weight", &[64, 32]),
            ("blk.0.ffn_down.weight", &[32, 64]),
        ];
        let mut file = Self { version: 3, keys: vec![], tensors: vec![], n_tensors: None, n_keys: None };
        for (name, shape) in shapes {
            let bytes = 1.0f32.to_le_bytes().repeat(shape.iter().product::<u64>() as usize);
            file.tensors.push(Tensor {
                name: name.into(),
                shape: shape.into(),
                kind: 0,
                bytes,
                offset: None,
            });
        }
        file.set("general.architecture", text("llama"));
        for (name, value) in [
            ("embedding_length", u32(32)),
            ("block_count", u32(1)),
            ("feed_forward_length", u32(64)),
            ("context_length", u32(64)),
            ("attention.head_count", u32(2)),
            ("attention.head_count_kv", u32(1)),
            ("attention.layer_norm_rms_epsilon", f32(1e-5)),
            ("rope.freq_base", f32(10_000.0)),
        ] {
            file.set(&format!("llama.{name}"), value);
        }
        file.set("tokenizer.ggml.model", text("llama"));
        file.set("tokenizer.ggml.tokens", texts(&["<unk>", "<s>", "</s>", "a"]));
        file.set("tokenizer.ggml.scores", array(6, 4, &[0; 16]));
        file.set("tokenizer.ggml.token_type", array(5, 4, &[2, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0]));
        file.set("tokenizer.ggml.bos_token_id", u32(1));
        file.set("tokenizer.ggml.eos_token_id", u32(2));
        file
    }

    /// The tiny model with a byte-level vocabulary of `a`, `b` and `ab`, and a matrix in blocks (Q8_0).
    pub fn byte_level() -> Self {
        let mut file = Self::tiny();
        file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
        file.set("tokenizer.ggml.model", text("gpt2"));
        file.set("tokenizer.ggml.pre", text("smollm"));
        file.set("tokenizer.ggml.tokens", texts(&["<|end|>", "a", "b", "ab"]));
        file.set("tokenizer.ggml.token_type", array(5, 4, &[3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]));
        file.set("tokenizer.ggml.merges", texts(&["a b"]));
        file.set("tokenizer.ggml.eos_token_id", u32(0));
        file.set("tokenizer.chat_template", text("{{ messages[0].content }}"));
        let gate = file.tensor("blk.0.ffn_gate.weight");
        // A block in each row: the scale 1, and 32 ones.
        (gate.kind, gate.bytes) = (8, [&[0x00u8, 0x3c][..], &[1; 32]].concat().repeat(64));
        file
    }

    /// Adds a key or gives it another value.
    pub fn set(&mut self, key: &str, value: Vec<u8>) {
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.into(), value)),
        }
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [b"GGUF", &self.version.to_le_bytes()[..]].concat();
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            out.extend(string(key));
            out.extend(value);
        }
        let (mut data, mut places) = (vec![], vec![]);
        for tensor in &self.tensors {
            places.push(tensor.offset.unwrap_or(data.len() as u64));
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        for (tensor, place) in self.tensors.iter().zip(places) {
            out.extend(string(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(place.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        [out, data].concat()
    }

    /// A Hugging Face directory with one file of weights, as llama.cpp's converter would write it.
    pub fn of_directory(dir: &Path) -> Self {
        let json = |name: &str| -> Option<Value> {
            std::fs::read(dir.join(name)).ok().map(|text| serde_json::from_slice(&text).unwrap())
        };
        let config = json("config.json").unwrap();
        let number = |field: &str| config[field].as_u64().map(|n| n as u32);
        let mut file = Self::tiny();
        file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
        file.tensors.clear();
        let (dim, n_heads) = (number("hidden_size").unwrap(), number("num_attention_heads").unwrap());
        let (n_kv_heads, head_dim) =
            (number("num_key_value_heads").unwrap(), number("head_dim").unwrap_or(dim / n_heads));
        for (name, n) in [
            ("embedding_length", dim),
            ("block_count", number("num_hidden_layers").unwrap()),
            ("feed_forward_length", number("intermediate_size").unwrap()),
            ("context_length", number("max_position_embeddings").unwrap()),
            ("attention.head_count", n_heads),
            ("attention.head_count_kv", n_kv_heads),
            ("attention.key_length", head_dim),
            ("attention.value_length", head_dim),
            ("attention.sliding_window", number("sliding_window").unwrap_or(0)),
            ("vocab_size", number("vocab_size").unwrap()),
        ] {
            file.set(&format!("llama.{name}"), u32(n));
        }
        let theta = config["rope_parameters"]["rope_theta"].as_f64().or(config["rope_theta"].as_f64());
        file.set("llama.rope.freq_base", f32(theta.unwrap() as f32));
        let eps = config["rms_norm_eps"].as_f64().unwrap();
        file.set("llama.attention.layer_norm_rms_epsilon", f32(eps as f32));
        if let Some(tokenizer) = json("tokenizer.json") {
            file.add_tokenizer(&tokenizer);
        }
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let kind = [(Dtype::F32, 0), (Dtype::F16, 1), (Dtype::BF16, 30)];
            let kind = kind.into_iter().find(|(dtype, _)| *dtype == tensor.dtype()).unwrap().1;
            let shape: Vec<u64> = tensor.shape().iter().map(|&dim| dim as u64).collect();
            let mut bytes = tensor.data().to_vec();
            if name.contains("q_proj") || name.contains("k_proj") {
                bytes = in_pairs(&bytes, shape[0] as usize, head_dim as usize);
            }
            file.tensors.push(Tensor { name: own_name(&name), shape, kind, bytes, offset: None });
        }
        file
    }

    fn add_tokenizer(&mut self, json: &Value) {
        let vocab = json["model"]["vocab"].as_object().unwrap();
        let mut tokens = vec![""; vocab.len()];
        vocab.iter().for_each(|(token, id)| tokens[id.as_u64().unwrap() as usize] = token);
        let mut places = HashMap::new();
        for merge in json["model"]["merges"].as_array().unwrap() {
            let n = places.len();
            // Two layouts are published: "a b", and ["a", "b"].
            let merged = match merge.as_str() {
                Some(pair) => pair.replacen(' ', "", 1),
                None => merge.as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect(),
            };
            places.entry(merged).or_insert(n);
        }
        let (mut scores, mut kinds) = (vec![], vec![]);
        for (id, token) in tokens.iter().enumerate() {
            scores.extend((-(places.get(*token).copied().unwrap_or(places.len() + id) as f32)).to_le_bytes());
            let is_byte = token.len() == 6 && token.starts_with("<0x");
            let kind = if is_byte { 6i32 } else { [2, 3, 3].get(id).copied().unwrap_or(1) };
            kinds.extend(kind.to_le_bytes());
        }
        self.set("tokenizer.ggml.model", text("llama"));
        self.set("tokenizer.ggml.tokens", texts(&tokens));
        self.set("tokenizer.ggml.scores", array(6, tokens.len(), &scores));
        self.set("tokenizer.ggml.token_type", array(5, tokens.len(), &kinds));
        for (role, id) in [("unknown", 0), ("bos", 1), ("eos", 2)] {
            self.set(&format!("tokenizer.ggml.{role}_token_id"), u32(id));
        }
        self.set("tokenizer.ggml.add_bos_token", flag(true));
    }
}

/// What llama.cpp's converter does: row j * half + i of a head goes to 2 i + j.
fn in_pairs(bytes: &[u8], rows: usize, head_dim: usize) -> Vec<u8> {
    let (row_bytes, half) = (bytes.len() / rows, head_dim / 2);
    let mut out = vec![0; bytes.len()];
    for (row, from) in bytes.chunks_exact(row_bytes).enumerate() {
        let (head, j, i) = (row / head_dim, row % head_dim / half, row % half);
        out[(head * head_dim + 2 * i + j) * row_bytes..][..row_bytes].copy_from_slice(from);
    }
    out
}

fn own_name(name: &str) -> String {
    let whole = [("embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];
    if let Some((_, own)) = whole.iter().find(|(part, _)| name.contains(part)) {
        return format!("{own}.weight");
    }
    let parts = [
        ("input_layernorm", "attn_norm"),
        ("q_proj", "attn_q"),
        ("k_proj", "attn_k"),
        ("v_proj", "attn_v"),
        ("o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("gate_proj", "ffn_gate"),
        ("up_proj", "ffn_up"),
        ("down_proj", "ffn_down"),
    ];
    let (_, own) = parts.iter().find(|(part, _)| name.contains(part)).unwrap();
    format!("blk.{}.{own}.weight", name.split('.').nth(2).unwrap())
}
