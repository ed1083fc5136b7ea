//! Whatever is wrong with files, prompts and options: an error that names the thing, what was expected and what was found.
#![allow(clippy::unwrap_used)]

mod support;

use komt_core::{
    EmbedOptions, Embedder, Engine, EngineOptions, Error, GenerateOptions, Isa, LoadOptions, Model, Progress,
    SamplingParams, Scorer, Weights, convert,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::*;

fn load_error(dir: &Path) -> Error {
    match Model::load(dir, LoadOptions::default()) {
        Ok(_) => panic!("{} was loaded", dir.display()),
        Err(error) => error,
    }
}

/// The error of a copy of `name` after `change`; its message must contain `part`.
fn expect(name: &str, part: &str, change: impl FnOnce(&Path)) -> Error {
    let dir = with_config(&models().join(name), |_| {});
    change(dir.path());
    let error = load_error(dir.path());
    assert!(error.to_string().contains(part), "expected `{part}` in: {error}");
    error
}

type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

/// Writes `model.safetensors` again with changed tensors.
fn edit(dir: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut list: Tensors = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    change(&mut list);
    let views = list
        .iter()
        .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &path).unwrap();
}

fn tensor<'a>(tensors: &'a mut Tensors, name: &str) -> &'a mut (String, Dtype, Vec<usize>, Vec<u8>) {
    tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
}

fn edit_index(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("model.safetensors.index.json");
    let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    std::fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
}

#[test]
fn missing_files() {
    let error = load_error(Path::new("there/is/no/such/directory"));
    assert!(matches!(&error, Error::File { path, .. } if path.ends_with("config.json")), "{error}");
    let error = expect("head64", "model.safetensors", |dir| {
        std::fs::remove_file(dir.join("model.safetensors")).unwrap()
    });
    assert!(matches!(error, Error::File { .. }));
    expect("tiny_sharded", "model-00002-of-00003.safetensors", |dir| {
        std::fs::remove_file(dir.join("model-00002-of-00003.safetensors")).unwrap();
    });
}

#[test]
fn truncated_and_damaged_weights_never_panic() {
    let whole = std::fs::read(models().join("head64/model.safetensors")).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for len in [0, 1, 7, 8, 9, 8 + header / 2, 8 + header, 9 + header, whole.len() / 2, whole.len() - 1] {
        let error = expect("head64", "model.safetensors", |dir| {
            std::fs::write(dir.join("model.safetensors"), &whole[..len]).unwrap();
        });
        assert!(matches!(error, Error::Weights { .. } | Error::File { .. }), "{len}: {error}");
    }
    // Every byte of the length and a sample of the header, flipped: an error, or another valid file.
    for at in (0..8).chain((8..8 + header).step_by(13)) {
        let dir = with_config(&models().join("head64"), |_| {});
        let mut bytes = whole.clone();
        bytes[at] ^= 0x15;
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let _ = Model::load(dir.path(), LoadOptions::default());
    }
}

#[test]
fn hostile_headers() {
    let with_header = |json: &str, data: usize| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    };
    let tensor = |offsets: &str, shape: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for bytes in [
        u64::MAX.to_le_bytes().to_vec(),
        [u64::MAX.to_le_bytes().to_vec(), vec![b'{'; 100]].concat(),
        (1u64 << 40).to_le_bytes().to_vec(),
        with_header("{", 0),
        with_header("[]", 0),
        with_header("\u{0}\u{0}", 0),
        with_header(&"[".repeat(100_000), 0),
        with_header(&tensor("[0,8]", "[2]"), 4),
        with_header(&tensor("[8,0]", "[2]"), 8),
        with_header(&tensor("[0,8]", "[3]"), 8),
        with_header(&tensor("[0,18446744073709551615]", "[4611686018427387904]"), 8),
        with_header(&tensor("[0,8]", "[4294967296,4294967296,4]"), 8),
        with_header(&tensor("[4,12]", "[2]"), 12),
        with_header(&tensor("[-8,0]", "[2]"), 8),
        with_header(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
        ),
    ] {
        let error = expect("head64", "not a safetensors file", |dir| {
            std::fs::write(dir.join("model.safetensors"), &bytes).unwrap();
        });
        assert!(matches!(error, Error::Weights { .. }), "{error}");
    }
}

