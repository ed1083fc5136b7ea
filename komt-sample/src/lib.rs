#![forbid(unsafe_code)]
//! From logits to a token id: the last step of a language model, useful without the rest of komt.
//!
//! A model ends in one number per token of its vocabulary, the logits. This crate turns such a row into the id of the
//! next token, the way Hugging Face transformers' `generate` does, and reproducibly: the same row, options, seed and
//! step give the same token, whatever else is being generated beside it.
//!
//! ```
//! use komt_sample::{Sampler, SamplingParams, TokenId};
//!
//! # fn main() -> Result<(), komt_sample::Error> {
//! // A "model" with 5 tokens that likes to go one up.
//! let model = |last: TokenId| (0..5).map(|id| if id == (last + 1) % 5 { 4.0 } else { 0.5 }).collect::<Vec<f32>>();
//!
//! let params = SamplingParams { seed: 42, ..SamplingParams::komt_card() };
//! let mut sampler = Sampler::new(params, 5)?;
//! let mut history: Vec<TokenId> = vec![0, 1]; // the prompt
//! let n_prompt = history.len();
//! for step in 0..3 {
//!     let mut logits = model(*history.last().expect("a prompt"));
//!     let id = sampler.sample(&mut logits, &history, n_prompt, step)?;
//!     history.push(id);
//! }
//! // top_p 0.8 leaves only the token one up: 4.0 / temperature 0.8 is far ahead of the others.
//! assert_eq!(history, [0, 1, 2, 3, 4]);
//! # Ok(())
//! # }
//! ```
//!
//! # What happens to a row of logits
//!
//! 1. [`logit_bias`](SamplingParams::logit_bias) is added.
//! 2. [`repetition_penalty`](SamplingParams::repetition_penalty), over prompt and generated tokens.
//! 3. [`frequency_penalty`](SamplingParams::frequency_penalty) and
//!    [`presence_penalty`](SamplingParams::presence_penalty), over generated tokens. (OpenAI's; transformers has none.)
//! 4. [`no_repeat_ngram`](SamplingParams::no_repeat_ngram) removes tokens. Removed means: logit -inf.
//! 5. At [`temperature`](SamplingParams::temperature) 0 the largest logit wins, and that is all.
//! 6. Otherwise the logits are divided by the temperature, and filters remove tokens, each looking at the distribution
//!    that the one before it left, renormalised: [`top_k`](SamplingParams::top_k), [`top_p`](SamplingParams::top_p),
//!    [`min_p`](SamplingParams::min_p), [`typical_p`](SamplingParams::typical_p),
//!    [`epsilon_cutoff`](SamplingParams::epsilon_cutoff), [`eta_cutoff`](SamplingParams::eta_cutoff).
//! 7. One token is drawn from what is left.
//!
//! This is the order of `_get_logits_processor` in transformers 5.23, `generation/utils.py`. Each step is a function in
//! `filter.rs` beside its formula and source, and hundreds of rows that went through transformers are the tests.
//!
//! # Ties, and the draw
//!
//! Where tokens tie at a filter's border, transformers keeps all of them (top_k, typical_p, the cutoffs) or lets
//! torch's sort decide (top_p; `min_tokens_to_keep` of min_p). In the second case the higher id stays here. A greedy
//! tie goes to the lower id, as torch.argmax.
//!
//! The draw is a number of the [`seed`](SamplingParams::seed) and the step, not the state of a generator: a sequence
//! that is resumed, replayed or batched with others draws the same. Probabilities are added as integers, so no rounding
//! falls between two tokens.
//!
//! # What is an error
//!
//! A NaN or +inf among the logits, a row without a finite logit, an option out of its range: each is an [`Error`], never
//! a token.

mod error;
mod filter;
mod logprob;
mod params;
mod rng;
mod sampler;

pub use error::Error;
pub use logprob::{log_sum_exp, logprob_of, top_logprobs};
pub use params::SamplingParams;
pub use sampler::Sampler;

/// The number of a token in the vocabulary.
pub type TokenId = u32;

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Sampler>();
    assert_send_sync::<SamplingParams>();
    assert_send_sync::<Error>();
};
