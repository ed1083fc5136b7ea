//! komt-benches
