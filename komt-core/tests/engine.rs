//! Engine, sessions: properties that need no oracle, ends of every kind, and faults.
#![allow(clippy::unwrap_used)]

mod support;

use komt_core::kernels::Tap;
use komt_core::{
    Engine, EngineOptions, Error, Event, FinishReason, GenerateOptions, Isa, KvFormat, LoadOptions, Model,
    SamplingParams, SeqId, SharedEngine, Template, Token,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use support::*;

/// A tiny model with a window of 8, on the scalar reference: what is equal here is equal bit for bit.
fn tiny() -> Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| load(&models().join("head64"), Isa::Scalar)).clone()
}

/// On every path of this machine equality is bit for bit: the order of every sum is fixed.
fn tiny_on_each() -> Vec<Model> {
    Isa::available().into_iter().map(|isa| load(&models().join("head64"), isa)).collect()
}

/// The same on the fastest path.
/// On each, with the cache in each format: what is stored of a token does not depend on what is stored with it.
fn in_each_format() -> impl Iterator<Item = (Model, KvFormat)> {
    let formats = |model: Model| KvFormat::ALL.map(|format| (model.clone(), format));
    tiny_on_each().into_iter().flat_map(formats)
}

fn tiny_fast() -> Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| load(&models().join("head64"), Isa::detect())).clone()
}

fn demo_model() -> Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| load(&demo(), Isa::detect())).clone()
}

fn prompt(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (seed * 97 + i * i * 31 + i * 7 + 3) % 320).collect()
}

fn sampled(n: usize, seed: u64) -> GenerateOptions {
    let sampling = SamplingParams { temperature: 1.0, seed, ..SamplingParams::greedy() };
    GenerateOptions::default().sampling(sampling).max_new_tokens(n).ignore_eos(true).logprobs(2)
}

/// Everything that happened, by sequence.
#[derive(Debug, Default)]
struct Record {
    tokens: BTreeMap<SeqId, Vec<Token>>,
    ends: BTreeMap<SeqId, FinishReason>,
    errors: BTreeMap<SeqId, Error>,
}

impl Record {
    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            let seq = event.seq();
            match event {
                Event::Token { token, .. } => self.tokens.entry(seq).or_default().push(token),
                Event::Done { reason, .. } => assert!(self.ends.insert(seq, reason).is_none(), "two ends"),
                Event::Failed { error, .. } => assert!(self.errors.insert(seq, error).is_none()),
                other => panic!("{other:?}"),
            }
        }
    }

    fn run(engine: &mut Engine) -> Self {
        let mut record = Record::default();
        while !engine.is_idle() {
            record.take(engine.step().unwrap());
        }
        record
    }
}

fn all_free(engine: &Engine) -> bool {
    engine.pages().0 == engine.pages().1
}

/// Tokens with log-probabilities of one prompt, alone in an engine with these options.
fn alone(model: &Model, options: EngineOptions, prompt: &[u32], generate: GenerateOptions) -> Vec<Token> {
    let mut engine = Engine::new(model, options).unwrap();
    let seq = engine.submit(prompt, generate).unwrap();
    let mut record = Record::run(&mut engine);
    assert!(all_free(&engine));
    record.tokens.remove(&seq).unwrap()
}

#[test]
fn chunked_prefill_equals_whole_prefill_and_rolling_equals_masked() {
    for (model, format) in in_each_format() {
        let prompt = prompt(1, 75);
        // Steps of 512 tokens: one chunk, and a ring longer than the sequence, so the window is only a mask.
        let whole = alone(
            &model,
            EngineOptions::default().kv_format(format).max_context(120),
            &prompt,
            sampled(30, 5),
        );
        assert_eq!(whole.len(), 30);
        for chunk in [1, 2, 3, 7, 16, 17, 64, 75, 76] {
            let options = EngineOptions::default().kv_format(format).max_context(120).max_step_tokens(chunk);
            let n_pages = Engine::new(&model, options).unwrap().pages().1 / 2;
            let chunked = alone(&model, options, &prompt, sampled(30, 5));
            assert_eq!(
                chunked,
                whole,
                "chunks of {chunk}, a ring of {n_pages} pages, {format}, {}",
                model.device_name()
            );
        }
    }
}

