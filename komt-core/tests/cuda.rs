//! The CUDA backend end to end, against the CPU: on a card where there is one, else on the software GPU.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

#[path = "../../komt-kernels/tests/cuda_support/mod.rs"]
mod cuda_support;
#[path = "support/logits.rs"]
mod logits;
#[path = "support/rounded.rs"]
mod rounded;
mod support;

use cuda_support::Gpu;
use half::{bf16, f16};
use komt_core::kernels::cuda::CudaAct;
use komt_core::kernels::{Cuda, Error as KernelError, Tap};
use komt_core::{
    Device, Engine, EngineOptions, Error, Event, FinishReason, GenerateOptions, KvFormat, LoadOptions, Model,
    SamplingParams, SharedEngine, Token, Weights,
};
use komt_softgpu::{DeviceSpec, Fault, Options};
use logits::{equals_the_cpu, equals_the_cpu_with, prompt};
use std::collections::BTreeSet;
use std::path::Path;
use support::*;

fn on_cuda<A: CudaAct>(dir: &Path) -> Model {
    try_on_cuda::<A>(dir).unwrap()
}

fn try_on_cuda<A: CudaAct>(dir: &Path) -> komt_core::Result<Model> {
    Model::load_on(Cuda::<A>::with(cuda_support::options())?, dir, LoadOptions::default())
}

#[test]
fn logits_and_embeddings_equal_the_cpus() {
    for sm in [80, 90, 120] {
        let Some(gpu) = Gpu::open(sm) else { return };
        if let Some(soft) = &gpu.soft {
            soft.options(&Options { record_launches: true, ..Options::default() });
        }
        for head_dim in [64, 96, 128] {
            // 68 rows in a step: more than the products of few rows take.
            equals_the_cpu::<bf16>(&models().join(format!("head{head_dim}")), Weights::Stored, 40, 28);
            let Some(soft) = &gpu.soft else { continue };
            let ran: BTreeSet<String> =
                soft.take_launches().into_iter().map(|launch| launch.kernel).collect();
            let of_heads = ["prefill", "decode"].map(|what| format!("attention_{what}_{head_dim}"));
            for kernel in of_heads.iter().map(String::as_str).chain(["matmul_gemm", "matmul_gemv_4", "pool"])
            {
                assert!(ran.contains(kernel), "sm_{sm}: {kernel} is none of {ran:?}");
            }
            let mut attention = ran.iter().filter(|kernel| kernel.starts_with("attention_"));
            assert!(attention.all(|kernel| kernel.ends_with(&format!("_{head_dim}"))), "sm_{sm}: {ran:?}");
        }
    }
}

#[test]
fn in_f16_too_which_is_all_that_turing_has() {
    for sm in [75, 80] {
        let Some(_gpu) = Gpu::open(sm) else { return };
        for name in ["head64_f16", "head96", "head128"] {
            equals_the_cpu::<f16>(&models().join(name), Weights::Stored, 40, 24);
        }
    }
}

#[test]
fn the_demo_model_equals_the_cpus_across_its_window() {
    let Some(_gpu) = Gpu::open(80) else { return };
    equals_the_cpu::<bf16>(&demo(), Weights::Stored, 100, 64);
}

#[test]
fn a_cache_in_8_bits_equals_the_cpus_prefilled_decoded_and_rewound() {
    let q8 = Some(KvFormat::Q8);
    {
        let Some(_gpu) = Gpu::open(75) else { return };
        equals_the_cpu_with::<f16>(&models().join("head64_f16"), Weights::Stored, q8, 40, 24);
    }
    for (sm, name) in [(80, "head128"), (90, "head64"), (120, "head96")] {
        let Some(_gpu) = Gpu::open(sm) else { return };
        equals_the_cpu_with::<bf16>(&models().join(name), Weights::Stored, q8, 40, 24);
    }
    let Some(_gpu) = Gpu::open(80) else { return };
    equals_the_cpu_with::<bf16>(&demo(), Weights::Stored, q8, 100, 64);
    equals_the_cpu_with::<bf16>(&models().join("head64"), Weights::Q4, q8, 40, 24);
}

