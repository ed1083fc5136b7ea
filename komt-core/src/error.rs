//! [`Error`]: everything from outside that can go wrong.

use std::path::{Path, PathBuf};

/// What went wrong: each variant names the thing, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A JSON file is not JSON, or not of the expected form.
    #[error("{}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A field of a configuration file is missing or wrong.
    #[error("{}: `{field}`: expected {expected}, found {found}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The configuration asks for something that the forward pass does not compute.
    #[error("{}: `{field}` is {found}: only {supported} is computed", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What it asks for.
        found: String,
        /// What there is.
        supported: String,
    },
    /// A weights file is damaged or not of the safetensors format.
    #[error("{}: not a safetensors file: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A GGUF file is damaged, or of a kind that is not read.
    #[error("{}: GGUF: {what}: expected {expected}, found {found}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The key, the tensor, or the part of the header.
        what: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The index of a sharded model disagrees with its shards.
    #[error("{}: tensor `{tensor}`: expected {expected}, found {found}", path.display())]
    Shards {
        /// The index, or the shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where it must be.
        expected: String,
        /// Where it is.
        found: String,
    },
    /// The files have other tensors than the configuration needs.
    #[error("{}: tensors missing: {missing:?}; tensors that nothing uses: {unknown:?}", dir.display())]
    Tensors {
        /// The model's directory or file.
        dir: PathBuf,
        /// Names that the configuration needs and no file has.
        missing: Vec<String>,
        /// Names that a file has and the configuration does not need.
        unknown: Vec<String>,
    },
    /// A tensor has another shape than the configuration needs.
    #[error("tensor `{tensor}`: shape {found:?} in the file, the configuration needs {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// From the configuration.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor's numbers are of a type that is not read, or differ from those it is packed with.
    #[error("tensor `{tensor}`: element type {found}, expected {expected}")]
    ElementType {
        /// The tensor.
        tensor: String,
        /// What is read.
        expected: String,
        /// In the file.
        found: String,
    },
    /// A number of a tensor that the device's format cannot hold.
    #[error("tensor `{tensor}`: {source}")]
    Range {
        /// The tensor, the first where several are packed.
        tensor: String,
        /// Which number, and what the format holds.
        source: komt_kernels::Error,
    },
    /// The tokenizer has ids that the model does not know.
    #[error("the tokenizer has {tokenizer} ids, the model's vocabulary {model}")]
    Vocabulary {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Rows of the embedding.
        model: usize,
    },
    /// Text was given to a model whose directory has no tokenizer.
    #[error("{}: no tokenizer.json: only token ids can be used", dir.display())]
    NoTokenizer {
        /// The model's directory.
        dir: PathBuf,
    },
    /// The memory plan exceeds what is there. Nothing was allocated.
    #[error("{what}: {needed_bytes} bytes needed, {available_bytes} available")]
    NotEnoughMemory {
        /// What the memory is for.
        what: &'static str,
        /// The plan.
        needed_bytes: u64,
        /// What the device says, or the limit that was set.
        available_bytes: u64,
    },
    /// A prompt or text of no tokens, or with none left to pool.
    #[error("empty prompt or text: expected at least one token")]
    EmptyPrompt,
    /// A prompt, with what is cached before it, exceeds the context.
    #[error("{tokens} tokens, with what came before: expected {max} at most")]
    TooLong {
        /// Tokens in all.
        tokens: usize,
        /// The longest that there is room for.
        max: usize,
    },
    /// A token id that the model does not know.
    #[error("token id {id}: the vocabulary has {vocab_size} ids")]
    TokenId {
        /// The id.
        id: u32,
        /// Ids that there are.
        vocab_size: usize,
    },
    /// One of several texts cannot be embedded.
    #[error("text {text}: {source}")]
    Text {
        /// Which of the texts, from 0.
        text: usize,
        /// Why.
        source: Box<Error>,
    },
    /// Hidden states are not finite: the weights are damaged, or overflow.
    #[error("the hidden states are not finite numbers")]
    NotFinite,
    /// An option that makes no sense.
    #[error("option `{name}`: expected {expected}, found {found}")]
    Option {
        /// The option.
        name: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A sequence that the engine does not have, or no longer.
    #[error("sequence {seq} is not known: it was never opened, or is closed")]
    UnknownSequence {
        /// The sequence.
        seq: u64,
    },
    /// A turn was started on a sequence that still generates.
    #[error("sequence {seq} is still generating: expected its turn to have ended")]
    Busy {
        /// The sequence.
        seq: u64,
    },
    /// A download from the hub failed.
    #[error("hub: {repo}: {reason}")]
    Hub {
        /// The repository.
        repo: String,
        /// Why, and what can be done.
        reason: String,
    },
    /// CUDA was asked for in a build that leaves it out.
    #[error("CUDA: this was built without the feature `cuda`")]
    NoCuda,
    /// A device's error.
    #[error(transparent)]
    Device(#[from] komt_kernels::Error),
    /// A tokenizer's or template's error.
    #[error(transparent)]
    Tokenize(#[from] komt_tokenize::Error),
    /// A sampler's error: an invalid option, or logits that are not numbers.
    #[error(transparent)]
    Sample(#[from] komt_sample::Error),
}

impl Error {
    pub(crate) fn json(path: &Path, error: &serde_json::Error) -> Self {
        Error::Json { path: path.into(), reason: error.to_string() }
    }

    pub(crate) fn of_text(self, text: usize) -> Self {
        Error::Text { text, source: Box::new(self) }
    }
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
