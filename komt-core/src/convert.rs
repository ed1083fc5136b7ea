//! [`convert`]: a model's directory, written again with its weights in another format.

use crate::files::{INDEX, SINGLE};
use crate::load::LoadOptions;
use crate::matrix::{Packed, Weights};
use crate::packed_file::{self, ALIGN};
use crate::source::{ModelFiles, TensorSource};
use crate::weights::{self, read_vector};
use crate::{Config, Error, Progress, Result};
use komt_kernels::quant::QuantLayout;
use komt_kernels::{Cpu, WeightFormat};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What [`convert`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// Numbers of all matrices.
    pub n_weights: u64,
    /// Bytes of all matrices in the file, with scales and padding.
    pub matrices_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

impl Converted {
    /// Bits that a weight takes, scales and padding included.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.matrices_bytes as f64 / self.n_weights as f64
    }
}

/// Configuration and tokenizer, as far as they are there.
const COPIED: [&str; 7] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "chat_template.jinja",
    CONFIG, // last: a directory whose writing was interrupted is not a model
];
const CONFIG: &str = "config.json";

/// Reads the model in the directory `from` and writes it to the directory `to` with matrices as `options.weights` says, one
/// after the other: no more than one is in memory. `to` is made where it is not there; with `overwrite` it may have a model
/// in one file, which goes when the new one is complete. Of `options` the device matters only for its threads.
///
/// [`Weights::Q8`] and [`Weights::Q4`] are written as they are multiplied, so that loading maps them and copies nothing.
/// **Only komt reads such a directory**; the file's metadata name the format and its version. [`Weights::Bf16`] is an ordinary
/// Hugging Face directory.
///
/// # Errors
/// Those of [`Model::load`](crate::Model::load); [`Error::Option`] for [`Weights::Stored`], for a GGUF file, and where there is a
/// model that may not be overwritten; [`Error::File`] when the disk is full, for example. What was written is then removed.
pub fn convert(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    overwrite: bool,
    mut options: LoadOptions,
) -> Result<Converted> {
    let (from, to) = (from.as_ref(), to.as_ref());
    if options.weights == Weights::Stored {
        let expected = "`bf16`, `q8` or `q4`".into();
        return Err(Error::Option { name: "weights", expected, found: "`stored`".into() });
    }
    if from.is_file() {
        let expected = "a directory (a GGUF file is quantised while it is loaded)".into();
        return Err(Error::Option { name: "the model", expected, found: from.display().to_string() });
    }
    let ModelFiles { config, tensors, .. } = ModelFiles::open(from)?;
    let host = Cpu::with(options.cpu())?;
    weights::check(&host, &config, &*tensors, options.weights)?;
    let plan = Plan::of(&config, &*tensors, options.weights)?;

    let error = |path: &Path| {
        let path = path.to_owned();
        |source| Error::File { path, source }
    };
    std::fs::create_dir_all(to).map_err(error(to))?;
    may_be_written(from, to, overwrite)?;
    let (partial, file) = Partial::create(to, SINGLE)?;
    let mut write = Writing { path: &partial.0, file: BufWriter::new(file) };
    let file_bytes = write.all(&plan, &*tensors, &host, &mut options)?;
    // Whatever may fail for want of room is written before anything gets its name, and by no copy: what has a name may be a
    // link to the source's own file.
    let mut copies = vec![];
    for name in COPIED {
        let (source, path) = (from.join(name), to.join(name));
        if source.exists() {
            let bytes = std::fs::read(&source).map_err(error(&source))?;
            let (partial, mut file) = Partial::create(to, name)?;
            file.write_all(&bytes).map_err(error(&partial.0))?;
            copies.push((path, Some(partial)));
        } else {
            copies.push((path, None));
        }
    }
    let remove = |path: &Path| match std::fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(error(path)(source)),
        _ => Ok(()),
    };
    let path = to.join(SINGLE);
    if overwrite {
        remove(&to.join(CONFIG))?;
    }
    std::fs::rename(&partial.0, &path).map_err(error(&path))?;
    for (path, copy) in copies {
        match copy {
            Some(copy) => std::fs::rename(&copy.0, &path).map_err(error(&path))?,
            None if overwrite => remove(&path)?, // the other model's
            None => {}
        }
    }
    Ok(Converted { n_weights: plan.n_weights(), matrices_bytes: plan.matrices_bytes(), file_bytes })
}

/// `to` must have no model, or one that is not the source and may go.
fn may_be_written(from: &Path, to: &Path, overwrite: bool) -> Result<()> {
    let wrong = |expected: &str, found: String| {
        Err(Error::Option { name: "the output directory", expected: expected.into(), found })
    };
    let is_same = matches!((from.canonicalize(), to.canonicalize()), (Ok(from), Ok(to)) if from == to);
    if is_same {
        return wrong("another than the model's own", format!("{}", to.display()));
    }
    let there = |names: &[&str]| names.iter().map(|name| to.join(name)).find(|path| path.exists());
    // An index would not be read beside the new file, but its shards would lie there for nothing.
    let (expected, found) = match overwrite {
        true => ("one without a sharded model", there(&[INDEX])),
        false => ("one without a model", there(&[SINGLE, INDEX, CONFIG])),
    };
    match found {
        Some(path) => wrong(expected, format!("{}", path.display())),
        None => Ok(()),
    }
}

