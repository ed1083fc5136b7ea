//! Logits of a model on CUDA beside those of the CPU.
#![allow(dead_code)]

use crate::cuda_support;
use crate::rounded::Rounded;
use crate::support::{self, cosine, embed};
use komt_core::kernels::Cuda;
use komt_core::kernels::cuda::CudaAct;
use komt_core::{
    Engine, EngineOptions, Event, GenerateOptions, Isa, KvFormat, LoadOptions, Model, Pooling,
    SamplingParams, ScoreOptions, Scorer, Weights,
};
use std::path::Path;

/// Logits less their mean: what softmax sees.
fn centred(row: &[f32]) -> Vec<f32> {
    let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / row.len() as f64;
    row.iter().map(|&v| (f64::from(v) - mean) as f32).collect()
}

fn top_two(row: &[f32]) -> (usize, f32) {
    let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let second = (0..row.len()).filter(|&i| i != best).map(|i| row[i]).fold(f32::MIN, f32::max);
    (best, row[best] - second)
}

/// Mean square of the difference, and of `b`.
fn squares(a: &[f32], b: &[f32]) -> (f64, f64) {
    let mean = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>() / b.len() as f64;
    let pairs = || a.iter().zip(b).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    (mean(&mut pairs().map(|(a, b)| a - b)), mean(&mut pairs().map(|(_, b)| b)))
}

/// Rows of logits from CUDA, from the CPU, and from the CPU with CUDA's roundings ([`Rounded`]). What the roundings do to a
/// row of the CPU's is what they may do to CUDA's: it is another draw of the same noise. The bounds:
/// * NMSE of a row: four times that of the rounded CPU, as the noise of one row may be small by chance no less than the mean
///   over all rows. (Twice the amplitude: CUDA also rounds the weights of softmax.)
/// * Each logit: eight standard deviations (four, of a row of twice the amplitude).
/// * The best id is the same where the CPU's lead is more than six: over four standard deviations of a difference.
///
/// Returns how many leads are smaller.
pub fn compare(what: &str, got: &[Vec<f32>], rounded: &[Vec<f32>], expected: &[Vec<f32>]) -> usize {
    assert_eq!((got.len(), rounded.len()), (expected.len(), expected.len()), "{what}: rows");
    let noise = |rows: &[Vec<f32>]| -> Vec<f64> {
        let nmse = |(a, b): (&Vec<f32>, &Vec<f32>)| {
            let (error, square) = squares(&centred(a), &centred(b));
            error / square
        };
        rows.iter().zip(expected).map(nmse).collect()
    };
    let (errors, roundings) = (noise(got), noise(rounded));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mut unclear, mut worst) = (0, 0f64);
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let rounding = roundings[i].max(mean(&roundings));
        assert!(
            errors[i] <= 4.0 * rounding,
            "{what}, row {i}: NMSE {:e}, rounding alone {rounding:e}",
            errors[i]
        );
        let (got, expected) = (centred(got), centred(expected));
        let deviation = (rounding * squares(&got, &expected).1).sqrt();
        let error = got.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        assert!(error < 8.0 * deviation, "{what}, row {i}: a logit is off by {error}, deviation {deviation}");
        worst = worst.max(error / deviation);
        let (best, lead) = top_two(&expected);
        if f64::from(lead) > 6.0 * deviation {
            assert_eq!(top_two(&got).0, best, "{what}, row {i}: the best id, ahead by {lead}");
        } else {
            unclear += 1;
        }
    }
    eprintln!(
        "{what}: {} rows, NMSE {:.1e} (rounding alone {:.1e}), a logit is off by {worst:.1} deviations at most, {unclear} leads too small",
        got.len(),
        mean(&errors),
        mean(&roundings)
    );
    unclear
}

/// Logits of every position: the whole text as one prompt.
pub fn prefilled(model: &Model, ids: &[u32], kv: Option<KvFormat>) -> Vec<Vec<f32>> {
    let mut rows = vec![];
    let mut options = ScoreOptions::default().max_context(ids.len() + 1);
    options.kv_format = kv;
    let scorer = Scorer::with(model, options).unwrap();
    scorer.each_logits(ids.to_vec(), |_, row| rows.push(row.to_vec())).unwrap();
    rows
}

