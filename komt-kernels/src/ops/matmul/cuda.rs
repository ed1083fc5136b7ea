//! `matmul` on CUDA.

use crate::cuda::{Cuda, CudaAct, CudaWeight, Source};
use crate::{Result, Rows};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[];

pub(crate) use super::Epilogue;

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    x: &Rows<Cuda<A>, A>,
    w: &CudaWeight<A>,
) -> Result<()> {
    let _ = (cuda, out, x, w);
    unimplemented!("matmul: the kernels come")
}

/// `out = x . w^T` in f32, or `out += x . w^T`.
pub(crate) fn run_f32<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, f32>,
    x: &Rows<Cuda<A>, A>,
    w: &CudaWeight<A>,
    epilogue: Epilogue,
) -> Result<()> {
    let _ = (cuda, out, x, w, epilogue);
    unimplemented!("matmul: the kernels come")
}
