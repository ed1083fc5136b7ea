//! komt-core