#[test]
fn batched_equals_alone_and_permuted_pages_equal_contiguous_ones() {
    for (model, format) in in_each_format() {
        let options = EngineOptions::default()
            .kv_format(format)
            .max_context(120)
            .max_step_tokens(20)
            .max_seqs(3)
            .kv_tokens(2000);
        let mut engine = Engine::new(&model, options).unwrap();
        // Sequences that come and go leave the free list in disorder.
        for i in 0..6 {
            let seq = engine.submit(&prompt(i, 10 + i as usize), sampled(3, 1)).unwrap();
            engine.step().unwrap();
            if i % 2 == 0 {
                engine.cancel(seq);
            }
        }
        Record::run(&mut engine);
        let requests: Vec<_> =
            (0..5).map(|i| (prompt(i, 5 + 17 * i as usize), sampled(20, u64::from(i)))).collect();
        let seqs: Vec<_> =
            requests.iter().map(|(ids, how)| engine.submit(ids, how.clone()).unwrap()).collect();
        let record = Record::run(&mut engine);
        for (seq, (ids, how)) in seqs.iter().zip(requests) {
            assert_eq!(
                record.tokens[seq],
                alone(&model, EngineOptions::default().kv_format(format).max_context(120), &ids, how)
            );
        }
        assert!(all_free(&engine));
    }
}

#[test]
fn a_full_cache_makes_sequences_take_turns_and_changes_no_result() {
    let model = tiny();
    // Without a window, so that sequences keep all their pages: room for 8, five sequences want 5 each.
    let dir = with_window(&models().join("head64"), None);
    let unbounded = load(dir.path(), Isa::Scalar);
    for model in [model, unbounded] {
        let options = EngineOptions::default().max_context(80).max_step_tokens(16).kv_tokens(128);
        let mut engine = Engine::new(&model, options).unwrap();
        let requests: Vec<_> = (0..5).map(|i| (prompt(i, 40), sampled(38, u64::from(i)))).collect();
        let seqs: Vec<_> =
            requests.iter().map(|(ids, how)| engine.submit(ids, how.clone()).unwrap()).collect();
        let record = Record::run(&mut engine);
        for (seq, (ids, how)) in seqs.iter().zip(requests) {
            assert_eq!(
                record.tokens[seq],
                alone(&model, EngineOptions::default().max_context(80), &ids, how)
            );
            assert_eq!(record.ends[seq], FinishReason::MaxTokens);
        }
        assert!(all_free(&engine));
    }
}

#[test]
fn a_resumed_conversation_equals_one_run() {
    for options in [
        EngineOptions::default().max_context(200),
        EngineOptions::default().max_context(200).max_step_tokens(4),
    ] {
        let mut engine = Engine::new(&tiny(), options).unwrap();
        let seq = engine.open();
        let mut so_far = vec![];
        for turn in 0..3 {
            let ids = prompt(turn, 13);
            so_far.extend(&ids);
            engine.append(seq, &ids, sampled(9, 3)).unwrap();
            assert!(matches!(engine.append(seq, &ids, sampled(9, 3)), Err(Error::Busy { .. })));
            let mut record = Record::run(&mut engine);
            let tokens = record.tokens.remove(&seq).unwrap();
            // The same prompt from nothing, with penalties and draws counted from the same place.
            assert_eq!(
                tokens,
                alone(&tiny(), EngineOptions::default().max_context(200), &so_far, sampled(9, 3))
            );
            so_far.extend(tokens.iter().map(|t| t.id));
            assert_eq!(engine.tokens(seq).unwrap(), so_far);
        }
        // A fork goes on as its parent does, and neither disturbs the other.
        let fork = engine.fork(seq).unwrap();
        engine.append(seq, &[5, 6], sampled(20, 8)).unwrap();
        engine.append(fork, &[5, 6], sampled(20, 8)).unwrap();
        let record = Record::run(&mut engine);
        assert_eq!(record.tokens[&seq], record.tokens[&fork]);
        engine.close(seq);
        engine.close(fork);
        assert!(all_free(&engine));
    }
}

