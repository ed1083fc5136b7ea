//! `out = x . w^T`, or `out += x . w^T`, accumulated in f32.
//! Shapes: x `[n_tokens, cols]`, w `[rows, cols]` in its stored type, out `[n_tokens, rows]`.
//!
//! `matmul`, `matmul_add` and `matmul_f32` of the trait are one kernel on CPUs, where activations are f32. On CUDA they are
//! epilogues of the same kernels, as is `matmul_swiglu`: `out = silu(x . wg^T) * (x . wu^T)`, w being wg over wu; on CPUs it is one of
//! the products in bf16, with the bits of the two operations.

#[cfg(target_arch = "x86_64")]
mod bf16;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod int8;
mod quant;
mod scalar;
mod simd;

use crate::cpu::{Cpu, CpuWeight, Isa, Precision, SharedMut, WeightData, dispatch, with_stored};
use crate::quant::{BLOCK_ROWS, QuantLayout};
use crate::{Result, RowBuf, WeightFormat};

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

/// How a product is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// The reference.
    Scalar,
    /// Vectors of f32: x as it is, weights widened.
    Exact,
    /// Whole numbers: x rounded to 8 bits.
    Int8,
    /// x and w rounded to bf16.
    #[cfg(target_arch = "x86_64")]
    Bf16(bf16::Unit),
    /// Likewise, without tiles: few rows, w in bf16.
    #[cfg(target_arch = "x86_64")]
    Lines(bf16::lines::Lines),
}

/// The one place that chooses.
fn choose(isa: Isa, precision: Precision, format: WeightFormat, n_rows: usize) -> Path {
    #[cfg(target_arch = "x86_64")]
    if let (Precision::Fast, Some(unit)) = (precision, bf16::Unit::new(isa))
        && n_rows >= unit.min_rows(format)
    {
        return Path::Bf16(unit);
    }
    #[cfg(target_arch = "x86_64")]
    if let (Precision::Fast, WeightFormat::Bf16, Some(lines)) =
        (precision, format, bf16::lines::Lines::new(isa))
    {
        return Path::Lines(lines);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = n_rows;
    match isa {
        Isa::Scalar => Path::Scalar,
        _ if precision == Precision::Fast && isa >= Isa::Avx2 && format.is_quantised() => Path::Int8,
        _ => Path::Exact,
    }
}

pub(crate) fn run(
    cpu: &mut Cpu,
    out: &mut RowBuf<Vec<f32>>,
    x: &RowBuf<Vec<f32>>,
    w: &CpuWeight,
    epilogue: Epilogue,
) -> Result<()> {
    check(out, x, (w.rows, w.cols));
    if x.rows == 0 || w.rows == 0 {
        return Ok(());
    }
    match (choose(cpu.isa(), cpu.precision(), w.format(), x.rows), &w.data) {
        #[cfg(target_arch = "x86_64")]
        (Path::Bf16(unit), data) if w.cols > 0 => {
            let w = bf16::Weights::new(data);
            bf16::run(cpu, unit, out, x, w, bf16::Output::Sums(epilogue))?;
        }
        #[cfg(target_arch = "x86_64")]
        (Path::Lines(lines), WeightData::Bf16(data)) if w.cols > 0 => {
            bf16::lines::run(cpu, lines, out, x, data, epilogue)?;
        }
        (Path::Int8, WeightData::Quant(layout, bytes)) => {
            int8::run(cpu, out, x, layout, bytes.as_slice(), epilogue)?;
        }
        (Path::Scalar, WeightData::Quant(layout, bytes)) => {
            scalar::matmul_quant(&mut out.buf, &x.buf, x.rows, layout, bytes.as_slice(), epilogue);
        }
        (_, WeightData::Quant(layout, bytes)) => exact_quant(cpu, out, x, layout, bytes.as_slice(), epilogue),
        (Path::Scalar, _) => {
            with_stored!(w, |data| scalar::matmul(&mut out.buf, &x.buf, x.rows, data, w.cols, epilogue));
        }
        _ => exact(cpu, out, x, w, epilogue),
    }
    Ok(())
}

/// `out = swiglu(x . w^T)` without the sums in memory, where the kernels can; `false`: nothing was done.
pub(crate) fn run_swiglu(
    cpu: &mut Cpu,
    out: &mut RowBuf<Vec<f32>>,
    x: &RowBuf<Vec<f32>>,
    w: &CpuWeight,
) -> Result<bool> {
    check(
        &RowBuf { buf: (), rows: out.rows, cols: 2 * out.cols, max_rows: out.max_rows },
        x,
        (w.rows, w.cols),
    );
    #[cfg(target_arch = "x86_64")]
    if let Path::Bf16(unit) = choose(cpu.isa(), cpu.precision(), w.format(), x.rows)
        && bf16::has_swiglu(w.rows)
        && w.cols > 0
    {
        bf16::run(cpu, unit, out, x, bf16::Weights::new(&w.data), bf16::Output::Swiglu)?;
        return Ok(true);
    }
    Ok(false)
}

/// Vectors of f32, on weights that are stored number by number.
fn exact(cpu: &Cpu, out: &mut RowBuf<Vec<f32>>, x: &RowBuf<Vec<f32>>, w: &CpuWeight, epilogue: Epilogue) {
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

/// The same on quantised weights.
fn exact_quant(
    cpu: &Cpu,
    out: &mut RowBuf<Vec<f32>>,
    x: &RowBuf<Vec<f32>>,
    layout: &QuantLayout,
    bytes: &[u8],
    epilogue: Epilogue,
) {
    let out = SharedMut::new(&mut out.buf);
    let grain = 1 + 32_768 / (BLOCK_ROWS * layout.cols * x.rows);
    cpu.for_ranges(layout.blocks(), grain, |blocks| {
        let (layout, n_rows) = (*layout, x.rows);
        dispatch(cpu.isa(), quant::MatmulQuant { out, x: &x.buf, n_rows, layout, bytes, blocks, epilogue });
    });
}