#[test]
fn formats_of_the_cache_are_planned_and_others_an_error() {
    let Some(_gpu) = Gpu::open(80) else { return };
    let model = on_cuda::<bf16>(&models().join("head128"));
    let (c, options) = (model.config(), EngineOptions::default().max_context(100));
    let plan = |options| model.memory_plan(&options).unwrap();
    let numbers = 2 * (c.n_layers * c.n_kv_heads * c.head_dim) as u64;
    assert_eq!(plan(options).kv_bytes_per_token, 2 * numbers);
    assert_eq!(plan(options.kv_format(KvFormat::Bf16)).kv_bytes, plan(options).kv_bytes);
    let q8 = plan(options.kv_format(KvFormat::Q8));
    assert_eq!(q8.kv_bytes_per_token, numbers + numbers / c.head_dim as u64 * 4);
    for format in [KvFormat::F32, KvFormat::F16] {
        let error = Engine::new(&model, options.kv_format(format)).unwrap_err().to_string();
        assert!(error.contains(&format!("{format}")) && error.contains("bf16, q8"), "{error}");
        eprintln!("{error}");
    }
}

/// Tokens with log-probabilities of several prompts in one engine.
fn generated(model: &Model, n_new: usize) -> Vec<Token> {
    generated_with(model, n_new, KvFormat::Bf16)
}

fn generated_with(model: &Model, n_new: usize, kv_format: KvFormat) -> Vec<Token> {
    let options =
        EngineOptions::default().max_context(120).max_seqs(4).max_step_tokens(64).kv_format(kv_format);
    let mut engine = Engine::new(model, options).unwrap();
    let how = GenerateOptions::default().max_new_tokens(n_new).ignore_eos(true).logprobs(4);
    for n_prompt in [3, 20, 70] {
        let ids: Vec<u32> = (0..n_prompt).map(|i| (i * i * 31 + i * 7 + n_prompt) % 256).collect();
        engine.submit(&ids, how.clone()).unwrap();
    }
    let mut tokens = vec![];
    while !engine.is_idle() {
        tokens.extend(engine.step().unwrap().into_iter().filter_map(|event| match event {
            Event::Token { token, .. } => Some(token),
            _ => None,
        }));
    }
    tokens
}

#[test]
fn a_replayed_step_has_the_bits_of_an_eager_one_and_runs_repeat() {
    let Some(_gpu) = Gpu::open(80) else { return };
    let dir = models().join("head64");
    let cuda = Cuda::<bf16>::with(cuda_support::options()).unwrap();
    let replayed = Model::load_on(cuda.clone(), &dir, LoadOptions::default()).unwrap();
    // A tap never records.
    let eager = Tap::new(cuda.clone(), |_| Ok(()));
    let eager = Model::load_on(eager, &dir, LoadOptions::default()).unwrap();
    for (turns, format) in [KvFormat::Bf16, KvFormat::Q8].into_iter().enumerate() {
        let expected = generated_with(&eager, 30, format);
        assert_eq!(expected.len(), 90);
        for run in 0..2 {
            assert_eq!(generated_with(&replayed, 30, format), expected, "{format}, run {run}");
        }
        let counts = cuda.counts();
        eprintln!("{format}: {counts:?}");
        assert!(counts.recordings > turns as u64 && counts.replays >= 40 * (turns as u64 + 1), "{counts:?}");
    }
}

#[test]
fn what_the_device_finds_is_what_full_logits_give() {
    let Some(gpu) = Gpu::open(80) else { return };
    if let Some(soft) = &gpu.soft {
        soft.options(&Options { record_launches: true, ..Options::default() });
    }
    let model = on_cuda::<bf16>(&demo());
    let card = SamplingParams { seed: 7, ..SamplingParams::komt_card() };
    for (sampling, kernel) in [(SamplingParams::greedy(), "argmax"), (card, "argmax_candidates")] {
        let run = |logprobs: Option<usize>| {
            let mut how =
                GenerateOptions::default().sampling(sampling.clone()).max_new_tokens(24).ignore_eos(true);
            how.logprobs = logprobs;
            let mut engine = Engine::new(&model, EngineOptions::default().max_context(80)).unwrap();
            let seqs = [3, 40].map(|n| engine.submit(&prompt(&model, n, 1), how.clone()).unwrap());
            let mut ids = vec![vec![]; 2];
            while !engine.is_idle() {
                for event in engine.step().unwrap() {
                    if let Event::Token { seq, token } = event {
                        ids[seqs.iter().position(|&s| s == seq).unwrap()].push(token.id);
                    }
                }
            }
            let launches = gpu.soft.as_ref().map(|soft| soft.take_launches()).unwrap_or_default();
            let n = launches.iter().filter(|launch| launch.kernel.contains(kernel)).count();
            (ids, n)
        };
        let (full, n_full) = run(Some(0)); // log-probabilities need all logits
        let (found, n_found) = run(None);
        assert_eq!(found, full, "{kernel}");
        assert_eq!(n_full, 0, "{kernel}");
        assert!(gpu.soft.is_none() || n_found >= 24, "{kernel}: {n_found} launches");
    }
}

