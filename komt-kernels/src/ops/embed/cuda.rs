//! `embed` on CUDA.

use crate::cuda::{Cuda, CudaAct, CudaWeight, Source};
use crate::{Result, Rows, Step};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[];

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    x: &mut Rows<Cuda<A>, f32>,
    table: &CudaWeight<A>,
    step: &Step<Cuda<A>>,
) -> Result<()> {
    let _ = (cuda, x, table, step);
    unimplemented!("embed: the kernels come")
}
