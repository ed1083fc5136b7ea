//! What a format costs: the same forward pass, exact and in f32, on the weights as each format gives them back.

use crate::Result;
use crate::files::gguf_of;
use crate::llama::FileType;
use candle_core::quantized::gguf_file;
use candle_core::{DType, Device as CandleDevice};
use komt_core::kernels::{Precision, WeightFormat};
use komt_core::sample::log_sum_exp;
use komt_core::{
    Config, CpuOptions, Device, Engine, EngineOptions, Event, GenerateOptions, LoadOptions, Model, Scorer,
    Weights,
};
use komt_core::{SamplingParams, Tokenizer};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Tokens of a text: what an engine of this program holds, too.
const TEXT: usize = 256;

fn load(dir: &Path, weights: Weights) -> Result<Model> {
    let exact = Device::Cpu(CpuOptions::default().precision(Precision::Exact));
    Ok(Model::load(dir, LoadOptions::default().device(exact).weights(weights))?)
}

/// Where a model's texts come from.
pub enum Texts<'a> {
    /// Pairs of `instruction` and `answer`, as the demo model was trained: JSON, one a line.
    Pairs(&'a Path),
    /// Files, one after the other.
    Files(&'a [std::path::PathBuf]),
    /// The model's own, drawn at temperature 1.
    Drawn,
}

impl Texts<'_> {
    fn ids(&self, model: &Model, n_tokens: usize) -> Result<Vec<Vec<u32>>> {
        let mut texts = match self {
            Texts::Pairs(path) => pairs(model.tokenizer()?, path)?,
            Texts::Files(paths) => {
                let mut all = String::new();
                for path in *paths {
                    all += &std::fs::read_to_string(path)?;
                }
                model.tokenizer()?.encode_plain(&all)?.chunks(TEXT).map(<[u32]>::to_vec).collect()
            }
            Texts::Drawn => drawn(model, n_tokens / TEXT)?,
        };
        texts.retain(|ids| ids.len() > 1);
        let mut left = n_tokens;
        texts.retain(|ids| {
            let takes = left > 0;
            left = left.saturating_sub(ids.len());
            takes
        });
        Ok(texts)
    }
}

fn pairs(tokenizer: &Tokenizer, path: &Path) -> Result<Vec<Vec<u32>>> {
    let mut texts = vec![];
    for line in std::fs::read_to_string(path)?.lines() {
        let pair: Value = serde_json::from_str(line)?;
        let text = |name: &str| pair[name].as_str().ok_or("a pair without instruction or answer");
        let mut ids = tokenizer.encode_with_bos(&format!("[INST]{} [/INST]", text("instruction")?))?;
        ids.extend(tokenizer.encode_plain(text("answer")?)?);
        ids.extend(tokenizer.eos());
        texts.push(ids);
    }
    Ok(texts)
}

