//! [`Model`]: a model directory, loaded.

use crate::Device;
use crate::model::Mistral;
use crate::runner::{Capacity, Run, Runner};
use crate::source::ModelFiles;
use crate::{Config, EngineOptions, Error, GenerateOptions, Result, Weights, weights};
use komt_kernels::{Backend, CpuOptions, KvFormat};
use komt_tokenize::Tokenizer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What memory a model will take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// The weights, as the backend keeps them.
    pub weights_bytes: u64,
    /// The KV cache, for one token.
    pub kv_bytes_per_token: u64,
    /// The KV cache of one sequence at its longest: the window and a chunk, or the context.
    pub kv_bytes_per_seq: u64,
    /// The KV cache of an engine.
    pub kv_bytes: u64,
    /// Activations, logits and step plans of an engine.
    pub scratch_bytes: u64,
}

impl MemoryPlan {
    /// Weights, KV cache and scratch of one engine.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.scratch_bytes)
    }
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        write!(
            f,
            "weights {:.1} MiB, KV cache {:.1} MiB ({} bytes a token, {:.1} MiB a sequence at most), scratch {:.1} MiB: {:.1} MiB",
            mib(self.weights_bytes),
            mib(self.kv_bytes),
            self.kv_bytes_per_token,
            mib(self.kv_bytes_per_seq),
            mib(self.scratch_bytes),
            mib(self.total_bytes())
        )
    }
}

/// How far loading is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A file is coming from the hub.
    Download {
        /// Its name.
        file: &'a str,
        /// Bytes that are there.
        done_bytes: u64,
        /// Its size.
        total_bytes: u64,
    },
    /// What will be allocated; nothing has been yet.
    Plan(MemoryPlan),
    /// Tensors are being loaded.
    Weights {
        /// The tensor that was just loaded.
        tensor: &'a str,
        /// Bytes loaded.
        done_bytes: u64,
        /// Bytes to load.
        total_bytes: u64,
    },
}

type OnProgress = Box<dyn FnMut(Progress<'_>) + Send>;

/// How a model is loaded.
#[non_exhaustive]
pub struct LoadOptions {
    /// Where it is to run.
    pub device: Device,
    /// The most memory that the weights, and each engine with them, may take. What the device says is available is a limit
    /// in any case.
    pub memory_limit_bytes: Option<u64>,
    /// What matrices are kept as.
    pub weights: Weights,
    /// Quantised matrices stay in the mapped file, so that loading takes no time and the system may take their pages back;
    /// else they are copied to memory of their own, from where decoding is some percent faster.
    pub mapped: bool,
    /// There must be room for an engine, too, before anything is loaded.
    pub(crate) needs_engine: bool,
    on_progress: Option<OnProgress>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            memory_limit_bytes: None,
            weights: Weights::default(),
            mapped: true,
            needs_engine: false,
            on_progress: None,
        }
    }
}

impl std::fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, memory_limit_bytes, weights, mapped, .. } = self;
        f.debug_struct("LoadOptions")
            .field("device", device)
            .field("memory_limit_bytes", memory_limit_bytes)
            .field("weights", weights)
            .field("mapped", mapped)
            .finish()
    }
}

impl LoadOptions {
    /// On this device.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// With this limit to the memory of the weights, and of the weights and any one engine.
    pub fn memory_limit_bytes(mut self, bytes: u64) -> Self {
        self.memory_limit_bytes = Some(bytes);
        self
    }

    /// With matrices kept as this: quantised or converted while they are loaded, one by one.
    pub fn weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// With quantised matrices in the mapped file (as by default), or in memory of their own.
    pub fn mapped(mut self, mapped: bool) -> Self {
        self.mapped = mapped;
        self
    }

    /// Telling `f` how far it is.
    pub fn on_progress(mut self, f: impl FnMut(Progress<'_>) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(f));
        self
    }

    /// The host's part, whatever the device.
    pub(crate) fn cpu(&self) -> CpuOptions {
        if let Device::Cpu(cpu) = self.device { cpu } else { CpuOptions::default() }
    }

    pub(crate) fn tell(&mut self, progress: Progress<'_>) {
        if let Some(f) = &mut self.on_progress {
            f(progress);
        }
    }
}

/// A model: configuration, tokenizer, and weights on a device. Cloning is cheap; clones share the weights, also across
/// threads.
///
/// ```
/// use komt_core::{LoadOptions, Model};
/// # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo-model");
/// let model = Model::load(dir, LoadOptions::default())?;
/// assert_eq!(model.config().head_dim, 64);
/// # Ok::<(), komt_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    config: Config,
    tokenizer: Option<Tokenizer>,
    eos: Vec<u32>,
    options: GenerateOptions,
    weights_bytes: u64,
    memory_limit_bytes: Option<u64>,
    on_device: Box<dyn OnDevice>,
    why_cpu: Option<String>,
}

