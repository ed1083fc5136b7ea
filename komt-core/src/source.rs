//! [`ModelFiles`]: what a model is made of, whatever kind of file that came from; [`TensorSource`]: its weights.

use crate::files::TensorFiles;
use crate::options::generation_config;
use crate::{Config, Error, GenerateOptions, Result, gguf};
use komt_kernels::quant::RowSource;
use komt_kernels::{SharedBytes, WeightFormat};
use komt_tokenize::Tokenizer;
use std::path::{Path, PathBuf};

/// A model that was opened: everything is known of it, and no weight was read.
pub(crate) struct ModelFiles {
    /// The directory or file.
    pub path: PathBuf,
    pub config: Config,
    pub tokenizer: Option<Tokenizer>,
    /// Ids that end an answer, if something else than the configuration and the tokenizer says so.
    pub eos: Vec<u32>,
    pub options: GenerateOptions,
    pub tensors: Box<dyn TensorSource>,
}

impl ModelFiles {
    /// Opens a Hugging Face directory or a GGUF file.
    pub fn open(path: &Path) -> Result<Self> {
        let files = if path.is_file() { gguf::open(path)? } else { Self::open_dir(path)? };
        files.check_vocabulary()?;
        Ok(files)
    }

    fn open_dir(path: &Path) -> Result<Self> {
        let config = Config::from_file(&path.join("config.json"))?;
        let tokenizer =
            path.join("tokenizer.json").exists().then(|| Tokenizer::from_dir(path)).transpose()?;
        let (eos, options) = generation_config(&path.join("generation_config.json"))?.unwrap_or_default();
        let tensors = Box::new(TensorFiles::open(path)?);
        Ok(Self { path: path.into(), config, tokenizer, eos, options, tensors })
    }

    /// The tokenizer may have fewer ids than the model (padded tables are common), never more.
    fn check_vocabulary(&self) -> Result<()> {
        let tokenizer = self.tokenizer.as_ref().map_or(0, Tokenizer::vocab_size);
        let model = self.config.vocab_size;
        if tokenizer > model { Err(Error::Vocabulary { tokenizer, model }) } else { Ok(()) }
    }
}

/// The tensors of a model by Hugging Face's names (`model.layers.0.self_attn.q_proj.weight`) and in Hugging Face's order of
/// rows and columns, wherever they lie. A kind of file is one implementation of this.
pub(crate) trait TensorSource: Send + Sync {
    /// What was opened, for messages.
    fn path(&self) -> &Path;

    /// The names of all tensors.
    fn names(&self) -> Vec<&str>;

    /// Bytes that a tensor takes in its file, 0 for one that is not there: what progress counts.
    fn bytes(&self, name: &str) -> u64;

    /// What [`Weights::Stored`](crate::Weights::Stored) keeps a tensor as: its own format where that is f32, f16 or bf16, and
    /// `Q8` for any other, which [`get`](Self::get) then gives by rows.
    ///
    /// A missing tensor and another shape than `[rows, cols]` (or `[len]`) are errors.
    fn format(&self, name: &str, shape: &[usize]) -> Result<WeightFormat>;

    /// The numbers of a tensor; errors as [`format`](Self::format).
    fn get(&self, name: &str, shape: &[usize]) -> Result<TensorData<'_>>;

    /// Whether matrices lie packed as they are multiplied, in their [`QuantLayout`](komt_kernels::quant::QuantLayout), under
    /// the names of the packed: then [`get`](Self::get) gives matrices as [`TensorData::Quantised`].
    fn is_packed(&self) -> bool {
        false
    }

    /// A tensor was copied: its mapped pages are not needed any more.
    fn release(&self, name: &str);
}

/// The numbers of a tensor.
pub(crate) enum TensorData<'a> {
    /// F32, F16 or Bf16: little-endian, row-major, of any alignment.
    Plain(WeightFormat, &'a [u8]),
    /// Whatever can be decoded row by row; a vector is one row. For rows in another order than the file's, too.
    Rows(Box<dyn RowSource + 'a>),
    /// A packed matrix.
    Quantised(WeightFormat, SharedBytes),
}
