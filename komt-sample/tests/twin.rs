//! The fast path against its naive twin: the same definitions as whole-row, sort-everything code, which a reader can
//! compare with the formulas line by line. They must agree bit for bit.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not take for tests

use komt_sample::{Error, Sampler, SamplingParams, TokenId};
use proptest::prelude::*;

const NEG: f32 = f32::NEG_INFINITY;

/// `exp(x - max) / sum`, each rounded to f32.
fn softmax(row: &[f32]) -> Vec<f32> {
    let max = row.iter().copied().fold(NEG, f32::max);
    let exps: Vec<f64> = row.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| (e / sum) as f32).collect()
}

/// `-ln(probability)`; +inf for removed tokens.
fn surprises(row: &[f32]) -> Vec<f32> {
    let max = row.iter().copied().fold(NEG, f32::max);
    let ln_sum = row.iter().map(|&x| f64::from(x - max).exp()).sum::<f64>().ln() as f32;
    row.iter().map(|&x| -((x - max) - ln_sum)).collect()
}

fn entropy(row: &[f32]) -> f32 {
    let terms = softmax(row).into_iter().zip(surprises(row)).filter(|&(p, _)| p > 0.0);
    terms.map(|(p, s)| f64::from(p) * f64::from(s)).sum::<f64>() as f32
}

/// Ids by ascending value; equal ones by ascending id, because the sort is stable.
fn ascending(values: &[f32]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..values.len()).collect();
    ids.sort_by(|&a, &b| values[a].partial_cmp(&values[b]).unwrap());
    ids
}

fn kth_largest(row: &[f32], k: usize) -> f32 {
    row[ascending(row)[row.len() - k.min(row.len())]]
}

fn top_k(row: &mut [f32], k: usize) {
    let border = kth_largest(row, k);
    row.iter_mut().filter(|x| **x < border).for_each(|x| *x = NEG);
}

fn top_p(row: &mut [f32], p: f32, keep: usize) {
    let removable = (1.0 - p.to_string().parse::<f64>().unwrap()) as f32;
    let (probs, order) = (softmax(row), ascending(row));
    let mut cumulative = 0.0f64;
    for &id in order.iter().take(row.len().saturating_sub(keep)) {
        cumulative += f64::from(probs[id]);
        if cumulative as f32 <= removable {
            row[id] = NEG;
        }
    }
}

fn min_p(row: &mut [f32], p: f32, keep: usize) {
    let (probs, order) = (softmax(row), ascending(row));
    let bound = p * probs.iter().copied().fold(0.0, f32::max);
    for &id in order.iter().take(row.len().saturating_sub(keep)) {
        if probs[id] < bound {
            row[id] = NEG;
        }
    }
}

fn typical_p(row: &mut [f32], mass: f32, keep: usize) {
    let (probs, expected) = (softmax(row), entropy(row));
    let distances: Vec<f32> = surprises(row).iter().map(|s| (s - expected).abs()).collect();
    let order = ascending(&distances);
    let mut cumulative = 0.0f64;
    let reached = order.iter().position(|&id| {
        cumulative += f64::from(probs[id]);
        cumulative as f32 >= mass
    });
    let border = distances[order[reached.unwrap_or(row.len() - 1)]];
    for &id in order.iter().skip(keep) {
        if distances[id] > border {
            row[id] = NEG;
        }
    }
}

fn cutoff(row: &mut [f32], bound: f32, keep: usize) {
    let (probs, border) = (softmax(row), kth_largest(row, keep));
    for (x, p) in row.iter_mut().zip(probs) {
        if p < bound && *x < border {
            *x = NEG;
        }
    }
}

/// What `Sampler::process` does at a temperature above 0.
fn process(params: &SamplingParams, row: &mut [f32], history: &[TokenId], n_prompt: usize) {
    let keep = params.min_tokens_to_keep;
    for (id, x) in row.iter_mut().enumerate() {
        let id = id as TokenId;
        let count = history[n_prompt..].iter().filter(|&&t| t == id).count() as f32;
        *x += params.logit_bias.iter().find(|b| b.0 == id).map_or(0.0, |b| b.1);
        if history.contains(&id) {
            *x = if *x < 0.0 { *x * params.repetition_penalty } else { *x / params.repetition_penalty };
        }
        if count > 0.0 {
            *x -= count * params.frequency_penalty + params.presence_penalty;
        }
        let continued = [history, &[id]].concat();
        let n = params.no_repeat_ngram;
        if n > 0
            && continued.len() > n
            && continued[..history.len()].windows(n).any(|w| continued.ends_with(w))
        {
            *x = NEG;
        }
        *x /= params.temperature;
    }
    if row.iter().all(|&x| x == NEG) {
        return; // no distribution to look at
    }
    if params.top_k > 0 {
        top_k(row, params.top_k.max(keep));
    }
    if params.top_p < 1.0 {
        top_p(row, params.top_p, keep);
    }
    if params.min_p > 0.0 {
        min_p(row, params.min_p, keep);
    }
    if params.typical_p < 1.0 {
        typical_p(row, params.typical_p, keep);
    }
    if params.epsilon_cutoff > 0.0 {
        cutoff(row, params.epsilon_cutoff, keep);
    }
    if params.eta_cutoff > 0.0 {
        let e = params.eta_cutoff;
        cutoff(row, e.min(e.sqrt() * (-entropy(row)).exp()), keep);
    }
}