#[test]
fn the_draw_depends_on_seed_and_step_alone() {
    let run = |seed| {
        let tokens =
            alone(&tiny(), EngineOptions::default().max_context(64), &prompt(1, 9), sampled(40, seed));
        tokens.into_iter().map(|token| token.id).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// What a random user does.
#[derive(Debug, Clone)]
enum Act {
    Submit {
        seed: u32,
        len: usize,
        n: usize,
    },
    Step,
    Cancel(usize),
    /// A step whose device fails at its n-th matmul.
    Fail(usize),
    /// A conversation: opened, forked and closed in the midst of it all.
    Talk(u32),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let submit = (0u32..50, 1usize..40, 1usize..25).prop_map(|(seed, len, n)| Act::Submit { seed, len, n });
    let act = prop_oneof![
        3 => submit,
        6 => Just(Act::Step),
        2 => (0usize..30).prop_map(Act::Cancel),
        1 => (0usize..6).prop_map(Act::Fail),
        1 => (0u32..50).prop_map(Act::Talk),
    ];
    proptest::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever is cancelled and whatever fails, whenever: the others' tokens are what they are alone, and every page comes
    /// back.
    #[test]
    fn random_submit_step_cancel(acts in acts(), chunk in 1usize..40, windowed: bool) {
        // Two models, with and without a window, and a fuse each: matmuls until the next failure.
        type Fused = (Model, Arc<AtomicUsize>, Model);
        static MODELS: OnceLock<(tempfile::TempDir, [Fused; 2])> = OnceLock::new();
        let (_, models) = MODELS.get_or_init(|| {
            let bounded = models().join("head64");
            let unbounded = with_window(&bounded, None);
            let fused = |dir: &Path| {
                let (model, n) = failing(dir, 0, "matmul");
                (model, n, load(dir, Isa::detect()))
            };
            let both = [fused(unbounded.path()), fused(&bounded)];
            (unbounded, both)
        });
        let (model, fuse, sound) = &models[usize::from(windowed)];
        let options = EngineOptions::default().max_context(64).max_step_tokens(chunk).max_seqs(3).kv_tokens(96);
        let mut engine = Engine::new(model, options).unwrap();
        let (mut record, mut requests, mut cancelled) = (Record::default(), BTreeMap::new(), vec![]);
        let mut talks = vec![];
        for act in acts {
            match act {
                Act::Submit { seed, len, n } => {
                    let request = (prompt(seed, len), sampled(n, u64::from(seed)));
                    let seq = engine.submit(&request.0, request.1.clone()).unwrap();
                    requests.insert(seq, request);
                }
                Act::Step => record.take(engine.step().unwrap()),
                Act::Fail(at) => {
                    fuse.store(0usize.wrapping_sub(at), Ordering::Relaxed);
                    if let Ok(events) = engine.step() {
                        record.take(events);
                    }
                    fuse.store(usize::MAX / 2, Ordering::Relaxed);
                }
                Act::Talk(seed) => {
                    let first = prompt(seed, 20);
                    match talks.pop() {
                        Some(seq) if engine.fork(seq).map(|fork| talks.push(fork)).is_ok() => engine.close(seq),
                        other => {
                            talks.extend(other);
                            let seq = engine.open();
                            engine.append(seq, &first, sampled(5, 1)).unwrap();
                            requests.insert(seq, (first, sampled(5, 1)));
                            talks.push(seq);
                        }
                    }
                }
                Act::Cancel(i) => {
                    let running: Vec<_> =
                        requests.keys().copied().filter(|seq| !record.ends.contains_key(seq)).collect();
                    if !running.is_empty() && !cancelled.contains(&running[i % running.len()]) {
                        engine.cancel(running[i % running.len()]);
                        cancelled.push(running[i % running.len()]);
                    }
                }
            }
        }
        while !engine.is_idle() {
            record.take(engine.step().unwrap());
        }
        talks.into_iter().for_each(|seq| engine.close(seq));
        prop_assert!(all_free(&engine));
        for (seq, (ids, how)) in requests {
            let expected = alone(sound, EngineOptions::default().max_context(64), &ids, how);
            let got = record.tokens.remove(&seq).unwrap_or_default();
            if cancelled.contains(&seq) {
                // A conversation that was closed before the next step tells nothing any more.
                prop_assert!(matches!(record.ends.get(&seq), None | Some(FinishReason::Cancelled)));
                prop_assert_eq!(&got[..], &expected[..got.len()]);
            } else {
                prop_assert_eq!(got, expected);
            }
        }
    }
}

/// The reviewed order of service: a long prompt is not passed for ever by short ones behind it.
#[test]
fn a_long_prompt_is_not_starved() {
    let dir = with_window(&models().join("head64"), None);
    let model = load(dir.path(), Isa::detect());
    let options = EngineOptions::default().max_context(96).max_step_tokens(8).kv_tokens(96);
    let mut engine = Engine::new(&model, options).unwrap();
    for i in 0..3 {
        engine.submit(&prompt(i, 10), sampled(20, 1)).unwrap();
    }
    let long = engine.submit(&prompt(9, 90), sampled(4, 1)).unwrap();
    let mut record = Record::default();
    for i in 0..400 {
        engine.submit(&prompt(i, 10), sampled(20, 1)).unwrap();
        record.take(engine.step().unwrap());
        if record.ends.contains_key(&long) {
            return;
        }
    }
    panic!("the long prompt is still waiting");
}

/// A conversation whose pages others took goes on as if nothing had been.
#[test]
fn a_parked_conversation_that_lost_its_pages_resumes_exactly() {
    let dir = with_window(&models().join("head64"), None);
    let model = load(dir.path(), Isa::detect());
    let options = EngineOptions::default().max_context(96).kv_tokens(96);
    let mut engine = Engine::new(&model, options).unwrap();
    let seq = engine.open();
    engine.append(seq, &prompt(1, 40), sampled(5, 1)).unwrap();
    Record::run(&mut engine);
    engine.submit(&prompt(2, 80), sampled(10, 1)).unwrap(); // needs all six pages
    Record::run(&mut engine);
    assert!(all_free(&engine), "the conversation has none left");
    let so_far = [engine.tokens(seq).unwrap(), &[4, 5]].concat();
    engine.append(seq, &[4, 5], sampled(8, 1)).unwrap();
    let record = Record::run(&mut engine);
    assert_eq!(
        record.tokens[&seq],
        alone(&model, EngineOptions::default().max_context(96), &so_far, sampled(8, 1))
    );
}

/// A panic inside a step (here an observer's) is as good as an error.
#[test]
fn a_panic_in_a_step_leaves_the_engine_usable() {
    let n = Arc::new(AtomicUsize::new(0));
    let counter = n.clone();
    let tap = Tap::new(cpu(Isa::detect()), move |event| {
        if event.op == "attention" && counter.fetch_add(1, Ordering::Relaxed) == 7 {
            panic!("an observer's panic, on purpose");
        }
        Ok(())
    });
    let model = Model::load_on(tap, models().join("head64"), LoadOptions::default()).unwrap();
    let mut engine =
        Engine::new(&model, EngineOptions::default().max_context(64).max_step_tokens(8)).unwrap();
    let seq = engine.submit(&prompt(1, 20), sampled(12, 1)).unwrap();
    let (mut record, mut n_panics) = (Record::default(), 0);
    while !engine.is_idle() {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| engine.step())) {
            Ok(events) => record.take(events.unwrap()),
            Err(_) => n_panics += 1,
        }
    }
    assert_eq!(n_panics, 1);
    let expected =
        alone(&tiny_fast(), EngineOptions::default().max_context(64), &prompt(1, 20), sampled(12, 1));
    assert_eq!(record.tokens[&seq], expected);
}

