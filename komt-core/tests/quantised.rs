//! Weights converted and quantised while they are loaded, and directories of quantised weights.
#![allow(clippy::unwrap_used)]

mod support;

use half::{bf16, f16};
use komt_core::kernels::Tap;
use komt_core::{
    Cpu, CpuOptions, Device, EngineOptions, Error, LoadOptions, Model, Precision, Progress, Scorer, Weights,
    convert,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use support::*;

const IDS: [u32; 12] = [1, 40, 7, 200, 254, 255, 9, 10, 77, 99, 3, 4];

fn exact(weights: Weights) -> LoadOptions {
    let cpu = CpuOptions::default().threads(2).precision(Precision::Exact);
    LoadOptions::default().device(Device::Cpu(cpu)).weights(weights)
}

fn logits(model: &Model) -> Vec<f32> {
    let (scorer, mut logits) = (Scorer::new(model, None).unwrap(), vec![]);
    scorer.each_logits(IDS.to_vec(), |_, row| logits.extend(row)).unwrap();
    logits
}

fn load(dir: &Path, weights: Weights) -> Vec<f32> {
    logits(&Model::load(dir, exact(weights)).unwrap())
}

/// The demo model's weights in q4 or another format, in a directory.
fn written(weights: Weights) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    convert(demo(), dir.path(), false, exact(weights)).unwrap();
    dir
}

fn error<T>(result: Result<T, Error>, part: &str) -> Error {
    let Err(error) = result else { panic!("expected an error with `{part}`") };
    assert!(error.to_string().contains(part), "expected `{part}` in: {error}");
    error
}

/// Each of the 4 products of a layer and the last adds the weights' own error to what it makes, relative to that (2.4e-5 in q8,
/// 4.8e-3 in q4, as `komt-kernels/tests/quant.rs` measures; 2.8e-6 for one rounding to bf16). The stream sums them up. Four
/// times that for the row where they meet, or where attention and the gates pass on more than they take in.
#[test]
fn logits_are_as_far_off_as_the_weights() {
    let model = Model::load(demo(), exact(Weights::Stored)).unwrap();
    let (want, config) = (logits(&model), model.config());
    let n_products = 4.0 * config.n_layers as f64 + 1.0;
    for (weights, error) in [(Weights::Q8, 2.4e-5), (Weights::Q4, 4.8e-3)] {
        let nmse = worst_row_nmse(&load(&demo(), weights), &want, config.vocab_size);
        eprintln!("{}: {nmse:.2e}, {:.2e} allowed", weights.name(), 4.0 * n_products * error);
        assert!(nmse < 4.0 * n_products * error && nmse > 0.0, "{}: {nmse:.2e}", weights.name());
    }
    assert!(load(&demo(), Weights::Bf16) == want, "the demo model is bf16: nothing is rounded");
}

#[test]
fn bf16_is_the_nearest_there_is() {
    let dir = tempfile::tempdir().unwrap();
    convert(models().join("head64_f16"), dir.path(), false, exact(Weights::Bf16)).unwrap();
    let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    let (from, to) = (read(&models().join("head64_f16")), read(dir.path()));
    let (from, to) = (SafeTensors::deserialize(&from).unwrap(), SafeTensors::deserialize(&to).unwrap());
    for name in from.names() {
        let (from, to) = (from.tensor(name).unwrap(), to.tensor(name).unwrap());
        let (from, to) = (
            from.data().chunks_exact(2),
            to.data().chunks_exact(if to.dtype() == Dtype::BF16 { 2 } else { 4 }),
        );
        assert_eq!(from.len(), to.len());
        for (from, to) in from.zip(to) {
            let want = f16::from_le_bytes(from.try_into().unwrap()).to_f32();
            match to {
                &[a, b] => assert_eq!(bf16::from_le_bytes([a, b]), bf16::from_f32(want), "{name}"),
                _ => assert_eq!(to, want.to_le_bytes(), "{name}: norms lose nothing"),
            }
        }
    }
    let loaded = load(&models().join("head64_f16"), Weights::Bf16);
    assert!(load(dir.path(), Weights::Stored) == loaded);
}

