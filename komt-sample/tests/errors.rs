//! Bad input: each a typed error that names the thing, what was expected and what was found; never a token.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not take for tests

use komt_sample::{Error, Sampler, SamplingParams};

const NEG: f32 = f32::NEG_INFINITY;
const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

fn card() -> SamplingParams {
    SamplingParams::komt_card()
}

/// The field that is refused, by `validate` and by `Sampler::new` alike.
fn refused(params: SamplingParams) -> &'static str {
    let error = params.validate(100).unwrap_err();
    assert_eq!(Sampler::new(params, 100).unwrap_err(), error);
    match error {
        Error::InvalidOption { field, .. } => field,
        other => panic!("{other}"),
    }
}

#[test]
fn every_option_has_its_range() {
    for x in [NAN, INF, -0.1] {
        assert_eq!(refused(SamplingParams { temperature: x, ..card() }), "temperature");
        assert_eq!(refused(SamplingParams { top_p: x, ..card() }), "top_p");
        assert_eq!(refused(SamplingParams { min_p: x, ..card() }), "min_p");
        assert_eq!(refused(SamplingParams { typical_p: x, ..card() }), "typical_p");
        assert_eq!(refused(SamplingParams { epsilon_cutoff: x, ..card() }), "epsilon_cutoff");
        assert_eq!(refused(SamplingParams { eta_cutoff: x, ..card() }), "eta_cutoff");
        assert_eq!(refused(SamplingParams { repetition_penalty: x, ..card() }), "repetition_penalty");
    }
    assert_eq!(refused(SamplingParams { top_p: 1.01, ..card() }), "top_p");
    assert_eq!(refused(SamplingParams { min_p: 1.01, ..card() }), "min_p");
    assert_eq!(refused(SamplingParams { typical_p: 0.0, ..card() }), "typical_p");
    assert_eq!(refused(SamplingParams { epsilon_cutoff: 1.0, ..card() }), "epsilon_cutoff");
    assert_eq!(refused(SamplingParams { eta_cutoff: 1.0, ..card() }), "eta_cutoff");
    assert_eq!(refused(SamplingParams { repetition_penalty: 0.0, ..card() }), "repetition_penalty");
    assert_eq!(refused(SamplingParams { frequency_penalty: NAN, ..card() }), "frequency_penalty");
    assert_eq!(refused(SamplingParams { presence_penalty: NEG, ..card() }), "presence_penalty");
    assert_eq!(refused(SamplingParams { min_tokens_to_keep: 0, ..card() }), "min_tokens_to_keep");
    for bias in [vec![(100, 1.0)], vec![(3, NAN)], vec![(3, INF)], vec![(3, 1.0), (4, 0.0), (3, 2.0)]] {
        assert_eq!(refused(SamplingParams { logit_bias: bias, ..card() }), "logit_bias");
    }
}

#[test]
fn the_ends_of_the_ranges_are_in() {
    let low = SamplingParams { temperature: -0.0, top_p: 0.0, min_p: 0.0, typical_p: 1e-6, ..card() };
    let filters =
        SamplingParams { typical_p: 0.5, epsilon_cutoff: 0.99, eta_cutoff: 0.99, min_p: 1.0, ..card() };
    let high = SamplingParams { top_k: usize::MAX, min_tokens_to_keep: usize::MAX, ..filters };
    let bias = SamplingParams { logit_bias: vec![(99, NEG), (0, -2.0)], frequency_penalty: -2.0, ..card() };
    for params in [low, high, bias, SamplingParams::greedy()] {
        let mut sampler = Sampler::new(params, 100).unwrap();
        assert!(sampler.sample(&mut [0.5; 100], &[1, 2], 1, 0).unwrap() < 100);
    }
}

#[test]
fn the_vocabulary_size_too() {
    let expected = "invalid sampling option vocab_size: expected a number in [1, 2^32), found 0";
    assert_eq!(Sampler::new(card(), 0).unwrap_err().to_string(), expected);
    assert!(Sampler::new(SamplingParams::greedy(), u32::MAX as usize).is_ok());
    assert!(Sampler::new(SamplingParams::greedy(), u32::MAX as usize + 1).is_err());
}

