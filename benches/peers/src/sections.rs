//! What is measured: each section can be run alone.

use crate::Result;
use crate::files::{self, Files, Name};
use crate::llama::{self, FileType, Settings};
use crate::ours::Ours;
use crate::pairs::Pairs;
use crate::work::{Runner, Work};
use crate::{candle, weights};
use candle_core::DType;
use komt_benches::bandwidth::{BUFFER_BYTES, read_bandwidth};
use komt_core::{EngineOptions, LoadOptions, Model, Weights};
use serde_json::{Value, json};

/// Whom we are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// llama.cpp with a file of this type, its weights rearranged or not.
    Llama(FileType, bool),
    /// candle's quantised Llama.
    Candle(FileType),
    /// candle's Mistral.
    CandleMistral(DType),
    /// Ourselves, one sequence.
    Alone,
    /// Ourselves, without context.
    Empty,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Llama(file_type, true) => write!(f, "llama.cpp {}", file_type.name()),
            Peer::Llama(file_type, false) => write!(f, "llama.cpp {} not repacked", file_type.name()),
            Peer::Candle(file_type) => write!(f, "candle {}", file_type.name()),
            Peer::CandleMistral(dtype) => write!(f, "candle Mistral {dtype:?}"),
            Peer::Alone => write!(f, "one sequence"),
            Peer::Empty => write!(f, "empty context"),
        }
    }
}

/// One table row or several: a model, what it does, and the peers that do the same.
pub struct Section {
    pub name: &'static str,
    pub model: Name,
    pub weights: Weights,
    pub work: Work,
    pub peers: Vec<Peer>,
    pub aim: &'static str,
}

/// All sections, in the order of the page. `layers` is the cut, `small` the cut where everything takes long.
pub fn all(layers: usize, small: usize) -> Vec<Section> {
    use FileType::{Bf16, Q4_0, Q4KM, Q8_0};
    let cut = Name::Cut(layers);
    let bf16 = vec![Peer::Llama(Bf16, true)];
    let q8 = vec![Peer::Llama(Q8_0, true), Peer::Llama(Q8_0, false), Peer::Candle(Q8_0)];
    let q8_both = vec![Peer::Llama(Q8_0, true), Peer::Llama(Q8_0, false)];
    let q4 = vec![
        Peer::Llama(Q4_0, true),
        Peer::Llama(Q4_0, false),
        Peer::Llama(Q4KM, true),
        Peer::Llama(Q4KM, false),
        Peer::Candle(Q4_0),
        Peer::Candle(Q4KM),
    ];
    let decode = |n_steps| Work::Decode { n_seqs: 1, context: 8, n_steps };
    let prompt = Work::Prompt { n_tokens: 512 };
    let embed = |n_texts| Work::Embed { n_texts, n_tokens: 128 };
    let batch = Work::Decode { n_seqs: 16, context: 8, n_steps: 12 };
    let long = Work::Decode { n_seqs: 1, context: 8192, n_steps: 24 };
    let section = |name, model, weights, work, peers: &[Peer], aim| Section {
        name,
        model,
        weights,
        work,
        peers: peers.to_vec(),
        aim,
    };
    vec![
        section("decode.bf16", cut, Weights::Bf16, decode(8), &bf16, ">= 1.0 x, >= 90 % of the limit"),
        section("decode.q8", cut, Weights::Q8, decode(16), &q8, ">= 1.0 x, >= 90 %"),
        section("decode.q4", cut, Weights::Q4, decode(24), &q4, ">= 1.0 x Q4_0, >= 85 %"),
        section("prompt.bf16", cut, Weights::Bf16, prompt, &bf16, ">= 1.05 x"),
        section("prompt.q8", cut, Weights::Q8, prompt, &q8, ">= 2 x the best"),
        section("prompt.q4", cut, Weights::Q4, prompt, &q4, ">= 1.3 x the best"),
        section(
            "smollm2.decode.bf16",
            Name::SmolLm2,
            Weights::Bf16,
            decode(64),
            &bf16,
            ">= 1.2 x, or >= 90 %",
        ),
        section(
            "smollm2.decode.q8",
            Name::SmolLm2,
            Weights::Q8,
            decode(64),
            &q8_both,
            ">= 1.2 x, or >= 90 %",
        ),
        section("smollm2.prompt.bf16", Name::SmolLm2, Weights::Bf16, prompt, &bf16, ">= 1.2 x"),
        section("smollm2.prompt.q8", Name::SmolLm2, Weights::Q8, prompt, &q8_both, ">= 1.2 x"),
        section("smollm2.embed.q8", Name::SmolLm2, Weights::Q8, embed(64), &q8_both, ">= 2.5 x"),
        section("embed.q8", cut, Weights::Q8, embed(8), &q8_both, ">= 2.5 x"),
        section(
            "batch.q8",
            cut,
            Weights::Q8,
            batch,
            &[Peer::Alone, Peer::Llama(Q8_0, true)],
            ">= 8 x one sequence",
        ),
        section(
            "long.q8",
            Name::Cut(small),
            Weights::Q8,
            long,
            &[Peer::Empty],
            "time per byte <= 1.1 x an empty context's",
        ),
        section(
            "prompt.candle",
            Name::Cut(small),
            Weights::Bf16,
            prompt,
            &[Peer::CandleMistral(DType::F32), Peer::CandleMistral(DType::F16)],
            ">= 5 x",
        ),
    ]
}

impl Section {
    /// Makes the files that are missing.
    pub fn prepare(&self, files: &Files, filter: &str) -> Result<()> {
        weights::dir(files, self.model, self.weights)?;
        for peer in self.peers.iter().filter(|peer| peer.to_string().contains(filter)) {
            if let Peer::Llama(file_type, _) | Peer::Candle(file_type) = peer {
                files.gguf(self.model, *file_type)?;
            }
        }
        Ok(())
    }

