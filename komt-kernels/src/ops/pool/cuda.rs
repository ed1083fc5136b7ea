//! `pool` on CUDA.

use crate::cuda::{Cuda, CudaAct, CudaBuf, Grid, KernelSpec, Params, Source, seqs_in_grid};
use crate::{Result, Rows, Step};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[Source {
    name: "pool/pool.cu",
    text: include_str!("pool.cu"),
    kernels: &[KernelSpec { name: "pool", max_shared_bytes: 0 }],
}];

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct PoolParams {
    out: u64,
    h: u64,
    weights: u64,
    q_start: u64,
    dim: u32,
    padding: u32,
}
const _: () = assert!(size_of::<PoolParams>() == 40);
// SAFETY: as in pool.cu; `run` has compared the buffers' shapes.
unsafe impl Params for PoolParams {}

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, f32>,
    h: &Rows<Cuda<A>, A>,
    weights: &CudaBuf<f32>,
    step: &Step<Cuda<A>>,
) -> Result<()> {
    let dims = step.dims;
    assert!(
        (out.rows, h.rows, h.cols) == (dims.n_seqs, dims.n_tokens, out.cols) && weights.len() >= h.rows,
        "pool: out [{}, {}], h [{}, {}], weights [{}], {dims:?}",
        out.rows,
        out.cols,
        h.rows,
        h.cols,
        weights.len()
    );
    assert_eq!(h.cols % 8, 0, "pool: {} columns", h.cols);
    let params = PoolParams {
        out: out.buf.ptr(),
        h: h.buf.ptr(),
        weights: weights.ptr(),
        q_start: step.q_start_ptr(),
        dim: h.cols as u32,
        padding: 0,
    };
    let blocks = [h.cols.div_ceil(256) as u32, seqs_in_grid(dims.n_seqs)?, 1];
    cuda.launch("pool", Grid { blocks, threads: 128, shared_bytes: 0 }, params)
}
