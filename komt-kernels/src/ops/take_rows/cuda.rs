//! `take_rows` on CUDA.

use crate::cuda::{Cuda, CudaAct, Source};
use crate::{Result, Rows, Step};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[];

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    x: &Rows<Cuda<A>, A>,
    step: &Step<Cuda<A>>,
) -> Result<()> {
    let _ = (cuda, out, x, step);
    unimplemented!("take_rows: the kernels come")
}