/// Weights on some backend: what makes runners.
trait OnDevice: Send + Sync {
    fn runner(&self, capacity: Capacity) -> Result<Box<dyn Run>>;
    fn device_name(&self) -> String;
    fn available_bytes(&self) -> Option<u64>;
    fn plan(&self, config: &Config, weights_bytes: u64, capacity: Capacity) -> Result<MemoryPlan>;
}

struct Loaded<B: Backend> {
    backend: B,
    weights: Arc<Mistral<B>>,
}

impl<B: Backend + Clone + Sync> OnDevice for Loaded<B> {
    fn runner(&self, capacity: Capacity) -> Result<Box<dyn Run>> {
        Ok(Box::new(Runner::new(self.backend.clone(), self.weights.clone(), capacity)?))
    }
    fn device_name(&self) -> String {
        self.backend.device_name()
    }
    fn available_bytes(&self) -> Option<u64> {
        self.backend.available_bytes()
    }
    fn plan(&self, config: &Config, weights_bytes: u64, capacity: Capacity) -> Result<MemoryPlan> {
        let format = self.backend.kv_format(capacity.kv_format)?;
        Ok(plan::<B>(config, weights_bytes, capacity, format))
    }
}

pub(crate) fn plan<B: Backend>(
    config: &Config,
    weights_bytes: u64,
    capacity: Capacity,
    format: KvFormat,
) -> MemoryPlan {
    let kv_bytes_per_token = Runner::<B>::kv_bytes_per_token(config, format);
    let pages = |n: usize| kv_bytes_per_token.saturating_mul((n * komt_cache::PAGE) as u64);
    MemoryPlan {
        weights_bytes,
        kv_bytes_per_token,
        kv_bytes_per_seq: pages(capacity.step.table_len),
        kv_bytes: pages(capacity.n_pages),
        scratch_bytes: Runner::<B>::scratch_bytes(config, capacity),
    }
}

impl Model {
    /// Loads a Hugging Face directory: `config.json`, `model.safetensors` or a sharded index, and where they are there
    /// `generation_config.json` and the tokenizer's files; a directory that [`convert`](crate::convert) wrote; or a GGUF file.
    /// Unless [`LoadOptions::weights`] says otherwise weights keep their type on a CPU (f32, f16, bf16, q8 or q4), and on a GPU
    /// those of more than 8 bits are 16 bits wide.
    ///
    /// The files are memory-mapped and must not be changed while they are read.
    ///
    /// # Errors
    /// Whatever is wrong with the files, by name; [`Error::NotEnoughMemory`] before anything is allocated.
    pub fn load(dir: impl AsRef<Path>, options: LoadOptions) -> Result<Self> {
        crate::device::load(dir.as_ref(), options)
    }

    /// Loads from the Hugging Face hub, through its cache.
    ///
    /// # Errors
    /// [`Error::Hub`], and those of [`Model::load`].
    #[cfg(feature = "hub")]
    pub fn from_hub(repo: &str, hub: &crate::HubOptions, mut options: LoadOptions) -> Result<Self> {
        let dir = Self::fetch(repo, hub, &mut options)?;
        Self::load(dir, options)
    }

    /// Downloads what is not in the cache of the Hugging Face hub, and returns the model's directory there.
    ///
    /// # Errors
    /// [`Error::Hub`].
    #[cfg(feature = "hub")]
    pub fn fetch(repo: &str, hub: &crate::HubOptions, options: &mut LoadOptions) -> Result<PathBuf> {
        crate::hub::fetch(repo, hub, &mut |file, done_bytes, total_bytes| {
            options.tell(Progress::Download { file, done_bytes, total_bytes });
        })
    }