/// Threads of somebody else's pool may hold an embedder's or an engine's lock while they wait for our threads: they must
/// not take up work meanwhile that wants the same lock.
#[test]
fn embedders_and_sessions_work_from_inside_another_pool() {
    use rayon::prelude::*;
    let model = demo_model();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let embedder = komt_core::Embedder::new(&model, komt_core::EmbedOptions::default()).unwrap();
    let engine = SharedEngine::new(Engine::new(&model, EngineOptions::default()).unwrap());
    let texts: Vec<String> = (0..24).map(|i| format!("안녕하세요 {i}")).collect();
    let expected = embedder.embed(&texts).unwrap();
    pool.install(|| {
        texts.par_iter().zip(&expected).for_each(|(text, vector)| {
            assert_eq!(&embedder.embed(&[text]).unwrap()[0], vector);
        });
        (0..8).into_par_iter().for_each(|_| {
            let mut session = engine.session().with_options(GenerateOptions::default().max_new_tokens(10));
            assert!(session.say("안녕하세요").unwrap().all(|token| token.is_ok()));
        });
    });
}

/// A prompt that itself ends in EOS: only an EOS of the answer closes the answer.
#[test]
fn an_answer_cancelled_before_its_first_token_is_closed_all_the_same() {
    let model = demo_model();
    let tokenizer = model.tokenizer().unwrap();
    let engine = SharedEngine::new(Engine::new(&model, EngineOptions::default()).unwrap());
    let mut session = engine.session().with_template(Template::KomtHeading);
    session.say("안녕하세요").unwrap();
    session.stop();
    let answer: Vec<_> = session.say("고마워요").unwrap().map(|t| t.unwrap().id).collect();
    let ids = Template::KomtHeading.prompt_ids(tokenizer, &session.messages()[..3]).unwrap();
    let fresh = alone(&model, EngineOptions::default(), &ids, GenerateOptions::default());
    assert_eq!(answer, fresh.into_iter().map(|t| t.id).collect::<Vec<_>>());
}

