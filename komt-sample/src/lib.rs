//! komt-sample
