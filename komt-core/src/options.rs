//! [`GenerateOptions`]: how one answer is generated.

use crate::{Error, Result};
use komt_sample::SamplingParams;

/// How one answer is generated. The default: greedy, 256 new tokens, until EOS.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// From logits to a token.
    pub sampling: SamplingParams,
    /// The longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Texts that end the answer. They are looked for in the text, across the borders of tokens, and are not part of it.
    pub stop: Vec<String>,
    /// Goes on after EOS, until another end.
    pub ignore_eos: bool,
    /// `Some(n)`: each token comes with its log-probability and the `n` likeliest, of the model's own distribution
    /// (before penalties, temperature and filters).
    pub logprobs: Option<usize>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            sampling: SamplingParams::greedy(),
            max_new_tokens: 256,
            stop: vec![],
            ignore_eos: false,
            logprobs: None,
        }
    }
}

impl GenerateOptions {
    /// What the model card of komt-mistral-7b-v1 uses: temperature 0.8, top_p 0.8, top_k 100, 1,024 new tokens. Its pad
    /// token is EOS; nothing is ever padded here.
    pub fn komt_card() -> Self {
        Self { sampling: SamplingParams::komt_card(), max_new_tokens: 1024, ..Self::default() }
    }

    /// With these sampling options.
    pub fn sampling(mut self, sampling: SamplingParams) -> Self {
        self.sampling = sampling;
        self
    }

    /// With this longest answer.
    pub fn max_new_tokens(mut self, n: usize) -> Self {
        self.max_new_tokens = n;
        self
    }

    /// With one more text that ends the answer.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }

    /// Going on after EOS or not.
    pub fn ignore_eos(mut self, ignore: bool) -> Self {
        self.ignore_eos = ignore;
        self
    }

    /// With log-probabilities of the token and of the `n` likeliest.
    pub fn logprobs(mut self, n: usize) -> Self {
        self.logprobs = Some(n);
        self
    }

    pub(crate) fn check(&self, vocab_size: usize) -> Result<()> {
        let wrong =
            |name, expected: &str, found: String| Error::Option { name, expected: expected.into(), found };
        self.sampling.validate(vocab_size)?;
        if self.max_new_tokens == 0 {
            return Err(wrong("max_new_tokens", "at least 1", "0".into()));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(wrong("stop", "texts that are not empty", format!("{:?}", self.stop)));
        }
        if self.logprobs.is_some_and(|n| n > vocab_size) {
            let expected = format!("at most {vocab_size}, the vocabulary");
            return Err(wrong("logprobs", &expected, format!("{:?}", self.logprobs)));
        }
        Ok(())
    }
}