#[test]
fn a_session_takes_token_ids_or_messages() {
    let model = demo_model();
    let engine = SharedEngine::new(Engine::new(&model, EngineOptions::default()).unwrap());
    let ids = model.tokenizer().unwrap().encode_with_bos("[INST]안녕하세요 [/INST]").unwrap();
    let (mut raw, mut said) = (engine.session(), engine.session());
    let a: Vec<_> = raw.push_ids(&ids).unwrap().map(|t| t.unwrap().id).collect();
    let b: Vec<_> = said.say("안녕하세요").unwrap().map(|t| t.unwrap().id).collect();
    assert_eq!(a, b);
    assert_eq!((raw.messages().len(), said.messages().len()), (0, 2));
    assert!(raw.say("x").is_err() && said.push_ids(&ids).is_err());
    assert!(
        raw.push_ids(&[5]).unwrap().next().unwrap().is_ok() && said.say("x").unwrap().next().unwrap().is_ok()
    );
}

#[test]
fn a_session_is_cancelled_from_elsewhere() {
    let model = demo_model();
    let engine = SharedEngine::new(Engine::new(&model, EngineOptions::default()).unwrap());
    let mut session =
        engine.session().with_options(GenerateOptions::default().ignore_eos(true).max_new_tokens(900));
    let canceller = session.canceller();
    session.say("안녕하세요").unwrap();
    let thread = std::thread::spawn(move || canceller.cancel());
    let n = session.by_ref().count();
    thread.join().unwrap();
    assert!(n < 900 && session.finish_reason() == Some(FinishReason::Cancelled));
    assert!(session.say("고마워요").unwrap().next().unwrap().is_ok(), "the next turn is not cancelled");
    assert!(session.with_system("late").is_err());
}

/// A model whose device fails at the n-th operation of each kind asked for.
fn failing(dir: &Path, fails_at: usize, op: &'static str) -> (Model, Arc<AtomicUsize>) {
    let n = Arc::new(AtomicUsize::new(usize::MAX / 2)); // counts from far away until it is set to 0
    let counter = n.clone();
    let tap = Tap::new(cpu(Isa::detect()), move |event| {
        if event.op == op && counter.fetch_add(1, Ordering::Relaxed) == fails_at {
            return Err("made to fail".into());
        }
        Ok(())
    });
    (Model::load_on(tap, dir, LoadOptions::default()).unwrap(), n)
}

#[test]
fn a_failed_step_advances_nobody_and_can_be_tried_again() {
    for (op, fails_at) in
        [("upload", 3), ("embed", 2), ("attention", 151), ("matmul_f32", 60), ("download", 50)]
    {
        let (model, n) = failing(&models().join("head64"), fails_at, op);
        // 110 tokens: a ring of 32 slots wraps three times.
        let options = EngineOptions::default().max_context(200).max_step_tokens(8);
        let mut engine = Engine::new(&model, options).unwrap();
        n.store(0, Ordering::Relaxed);
        let requests: Vec<_> = (0..3).map(|i| (prompt(i, 30), sampled(80, u64::from(i)))).collect();
        let seqs: Vec<_> =
            requests.iter().map(|(ids, how)| engine.submit(ids, how.clone()).unwrap()).collect();
        let (mut record, mut n_errors) = (Record::default(), 0);
        while !engine.is_idle() {
            match engine.step() {
                Ok(events) => record.take(events),
                Err(error) => {
                    assert_eq!(error.to_string(), format!("{op}: stopped by its observer: made to fail"));
                    n_errors += 1;
                }
            }
        }
        assert_eq!(n_errors, 1, "{op}");
        for (seq, (ids, how)) in seqs.iter().zip(requests) {
            let expected = alone(&tiny_fast(), EngineOptions::default().max_context(200), &ids, how);
            assert_eq!(record.tokens[seq], expected, "{op}");
        }
        assert!(all_free(&engine));
    }
}