#[test]
fn shards_that_disagree_with_their_index() {
    let q = "model.layers.0.self_attn.q_proj.weight";
    let error = expect("tiny_sharded", "lm_head", |dir| {
        edit_index(dir, |index| {
            index["weight_map"]["lm_head.weight"] = json!("model-00001-of-00003.safetensors")
        });
    });
    assert!(matches!(error, Error::Shards { .. }), "{error}");
    expect("tiny_sharded", "expected it in model-00001-of-00003.safetensors, found it in no shard", |dir| {
        edit_index(dir, |index| index["weight_map"]["ghost"] = json!("model-00001-of-00003.safetensors"));
    });
    expect("tiny_sharded", "expected it in the index, found it only in", |dir| {
        edit_index(dir, |index| {
            index["weight_map"].as_object_mut().unwrap().remove(q).unwrap();
        });
    });
    for name in ["../evil.safetensors", "/etc/passwd", "", "a/../b.safetensors", ".."] {
        expect("tiny_sharded", "expected the name of a file beside the index", |dir| {
            edit_index(dir, |index| index["weight_map"][q] = json!(name));
        });
    }
    for text in ["", "[]", r#"{"weight_map":[]}"#, r#"{"weight_map":{"a":1}}"#] {
        let error = expect("tiny_sharded", "model.safetensors.index.json", |dir| {
            std::fs::write(dir.join("model.safetensors.index.json"), text).unwrap();
        });
        assert!(matches!(error, Error::Json { .. }), "{error}");
    }
    expect("tiny_sharded", "expected it in one shard, found it in two", |dir| {
        let name = |i| dir.join(format!("model-0000{i}-of-00003.safetensors"));
        std::fs::copy(name(1), name(2)).unwrap();
    });
}

#[test]
fn wrong_shapes_types_and_names() {
    let down = "model.layers.1.mlp.down_proj.weight";
    let error = expect("head64", "shape [160, 64] in the file, the configuration needs [64, 160]", |dir| {
        edit(dir, |tensors| tensor(tensors, down).2 = vec![160, 64]);
    });
    assert!(matches!(&error, Error::Shape { tensor, .. } if tensor == down), "{error}");
    expect("head64", "element type I16, expected F32, F16 or BF16", |dir| {
        edit(dir, |tensors| tensor(tensors, down).1 = Dtype::I16);
    });
    expect(
        "head64",
        "k_proj.weight`: element type F16, expected Bf16 as `model.layers.0.self_attn.q_proj",
        |dir| {
            edit(dir, |tensors| tensor(tensors, "model.layers.0.self_attn.k_proj.weight").1 = Dtype::F16);
        },
    );
    expect(
        "head64",
        r#"missing: ["model.layers.1.mlp.down_proj.weight"]; tensors that nothing uses: ["other"]"#,
        |dir| {
            edit(dir, |tensors| tensor(tensors, down).0 = "other".into());
        },
    );
    // A configuration of another model.
    expect(
        "head64",
        "`num_hidden_layers`: expected no more than the 21 tensors of the files, found 2000000000",
        |dir| {
            change_config(dir, "num_hidden_layers", json!(2_000_000_000));
        },
    );
    let error = expect("head64", "model.layers.2.", |dir| change_config(dir, "num_hidden_layers", json!(3)));
    assert!(
        matches!(&error, Error::Tensors { missing, unknown, .. } if missing.len() == 9 && unknown.is_empty())
    );
    expect("head64", "nothing uses: [\"model.layers.1.", |dir| {
        change_config(dir, "num_hidden_layers", json!(1))
    });
    expect("head64", "`model.embed_tokens.weight`: shape [320, 64]", |dir| {
        change_config(dir, "vocab_size", json!(319));
    });
    expect("head64", "`rope_scaling` is", |dir| {
        change_config(dir, "rope_scaling", json!({"type": "linear", "factor": 2}))
    });
}

fn change_config(dir: &Path, field: &str, value: Value) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
}

