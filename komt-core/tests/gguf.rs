//! GGUF files: the same model as the directory that they were made of, and hostile ones.
#![allow(clippy::unwrap_used)]

mod support;

use komt_core::{
    Engine, EngineOptions, GenerateOptions, Isa, LoadOptions, Model, Scorer, SharedEngine, Weights,
};
use std::path::Path;

fn load(path: &Path, weights: Weights) -> Model {
    let options = LoadOptions::default().weights(weights);
    Model::load_on(support::cpu(Isa::detect()), path, options).unwrap()
}

fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut logits = vec![];
    let scorer = Scorer::new(model, Some(ids.len().max(2))).unwrap();
    scorer.each_logits(ids.to_vec(), |_, row| logits.extend(row)).unwrap();
    logits
}

fn greedy(model: &Model, prompt: &[u32], n: usize) -> Vec<u32> {
    let engine = Engine::new(model, EngineOptions::default().max_context(256)).unwrap();
    let mut session =
        SharedEngine::new(engine).session().with_options(GenerateOptions::default().max_new_tokens(n));
    session.push_ids(prompt).unwrap();
    session.map(|token| token.unwrap().id).collect()
}

/// SmolLM2's GGUF and the directory that was made of it by rounding to bf16: the same weights when they are rounded here.
#[test]
fn smollm2_is_the_directory_made_of_it() {
    let Some(dir) = support::smollm2() else { return };
    let file = dir.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let (a, b) = (load(&dir, Weights::Stored), load(&file, Weights::Bf16));
    let (mut ca, mut cb) = (a.config().clone(), b.config().clone());
    ca.eos.clear();
    cb.eos.clear();
    assert_eq!(ca, cb);
    assert_eq!(a.eos(), b.eos());
    let (ta, tb) = (a.tokenizer().unwrap(), b.tokenizer().unwrap());
    assert_eq!(ta.chat_template(), tb.chat_template());
    assert_eq!((ta.bos(), ta.eos(), ta.unk(), ta.pad()), (tb.bos(), tb.eos(), tb.unk(), tb.pad()));
    for text in [
        "The capital of France is",
        "fn main() {\n    let x = 12345;\n}",
        "바다와 산, 그리고 <|im_end|>\n\n  x",
    ] {
        let ids = ta.encode(text).unwrap();
        assert_eq!(ids, tb.encode(text).unwrap());
        assert_eq!(logits(&a, &ids), logits(&b, &ids), "{text:?}");
    }
    let prompt = ta.encode("<|im_start|>user\nWhat is the sea?<|im_end|>\n<|im_start|>assistant\n").unwrap();
    let answer = greedy(&a, &prompt, 40);
    assert_eq!(answer, greedy(&b, &prompt, 40));
    println!("{:?}", ta.decode(&answer, true).unwrap());
}