#[test]
fn a_load_or_engine_that_fails_anywhere_is_an_error() {
    let dir = models().join("head64");
    for op in ["alloc", "upload", "load_weight"] {
        let mut n_failures = 0;
        for fails_at in 0.. {
            let n = AtomicUsize::new(0);
            let tap = Tap::new(cpu(Isa::detect()), move |event| {
                if event.op == op && n.fetch_add(1, Ordering::Relaxed) == fails_at {
                    Err("no".into())
                } else {
                    Ok(())
                }
            });
            let made = Model::load_on(tap, &dir, LoadOptions::default())
                .and_then(|model| Engine::new(&model, EngineOptions::default()));
            match made {
                Ok(_) => break,
                Err(error) => assert!(error.to_string().starts_with(op), "{error}"),
            }
            n_failures += 1;
        }
        assert!(n_failures > 5, "{op} failed {n_failures} times");
    }
}

#[test]
fn logits_that_are_not_numbers_end_their_own_sequence_only() {
    let dir = with_config(&models().join("head64"), |_| {});
    // The embedding of token 7 becomes NaN: bf16 7fc0.
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = 8 + header + json["model.embed_tokens.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at + 7 * 64 * 2 + 1] = 0x7f;
    bytes[at + 7 * 64 * 2] = 0xc0;
    std::fs::write(&path, bytes).unwrap();

    let model = load(dir.path(), Isa::detect());
    let mut engine = Engine::new(&model, EngineOptions::default().max_context(64)).unwrap();
    let bad = engine.submit(&[1, 7, 9], sampled(5, 1)).unwrap();
    let good = engine.submit(&[1, 8, 9], sampled(5, 1)).unwrap();
    let record = Record::run(&mut engine);
    assert!(record.errors[&bad].to_string().contains("NaN"), "{}", record.errors[&bad]);
    assert!(!record.tokens.contains_key(&bad));
    assert!(record.tokens[&good].iter().all(|token| token.id != 7) && record.tokens[&good].len() == 5);
    assert!(all_free(&engine));
}

#[test]
fn every_end_has_its_reason() {
    let model = demo_model();
    let mut engine = Engine::new(&model, EngineOptions::default()).unwrap();
    let ids = Template::Komt
        .prompt_ids(model.tokenizer().unwrap(), &[komt_core::Message::user("안녕하세요")])
        .unwrap();
    let text = |tokens: &[Token]| tokens.iter().map(|t| t.text.as_str()).collect::<String>();
    let mut run = |options: GenerateOptions| {
        let seq = engine.submit(&ids, options).unwrap();
        let mut record = Record::run(&mut engine);
        (record.tokens.remove(&seq).unwrap(), record.ends[&seq])
    };

    let (whole, reason) = run(GenerateOptions::default());
    assert_eq!(reason, FinishReason::Eos);
    assert_eq!(whole.last().unwrap().id, model.eos()[0]);
    let answer = text(&whole);
    let ids_of = |tokens: &[Token]| tokens.iter().map(|t| t.id).collect::<Vec<_>>();
    let with_prompt = [ids.clone(), ids_of(&whole)].concat();
    let tokenizer = model.tokenizer().unwrap();
    let decoded = tokenizer.decode(&with_prompt, true).unwrap();
    assert_eq!(decoded, tokenizer.decode(&ids, true).unwrap() + &answer);

    let (short, reason) = run(GenerateOptions::default().max_new_tokens(3));
    assert_eq!((short.len(), reason), (3, FinishReason::MaxTokens));
    assert_eq!(ids_of(&short), ids_of(&whole[..3]));

    // A stop string from the middle of the answer, over a border of tokens.
    let chars: Vec<char> = answer.chars().collect();
    assert!(chars.len() > 8, "{answer}");
    let stop: String = chars[4..7].iter().collect();
    let (stopped, reason) = run(GenerateOptions::default().stop(stop.clone()).stop("never there"));
    assert_eq!(reason, FinishReason::StopString);
    assert_eq!(text(&stopped), answer[..answer.find(&stop).unwrap()]);

    let (longer, reason) = run(GenerateOptions::default().ignore_eos(true).max_new_tokens(whole.len() + 4));
    assert_eq!((longer.len(), reason), (whole.len() + 4, FinishReason::MaxTokens));

    let mut small = Engine::new(&model, EngineOptions::default().max_context(ids.len() + 4)).unwrap();
    let seq = small.submit(&ids, GenerateOptions::default().ignore_eos(true)).unwrap();
    let record = Record::run(&mut small);
    assert_eq!((record.tokens[&seq].len(), record.ends[&seq]), (4, FinishReason::ContextFull));
}

#[test]
fn text_held_back_comes_when_the_answer_is_cancelled() {
    let model = demo_model();
    let mut engine = Engine::new(&model, EngineOptions::default()).unwrap();
    let ids = model.tokenizer().unwrap().encode_with_bos("[INST]안녕하세요 [/INST]").unwrap();
    let whole: String = {
        let seq = engine.submit(&ids, GenerateOptions::default()).unwrap();
        Record::run(&mut engine).tokens[&seq].iter().map(|t| t.text.clone()).collect()
    };
    // Everything may become this stop string, so everything is held back.
    let stop = format!("{whole}#");
    let seq = engine.submit(&ids, GenerateOptions::default().stop(stop)).unwrap();
    for _ in 0..6 {
        engine.step().unwrap();
    }
    engine.cancel(seq);
    let events = engine.step().unwrap();
    let [Event::Done { reason: FinishReason::Cancelled, tail, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(
        !tail.is_empty() && whole.starts_with(tail.trim_end_matches('\u{fffd}')),
        "{tail:?} of {whole:?}"
    );
    assert!(engine.is_idle() && all_free(&engine));
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let model = demo_model();
    let ids = model.tokenizer().unwrap().encode_with_bos("[INST]Hello [/INST]").unwrap();
    let tokens = alone(
        &model,
        EngineOptions::default(),
        &ids,
        GenerateOptions::komt_card().max_new_tokens(20).logprobs(3),
    );
    let all = [ids.clone(), tokens.iter().map(|t| t.id).collect()].concat();
    let score = komt_core::Scorer::new(&model, None).unwrap().score_ids(all).unwrap();
    for (token, expected) in tokens.iter().zip(&score.logprobs[ids.len() - 1..]) {
        assert!((f64::from(token.logprob.unwrap()) - expected).abs() < 1e-5);
        assert_eq!(token.top.len(), 3);
        assert!(token.top[0].1 >= token.top[1].1 && token.top[0].1 >= token.logprob.unwrap());
    }
}

#[test]
fn sessions_of_one_engine_live_side_by_side() {
    let model = demo_model();
    let engine = SharedEngine::new(Engine::new(&model, EngineOptions::default()).unwrap());
    let ask = |engine: &SharedEngine, texts: &[&str]| {
        let mut session = engine.session();
        let mut answers = vec![];
        for text in texts {
            answers.push(session.say(*text).unwrap().map(|t| t.unwrap().text).collect::<String>());
            assert!(session.finish_reason().is_some());
        }
        answers
    };
    let (a, b) = (["안녕하세요", "서울에 가고 싶어요"], ["Hello", "What is the capital of France?"]);
    let (alone_a, alone_b) = (ask(&engine, &a), ask(&engine, &b));
    assert_eq!(engine.pages().0, engine.pages().1, "sessions that are gone keep no pages");

    // Token by token in turns, on one thread.
    let (mut first, mut second) = (engine.session(), engine.session());
    for turn in 0..2 {
        first.say(a[turn]).unwrap();
        second.say(b[turn]).unwrap();
        let (mut answer_a, mut answer_b) = (String::new(), String::new());
        loop {
            let (x, y) = (first.next(), second.next());
            answer_a += &x.as_ref().map_or(String::new(), |t| t.as_ref().unwrap().text.clone());
            answer_b += &y.as_ref().map_or(String::new(), |t| t.as_ref().unwrap().text.clone());
            if x.is_none() && y.is_none() {
                break;
            }
        }
        assert_eq!((answer_a, answer_b), (alone_a[turn].clone(), alone_b[turn].clone()));
    }
    assert_eq!(first.messages().len(), 4);
    drop((first, second));

    // And on threads.
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|i| {
                let (engine, texts) = (&engine, if i % 2 == 0 { a } else { b });
                scope.spawn(move || ask(engine, &texts))
            })
            .collect();
        for (i, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), if i % 2 == 0 { alone_a.clone() } else { alone_b.clone() });
        }
    });
    assert_eq!(engine.pages().0, engine.pages().1);
}

