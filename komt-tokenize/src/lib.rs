//! komt-tokenize
