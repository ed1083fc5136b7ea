//! Each processor of a row of logits as a plain function: formula, source, and what happens at ties.
//!
//! The first group works on the whole row in place; the second, from [`top_k`] on, on a list of [`Candidate`]s that it
//! shortens. A token that is not in the list is what transformers writes as -inf. Unless a paper is named the source is
//! the class of Hugging Face transformers 5.23, `generation/logits_process.py`, that each function cites.
//!
//! **Precision.** A filter's decision is a comparison, so results equal the reference's only if both round alike.
//! torch works in f32: here every compared number is rounded to f32 where torch has one, but computed in f64 or in
//! integers on the way, whose last bits, the platform's `exp` and the order of a sum, next to never survive the rounding.

use std::cmp::Ordering;

use crate::TokenId;

/// A token still in the running. Between two filters a list of them is in the order of their ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) id: TokenId,
    pub(crate) logit: f32,
    /// What [`softmax`] left here: an f32 kept as f64. Stale once the list was shortened.
    prob: f64,
}

impl Candidate {
    pub(crate) fn new(id: TokenId, logit: f32) -> Self {
        Self { id, logit, prob: 0.0 }
    }

    /// The probability in units of 2^-62. Integers add up exactly, in any order, and 2 * 2^62 still fits.
    pub(crate) fn mass(&self) -> u64 {
        (self.prob * (1u64 << 62) as f64) as u64
    }
}

/// A sum of masses as torch would show it: the exact sum rounded once to f32.
fn mass_to_f32(mass: u64) -> f32 {
    mass as f32 / (1u64 << 62) as f32
}

/// `logit += bias` for each pair. `SequenceBiasLogitsProcessor` with sequences of one token.
pub(crate) fn add_bias(logits: &mut [f32], bias: &[(TokenId, f32)]) {
    for &(id, b) in bias {
        logits[id as usize] += b;
    }
}

/// `logit < 0 ? logit * penalty : logit / penalty`, once for each token that the history has.
///
/// `RepetitionPenaltyLogitsProcessor`; N. Keskar et al., "CTRL", arXiv:1909.05858, section 4.1 (which divides negative
/// logits too, and so would reward them). Ids beyond the vocabulary are passed over, as there.
/// `seen` is one zero per token, and is so again afterwards.
pub(crate) fn repetition_penalty(logits: &mut [f32], penalty: f32, history: &[TokenId], seen: &mut [u32]) {
    count_tokens(history, seen, |id, _| {
        let logit = &mut logits[id];
        *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
    });
}

/// `logit -= count * frequency + (count > 0) * presence`, `count` being how often the token was generated.
///
/// OpenAI's API reference, "Advanced usage: frequency and presence penalties". Example: frequency 0.5, presence 0.25, a
/// token generated 3 times: its logit sinks by 3 * 0.5 + 0.25 = 1.75.
pub(crate) fn frequency_presence(
    logits: &mut [f32],
    frequency: f32,
    presence: f32,
    generated: &[TokenId],
    seen: &mut [u32],
) {
    count_tokens(generated, seen, |id, count| logits[id] -= count as f32 * frequency + presence);
}

/// Calls `visit(id, count)` once for each different token. `seen` is one zero per token, before and after.
fn count_tokens(tokens: &[TokenId], seen: &mut [u32], mut visit: impl FnMut(usize, u32)) {
    let n = seen.len();
    let known = || tokens.iter().map(|&id| id as usize).filter(|&id| id < n);
    known().for_each(|id| seen[id] += 1);
    for id in known() {
        let count = std::mem::take(&mut seen[id]);
        if count > 0 {
            visit(id, count);
        }
    }
}

