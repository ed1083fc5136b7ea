//! Golden files, models with a changed configuration, and the metric.
#![allow(dead_code, clippy::unwrap_used)]

use komt_core::kernels::Tap;
use komt_core::{
    Cpu, CpuOptions, EmbedOptions, Embedder, Isa, LoadOptions, Model, Pooling, Precision, Scorer,
};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models")
}

pub fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model")
}

/// What the repository does not have: the directory that `variable` names, or `default`. `None` after saying loudly that
/// the test is skipped; a failure when `KOMT_REQUIRE_...` is set.
fn external(variable: &str, default: Option<PathBuf>, how: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from).or(default);
    if let Some(path) = path.filter(|path| path.exists()) {
        return Some(path);
    }
    let require = variable.replace("KOMT_", "KOMT_REQUIRE_");
    assert!(std::env::var_os(&require).is_none(), "{require} is set, but the files are not there: {how}");
    // Not `eprintln!`: the test harness would swallow it.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {how} ***\n");
    None
}

/// The stories260K model, of the fixtures.
pub fn stories260k() -> Option<PathBuf> {
    let fixtures = external(
        "KOMT_FIXTURES",
        None,
        "set KOMT_FIXTURES to a directory with stories260k/ (testdata/SOURCES.md)",
    )?;
    Some(fixtures.join("stories260k"))
}

/// SmolLM2-135M-Instruct, as `tools/fetch-smollm2` writes it.
pub fn smollm2() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models/smollm2");
    external("KOMT_SMOLLM2", Some(default), "run tools/fetch-smollm2, or set KOMT_SMOLLM2 to its directory")
}

pub fn cpu(isa: Isa) -> Cpu {
    Cpu::with(CpuOptions::default().isa(isa).threads(2).precision(Precision::Exact)).unwrap()
}

pub fn load(dir: &Path, isa: Isa) -> Model {
    Model::load_on(cpu(isa), dir, LoadOptions::default()).unwrap()
}

/// A directory with the files of `dir` and a changed configuration.
pub fn with_config(dir: &Path, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    copy
}

pub fn with_window(dir: &Path, window: Option<usize>) -> tempfile::TempDir {
    with_config(dir, |config| config["sliding_window"] = window.into())
}

/// `golden.safetensors` and `golden.json` of a model.
pub struct Golden {
    bytes: Vec<u8>,
    pub json: Value,
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let dir = models().join(name);
        let bytes = std::fs::read(dir.join("golden.safetensors")).unwrap();
        let json = serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap();
        Self { bytes, json }
    }

    /// The float32 cases: their prefixes, windows and notes.
    pub fn cases(&self) -> Vec<(String, Option<usize>, &Value)> {
        let cases = self.json["cases"].as_object().unwrap().iter();
        let float32 = cases.filter(|(name, _)| name.starts_with("float32."));
        float32
            .map(|(name, note)| (name.clone(), note["sliding_window"].as_u64().map(|w| w as usize), note))
            .collect()
    }

    fn tensor<T>(&self, name: &str, each: impl Fn(&[u8]) -> T, size: usize) -> Option<Vec<T>> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).ok()?;
        Some(tensor.data().chunks_exact(size).map(each).collect())
    }

    pub fn f32(&self, name: &str) -> Option<Vec<f32>> {
        self.tensor(name, |b| f32::from_le_bytes(b.try_into().unwrap()), 4)
    }

    pub fn ids(&self, name: &str) -> Option<Vec<u32>> {
        let i64s = self.tensor(name, |b| i64::from_le_bytes(b.try_into().unwrap()) as u32, 8);
        i64s.filter(|_| !name.ends_with("topk_ids"))
            .or_else(|| self.tensor(name, |b| u32::from_le_bytes(b.try_into().unwrap()), 4))
    }
}

/// Normalised mean squared error of the worst row: `sum (a - b)^2 / sum b^2`.
pub fn worst_row_nmse(a: &[f32], b: &[f32], width: usize) -> f64 {
    assert_eq!(a.len(), b.len(), "as many numbers as in the golden file");
    let square = |x: f64| x * x;
    let row = |(a, b): (&[f32], &[f32])| {
        let error: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
        error / b.iter().map(|&b| square(f64::from(b))).sum::<f64>()
    };
    let worst = a.chunks_exact(width).zip(b.chunks_exact(width)).map(row);
    worst.fold(0.0, |worst, error| if error > worst || error.is_nan() { error } else { worst })
}

/// What a model makes of a prompt: logits of every position, and the residual stream by name.
pub struct Outputs {
    pub logits: Vec<f32>,
    pub streams: BTreeMap<String, Vec<f32>>,
}

/// Runs the prompt through a [`Tap`]: the forward pass does not know that it is watched.
pub fn outputs(dir: &Path, isa: Isa, ids: &[u32]) -> Outputs {
    let streams = Arc::new(Mutex::new(BTreeMap::<String, Vec<f32>>::new()));
    let n_norms = Arc::new(Mutex::new(0));
    let seen = streams.clone();
    let n_layers = Model::load(dir, LoadOptions::default()).unwrap().config().n_layers;
    let tap = Tap::new(cpu(isa), move |event| {
        if let Some(residual) = event.residual {
            let mut i = n_norms.lock().unwrap();
            let name = match *i % (2 * n_layers + 1) {
                0 => Some("embeddings".into()),
                i if i % 2 == 0 => Some(format!("layer.{}.output", i / 2 - 1)),
                _ => None,
            };
            if let Some(name) = name {
                seen.lock().unwrap().entry(name).or_default().extend(residual);
            }
            *i += 1;
        }
        Ok(())
    });
    let model = Model::load_on(tap, dir, LoadOptions::default()).unwrap();
    let mut logits = vec![];
    let scorer = Scorer::new(&model, Some(ids.len().max(2))).unwrap();
    scorer.each_logits(ids.to_vec(), |_, row| logits.extend(row)).unwrap();
    let streams = std::mem::take(&mut *streams.lock().unwrap());
    Outputs { logits, streams }
}

/// The vectors of one text.
pub fn embed(model: &Model, ids: &[u32], pooling: Pooling, n_excluded: usize, normalize: bool) -> Vec<f32> {
    let options = EmbedOptions::default().pooling(pooling).normalize(normalize).max_context(ids.len().max(2));
    let embedder = Embedder::new(model, options).unwrap();
    embedder.embed_ids(&[ids.to_vec()], &[n_excluded]).unwrap().remove(0)
}

pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
