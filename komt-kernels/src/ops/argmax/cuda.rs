//! `argmax` and `top_candidates` on CUDA.

use crate::cuda::{Cuda, CudaAct, CudaBuf, Grid, KernelSpec, Params, Source};
use crate::{MAX_CANDIDATES, Result, Rows};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[Source {
    name: "argmax/argmax.cu",
    text: include_str!("argmax.cu"),
    kernels: &[
        KernelSpec { name: "argmax", max_shared_bytes: 0 },
        KernelSpec { name: "argmax_candidates", max_shared_bytes: 0 },
    ],
}];

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ArgmaxParams {
    ids: u64,
    values: u64,
    logits: u64,
    vocab_size: u32,
    k: u32,
}
const _: () = assert!(size_of::<ArgmaxParams>() == 32);
// SAFETY: as in argmax.cu; `run` and `run_candidates` have compared the buffers' sizes.
unsafe impl Params for ArgmaxParams {}

fn grid(n_rows: usize) -> Grid {
    Grid { blocks: [n_rows as u32, 1, 1], threads: 1024, shared_bytes: 0 }
}

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut CudaBuf<u32>,
    logits: &Rows<Cuda<A>, f32>,
) -> Result<()> {
    let (n_rows, vocab_size) = (logits.rows, logits.cols);
    assert!(n_rows <= out.len(), "argmax: {n_rows} rows, room for {}", out.len());
    let (ids, logits) = (out.ptr(), logits.buf.ptr());
    let params = ArgmaxParams { ids, values: 0, logits, vocab_size: vocab_size as u32, k: 1 };
    cuda.launch("argmax", grid(n_rows), params)
}

pub(crate) fn run_candidates<A: CudaAct>(
    cuda: &mut Cuda<A>,
    ids: &mut CudaBuf<u32>,
    values: &mut CudaBuf<f32>,
    logits: &Rows<Cuda<A>, f32>,
    k: usize,
) -> Result<()> {
    let (n_rows, vocab_size) = (logits.rows, logits.cols);
    assert!(
        (1..=MAX_CANDIDATES.min(vocab_size)).contains(&k) && n_rows * k <= ids.len().min(values.len()),
        "top_candidates: {k} of [{n_rows}, {vocab_size}], room for {} ids and {} values",
        ids.len(),
        values.len()
    );
    let (ids, values, logits) = (ids.ptr(), values.ptr(), logits.buf.ptr());
    let params = ArgmaxParams { ids, values, logits, vocab_size: vocab_size as u32, k: k as u32 };
    cuda.launch("argmax_candidates", grid(n_rows), params)
}