#[test]
fn a_directory_is_the_same_as_quantising_while_loading() {
    for weights in [Weights::Bf16, Weights::Q8, Weights::Q4] {
        let dir = written(weights);
        let model = Model::load(dir.path(), exact(Weights::Stored)).unwrap();
        assert!(logits(&model) == load(&demo(), weights), "{}: every bit", weights.name());
        assert!(load(dir.path(), weights) == logits(&model), "asked for what it is");
        let copied = Model::load(dir.path(), exact(Weights::Stored).mapped(false)).unwrap();
        assert!(logits(&copied) == logits(&model), "in memory of its own");
        // The plan is that of quantising while loading.
        let plan = |model: &Model| model.memory_plan(&EngineOptions::default()).unwrap().weights_bytes;
        assert_eq!(plan(&model), plan(&Model::load(demo(), exact(weights)).unwrap()));
        assert!(model.tokenizer().is_ok() && model.eos() == [2]);
    }
    // Sharded, not tied, and with widths that need padding.
    for name in ["tiny_sharded", "head96"] {
        let dir = tempfile::tempdir().unwrap();
        convert(models().join(name), dir.path(), false, exact(Weights::Q4)).unwrap();
        assert!(load(dir.path(), Weights::Stored) == load(&models().join(name), Weights::Q4), "{name}");
    }
}

#[test]
fn everybody_reads_the_list_of_tensors() {
    let dir = written(Weights::Q4);
    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let (header_len, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let said = metadata.metadata().clone().unwrap();
    assert_eq!((said["komt.version"].as_str(), said["komt.format"].as_str()), ("1", "q4"));
    let qkv = "komt.tensor.model.layers.0.self_attn.qkv_proj.weight";
    assert_eq!((said[qkv].as_str(), said.get("format")), ("q4 512x256", None));
    assert_eq!(said["komt.tensor.model.embed_tokens.weight"], "q8 3072x256");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 6 * 4 + 2);
    for (name, info) in metadata.tensors() {
        match info.dtype {
            Dtype::U8 => {
                assert_eq!((8 + header_len + info.data_offsets.0) % 64, 0, "{name}: at a cache line");
            }
            dtype => assert!(dtype == Dtype::F32 && name.ends_with("norm.weight"), "{name}"),
        }
    }
    // In bf16 it is a directory for everybody.
    let dir = written(Weights::Bf16);
    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().clone().unwrap()["format"], "pt");
    let shape = &metadata.info("model.layers.3.self_attn.k_proj.weight").unwrap().shape;
    assert_eq!(shape, &[128, 256]);
}

#[test]
fn what_is_written_is_counted_and_told() {
    let seen = Arc::new(Mutex::new(vec![]));
    let log = seen.clone();
    let told = move |progress: Progress<'_>| {
        if let Progress::Weights { tensor, done_bytes, total_bytes } = progress {
            log.lock().unwrap().push((tensor.to_owned(), done_bytes, total_bytes));
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let written = convert(demo(), dir.path(), false, exact(Weights::Q8).on_progress(told.clone())).unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 9 * 4 + 2, "every tensor of the source");
    assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1));
    assert_eq!(seen.last().unwrap().1, seen.last().unwrap().2, "and end at the total");
    let len = std::fs::metadata(dir.path().join("model.safetensors")).unwrap().len();
    assert_eq!(written.file_bytes, len);
    // A row of 256 or 384 columns has 8.25 bits a weight and a scale of 32 bits.
    let bits = written.bits_per_weight();
    assert!((8.25 + 32.0 / 384.0..=8.25 + 32.0 / 256.0).contains(&bits), "{bits}");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        std::fs::read_dir(demo()).unwrap().count() - 1
    );
    Model::load(dir.path(), exact(Weights::Stored).on_progress(told)).unwrap();
    // The same whatever the threads.
    let one = tempfile::tempdir().unwrap();
    let options = LoadOptions::default().device(Device::Cpu(CpuOptions::default().threads(1)));
    convert(demo(), one.path(), false, options.weights(Weights::Q8)).unwrap();
    let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    assert!(read(one.path()) == read(dir.path()), "byte for byte");
}

