//! `out[i, :] = x[logit_rows[i], :]`. Shapes: out `[n_logits, dim]`, x `[n_tokens, dim]`.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::{RowBuf, StepBuf};

fn check<A, S>(out: &RowBuf<A>, x: &RowBuf<A>, step: &StepBuf<S>) {
    assert_eq!(out.cols, x.cols, "take_rows: out [{}, {}], x [{}, {}]", out.rows, out.cols, x.rows, x.cols);
    assert_eq!(out.rows, step.dims.n_logits, "take_rows: rows of out, logit rows of the step");
}

/// One implementation for every instruction set: it moves a few rows.
pub(crate) fn run(out: &mut RowBuf<Vec<f32>>, x: &RowBuf<Vec<f32>>, step: &StepBuf<Vec<u32>>) {
    check(out, x, step);
    for (out, &row) in out.buf.chunks_exact_mut(x.cols).zip(step.logit_rows()) {
        out.copy_from_slice(&x.buf[row as usize * x.cols..][..x.cols]);
    }
}
