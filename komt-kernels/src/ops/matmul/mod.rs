//! `out = x . w^T`, or `out += x . w^T`, accumulated in f32.
//! Shapes: x `[n_tokens, cols]`, w `[rows, cols]` in its stored type, out `[n_tokens, rows]`.
//!
//! `matmul`, `matmul_add` and `matmul_f32` of the trait are one kernel on CPUs, where activations are f32. On CUDA they are
//! epilogues of the same kernels, as is `matmul_swiglu`: `out = silu(x . wg^T) * (x . wu^T)`, w being wg over wu.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod scalar;
mod simd;

use crate::RowBuf;
use crate::cpu::{Cpu, CpuWeight, Isa, SharedMut, WeightData, dispatch, with_stored};

/// What happens to a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Epilogue {
    /// It replaces the output.
    Store,
    /// It is added to it.
    Add,
}

/// Panics unless `w [rows, cols]` takes x to out.
fn check<O, X>(out: &RowBuf<O>, x: &RowBuf<X>, w: (usize, usize)) {
    assert_eq!(
        (out.rows, out.cols, x.cols),
        (x.rows, w.0, w.1),
        "matmul: out [{}, {}], x [{}, {}], w [{}, {}]",
        out.rows,
        out.cols,
        x.rows,
        x.cols,
        w.0,
        w.1
    );
}

pub(crate) fn run(
    cpu: &Cpu,
    out: &mut RowBuf<Vec<f32>>,
    x: &RowBuf<Vec<f32>>,
    w: &CpuWeight,
    epilogue: Epilogue,
) {
    check(out, x, (w.rows, w.cols));
    if let WeightData::Quant(layout, bytes) = &w.data {
        return scalar::matmul_quant(&mut out.buf, &x.buf, x.rows, layout, bytes.as_slice(), epilogue);
    }
    if cpu.isa() == Isa::Scalar {
        return with_stored!(w, |data| scalar::matmul(&mut out.buf, &x.buf, x.rows, data, w.cols, epilogue));
    }
    let out = SharedMut::new(&mut out.buf);
    // A task of 32 K multiplications takes a few microseconds, the price of handing it to another thread.
    let grain = 1 + 32_768 / (w.cols * x.rows.max(1));
    with_stored!(w, |data| cpu.for_ranges(
        w.rows.div_ceil(simd::TILE_OUTS),
        grain.div_ceil(simd::TILE_OUTS),
        |tiles| {
            let outs = tiles.start * simd::TILE_OUTS..w.rows.min(tiles.end * simd::TILE_OUTS);
            let kernel = simd::Matmul {
                out,
                x: &x.buf,
                n_rows: x.rows,
                w: data,
                n_outs: w.rows,
                cols: w.cols,
                outs,
                epilogue,
            };
            dispatch(cpu.isa(), kernel);
        }
    ));
}
