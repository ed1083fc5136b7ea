//! Against transformers in float32, eager attention: logits of every position, hidden states of every layer, embeddings,
//! greedy tokens. On the scalar reference and on every other path of this machine.
#![allow(clippy::unwrap_used)]

mod support;

use komt_core::{Engine, EngineOptions, Event, GenerateOptions, Isa, Model, Pooling, Scorer};
use std::path::Path;
use support::*;

/// The bound of the whole project: NMSE of the worst row. transformers itself, run in float64, differs from these files
/// by up to 3e-11 (testdata/SOURCES.md).
const BOUND: f64 = 1e-9;

/// Every float32 case of a model. Returns the worst NMSE of the logits.
fn check(name: &str, dir: &Path, isa: Isa, max_tokens: usize) -> f64 {
    let golden = Golden::read(name);
    let mut worst = 0f64;
    let (mut n_cases, mut n_greedy) = (0, 0);
    for (case, window, note) in golden.cases() {
        let ids = golden.ids(&format!("{case}.input_ids")).unwrap();
        if ids.len() > max_tokens {
            continue;
        }
        let dir = with_window(dir, window);
        let model = load(dir.path(), isa);
        let checked = check_logits(&golden, &case, dir.path(), isa, &ids, note);
        worst = worst.max(checked);
        check_embeddings(&golden, &case, &model, &ids);
        n_greedy += check_greedy(&model, &ids, note, &case);
        n_cases += 1;
    }
    assert!(n_cases > 0, "{name} has float32 cases");
    // Two files hold fewer than 64 greedy tokens a prompt: 48 after each of three, and 16 after 4,095.
    let least = if name == "long4096" { 16 } else { 64 };
    assert!(n_greedy >= least, "{name}: {n_greedy} greedy tokens could be compared");
    eprintln!(
        "{name} {isa:?}: {n_cases} cases, worst logits NMSE {worst:.1e}, {n_greedy} greedy tokens equal"
    );
    worst
}

fn check_logits(
    golden: &Golden,
    case: &str,
    dir: &Path,
    isa: Isa,
    ids: &[u32],
    note: &serde_json::Value,
) -> f64 {
    let get = |tensor: &str| golden.f32(&format!("{case}.{tensor}"));
    let mut got = outputs(dir, isa, ids);
    let model = load(dir, isa);
    let (vocab, dim) = (model.config().vocab_size, model.config().dim);
    got.streams.insert("final_hidden".into(), embed(&model, ids, Pooling::None, 0, false));
    let loose = |row: usize| note["loose_rows"].get(row.to_string()).is_some();

    let mut worst = 0f64;
    let mut compare = |what: &str, a: &[f32], b: &[f32], width: usize| {
        let error = worst_row_nmse(a, b, width);
        assert!(error < BOUND, "{case} {isa:?} {what}: {error:e}");
        if what.contains("logits") {
            worst = worst.max(error);
        }
    };
    for (name, stream) in &got.streams {
        if let Some(expected) = get(name) {
            // Rows that no float32 run pins down (testdata/SOURCES.md) are left out.
            let rows = |values: &[f32]| -> Vec<f32> {
                let kept = values.chunks_exact(dim).enumerate().filter(|(row, _)| !loose(*row));
                kept.flat_map(|(_, values)| values.to_vec()).collect()
            };
            compare(name, &rows(stream), &rows(&expected), dim);
        }
    }
    if let Some(expected) = get("logits") {
        compare("logits", &got.logits, &expected, vocab);
    }
    if let Some(expected) = get("last_logits") {
        compare("last_logits", &got.logits[(ids.len() - 1) * vocab..], &expected, vocab);
    }
    if let (Some(expected), Some(positions)) = (get("logits_at"), golden.ids(&format!("{case}.positions"))) {
        let at: Vec<f32> =
            positions.iter().flat_map(|&pos| got.logits[pos as usize * vocab..][..vocab].to_vec()).collect();
        compare("logits_at", &at, &expected, vocab);
    }
    if let (Some(values), Some(top)) = (get("topk_values"), golden.ids(&format!("{case}.topk_ids"))) {
        let k = top.len() / ids.len();
        let at: Vec<f32> =
            top.iter().enumerate().map(|(i, &id)| got.logits[i / k * vocab + id as usize]).collect();
        for row in (0..ids.len()).filter(|&row| !loose(row)) {
            compare("logits of the top ids", &at[row * k..][..k], &values[row * k..][..k], k);
        }
    }
    if let Some(expected) = get("logsumexp") {
        let sums = got.logits.chunks_exact(vocab).map(|row| komt_sample::log_sum_exp(row) as f32);
        for (row, (a, b)) in sums.zip(&expected).enumerate().filter(|(row, _)| !loose(*row)) {
            assert!((a - b).abs() < 2e-4, "{case} {isa:?} logsumexp of row {row}: {a} {b}");
        }
    }
    if let Some(expected) = get("token_nll") {
        let score = Scorer::new(&model, Some(ids.len().max(2))).unwrap().score_ids(ids.to_vec()).unwrap();
        for (row, (a, b)) in score.logprobs.iter().zip(&expected).enumerate().filter(|(row, _)| !loose(*row))
        {
            assert!((a + f64::from(*b)).abs() < 2e-4, "{case} {isa:?} nll of token {row}: {a} {b}");
        }
    }
    worst
}