#[test]
fn a_tied_model_may_bring_its_output_matrix_and_old_buffers() {
    let dir = with_config(&models().join("tiny_nowindow"), |_| {});
    edit(dir.path(), |tensors| {
        let (_, dtype, shape, data) = tensor(tensors, "model.embed_tokens.weight").clone();
        tensors.push(("lm_head.weight".into(), dtype, shape, data));
        tensors.push((
            "model.layers.0.self_attn.rotary_emb.inv_freq".into(),
            Dtype::F32,
            vec![2],
            vec![0; 8],
        ));
    });
    // Progress counts what is read, so that it ends at its total.
    let last = Arc::new(Mutex::new((0, 0)));
    let options = || {
        let last = last.clone();
        LoadOptions::default().on_progress(move |progress| {
            if let Progress::Weights { done_bytes, total_bytes, .. } = progress {
                *last.lock().unwrap() = (done_bytes, total_bytes);
            }
        })
    };
    let ended = || {
        let (done_bytes, total_bytes) = std::mem::take(&mut *last.lock().unwrap());
        assert!(done_bytes == total_bytes && done_bytes > 0, "{done_bytes} of {total_bytes}");
    };
    Model::load(dir.path(), options()).unwrap();
    ended();
    let out = tempfile::tempdir().unwrap();
    convert(dir.path(), out.path(), false, options().weights(Weights::Q8)).unwrap();
    ended();
}

