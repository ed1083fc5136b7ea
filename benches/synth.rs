//! Models of a real shape with random weights, in the Hugging Face layout: for speed and memory, where what the model
//! says does not matter.
//!
//! A [`Plan`] is the names, shapes and files of a shape; [`write()`] puts it on disk, 16 MiB at a time.
//!
//! ```
//! use komt_benches::synth::Shape;
//! let shape: Shape = "mistral-7b".parse()?;
//! let plan = shape.plan();
//! assert_eq!((plan.n_tensors(), plan.total_bytes()), (291, 14_483_464_192));
//! # Ok::<(), komt_benches::synth::Error>(())
//! ```

use half::bf16;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No shape has this name.
    #[error("unknown shape `{name}`: expected one of {}", Shape::NAMES.join(", "))]
    UnknownShape {
        /// The name.
        name: String,
    },
    /// The directory has a model, or a part of one.
    #[error("{path}: it is there already; expected a directory without a model")]
    Exists {
        /// The file that is there.
        path: PathBuf,
    },
    /// A file or directory could not be written. What was written of the model has been removed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Results of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// The shapes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Mistral-7B-v0.1 and all that were trained from it: 7.2 billion parameters, 14.5 GB.
    Mistral7b,
    /// 1.1 billion parameters, 2.2 GB, no window.
    OneB,
    /// 5 million parameters, 10 MB: for a first look at whether everything runs.
    Tiny,
}

/// The numbers that make up a shape, in komt's words. All of them have bf16 weights, silu, a norm epsilon of 1e-5, a
/// `rope_theta` of 10,000 and an output matrix of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width inside the feed-forward block.
    pub hidden_dim: usize,
    /// Layers.
    pub n_layers: usize,
    /// Query heads, each `dim / n_heads` wide.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Token ids.
    pub vocab_size: usize,
    /// Keys that a query sees; `None`: all.
    pub window: Option<usize>,
    /// Positions.
    pub max_context: usize,
}

impl Shape {
    /// The names on a command line.
    pub const NAMES: [&str; 3] = ["mistral-7b", "1b", "tiny"];

    /// Its name, one of [`NAMES`](Self::NAMES).
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Its numbers.
    pub fn dims(self) -> Dims {
        match self {
            Shape::Mistral7b => Dims {
                dim: 4096,
                hidden_dim: 14336,
                n_layers: 32,
                n_heads: 32,
                n_kv_heads: 8,
                vocab_size: 32_000,
                window: Some(4096),
                max_context: 32_768,
            },
            Shape::OneB => Dims {
                dim: 2048,
                hidden_dim: 5632,
                n_layers: 22,
                n_heads: 32,
                n_kv_heads: 4,
                vocab_size: 32_000,
                window: None,
                max_context: 4096,
            },
            Shape::Tiny => Dims {
                dim: 256,
                hidden_dim: 704,
                n_layers: 4,
                n_heads: 4,
                n_kv_heads: 2,
                vocab_size: 4096,
                window: Some(256),
                max_context: 4096,
            },
        }
    }

    /// `config.json`, with the fields of Mistral-7B-v0.1's own.
    pub fn config(self) -> Value {
        self.dims().config()
    }

    /// Its tensors and the files that they go to.
    pub fn plan(self) -> Plan {
        self.dims().plan()
    }
}

impl Dims {
    /// The same with this number of layers: a cut, for machines that cannot hold the whole.
    pub fn layers(mut self, n: usize) -> Self {
        self.n_layers = n;
        self
    }

    fn config(&self) -> Value {
        let d = self;
        json!({
            "architectures": ["MistralForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": d.dim,
            "initializer_range": 0.02,
            "intermediate_size": d.hidden_dim,
            "max_position_embeddings": d.max_context,
            "model_type": "mistral",
            "num_attention_heads": d.n_heads,
            "num_hidden_layers": d.n_layers,
            "num_key_value_heads": d.n_kv_heads,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "sliding_window": d.window,
            "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.34.0",
            "use_cache": true,
            "vocab_size": d.vocab_size,
        })
    }

    fn plan(&self) -> Plan {
        Plan::of(self.tensors(), SHARD_BYTES)
    }

    /// Names and shapes in the order of the forward pass (transformers, modeling_mistral.py).
    fn tensors(&self) -> Vec<Tensor> {
        let Dims { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, .. } = *self;
        let kv_dim = dim / n_heads * n_kv_heads;
        let matrix = |name: String, rows, cols| Tensor { name, shape: vec![rows, cols] };
        let norm = |name: String| Tensor { name, shape: vec![dim] };
        let mut tensors = vec![matrix("model.embed_tokens.weight".into(), vocab_size, dim)];
        for i in 0..n_layers {
            let name = |tensor: &str| format!("model.layers.{i}.{tensor}.weight");
            tensors.extend([
                norm(name("input_layernorm")),
                matrix(name("self_attn.q_proj"), dim, dim),
                matrix(name("self_attn.k_proj"), kv_dim, dim),
                matrix(name("self_attn.v_proj"), kv_dim, dim),
                matrix(name("self_attn.o_proj"), dim, dim),
                norm(name("post_attention_layernorm")),
                matrix(name("mlp.gate_proj"), hidden_dim, dim),
                matrix(name("mlp.up_proj"), hidden_dim, dim),
                matrix(name("mlp.down_proj"), dim, hidden_dim),
            ]);
        }
        tensors.push(norm("model.norm.weight".into()));
        tensors.push(matrix("lm_head.weight".into(), vocab_size, dim));
        tensors
    }
}

impl std::str::FromStr for Shape {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Shape::Mistral7b, Shape::OneB, Shape::Tiny]
            .into_iter()
            .find(|shape| shape.name() == name)
            .ok_or_else(|| Error::UnknownShape { name: name.into() })
    }
}

