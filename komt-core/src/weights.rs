//! Names, shapes and packing of the weights: from a [`TensorSource`] to [`Mistral`].

use crate::matrix::Packed;
use crate::model::{Layer, Mistral};
use crate::source::{TensorData, TensorSource};
use crate::{Config, Error, Result, Weights};
use komt_kernels::quant::RowSource;
use komt_kernels::{Backend, Cpu, CpuOptions, HostWeight};
use std::collections::BTreeSet;

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
    Packed::one("model.embed_tokens.weight".into(), c.vocab_size, c.dim).of_vocabulary()
}

fn lm_head(c: &Config) -> Packed {
    Packed::one("lm_head.weight".into(), c.vocab_size, c.dim).of_vocabulary()
}

fn layer(c: &Config, i: usize) -> LayerNames {
    let name = |tensor: &str| format!("model.layers.{i}.{tensor}.weight");
    let packed = |tensor, cols, parts: &[(&str, usize)]| {
        Packed::of(name(tensor), parts.iter().map(|&(tensor, rows)| (name(tensor), rows)).collect(), cols)
    };
    let (q, kv) = (c.q_dim(), c.kv_dim());
    let qkv = [("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)];
    let gate_up = [("mlp.gate_proj", c.hidden_dim), ("mlp.up_proj", c.hidden_dim)];
    LayerNames {
        attn_norm: name("input_layernorm"),
        wqkv: packed("self_attn.qkv_proj", c.dim, &qkv),
        wo: Packed::one(name("self_attn.o_proj"), c.dim, q),
        ffn_norm: name("post_attention_layernorm"),
        w_gate_up: packed("mlp.gate_up_proj", c.dim, &gate_up),
        w_down: Packed::one(name("mlp.down_proj"), c.dim, c.hidden_dim),
    }
}

/// All matrices and all vectors of a model.
pub(crate) fn tensors(c: &Config) -> (Vec<Packed>, Vec<String>) {
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

/// Bytes that everything which is read takes in the files: what progress ends at.
pub(crate) fn total_bytes(c: &Config, files: &dyn TensorSource) -> u64 {
    let (matrices, vectors) = tensors(c);
    let parts = matrices.iter().flat_map(|matrix| matrix.parts(files)).map(|(name, _)| name);
    parts.chain(&vectors).map(|name| files.bytes(name)).sum()
}

/// The names that the files have must be those that the configuration needs; each must have its shape and a type that is
/// read. Returns the bytes that the backend will keep.
pub(crate) fn check<B: Backend>(
    b: &B,
    c: &Config,
    files: &dyn TensorSource,
    weights: Weights,
) -> Result<u64> {
    let names = files.names();
    if c.n_layers > names.len() {
        return Err(Error::Config {
            path: files.path().join("config.json"),
            field: "num_hidden_layers".into(),
            expected: format!("no more than the {} tensors of the files", names.len()),
            found: c.n_layers.to_string(),
        });
    }
    b.check_shape(c.attn(), &[("dim", c.dim), ("q_dim", c.q_dim()), ("hidden_dim", c.hidden_dim)])?;
    let (matrices, vectors) = tensors(c);
    let parts = matrices.iter().flat_map(|matrix| matrix.parts(files)).map(|(name, _)| name.as_str());
    let needed: BTreeSet<&str> = parts.chain(vectors.iter().map(String::as_str)).collect();
    let found: BTreeSet<&str> = names.into_iter().filter(|name| !is_ignored(c, name)).collect();
    let list = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| {
        a.difference(b).map(|name| name.to_string()).collect::<Vec<_>>()
    };
    let (missing, unknown) = (list(&needed, &found), list(&found, &needed));
    if !missing.is_empty() || !unknown.is_empty() {
        return Err(Error::Tensors { dir: files.path().into(), missing, unknown });
    }
    let mut bytes = 0;
    for matrix in &matrices {
        let format = matrix.format(files, weights)?;
        bytes += b.weight_bytes(matrix.rows, matrix.cols, format);
    }
    for name in &vectors {
        files.format(name, &[c.dim])?;
        bytes += 4 * c.dim as u64;
    }
    Ok(bytes)
}

/// Every matrix is kept in f16.
#[cfg(feature = "cuda")]
pub(crate) fn is_f16(c: &Config, files: &dyn TensorSource, weights: Weights) -> bool {
    let is_f16 =
        |matrix: &Packed| matches!(matrix.format(files, weights), Ok(komt_kernels::WeightFormat::F16));
    c.n_layers <= files.names().len() && tensors(c).0.iter().all(is_f16)
}

/// How weights are brought to a backend.
pub(crate) struct Loading<'a> {
    pub files: &'a dyn TensorSource,
    pub weights: Weights,
    /// Whether quantised matrices stay in their file.
    pub mapped: bool,
    /// Where they are converted.
    pub cpu: CpuOptions,
    /// Told each tensor that was loaded, and bytes of the files done.
    pub on_tensor: &'a mut dyn FnMut(&str, u64),
}

/// Brings the weights to the backend, tensor by tensor, and gives each tensor's mapped pages back if they were copied.
/// `check` comes first.
pub(crate) fn load<'a, B: Backend>(b: &'a mut B, c: &Config, loading: Loading<'a>) -> Result<Mistral<B>> {
    let mut loader = Loader { b, loading, host: None, done_bytes: 0 };
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
    loading: Loading<'a>,
    host: Option<Cpu>, // once something is converted
    done_bytes: u64,
}

impl<B: Backend> Loader<'_, B> {
    fn matrix(&mut self, matrix: &Packed) -> Result<B::Weight> {
        let Loading { files, weights, mapped, cpu, .. } = self.loading;
        let (rows, cols, format) = (matrix.rows, matrix.cols, matrix.format(files, weights)?);
        let host = || self.host.clone().map_or_else(|| Cpu::with(cpu), Ok);
        let parts = matrix.read(files)?;
        let weight = match parts.plain(format) {
            Some(parts) => self.b.load_weight(HostWeight { rows, cols, format, parts: &parts }),
            None => match parts.quantised() {
                Some(bytes) if !mapped => {
                    self.b.load_weight(HostWeight { rows, cols, format, parts: &[bytes.as_slice()] })
                }
                Some(bytes) => self.b.load_shared(rows, cols, format, bytes),
                None => {
                    let host = self.host.insert(host()?);
                    let bytes = host.convert(format, &parts).map_err(|e| matrix.error(e))?;
                    self.b.load_shared(rows, cols, format, bytes)
                }
            },
        };
        let weight = weight.map_err(|error| matrix.error(error))?;
        drop(parts);
        for (name, _) in matrix.parts(files) {
            self.done(name);
        }
        Ok(weight)
    }

    /// A norm's weights, as f32.
    fn vector(&mut self, name: &str, len: usize) -> Result<B::Buf<f32>> {
        let values = read_vector(self.loading.files, name, len)?;
        self.done(name);
        upload(self.b, &values)
    }

    fn done(&mut self, name: &str) {
        self.loading.files.release(name);
        self.done_bytes += self.loading.files.bytes(name);
        (self.loading.on_tensor)(name, self.done_bytes);
    }
}

