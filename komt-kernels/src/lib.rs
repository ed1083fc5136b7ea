//! komt-kernels
