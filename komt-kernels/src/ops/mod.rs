//! One folder an operation: formula and shape check in `mod.rs`, the scalar reference in `scalar.rs`, the vector kernel
//! in `simd.rs`. Where an operation only moves numbers or its loops are few, `mod.rs` is all there is.
//!
//! `check` panics with the operation's name and both shapes: a mismatch is a bug of ours, never of the input.

pub(crate) mod attention;
pub(crate) mod embed;
pub(crate) mod matmul;
pub(crate) mod rms_norm;
pub(crate) mod rope_store;
pub(crate) mod swiglu;
pub(crate) mod take_rows;
