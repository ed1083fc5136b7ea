//! The plan against the real model's index, and the files against a reader.

use super::*;
use komt_core::{Engine, EngineOptions, Event, GenerateOptions, LoadOptions, Model};
use safetensors::SafeTensors;
use std::collections::BTreeSet;

fn names(index: &Value) -> BTreeSet<&String> {
    index["weight_map"].as_object().unwrap().keys().collect()
}

#[test]
fn mistral_7b_has_the_names_and_bytes_of_the_real_one() {
    let plan = Shape::Mistral7b.plan();
    assert_eq!((plan.n_tensors(), plan.total_bytes()), (291, 14_483_464_192));
    assert!(plan.shards.iter().all(|s| s.tensors.iter().map(Tensor::bytes).sum::<u64>() <= SHARD_BYTES));
    let dir = std::env::var_os("KOMT_FIXTURES").map(|dir| PathBuf::from(dir).join("mistral_7b_ref"));
    let Some(dir) = dir.filter(|dir| dir.exists()) else {
        let missing =
            "set KOMT_FIXTURES to a directory with mistral_7b_ref/, the real model's config and index";
        assert!(
            std::env::var_os("KOMT_REQUIRE_FIXTURES").is_none(),
            "KOMT_REQUIRE_FIXTURES is set: {missing}"
        );
        // Not `eprintln!`: the test harness would swallow it.
        let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {missing} ***\n");
        return;
    };
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(dir.join(name)).unwrap()).unwrap() };
    let (real, ours) = (read(INDEX), plan.index());
    assert_eq!(names(&ours), names(&real));
    assert_eq!(ours["metadata"]["total_size"], real["metadata"]["total_size"]);
    let without_version = |mut config: Value| {
        config.as_object_mut().unwrap().remove("transformers_version");
        config
    };
    assert_eq!(without_version(Shape::Mistral7b.config()), without_version(read(CONFIG)));
}

#[test]
fn sizes_are_what_the_names_say() {
    let millions = |shape: Shape| shape.plan().total_bytes() / 2 / 1_000_000;
    assert_eq!([Shape::OneB, Shape::Tiny].map(millions), [1100, 5]);
    let error = "7b".parse::<Shape>().unwrap_err();
    assert_eq!(error.to_string(), "unknown shape `7b`: expected one of mistral-7b, 1b, tiny");
    for name in Shape::NAMES {
        assert_eq!(name.parse::<Shape>().unwrap().name(), name);
    }
}

#[test]
fn files_are_filled_in_order_and_named_by_their_number() {
    let tensor = |name: &str, len| Tensor { name: name.into(), shape: vec![len] };
    // 6 + 4 bytes fill the first file, 2 begin the second, 20 are more than a file may have.
    let plan = Plan::of(vec![tensor("a", 3), tensor("b", 2), tensor("c", 1), tensor("d", 10)], 10);
    let files: Vec<_> = plan.shards.iter().map(|s| (s.file.as_str(), s.tensors.len())).collect();
    let file = |i| format!("model-0000{i}-of-00003.safetensors");
    assert_eq!(files, [(file(1).as_str(), 2), (file(2).as_str(), 1), (file(3).as_str(), 1)]);
    assert_eq!(plan.index()["weight_map"]["c"], file(2));
}

#[test]
fn tiny_loads_and_generates() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a/b");
    let mut last = (0, 0);
    let plan = write(&dir, Shape::Tiny, 1, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!(last, (plan.total_bytes(), plan.total_bytes()));
    let model = Model::load(&dir, LoadOptions::default()).unwrap();
    assert_eq!(model.config().window, Some(256));
    let mut engine = Engine::new(&model, EngineOptions::default()).unwrap();
    engine.submit(&[1, 5, 9], GenerateOptions::default().max_new_tokens(8).ignore_eos(true)).unwrap();
    let mut n_tokens = 0;
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            assert!(!matches!(event, Event::Failed { .. }), "{event:?}");
            n_tokens += usize::from(matches!(event, Event::Token { .. }));
        }
    }
    assert_eq!(n_tokens, 8);
}

#[test]
fn the_seed_decides_the_weights() {
    let temp = tempfile::tempdir().unwrap();
    let bytes = |name: &str, seed| {
        let dir = temp.path().join(name);
        write(&dir, Shape::Tiny, seed, &mut |_, _| {}).unwrap();
        std::fs::read(dir.join("model.safetensors")).unwrap()
    };
    let (a, b, c) = (bytes("a", 7), bytes("b", 7), bytes("c", 8));
    assert!(a == b && a != c && a.len() == c.len());
    let file = SafeTensors::deserialize(&a).unwrap();
    let values = |name: &str| -> Vec<f32> {
        let tensor = file.tensor(name).unwrap();
        tensor.data().chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
    };
    assert!(values("model.norm.weight").iter().all(|&w| w == 1.0));
    let (q, k) = (values("model.layers.0.self_attn.q_proj.weight"), values("lm_head.weight"));
    assert_ne!(q[..16], k[..16]);
    let n = k.len() as f32; // 2^20: the mean deviates by 2e-5, the variance by 0.1 %
    let (mean, square) = (k.iter().sum::<f32>() / n, k.iter().map(|w| w * w).sum::<f32>() / n);
    assert!(mean.abs() < 1e-4 && (square.sqrt() - 0.02).abs() < 1e-4, "{mean} {square}");
}

#[test]
fn a_model_is_not_written_over() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("notes.txt"), "").unwrap();
    write(temp.path(), Shape::Tiny, 1, &mut |_, _| {}).unwrap();
    let error = write(temp.path(), Shape::Tiny, 1, &mut |_, _| {}).unwrap_err();
    assert!(matches!(&error, Error::Exists { path } if path.starts_with(temp.path())), "{error}");
    assert!(temp.path().join(CONFIG).exists());
    let error = write(&temp.path().join(CONFIG), Shape::Tiny, 1, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("config.json: "), "{error}");
}

#[test]
fn what_is_not_complete_is_removed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("new");
    let interrupted = std::panic::catch_unwind(|| {
        write(&dir, Shape::Tiny, 1, &mut |done, _| assert!(done < 5_000_000, "interrupted"))
    });
    assert!(interrupted.is_err() && !dir.exists());
}
