//! What can go wrong between logits and a token.

/// Why no token was chosen. Every variant names the thing, what was expected and what was found.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of [`SamplingParams`](crate::SamplingParams), or the vocabulary size, cannot be used.
    #[error("invalid sampling option {field}: expected {expected}, found {found}")]
    InvalidOption {
        /// The field's name, as in the struct.
        field: &'static str,
        /// The values it may have.
        expected: String,
        /// The value it has.
        found: String,
    },
    /// The row of logits is not one per token of the vocabulary.
    #[error("a row of logits has one value per token of the vocabulary: expected {expected}, found {found}")]
    LogitsLength {
        /// The vocabulary size the sampler was made for.
        expected: usize,
        /// The length of the row that was given.
        found: usize,
    },
    /// More prompt tokens were announced than the history has tokens.
    #[error(
        "the prompt is the start of the history: expected at most {history_len} tokens, found {n_prompt}"
    )]
    PromptLength {
        /// The announced number of prompt tokens.
        n_prompt: usize,
        /// The length of the history that was given.
        history_len: usize,
    },
    /// A logit is NaN or +inf: given so by the model, or driven there by a penalty, a bias or the temperature.
    #[error("logit of token {index}: expected a finite number or -inf, found {value}")]
    NonFinite {
        /// The first token that has such a logit.
        index: usize,
        /// NaN or +inf.
        value: f32,
    },
    /// Every logit is -inf: given so by the model, or removed by a bias or the n-gram rule.
    #[error("all {vocab_size} tokens are removed (-inf): expected at least one finite logit")]
    NoTokenLeft {
        /// The number of logits looked at.
        vocab_size: usize,
    },
}