#[test]
fn directories_are_not_overwritten_by_accident() {
    let copy = with_config(&demo(), |_| {});
    let again = |overwrite| convert(demo(), copy.path(), overwrite, exact(Weights::Q8));
    error(again(false), "expected one without a model");
    assert!(load(copy.path(), Weights::Stored) == load(&demo(), Weights::Stored), "nothing was touched");
    again(true).unwrap();
    assert!(load(copy.path(), Weights::Stored) == load(&demo(), Weights::Q8));
    error(
        convert(copy.path(), copy.path(), true, exact(Weights::Q8)),
        "expected another than the model's own",
    );
    error(convert(demo(), copy.path(), true, exact(Weights::Stored)), "found `stored`");
    let sharded = with_config(&models().join("tiny_sharded"), |_| {});
    let into_sharded = |overwrite| convert(demo(), sharded.path(), overwrite, exact(Weights::Q8));
    error(into_sharded(false), "expected one without a model");
    let refused = error(into_sharded(true), "expected one without a sharded model, found");
    assert!(refused.to_string().ends_with("model.safetensors.index.json"), "{refused}");
    // Quantised twice: refused.
    let out = tempfile::tempdir().unwrap();
    error(convert(copy.path(), out.path(), false, exact(Weights::Q4)), "quantised already");
    for weights in [Weights::Q4, Weights::Bf16] {
        error(Model::load(copy.path(), exact(weights)), "expected `stored`");
    }
}

/// What the output directory has is replaced, not written into: it may be the source's own files.
#[test]
fn nothing_of_another_model_stays_and_nothing_of_the_source_goes() {
    let out = tempfile::tempdir().unwrap();
    let own = std::fs::read(demo().join("tokenizer.json")).unwrap();
    let source = with_config(&demo(), |_| ());
    std::fs::hard_link(source.path().join("tokenizer.json"), out.path().join("tokenizer.json")).unwrap();
    convert(source.path(), out.path(), false, exact(Weights::Q4)).unwrap();
    assert!(std::fs::read(source.path().join("tokenizer.json")).unwrap() == own, "the source's tokenizer");
    assert!(std::fs::read(out.path().join("tokenizer.json")).unwrap() == own, "the copy");
    let names = |dir: &Path| -> Vec<_> {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let template = out.path().join("chat_template.jinja");
    std::fs::write(&template, "{{ other }}").unwrap();
    let head64 = models().join("head64");
    convert(&head64, out.path(), true, exact(Weights::Q8)).unwrap();
    assert!(!template.exists() && !out.path().join("tokenizer.json").exists(), "{:?}", names(out.path()));
    assert!(names(out.path()).iter().all(|name| !name.to_string_lossy().contains("partial")));
    assert_eq!(load(out.path(), Weights::Stored), load(&head64, Weights::Q8));
}

/// Each writes files of its own; the one that ends last stays, whole.
#[test]
fn two_conversions_into_one_directory() {
    let out = tempfile::tempdir().unwrap();
    let to = out.path();
    std::thread::scope(|scope| {
        for weights in [Weights::Q8, Weights::Q4] {
            scope.spawn(move || convert(demo(), to, true, exact(weights)).unwrap());
        }
    });
    let found = load(to, Weights::Stored);
    assert!([Weights::Q8, Weights::Q4].iter().any(|&weights| found == load(&demo(), weights)));
    let mut names = std::fs::read_dir(to).unwrap().map(|it| it.unwrap().file_name());
    assert!(names.all(|name| !name.to_string_lossy().contains("partial")));
}

/// What the other loaders take may be no directory, and is named.
#[test]
fn files_that_are_no_models() {
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    std::fs::write(file.path(), "<html>not found</html>").unwrap();
    error(Model::load(file.path(), exact(Weights::Stored)), "GGUF");
    let out = tempfile::tempdir().unwrap();
    error(convert(file.path(), out.path(), false, exact(Weights::Q4)), "a GGUF file is quantised while");
}

/// A copy of `model` where number `at` of a tensor is `value`.
fn with_number(model: &str, tensor: &str, at: usize, value: &[u8]) -> tempfile::TempDir {
    let dir = with_config(&models().join(model), |_| {});
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let (header_len, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let start = 8 + header_len + metadata.info(tensor).unwrap().data_offsets.0 + at * value.len();
    bytes[start..start + value.len()].copy_from_slice(value);
    std::fs::write(path, bytes).unwrap();
    dir
}

#[test]
fn numbers_that_cannot_be_kept_are_named() {
    // head64: dim 64, bf16. Row 3, column 5 of the keys.
    let name = "model.layers.1.self_attn.k_proj.weight";
    let nan = with_number("head64", name, 3 * 64 + 5, &[0xc0, 0x7f]);
    for weights in [Weights::Q8, Weights::Q4] {
        let error =
            error(Model::load(nan.path(), exact(weights)), &format!("tensor `{name}`: weight [3, 5] is NaN"));
        assert!(matches!(error, Error::Range { .. }));
        // Nothing is left of a directory that could not be finished.
        let out = tempfile::tempdir().unwrap();
        assert!(convert(nan.path(), out.path(), false, exact(weights)).is_err());
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    }
    // As it is stored it is nobody's business.
    Model::load(nan.path(), exact(Weights::Stored)).unwrap();
    let inf = with_number("head64_f16", "lm_head.weight", 64, &[0x00, 0xfc]);
    error(
        Model::load(inf.path(), exact(Weights::Bf16)),
        "tensor `lm_head.weight`: weight [1, 0] is -inf, bf16 holds",
    );
}

/// A file with a changed header: the data stay where they are, `shift` bytes later.
fn with_header(dir: &Path, shift: usize, change: impl FnOnce(&mut Map<String, Value>)) -> tempfile::TempDir {
    let copy = with_config(dir, |_| {});
    let path: PathBuf = copy.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let len = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..len]).unwrap();
    change(&mut header);
    let mut json = serde_json::to_vec(&header).unwrap();
    json.resize((8 + json.len()).next_multiple_of(64) - 8 + shift, b' ');
    std::fs::write(path, [&(json.len() as u64).to_le_bytes()[..], &json, &bytes[len..]].concat()).unwrap();
    copy
}