#[test]
fn a_session_can_be_stopped_dropped_forked_and_outlives_bad_turns() {
    let model = demo_model();
    let engine = SharedEngine::new(Engine::new(&model, EngineOptions::default().max_context(300)).unwrap());
    let mut session = engine.session();
    let first: Vec<_> = session.say("안녕하세요").unwrap().take(3).collect();
    assert_eq!(first.len(), 3);
    session.stop();
    assert_eq!(session.finish_reason(), Some(FinishReason::Cancelled));
    assert_eq!(session.messages().len(), 2);

    let error = session.say("가".repeat(2000)).unwrap_err();
    assert!(matches!(error, Error::TooLong { max: 299, .. }), "{error}");
    session.options = GenerateOptions::default().max_new_tokens(0);
    assert!(matches!(session.say("x").unwrap_err(), Error::Option { name: "max_new_tokens", .. }));
    session.options = GenerateOptions::default().max_new_tokens(30);
    assert_eq!(session.messages().len(), 2, "turns that could not start leave no trace");

    let mut fork = session.fork().unwrap();
    let say = |session: &mut komt_core::Session| {
        session.say("서울에 가고 싶어요").unwrap().map(|t| t.unwrap().id).collect::<Vec<_>>()
    };
    let ids = say(&mut session);
    assert_eq!(ids, say(&mut fork));
    assert!(!ids.is_empty());

    session.say("그리고?").unwrap().next();
    drop(session); // in the middle of its answer
    drop(fork);
    assert_eq!(engine.pages().0, engine.pages().1);
}

