//! `embed` on CUDA.

use super::check;
use crate::cuda::{Cuda, CudaAct, CudaWeight, Grid, KernelSpec, Packing, Params, Source};
use crate::{Result, Rows, Step};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[Source {
    name: "embed/embed.cu",
    text: concat!(include_str!("../../cuda/quant.cuh"), include_str!("embed.cu")),
    kernels: &[
        KernelSpec { name: "embed", max_shared_bytes: 0 },
        KernelSpec { name: "embed_q8", max_shared_bytes: 0 },
        KernelSpec { name: "embed_q4", max_shared_bytes: 0 },
    ],
}];

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct EmbedParams {
    x: u64,
    table: u64,
    ids: u64,
    dim: u32,
    vocab_size: u32,
}
const _: () = assert!(size_of::<EmbedParams>() == 32);
// SAFETY: as in embed.cu; `run` has compared the buffers' shapes, and the kernel looks at the ids itself.
unsafe impl Params for EmbedParams {}

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    x: &mut Rows<Cuda<A>, f32>,
    table: &CudaWeight<A>,
    step: &Step<Cuda<A>>,
) -> Result<()> {
    check(x, (table.rows, table.cols), step);
    assert_eq!(x.cols % 8, 0, "embed: {} columns", x.cols);
    let blocks = [x.rows as u32, x.cols.div_ceil(8 * 128) as u32, 1];
    let params = EmbedParams {
        x: x.buf.ptr(),
        table: table.data.ptr(),
        ids: step.buf.ptr(),
        dim: x.cols as u32,
        vocab_size: table.rows as u32,
    };
    let kernel = match table.packing {
        Packing::Act => "embed",
        Packing::Q8 => "embed_q8",
        Packing::Q4 => "embed_q4",
    };
    cuda.launch(kernel, Grid { blocks, threads: 128, shared_bytes: 0 }, params)
}
