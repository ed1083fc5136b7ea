//! The options of one request.

use crate::{Error, TokenId};

/// How tokens are chosen for one sequence. Every option off, temperature 0: greedy, which is [`Default`].
///
/// The fields stand in the order in which they act ([the list](crate#what-happens-to-a-row-of-logits)). Names, meaning
/// and order are those of Hugging Face transformers' `generate`, so that a `generation_config.json` can be copied over;
/// the two OpenAI penalties and the seed are the exceptions.
///
/// ```
/// use komt_sample::SamplingParams;
/// let params = SamplingParams { temperature: 0.7, top_p: 0.95, seed: 7, ..SamplingParams::default() };
/// assert!(params.validate(32_000).is_ok());
/// let wrong = SamplingParams { top_p: 1.5, ..params };
/// assert_eq!(
///     wrong.validate(32_000).unwrap_err().to_string(),
///     "invalid sampling option top_p: expected a number in [0, 1], found 1.5"
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Added to the logits of single tokens, before anything else (transformers' `sequence_bias` with sequences of one
    /// token). `-inf` forbids a token. Each id at most once, below the vocabulary size.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Divides the positive and multiplies the negative logits of the tokens in the history, prompt included, once per
    /// token. 1 is off, above 1 discourages repetition. Above 0.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time it was generated; the prompt does not count. 0 is off. Any finite
    /// number; OpenAI's range is -2 to 2.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of each token that was generated; the prompt does not count. 0 is off. Any finite
    /// number; OpenAI's range is -2 to 2.
    pub presence_penalty: f32,
    /// Forbids every token that would complete a run of this many tokens which the history, prompt included, already
    /// has. 0 is off.
    pub no_repeat_ngram: usize,
    /// Divides all logits. 0 is greedy: the largest logit wins after the penalties above, and none of the fields below
    /// acts. At least 0.
    pub temperature: f32,
    /// Keeps the tokens whose logit is at least the k-th largest (more than k of them if some tie). 0 is off.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens that reaches this probability, over what is left by now. 1 is
    /// off, 0 keeps only the first. In \[0, 1\].
    pub top_p: f32,
    /// Keeps the tokens at least this many times as probable as the most probable one. 0 is off. In \[0, 1\].
    pub min_p: f32,
    /// Keeps the tokens whose surprise is nearest to the expected surprise until they reach this probability. 1 is off.
    /// Above 0, at most 1.
    pub typical_p: f32,
    /// Keeps the tokens that are at least this probable. 0 is off. At least 0, below 1.
    pub epsilon_cutoff: f32,
    /// Like `epsilon_cutoff`, with a bound that sinks where many tokens are plausible. 0 is off. At least 0, below 1.
    pub eta_cutoff: f32,
    /// Each of the filters above leaves at least this many tokens, if it was given so many. 1 is what `generate` uses
    /// without beams. At least 1.
    pub min_tokens_to_keep: usize,
    /// Together with the step this decides the random draw, whatever else was drawn before.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            logit_bias: Vec::new(),
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            no_repeat_ngram: 0,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            min_tokens_to_keep: 1,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// The most probable token at each step; no chance involved.
    pub fn greedy() -> Self {
        Self::default()
    }

    /// The settings on the model card of `davidkim205/komt-mistral-7b-v1`: temperature 0.8, top_p 0.8, top_k 100.
    ///
    /// The card's limit of 1,024 new tokens and its padding with EOS are not about one row of logits: they belong to the
    /// options of the generation loop.
    pub fn komt_card() -> Self {
        Self { temperature: 0.8, top_p: 0.8, top_k: 100, ..Self::default() }
    }

    /// Whether the temperature is 0, so that the largest logit wins.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks every option, for a vocabulary of `vocab_size` tokens. [`Sampler::new`](crate::Sampler::new) does this
    /// too; call it to refuse a request early.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for the first option that cannot be used.
    pub fn validate(&self, vocab_size: usize) -> Result<(), Error> {
        let ids = u32::MAX as usize;
        require((1..=ids).contains(&vocab_size), "vocab_size", "a number in [1, 2^32)", vocab_size)?;
        self.validate_bias(vocab_size)?;
        let (rep, temp) = (self.repetition_penalty, self.temperature);
        require(rep > 0.0 && rep.is_finite(), "repetition_penalty", "a finite number above 0", rep)?;
        for (field, x) in
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)]
        {
            require(x.is_finite(), field, "a finite number", x)?;
        }
        require(temp >= 0.0 && temp.is_finite(), "temperature", "a finite number, at least 0", temp)?;
        for (field, x) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            require((0.0..=1.0).contains(&x), field, "a number in [0, 1]", x)?;
        }
        let typical = self.typical_p;
        require(typical > 0.0 && typical <= 1.0, "typical_p", "a number in (0, 1]", typical)?;
        for (field, x) in [("epsilon_cutoff", self.epsilon_cutoff), ("eta_cutoff", self.eta_cutoff)] {
            require((0.0..1.0).contains(&x), field, "a number in [0, 1)", x)?;
        }
        let keep = self.min_tokens_to_keep;
        require(keep >= 1, "min_tokens_to_keep", "at least 1", keep)
    }

    /// Ids inside the vocabulary and not named twice; values that cannot make a logit NaN or +inf by themselves.
    fn validate_bias(&self, vocab_size: usize) -> Result<(), Error> {
        let mut ids: Vec<TokenId> = self.logit_bias.iter().map(|&(id, _)| id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            require(false, "logit_bias", "each token at most once", format_args!("token {} twice", pair[0]))?;
        }
        for &(id, bias) in &self.logit_bias {
            let expected = format!("token ids below the vocabulary size {vocab_size}");
            require((id as usize) < vocab_size, "logit_bias", &expected, id)?;
            require(
                bias.is_finite() || bias == f32::NEG_INFINITY,
                "logit_bias",
                "finite numbers or -inf",
                format_args!("{bias} for token {id}"),
            )?;
        }
        Ok(())
    }
}

fn require(
    ok: bool,
    field: &'static str,
    expected: &str,
    found: impl std::fmt::Display,
) -> Result<(), Error> {
    if ok {
        return Ok(());
    }
    Err(Error::InvalidOption { field, expected: expected.into(), found: found.to_string() })
}
