//! [`TensorFiles`]: the safetensors files of a model directory, memory-mapped.

use crate::packed_file;
use crate::source::{TensorData, TensorSource};
use crate::{Error, Result};
use komt_kernels::WeightFormat;
use komt_kernels::quant::QuantLayout;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a model, in one file or in the shards of an index.
pub(crate) struct TensorFiles {
    dir: PathBuf,
    shards: Vec<Arc<Mmap>>,
    /// Matrices are packed, in all shards or in none.
    is_packed: bool,
    tensors: BTreeMap<String, Tensor>,
}

struct Tensor {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,         // in the shard
    layout: Option<QuantLayout>, // of a packed matrix
}

/// A file of the same directory on every system: no separators, drives, streams or parents.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && !name.contains(|c: char| "/\\:".contains(c) || c.is_control())
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl TensorFiles {
    /// Maps the files of `dir` and reads their headers. A file must not be changed while it is mapped.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut files =
            TensorFiles { dir: dir.into(), shards: vec![], is_packed: false, tensors: BTreeMap::new() };
        if dir.join(SINGLE).exists() || !dir.join(INDEX).exists() {
            files.add(&dir.join(SINGLE))?;
            return Ok(files);
        }
        let path = dir.join(INDEX);
        let text = std::fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let index: Index = serde_json::from_slice(&text).map_err(|error| Error::json(&path, &error))?;
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        let mut shard_names = vec![];
        for name in names {
            if !is_file_name(name) {
                let expected = "the name of a file beside the index".into();
                let tensor =
                    index.weight_map.iter().find(|(_, file)| *file == name).map(|(tensor, _)| tensor);
                let tensor = tensor.cloned().unwrap_or_default();
                return Err(Error::Shards { path, tensor, expected, found: format!("`{name}`") });
            }
            files.add(&dir.join(name))?;
            shard_names.push(name.clone());
        }
        files.compare(&path, &index, &shard_names)?;
        Ok(files)
    }

    /// The index and the shards must say the same.
    fn compare(&self, path: &Path, index: &Index, shards: &[String]) -> Result<()> {
        let error = |tensor: &str, expected: &str, found: &str| Error::Shards {
            path: path.into(),
            tensor: tensor.into(),
            expected: expected.into(),
            found: found.into(),
        };
        for (name, shard) in &index.weight_map {
            match self.tensors.get(name) {
                None => return Err(error(name, &format!("it in {shard}"), "it in no shard")),
                Some(tensor) if shards[tensor.shard] != *shard => {
                    return Err(error(
                        name,
                        &format!("it in {shard}"),
                        &format!("it in {}", shards[tensor.shard]),
                    ));
                }
                Some(_) => {}
            }
        }
        match self.tensors.iter().find(|(name, _)| !index.weight_map.contains_key(*name)) {
            Some((name, tensor)) => {
                Err(error(name, "it in the index", &format!("it only in {}", shards[tensor.shard])))
            }
            None => Ok(()),
        }
    }

    /// Maps one file and takes in its tensors.
    fn add(&mut self, path: &Path) -> Result<()> {
        let file = std::fs::File::open(path).map_err(|source| Error::File { path: path.into(), source })?;
        // SAFETY: the mapping is read-only; that nobody changes the file while it is mapped is the documented condition
        // of loading, as everywhere where weights are mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::File { path: path.into(), source })?;
        // The crate checks the header: its length, its JSON, and that the tensors fill the file without gaps or overlaps.
        let (header_len, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| Error::Weights { path: path.into(), reason: error.to_string() })?;
        let wrong = |reason| Error::Weights { path: path.into(), reason };
        let none = HashMap::new();
        let ours = metadata.metadata().as_ref().unwrap_or(&none);
        let is_packed = packed_file::is_packed(ours).map_err(wrong)?;
        if !self.shards.is_empty() && is_packed != self.is_packed {
            return Err(wrong(
                "it is quantised and the files before it are not, or the other way round".into(),
            ));
        }
        self.is_packed = is_packed;
        let start = 8 + header_len; // after the length of the header and the header
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            let bytes = start + from..start + to;
            if bytes.end > map.len() {
                return Err(wrong(format!("tensor `{name}` ends at byte {} of {}", bytes.end, map.len())));
            }
            let layout = match is_packed {
                true => {
                    packed_file::layout(ours, &name, info.dtype == Dtype::U8, bytes.len()).map_err(wrong)?
                }
                false => None,
            };
            let (shard, dtype, shape) = (self.shards.len(), info.dtype, info.shape.clone());
            let tensor = Tensor { shard, dtype, shape, bytes, layout };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                let (expected, found) = ("it in one shard".into(), "it in two".into());
                return Err(Error::Shards { path: path.into(), tensor: name, expected, found });
            }
        }
        self.shards.push(Arc::new(map));
        Ok(())
    }
}

impl TensorSource for TensorFiles {
    fn path(&self) -> &Path {
        &self.dir
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn bytes(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, |tensor| tensor.bytes.len() as u64)
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<TensorData<'_>> {
        let format = self.format(name, shape)?;
        let tensor = &self.tensors[name];
        let shard = &self.shards[tensor.shard];
        let Some(layout) = &tensor.layout else {
            return Ok(TensorData::Plain(format, &shard[tensor.bytes.clone()]));
        };
        let bytes = layout.size_bytes();
        let start = tensor.bytes.start;
        let shared = packed_file::matrix(shard, start..start + bytes)
            .ok_or(komt_kernels::Error::OutOfMemory { device: "CPU".into(), bytes })?;
        Ok(TensorData::Quantised(format, shared))
    }

    fn is_packed(&self) -> bool {
        self.is_packed
    }

    fn format(&self, name: &str, shape: &[usize]) -> Result<WeightFormat> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::Tensors {
                dir: self.dir.clone(),
                missing: vec![name.into()],
                unknown: vec![],
            });
        };
        let found = tensor.layout.map_or_else(|| tensor.shape.clone(), |l| vec![l.rows, l.cols]);
        if found != shape {
            return Err(Error::Shape { tensor: name.into(), expected: shape.into(), found });
        }
        if let Some(layout) = tensor.layout {
            return Ok(layout.format);
        }
        match tensor.dtype {
            Dtype::F32 => Ok(WeightFormat::F32),
            Dtype::F16 => Ok(WeightFormat::F16),
            Dtype::BF16 => Ok(WeightFormat::Bf16),
            other => Err(Error::ElementType {
                tensor: name.into(),
                expected: "F32, F16 or BF16".into(),
                found: format!("{other:?}"),
            }),
        }
    }

    /// Those of a packed matrix go with the last who has it.
    fn release(&self, name: &str) {
        if let Some(Tensor { shard, bytes, layout: None, .. }) = self.tensors.get(name) {
            packed_file::release(&self.shards[*shard], bytes);
        }
    }
}