/// The largest shard, as transformers 4 writes them.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Bytes that are made and written at a time.
const BLOCK: usize = 16 << 20;

/// A tensor of a plan, of bf16. Vectors are norms, all ones; matrices are random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Hugging Face's name.
    pub name: String,
    /// Rows and columns, or the length.
    pub shape: Vec<usize>,
}

impl Tensor {
    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * size_of::<bf16>() as u64
    }
}

/// A file of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub file: String,
    /// What is in it, in order.
    pub tensors: Vec<Tensor>,
}

/// The files of a model and what is in them, before anything is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// `model.safetensors`, or several files that an index names.
    pub shards: Vec<Shard>,
}

impl Plan {
    /// Fills one file after the other up to `max_bytes` (or one tensor, where that is larger).
    fn of(tensors: Vec<Tensor>, max_bytes: u64) -> Self {
        let mut groups: Vec<Vec<Tensor>> = vec![];
        let mut room = 0;
        for tensor in tensors {
            if tensor.bytes() > room || groups.is_empty() {
                groups.push(vec![]);
                room = max_bytes;
            }
            room = room.saturating_sub(tensor.bytes());
            groups.last_mut().expect("one was just pushed").push(tensor);
        }
        let n = groups.len();
        let file = |i: usize| match n {
            1 => "model.safetensors".into(),
            _ => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let shards = groups.into_iter().enumerate().map(|(i, tensors)| Shard { file: file(i), tensors });
        Self { shards: shards.collect() }
    }

    /// All tensors, in order.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.shards.iter().flat_map(|shard| &shard.tensors)
    }

    /// Tensors of all files.
    pub fn n_tensors(&self) -> usize {
        self.tensors().count()
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.tensors().map(Tensor::bytes).sum()
    }

    /// `model.safetensors.index.json`.
    pub fn index(&self) -> Value {
        let entry = |shard: &Shard, tensor: &Tensor| (tensor.name.clone(), json!(shard.file));
        let map: Map<String, Value> =
            self.shards.iter().flat_map(|s| s.tensors.iter().map(move |t| entry(s, t))).collect();
        json!({"metadata": {"total_size": self.total_bytes()}, "weight_map": map})
    }
}

impl Shard {
    /// The header of the file: its length in 8 bytes, and JSON padded with spaces to a multiple of 8.
    fn header(&self) -> Vec<u8> {
        let mut end = 0;
        let info = |tensor: &Tensor| {
            let start = end;
            end += tensor.bytes() as usize;
            let shape = tensor.shape.clone();
            (tensor.name.clone(), TensorInfo { dtype: Dtype::BF16, shape, data_offsets: (start, end) })
        };
        let infos = self.tensors.iter().map(info).collect();
        let format = HashMap::from([("format".to_string(), "pt".to_string())]);
        let metadata = Metadata::new(Some(format), infos).expect("offsets follow each other");
        let mut json = serde_json::to_vec(&metadata).expect("names and numbers");
        json.resize(json.len().next_multiple_of(8), b' ');
        [&(json.len() as u64).to_le_bytes()[..], &json].concat()
    }
}

/// Writes a model of this shape to `dir`, which is made when it is not there. The same seed writes the same weights on
/// every machine. `on_progress(done_bytes, total_bytes)` is called after each block of weights.
///
/// `config.json` comes last: a directory whose writing was interrupted is not a model. Returns the plan.
///
/// # Errors
/// [`Error::Exists`]; [`Error::Io`], when the disk is full for example. What was written is then removed.
pub fn write(dir: &Path, shape: Shape, seed: u64, on_progress: &mut dyn FnMut(u64, u64)) -> Result<Plan> {
    write_dims(dir, &shape.dims(), seed, on_progress)
}

