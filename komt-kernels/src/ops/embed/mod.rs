//! `x[r, :] = table[ids[r], :]`, widened to f32. Shapes: x `[n_tokens, dim]`, table `[vocab_size, dim]`.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::cpu::{Cpu, CpuWeight, SharedMut, WeightData, simd::Stored, with_stored};
use crate::{RowBuf, StepBuf};

/// `table`: its rows and columns.
fn check<X, S>(x: &RowBuf<X>, table: (usize, usize), step: &StepBuf<S>) {
    assert_eq!(x.cols, table.1, "embed: x [{}, {}], table [{}, {}]", x.rows, x.cols, table.0, table.1);
    assert_eq!(x.rows, step.dims.n_tokens, "embed: rows of x, tokens of the step");
}

/// One implementation for every instruction set: it moves memory.
pub(crate) fn run(cpu: &Cpu, x: &mut RowBuf<Vec<f32>>, table: &CpuWeight, step: &StepBuf<Vec<u32>>) {
    check(x, (table.rows, table.cols), step);
    let (dim, ids) = (x.cols, step.ids());
    let out = SharedMut::new(&mut x.buf);
    if let WeightData::Quant(layout, bytes) = &table.data {
        let bytes = bytes.as_slice();
        return cpu.for_ranges(ids.len(), 16, |rows| {
            for row in rows {
                // SAFETY: each row belongs to one task.
                let out = unsafe { out.slice(row * dim, dim) };
                layout.decode_row(bytes, ids[row] as usize, out);
            }
        });
    }
    with_stored!(table, |data| cpu.for_ranges(ids.len(), 16, |rows| {
        for row in rows {
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.slice(row * dim, dim) };
            let from = &data[ids[row] as usize * dim..][..dim];
            out.iter_mut().zip(from).for_each(|(out, value)| *out = value.widen());
        }
    }));
}
