//! What the examples share and an application would write its own way: flags, a progress bar, exit codes.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use komt_core::kernels::Backend;
use komt_core::{
    CpuOptions, Device, Engine, EngineOptions, GenerateOptions, Isa, KvFormat, LoadOptions, Model, Precision,
    Progress, Template, Tokenizer, Weights,
};
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// An example's result: the error is for the user to read.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[allow(missing_docs)] // Each field's comment is its help text.
mod flags {
    use super::*;

    #[derive(Debug, Clone, Args)]
    #[command(next_help_heading = "Model")]
    pub struct ModelArgs {
        /// A model: a Hugging Face directory, one of the example quantize, or a GGUF file [default: the demo model of the repository]
        #[arg(long, value_name = "DIR")]
        pub model: Option<PathBuf>,
        /// A model of the Hugging Face hub, through its cache (only if built with `--features hub`)
        #[arg(long, value_name = "OWNER/NAME", conflicts_with = "model")]
        pub hub: Option<String>,
        /// Branch, tag or commit of --hub [default: main]
        #[arg(long, requires = "hub")]
        pub revision: Option<String>,
        /// Where it runs: `auto` (a GPU if there is one that can, else the CPU), `cpu`, `cuda`, or `cuda:N` for the N-th GPU
        /// from 0
        #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = parse_device)]
        pub device: Device,
        /// Threads of the CPU, which this chooses [default: one for each core]
        #[arg(long, value_name = "N")]
        pub threads: Option<usize>,
        /// Kernels of the CPU, which this chooses [default: the best that it has]
        #[arg(long, value_parser = PossibleValuesParser::new(Isa::ALL.map(Isa::name)))]
        pub isa: Option<String>,
        /// How exactly the CPU, which this chooses, multiplies: `fast` may round the input of a matmul [default: fast]
        #[arg(long, value_parser = ["exact", "fast"])]
        pub precision: Option<String>,
        /// What matrices are kept as: as they are in the files, in 16 bits, or quantised while they are loaded to 8.25 or 4.5
        /// bits a weight (the example `quantize` does that once and for all)
        #[arg(long, value_name = "FORMAT", default_value = "stored",
            value_parser = PossibleValuesParser::new(Weights::NAMES).map(|name| Weights::from_name(&name).unwrap_or_default()))]
        pub weights: Weights,
        /// Copies quantised matrices from their file to memory: loading takes longer, decoding is some percent faster
        #[arg(long)]
        pub no_map: bool,
    }

    #[derive(Debug, Clone, Args)]
    #[command(next_help_heading = "Cache")]
    pub struct KvArgs {
        /// How keys and values are stored: `q8` is a little over half of `f16` [default: f16 on a CPU, f32 with --precision
        /// exact; on a GPU as its activations]
        #[arg(long, value_parser = PossibleValuesParser::new(KvFormat::ALL.map(KvFormat::name)))]
        pub kv: Option<String>,
    }

    #[derive(Debug, Clone, Args)]
    #[command(next_help_heading = "Generating")]
    pub struct GenerateArgs {
        #[command(flatten)]
        pub kv: KvArgs,
        /// How the prompt is written for the model
        #[arg(long, default_value = "komt", value_parser = PossibleValuesParser::new(Template::NAMES)
            .try_map(|name| Template::from_name(&name)))]
        pub template: Template,
        /// The settings of komt's model card: temperature 0.8, top-p 0.8, top-k 100, 1,024 new tokens. Other flags
        /// change them. [default: those of the model's generation_config.json, else greedy, 256 new tokens]
        #[arg(long)]
        pub card: bool,
        /// The longest conversation, in tokens [default: what the model was made for; 4,096 where no window bounds the
        /// cache]
        #[arg(long, value_name = "N")]
        pub max_context: Option<usize>,
        /// The longest answer, in tokens
        #[arg(long, value_name = "N")]
        pub max_new_tokens: Option<usize>,
        /// Ends the answer where this text would begin; can be repeated
        #[arg(long, value_name = "TEXT")]
        pub stop: Vec<String>,
        /// Goes on after the end-of-text token
        #[arg(long)]
        pub ignore_eos: bool,
        /// Divides the logits; 0: always the likeliest token, and none of the next five flags acts
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        pub temperature: Option<f32>,
        /// Draws from the K likeliest tokens; 0: off
        #[arg(long, value_name = "K")]
        pub top_k: Option<usize>,
        /// Draws from the likeliest tokens that have this probability together; 1: off
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        pub top_p: Option<f32>,
        /// Draws from tokens at least this many times as likely as the likeliest; 0: off
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        pub min_p: Option<f32>,
        /// Draws from the tokens of most typical surprise that have this probability together; 1: off
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        pub typical_p: Option<f32>,
        /// Draws from tokens of at least this probability; 0: off
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        pub epsilon_cutoff: Option<f32>,
        /// The same, with a limit that follows the entropy; 0: off
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        pub eta_cutoff: Option<f32>,
        /// Added to the logit of a token; can be repeated, -inf forbids it
        #[arg(long, value_name = "ID=X", value_parser = parse_bias)]
        pub logit_bias: Vec<(u32, f32)>,
        /// The same seed draws the same tokens [default: 0]
        #[arg(long)]
        pub seed: Option<u64>,
        /// Divides the logits of tokens that were there, prompt included; 1: off
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        pub repetition_penalty: Option<f32>,
        /// Subtracted from a token's logit each time it was generated; 0: off
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        pub frequency_penalty: Option<f32>,
        /// Subtracted from the logit of a token that was generated; 0: off
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        pub presence_penalty: Option<f32>,
        /// No run of N tokens comes twice; 0: off
        #[arg(long, value_name = "N")]
        pub no_repeat_ngram: Option<usize>,
    }
}
pub use flags::{GenerateArgs, KvArgs, ModelArgs};