/// [`write()`], for numbers of one's own.
///
/// # Errors
/// As [`write()`].
pub fn write_dims(dir: &Path, dims: &Dims, seed: u64, on_progress: &mut dyn FnMut(u64, u64)) -> Result<Plan> {
    let plan = dims.plan();
    let mut out = Output::open(dir)?;
    let (mut done_bytes, total_bytes) = (0, plan.total_bytes());
    let mut block = vec![0u8; BLOCK];
    let mut n_tensors = 0; // before this one: the number of its stream of random numbers
    for shard in &plan.shards {
        let (path, mut file) = out.create(&shard.file)?;
        let mut put =
            |bytes: &[u8]| file.write_all(bytes).map_err(|source| Error::Io { path: path.clone(), source });
        put(&shard.header())?;
        for tensor in &shard.tensors {
            let key = mix(seed ^ mix(n_tensors));
            n_tensors += 1;
            let mut at = 0;
            while at < tensor.bytes() {
                let block = &mut block[..(tensor.bytes() - at).min(BLOCK as u64) as usize];
                match tensor.shape.len() {
                    1 => block.chunks_exact_mut(2).for_each(|b| b.copy_from_slice(&bf16::ONE.to_le_bytes())),
                    _ => fill(key, at / 2, block),
                }
                put(block)?;
                at += block.len() as u64;
                done_bytes += block.len() as u64;
                on_progress(done_bytes, total_bytes);
            }
        }
    }
    if plan.shards.len() > 1 {
        out.json(INDEX, &plan.index())?;
    }
    out.json(GENERATION_CONFIG, &json!({"bos_token_id": 1, "eos_token_id": 2}))?;
    out.json(CONFIG, &dims.config())?;
    out.is_complete = true;
    Ok(plan)
}

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const INDEX: &str = "model.safetensors.index.json";

/// The files that have been written; removed when it is dropped before they are complete.
struct Output {
    dir: PathBuf,
    is_new_dir: bool,
    files: Vec<PathBuf>,
    is_complete: bool,
}

impl Output {
    fn open(dir: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: dir.into(), source };
        let is_new_dir = !dir.exists();
        std::fs::create_dir_all(dir).map_err(io)?;
        let is_of_a_model = |path: &Path| {
            let named = |name: &str| path.file_name().is_some_and(|file| file == name);
            path.extension().is_some_and(|e| e == "safetensors")
                || [CONFIG, GENERATION_CONFIG, INDEX].into_iter().any(named)
        };
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if is_of_a_model(&path) {
                return Err(Error::Exists { path });
            }
        }
        Ok(Self { dir: dir.into(), is_new_dir, files: vec![], is_complete: false })
    }

    fn create(&mut self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.dir.join(name);
        match File::create_new(&path) {
            Ok(file) => {
                self.files.push(path.clone());
                Ok((path, file))
            }
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    fn json(&mut self, name: &str, value: &Value) -> Result<()> {
        let (path, mut file) = self.create(name)?;
        writeln!(file, "{value:#}").map_err(|source| Error::Io { path, source })
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_complete {
            return;
        }
        // Nothing can be done about a file that cannot be removed; the error that led here is told.
        for path in &self.files {
            let _ = std::fs::remove_file(path);
        }
        if self.is_new_dir {
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

/// Weights `first..` of the stream `key`, as little-endian bf16.
fn fill(key: u64, first: u64, out: &mut [u8]) {
    const TASK: usize = 1 << 16; // bytes: 40 us of work
    out.par_chunks_mut(TASK).enumerate().for_each(|(task, out)| {
        let first = first + (task * TASK / 2) as u64;
        for (i, out) in (first..).zip(out.chunks_exact_mut(2)) {
            out.copy_from_slice(&bf16::from_f32(weight(key, i)).to_le_bytes());
        }
    });
}

/// Weight `i` of the stream `key`: of about normal distribution with deviation 0.02, the `initializer_range` of the model,
/// which keeps activations finite through any number of layers.
///
/// The sum of four 16-bit numbers from one hash. Each has variance 65536^2 / 12, so the sum deviates by 65536 / sqrt(3);
/// their mean is 65535 / 2.
fn weight(key: u64, i: u64) -> f32 {
    const SCALE: f32 = 0.02 / (65536.0 / 1.732_050_8);
    let bits = mix(key.wrapping_add(i));
    let sum: i32 = [0, 16, 32, 48].iter().map(|shift| (bits >> shift & 0xffff) as i32).sum();
    (sum - 2 * 65535) as f32 * SCALE
}

/// SplitMix64: step `i` of the generator, without those before it (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
fn mix(i: u64) -> u64 {
    let z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
#[path = "synth_tests.rs"]
mod tests;
