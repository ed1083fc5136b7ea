//! [`Scorer`]: how likely a text is.

use crate::prefill::Prefill;
use crate::runner::Until;
use crate::{Error, Model, Result};
use komt_kernels::KvFormat;
use komt_sample::log_sum_exp;

/// How likely the tokens of a text are, each after those before it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// The tokens, BOS included.
    pub ids: Vec<u32>,
    /// ln p of `ids[1..]`: nothing predicts the first token.
    pub logprobs: Vec<f64>,
}

impl Score {
    /// ln p of the whole text after its first token.
    pub fn logprob(&self) -> f64 {
        self.logprobs.iter().sum()
    }

    /// e^(-mean ln p); `None` for a text of one token.
    pub fn perplexity(&self) -> Option<f64> {
        (!self.logprobs.is_empty()).then(|| (-self.logprob() / self.logprobs.len() as f64).exp())
    }
}

/// How a [`Scorer`] is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ScoreOptions {
    /// The longest text. `None`: as `EngineOptions::max_context`.
    pub max_context: Option<usize>,
    /// How keys and values are stored. `None`: as `EngineOptions::kv_format`.
    pub kv_format: Option<KvFormat>,
}

impl ScoreOptions {
    /// With this longest text.
    pub fn max_context(mut self, n: usize) -> Self {
        self.max_context = Some(n);
        self
    }

    /// With keys and values stored like this.
    pub fn kv_format(mut self, format: KvFormat) -> Self {
        self.kv_format = Some(format);
        self
    }
}

/// Scores texts. It takes `&self` and can be shared by threads, which then wait for each other.
///
/// ```
/// use komt_core::{LoadOptions, Model, Scorer};
/// # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo-model");
/// let model = Model::load(dir, LoadOptions::default())?;
/// let score = Scorer::new(&model, None)?.score("제주도는 섬입니다.")?;
/// assert_eq!(score.logprobs.len(), score.ids.len() - 1);
/// assert!(score.perplexity().unwrap() > 1.0);
/// # Ok::<(), komt_core::Error>(())
/// ```
pub struct Scorer {
    prefill: Prefill,
}

impl Scorer {
    /// A scorer for texts of up to `max_context` tokens; `None`: as `EngineOptions::max_context`.
    ///
    /// # Errors
    /// `Error::Option`, `Error::NotEnoughMemory`.
    pub fn new(model: &Model, max_context: Option<usize>) -> Result<Self> {
        Self::with(model, ScoreOptions { max_context, kv_format: None })
    }

    /// A scorer as `options` say.
    ///
    /// # Errors
    /// As [`Scorer::new`]; a format that the device has not.
    pub fn with(model: &Model, options: ScoreOptions) -> Result<Self> {
        let ScoreOptions { max_context, kv_format } = options;
        // Every row has logits: 128 rows of 32,000 are 16 MiB.
        const MAX_STEP_TOKENS: usize = 128;
        Ok(Self { prefill: Prefill::new(model, Until::Logits, MAX_STEP_TOKENS, max_context, kv_format)? })
    }

    /// Scores a text, with BOS in front where the tokenizer's files want one, as transformers has it. What it says of control tokens is text; to score
    /// those, encode it yourself and use [`Scorer::score_ids`].
    ///
    /// # Errors
    /// `Error::NoTokenizer`, `Error::EmptyPrompt`, `Error::TooLong`, the device's.
    pub fn score(&self, text: &str) -> Result<Score> {
        let tokenizer = self.prefill.model().tokenizer()?;
        let mut ids: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.adds_bos()).into_iter().collect();
        ids.extend(tokenizer.encode_plain(text)?);
        self.score_ids(ids)
    }

    /// Scores token ids, as they are.
    ///
    /// # Errors
    /// `Error::EmptyPrompt`, `Error::TokenId`, `Error::TooLong`, the device's.
    pub fn score_ids(&self, ids: Vec<u32>) -> Result<Score> {
        let mut logprobs = vec![];
        let texts = [ids];
        self.each_row(&texts, &mut |_, pos, logits| {
            if let Some(&next) = texts[0].get(pos + 1) {
                logprobs.push(f64::from(logits[next as usize]) - log_sum_exp(logits));
            }
        })?;
        let [ids] = texts;
        Ok(Score { ids, logprobs })
    }

    /// The logits of every position, `[n_tokens, vocab_size]`, shown row by row. `visit` must not use this scorer.
    ///
    /// # Errors
    /// As [`Scorer::score_ids`].
    pub fn each_logits(&self, ids: Vec<u32>, mut visit: impl FnMut(usize, &[f32])) -> Result<()> {
        self.each_row(&[ids], &mut |_, pos, logits| visit(pos, logits))
    }

    /// There is one text: its errors need no number.
    fn each_row(&self, texts: &[Vec<u32>; 1], visit: &mut dyn FnMut(usize, usize, &[f32])) -> Result<()> {
        self.prefill.each_row(texts, visit).map_err(|error| match error {
            Error::Text { source, .. } => *source,
            error => error,
        })
    }
}

impl std::fmt::Debug for Scorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scorer").field("model", self.prefill.model()).finish()
    }
}
