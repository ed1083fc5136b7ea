//! `out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * w` (RMSNorm, arXiv:1910.07467), in f32.
//! Shapes: out and x `[n_tokens, dim]`, w `[dim]`.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod scalar;
mod simd;

use crate::RowBuf;
use crate::cpu::{Cpu, Isa, SharedMut, dispatch};

/// `w_len`: length of w.
fn check<O, X>(out: &RowBuf<O>, x: &RowBuf<X>, w_len: usize) {
    assert_eq!(
        (out.rows, out.cols, w_len),
        (x.rows, x.cols, x.cols),
        "rms_norm: out [{}, {}], w [{}], x [{}, {}]",
        out.rows,
        out.cols,
        w_len,
        x.rows,
        x.cols
    );
}

pub(crate) fn run(cpu: &Cpu, out: &mut RowBuf<Vec<f32>>, x: &RowBuf<Vec<f32>>, w: &[f32], eps: f32) {
    check(out, x, w.len());
    if cpu.isa() == Isa::Scalar {
        return scalar::rms_norm(&mut out.buf, &x.buf, x.rows, w, eps);
    }
    let out = SharedMut::new(&mut out.buf);
    cpu.for_ranges(x.rows, 8, |rows| {
        dispatch(cpu.isa(), simd::RmsNorm { out, x: &x.buf, rows, w, eps });
    });
}
