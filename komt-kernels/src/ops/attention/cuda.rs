//! `attention` on CUDA.

use crate::cuda::{Cuda, CudaAct, Source};
use crate::{AttnShape, KvLayer, Result, Rows, Step};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[];

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    qkv: &Rows<Cuda<A>, A>,
    kv: &KvLayer<Cuda<A>>,
    step: &Step<Cuda<A>>,
    attn: AttnShape,
) -> Result<()> {
    let _ = (cuda, out, qkv, kv, step, attn);
    unimplemented!("attention: the kernels come")
}