/// A file that is removed unless it got its name.
struct Partial(PathBuf);

impl Partial {
    /// A new file beside what will be `name`. Nobody else writes it: a conversion into the same directory has its own.
    fn create(dir: &Path, name: &str) -> Result<(Self, File)> {
        static N_FILES: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = N_FILES.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!(".{name}.{}-{n}.partial", std::process::id()));
            match File::create_new(&path) {
                Ok(file) => return Ok((Self(path), file)),
                // Of another machine's process, or one that was killed: they may have this number, too.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::File { path, source }),
            }
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Nothing can be done about a file that cannot be removed; the error that led here is told.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What will be in the file, in order.
struct Plan {
    matrices: Vec<(Packed, WeightFormat)>,
    vectors: Vec<String>,
    dim: usize,
    weights: Weights,
    /// What is read for it, in the source's files.
    source_bytes: u64,
}

impl Plan {
    fn of(config: &Config, files: &dyn TensorSource, weights: Weights) -> Result<Self> {
        let (packed, vectors) = weights::tensors(config);
        let mut matrices = vec![];
        for matrix in packed {
            let format = matrix.format(files, weights)?;
            let parts = if format.is_quantised() { vec![matrix] } else { matrix.split() };
            matrices.extend(parts.into_iter().map(|matrix| (matrix, format)));
        }
        let source_bytes = weights::total_bytes(config, files);
        Ok(Self { matrices, vectors, dim: config.dim, weights, source_bytes })
    }

    fn n_weights(&self) -> u64 {
        self.matrices.iter().map(|(matrix, _)| (matrix.rows * matrix.cols) as u64).sum()
    }

    fn matrices_bytes(&self) -> u64 {
        self.matrices.iter().map(|(matrix, format)| len(matrix, *format) as u64).sum()
    }

    /// The header of the file: its length in 8 bytes, and JSON padded with spaces so that the data begin at a cache line.
    fn header(&self) -> Vec<u8> {
        let mut metadata: Map<String, Value> = Map::new();
        let mut header: Map<String, Value> = Map::new();
        let mut at = 0;
        let mut add = |name: &str, dtype: &str, shape: Vec<usize>, bytes: usize| {
            let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes]});
            header.insert(name.into(), info);
            at += bytes;
        };
        for (matrix, format) in &self.matrices {
            let bytes = len(matrix, *format);
            if format.is_quantised() {
                let layout = QuantLayout::new(*format, matrix.rows, matrix.cols);
                let (key, value) = packed_file::describe(matrix.name(), &layout);
                metadata.insert(key, value.into());
                add(matrix.name(), "U8", vec![bytes], bytes);
            } else {
                add(matrix.name(), "BF16", vec![matrix.rows, matrix.cols], bytes);
            }
        }
        for name in &self.vectors {
            add(name, "F32", vec![self.dim], 4 * self.dim);
        }
        if metadata.is_empty() {
            metadata.insert("format".into(), "pt".into()); // what transformers looks for
        } else {
            metadata
                .extend(packed_file::versions(self.weights.name()).map(|(key, value)| (key, value.into())));
        }
        header.insert("__metadata__".into(), metadata.into());
        let mut json = Value::from(header).to_string().into_bytes();
        json.resize((8 + json.len()).next_multiple_of(ALIGN) - 8, b' ');
        [&(json.len() as u64).to_le_bytes()[..], &json].concat()
    }
}

/// Bytes of a matrix in the file.
fn len(matrix: &Packed, format: WeightFormat) -> usize {
    let bytes = format.bytes(matrix.rows, matrix.cols);
    if format.is_quantised() { bytes.next_multiple_of(ALIGN) } else { bytes }
}

/// The file that is written.
struct Writing<'a> {
    path: &'a Path,
    file: BufWriter<File>,
}

impl Writing<'_> {
    /// Everything; returns the bytes.
    fn all(
        &mut self,
        plan: &Plan,
        files: &dyn TensorSource,
        host: &Cpu,
        options: &mut LoadOptions,
    ) -> Result<u64> {
        let (header, total_bytes, mut done_bytes) = (plan.header(), plan.source_bytes, 0);
        let mut done = |name: &str| {
            files.release(name);
            done_bytes += files.bytes(name);
            options.tell(Progress::Weights { tensor: name, done_bytes, total_bytes });
        };
        self.put(&header)?;
        for (matrix, format) in &plan.matrices {
            let parts = matrix.read(files)?;
            let bytes = match parts.quantised() {
                Some(bytes) => bytes,
                None => host.convert(*format, &parts).map_err(|error| matrix.error(error))?,
            };
            let bytes = bytes.as_slice();
            self.put(bytes)?;
            self.put(&[0; ALIGN][..len(matrix, *format) - bytes.len()])?;
            matrix.parts(files).iter().for_each(|(name, _)| done(name));
        }
        for name in &plan.vectors {
            for value in read_vector(files, name, plan.dim)? {
                self.put(&value.to_le_bytes())?;
            }
            done(name);
        }
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(|source| Error::File { path: self.path.into(), source })?;
        Ok(header.len() as u64 + plan.matrices_bytes() + (4 * plan.vectors.len() * plan.dim) as u64)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| Error::File { path: self.path.into(), source })
    }
}