#[test]
fn tokenizers_that_do_not_fit() {
    let tokenizer = demo().join("tokenizer.json");
    let error = expect("head64", "the tokenizer has 3072 ids, the model's vocabulary 320", |dir| {
        std::fs::copy(&tokenizer, dir.join("tokenizer.json")).unwrap();
    });
    assert!(matches!(error, Error::Vocabulary { .. }));
    let error =
        expect("head64", "tokenizer.json", |dir| std::fs::write(dir.join("tokenizer.json"), "{").unwrap());
    assert!(matches!(error, Error::Tokenize(_)), "{error}");
    expect("head64", "generation_config.json: `eos_token_id`: expected a token id", |dir| {
        std::fs::write(dir.join("generation_config.json"), r#"{"eos_token_id":"x"}"#).unwrap();
    });
    let model = load(&models().join("head64"), Isa::detect());
    let embedder = Embedder::new(&model, EmbedOptions::default()).unwrap();
    let error = embedder.embed(&["text"]).unwrap_err();
    assert!(error.to_string().ends_with("no tokenizer.json: only token ids can be used"), "{error}");
    let mut engine = Engine::new(&model, EngineOptions::default()).unwrap();
    let error = engine.submit(&[1], GenerateOptions::default().stop("x")).unwrap_err();
    assert!(matches!(error, Error::NoTokenizer { .. }));
}

#[test]
fn special_files_are_honoured() {
    let dir = with_config(&demo(), |_| {});
    std::fs::write(
        dir.path().join("generation_config.json"),
        r#"{"eos_token_id":[2,7],"do_sample":true,"temperature":0.5,"top_p":0.9,"max_new_tokens":77}"#,
    )
    .unwrap();
    let model = Model::load(dir.path(), LoadOptions::default()).unwrap();
    let options = model.generate_options();
    assert_eq!(model.eos(), [2, 7]);
    assert_eq!(
        (options.sampling.temperature, options.sampling.top_p, options.max_new_tokens),
        (0.5, 0.9, 77)
    );
    assert_eq!(options.sampling.top_k, 50);
    std::fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    change_config(dir.path(), "eos_token_id", Value::Null);
    let model = Model::load(dir.path(), LoadOptions::default()).unwrap();
    assert_eq!(model.eos(), [2], "the tokenizer's own");
    assert_eq!(model.generate_options(), GenerateOptions::default());
}

#[test]
fn generation_config_is_read_as_transformers_does() {
    let options = |text: &str| {
        let dir = with_config(&models().join("head64"), |_| {});
        std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
        Model::load(dir.path(), LoadOptions::default()).map(|model| model.generate_options())
    };
    let off = options(r#"{"do_sample":true,"top_k":0,"temperature":0,"top_p":0}"#).unwrap().sampling;
    assert_eq!((off.top_k, off.temperature, off.top_p), (0, 0.0, 0.0));
    let more = r#"{"do_sample":true,"typical_p":0.9,"epsilon_cutoff":0.01,"eta_cutoff":0.02,"no_repeat_ngram_size":3}"#;
    let more = options(more).unwrap().sampling;
    assert_eq!(
        (more.typical_p, more.epsilon_cutoff, more.eta_cutoff, more.no_repeat_ngram),
        (0.9, 0.01, 0.02, 3)
    );
    assert!(options(r#"{"temperature":0.7}"#).unwrap().sampling.is_greedy(), "do_sample is off");
    assert_eq!(options(r#"{"stop_strings":["a","b"]}"#).unwrap().stop, ["a", "b"]);
    for (text, field) in [
        (r#"{"do_sample":true,"top_k":-5}"#, "top_k"),
        (r#"{"no_repeat_ngram_size":2.7}"#, "no_repeat_ngram_size"),
        (r#"{"stop_strings":[1]}"#, "stop_strings"),
    ] {
        assert!(options(text).unwrap_err().to_string().contains(&format!("`{field}`: expected")), "{text}");
    }
    let error = options(r#"{"repetition_penalty":-1}"#).unwrap_err();
    assert!(error.to_string().contains("generation_config.json: `repetition_penalty`: expected"), "{error}");
}

#[test]
fn embeddings_that_are_not_numbers() {
    let dir = with_config(&models().join("head64"), |_| {});
    edit(dir.path(), |tensors| tensor(tensors, "model.norm.weight").3[1] = 0x7f);
    edit(dir.path(), |tensors| tensor(tensors, "model.norm.weight").3[0] = 0xc0);
    let model = load(dir.path(), Isa::detect());
    let embedder = Embedder::new(&model, EmbedOptions::default()).unwrap();
    let error = embedder.embed_ids(&[vec![1, 2], vec![3]], &[0, 0]).unwrap_err();
    assert_eq!(error.to_string(), "text 0: the hidden states are not finite numbers");
}

#[test]
fn prompts() {
    let model = load(&models().join("head64"), Isa::detect());
    let mut engine = Engine::new(&model, EngineOptions::default().max_context(32)).unwrap();
    let options = GenerateOptions::default;
    assert!(matches!(engine.submit(&[], options()), Err(Error::EmptyPrompt)));
    let error = engine.submit(&[1, 320], options()).unwrap_err();
    assert_eq!(error.to_string(), "token id 320: the vocabulary has 320 ids");
    let error = engine.submit(&[1; 32], options()).unwrap_err();
    assert_eq!(error.to_string(), "32 tokens, with what came before: expected 31 at most");
    assert_eq!(
        engine.append(99, &[1], options()).unwrap_err().to_string(),
        "sequence 99 is not known: it was never opened, or is closed"
    );
    engine.cancel(99);
    engine.close(99);
    assert!(engine.is_idle() && engine.step().unwrap().is_empty());
    engine.submit(&[1; 31], options()).unwrap();

    let embedder = Embedder::new(&model, EmbedOptions::default().max_context(8)).unwrap();
    let wrong = |ids: Vec<u32>, n_excluded, message: &str| {
        let error = embedder.embed_ids(&[vec![1, 2], ids], &[0, n_excluded]).unwrap_err();
        assert_eq!(error.to_string(), format!("text 1: {message}"));
    };
    wrong(vec![], 0, "empty prompt or text: expected at least one token");
    wrong(vec![1, 2], 2, "empty prompt or text: expected at least one token");
    wrong(vec![1; 9], 0, "9 tokens, with what came before: expected 8 at most");
    wrong(vec![400], 0, "token id 400: the vocabulary has 320 ids");
    assert!(matches!(embedder.embed_ids(&[vec![1]], &[]), Err(Error::Option { name: "n_excluded", .. })));
    assert!(embedder.embed_ids(&[], &[]).unwrap().is_empty());
    let scorer = Scorer::new(&model, Some(8)).unwrap();
    assert!(matches!(scorer.score_ids(vec![]), Err(Error::EmptyPrompt)));
    assert_eq!(scorer.score_ids(vec![3]).unwrap().perplexity(), None);
}

#[test]
fn options() {
    let model = load(&models().join("head64"), Isa::detect());
    let mut engine = Engine::new(&model, EngineOptions::default()).unwrap();
    let mut wrong = |options: GenerateOptions, part: &str| {
        let error = engine.submit(&[1], options).unwrap_err();
        assert!(error.to_string().contains(part), "expected `{part}` in: {error}");
    };
    let base = GenerateOptions::default;
    wrong(base().max_new_tokens(0), "option `max_new_tokens`: expected at least 1, found 0");
    wrong(base().stop(""), "option `stop`: expected texts that are not empty");
    wrong(base().logprobs(321), "option `logprobs`: expected at most 320");
    for (sampling, part) in [
        (SamplingParams { temperature: -1.0, ..SamplingParams::greedy() }, "temperature"),
        (SamplingParams { temperature: f32::NAN, ..SamplingParams::greedy() }, "temperature"),
        (SamplingParams { top_p: 1.5, ..SamplingParams::greedy() }, "top_p"),
        (SamplingParams { logit_bias: vec![(320, 1.0)], ..SamplingParams::greedy() }, "logit_bias"),
    ] {
        wrong(base().sampling(sampling), part);
    }
    assert_eq!(engine.pages().0, engine.pages().1);
    let huge = usize::MAX;
    let base = EngineOptions::default;
    for (options, name, least, found) in [
        (base().max_seqs(0), "max_seqs", 1, 0),
        (base().max_seqs(huge), "max_seqs", 1, huge),
        (base().max_step_tokens(0), "max_step_tokens", 1, 0),
        (base().max_step_tokens(1 << 62), "max_step_tokens", 1, 1 << 62),
        (base().max_context(1), "max_context", 2, 1),
        (base().max_context(huge), "max_context", 2, huge),
        (base().max_context(100).kv_tokens(64), "kv_tokens", 112, 64),
        (base().max_context(100).kv_tokens(1 << 60), "kv_tokens", 112, 1 << 60),
    ] {
        let error = Engine::new(&model, options).err().unwrap();
        let expected = format!("option `{name}`: expected at least {least} and below 2^30, found {found}");
        assert_eq!(error.to_string(), expected);
        assert_eq!(model.memory_plan(&options).unwrap_err().to_string(), expected);
    }
    for options in [EmbedOptions::default().max_step_tokens(huge), EmbedOptions::default().max_context(huge)]
    {
        assert!(matches!(Embedder::new(&model, options), Err(Error::Option { .. })));
    }
    assert!(matches!(Scorer::new(&model, Some(huge)), Err(Error::Option { .. })));
    for n in [0, 65] {
        let error = Embedder::new(&model, EmbedOptions::default().dimensions(n)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("option `dimensions`: expected 1 to 64, the model's, found {n}")
        );
    }
}

#[test]
fn not_enough_memory_is_found_before_anything_is_allocated() {
    let dir = models().join("head64");
    let seen = Arc::new(Mutex::new(vec![]));
    let log = seen.clone();
    let options = LoadOptions::default()
        .memory_limit_bytes(1000)
        .on_progress(move |p| log.lock().unwrap().push(format!("{p:?}")));
    let error = Model::load(&dir, options).unwrap_err();
    assert!(
        matches!(error, Error::NotEnoughMemory { what: "weights", available_bytes: 1000, .. }),
        "{error}"
    );
    assert_eq!(seen.lock().unwrap().len(), 1, "the plan, and nothing else: {seen:?}");
    assert!(seen.lock().unwrap()[0].starts_with("Plan("));

    let weights = Model::load(&dir, LoadOptions::default())
        .unwrap()
        .memory_plan(&EngineOptions::default())
        .unwrap()
        .weights_bytes;
    let model = Model::load(&dir, LoadOptions::default().memory_limit_bytes(weights + 5000)).unwrap();
    let plan = model.memory_plan(&EngineOptions::default()).unwrap();
    let error = Engine::new(&model, EngineOptions::default()).err().unwrap();
    let expected =
        format!("KV cache and scratch: {} bytes needed, 5000 available", plan.kv_bytes + plan.scratch_bytes);
    assert_eq!(error.to_string(), expected);
    // The real machine's memory is a limit too.
    let huge = EngineOptions::default().kv_tokens((1 << 30) - 16);
    let model = Model::load(&dir, LoadOptions::default()).unwrap();
    assert!(matches!(Engine::new(&model, huge).err().unwrap(), Error::NotEnoughMemory { .. }));
}

#[test]
fn loading_tells_how_far_it_is() {
    let seen = Arc::new(Mutex::new(vec![]));
    let log = seen.clone();
    let options = LoadOptions::default().on_progress(move |progress| {
        if let Progress::Weights { tensor, done_bytes, total_bytes } = progress {
            log.lock().unwrap().push((tensor.to_string(), done_bytes, total_bytes));
        }
    });
    let model = Model::load(models().join("tiny_sharded"), options).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 9 * model.config().n_layers + 3, "every tensor");
    assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1), "bytes only grow");
    assert_eq!(seen.last().unwrap().1, seen.last().unwrap().2, "and end at the total");
    // The plan is what the files hold; the bf16 norms are kept as f32.
    let norms = (2 * model.config().n_layers as u64 + 1) * model.config().dim as u64 * 2;
    let plan = model.memory_plan(&EngineOptions::default()).unwrap();
    assert_eq!(plan.weights_bytes, seen.last().unwrap().2 + norms);
}