#[test]
fn damaged_directories() {
    let dir = written(Weights::Q4);
    let whole = load(dir.path(), Weights::Stored);
    let qkv = "komt.tensor.model.layers.0.self_attn.qkv_proj.weight";
    let said = |key: &'static str, value: Option<&'static str>, part: &str| {
        let copy = with_header(dir.path(), 0, |header| {
            let metadata = header["__metadata__"].as_object_mut().unwrap();
            match value {
                Some(value) => metadata.insert(key.into(), value.into()),
                None => metadata.remove(key),
            };
        });
        let error = error(Model::load(copy.path(), exact(Weights::Stored)), part);
        assert!(error.to_string().contains("model.safetensors") || !part.contains("bytes"), "{error}");
    };
    said("komt.version", Some("2"), "version \"2\"");
    said("komt.version", None, "`komt.format` without `komt.version`");
    said(qkv, Some("q4 512x257"), "bytes of type U8, found");
    said(qkv, Some("q8 512x256"), "bytes of type U8, found");
    said(qkv, Some("q3 512x256"), "expected a format and a shape as `q4 6144x4096`");
    said(qkv, Some("q4 512x-1"), "expected a format and a shape");
    said(qkv, Some("q4 4294967296x4294967296"), "expected a format and a shape");
    said(qkv, Some("q4 0x256"), "expected a format and a shape");
    said(qkv, Some("q4 256x512"), "bytes of type U8, found");
    said(qkv, None, "shape [75776] in the file");
    let renamed = with_header(dir.path(), 0, |header| {
        let qkv = header.remove("model.layers.0.self_attn.qkv_proj.weight").unwrap();
        header.insert("model.layers.0.self_attn.q_proj.weight".into(), qkv);
    });
    error(
        Model::load(renamed.path(), exact(Weights::Stored)),
        "missing: [\"model.layers.0.self_attn.qkv_proj.weight\"]",
    );
    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let cut = with_config(dir.path(), |_| {});
    std::fs::write(cut.path().join("model.safetensors"), &bytes[..bytes.len() - 64]).unwrap();
    assert!(matches!(Model::load(cut.path(), exact(Weights::Stored)), Err(Error::Weights { .. })));
    // Moved off its cache lines by some tool: copied.
    for shift in [1, 8, 32] {
        let moved = with_header(dir.path(), shift, |_| {});
        assert!(load(moved.path(), Weights::Stored) == whole, "{shift} bytes");
    }
    // Another model's configuration.
    let other = with_config(dir.path(), |config| config["intermediate_size"] = 128.into());
    error(Model::load(other.path(), exact(Weights::Stored)), "the configuration needs [256, 256]");
}

#[test]
fn a_device_that_fails_while_weights_are_quantised() {
    for at in 0..3 {
        let count = Mutex::new(0);
        let tap = Tap::new(Cpu::new().unwrap(), move |event| {
            let mut count = count.lock().unwrap();
            *count += usize::from(event.op == "load_shared");
            if *count > at { Err("no room".into()) } else { Ok(()) }
        });
        let options = LoadOptions::default().weights(Weights::Q4);
        error(Model::load_on(tap, demo(), options), "load_shared: stopped by its observer: no room");
    }
}

#[test]
fn words() {
    for name in Weights::NAMES {
        assert_eq!(Weights::from_name(name).unwrap().name(), name);
    }
    assert_eq!((Weights::from_name("q5"), Weights::default().name()), (None, "stored"));
}