/// The software GPU, or a loud word that a card cannot be made to fail.
fn software(sm: u32) -> Option<Gpu> {
    let gpu = Gpu::open(sm)?;
    if gpu.soft.is_none() {
        eprintln!("*** SKIPPED: faults are of the software GPU, this is a card ***");
        return None;
    }
    Some(gpu)
}

#[test]
fn memory_that_runs_out_at_any_allocation_is_an_error_and_leaks_nothing() {
    let Some(gpu) = software(80) else { return };
    let soft = gpu.soft.as_ref().unwrap();
    let before = soft.live_allocations();
    let dir = models().join("head64");
    let attempt = || -> komt_core::Result<()> {
        let model = try_on_cuda::<bf16>(&dir)?;
        let mut engine = Engine::new(&model, EngineOptions::default().max_context(40))?;
        engine.submit(&[1, 2, 3], GenerateOptions::default().max_new_tokens(2).ignore_eos(true))?;
        while !engine.is_idle() {
            engine.step()?;
        }
        Ok(())
    };
    let mut failures = 0;
    for nth in 1.. {
        assert!(nth < 500, "no end of allocations");
        soft.fault(Fault::AllocationFails { nth });
        let result = attempt();
        soft.fault(Fault::None);
        assert_eq!(soft.live_allocations(), before, "after the failure of allocation {nth}");
        match result {
            Ok(()) => break,
            Err(Error::Device(KernelError::OutOfMemory { .. })) => failures += 1,
            Err(error) => panic!("allocation {nth}: {error}"),
        }
    }
    eprintln!("{failures} allocations, each failed once");
    assert!(failures > 20);
}