impl KvArgs {
    /// The format that was asked for.
    pub fn format(&self) -> Option<KvFormat> {
        self.kv.as_deref().and_then(KvFormat::from_name)
    }
}

impl ModelArgs {
    /// Loads the model and says on standard error what it takes, how far it is, and where it runs.
    ///
    /// # Errors
    /// Those of `Model::load` and `Model::from_hub`; no demo model in sight; `--hub` in a build without.
    pub fn load(&self) -> Result<Model> {
        let device = self.device()?;
        self.load_with(|dir, options| Model::load(dir, options.device(device)))
    }

    /// The same on a CPU backend of one's own.
    ///
    /// # Errors
    /// As [`ModelArgs::load`]; CUDA was asked for.
    pub fn load_on<B: Backend + Clone + Sync>(&self, backend: B) -> Result<Model> {
        self.cpu_only()?;
        self.load_with(|dir, options| Model::load_on(backend, dir, options))
    }

    /// For what runs on the CPU only.
    ///
    /// # Errors
    /// CUDA was asked for.
    pub fn cpu_only(&self) -> Result<()> {
        match self.device {
            Device::Cuda(_) => Err("--device cuda: this example runs on the CPU only".into()),
            _ => Ok(()),
        }
    }

    fn load_with(
        &self,
        load: impl FnOnce(PathBuf, LoadOptions) -> komt_core::Result<Model>,
    ) -> Result<Model> {
        let start = Instant::now();
        let model = self.with_files(load)?;
        let (dir, seconds) = (model.dir().display(), start.elapsed().as_secs_f64());
        let why_cpu = model.why_cpu().map(|why| format!("; {why}")).unwrap_or_default();
        note(format!("{dir}: loaded in {seconds:.2} s, on {}{why_cpu}", model.device_name()));
        Ok(model)
    }

    /// Hands `f` the model's directory, fetched from the hub if that was asked for, and options: a progress bar, the format of
    /// the weights, and the CPU that was asked for.
    ///
    /// # Errors
    /// Those of `f`; no demo model in sight; `--hub` in a build without.
    pub fn with_files<T>(&self, f: impl FnOnce(PathBuf, LoadOptions) -> komt_core::Result<T>) -> Result<T> {
        let mut options =
            load_options().weights(self.weights).mapped(!self.no_map).device(Device::Cpu(self.cpu()));
        let dir = match &self.hub {
            Some(repo) => self.fetch(repo, &mut options)?,
            None => self.dir()?,
        };
        Ok(f(dir, options)?)
    }

    /// Nothing was asked for: it is the demo model.
    pub fn is_demo(&self) -> bool {
        self.model.is_none() && self.hub.is_none()
    }

    /// The directory of a model that is on this machine: where one is asked for that, the demo model in this directory
    /// or, failing that, in the repository that this was built from.
    ///
    /// # Errors
    /// There is no demo model.
    pub fn dir(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.model {
            return Ok(dir.clone());
        }
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let places = [Path::new("demo-model").to_owned(), repository.join("demo-model")];
        let demo = places.iter().find(|dir| dir.join("config.json").exists());
        let none = || {
            format!("no demo model in {} or {}: give --model DIR", places[0].display(), places[1].display())
        };
        Ok(demo.ok_or_else(none)?.clone())
    }

    fn device(&self) -> Result<Device> {
        let cpu = self.cpu();
        let chosen = self.threads.is_some() || self.isa.is_some() || self.precision.is_some();
        match self.device {
            Device::Cuda(_) if chosen => {
                Err("--threads, --isa and --precision are of the CPU, --device asks for CUDA".into())
            }
            Device::Auto if !chosen => Ok(Device::Auto),
            Device::Auto | Device::Cpu(_) => Ok(Device::Cpu(cpu)),
            device => Ok(device),
        }
    }

    /// The CPU that was asked for.
    pub fn cpu(&self) -> CpuOptions {
        let mut cpu = CpuOptions::default();
        cpu.threads = self.threads;
        cpu.isa = self.isa.as_deref().and_then(Isa::from_name);
        if self.precision.as_deref() == Some("exact") {
            cpu.precision = Precision::Exact;
        }
        cpu
    }

