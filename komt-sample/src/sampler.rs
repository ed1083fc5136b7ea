//! The order of the processors, and the draw.

use crate::filter::{self, Candidate};
use crate::{Error, SamplingParams, TokenId, rng};

/// Chooses the next token of one sequence: its options and the memory it works in.
///
/// The history is the caller's and comes with each call; nothing about the sequence is kept here. So one sampler can
/// serve a sequence that was cancelled and resumed, and the same call has the same answer at any time.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    vocab_size: usize,
    /// `1 - top_p` as the comparison needs it.
    removable: f32,
    /// The tokens that the filters left, in the order of their ids.
    candidates: Vec<Candidate>,
    /// Logits among which a k-th largest is sought.
    selection: Vec<f32>,
    /// One zero per token where a penalty has to count, else empty.
    seen: Vec<u32>,
}

impl Sampler {
    /// A sampler for rows of `vocab_size` logits.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], as [`SamplingParams::validate`] does.
    pub fn new(params: SamplingParams, vocab_size: usize) -> Result<Self, Error> {
        params.validate(vocab_size)?;
        let counts = params.repetition_penalty != 1.0 || has_openai_penalty(&params);
        Ok(Self {
            removable: filter::removable_mass(params.top_p),
            candidates: Vec::new(),
            selection: Vec::new(),
            seen: vec![0; if counts { vocab_size } else { 0 }],
            params,
            vocab_size,
        })
    }

    /// The options that this sampler was made with.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// How many of a row's largest logits decide the draw, whatever the others are: with all others -inf, [`Sampler::sample`]
    /// returns the same. For top-k that is k and one more, which must be below the k-th by more than a rounding: it shows that
    /// no other is the k-th's equal. `None`: any logit may matter.
    pub fn n_decisive(&self) -> Option<usize> {
        let p = &self.params;
        let is_plain = p.logit_bias.is_empty()
            && p.repetition_penalty == 1.0
            && !has_openai_penalty(p)
            && p.no_repeat_ngram == 0;
        // At other temperatures logits become infinite, or equal.
        let is_tame = (1e-3..=1e3).contains(&p.temperature);
        match p.top_k {
            _ if !is_plain => None,
            _ if p.is_greedy() => Some(1),
            0 => None,
            k if is_tame => k.max(p.min_tokens_to_keep).checked_add(1),
            _ => None,
        }
    }