#[test]
fn a_launch_that_is_refused_in_mid_generation_is_tried_again() {
    let Some(gpu) = software(80) else { return };
    let soft = gpu.soft.as_ref().unwrap();
    let model = on_cuda::<bf16>(&models().join("head64"));
    let expected = generated(&model, 12);
    let how = GenerateOptions::default().max_new_tokens(12).ignore_eos(true).logprobs(4);
    for nth in [1, 2, 7, 20] {
        let options = EngineOptions::default().max_context(120).max_seqs(4).max_step_tokens(64);
        let mut engine = Engine::new(&model, options).unwrap();
        for n_prompt in [3, 20, 70] {
            let ids: Vec<u32> = (0..n_prompt).map(|i| (i * i * 31 + i * 7 + n_prompt) % 256).collect();
            engine.submit(&ids, how.clone()).unwrap();
        }
        let (mut tokens, mut errors) = (vec![], 0);
        for step in 0.. {
            if engine.is_idle() {
                break;
            }
            if step == 3 {
                soft.fault(Fault::LaunchFails { nth, sticky: false });
            }
            match engine.step() {
                Ok(events) => tokens.extend(events.into_iter().filter_map(|event| match event {
                    Event::Token { token, .. } => Some(token),
                    _ => None,
                })),
                Err(Error::Device(KernelError::Launch { op, .. })) => {
                    eprintln!("launch {nth} after step 3: {op}");
                    errors += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        soft.fault(Fault::None);
        assert_eq!((errors, tokens == expected), (1, true), "launch {nth} after step 3");
    }
}

#[test]
fn after_a_sticky_error_everything_fails_and_a_new_model_works() {
    let Some(gpu) = software(80) else { return };
    let soft = gpu.soft.as_ref().unwrap();
    let dir = models().join("head64");
    let model = on_cuda::<bf16>(&dir);
    let expected = generated(&model, 12);
    let mut engine = Engine::new(&model, EngineOptions::default().max_context(60)).unwrap();
    let how = GenerateOptions::default().max_new_tokens(12).ignore_eos(true);
    let submit = |engine: &mut Engine, ids: &[u32]| engine.submit(ids, how.clone()).unwrap();
    let seqs = [[1, 2, 3], [4, 5, 6], [7, 8, 9]].map(|ids| submit(&mut engine, &ids));
    let shared = SharedEngine::new(Engine::new(&model, EngineOptions::default().max_context(60)).unwrap());
    let mut sessions = [0, 1].map(|_| shared.session().with_options(how.clone()));
    for (i, session) in sessions.iter_mut().enumerate() {
        session.push_ids(&[1, 2, 3 + i as u32]).unwrap();
        session.next().unwrap().unwrap();
    }
    // Prefill, a step as it is, one that is recorded; then one that is replayed, in its midst.
    (0..3).for_each(|_| drop(engine.step().unwrap()));
    soft.fault(Fault::LaunchFails { nth: 5, sticky: true });
    let events = engine.step().unwrap();
    assert_eq!(events.iter().map(Event::seq).collect::<Vec<_>>(), seqs, "{events:?}");
    let lost = |error: &Error| {
        assert!(matches!(error, Error::Device(KernelError::DeviceLost { .. })), "{error}");
        assert!(error.to_string().contains("a step of 4 tokens, "), "the step is named: {error}");
    };
    for event in &events {
        let Event::Failed { error, .. } = event else { panic!("{event:?}") };
        lost(error);
    }
    assert!(engine.is_idle(), "nobody waits for a device that is lost");
    for session in &mut sessions {
        // What came before still comes.
        lost(&session.find_map(Result::err).unwrap());
        assert_eq!(session.finish_reason(), Some(FinishReason::Failed));
        assert!(session.next().is_none());
    }
    // Who comes later is told as well.
    let late = submit(&mut engine, &[1]);
    assert!(matches!(engine.step().unwrap()[..], [Event::Failed { seq, .. }] if seq == late));
    let error = Engine::new(&model, EngineOptions::default()).err().unwrap();
    eprintln!("a second engine: {error}");
    drop((engine, model, sessions, shared));
    assert_eq!(soft.live_bytes(), 0, "the context is gone, and all that was in it");
    soft.fault(Fault::None);
    let model = on_cuda::<bf16>(&dir);
    assert_eq!(generated(&model, 12), expected, "on a fresh context");
    // A prompt's step has a name, too.
    let mut engine = Engine::new(&model, EngineOptions::default().max_context(60)).unwrap();
    submit(&mut engine, &[1, 2, 3]);
    soft.fault(Fault::LaunchFails { nth: 1, sticky: true });
    match &engine.step().unwrap()[..] {
        [Event::Failed { error, .. }] => {
            assert!(error.to_string().contains("a step of 3 tokens, 1 sequences, 1 logits"), "{error}");
        }
        events => panic!("{events:?}"),
    }
    soft.fault(Fault::None);
    drop((engine, model));
    // A dead context takes its memory along; nobody could free it.
    gpu.loses_a_context();
}

#[test]
fn auto_takes_the_gpu_where_it_can_and_says_why_where_it_does_not() {
    const TEST: &str = "auto_takes_the_gpu_where_it_can_and_says_why_where_it_does_not";
    // What applications call finds NVRTC by the environment: in a process of its own.
    if let Some(nvrtc) = cuda_support::fetched_nvrtc().filter(|_| std::env::var_os("KOMT_NVRTC").is_none()) {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let status = child.args(["--exact", TEST, "--nocapture"]).env("KOMT_NVRTC", nvrtc).status().unwrap();
        return assert!(status.success(), "{status}");
    }
    let Some(gpu) = software(80) else { return };
    let soft = gpu.soft.as_ref().unwrap();
    let (dir, on_cuda) = (models().join("head64"), || LoadOptions::default().device(Device::Cuda(0)));
    for options in [LoadOptions::default(), on_cuda()] {
        let model = Model::load(&dir, options).unwrap();
        assert!(model.device_name().contains("software"), "{}", model.device_name());
        assert_eq!(model.why_cpu(), None);
    }
    let why = |dir: &Path| {
        let model = Model::load(dir, LoadOptions::default()).unwrap();
        assert!(model.device_name().starts_with("CPU"), "{}", model.device_name());
        let error = Model::load(dir, on_cuda()).unwrap_err().to_string();
        (model.why_cpu().unwrap().to_owned(), error)
    };
    let (shape, asked) = why(&models().join("tiny_base"));
    assert!(shape.contains("head_dim") || shape.contains("dim"), "no kernels for its shape: {shape}");
    assert_eq!(shape, asked, "asking for CUDA fails with the same words");
    soft.fault(Fault::NoDevice);
    let (none, asked) = why(&dir);
    assert!(none == asked && none.starts_with("CUDA: "), "{none}");
    soft.fault(Fault::None);
    assert_eq!(
        (soft.take_complaints(), soft.live_allocations()),
        (vec![], 0),
        "before a new device forgets them"
    );
    soft.reset(&DeviceSpec { memory_bytes: 36 << 20, ..DeviceSpec::sm(80) });
    let (small, asked) = why(&demo());
    assert!(
        small.starts_with("weights, KV cache and scratch: ") && asked.starts_with("weights: "),
        "{small}"
    );
    eprintln!("{shape}\n{none}\n{small}");
}
