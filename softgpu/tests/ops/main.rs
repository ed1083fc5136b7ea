//! Every form of instruction, in PTX written by hand, against results worked out by hand from the PTX ISA.
//!
//! ptxas 12.9 takes every kernel that these tests build, and refuses those of `errors` that it says are no PTX.
//!
//! A row is `(instructions, inputs, result)`. Input i is a 64-bit pattern that stands in `%hI` (its low 16 bits), `%rI` (low 32), `%dI`
//! (all 64) and `%pI` (not zero), whichever the text names; the result is what it leaves in `%h9`, `%r9`, `%d9` or `%p9`, zero-extended.
#![allow(clippy::unwrap_used)]

mod approx;
mod arch;
mod atomics;
mod convert;
mod errors;
mod float;
mod half;
mod harness;
mod int;
mod matrix;
mod memory;
mod warp;
