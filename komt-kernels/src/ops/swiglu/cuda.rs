//! `swiglu` on CUDA.

use crate::cuda::{Cuda, CudaAct, Source};
use crate::{Result, Rows};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[];

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    gate_up: &Rows<Cuda<A>, A>,
) -> Result<()> {
    let _ = (cuda, out, gate_up);
    unimplemented!("swiglu: the kernels come")
}
