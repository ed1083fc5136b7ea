//! What we load, and what of it a decode step reads.

use crate::Result;
use crate::files::{Files, Name};
use komt_core::kernels::WeightFormat;
use komt_core::{EngineOptions, LoadOptions, Model, Weights, convert};
use std::path::PathBuf;

/// The directory to load a model from: that of the quantised weights is written first.
pub fn dir(files: &Files, name: Name, weights: Weights) -> Result<PathBuf> {
    let hf = files.hf(name)?;
    if ![Weights::Q8, Weights::Q4].contains(&weights) {
        return Ok(hf);
    }
    let dir = PathBuf::from(format!("{}-{}", hf.display(), weights.name()));
    if !dir.join("config.json").exists() {
        eprintln!("{}: making it", dir.display());
        convert(&hf, &dir, true, LoadOptions::default().weights(weights))?;
    }
    Ok(dir)
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
