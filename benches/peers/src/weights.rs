//! What we load, and what of it a decode step reads.

use crate::Result;
use crate::files::{Files, Name};
use komt_core::kernels::WeightFormat;
use komt_core::{EngineOptions, Model, Weights};
use std::path::PathBuf;

/// The directory to load a model from.
pub fn dir(files: &Files, name: Name, _weights: Weights) -> Result<PathBuf> {
    files.hf(name)
}

/// Bytes of weights that a decode step reads: all, but of an embedding table beside an output matrix only a row.
pub fn decode_bytes(model: &Model, weights: Weights) -> Result<u64> {
    let c = model.config();
    let all = model.memory_plan(&EngineOptions::default())?.weights_bytes;
    let format = match weights {
        Weights::Q8 | Weights::Q4 => WeightFormat::Q8,
        _ => WeightFormat::Bf16,
    };
    Ok(if c.tied { all } else { all - format.bytes(c.vocab_size, c.dim) as u64 })
}
