//! Penalties, bias and the n-gram rule on rows that can be computed in the head.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not take for tests

use komt_sample::{Sampler, SamplingParams, TokenId};

const NEG: f32 = f32::NEG_INFINITY;

fn process(params: SamplingParams, row: &[f32], history: &[TokenId], n_prompt: usize) -> Vec<f32> {
    let mut out = row.to_vec();
    let mut sampler = Sampler::new(params, row.len()).unwrap();
    sampler.process(&mut out, history, n_prompt).unwrap();
    // The counts are cleared: a second row sees the same penalties.
    let mut again = row.to_vec();
    sampler.process(&mut again, history, n_prompt).unwrap();
    assert_eq!(out, again);
    out
}

fn off() -> SamplingParams {
    SamplingParams::default()
}

#[test]
fn frequency_and_presence_count_generated_tokens_only() {
    let row = [1.0, 1.0, 1.0, 1.0];
    // The prompt is 0 0 1; generated: 1 twice, 2 three times.
    let history = [0, 0, 1, 1, 2, 1, 2, 2];
    let frequency = SamplingParams { frequency_penalty: 0.5, ..off() };
    assert_eq!(process(frequency.clone(), &row, &history, 3), [1.0, 0.0, -0.5, 1.0]);
    let presence = SamplingParams { presence_penalty: 0.25, ..off() };
    assert_eq!(process(presence, &row, &history, 3), [1.0, 0.75, 0.75, 1.0]);
    let both = SamplingParams { presence_penalty: 0.25, ..frequency };
    assert_eq!(process(both.clone(), &row, &history, 3), [1.0, -0.25, -0.75, 1.0]);
    assert_eq!(process(both.clone(), &row, &history, history.len()), row);
    let rewards = SamplingParams { frequency_penalty: -1.0, ..off() };
    assert_eq!(process(rewards, &row, &history, 3), [1.0, 3.0, 4.0, 1.0]);
    // Ids that the row does not have are passed over.
    assert_eq!(process(both, &row, &[9, 4_000_000_000, 3], 0), [1.0, 1.0, 1.0, 0.25]);
}

#[test]
fn repetition_penalty_is_applied_once_per_token_and_before_the_other_two() {
    let repetition = SamplingParams { repetition_penalty: 2.0, ..off() };
    assert_eq!(
        process(repetition.clone(), &[1.0, -1.0, 3.0, NEG], &[0, 0, 1, 0, 3, 77], 6),
        [0.5, -2.0, 3.0, NEG]
    );
    // (3 / 2) - 2 * 0.5, not (3 - 1) / 2, which would be 1.
    let all = SamplingParams { frequency_penalty: 0.5, ..repetition };
    assert_eq!(process(all, &[3.0, 1.0], &[0, 0], 0), [0.5, 1.0]);
}

#[test]
fn bias_comes_first() {
    // (1 + 3) / 2 = 2; (-3 + 1) * 2 = -4; a forbidden token stays so.
    let params = SamplingParams {
        logit_bias: vec![(2, NEG), (0, 3.0), (1, 1.0)],
        repetition_penalty: 2.0,
        ..SamplingParams::default()
    };
    assert_eq!(process(params, &[1.0, -3.0, 9.0], &[0, 1, 2], 3), [2.0, -4.0, NEG]);
}

#[test]
fn no_ngram_twice() {
    let row = [0.0; 10];
    let removed = |n, history: &[TokenId]| {
        let out = process(SamplingParams { no_repeat_ngram: n, ..off() }, &row, history, 0);
        (0..10u32).filter(|&id| out[id as usize] == NEG).collect::<Vec<_>>()
    };
    assert_eq!(removed(1, &[4, 4, 2]), [2, 4]);
    assert_eq!(removed(2, &[5, 6, 5, 7, 5]), [6, 7]);
    assert_eq!(removed(3, &[5, 6, 7, 9, 5, 6]), [7]);
    assert_eq!(removed(3, &[5, 6, 99, 9, 5, 6]), []);
    // Too short to hold an n-gram, or just long enough without one that recurs.
    assert_eq!(removed(3, &[5, 6]), []);
    assert_eq!(removed(3, &[5, 6, 5]), []);
    assert_eq!(removed(2, &[5, 5]), [5]);
    assert_eq!(removed(usize::MAX, &[5, 5]), []);
    assert_eq!(removed(1, &[]), []);
}

#[test]
fn greedy_sees_the_penalties_but_no_filter() {
    let params = SamplingParams {
        repetition_penalty: 4.0,
        top_k: 1,
        top_p: 0.1,
        min_p: 1.0,
        ..SamplingParams::greedy()
    };
    assert_eq!(process(params.clone(), &[4.0, 2.0, 2.0], &[0], 1), [1.0, 2.0, 2.0]);
    let mut sampler = Sampler::new(params, 3).unwrap();
    assert_eq!(sampler.sample(&mut [4.0, 2.0, 2.0], &[0], 1, 0).unwrap(), 1);
    assert_eq!(sampler.probabilities(&mut [4.0, 2.0, 2.0], &[0], 1).unwrap(), [(1, 1.0)]);
}