/// A template that writes earlier turns otherwise once there are later ones: the conversation is what it would be anew.
#[test]
fn a_session_goes_on_with_a_template_that_cannot_be_appended_to() {
    let source = "{% for m in messages %}{% if loop.last %}[INST]{{ m.content }} [/INST]{% else %}{{ m.content }}; \
                  {% endif %}{% endfor %}";
    let template = Template::JinjaSource(source.into());
    let model = demo_model();
    let engine = SharedEngine::new(Engine::new(&model, EngineOptions::default()).unwrap());
    let mut session = engine.session().with_template(template.clone());
    let mut answers = vec![];
    for text in ["안녕하세요", "서울에 가고 싶어요", "고마워요"] {
        answers.push(session.say(text).unwrap().map(|t| t.unwrap().text).collect::<String>());
    }
    let before = &session.messages()[..5];
    let ids = template.prompt_ids(model.tokenizer().unwrap(), before).unwrap();
    let fresh = alone(&model, EngineOptions::default(), &ids, GenerateOptions::default());
    assert_eq!(fresh.into_iter().map(|t| t.text).collect::<String>(), answers[2]);
}

#[test]
fn a_sequence_can_be_rewound() {
    for format in KvFormat::ALL {
        let mut engine = Engine::new(
            &tiny(),
            EngineOptions::default().kv_format(format).max_context(200).max_step_tokens(4),
        )
        .unwrap();
        let seq = engine.open();
        engine.append(seq, &prompt(1, 50), sampled(9, 3)).unwrap();
        assert!(matches!(engine.rewind(seq, 3), Err(Error::Busy { .. })));
        Record::run(&mut engine);
        let fork = engine.fork(seq).unwrap();
        // Near the end the ring still has the keys; at 5 it has lost them.
        for len in [57, 50, 45, 5, 0] {
            engine.rewind(seq, len).unwrap();
            assert_eq!(engine.tokens(seq).unwrap().len(), len);
            let so_far = [engine.tokens(seq).unwrap(), &[9, 8]].concat();
            engine.append(seq, &[9, 8], sampled(6, 3)).unwrap();
            let record = Record::run(&mut engine);
            assert_eq!(
                record.tokens[&seq],
                alone(
                    &tiny(),
                    EngineOptions::default().kv_format(format).max_context(200),
                    &so_far,
                    sampled(6, 3)
                )
            );
        }
        // Its full pages are those of the sequence as it was.
        let so_far = [engine.tokens(fork).unwrap(), &[7]].concat();
        engine.append(fork, &[7], sampled(6, 3)).unwrap();
        let record = Record::run(&mut engine);
        let expected = alone(
            &tiny(),
            EngineOptions::default().kv_format(format).max_context(200),
            &so_far,
            sampled(6, 3),
        );
        assert_eq!(record.tokens[&fork], expected);
    }
}

#[test]
fn an_engine_moves_to_a_thread_of_its_own() {
    let mut engine = Engine::new(&tiny_fast(), EngineOptions::default().max_context(64)).unwrap();
    let seq = engine.submit(&prompt(1, 5), sampled(4, 1)).unwrap();
    let record = std::thread::spawn(move || Record::run(&mut engine)).join().unwrap();
    assert_eq!(record.tokens[&seq].len(), 4);
}
