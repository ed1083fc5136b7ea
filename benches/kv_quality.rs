//! What the format of the KV cache costs in quality, beside f32: perplexity, the mean Kullback-Leibler divergence of the next token's
//! distribution, and how often the likeliest token is another. Everything else is exact.
//!
//! `cargo run --release -p komt-benches --example kv-quality -- MODEL_DIR TEXT_FILE [N_TOKENS]`

use komt_core::sample::log_sum_exp;
use komt_core::{CpuOptions, Device, KvFormat, LoadOptions, Model, Precision, ScoreOptions, Scorer};

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
    let cpu = CpuOptions::default().precision(Precision::Exact);
    let model = Model::load(dir, LoadOptions::default().device(Device::Cpu(cpu)))?;
    let mut ids = model.tokenizer()?.encode_plain(&std::fs::read_to_string(text)?)?;
    ids.truncate(n_tokens);

    let mut sums = KvFormat::ALL.map(|_| Sums::default());
    let scorers: Vec<Scorer> = KvFormat::ALL
        .into_iter()
        .map(|format| Scorer::with(&model, ScoreOptions::default().max_context(CONTEXT).kv_format(format)))
        .collect::<komt_core::Result<_>>()?;
    let mut n_predicted = 0;
    for chunk in ids.chunks(CONTEXT) {
        n_predicted += chunk.len() - 1;
        let mut reference: Vec<Vec<f64>> = vec![];
        for (scorer, sums) in scorers.iter().zip(&mut sums) {
            scorer.each_logits(chunk.to_vec(), |pos, logits| {
                let Some(&next) = chunk.get(pos + 1) else { return };
                let total = log_sum_exp(logits);
                let logprobs: Vec<f64> = logits.iter().map(|&logit| f64::from(logit) - total).collect();
                sums.surprise -= logprobs[next as usize];
                match reference.get(pos) {
                    None => reference.push(logprobs), // the first scorer: f32
                    Some(reference) => sums.add(reference, &logprobs),
                }
            })?;
        }
    }

    let c = model.config();
    println!("{dir}, {n_predicted} tokens of {text}, in contexts of {CONTEXT}, CPU, exact");
    println!(
        "| KV cache | bits a number | bytes a token | perplexity | KL from f32 | other likeliest token |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (format, sums) in KvFormat::ALL.into_iter().zip(&sums) {
        let n = n_predicted as f64;
        let bytes = format.token_bytes(c.attn());
        println!(
            "| {format} | {:.2} | {} | {:.4} | {:.2e} | {:.2} % |",
            8.0 * bytes as f64 / (2 * c.kv_dim()) as f64,
            bytes * c.n_layers,
            (sums.surprise / n).exp(),
            sums.divergence / n,
            100.0 * sums.n_differ as f64 / n
        );
    }
    Ok(())
}

impl Sums {
    fn add(&mut self, reference: &[f64], logprobs: &[f64]) {
        self.divergence += reference.iter().zip(logprobs).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.n_differ += usize::from(likeliest(reference) != likeliest(logprobs));
    }
}

fn likeliest(logprobs: &[f64]) -> usize {
    (0..logprobs.len()).max_by(|&a, &b| logprobs[a].total_cmp(&logprobs[b])).unwrap_or(0)
}
