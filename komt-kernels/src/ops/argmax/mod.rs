//! `out[r]`: the id of the largest logit of row r, the lowest where several are largest; or the k largest, largest first,
//! lower ids first among equals. 0 and -0 are equal. Shapes: logits `[n_rows, vocab_size]`, ids `[n_rows]` or `[n_rows, k]`.
//!
//! A row with a NaN or +inf, or with -inf alone, has no answer: its ids are [`NO_TOKEN`](crate::NO_TOKEN). Then the whole row is to be
//! looked at, and what is wrong with it told. On devices only: on CPUs the rows are where the sampler is.

pub(crate) mod cuda;
