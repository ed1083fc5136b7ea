//! Alternating pairs: machines drift within minutes, so only neighbours in time are compared.

use crate::Result;
use crate::work::{Runner, Work};
use serde_json::{Value, json};
use std::time::Duration;

/// Seconds of us and of a peer, turn by turn.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    pub ours: Vec<f64>,
    pub peer: Vec<f64>,
}

impl Pairs {
    /// `n` turns each, after one of each that is not counted.
    pub fn measure(n: usize, work: Work, ours: &mut dyn Runner, peer: &mut dyn Runner) -> Result<Self> {
        // The threads of whoever was on still look for work for a moment (OpenMP's do so for milliseconds).
        let pause = || std::thread::sleep(Duration::from_millis(30));
        work.run(ours)?;
        let mut pairs = Self::default();
        for _ in 0..n {
            pause();
            pairs.ours.push(work.run(ours)?);
            pause();
            pairs.peer.push(work.run(peer)?);
        }
        Ok(pairs)
    }

    /// How many times as fast as the peer we are: least, median and greatest of the pairs.
    pub fn ratios(&self) -> [f64; 3] {
        let mut ratios: Vec<f64> = self.ours.iter().zip(&self.peer).map(|(ours, peer)| peer / ours).collect();
        ratios.sort_by(f64::total_cmp);
        [ratios[0], median(&ratios), ratios[ratios.len() - 1]]
    }

    pub fn json(&self) -> Value {
        json!({"ours": self.ours, "peer": self.peer})
    }

    pub fn from_json(value: &Value) -> Option<Self> {
        let list = |name: &str| value[name].as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>();
        Some(Self { ours: list("ours")?, peer: list("peer")? })
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_pairs_not_of_medians() {
        // The machine is half as fast in the second pair: the ratio is the same.
        let pairs = Pairs { ours: vec![1.0, 2.0, 1.0], peer: vec![2.0, 4.0, 3.0] };
        assert_eq!(pairs.ratios(), [2.0, 2.0, 3.0]);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
