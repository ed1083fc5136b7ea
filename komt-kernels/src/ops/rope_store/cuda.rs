//! `rope_store` on CUDA.

use crate::cuda::{Cuda, CudaAct, CudaBuf, Source};
use crate::{AttnShape, KvLayer, Result, Rows, Step};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[];

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    qkv: &mut Rows<Cuda<A>, A>,
    kv: &mut KvLayer<Cuda<A>>,
    step: &Step<Cuda<A>>,
    inv_freq: &CudaBuf<f32>,
    attn: AttnShape,
) -> Result<()> {
    let _ = (cuda, qkv, kv, step, inv_freq, attn);
    unimplemented!("rope_store: the kernels come")
}