/// Rows with and without ties, some tokens forbidden, lengths around the sizes in which the fast path sorts (64, then
/// 256 more) and selects (2k).
fn rows() -> impl Strategy<Value = Vec<f32>> {
    let len = prop_oneof![1usize..10, 60usize..70, 315usize..325, 400usize..700];
    let logit = prop_oneof![
        8 => -12.0f32..12.0,
        4 => (-8i32..8).prop_map(|x| x as f32 / 2.0),
        1 => Just(NEG),
        1 => Just(-0.0),
    ];
    let flat = (-3i32..3).prop_map(|x| x as f32 / 4.0);
    len.prop_flat_map(move |n| {
        prop_oneof![
            2 => prop::collection::vec(logit.clone(), n),
            1 => prop::collection::vec(flat.clone(), n),
            1 => prop::collection::vec(-0.01f32..0.01, n),
        ]
    })
}

/// On half of the time, off the other half.
fn option<T: Clone + std::fmt::Debug + 'static>(
    off: T,
    on: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![Just(off), on]
}

prop_compose! {
    fn params()(
        temperature in prop_oneof![Just(1.0), 0.1f32..3.0],
        top_k in option(0, prop_oneof![1usize..8, 30usize..70, 100usize..800]),
        top_p in option(1.0, prop_oneof![0.0f32..1.0, (0u8..20).prop_map(|x| f32::from(x) / 20.0)]),
        min_p in option(0.0, prop_oneof![0.0f32..=1.0, 0.0f32..0.05]),
        typical_p in option(1.0, 0.01f32..1.0),
        epsilon_cutoff in option(0.0, prop_oneof![0.0f32..0.9, 0.0f32..0.01]),
        eta_cutoff in option(0.0, prop_oneof![0.0f32..0.9, 0.0f32..0.01]),
        min_tokens_to_keep in option(1, 1usize..100),
        repetition_penalty in option(1.0, 0.5f32..2.0),
        no_repeat_ngram in option(0, 1usize..4),
        (frequency_penalty, presence_penalty) in option((0.0, 0.0), (-2.0f32..2.0, -2.0f32..2.0)),
        bias in option(vec![], prop::collection::vec((0u32..9, prop_oneof![-5.0f32..5.0, Just(NEG)]), 0..4)),
        seed: u64,
    ) -> SamplingParams {
        let mut logit_bias = bias;
        logit_bias.sort_by_key(|b| b.0);
        logit_bias.dedup_by_key(|b| b.0);
        SamplingParams {
            temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, min_tokens_to_keep,
            repetition_penalty, no_repeat_ngram, frequency_penalty, presence_penalty, logit_bias, seed,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fast_path_equals_its_naive_twin(
        row in rows(), mut params in params(), history in prop::collection::vec(0u32..12, 0..20),
        prompt_share in 0.0f64..=1.0, step: u64,
    ) {
        params.logit_bias.retain(|b| (b.0 as usize) < row.len());
        let n_prompt = (history.len() as f64 * prompt_share) as usize;
        let mut sampler = Sampler::new(params.clone(), row.len()).unwrap();

        let mut naive = row.clone();
        process(&params, &mut naive, &history, n_prompt);
        let mut fast = row.clone();
        let result = sampler.process(&mut fast, &history, n_prompt);
        if naive.iter().all(|&x| x == NEG) {
            prop_assert_eq!(result, Err(Error::NoTokenLeft { vocab_size: row.len() }));
            return Ok(());
        }
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(&fast, &naive);

        let probs = sampler.probabilities(&mut row.clone(), &history, n_prompt).unwrap();
        let want = softmax(&naive);
        let mut have = vec![0.0f64; row.len()];
        probs.iter().for_each(|&(id, p)| have[id as usize] = p);
        // Each is one rounding to f32 away from a set of numbers that sums to 1.
        prop_assert!(have.iter().zip(&want).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-6));

        let drawn = sampler.sample(&mut row.clone(), &history, n_prompt, step).unwrap();
        prop_assert!(want[drawn as usize] > 0.0);
    }

    #[test]
    fn greedy_takes_the_first_largest(row in rows(), seed: u64, step: u64) {
        let mut sampler = Sampler::new(SamplingParams { seed, ..SamplingParams::greedy() }, row.len()).unwrap();
        let largest = row.iter().copied().fold(NEG, f32::max);
        match sampler.sample(&mut row.clone(), &[], 0, step) {
            Ok(id) => prop_assert_eq!(id as usize, row.iter().position(|&x| x == largest).unwrap()),
            Err(e) => {
                prop_assert_eq!(e, Error::NoTokenLeft { vocab_size: row.len() });
                prop_assert_eq!(largest, NEG);
            }
        }
    }
}

/// The size that matters, once: 32,000 tokens through the model card's settings and through top_p alone.
#[test]
fn a_whole_vocabulary() {
    // A fixed rough bell from sums of a multiplicative sequence; quarter steps in the tail, so that many tie.
    let row: Vec<f32> = (0..32_000u64)
        .map(|i| {
            let r = |k: u64| ((i * k) % 32_003) as f32 / 32_003.0;
            let x = (r(48_271) + r(69_621) + r(16_807) + r(39_373) - 2.0) * 6.0;
            if x < 3.0 { (x * 4.0).round() / 4.0 } else { x }
        })
        .collect();
    let card = SamplingParams::komt_card();
    let nucleus = SamplingParams { top_k: 0, top_p: 0.95, ..card.clone() };
    let flat = SamplingParams { temperature: 3.0, typical_p: 0.97, ..nucleus.clone() };
    for params in [card, nucleus, flat] {
        let mut sampler = Sampler::new(params.clone(), row.len()).unwrap();
        let (mut fast, mut naive) = (row.clone(), row.clone());
        sampler.process(&mut fast, &[], 0).unwrap();
        process(&params, &mut naive, &[], 0);
        assert!(fast == naive, "{params:?}");
    }
}
