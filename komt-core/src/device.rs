//! [`Device`]: where a model runs, and how that is chosen.

use crate::source::ModelFiles;
use crate::{Error, LoadOptions, Model, Result};
use komt_kernels::{Cpu, CpuOptions};
use std::path::Path;

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// The first GPU where it is usable for the model, else the CPU; [`Model::why_cpu`] then says why.
    Auto,
    /// The CPU, as the options say.
    Cpu(CpuOptions),
    /// The CUDA device of this number, counted from 0. An error where it cannot be had.
    Cuda(usize),
}

pub(crate) fn load(path: &Path, mut options: LoadOptions) -> Result<Model> {
    let files = &ModelFiles::open(path)?;
    match options.device {
        Device::Cpu(cpu) => Model::load_onto(Cpu::with(cpu)?, files, &mut options, None),
        Device::Cuda(ordinal) => load_cuda(ordinal, files, &mut options),
        Device::Auto => match load_whole_on_cuda(files, &mut options) {
            // The device's fault, its size or formats, or a build without it: the CPU may do. What is wrong with the files would be wrong
            // there too.
            Err(
                why
                @ (Error::Device(_) | Error::NotEnoughMemory { .. } | Error::Range { .. } | Error::NoCuda),
            ) => Model::load_onto(Cpu::new()?, files, &mut options, Some(why.to_string())),
            loaded => loaded,
        },
    }
}

/// The first GPU, if an engine fits beside the weights.
fn load_whole_on_cuda(files: &ModelFiles, options: &mut LoadOptions) -> Result<Model> {
    options.needs_engine = true;
    let loaded = load_cuda(0, files, options);
    options.needs_engine = false;
    loaded
}

/// In bf16 where the device has it, so that weights in bf16 are not rounded; files in f16 run in f16 for the same reason, and
/// everything on Turing, which has nothing else.
#[cfg(feature = "cuda")]
fn load_cuda(ordinal: usize, files: &ModelFiles, options: &mut LoadOptions) -> Result<Model> {
    use half::{bf16, f16};
    use komt_kernels::{Cuda, cuda};

    let has_bf16 = cuda::device(ordinal)?.has_bf16();
    if has_bf16 && !crate::weights::is_f16(&files.config, &*files.tensors, options.weights) {
        Model::load_onto(Cuda::<bf16>::new(ordinal)?, files, options, None)
    } else {
        Model::load_onto(Cuda::<f16>::new(ordinal)?, files, options, None)
    }
}

#[cfg(not(feature = "cuda"))]
fn load_cuda(_: usize, _: &ModelFiles, _: &mut LoadOptions) -> Result<Model> {
    Err(Error::NoCuda)
}