    /// The next token.
    ///
    /// `logits`: one row, one value per token; -inf means forbidden. It is scratch: what it holds afterwards has no
    /// meaning. `history`: the prompt's `n_prompt` tokens, then those generated so far; only the penalties and the
    /// n-gram rule look at it. `step`: counts the draws of the sequence; the draw depends on it, on the seed and on this
    /// row's probabilities alone.
    ///
    /// At temperature 0 the largest processed logit wins, the lowest id if some tie. Otherwise the tokens left are laid
    /// out side by side in the order of their ids, each as wide as its probability, and the draw, a point evenly
    /// distributed over the whole, says which one it hits.
    ///
    /// # Errors
    /// [`Error::LogitsLength`], [`Error::PromptLength`], [`Error::NonFinite`], [`Error::NoTokenLeft`].
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        history: &[TokenId],
        n_prompt: usize,
        step: u64,
    ) -> Result<TokenId, Error> {
        self.penalise(logits, history, n_prompt)?;
        if self.params.is_greedy() {
            return Ok(argmax(logits));
        }
        self.filter(logits)?;
        let total = filter::weigh(&mut self.candidates);
        let mut point = rng::below(self.params.seed, step, total);
        for candidate in &self.candidates {
            match point.checked_sub(candidate.mass()) {
                None => return Ok(candidate.id),
                Some(rest) => point = rest,
            }
        }
        unreachable!("the draw is below the sum of the masses")
    }

    /// The processors alone, in place: removed tokens are -inf, the others have their processed logits, as the scores
    /// of `generate(output_scores=True)`. At temperature 0 these are the penalties and the n-gram rule only.
    ///
    /// # Errors
    /// Those of [`Sampler::sample`].
    pub fn process(&mut self, logits: &mut [f32], history: &[TokenId], n_prompt: usize) -> Result<(), Error> {
        self.penalise(logits, history, n_prompt)?;
        if !self.params.is_greedy() {
            self.filter(logits)?;
            logits.fill(f32::NEG_INFINITY);
            self.candidates.iter().for_each(|c| logits[c.id as usize] = c.logit);
        }
        Ok(())
    }

    /// The tokens that [`Sampler::sample`] can return for this row and the probability of each, in the order of ids. At
    /// temperature 0 one token with probability 1. `logits` is scratch, as there.
    ///
    /// # Errors
    /// Those of [`Sampler::sample`].
    pub fn probabilities(
        &mut self,
        logits: &mut [f32],
        history: &[TokenId],
        n_prompt: usize,
    ) -> Result<Vec<(TokenId, f64)>, Error> {
        self.penalise(logits, history, n_prompt)?;
        if self.params.is_greedy() {
            return Ok(vec![(argmax(logits), 1.0)]);
        }
        self.filter(logits)?;
        let total = filter::weigh(&mut self.candidates) as f64;
        let drawable = self.candidates.iter().filter(|c| c.mass() > 0);
        Ok(drawable.map(|c| (c.id, c.mass() as f64 / total)).collect())
    }

    /// Checks the input, then does everything that comes before the temperature.
    fn penalise(&mut self, logits: &mut [f32], history: &[TokenId], n_prompt: usize) -> Result<(), Error> {
        if logits.len() != self.vocab_size {
            return Err(Error::LogitsLength { expected: self.vocab_size, found: logits.len() });
        }
        let Some(generated) = history.get(n_prompt..) else {
            return Err(Error::PromptLength { n_prompt, history_len: history.len() });
        };
        check(logits)?;
        let p = &self.params;
        filter::add_bias(logits, &p.logit_bias);
        if p.repetition_penalty != 1.0 {
            filter::repetition_penalty(logits, p.repetition_penalty, history, &mut self.seen);
        }
        if has_openai_penalty(p) {
            let (frequency, presence) = (p.frequency_penalty, p.presence_penalty);
            filter::frequency_presence(logits, frequency, presence, generated, &mut self.seen);
        }
        if p.no_repeat_ngram > 0 {
            filter::no_repeat_ngram(logits, p.no_repeat_ngram, history);
        }
        check(logits)
    }

    /// Fills `self.candidates`: the temperature, then each filter that is on.
    fn filter(&mut self, logits: &mut [f32]) -> Result<(), Error> {
        let p = &self.params;
        let (list, keep) = (&mut self.candidates, p.min_tokens_to_keep);
        if p.temperature != 1.0 {
            filter::temperature(logits, p.temperature);
            // A tiny temperature can overflow.
            check(logits)?;
        }
        let k = if p.top_k == 0 { 0 } else { p.top_k.max(keep).min(self.vocab_size) };
        filter::top_k(list, logits, k, &mut self.selection);
        if p.top_p < 1.0 {
            filter::top_p(list, self.removable, keep);
        }
        if p.min_p > 0.0 {
            filter::min_p(list, p.min_p, keep);
        }
        if p.typical_p < 1.0 {
            filter::typical_p(list, p.typical_p, keep);
        }
        if p.epsilon_cutoff > 0.0 {
            filter::epsilon_cutoff(list, p.epsilon_cutoff, keep, &mut self.selection);
        }
        if p.eta_cutoff > 0.0 {
            filter::eta_cutoff(list, p.eta_cutoff, keep, &mut self.selection);
        }
        Ok(())
    }
}

fn has_openai_penalty(params: &SamplingParams) -> bool {
    params.frequency_penalty != 0.0 || params.presence_penalty != 0.0
}

/// Neither NaN nor +inf anywhere, and something that is not -inf.
fn check(logits: &[f32]) -> Result<(), Error> {
    // Without a branch per logit, so that the compiler can compare many at once; NaN compares as false.
    let usable = logits.iter().fold(true, |all, &x| all & (x < f32::INFINITY));
    if !usable && let Some(index) = logits.iter().position(|&x| x.is_nan() || x == f32::INFINITY) {
        return Err(Error::NonFinite { index, value: logits[index] });
    }
    if logits.iter().all(|&x| x == f32::NEG_INFINITY) {
        return Err(Error::NoTokenLeft { vocab_size: logits.len() });
    }
    Ok(())
}

/// The first of the largest logits, as torch.argmax.
fn argmax(logits: &[f32]) -> TokenId {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&x| x == max).expect("a checked row has a largest logit") as TokenId
}
