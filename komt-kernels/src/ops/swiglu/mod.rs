//! `out[r, c] = silu(gate_up[r, c]) * gate_up[r, hidden_dim + c]`, `silu(g) = g / (1 + e^-g)` (SwiGLU, arXiv:2002.05202).
//! Shapes: out `[n_tokens, hidden_dim]`, gate_up `[n_tokens, 2 hidden_dim]`.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod scalar;
mod simd;

use crate::RowBuf;
use crate::cpu::{Cpu, Isa, SharedMut, dispatch};

fn check<A>(out: &RowBuf<A>, gate_up: &RowBuf<A>) {
    assert_eq!(
        (gate_up.rows, gate_up.cols),
        (out.rows, 2 * out.cols),
        "swiglu: gate_up [{}, {}], out [{}, {}]",
        gate_up.rows,
        gate_up.cols,
        out.rows,
        out.cols
    );
}

pub(crate) fn run(cpu: &Cpu, out: &mut RowBuf<Vec<f32>>, gate_up: &RowBuf<Vec<f32>>) {
    check(out, gate_up);
    let hidden_dim = out.cols;
    if cpu.isa() == Isa::Scalar {
        return scalar::swiglu(&mut out.buf, &gate_up.buf, out.rows, hidden_dim);
    }
    let (rows, out) = (out.rows, SharedMut::new(&mut out.buf));
    cpu.for_ranges(rows, 1 + 8192 / hidden_dim, |rows| {
        dispatch(cpu.isa(), simd::Swiglu { out, gate_up: &gate_up.buf, rows, hidden_dim });
    });
}