    /// Measures the peers whose names contain `filter`; hands out one result for each.
    pub fn run(
        &self,
        files: &Files,
        n_pairs: usize,
        filter: &str,
        put: &mut dyn FnMut(&str, Value) -> Result<()>,
    ) -> Result<()> {
        let peers: Vec<_> = self.peers.iter().filter(|peer| peer.to_string().contains(filter)).collect();
        self.prepare(files, filter)?; // before anything is in memory
        let options = LoadOptions::default().mapped(false); // peers that rearrange weights have them in memory, too
        let model = Model::load(weights::dir(files, self.model, self.weights)?, options)?;
        for peer in peers {
            eprintln!("{}: {peer}", self.name);
            let before = read_bandwidth(BUFFER_BYTES);
            let mut ours = Ours::new(&model, self.work)?;
            let (settings, pairs, peer_bytes) = self.against(*peer, files, &model, &mut ours, n_pairs)?;
            let limit = before.max(read_bandwidth(BUFFER_BYTES));
            put(
                &format!("{}.{peer}", self.name),
                json!({
                    "section": self.name, "peer": peer.to_string(), "settings": settings, "model": self.model.to_string(),
                    "weights": self.weights.name(), "pairs": pairs.json(), "ours_bytes": self.ours_bytes(&model)?,
                    "peer_bytes": peer_bytes, "limit": limit,
                }),
            )?;
        }
        Ok(())
    }

    /// Bytes that a decode step of ours reads: weights, and with a context the keys and values.
    fn ours_bytes(&self, model: &Model) -> Result<u64> {
        let plan = model.memory_plan(&EngineOptions::default())?;
        let kv_tokens = match self.work {
            Work::Decode { n_seqs, context, n_steps } => {
                let mean = context + n_steps / 2;
                n_seqs * model.config().window.map_or(mean, |window| mean.min(window))
            }
            _ => 0,
        };
        Ok(weights::decode_bytes(model, self.weights)? + kv_tokens as u64 * plan.kv_bytes_per_token)
    }

    fn against(
        &self,
        peer: Peer,
        files: &Files,
        model: &Model,
        ours: &mut Ours,
        n_pairs: usize,
    ) -> Result<(String, Pairs, Option<u64>)> {
        let work = self.work;
        match peer {
            Peer::Llama(file_type, repack) => {
                let path = files.gguf(self.model, file_type)?;
                let llama = llama::Model::load(&path, repack)?;
                let settings = best(&llama, work, repack)?;
                let mut context = context(&llama, work, settings)?;
                let pairs = Pairs::measure(n_pairs, work, ours, &mut context)?;
                Ok((settings.to_string(), pairs, Some(files::gguf_decode_bytes(&path)?)))
            }
            Peer::Candle(file_type) => {
                let path = files.gguf(self.model, file_type)?;
                let mut candle = candle::Quantised::load(&path)?;
                work.run(&mut candle)?;
                let pairs = Pairs::measure(n_pairs, work, ours, &mut candle)?;
                Ok((String::new(), pairs, Some(files::gguf_decode_bytes(&path)?)))
            }
            Peer::CandleMistral(dtype) => {
                let mut candle = candle::Mistral::load(&files.hf(self.model)?, dtype)?;
                work.run(&mut candle)?;
                Ok((String::new(), Pairs::measure(n_pairs, work, ours, &mut candle)?, None))
            }
            Peer::Alone | Peer::Empty => {
                let Work::Decode { n_steps, .. } = work else { return Err("only decoding".into()) };
                let alone = Work::Decode { n_seqs: 1, context: 8, n_steps };
                let mut peer = As { runner: Ours::new(model, alone)?, work: alone };
                let pairs = Pairs::measure(n_pairs, work, ours, &mut peer)?;
                Ok((String::new(), pairs, Some(weights::decode_bytes(model, self.weights)?)))
            }
        }
    }
}

/// A runner that does its own work whatever is asked.
struct As {
    runner: Ours,
    work: Work,
}

impl Runner for As {
    fn prompt(&mut self, _: usize) -> Result<f64> {
        self.work.run(&mut self.runner)
    }
    fn decode(&mut self, _: usize, _: usize, _: usize) -> Result<f64> {
        self.work.run(&mut self.runner)
    }
    fn embed(&mut self, _: usize, _: usize) -> Result<f64> {
        self.work.run(&mut self.runner)
    }
}

fn context(model: &llama::Model, work: Work, settings: Settings) -> Result<llama::Context<'_>> {
    let (n_seqs, n_ctx) = work.room();
    llama::Context::new(model, settings, n_seqs, n_ctx, matches!(work, Work::Embed { .. }))
}

/// The settings that are fastest here: each is tried.
fn best(model: &llama::Model, work: Work, repack: bool) -> Result<Settings> {
    let mut best: Option<(f64, Settings)> = None;
    let unified: &[bool] = if work.room().0 > 1 { &[false, true] } else { &[false] };
    for &unified in unified {
        for flash in [true, false] {
            let settings = Settings { repack, flash, unified };
            let mut context = context(model, work, settings)?;
            // The first time of all reads the file.
            if best.is_none() {
                work.trial().run(&mut context)?;
            }
            let seconds = work.trial().run(&mut context)?;
            eprintln!("  {settings}: {seconds:.3} s");
            if best.is_none_or(|(least, _)| seconds < least) {
                best = Some((seconds, settings));
            }
        }
    }
    Ok(best.ok_or("no settings were tried")?.1)
}
