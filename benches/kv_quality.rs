//! What the format of the KV cache costs in quality, beside f32, and what the roundings of `Precision::Fast` do, beside exact products:
//! perplexity, the mean Kullback-Leibler divergence of the next token's distribution, and how often the likeliest token is another.
//! Everything else is exact.
//!
//! `cargo run --release -p komt-benches --example kv-quality -- MODEL_DIR TEXT_FILE [N_TOKENS]`

use komt_core::sample::log_sum_exp;
use komt_core::{CpuOptions, Device, KvFormat, LoadOptions, Model, Precision, ScoreOptions, Scorer, Weights};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Tokens that are scored together: each sees at most as many.
const CONTEXT: usize = 1024;

#[derive(Default)]
struct Sums {
    surprise: f64,
    divergence: f64,
    n_differ: usize,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, text, n_tokens @ ..] = arguments.as_slice() else {
        return Err("usage: kv-quality MODEL_DIR TEXT_FILE [N_TOKENS]".into());
    };
    let n_tokens = n_tokens.first().map_or(Ok(4096), |n| n.parse())?;
    let load = |weights: Weights, precision: Precision| {
        let cpu = CpuOptions::default().precision(precision);
        Model::load(dir, LoadOptions::default().device(Device::Cpu(cpu)).weights(weights))
    };
    let scorer = |model: &Model, format: KvFormat| {
        Scorer::with(model, ScoreOptions::default().max_context(CONTEXT).kv_format(format))
    };
    let model = load(Weights::Stored, Precision::Exact)?;
    let mut ids = model.tokenizer()?.encode_plain(&std::fs::read_to_string(text)?)?;
    ids.truncate(n_tokens);
    let n = (ids.len() - ids.len().div_ceil(CONTEXT)) as f64;
    println!("{dir}, {n} tokens of {text}, in contexts of {CONTEXT}, CPU, exact");

    let scorers = KvFormat::ALL.map(|format| scorer(&model, format));
    let scorers: Vec<Scorer> = scorers.into_iter().collect::<komt_core::Result<_>>()?;
    let c = model.config();
    println!(
        "| KV cache | bits a number | bytes a token | perplexity | KL from f32 | other likeliest token |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (format, sums) in KvFormat::ALL.into_iter().zip(compare(&scorers, &ids)?) {
        let bytes = format.token_bytes(c.attn());
        println!(
            "| {format} | {:.2} | {} | {} |",
            8.0 * bytes as f64 / (2 * c.kv_dim()) as f64,
            bytes * c.n_layers,
            sums.row(n)
        );
    }

    println!("\nProducts as by default, {}, cache in f32", model.device_name());
    drop((scorers, model));
    println!("| weights | perplexity, exact | perplexity | KL from exact | other likeliest token |");
    println!("| --- | --- | --- | --- | --- |");
    for weights in [Weights::Stored, Weights::Q8, Weights::Q4] {
        let models = [load(weights, Precision::Exact)?, load(weights, Precision::Fast)?];
        let sums = compare(&[scorer(&models[0], KvFormat::F32)?, scorer(&models[1], KvFormat::F32)?], &ids)?;
        println!("| {} | {:.4} | {} |", weights.name(), (sums[0].surprise / n).exp(), sums[1].row(n));
    }
    Ok(())
}

/// What each scorer says of the text, held against the first.
fn compare(scorers: &[Scorer], ids: &[u32]) -> Result<Vec<Sums>> {
    let mut sums: Vec<Sums> = scorers.iter().map(|_| Sums::default()).collect();
    for chunk in ids.chunks(CONTEXT) {
        let mut reference: Vec<Vec<f64>> = vec![];
        for (scorer, sums) in scorers.iter().zip(&mut sums) {
            scorer.each_logits(chunk.to_vec(), |pos, logits| {
                let Some(&next) = chunk.get(pos + 1) else { return };
                let total = log_sum_exp(logits);
                let logprobs: Vec<f64> = logits.iter().map(|&logit| f64::from(logit) - total).collect();
                sums.surprise -= logprobs[next as usize];
                match reference.get(pos) {
                    None => reference.push(logprobs), // the first scorer
                    Some(reference) => sums.add(reference, &logprobs),
                }
            })?;
        }
    }
    Ok(sums)
}

impl Sums {
    /// Perplexity, divergence and differences of `n` tokens.
    fn row(&self, n: f64) -> String {
        let (perplexity, divergence) = ((self.surprise / n).exp(), self.divergence / n);
        format!("{perplexity:.4} | {divergence:.2e} | {:.2} %", 100.0 * self.n_differ as f64 / n)
    }

    fn add(&mut self, reference: &[f64], logprobs: &[f64]) {
        self.divergence += reference.iter().zip(logprobs).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.n_differ += usize::from(likeliest(reference) != likeliest(logprobs));
    }
}

fn likeliest(logprobs: &[f64]) -> usize {
    (0..logprobs.len()).max_by(|&a, &b| logprobs[a].total_cmp(&logprobs[b])).unwrap_or(0)
}
