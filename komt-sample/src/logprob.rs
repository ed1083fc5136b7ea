//! Log-probabilities of a row of logits, as the model gave it: no penalty, no temperature, no filter.

use crate::TokenId;
use crate::filter::{descending, kth_largest};

/// `ln(sum of exp(logit))`, so that `logit - log_sum_exp` is a token's log-probability.
///
/// In f64 and relative to the largest logit: nothing overflows, and 32,000 small terms are not lost beside a large one.
/// -inf for an empty row or one that is all -inf; NaN if a logit is NaN.
///
/// ```
/// // Two equal logits: each has probability 1/2.
/// assert!((1000.0 - komt_sample::log_sum_exp(&[1000.0, 1000.0]) - 0.5f64.ln()).abs() < 1e-9);
/// ```
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    if max.is_infinite() {
        // exp(inf - inf) would be NaN; the sum is the infinity itself, unless a NaN hides behind it.
        return if logits.iter().any(|x| x.is_nan()) { f64::NAN } else { max };
    }
    max + logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln()
}

/// The natural logarithm of the probability of `id` under `softmax(logits)`; `None` if the row has no such token.
///
/// ```
/// let row = [0.0, 3.0f32.ln()]; // probabilities 1/4 and 3/4
/// assert!((komt_sample::logprob_of(&row, 1).unwrap() - 0.75f32.ln()).abs() < 1e-6);
/// assert_eq!(komt_sample::logprob_of(&row, 2), None);
/// ```
pub fn logprob_of(logits: &[f32], id: TokenId) -> Option<f32> {
    let logit = *logits.get(id as usize)?;
    Some((f64::from(logit) - log_sum_exp(logits)) as f32)
}

/// The `n` most probable tokens with the natural logarithms of their probabilities, most probable first, the lower id
/// first where two tie. All of them if the row is shorter. The row must be free of NaN.
///
/// ```
/// let row = [0.0, 3.0f32.ln(), 0.0];
/// let top = komt_sample::top_logprobs(&row, 2);
/// assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 0]);
/// assert!((top[0].1 - 0.6f32.ln()).abs() < 1e-6);
/// ```
pub fn top_logprobs(logits: &[f32], n: usize) -> Vec<(TokenId, f32)> {
    if n == 0 {
        return Vec::new();
    }
    let border = kth_largest(logits.iter().copied(), n, &mut Vec::new());
    let mut tokens: Vec<(TokenId, f32)> =
        (0..).zip(logits.iter().copied()).filter(|t| t.1 >= border).collect();
    tokens.sort_unstable_by(|a, b| descending(a.1, b.1).then(a.0.cmp(&b.0)));
    tokens.truncate(n);
    let log_z = log_sum_exp(logits);
    tokens.iter().map(|&(id, logit)| (id, (f64::from(logit) - log_z) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEG: f32 = f32::NEG_INFINITY;

    #[test]
    fn extremes() {
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[NEG, NEG]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f32::INFINITY, 0.0]), f64::INFINITY);
        assert!(log_sum_exp(&[f32::NAN, f32::INFINITY]).is_nan());
        assert!(log_sum_exp(&[f32::NAN, 1.0]).is_nan());
        assert!(log_sum_exp(&[f32::NAN, NEG]).is_nan());
        assert_eq!(log_sum_exp(&[f32::MAX, f32::MAX]), f64::from(f32::MAX) + 2f64.ln());
        assert_eq!(log_sum_exp(&[NEG, -3e38]), f64::from(-3e38f32));
    }

    #[test]
    fn top_is_ordered_and_never_longer_than_the_row() {
        let row = [1.0, 2.0, NEG, 2.0, -0.0, 0.0];
        let ids = |n| top_logprobs(&row, n).iter().map(|t| t.0).collect::<Vec<_>>();
        assert_eq!(ids(0), []);
        assert_eq!(ids(1), [1]);
        assert_eq!(ids(2), [1, 3]);
        assert_eq!(ids(5), [1, 3, 0, 4, 5]);
        assert_eq!(ids(99), [1, 3, 0, 4, 5, 2]);
        assert_eq!(top_logprobs(&row, 6)[5].1, NEG);
        for (id, logprob) in top_logprobs(&row, 6) {
            assert_eq!(logprob_of(&row, id), Some(logprob));
        }
        assert_eq!(top_logprobs(&[], 3), []);
    }
}