    /// Loads onto a backend of one's own; `options.device` is not looked at.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_on<B: Backend + Clone + Sync>(
        backend: B,
        dir: impl AsRef<Path>,
        mut options: LoadOptions,
    ) -> Result<Self> {
        Self::load_onto(backend, &ModelFiles::open(dir.as_ref())?, &mut options, None)
    }

    /// The same; `why_cpu` is what [`Model::why_cpu`] will say.
    pub(crate) fn load_onto<B: Backend + Clone + Sync>(
        mut backend: B,
        files: &ModelFiles,
        options: &mut LoadOptions,
        why_cpu: Option<String>,
    ) -> Result<Self> {
        let ModelFiles { config, tensors, .. } = files;
        let weights_bytes = weights::check(&backend, config, &**tensors, options.weights)?;
        let capacity = EngineOptions::default().capacity(config);
        let plan = plan::<B>(config, weights_bytes, capacity, backend.kv_format(None)?);
        options.tell(Progress::Plan(plan));
        let (what, needed_bytes) = match options.needs_engine {
            true => ("weights, KV cache and scratch", plan.total_bytes()),
            false => ("weights", weights_bytes),
        };
        enough(what, needed_bytes, options.memory_limit_bytes, backend.available_bytes())?;
        let total_bytes = weights::total_bytes(config, &**tensors);
        let weights = weights::Loading {
            files: &**tensors,
            weights: options.weights,
            mapped: options.mapped,
            cpu: options.cpu(),
            on_tensor: &mut |tensor, done_bytes| {
                options.tell(Progress::Weights { tensor, done_bytes, total_bytes });
            },
        };
        let weights = weights::load(&mut backend, config, weights)?;
        let of_tokenizer = files.tokenizer.iter().filter_map(Tokenizer::eos).collect();
        let eos = [files.eos.clone(), config.eos.clone(), of_tokenizer]
            .into_iter()
            .find(|ids| !ids.is_empty())
            .unwrap_or_default();
        let on_device = Box::new(Loaded { backend, weights: Arc::new(weights) });
        let inner = Inner {
            dir: files.path.clone(),
            config: config.clone(),
            tokenizer: files.tokenizer.clone(),
            eos,
            options: files.options.clone(),
            weights_bytes,
            memory_limit_bytes: options.memory_limit_bytes,
            on_device,
            why_cpu,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The directory that the model came from.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The tokenizer that lies beside the weights.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] when none does.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.inner.tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer { dir: self.inner.dir.clone() })
    }

    /// Ids that end an answer: of `generation_config.json`, else of `config.json`, else of the tokenizer.
    pub fn eos(&self) -> &[u32] {
        &self.inner.eos
    }

    /// What `generation_config.json` says of generating; greedy where it says nothing.
    pub fn generate_options(&self) -> GenerateOptions {
        self.inner.options.clone()
    }

    /// The device in words.
    pub fn device_name(&self) -> String {
        self.inner.on_device.device_name()
    }

    /// Why [`Device::Auto`] took the CPU; `None` where it did not.
    pub fn why_cpu(&self) -> Option<&str> {
        self.inner.why_cpu.as_deref()
    }

    /// What an engine with these options will take.
    ///
    /// # Errors
    /// [`Error::Option`]; a format of the KV cache that the device has not.
    pub fn memory_plan(&self, options: &EngineOptions) -> Result<MemoryPlan> {
        options.check(&self.inner.config)?;
        self.plan(options.capacity(&self.inner.config))
    }

    fn plan(&self, capacity: Capacity) -> Result<MemoryPlan> {
        self.inner.on_device.plan(&self.inner.config, self.inner.weights_bytes, capacity)
    }

    /// A runner with this capacity, when there is memory for it.
    pub(crate) fn runner(&self, capacity: Capacity) -> Result<Box<dyn Run>> {
        let plan = self.plan(capacity)?;
        let needed_bytes = plan.kv_bytes.saturating_add(plan.scratch_bytes);
        let limit = self.inner.memory_limit_bytes.map(|limit| limit.saturating_sub(self.inner.weights_bytes));
        enough("KV cache and scratch", needed_bytes, limit, self.inner.on_device.available_bytes())?;
        self.inner.on_device.runner(capacity)
    }

    /// Ids that the vocabulary has, and at least one.
    pub(crate) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocab_size = self.inner.config.vocab_size;
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            _ if ids.is_empty() => Err(Error::EmptyPrompt),
            Some(&id) => Err(Error::TokenId { id, vocab_size }),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("dir", &self.inner.dir).field("device", &self.device_name()).finish()
    }
}

/// The smaller of the user's limit and what the device has must be enough.
fn enough(what: &'static str, needed_bytes: u64, limit: Option<u64>, available: Option<u64>) -> Result<()> {
    match limit.into_iter().chain(available).min() {
        Some(available_bytes) if needed_bytes > available_bytes => {
            Err(Error::NotEnoughMemory { what, needed_bytes, available_bytes })
        }
        _ => Ok(()),
    }
}
