//! Names, shapes and packing of the weights: from [`TensorFiles`] to [`Mistral`].

use crate::files::TensorFiles;
use crate::model::{Layer, Mistral};
use crate::{Config, Error, Result};
use half::{bf16, f16};
use komt_kernels::{Backend, HostWeight, WeightFormat};
use std::collections::BTreeSet;

/// Matrices of a model that one `Backend::load_weight` packs: their names, and rows each.
struct Packed {
    parts: Vec<(String, usize)>,
    cols: usize,
}

/// The tensors of a layer, in Hugging Face's names (modeling_mistral.py).
struct LayerNames {
    attn_norm: String,
    wqkv: Packed,
    wo: Packed,
    ffn_norm: String,
    w_gate_up: Packed,
    w_down: Packed,
}

const NORM: &str = "model.norm.weight";

fn embed(c: &Config) -> Packed {
    Packed { parts: vec![("model.embed_tokens.weight".into(), c.vocab_size)], cols: c.dim }
}

fn lm_head(c: &Config) -> Packed {
    Packed { parts: vec![("lm_head.weight".into(), c.vocab_size)], cols: c.dim }
}

fn layer(c: &Config, i: usize) -> LayerNames {
    let name = |tensor: &str| format!("model.layers.{i}.{tensor}.weight");
    let packed = |cols, parts: &[(&str, usize)]| Packed {
        parts: parts.iter().map(|&(tensor, rows)| (name(tensor), rows)).collect(),
        cols,
    };
    let (q, kv) = (c.q_dim(), c.kv_dim());
    LayerNames {
        attn_norm: name("input_layernorm"),
        wqkv: packed(c.dim, &[("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)]),
        wo: packed(q, &[("self_attn.o_proj", c.dim)]),
        ffn_norm: name("post_attention_layernorm"),
        w_gate_up: packed(c.dim, &[("mlp.gate_proj", c.hidden_dim), ("mlp.up_proj", c.hidden_dim)]),
        w_down: packed(c.hidden_dim, &[("mlp.down_proj", c.dim)]),
    }
}

/// All matrices and all vectors of a model.
fn tensors(c: &Config) -> (Vec<Packed>, Vec<String>) {
    let (mut matrices, mut vectors) = (vec![embed(c)], vec![NORM.to_string()]);
    for names in (0..c.n_layers).map(|i| layer(c, i)) {
        matrices.extend([names.wqkv, names.wo, names.w_gate_up, names.w_down]);
        vectors.extend([names.attn_norm, names.ffn_norm]);
    }
    if !c.tied {
        matrices.push(lm_head(c));
    }
    (matrices, vectors)
}

/// A tensor that some converters write and no forward pass reads.
fn is_ignored(c: &Config, name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || (c.tied && name == "lm_head.weight")
}

/// The names that the files have must be those that the configuration needs; each must have its shape and a type that is
/// read. Returns the bytes that the backend will keep.
pub(crate) fn check<B: Backend>(b: &B, c: &Config, files: &TensorFiles) -> Result<u64> {
    if c.n_layers > files.n_tensors() {
        return Err(Error::Config {
            path: files.dir.join("config.json"),
            field: "num_hidden_layers".into(),
            expected: format!("no more than the {} tensors of the files", files.n_tensors()),
            found: c.n_layers.to_string(),
        });
    }
    b.check_shape(c.attn(), &[("dim", c.dim), ("q_dim", c.q_dim()), ("hidden_dim", c.hidden_dim)])?;
    let (matrices, vectors) = tensors(c);
    let needed: BTreeSet<&str> = matrices
        .iter()
        .flat_map(|m| &m.parts)
        .map(|(name, _)| name.as_str())
        .chain(vectors.iter().map(String::as_str))
        .collect();
    let found: BTreeSet<&str> = files.names().filter(|name| !is_ignored(c, name)).collect();
    let list = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| {
        a.difference(b).map(|name| name.to_string()).collect::<Vec<_>>()
    };
    let (missing, unknown) = (list(&needed, &found), list(&found, &needed));
    if !missing.is_empty() || !unknown.is_empty() {
        return Err(Error::Tensors { dir: files.dir.clone(), missing, unknown });
    }
    let mut bytes = 0;
    for matrix in &matrices {
        let format = matrix.format(files)?;
        bytes += b.weight_bytes(matrix.rows(), matrix.cols, format);
    }
    for name in &vectors {
        files.format(name, &[c.dim])?;
        bytes += 4 * c.dim as u64;
    }
    Ok(bytes)
}

impl Packed {
    fn rows(&self) -> usize {
        self.parts.iter().map(|&(_, rows)| rows).sum()
    }

    /// The one format of all parts.
    fn format(&self, files: &TensorFiles) -> Result<WeightFormat> {
        let mut common = None;
        for (name, rows) in &self.parts {
            let format = files.format(name, &[*rows, self.cols])?;
            if *common.get_or_insert(format) != format {
                let expected = format!("{:?} as `{}`", common.unwrap_or(format), self.parts[0].0);
                let found = format!("{format:?}");
                return Err(Error::ElementType { tensor: name.clone(), expected, found });
            }
        }
        Ok(common.expect("a packed matrix has parts"))
    }
}

/// What loading tells: the tensor that was loaded, and bytes of the files done.
pub(crate) type OnTensor<'a> = &'a mut dyn FnMut(&str, u64);

/// Copies the weights to the backend, tensor by tensor, and gives each tensor's mapped pages back. `check` comes first.
pub(crate) fn load<B: Backend>(
    b: &mut B,
    c: &Config,
    files: &TensorFiles,
    on_tensor: OnTensor<'_>,
) -> Result<Mistral<B>> {
    let mut loader = Loader { b, files, on_tensor, done_bytes: 0 };
    let embed = loader.matrix(&embed(c))?;
    let mut layers = vec![];
    for names in (0..c.n_layers).map(|i| layer(c, i)) {
        layers.push(Layer {
            attn_norm: loader.vector(&names.attn_norm, c.dim)?,
            wqkv: loader.matrix(&names.wqkv)?,
            wo: loader.matrix(&names.wo)?,
            ffn_norm: loader.vector(&names.ffn_norm, c.dim)?,
            w_gate_up: loader.matrix(&names.w_gate_up)?,
            w_down: loader.matrix(&names.w_down)?,
        });
    }
    let norm = loader.vector(NORM, c.dim)?;
    let lm_head = if c.tied { None } else { Some(loader.matrix(&lm_head(c))?) };
    let inv_freq = upload(loader.b, &c.inv_freq())?;
    Ok(Mistral { config: c.clone(), embed, layers, norm, lm_head, inv_freq })
}

struct Loader<'a, B> {
    b: &'a mut B,
    files: &'a TensorFiles,
    on_tensor: OnTensor<'a>,
    done_bytes: u64,
}

impl<B: Backend> Loader<'_, B> {
    fn matrix(&mut self, matrix: &Packed) -> Result<B::Weight> {
        let format = matrix.format(self.files)?;
        let mut parts = vec![];
        for (name, rows) in &matrix.parts {
            parts.push(self.files.get(name, &[*rows, matrix.cols])?.0);
        }
        let host = HostWeight { rows: matrix.rows(), cols: matrix.cols, format, parts: &parts };
        let weight = self.b.load_weight(host).map_err(|error| match error {
            source @ komt_kernels::Error::WeightRange { .. } => {
                Error::Range { tensor: matrix.parts[0].0.clone(), source }
            }
            error => error.into(),
        })?;
        for ((name, _), bytes) in matrix.parts.iter().zip(&parts) {
            self.done(name, bytes.len());
        }
        Ok(weight)
    }

    /// A norm's weights, as f32.
    fn vector(&mut self, name: &str, len: usize) -> Result<B::Buf<f32>> {
        let (bytes, format) = self.files.get(name, &[len])?;
        let two = |i: usize| [bytes[2 * i], bytes[2 * i + 1]];
        let value = |i: usize| match format {
            WeightFormat::F32 => {
                f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
            }
            WeightFormat::F16 => f16::from_le_bytes(two(i)).to_f32(),
            WeightFormat::Bf16 => bf16::from_le_bytes(two(i)).to_f32(),
            WeightFormat::Q8 | WeightFormat::Q4 => unreachable!("files have no such vectors"),
        };
        let values: Vec<f32> = (0..len).map(value).collect();
        self.done(name, bytes.len());
        upload(self.b, &values)
    }

    fn done(&mut self, name: &str, bytes: usize) {
        self.files.release(name);
        self.done_bytes += bytes as u64;
        (self.on_tensor)(name, self.done_bytes);
    }
}

fn upload<B: Backend>(b: &mut B, values: &[f32]) -> Result<B::Buf<f32>> {
    let mut buf = b.alloc::<f32>(values.len())?;
    b.upload(&mut buf, values)?;
    Ok(buf)
}
