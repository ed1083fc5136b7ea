//! `out[s, :] = sum of weights[r] * h[r, :]` over the rows r of sequence s: what a step adds to the sums of its texts, whatever the
//! pooling (weights 1: mean; position + 1: weighted mean; 1 for the last row alone: last). Division and length come when a text
//! is complete, on the host: a text's chunks lie in several steps.
//! Shapes: out `[n_seqs, dim]`, h `[n_tokens, dim]`, weights `[n_tokens]`. On devices only, to spare the way of all rows.

pub(crate) mod cuda;