/// The same error from all three methods, greedy and not; the sampler is usable afterwards.
fn fails(params: SamplingParams, row: &[f32], history: &[u32], n_prompt: usize) -> Error {
    let mut sampler = Sampler::new(params, 4).unwrap();
    let error = sampler.sample(&mut row.to_vec(), history, n_prompt, 0).unwrap_err();
    assert_eq!(
        sampler.process(&mut row.to_vec(), history, n_prompt).unwrap_err().to_string(),
        error.to_string()
    );
    let probabilities = sampler.probabilities(&mut row.to_vec(), history, n_prompt);
    assert_eq!(probabilities.unwrap_err().to_string(), error.to_string());
    assert_eq!(sampler.sample(&mut [9.0, 0.0, 0.0, 0.0], &[], 0, 0), Ok(0));
    error
}

#[test]
fn rows_that_give_no_token() {
    for params in [card(), SamplingParams::greedy()] {
        let fails = |row: &[f32]| fails(params.clone(), row, &[], 0);
        assert_eq!(fails(&[1.0; 3]), Error::LogitsLength { expected: 4, found: 3 });
        assert_eq!(fails(&[]), Error::LogitsLength { expected: 4, found: 0 });
        assert_eq!(fails(&[1.0, NEG, INF, NAN]), Error::NonFinite { index: 2, value: INF });
        assert!(
            matches!(fails(&[1.0, NAN, INF, 1.0]), Error::NonFinite { index: 1, value } if value.is_nan())
        );
        assert!(matches!(fails(&[1.0, 1.0, 1.0, -NAN]), Error::NonFinite { index: 3, .. }));
        assert_eq!(fails(&[NEG; 4]), Error::NoTokenLeft { vocab_size: 4 });
    }
}

#[test]
fn options_that_leave_no_token() {
    let banned = SamplingParams { no_repeat_ngram: 1, ..SamplingParams::greedy() };
    let row = [1.0, 2.0, NEG, NEG];
    let mut sampler = Sampler::new(banned, 4).unwrap();
    assert_eq!(sampler.sample(&mut row.to_vec(), &[0, 1], 1, 0), Err(Error::NoTokenLeft { vocab_size: 4 }));
    // A banned token does not hide what the model gave.
    let error = sampler.sample(&mut [INF, 0.0, 0.0, 0.0], &[0], 1, 0);
    assert_eq!(error, Err(Error::NonFinite { index: 0, value: INF }));
}

#[test]
fn options_that_overflow() {
    let cold = SamplingParams { temperature: 1e-40, ..card() };
    let mut sampler = Sampler::new(cold, 2).unwrap();
    assert_eq!(sampler.sample(&mut [-1.0, 1.0], &[], 0, 0), Err(Error::NonFinite { index: 1, value: INF }));
    assert_eq!(sampler.sample(&mut [-1.0, 0.0], &[], 0, 0), Ok(1));
    // -inf - (-inf) is NaN.
    let absurd = SamplingParams { frequency_penalty: f32::MIN, ..card() };
    let mut sampler = Sampler::new(absurd, 2).unwrap();
    let error = sampler.sample(&mut [NEG, 0.0], &[0, 0], 0, 0).unwrap_err();
    assert!(matches!(error, Error::NonFinite { index: 0, value } if value.is_nan()), "{error}");
}

#[test]
fn a_prompt_longer_than_the_history() {
    let error = fails(card(), &[1.0; 4], &[1, 2], 3);
    assert_eq!(error, Error::PromptLength { n_prompt: 3, history_len: 2 });
}

#[test]
fn messages_name_the_thing_expected_and_found() {
    let message = |p: SamplingParams| p.validate(32_000).unwrap_err().to_string();
    let bias = |b| message(SamplingParams { logit_bias: b, ..card() });
    assert_eq!(
        bias(vec![(32_000, 1.0)]),
        "invalid sampling option logit_bias: expected token ids below the vocabulary size 32000, found 32000"
    );
    assert_eq!(
        bias(vec![(7, 1.0), (7, 2.0)]),
        "invalid sampling option logit_bias: expected each token at most once, found token 7 twice"
    );
    assert_eq!(
        bias(vec![(7, NAN)]),
        "invalid sampling option logit_bias: expected finite numbers or -inf, found NaN for token 7"
    );
    assert_eq!(
        fails(card(), &[0.0, NAN, 0.0, 0.0], &[], 0).to_string(),
        "logit of token 1: expected a finite number or -inf, found NaN"
    );
}
