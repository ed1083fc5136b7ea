//! How fast all cores together read memory.

use rayon::prelude::*;
use std::time::Instant;

/// Far larger than the cache that one machine of a shared host can get hold of.
pub const BUFFER_BYTES: usize = 1 << 30;

/// Bytes a second at which the threads of rayon's global pool add up a buffer of `bytes`: the best of five passes, since
/// others can only make a pass slower.
pub fn read_bandwidth(bytes: usize) -> f64 {
    // 1 MiB a task: long runs for the prefetcher, enough tasks for every core.
    const TASK: usize = (1 << 20) / size_of::<u64>();
    // Not zeros: untouched zero pages are all the same page, and would be read from the cache.
    let buffer: Vec<u64> = (0..bytes / size_of::<u64>()).into_par_iter().map(|i| i as u64 | 1).collect();
    let pass = || {
        let start = Instant::now();
        let sum = buffer
            .par_chunks(TASK)
            .map(|part| part.iter().fold(0u64, |sum, &v| sum.wrapping_add(v)))
            .reduce(|| 0, u64::wrapping_add);
        std::hint::black_box(sum);
        start.elapsed().as_secs_f64()
    };
    let best = (0..5).map(|_| pass()).fold(f64::INFINITY, f64::min);
    (buffer.len() * size_of::<u64>()) as f64 / best
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bandwidth_is_a_number_above_nothing() {
        let rate = super::read_bandwidth(1 << 22);
        assert!(rate.is_finite() && rate > 1e6, "{rate} bytes/s");
    }
}