    #[cfg(feature = "hub")]
    fn fetch(&self, repo: &str, options: &mut LoadOptions) -> Result<PathBuf> {
        let mut hub = komt_core::HubOptions::default();
        hub.revision.clone_from(&self.revision);
        Ok(Model::fetch(repo, &hub, options)?)
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(&self, repo: &str, _options: &mut LoadOptions) -> Result<PathBuf> {
        Err(format!("--hub {repo}: this was built without the hub; build it with `--features hub`").into())
    }
}

fn parse_device(text: &str) -> std::result::Result<Device, String> {
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu(CpuOptions::default())),
        "cuda" => Ok(Device::Cuda(0)),
        _ => text
            .strip_prefix("cuda:")
            .and_then(|ordinal| ordinal.parse().ok())
            .map(Device::Cuda)
            .ok_or_else(|| "expected auto, cpu, cuda, or cuda:N".into()),
    }
}

/// `7=-1.5`: a token id and a number.
fn parse_bias(text: &str) -> std::result::Result<(u32, f32), String> {
    let parts = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parts.ok_or_else(|| "expected a token id, `=` and a number".into())
}

impl GenerateArgs {
    /// An engine as long as was asked for.
    ///
    /// # Errors
    /// Those of `Engine::new`.
    pub fn engine(&self, model: &Model) -> Result<Engine> {
        Ok(Engine::new(model, self.engine_options())?)
    }

    /// How large that engine is.
    pub fn engine_options(&self) -> EngineOptions {
        let mut options = EngineOptions::default();
        (options.max_context, options.kv_format) = (self.max_context, self.kv.format());
        options
    }

    /// The model's own options, or the card's, with what the flags change.
    pub fn options(&self, model: &Model) -> GenerateOptions {
        fn set<T: Copy>(option: &mut T, flag: Option<T>) {
            *option = flag.unwrap_or(*option);
        }
        let mut options = if self.card { GenerateOptions::komt_card() } else { model.generate_options() };
        set(&mut options.max_new_tokens, self.max_new_tokens);
        options.stop.extend(self.stop.iter().cloned());
        options.ignore_eos |= self.ignore_eos;
        let sampling = &mut options.sampling;
        set(&mut sampling.temperature, self.temperature);
        set(&mut sampling.top_k, self.top_k);
        set(&mut sampling.top_p, self.top_p);
        set(&mut sampling.min_p, self.min_p);
        set(&mut sampling.typical_p, self.typical_p);
        set(&mut sampling.epsilon_cutoff, self.epsilon_cutoff);
        set(&mut sampling.eta_cutoff, self.eta_cutoff);
        sampling.logit_bias.extend(&self.logit_bias);
        set(&mut sampling.seed, self.seed);
        set(&mut sampling.repetition_penalty, self.repetition_penalty);
        set(&mut sampling.frequency_penalty, self.frequency_penalty);
        set(&mut sampling.presence_penalty, self.presence_penalty);
        set(&mut sampling.no_repeat_ngram, self.no_repeat_ngram);
        options
    }
}

/// A progress bar for downloads and weights, and the memory plan.
fn load_options() -> LoadOptions {
    let bar = ProgressBar::no_length();
    if let Ok(style) =
        ProgressStyle::with_template("[{bar:30}] {bytes} of {total_bytes}, {eta} left: {wide_msg}")
    {
        bar.set_style(style);
    }
    LoadOptions::default().on_progress(move |progress| match progress {
        Progress::Plan(plan) => bar.suspend(|| note(plan)),
        Progress::Download { file: what, done_bytes, total_bytes }
        | Progress::Weights { tensor: what, done_bytes, total_bytes } => {
            bar.set_message(what.to_owned());
            bar.set_length(total_bytes);
            bar.set_position(done_bytes);
            if done_bytes == total_bytes {
                bar.finish_and_clear();
            }
        }
        _ => {}
    })
}

/// The most memory that this process had at any time, in MiB, where the system tells (Linux).
pub fn peak_resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib / 1024)
}

/// The ids of a text without a template, with BOS where the model's files want it, as transformers has them.
///
/// # Errors
/// The tokenizer's.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    Ok(if tokenizer.adds_bos() { tokenizer.encode_with_bos(text)? } else { tokenizer.encode(text)? })
}

/// Token ids: `1 2 3`, `[1, 2, 3]`, or a file with that.
///
/// # Errors
/// A word that is not a number, when there is no such file.
pub fn parse_ids(ids: &str) -> Result<Vec<u32>> {
    let text = if Path::new(ids).exists() { read_text(Path::new(ids))? } else { ids.to_owned() };
    let words = text.split([' ', '\t', '\r', '\n', ',', '[', ']']).filter(|word| !word.is_empty());
    let parse = |word: &str| {
        word.parse().map_err(|_| format!("--ids: {word:?} is not a token id, nor {ids:?} a file"))
    };
    Ok(words.map(parse).collect::<std::result::Result<_, _>>()?)
}

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = match path {
        path if path == Path::new("-") => io::stdin().read_to_string(&mut text),
        path => std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text)
}

/// A line on standard error; `eprintln!` would panic when nobody reads that any more.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Ends a program: an error becomes a message and exit code 1. A reader that has had enough (`| head`) is none.
pub fn exit(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    note(format!("error: {error}"));
    ExitCode::FAILURE
}