/// Log-probabilities of all ids after each of `texts[i][n_prompt..]`, decoded one forced token at a time, all sequences
/// together in each step.
pub fn decoded(
    model: &Model,
    texts: &[Vec<u32>],
    n_decode: usize,
    options: EngineOptions,
) -> Vec<Vec<Vec<f32>>> {
    let vocab_size = model.config().vocab_size;
    let one = GenerateOptions::default()
        .sampling(SamplingParams::greedy())
        .max_new_tokens(1)
        .ignore_eos(true)
        .logprobs(vocab_size);
    let mut engine = Engine::new(model, options).unwrap();
    let seqs: Vec<_> = texts.iter().map(|_| engine.open()).collect();
    let mut rows = vec![vec![]; texts.len()];
    for i in 0..=n_decode {
        for (&seq, ids) in seqs.iter().zip(texts) {
            let at = ids.len() - n_decode + i;
            let from = if i == 0 { 0 } else { at - 1 };
            engine.rewind(seq, from).unwrap();
            engine.append(seq, &ids[from..at], one.clone()).unwrap();
        }
        while !engine.is_idle() {
            for event in engine.step().unwrap() {
                if let Event::Token { seq, token, .. } = event {
                    let mut row = vec![f32::NAN; vocab_size];
                    token.top.iter().for_each(|&(id, logprob)| row[id as usize] = logprob);
                    rows[seqs.iter().position(|&s| s == seq).unwrap()].push(row);
                }
            }
        }
    }
    rows
}

/// Ids without a meaning.
pub fn prompt(model: &Model, n: usize, seed: u32) -> Vec<u32> {
    let vocab_size = model.config().vocab_size as u32;
    (0..n as u32).map(|i| (seed * 97 + i * i * 31 + i * 7 + 3) % vocab_size).collect()
}

/// A text of the model's own, so that its logits have a shape: a prompt of ids and what the CPU answers to it.
pub fn text(cpu: &Model, n_prompt: usize, n_decode: usize, seed: u32) -> Vec<u32> {
    let mut ids = prompt(cpu, n_prompt, seed);
    let mut engine =
        Engine::new(cpu, EngineOptions::default().max_context(ids.len() + n_decode + 2)).unwrap();
    let greedy = GenerateOptions::default().max_new_tokens(n_decode).ignore_eos(true);
    engine.submit(&ids, greedy.sampling(SamplingParams::greedy())).unwrap();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Token { token, .. } = event {
                ids.push(token.id);
            }
        }
    }
    ids
}

/// Prefill and decode of `dir` against the CPU on this device, with the same weights.
pub fn equals_the_cpu<A: CudaAct>(dir: &Path, weights: Weights, n_prompt: usize, n_decode: usize) {
    equals_the_cpu_with::<A>(dir, weights, None, n_prompt, n_decode);
}

/// The same with a cache in this format on both, else each with its own.
pub fn equals_the_cpu_with<A: CudaAct>(
    dir: &Path,
    weights: Weights,
    kv: Option<KvFormat>,
    n_prompt: usize,
    n_decode: usize,
) {
    let options = || LoadOptions::default().weights(weights);
    let cuda = Cuda::<A>::with(cuda_support::options()).unwrap();
    let gpu = Model::load_on(cuda.clone(), dir, options()).unwrap();
    let cpu = Model::load_on(support::cpu(Isa::detect()), dir, options()).unwrap();
    let rounded = Rounded::<A>::new(support::cpu(Isa::detect()));
    let rounded = Model::load_on(rounded, dir, options()).unwrap();
    let name = dir.file_name().unwrap().to_string_lossy().into_owned();
    let kv_name = kv.map_or(String::new(), |format| format!(", cache {format}"));
    let what = format!("{name} ({}{kv_name}) on {}", weights.name(), gpu.device_name());
    // Three sequences of different lengths, so that each step of decoding is padded to four rows.
    let texts = [n_prompt, 5, n_prompt / 2].map(|n| text(&cpu, n, n_decode, n as u32));

    let [got, rows, expected] = [&gpu, &rounded, &cpu].map(|model| prefilled(model, &texts[0], kv));
    let mut unclear = compare(&format!("{what}, prompt"), &got, &rows, &expected);
    let mut options = EngineOptions::default().max_context(n_prompt + n_decode + 2).max_seqs(4);
    options.kv_format = kv;
    let [got, rows, expected] =
        [&gpu, &rounded, &cpu].map(|model| decoded(model, &texts, n_decode, options).concat());
    assert_eq!(got.len(), 3 * (n_decode + 1));
    unclear += compare(&format!("{what}, decoding"), &got, &rows, &expected);
    assert!(cuda.counts().replays as usize > n_decode / 2, "{what}: {:?}", cuda.counts());
    let n_rows = texts[0].len() + expected.len();
    // 8 bits make noise that more leads of a random model do not stand out of.
    let part = if kv == Some(KvFormat::Q8) { 2 } else { 4 };
    assert!(part * unclear < n_rows, "{what}: {unclear} leads of {n_rows} too small to tell");

    for pooling in [Pooling::Mean, Pooling::Last] {
        let [got, expected] = [&gpu, &cpu].map(|model| embed(model, &texts[0], pooling, 0, true));
        let cosine = cosine(&got, &expected);
        assert!(cosine >= 0.999, "{what}: cosine of {pooling:?} embeddings {cosine}");
    }
}
