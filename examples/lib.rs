//! komt-examples
