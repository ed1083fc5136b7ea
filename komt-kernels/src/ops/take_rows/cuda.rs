//! `take_rows` on CUDA.

use super::check;
use crate::cuda::{Cuda, CudaAct, Grid, KernelSpec, Params, Source};
use crate::{Result, Rows, Step};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[Source {
    name: "take_rows/take_rows.cu",
    text: include_str!("take_rows.cu"),
    kernels: &[KernelSpec { name: "take_rows", max_shared_bytes: 0 }],
}];

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct TakeRowsParams {
    out: u64,
    x: u64,
    logit_rows: u64,
    dim: u32,
    padding: u32,
}
const _: () = assert!(size_of::<TakeRowsParams>() == 32);
// SAFETY: as in take_rows.cu; `run` has compared the buffers' shapes, and a plan's logit rows are rows of it.
unsafe impl Params for TakeRowsParams {}

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    x: &Rows<Cuda<A>, A>,
    step: &Step<Cuda<A>>,
) -> Result<()> {
    check(out, x, step);
    assert_eq!(x.cols % 8, 0, "take_rows: {} columns", x.cols);
    let blocks = [out.rows as u32, x.cols.div_ceil(8 * 128) as u32, 1];
    let params = TakeRowsParams {
        out: out.buf.ptr(),
        x: x.buf.ptr(),
        logit_rows: step.logit_rows_ptr(),
        dim: x.cols as u32,
        padding: 0,
    };
    cuda.launch("take_rows", Grid { blocks, threads: 128, shared_bytes: 0 }, params)
}