/// Removes each token that would complete an n-gram which the history already has. `NoRepeatNGramLogitsProcessor`.
///
/// Example, n = 3, history `5 6 7 9 5 6`: the next trigram starts with `5 6`, which was once followed by 7, so 7 goes.
/// With n = 1 every token of the history goes.
pub(crate) fn no_repeat_ngram(logits: &mut [f32], n: usize, history: &[TokenId]) {
    if history.len() < n {
        return;
    }
    let start = &history[history.len() - (n - 1)..];
    for ngram in history.windows(n) {
        if ngram.starts_with(start)
            && let Some(logit) = logits.get_mut(ngram[n - 1] as usize)
        {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// `logit / temperature`. `TemperatureLogitsWarper`.
pub(crate) fn temperature(logits: &mut [f32], temperature: f32) {
    logits.iter_mut().for_each(|logit| *logit /= temperature);
}

/// Fills the list with the tokens whose logit is at least the k-th largest, in the order of ids: with `k` and ties at
/// the border, more than `k`. `k = 0` takes every token that is not removed. `TopKLogitsWarper`.
pub(crate) fn top_k(candidates: &mut Vec<Candidate>, logits: &[f32], k: usize, scratch: &mut Vec<f32>) {
    let border = if k == 0 { f32::NEG_INFINITY } else { kth_largest(logits.iter().copied(), k, scratch) };
    candidates.clear();
    for (id, &logit) in (0..).zip(logits) {
        if logit >= border && logit > f32::NEG_INFINITY {
            candidates.push(Candidate::new(id, logit));
        }
    }
}

/// The k-th largest value, or -inf if fewer than `k` are above that.
///
/// One pass with a buffer of 2k values: whenever it is full, selection drops the lower half, and from then on values
/// that cannot be among the k largest are not even stored. For 32,000 logits and k = 100 almost all are skipped.
pub(crate) fn kth_largest(values: impl Iterator<Item = f32>, k: usize, buffer: &mut Vec<f32>) -> f32 {
    buffer.clear();
    let mut border = f32::NEG_INFINITY;
    for value in values {
        if value > border {
            buffer.push(value);
            if buffer.len() == k.saturating_mul(2) {
                border = *buffer.select_nth_unstable_by(k - 1, |a, b| descending(*a, *b)).1;
                buffer.truncate(k);
            }
        }
    }
    if buffer.len() < k {
        return f32::NEG_INFINITY;
    }
    *buffer.select_nth_unstable_by(k - 1, |a, b| descending(*a, *b)).1
}

/// Larger numbers first; 0.0 and -0.0 are equal, as they are for torch. (NaN, which no row may have, is equal to all.)
pub(crate) fn descending(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

/// Most probable first; of equal logits the higher id, so that read backwards it is a stable ascending sort.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    descending(a.logit, b.logit).then(b.id.cmp(&a.id))
}

/// What [`softmax`] found out on the way.
struct Normaliser {
    /// The largest logit.
    max: f32,
    /// `ln(sum of exp(logit - max))`.
    ln_sum: f32,
}

impl Normaliser {
    /// `-ln(probability)`.
    fn surprise(&self, candidate: &Candidate) -> f32 {
        -((candidate.logit - self.max) - self.ln_sum)
    }

    /// The expected surprise, in nats.
    fn entropy(&self, candidates: &[Candidate]) -> f32 {
        candidates.iter().map(|c| c.prob * f64::from(self.surprise(c))).sum::<f64>() as f32
    }
}

/// Sets every `prob` to `exp(logit - max) / sum`.
fn softmax(candidates: &mut [Candidate]) -> Normaliser {
    let max = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for c in candidates.iter_mut() {
        c.prob = f64::from(c.logit - max).exp();
        sum += c.prob;
    }
    candidates.iter_mut().for_each(|c| c.prob = f64::from((c.prob / sum) as f32));
    Normaliser { max, ln_sum: sum.ln() as f32 }
}

/// Sets every [`Candidate::mass`] to the probability among these candidates, and returns the sum of them all.
pub(crate) fn weigh(candidates: &mut [Candidate]) -> u64 {
    softmax(candidates);
    candidates.iter().map(Candidate::mass).sum()
}

/// Shows the candidates to `go_on(rank, candidate)` in the given order until it says no; returns how many it accepted.
///
/// Sorts only as far as it is read: candidates up to and including the refused one are in their places afterwards. The
/// order must be total, so that the result does not depend on how far each selection happened to sort.
fn walk_sorted(
    candidates: &mut [Candidate],
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
    mut go_on: impl FnMut(usize, &Candidate) -> bool,
) -> usize {
    let (mut start, mut chunk) = (0, 64);
    while start < candidates.len() {
        let rest = &mut candidates[start..];
        let n = chunk.min(rest.len());
        if n < rest.len() {
            rest.select_nth_unstable_by(n, &order);
        }
        rest[..n].sort_unstable_by(&order);
        if let Some(refused) = (0..n).find(|&i| !go_on(start + i, &rest[i])) {
            return start + refused;
        }
        // The rest costs a selection each time: fourfold steps keep that to a handful even for a flat row.
        (start, chunk) = (start + n, 4 * chunk);
    }
    start
}

fn sort_by_id(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by_key(|c| c.id);
}

/// `1 - top_p`, rounded to f32 as torch's comparison does.
///
/// 0.8 in f32 is 0.800000012, and 1 minus that rounds to another f32 than 1 - 0.8 does, which matters where the
/// cumulative probability is exactly 0.2. What the user wrote is the shortest decimal that means this f32.
pub(crate) fn removable_mass(top_p: f32) -> f32 {
    let written: f64 = top_p.to_string().parse().expect("Rust prints an f32 as a decimal number");
    (1.0 - written) as f32
}

/// In ascending order of logits, removes while the cumulative probability is at most `1 - p` (`removable`).
///
/// `TopPLogitsWarper`; A. Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv:1904.09751. Of equal
/// logits at the border the lower ids go first; torch's sort leaves that open for rows longer than 16.
pub(crate) fn top_p(candidates: &mut Vec<Candidate>, removable: f32, min_keep: usize) {
    let mut mass_left = weigh(candidates);
    // All tokens below this bound together have at most half of what may go: they need no sorting. (Half, so that no
    // rounding can matter.) Of 32,000 tokens that is nearly all of them.
    let bound = f64::from(removable) / 2.0 / candidates.len() as f64;
    if candidates.iter().filter(|c| c.prob >= bound).count() >= min_keep {
        candidates.retain(|c| c.prob >= bound);
    }
    let kept = walk_sorted(candidates, by_rank, |rank, c| {
        // What torch has accumulated at this token: its own mass and that of all tokens below it.
        let cumulative = mass_to_f32(mass_left);
        mass_left -= c.mass();
        rank < min_keep || cumulative > removable
    });
    candidates.truncate(kept);
    sort_by_id(candidates);
}

/// Removes the tokens less than `min_p` times as probable as the first. `MinPLogitsWarper`; N. N. Minh et al., "Turning
/// Up the Heat: Min-p Sampling", arXiv:2407.01082. Of `min_keep` equal ones at the border the higher ids stay; torch's
/// `topk` leaves that open.
pub(crate) fn min_p(candidates: &mut Vec<Candidate>, min_p: f32, min_keep: usize) {
    softmax(candidates);
    let top = candidates.iter().map(|c| c.prob as f32).fold(0.0, f32::max);
    let bound = min_p * top;
    let stays = |c: &Candidate| c.prob as f32 >= bound;
    if candidates.iter().filter(|c| stays(c)).count() >= min_keep {
        candidates.retain(stays);
    } else {
        candidates.sort_unstable_by(by_rank);
        candidates.truncate(min_keep);
        sort_by_id(candidates);
    }
}

/// Sorts by how far a token's surprise is from the expected surprise (the entropy), nearest first; keeps them until
/// their cumulative probability reaches `mass`, and all that are as near as the last of these.
///
/// `TypicalLogitsWarper`; C. Meister et al., "Locally Typical Sampling", arXiv:2202.00666.
pub(crate) fn typical_p(candidates: &mut Vec<Candidate>, mass: f32, min_keep: usize) {
    let normaliser = softmax(candidates);
    let entropy = normaliser.entropy(candidates);
    let distance = |c: &Candidate| (normaliser.surprise(c) - entropy).abs();
    let (mut cumulative, mut n_below) = (0, 0);
    walk_sorted(
        candidates,
        |a, b| descending(distance(b), distance(a)).then(a.id.cmp(&b.id)),
        |rank, c| {
            cumulative += c.mass();
            let below = mass_to_f32(cumulative) < mass;
            n_below += usize::from(below);
            below || rank + 1 < min_keep
        },
    );
    // Rounding can leave even the sum of all below `mass`.
    let border = distance(&candidates[n_below.min(candidates.len() - 1)]);
    let mut rank = 0;
    candidates.retain(|c| {
        rank += 1;
        rank <= min_keep || distance(c) <= border
    });
    sort_by_id(candidates);
}

/// Removes the tokens less probable than `epsilon`, but none that ties with the `min_keep` largest.
/// `EpsilonLogitsWarper`; J. Hewitt et al., "Truncation Sampling as Language Model Desmoothing", arXiv:2210.15191.
pub(crate) fn epsilon_cutoff(
    candidates: &mut Vec<Candidate>,
    epsilon: f32,
    min_keep: usize,
    scratch: &mut Vec<f32>,
) {
    softmax(candidates);
    keep_probable(candidates, epsilon, min_keep, scratch);
}

/// [`epsilon_cutoff`] with the bound `min(epsilon, sqrt(epsilon) * exp(-entropy))`. `EtaLogitsWarper`; same paper.
pub(crate) fn eta_cutoff(
    candidates: &mut Vec<Candidate>,
    epsilon: f32,
    min_keep: usize,
    scratch: &mut Vec<f32>,
) {
    let entropy = softmax(candidates).entropy(candidates);
    let bound = epsilon.min(epsilon.sqrt() * (-entropy).exp());
    keep_probable(candidates, bound, min_keep, scratch);
}

fn keep_probable(candidates: &mut Vec<Candidate>, bound: f32, min_keep: usize, scratch: &mut Vec<f32>) {
    let border = kth_largest(candidates.iter().map(|c| c.logit), min_keep, scratch);
    candidates.retain(|c| c.prob as f32 >= bound || c.logit >= border);
}