fn check_embeddings(golden: &Golden, case: &str, model: &Model, ids: &[u32]) {
    for (name, pooling, n_excluded) in [
        ("last", Pooling::Last, 0),
        ("mean", Pooling::Mean, 0),
        ("weighted_mean", Pooling::WeightedMean, 0),
        ("mean_from5", Pooling::Mean, 5),
    ] {
        for (suffix, normalize) in [("", false), ("_l2", true)] {
            let Some(expected) = golden.f32(&format!("{case}.embedding.{name}{suffix}")) else { continue };
            let got = embed(model, ids, pooling, n_excluded, normalize);
            let (error, cosine) = (worst_row_nmse(&got, &expected, got.len()), cosine(&got, &expected));
            assert!(
                cosine > 1.0 - 1e-6 && error < BOUND,
                "{case} {name}{suffix}: cosine {cosine}, {error:e}"
            );
        }
    }
}

/// Greedy tokens must be the same; where the golden's margin is so small that rounding decides, the comparison ends.
fn check_greedy(model: &Model, ids: &[u32], note: &serde_json::Value, case: &str) -> usize {
    const SMALL: f64 = 1e-4;
    let Some(expected) = note["greedy"].as_array() else { return 0 };
    let margins = note["greedy_margin"].as_array().unwrap().iter().map(|m| m.as_f64().unwrap());
    let n = margins.take_while(|&margin| margin > SMALL).count();
    let got = generate(model, ids, expected.len());
    let expected: Vec<u32> = expected.iter().map(|id| id.as_u64().unwrap() as u32).collect();
    assert_eq!(got[..n], expected[..n], "{case}: greedy tokens");
    n
}

fn generate(model: &Model, ids: &[u32], n: usize) -> Vec<u32> {
    let options = EngineOptions::default().max_context(ids.len() + n + 1);
    let mut engine = Engine::new(model, options).unwrap();
    engine.submit(ids, GenerateOptions::default().max_new_tokens(n).ignore_eos(true)).unwrap();
    let mut got = vec![];
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Token { token, .. } = event {
                got.push(token.id);
            }
        }
    }
    got
}

fn check_all(name: &str) {
    for isa in Isa::available() {
        check(name, &models().join(name), isa, usize::MAX);
    }
}

#[test]
fn f32_weights_and_a_window() {
    check_all("tiny_base");
}

#[test]
fn tied_embeddings_and_no_window() {
    check_all("tiny_nowindow");
}

#[test]
fn shards_and_their_index() {
    check_all("tiny_sharded");
}

#[test]
fn a_vocabulary_of_32_000() {
    check_all("tiny_v32k");
}

/// bf16 weights against a float32 run of the same weights. head64 has windows W - 1, W, W + 1 and 2 W + 1 for prompts of
/// 1, W - 1, W, W + 1 and 3 W tokens.
#[test]
fn bf16_weights_and_heads_of_64_96_and_128_and_the_edges_of_a_window() {
    for name in ["head64", "head96", "head128", "tiny_head128"] {
        check_all(name);
    }
}

#[test]
fn f16_weights_and_a_transformers_5_config() {
    check_all("head64_f16");
}

#[test]
fn a_llama_of_the_same_graph() {
    check_all("llama_tiny");
}

/// Prompts of 4,095 to 8,200 tokens across a window of 4,096, in chunks. The reference, on one thread, takes those up to
/// 4,097.
#[test]
fn long_prompts_across_a_window_of_4096() {
    let dir = models().join("long4096");
    check("long4096", &dir, Isa::detect(), usize::MAX);
    check("long4096", &dir, Isa::Scalar, 4097);
}

#[test]
fn stories260k_writes_what_llama2c_expects() {
    let Some(dir) = stories260k() else { return };
    for isa in [Isa::Scalar, Isa::detect()] {
        check("stories260k", &dir, isa, usize::MAX);
    }
    let model = load(&dir, Isa::detect());
    let tokenizer = model.tokenizer().unwrap();
    let text = tokenizer.decode(&generate(&model, &[1], 200), true).unwrap();
    let golden = Golden::read("stories260k");
    let expected = golden.json["cases"]["float32.wnone.bos"]["greedy_text"].as_str().unwrap();
    assert_eq!(text.trim_start().chars().count(), 464, "{text}");
    assert_eq!(text.trim_start(), expected);
}

#[test]
fn smollm2_equals_transformers() {
    let Some(dir) = smollm2() else { return };
    check("smollm2", &dir, Isa::detect(), usize::MAX);
}