/// A tensor of one dimension, as f32.
pub(crate) fn read_vector(files: &dyn TensorSource, name: &str, len: usize) -> Result<Vec<f32>> {
    let mut values = vec![0.0; len];
    match files.get(name, &[len])? {
        TensorData::Plain(format, bytes) => {
            HostWeight { rows: 1, cols: len, format, parts: &[bytes] }.read(0, &mut values);
        }
        TensorData::Rows(rows) => rows.read(0, &mut values),
        TensorData::Quantised(..) => unreachable!("vectors are not quantised"),
    }
    Ok(values)
}

fn upload<B: Backend>(b: &mut B, values: &[f32]) -> Result<B::Buf<f32>> {
    let mut buf = b.alloc::<f32>(values.len())?;
    b.upload(&mut buf, values)?;
    Ok(buf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EngineOptions;
    use crate::load::plan;
    use komt_kernels::KvFormat;

    /// Mistral-7B-v0.1.
    fn mistral_7b() -> Config {
        Config {
            dim: 4096,
            hidden_dim: 14336,
            n_layers: 32,
            n_heads: 32,
            n_kv_heads: 8,
            head_dim: 128,
            vocab_size: 32000,
            window: Some(4096),
            rope_theta: 10_000.0,
            norm_eps: 1e-5,
            max_context: 32768,
            tied: false,
            eos: vec![2],
        }
    }

    fn gigabytes<B: Backend>(weights: Weights, format: KvFormat) -> f64 {
        let c = mistral_7b();
        let (matrices, vectors) = tensors(&c);
        let bytes = |matrix: &Packed| matrix.wanted(weights).unwrap().bytes(matrix.rows, matrix.cols);
        let bytes = matrices.iter().map(bytes).sum::<usize>() + vectors.len() * 4 * c.dim;
        let engine = EngineOptions::default().max_seqs(1).max_context(4096).kv_tokens(4096);
        engine.check(&c).unwrap();
        plan::<B>(&c, bytes as u64, engine.capacity(&c), format).total_bytes() as f64 / 1e9
    }

    /// 6.98e9 weights of 4.5 bits, 0.26e9 of 8.25, and a scale for every row: 4.20 GB. 4,096 tokens of KV are 0.54 GB in 16 bits,
    /// twice that in f32 and 0.28 GB in 8 bits. The rest is scratch for steps of 512 tokens.
    #[test]
    fn a_7b_model_in_4_bits_and_4096_tokens_fit_8_gigabytes() {
        #[cfg(feature = "cuda")]
        {
            let cuda = |format| gigabytes::<komt_kernels::Cuda<half::bf16>>(Weights::Q4, format);
            let (bf16, q8) = (cuda(KvFormat::Bf16), cuda(KvFormat::Q8));
            assert!((4.7..5.2).contains(&bf16), "{bf16}");
            assert!((0.25..0.27).contains(&(bf16 - q8)), "{bf16} {q8}"); // 2 x 32 x 4096 x (2048 - 1056) bytes
        }
        let cpu = gigabytes::<Cpu>;
        let (f32, q8) = (cpu(Weights::Q4, KvFormat::F32), cpu(Weights::Q4, KvFormat::Q8));
        assert!((5.2..5.8).contains(&f32), "{f32}");
        assert!((0.79..0.81).contains(&(f32 - q8)), "{f32} {q8}"); // 2 x 32 x 4096 x (4096 - 1056) bytes
        let weights_q8 = cpu(Weights::Q8, KvFormat::F32);
        assert!((8.4..9.2).contains(&weights_q8), "{weights_q8}");
    }
}
