//! `rms_norm` on CUDA.

use super::check;
use crate::cuda::{Cuda, CudaAct, CudaBuf, Grid, KernelSpec, Params, Source};
use crate::{Result, Rows};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[Source {
    name: "rms_norm/rms_norm.cu",
    text: include_str!("rms_norm.cu"),
    kernels: &[
        KernelSpec { name: "rms_norm_4", max_shared_bytes: 0 },
        KernelSpec { name: "rms_norm_8", max_shared_bytes: 0 },
        KernelSpec { name: "rms_norm_16", max_shared_bytes: 0 },
        KernelSpec { name: "rms_norm_32", max_shared_bytes: 0 },
    ],
}];

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RmsNormParams {
    out: u64,
    x: u64,
    w: u64,
    dim: u32,
    eps: f32,
}
const _: () = assert!(size_of::<RmsNormParams>() == 32);
// SAFETY: as in rms_norm.cu; `run` has compared the buffers' shapes.
unsafe impl Params for RmsNormParams {}

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    x: &Rows<Cuda<A>, f32>,
    w: &CudaBuf<f32>,
    eps: f32,
) -> Result<()> {
    check(out, x, w.len());
    assert_eq!(x.cols % 4, 0, "rms_norm: {} columns", x.cols);
    // 16 numbers a thread stay in registers.
    let (kernel, warps) = match x.cols {
        0..=2048 => ("rms_norm_4", 4),
        2049..=4096 => ("rms_norm_8", 8),
        4097..=8192 => ("rms_norm_16", 16),
        _ => ("rms_norm_32", 32),
    };
    let grid = Grid { blocks: [x.rows as u32, 1, 1], threads: 32 * warps, shared_bytes: 0 };
    let params = RmsNormParams { out: out.buf.ptr(), x: x.buf.ptr(), w: w.ptr(), dim: x.cols as u32, eps };
    cuda.launch(kernel, grid, params)
}
