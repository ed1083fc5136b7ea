//! [`GgufFile`]: a model in one GGUF file, as llama.cpp has them, memory-mapped.
//!
//! The reader is our own: of the crates that read GGUF, those that are small leave lengths and offsets unchecked or do not
//! know the types, and those that check bring a command line and an asynchronous runtime along. What is read is the container
//! ([`parse`]), the metadata as a [`Config`] ([`config`]) and a tokenizer ([`vocabulary`]), and tensors ([`blocks`], [`names`])
//! under Hugging Face's names and in its order of rows.

mod blocks;
mod config;
mod names;
mod parse;
mod vocabulary;

use crate::source::{ModelFiles, TensorData, TensorSource};
use crate::{Error, GenerateOptions, Result};
use blocks::ElementKind;
use komt_kernels::WeightFormat;
use komt_kernels::quant::RowSource;
use memmap2::Mmap;
use parse::{Header, Info};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Opens a GGUF file.
pub(crate) fn open(path: &Path) -> Result<ModelFiles> {
    let error = |source| Error::File { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(error)?;
    // SAFETY: the mapping is read-only; that nobody changes the file while it is mapped is the documented condition of
    // loading, as everywhere where weights are mapped.
    let map = unsafe { Mmap::map(&file) }.map_err(error)?;
    let header = Header::parse(path, &map)?;
    let config = config::config(path, &header)?;
    let tokenizer = vocabulary::tokenizer(path, &header, &map)?;
    let tensors = GgufFile::new(path, map, header, config.head_dim)?;
    Ok(ModelFiles {
        path: path.into(),
        config,
        tokenizer,
        eos: vec![],
        options: GenerateOptions::default(),
        tensors: Box::new(tensors),
    })
}

/// The tensors of a GGUF file.
struct GgufFile {
    path: PathBuf,
    map: Mmap,
    /// By Hugging Face's names; what has none there, by its own.
    tensors: BTreeMap<String, Info>,
    head_dim: usize,
}

impl GgufFile {
    fn new(path: &Path, map: Mmap, header: Header, head_dim: usize) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (own, info) in header.tensors {
            let name = names::hugging_face(&own).unwrap_or(own);
            if tensors.insert(name.clone(), info).is_some() {
                return Err(parse::wrong(path, &name, "it once", "it under both names"));
            }
        }
        Ok(Self { path: path.into(), map, tensors, head_dim })
    }

    /// A tensor that must have this shape.
    fn info(&self, name: &str, shape: &[usize]) -> Result<&Info> {
        match self.tensors.get(name) {
            None => {
                let missing = vec![name.into()];
                Err(Error::Tensors { dir: self.path.clone(), missing, unknown: vec![] })
            }
            Some(info) if info.shape != shape => {
                Err(Error::Shape { tensor: name.into(), expected: shape.into(), found: info.shape.clone() })
            }
            Some(info) => Ok(info),
        }
    }
}

impl TensorSource for GgufFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn bytes(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, |info| info.bytes.len() as u64)
    }

    fn format(&self, name: &str, shape: &[usize]) -> Result<WeightFormat> {
        Ok(plain(self.info(name, shape)?.kind).unwrap_or(WeightFormat::Q8))
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<TensorData<'_>> {
        let info = self.info(name, shape)?;
        let bytes = &self.map[info.bytes.clone()];
        let in_pairs = names::has_pairs(name);
        Ok(match plain(info.kind) {
            Some(format) if !in_pairs => TensorData::Plain(format, bytes),
            _ => {
                let cols = shape[shape.len() - 1];
                let pairs = in_pairs.then_some(self.head_dim);
                let rows = shape.iter().product::<usize>() / cols;
                TensorData::Rows(Box::new(Rows { kind: info.kind, bytes, rows, cols, pairs }))
            }
        })
    }

    fn release(&self, name: &str) {
        #[cfg(unix)]
        if let Some(Info { bytes, .. }) = self.tensors.get(name) {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the mapping is of a file and read-only, so what is dropped comes back unchanged when it is read.
            // Failure only means that the pages stay.
            let _ = unsafe { self.map.unchecked_advise_range(advice, bytes.start, bytes.len()) };
        }
        #[cfg(not(unix))]
        let _ = name; // the system takes pages of files back by itself
    }
}

/// The format of numbers that are not in blocks.
fn plain(kind: ElementKind) -> Option<WeightFormat> {
    match kind {
        ElementKind::F32 => Some(WeightFormat::F32),
        ElementKind::F16 => Some(WeightFormat::F16),
        ElementKind::BF16 => Some(WeightFormat::Bf16),
        _ => None,
    }
}

/// The rows of a tensor, in Hugging Face's order.
struct Rows<'a> {
    kind: ElementKind,
    bytes: &'a [u8],
    rows: usize,
    cols: usize,
    /// The width of a head whose rows lie in pairs.
    pairs: Option<usize>,
}

impl RowSource for Rows<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, row: usize, out: &mut [f32]) {
        let row = self.pairs.map_or(row, |head_dim| names::row_in_pairs(row, head_dim));
        let len = self.kind.row_bytes(self.cols);
        self.kind.decode(&self.bytes[row * len..][..len], out);
    }
}

#[cfg(test)]
mod tests;
