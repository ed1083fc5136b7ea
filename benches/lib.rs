//! What the benchmarks measure on, and what they measure against.
//!
//! * [`synth`] writes models of a real shape with random weights.
//! * [`cubin`] tells what a compiled CUDA kernel takes and is made of.
//! * [`bandwidth`] tells how fast this machine reads memory: the bound of a decode step.
//!
//! The benchmarks carry the names of what they time: `cargo bench -p komt-benches --bench ops -- matmul/`. Results of
//! operations are held against the scalar reference before anything is timed.

pub mod bandwidth;
pub mod cubin;
pub mod synth;

/// Whether this is `cargo bench -- --test`: everything runs once and nothing is timed.
pub fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test") || !std::env::args().any(|arg| arg == "--bench")
}
