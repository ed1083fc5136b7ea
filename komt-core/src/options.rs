//! [`GenerateOptions`]: how one answer is generated; [`EngineOptions`]: how large an engine is.

use crate::fields::Fields;
use crate::runner::Capacity;
use crate::{Config, Error, Result};
use komt_cache::{PAGE, ring_len};
use komt_kernels::{KvFormat, StepCapacity};
use komt_sample::SamplingParams;
use std::path::Path;

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

/// Ids that `generation_config.json` says end a text, and what it says of sampling: `do_sample`, `temperature`, `top_k`,
/// `top_p`, `min_p`, `typical_p`, `epsilon_cutoff`, `eta_cutoff`, `repetition_penalty`, `no_repeat_ngram_size`,
/// `max_new_tokens`, `stop_strings`. Its other fields are not looked at.
pub(crate) fn generation_config(path: &Path) -> Result<Option<(Vec<u32>, GenerateOptions)>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::File { path: path.into(), source }),
    };
    let fields = Fields::parse(path, &text)?;
    let mut options = GenerateOptions::default();
    let sampling = &mut options.sampling;
    if fields.flag("do_sample")? {
        sampling.temperature = fields.number("temperature", 1.0)? as f32; // 0: greedy
        sampling.top_k = fields.size("top_k", 50)?; // transformers' default where sampling is on; 0: off
        for (field, option) in [
            ("top_p", &mut sampling.top_p),
            ("min_p", &mut sampling.min_p),
            ("typical_p", &mut sampling.typical_p),
            ("epsilon_cutoff", &mut sampling.epsilon_cutoff),
            ("eta_cutoff", &mut sampling.eta_cutoff),
        ] {
            *option = fields.number(field, f64::from(*option))? as f32;
        }
    }
    sampling.repetition_penalty =
        fields.number("repetition_penalty", f64::from(sampling.repetition_penalty))? as f32;
    sampling.no_repeat_ngram = fields.size("no_repeat_ngram_size", 0)?;
    // No option here names a token, so any vocabulary will do.
    if let Err(komt_sample::Error::InvalidOption { field, expected, found }) = sampling.validate(1) {
        return Err(fields.wrong(field, &expected, found));
    }
    options.stop = fields.texts("stop_strings")?;
    options.max_new_tokens = fields.count("max_new_tokens", Some(options.max_new_tokens))?;
    Ok(Some((fields.ids("eos_token_id")?, options)))
}

/// How large an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Sequences in one step. More can be submitted: the older come first.
    pub max_seqs: usize,
    /// Tokens in one step: the chunk that long prompts are cut into.
    pub max_step_tokens: usize,
    /// The longest sequence. `None`: the model's own, but 4,096 at most where no window bounds the cache.
    pub max_context: Option<usize>,
    /// Tokens that the KV cache holds, of all sequences. `None`: two of the longest sequences. When it is full, the youngest
    /// sequences give their pages up and are computed again later.
    pub kv_tokens: Option<usize>,
    /// How the KV cache is stored. `None`: as the device's activations on a GPU; f16 on a CPU, and f32 where that is to be exact.
    pub kv_format: Option<KvFormat>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { max_seqs: 16, max_step_tokens: 512, max_context: None, kv_tokens: None, kv_format: None }
    }
}

impl EngineOptions {
    /// With this number of sequences in a step.
    pub fn max_seqs(mut self, n: usize) -> Self {
        self.max_seqs = n;
        self
    }

    /// With this number of tokens in a step.
    pub fn max_step_tokens(mut self, n: usize) -> Self {
        self.max_step_tokens = n;
        self
    }

    /// With this longest sequence.
    pub fn max_context(mut self, n: usize) -> Self {
        self.max_context = Some(n);
        self
    }

    /// With room for this number of tokens.
    pub fn kv_tokens(mut self, n: usize) -> Self {
        self.kv_tokens = Some(n);
        self
    }

    /// With the KV cache stored like this.
    pub fn kv_format(mut self, format: KvFormat) -> Self {
        self.kv_format = Some(format);
        self
    }

    pub(crate) fn context(&self, config: &Config) -> usize {
        let is_bounded = config.window.is_some_and(|window| window < config.max_context);
        let default = if is_bounded { config.max_context } else { config.max_context.min(4096) };
        self.max_context.unwrap_or(default)
    }

    pub(crate) fn capacity(&self, config: &Config) -> Capacity {
        let max_tokens = self.max_step_tokens;
        let table_len = ring_len(config.window, max_tokens, self.context(config));
        let n_pages = self.kv_tokens.map_or(2 * table_len, |n| n.div_ceil(PAGE));
        let max_seqs = self.max_seqs.min(max_tokens);
        Capacity {
            step: StepCapacity { max_tokens, max_seqs, max_logits: max_seqs, table_len },
            n_pages,
            kv_format: self.kv_format,
        }
    }

    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        let within = |name, least: usize, found: usize| {
            // 2^30: positions and slots are u32, and products of two options stay within 64 bits.
            if (least..1 << 30).contains(&found) {
                return Ok(());
            }
            let expected = format!("at least {least} and below 2^30");
            Err(Error::Option { name, expected, found: found.to_string() })
        };
        within("max_seqs", 1, self.max_seqs)?;
        within("max_step_tokens", 1, self.max_step_tokens)?;
        within("max_context", 2, self.context(config))?;
        let table_len = self.capacity(config).step.table_len;
        within(
            "kv_tokens",
            table_len * PAGE,
            self.kv_tokens.unwrap_or(2 * table_len * PAGE).div_ceil(PAGE) * PAGE,
        )
    }
}
