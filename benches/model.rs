//! Whole prefills and decode steps of an engine: on the demo model, on a synthetic tiny one, and on what
//! `KOMT_BENCH_MODEL=<dir>` or `KOMT_BENCH_SHAPE=mistral-7b|1b|tiny` name (a shape is written to the temporary directory
//! first). Prefill of a large model takes long: `cargo bench -p komt-benches --bench model -- decode` leaves it out.
//!
//! Only steps are timed. Decoding reads every weight once a step; how fast it does so is printed beside how fast this
//! machine reads memory at all. (Models of a few megabytes stay in the cache, and can be faster than that.)
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use komt_benches::bandwidth::{BUFFER_BYTES, read_bandwidth};
use komt_benches::is_test;
use komt_benches::synth::{self, Shape};
use komt_core::kernels::Backend;
use komt_core::{Config, Cpu, Engine, EngineOptions, Event, GenerateOptions, LoadOptions, Model, SeqId};
use std::cell::LazyCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Tokens in the cache where decoding begins, and how many are decoded until it begins anew.
const DECODE_AT: usize = 128;
const DECODE_STEPS: usize = 128;

fn synthetic(shape: Shape) -> (String, Model) {
    let dir = tempfile::tempdir().unwrap();
    synth::write(dir.path(), shape, 1, &mut |_, _| {}).unwrap();
    // The model has copied its weights when the directory goes.
    (shape.name().to_owned(), Model::load(dir.path(), LoadOptions::default()).unwrap())
}

fn models() -> Vec<(String, Model)> {
    let load = |name: String, dir: &Path| (name, Model::load(dir, LoadOptions::default()).unwrap());
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model");
    let mut models = vec![load("demo".into(), &demo), synthetic(Shape::Tiny)];
    if let Ok(name) = std::env::var("KOMT_BENCH_SHAPE") {
        let shape = name.parse().unwrap_or_else(|error| panic!("KOMT_BENCH_SHAPE: {error}"));
        if shape != Shape::Tiny {
            models.push(synthetic(shape));
        }
    }
    if let Some(dir) = std::env::var_os("KOMT_BENCH_MODEL").map(PathBuf::from) {
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        models.push(load(name, &dir));
    }
    models
}

fn engine(model: &Model) -> Engine {
    let max_context = model.config().max_context.min(1024);
    let options = EngineOptions::default().max_seqs(1).max_step_tokens(512).max_context(max_context);
    Engine::new(model, options).unwrap()
}

fn prompt(config: &Config, n: usize) -> Vec<u32> {
    (0..n).map(|i| (3 + i * 7919 % (config.vocab_size - 3)) as u32).collect()
}

/// Time of the steps until the engine has nothing to do.
fn run(engine: &mut Engine) -> Duration {
    let mut steps = Duration::ZERO;
    while !engine.is_idle() {
        steps += step(engine);
    }
    steps
}

fn step(engine: &mut Engine) -> Duration {
    let start = Instant::now();
    let events = engine.step().unwrap();
    let time = start.elapsed();
    assert!(!events.iter().any(|event| matches!(event, Event::Failed { .. })), "{events:?}");
    time
}

fn prefill(c: &mut Criterion, name: &str, model: &Model) {
    let mut group = c.benchmark_group("prefill");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let mut engine = engine(model);
    for n in [128, 512] {
        let prompt = prompt(model.config(), n);
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(format!("{name}/{n} tokens"), |b| {
            b.iter_custom(|iters| {
                let once = |_| {
                    engine.submit(&prompt, GenerateOptions::default().max_new_tokens(1)).unwrap();
                    run(&mut engine)
                };
                (0..iters).map(once).sum()
            });
        });
    }
}

/// One sequence that goes on, and begins anew when its steps are done.
struct Decoding {
    engine: Engine,
    seq: Option<SeqId>,
    n_left: usize,
    total: Duration,
    n_steps: usize,
}

impl Decoding {
    fn step(&mut self) -> Duration {
        if self.n_left == 0 {
            if let Some(seq) = self.seq {
                self.engine.close(seq);
            }
            let options = GenerateOptions::default().max_new_tokens(DECODE_STEPS + 1).ignore_eos(true);
            let prompt = prompt(self.engine.model().config(), DECODE_AT);
            self.seq = Some(self.engine.submit(&prompt, options).unwrap());
            step(&mut self.engine); // the prompt, and the first token
            self.n_left = DECODE_STEPS;
        }
        let time = step(&mut self.engine);
        self.n_left -= 1;
        self.n_steps += 1;
        self.total += time;
        time
    }
}

/// Bytes of weights that a decode step reads: all, but of an embedding table that is not the output matrix too only a row.
fn decode_bytes(model: &Model) -> u64 {
    let c = model.config();
    let all_bytes = model.memory_plan(&EngineOptions::default()).unwrap().weights_bytes;
    if c.tied {
        return all_bytes;
    }
    let norm_bytes = (4 * (2 * c.n_layers + 1) * c.dim) as u64; // f32
    let embed = (c.vocab_size * c.dim) as u64;
    let layer = c.dim * (2 * c.q_dim() + 2 * c.kv_dim() + 3 * c.hidden_dim);
    let matrices = 2 * embed + (c.n_layers * layer) as u64;
    // All matrices have one type in the models that there are.
    let element_bytes = (all_bytes - norm_bytes) / matrices;
    all_bytes - (embed - c.dim as u64) * element_bytes
}

fn decode(c: &mut Criterion, name: &str, model: &Model) {
    let room = Cpu::new().unwrap().available_bytes().unwrap_or(0) as usize / 4;
    let buffer_bytes = if is_test() { 1 << 26 } else { BUFFER_BYTES.min(room) };
    // Before and after, since others may use this machine too: the better of the two.
    let before = LazyCell::new(|| read_bandwidth(buffer_bytes));
    let bytes = decode_bytes(model);
    let mut group = c.benchmark_group("decode");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(bytes));
    let mut decoding =
        Decoding { engine: engine(model), seq: None, n_left: 0, total: Duration::ZERO, n_steps: 0 };
    group.bench_function(name, |b| {
        LazyCell::force(&before);
        b.iter_custom(|iters| (0..iters).map(|_| decoding.step()).sum());
    });
    let Decoding { total, n_steps, .. } = decoding;
    if n_steps == 0 || is_test() {
        return;
    }
    let bandwidth = before.max(read_bandwidth(buffer_bytes));
    let seconds = total.as_secs_f64() / n_steps as f64;
    let rate = bytes as f64 / seconds;
    println!(
        "decode/{name}: {:.3} ms a token, {:.1} tokens/s, weights of {:.1} MB at {:.1} GB/s: {:.0} % of the {:.1} GB/s at which all cores read memory ({} MiB); {n_steps} steps",
        1e3 * seconds,
        1.0 / seconds,
        bytes as f64 / 1e6,
        rate / 1e9,
        100.0 * rate / bandwidth,
        bandwidth / 1e9,
        buffer_bytes >> 20
    );
}

fn model(c: &mut Criterion) {
    for (name, model) in models() {
        prefill(c, &name, &model);
        decode(c, &name, &model);
    }
}

criterion_group!(benches, model);
criterion_main!(benches);
