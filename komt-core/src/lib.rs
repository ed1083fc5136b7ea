//! Mistral-architecture models in a Rust application: text generation and embeddings from one set of weights.
//!
//! This crate is where applications start. (In many workspaces `-core` is the bottom; here it is the top: below it are
//! `komt-kernels`, `komt-cache`, `komt-tokenize` and `komt-sample`.)
//!
//! * [`Model`] loads a Hugging Face directory or a GGUF file.
//! * [`Session`] is a conversation: an iterator over tokens. Several share one [`SharedEngine`].
//! * [`Engine`] is underneath: `submit`, `step`, `cancel`, for front ends that batch many requests.
//! * [`Embedder`] makes vectors of texts, [`Scorer`] tells how likely texts are.
//!
//! ```
//! use komt_core::{EmbedOptions, Embedder, Engine, EngineOptions, LoadOptions, Model, SharedEngine};
//!
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo-model");
//! let model = Model::load(dir, LoadOptions::default())?;
//!
//! let engine = SharedEngine::new(Engine::new(&model, EngineOptions::default())?);
//! let mut session = engine.session();
//! for token in session.say("제주도 여행 코스를 알려줘")? {
//!     print!("{}", token?.text);
//! }
//!
//! let embedder = Embedder::new(&model, EmbedOptions::default())?;
//! let vectors = embedder.embed(&["바다", "산"])?;
//! assert_eq!(vectors[0].len(), model.config().dim);
//! # Ok::<(), komt_core::Error>(())
//! ```
//!
//! # Exactness
//! Results are those of `transformers` in float32: logits within a normalised mean squared error of 1e-9 at every
//! position, sampling and tokenising as there. A sequence's tokens depend on its prompt, options and seed alone: not on
//! what shares the step, on chunking, on paging, or on the number of threads.

mod config;
mod convert;
mod device;
mod embedder;
mod engine;
mod error;
mod fields;
mod files;
mod gguf;
#[cfg(feature = "hub")]
mod hub;
mod load;
mod matrix;
mod model;
mod options;
mod packed_file;
mod prefill;
mod runner;
mod scorer;
mod sequence;
mod session;
mod source;
mod stop;
mod weights;

pub use config::Config;
pub use convert::{Converted, convert};
pub use device::Device;
pub use embedder::{EmbedOptions, Embedder, Pooling};
pub use engine::{Engine, Event, SeqId};
pub use error::{Error, Result};
#[cfg(feature = "hub")]
pub use hub::HubOptions;
pub use komt_cache as cache;
pub use komt_kernels as kernels;
pub use komt_kernels::{Cpu, CpuOptions, Isa, KvFormat, Precision};
pub use komt_sample as sample;
pub use komt_sample::SamplingParams;
pub use komt_tokenize as tokenize;
pub use komt_tokenize::{Message, Role, StreamDecoder, Template, Tokenizer};
pub use load::{LoadOptions, MemoryPlan, Model, Progress};
pub use matrix::Weights;
pub use options::{EngineOptions, GenerateOptions};
pub use scorer::{Score, ScoreOptions, Scorer};
pub use sequence::{FinishReason, Token};
pub use session::{Canceller, Session, SharedEngine};

/// What applications may count on: weights shared across threads, engines and sessions moved to them.
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Model>();
    is_send_and_sync::<Embedder>();
    is_send_and_sync::<Scorer>();
    is_send_and_sync::<SharedEngine>();
    is_send_and_sync::<Error>();
    is_send_and_sync::<Tokenizer>();
    is_send::<Engine>();
    is_send::<Session>();
    is_send::<Event>();
    is_send::<LoadOptions>();
    is_send_and_sync::<GenerateOptions>();
    is_send_and_sync::<Token>();
    is_send_and_sync::<Canceller>();
};

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