fn drawn(model: &Model, n_texts: usize) -> Result<Vec<Vec<u32>>> {
    let mut engine =
        Engine::new(model, EngineOptions::default().max_context(TEXT + 2).kv_tokens(17 * (TEXT + 32)))?;
    let mut texts: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for seed in 0..n_texts {
        let mut sampling = SamplingParams::greedy();
        (sampling.temperature, sampling.seed) = (1.0, seed as u64);
        let options = GenerateOptions::default().sampling(sampling).max_new_tokens(TEXT - 1).ignore_eos(true);
        texts.insert(engine.submit(&[1], options)?, vec![1]);
    }
    while !engine.is_idle() {
        for event in engine.step()? {
            match event {
                Event::Token { seq, token } => texts.entry(seq).or_default().push(token.id),
                Event::Failed { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(texts.into_values().collect())
}

/// Sums over positions, in natural logarithms.
#[derive(Default)]
struct Sums {
    kl: f64,
    nll: f64,
    n: usize,
    n_next: usize,
    same_choice: usize,
}

/// A format to judge: its model, and bits a weight of all matrices and of the layers' alone.
struct Candidate {
    name: String,
    scorer: Scorer,
    bits: [f64; 2],
    sums: Sums,
}

/// Judges our formats and llama.cpp's on the model in `dir`. Files that are made go to `out`.
pub fn judge(dir: &Path, out: &Path, name: &str, texts: &Texts<'_>, n_tokens: usize) -> Result<Value> {
    let reference = load(dir, Weights::Stored)?;
    let texts = texts.ids(&reference, n_tokens)?;
    let context = texts.iter().map(Vec::len).max().unwrap_or(2).max(2);
    let scorer = Scorer::new(&reference, Some(context))?;
    let mut candidates = vec![];
    for weights in [Weights::Q8, Weights::Q4] {
        let model = load(dir, weights)?;
        candidates.push(Candidate {
            name: weights.name().into(),
            scorer: Scorer::new(&model, Some(context))?,
            bits: our_bits(model.config(), weights),
            sums: Sums::default(),
        });
    }
    for file_type in [FileType::Q8_0, FileType::Q4_0, FileType::Q4KM] {
        let path = gguf_of(dir, out, file_type)?;
        let plain = tempfile::tempdir()?;
        let bits = dequantise(&path, dir, plain.path())?;
        let model = load(plain.path(), Weights::Stored)?; // copied: the directory may go
        let scorer = Scorer::new(&model, Some(context))?;
        candidates.push(Candidate { name: file_type.name().into(), scorer, bits, sums: Sums::default() });
    }
    let mut of_reference = Sums::default();
    for (i, ids) in texts.iter().enumerate() {
        let mut rows: Vec<Vec<f32>> = vec![];
        scorer.each_logits(ids.clone(), |pos, logits| {
            of_reference.add(logits, None, ids.get(pos + 1));
            rows.push(logits.to_vec());
        })?;
        for candidate in &mut candidates {
            let sums = &mut candidate.sums;
            candidate.scorer.each_logits(ids.clone(), |pos, logits| {
                sums.add(logits, Some(&rows[pos]), ids.get(pos + 1));
            })?;
        }
        if i % 16 == 0 {
            eprintln!("{name}: {} of {} texts", i + 1, texts.len());
        }
    }
    let rows: Vec<Value> = candidates
        .iter()
        .map(|c| {
            json!({
                "format": c.name, "bits": c.bits[0], "layer_bits": c.bits[1], "kl": c.sums.kl / c.sums.n as f64,
                "perplexity": c.sums.perplexity(), "same": c.sums.same_choice as f64 / c.sums.n as f64,
            })
        })
        .collect();
    let check = agreement(dir, out, &texts)?;
    Ok(
        json!({"name": name, "check": check, "tokens": of_reference.n, "perplexity": of_reference.perplexity(), "rows": rows}),
    )
}

/// Whether we read llama.cpp's files as it does: mean KL divergence of its own logits on a file from our exact ones on the
/// numbers that candle read there. The first 64 tokens of 8 texts: no window is that short, and llama.cpp has none here.
fn agreement(dir: &Path, out: &Path, texts: &[Vec<u32>]) -> Result<Value> {
    let mut check = serde_json::Map::new();
    for file_type in [FileType::Q8_0, FileType::Q4_0, FileType::Q4KM] {
        let path = gguf_of(dir, out, file_type)?;
        let plain = tempfile::tempdir()?;
        dequantise(&path, dir, plain.path())?;
        let scorer = Scorer::new(&load(plain.path(), Weights::Stored)?, Some(64))?;
        let llama = crate::llama::Model::load(&path, false)?;
        let settings = crate::llama::Settings { repack: false, flash: false, unified: false };
        let mut context = crate::llama::Context::new(&llama, settings, 1, 512, false)?;
        let mut sums = Sums::default();
        for ids in texts.iter().take(8) {
            let ids = &ids[..ids.len().min(64)];
            let mut rows: Vec<Vec<f32>> = vec![];
            scorer.each_logits(ids.to_vec(), |_, logits| rows.push(logits.to_vec()))?;
            context.each_logits(ids, |pos, logits| sums.add(logits, Some(&rows[pos]), None))?;
        }
        check.insert(file_type.name().into(), json!(sums.kl / sums.n as f64));
    }
    Ok(check.into())
}

impl Sums {
    fn add(&mut self, logits: &[f32], reference: Option<&Vec<f32>>, next: Option<&u32>) {
        let norm = log_sum_exp(logits);
        if let Some(reference) = reference {
            let reference_norm = log_sum_exp(reference);
            self.kl += std::iter::zip(reference, logits)
                .map(|(&p, &q)| {
                    let (p, q) = (f64::from(p) - reference_norm, f64::from(q) - norm);
                    p.exp() * (p - q)
                })
                .sum::<f64>();
            self.same_choice += usize::from(largest(reference) == largest(logits));
        }
        self.n += 1;
        if let Some(&next) = next {
            self.nll += norm - f64::from(logits[next as usize]);
            self.n_next += 1;
        }
    }

    fn perplexity(&self) -> f64 {
        (self.nll / self.n_next as f64).exp()
    }
}

fn largest(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]))
}

/// Bits a weight of all matrices, and of the layers' alone, as the loader packs them.
fn our_bits(c: &Config, weights: Weights) -> [f64; 2] {
    let layers = if weights == Weights::Q4 { WeightFormat::Q4 } else { WeightFormat::Q8 };
    let matrices = [
        (c.q_dim() + 2 * c.kv_dim(), c.dim),
        (c.dim, c.q_dim()),
        (2 * c.hidden_dim, c.dim),
        (c.dim, c.hidden_dim),
    ];
    let n: usize = c.n_layers * matrices.iter().map(|(rows, cols)| rows * cols).sum::<usize>();
    let bytes: usize =
        c.n_layers * matrices.iter().map(|&(rows, cols)| layers.bytes(rows, cols)).sum::<usize>();
    let tables = if c.tied { 1 } else { 2 };
    let table_bytes = tables * WeightFormat::Q8.bytes(c.vocab_size, c.dim);
    let all = n + tables * c.vocab_size * c.dim;
    [8.0 * (bytes + table_bytes) as f64 / all as f64, 8.0 * bytes as f64 / n as f64]
}

/// The matrices of a GGUF file as a directory in f32, beside the configuration of `hf`. Returns bits a weight of all
/// matrices, and of the layers' alone. candle reads the file: neither llama.cpp's code nor ours has a say.
fn dequantise(path: &Path, hf: &Path, out: &Path) -> Result<[f64; 2]> {
    let mut file = std::io::BufReader::new(std::fs::File::open(path)?);
    let content = gguf_file::Content::read(&mut file)?;
    let count =
        |name: &str| -> Result<usize> { Ok(content.metadata.get(name).ok_or(name)?.to_u32()? as usize) };
    let heads = [count("llama.attention.head_count")?, count("llama.attention.head_count_kv")?];
    let (mut tensors, mut bits, mut weights) = (vec![], [0.0; 2], [0.0; 2]);
    for (name, info) in &content.tensor_infos {
        let shape = info.shape.dims().to_vec();
        let n = info.shape.elem_count() as f64;
        let tensor = content.tensor(&mut file, name, &CandleDevice::Cpu)?.dequantize(&CandleDevice::Cpu)?;
        let mut values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        if name.contains("attn_q.") {
            values = rows_in_halves(&values, shape[0] / heads[0], shape[1]);
        } else if name.contains("attn_k.") {
            values = rows_in_halves(&values, shape[0] / heads[1], shape[1]);
        }
        if shape.len() == 2 {
            let size = 8.0 * n / info.ggml_dtype.block_size() as f64 * info.ggml_dtype.type_size() as f64;
            let parts = if name.starts_with("blk.") { 2 } else { 1 };
            for part in 0..parts {
                bits[part] += size;
                weights[part] += n;
            }
        }
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.push((hf_name(name)?, shape, bytes));
    }
    let mut views = vec![];
    for (name, shape, bytes) in &tensors {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    safetensors::serialize_to_file(views, None, &out.join("model.safetensors"))?;
    std::fs::copy(hf.join("config.json"), out.join("config.json"))?;
    Ok([bits[0] / weights[0], bits[1] / weights[1]])
}

/// Rows of each head from interleaved RoPE pairs to the two halves that Hugging Face pairs up.
fn rows_in_halves(values: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks(head_dim * cols) {
        for half in 0..2 {
            for pair in 0..head_dim / 2 {
                out.extend(&head[(2 * pair + half) * cols..][..cols]);
            }
        }
    }
    out
}

fn hf_name(name: &str) -> Result<String> {
    let stem = name.strip_suffix(".weight").ok_or(name)?;
    let whole = match stem {
        "token_embd" => Some("model.embed_tokens"),
        "output_norm" => Some("model.norm"),
        "output" => Some("lm_head"),
        _ => None,
    };
    if let Some(name) = whole {
        return Ok(format!("{name}.weight"));
    }
    let (layer, part) = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).ok_or(name)?;
    let part = match part {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return Err(format!("unknown tensor {name}").into()),
    };
    Ok(format!("model.layers.{layer}.{part}.weight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_rows_become_halves() {
        // One head of four rows, one column: pairs (0, 1), (2, 3) hold what halves (0, 2), (1, 3) do.
        assert_eq!(rows_in_halves(&[0.0, 10.0, 1.0, 11.0], 4, 1), [0.0, 1.0, 10.0, 11.0]);
    }

    #[test]
    fn a_distribution_is_at_no_distance_from_itself() {
        let mut sums = Sums::default();
        let row = vec![0.5, -1.0, 2.0];
        sums.add(&row, Some(&row), Some(&2));
        assert_eq!((sums.kl, sums.same_choice, sums.n_next), (0.0, 1, 1));
    }
}
