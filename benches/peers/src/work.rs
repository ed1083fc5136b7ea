//! What is timed: the same calls for us and for every peer.

use crate::Result;

/// A model ready to run. Every call returns the seconds it took, without preparation.
pub trait Runner {
    /// A prompt of `n_tokens`, up to the logits of its last token.
    fn prompt(&mut self, n_tokens: usize) -> Result<f64>;
    /// `n_steps` steps of `n_seqs` sequences, after prompts of `context` tokens.
    fn decode(&mut self, n_seqs: usize, context: usize, n_steps: usize) -> Result<f64>;
    /// Vectors of `n_texts` texts of `n_tokens` tokens.
    fn embed(&mut self, n_texts: usize, n_tokens: usize) -> Result<f64>;
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Prompt { n_tokens: usize },
    Decode { n_seqs: usize, context: usize, n_steps: usize },
    Embed { n_texts: usize, n_tokens: usize },
}

impl Work {
    pub fn run(self, runner: &mut dyn Runner) -> Result<f64> {
        match self {
            Work::Prompt { n_tokens } => runner.prompt(n_tokens),
            Work::Decode { n_seqs, context, n_steps } => runner.decode(n_seqs, context, n_steps),
            Work::Embed { n_texts, n_tokens } => runner.embed(n_texts, n_tokens),
        }
    }

    /// The same at less length, to try settings.
    pub fn trial(self) -> Self {
        match self {
            Work::Prompt { .. } => self,
            Work::Decode { n_seqs, context, n_steps } => {
                Work::Decode { n_seqs, context, n_steps: n_steps.div_ceil(2) }
            }
            Work::Embed { n_texts, n_tokens } => Work::Embed { n_texts: n_texts.min(8), n_tokens },
        }
    }

    /// Tokens that a run makes or reads.
    pub fn n_tokens(self) -> usize {
        match self {
            Work::Prompt { n_tokens } => n_tokens,
            Work::Decode { n_seqs, n_steps, .. } => n_seqs * n_steps,
            Work::Embed { n_texts, n_tokens } => n_texts * n_tokens,
        }
    }

    /// Steps that each read all weights: only of decoding is that a limit.
    pub fn n_steps(self) -> Option<usize> {
        match self {
            Work::Decode { n_steps, .. } => Some(n_steps),
            _ => None,
        }
    }

    /// Sequences at once, and tokens of the longest.
    pub fn room(self) -> (usize, usize) {
        match self {
            Work::Prompt { n_tokens } => (1, n_tokens + 1),
            Work::Decode { n_seqs, context, n_steps } => (n_seqs, context + n_steps + 1),
            Work::Embed { n_tokens, .. } => (crate::llama::BATCH / n_tokens, n_tokens),
        }
    }
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Work::Prompt { n_tokens } => write!(f, "prompt of {n_tokens}"),
            Work::Decode { n_seqs: 1, context, n_steps } => {
                write!(f, "decode, {n_steps} tokens after {context}")
            }
            Work::Decode { n_seqs, context, n_steps } => {
                write!(f, "{n_seqs} sequences, {n_steps} tokens each after {context}")
            }
            Work::Embed { n_texts, n_tokens } => write!(f, "embeddings of {n_texts} texts of {n_tokens}"),
        }
    }
}

/// Ids of a text that differs from other texts from its first token on.
pub fn prompt_ids(vocab_size: usize, n_tokens: usize, text: usize) -> Vec<u32> {
    (0..n_tokens).map(|i| (3 + (i + 31 * text) * 7919 % (vocab_size - 3)) as u32).collect()
}
