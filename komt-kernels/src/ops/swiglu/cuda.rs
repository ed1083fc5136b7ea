//! `swiglu` on CUDA.

use super::check;
use crate::cuda::{Cuda, CudaAct, Grid, KernelSpec, Params, Source};
use crate::{Result, Rows};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[Source {
    name: "swiglu/swiglu.cu",
    text: include_str!("swiglu.cu"),
    kernels: &[KernelSpec { name: "swiglu", max_shared_bytes: 0 }],
}];

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct SwigluParams {
    out: u64,
    gate_up: u64,
    hidden_dim: u32,
    padding: u32,
}
const _: () = assert!(size_of::<SwigluParams>() == 24);
// SAFETY: as in swiglu.cu; `run` has compared the buffers' shapes.
unsafe impl Params for SwigluParams {}

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    gate_up: &Rows<Cuda<A>, A>,
) -> Result<()> {
    check(out, gate_up);
    assert_eq!(out.cols % 8, 0, "swiglu: {} columns", out.cols);
    let blocks = [out.rows as u32, out.cols.div_ceil(8 * 128) as u32, 1];
    let params = SwigluParams {
        out: out.buf.ptr(),
        gate_up: gate_up.buf.ptr(),
        hidden_dim: out.cols as u32,
        padding: 0,
    };
    cuda.launch("swiglu", Grid { blocks, threads: 128, shared_bytes: 0 }, params)
}
