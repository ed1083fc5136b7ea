//! A row of logits to a token, for the vocabulary of Mistral.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use komt_sample::{Sampler, SamplingParams};

const VOCAB_SIZE: usize = 32_000;

/// Logits of about the spread that models have, from a counter: a few likely tokens above a broad rest.
fn logits() -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut normal = || 3.5 * (uniform() + uniform() + uniform() + uniform() - 2.0); // deviation 2
    let mut logits: Vec<f32> = (0..VOCAB_SIZE).map(|_| normal()).collect();
    logits.iter_mut().step_by(1601).for_each(|l| *l += 12.0);
    logits
}

fn sample(c: &mut Criterion) {
    let all = SamplingParams {
        logit_bias: vec![(5, -1.0), (6, f32::NEG_INFINITY)],
        repetition_penalty: 1.1,
        frequency_penalty: 0.1,
        presence_penalty: 0.1,
        no_repeat_ngram: 3,
        temperature: 0.8,
        top_k: 1000,
        top_p: 0.95,
        min_p: 0.001,
        typical_p: 0.99,
        epsilon_cutoff: 1e-5,
        eta_cutoff: 1e-5,
        ..SamplingParams::default()
    };
    let no_filter = SamplingParams { temperature: 0.8, ..SamplingParams::default() };
    let top_p = SamplingParams { top_p: 0.9, ..no_filter.clone() };
    let cases = [
        ("greedy", SamplingParams::greedy()),
        ("temperature", no_filter),
        ("top_p", top_p),
        ("komt_card", SamplingParams::komt_card()),
        ("all", all),
    ];
    let (logits, history) = (logits(), (0..512u32).map(|i| i * 7919 % 32_000).collect::<Vec<_>>());
    let mut group = c.benchmark_group("sample");
    for (name, params) in cases {
        let mut sampler = Sampler::new(params, VOCAB_SIZE).unwrap();
        let mut step = 0;
        // Sampling changes the row; copying it again is not timed.
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || logits.clone(),
                |row| {
                    step += 1;
                    sampler.sample(row, &history, 256, step).unwrap()
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, sample);
criterion_main!(benches);
