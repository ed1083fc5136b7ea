//! [`Sequence`]: one sequence of an engine, from its prompt to its end.

use crate::stop::{Passed, StopText};
use crate::{GenerateOptions, Result};
use komt_cache::PageTable;
use komt_sample::{Sampler, TokenId, log_sum_exp, top_logprobs};
use komt_tokenize::{StreamDecoder, Tokenizer};

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// The text that can be shown now: whole characters, and nothing that may still become a stop string. The last token
    /// of an answer brings whatever was held back. Empty where the model's directory has no tokenizer.
    pub text: String,
    /// ln p of the token, when asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens and their ln p, as many as asked for.
    pub top: Vec<(TokenId, f32)>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it; its last token is EOS.
    Eos,
    /// A stop string came.
    StopString,
    /// It has as many tokens as allowed.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// Somebody cancelled it.
    Cancelled,
    /// An error ended it.
    Failed,
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FinishReason::Eos => "end of text",
            FinishReason::StopString => "stop string",
            FinishReason::MaxTokens => "as many tokens as allowed",
            FinishReason::ContextFull => "the context is full",
            FinishReason::Cancelled => "cancelled",
            FinishReason::Failed => "failed",
        })
    }
}

/// Tokens, their pages, and the turn that is being generated.
pub(crate) struct Sequence {
    /// Prompts and answers so far. Those before `table.len()` are in the cache.
    pub tokens: Vec<TokenId>,
    pub table: PageTable,
    /// The turn that is being generated; `None`: parked.
    pub turn: Option<Turn>,
    /// Stays when its turn ends.
    pub stays: bool,
}

/// One prompt being answered.
pub(crate) struct Turn {
    options: GenerateOptions,
    sampler: Sampler,
    /// Tokens of the sequence when the answer began.
    n_prompt: usize,
    text: Option<(StreamDecoder, StopText)>,
    n_text_ids: usize, // ids that the tokenizer knows
}

impl Turn {
    /// A turn that answers `tokens`. `options` have been checked.
    pub fn new(
        options: GenerateOptions,
        tokens: &[TokenId],
        vocab_size: usize,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self> {
        let n_text_ids = tokenizer.map_or(0, Tokenizer::vocab_size);
        let text = match tokenizer {
            Some(tokenizer) => {
                // Padded vocabularies have ids without text.
                let known: Vec<_> = tokens.iter().copied().filter(|&id| (id as usize) < n_text_ids).collect();
                Some((StreamDecoder::with_context(tokenizer, &known)?, StopText::new(&options.stop)))
            }
            None => None,
        };
        let sampler = Sampler::new(options.sampling.clone(), vocab_size)?;
        Ok(Self { options, sampler, n_prompt: tokens.len(), text, n_text_ids })
    }

    /// Logits that decide the next token ([`Sampler::n_decisive`]); `None`: all of them are wanted.
    pub fn n_decisive(&self) -> Option<usize> {
        if self.options.logprobs.is_some() { None } else { self.sampler.n_decisive() }
    }

    /// Text that is held back, when nothing more comes.
    pub fn flush(&mut self) -> String {
        let Some((decoder, stop)) = &mut self.text else { return String::new() };
        match stop.push(&decoder.finish()) {
            Passed::Text(text) => text + &stop.finish(),
            Passed::Stop(text) => text,
        }
    }

    /// Chooses the next token from its logits, and says whether it is the last.
    fn choose(
        &mut self,
        logits: &mut [f32],
        history: &[TokenId],
        eos: &[TokenId],
    ) -> Result<(Token, Option<FinishReason>)> {
        let Self { options, sampler, n_prompt, .. } = self;
        let raw = options.logprobs.map(|n| (logits.to_vec(), top_logprobs(logits, n)));
        let step = (history.len() - *n_prompt) as u64;
        let id = sampler.sample(logits, history, *n_prompt, step)?;
        let (logprob, top) = match raw {
            Some((raw, top)) => (Some((f64::from(raw[id as usize]) - log_sum_exp(&raw)) as f32), top),
            None => (None, vec![]),
        };
        let mut reason = None;
        if step + 1 >= self.options.max_new_tokens as u64 {
            reason = Some(FinishReason::MaxTokens);
        }
        if eos.contains(&id) && !self.options.ignore_eos {
            reason = Some(FinishReason::Eos);
        }
        let mut text = String::new();
        if let Some((decoder, stop)) = &mut self.text
            && (id as usize) < self.n_text_ids
        {
            match stop.push(&decoder.push(id)?) {
                Passed::Text(passed) => text = passed,
                Passed::Stop(passed) => (text, reason) = (passed, Some(FinishReason::StopString)),
            }
        }
        Ok((Token { id, text, logprob, top }, reason))
    }
}

impl Sequence {
    /// Tokens that are not in the cache yet: 1 while decoding, more before that.
    pub fn n_pending(&self) -> usize {
        self.tokens.len() - self.table.len()
    }

    /// Takes the logits of the last token: the next token, and why it is the last if it is.
    pub fn accept(
        &mut self,
        logits: &mut [f32],
        eos: &[TokenId],
        max_context: usize,
    ) -> Result<(Token, Option<FinishReason>)> {
        let turn = self.turn.as_mut().expect("only sequences with a turn are scheduled");
        let (mut token, mut reason) = turn.choose(logits, &self.tokens, eos)?;
        self.tokens.push(token.id);
        if reason.is_none() && self.tokens.len() >= max_context {
            reason = Some(FinishReason::ContextFull);
        }
        if reason.is_some_and(|reason| reason != FinishReason::StopString) {
            token.text += &turn.flush();
        }
        Ok((token, reason))
    }
}
