//! komt-cache
