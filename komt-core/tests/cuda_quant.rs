//! q8 and q4 on the CUDA backend end to end: against the CPU with the same weights, and in less memory.
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
use komt_core::kernels::{Backend, Cuda, Error as KernelError};
use komt_core::{
    Engine, EngineOptions, Error, GenerateOptions, LoadOptions, MemoryPlan, Model, Progress, Weights,
};
use komt_softgpu::{DeviceSpec, Fault};
use logits::equals_the_cpu;
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::*;

/// The demo model: of models with random weights, half of the leads are too small to tell.
#[test]
fn logits_and_embeddings_equal_the_cpus() {
    for sm in [80, 90, 120] {
        let Some(_gpu) = Gpu::open(sm) else { return };
        for weights in [Weights::Q8, Weights::Q4] {
            equals_the_cpu::<bf16>(&demo(), weights, 40, 24);
        }
    }
}

#[test]
fn in_f16_too_which_is_all_that_turing_has() {
    let Some(_gpu) = Gpu::open(75) else { return };
    for weights in [Weights::Q8, Weights::Q4] {
        equals_the_cpu::<f16>(&demo(), weights, 40, 24);
    }
}

/// What a model would take, told before anything is loaded; nothing is.
fn planned<A: komt_core::kernels::cuda::CudaAct>(cuda: &Cuda<A>, dir: &Path, weights: Weights) -> MemoryPlan {
    let found = Arc::new(Mutex::new(None));
    let told = found.clone();
    let options =
        LoadOptions::default().weights(weights).memory_limit_bytes(1).on_progress(move |progress| {
            if let Progress::Plan(plan) = progress {
                *told.lock().unwrap() = Some(plan);
            }
        });
    let error = Model::load_on(cuda.clone(), dir, options).unwrap_err();
    assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
    let plan = found.lock().unwrap().take();
    plan.unwrap()
}

/// A directory of a 7B model whose weights are a hole in a file.
fn mistral_7b(dir: &Path) {
    let config = r#"{"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 32000, "max_position_embeddings": 32768, "sliding_window": 4096, "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "bos_token_id": 1, "eos_token_id": 2}"#;
    std::fs::write(dir.join("config.json"), config).unwrap();
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![32000, 4096]),
        ("lm_head.weight".to_owned(), vec![32000, 4096]),
        ("model.norm.weight".to_owned(), vec![4096]),
    ];
    for layer in 0..32 {
        for (name, shape) in [
            ("self_attn.q_proj", vec![4096, 4096]),
            ("self_attn.k_proj", vec![1024, 4096]),
            ("self_attn.v_proj", vec![1024, 4096]),
            ("self_attn.o_proj", vec![4096, 4096]),
            ("mlp.gate_proj", vec![14336, 4096]),
            ("mlp.up_proj", vec![14336, 4096]),
            ("mlp.down_proj", vec![4096, 14336]),
            ("input_layernorm", vec![4096]),
            ("post_attention_layernorm", vec![4096]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let (mut header, mut at) = (String::from("{"), 0u64);
    for (i, (name, shape)) in tensors.iter().enumerate() {
        let end = at + 2 * shape.iter().product::<u64>();
        let comma = if i == 0 { "" } else { "," };
        write!(header, r#"{comma}"{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{at},{end}]}}"#)
            .unwrap();
        at = end;
    }
    header.push('}');
    let path = dir.join("model.safetensors");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8 + header.len() as u64 + at).unwrap();
}

#[test]
fn a_7b_model_in_q4_with_4096_tokens_fits_8_gb() {
    let dir = tempfile::tempdir().unwrap();
    mistral_7b(dir.path());
    // 8 GB, not GiB, of which a driver, a context and a screen take their parts, too.
    let Some(gpu) = Gpu::with(DeviceSpec { memory_bytes: 8_000_000_000, ..DeviceSpec::sm(89) }) else {
        return;
    };
    let cuda = gpu.cuda::<bf16>();
    let [bf16, q8, q4] =
        [Weights::Stored, Weights::Q8, Weights::Q4].map(|weights| planned(&cuda, dir.path(), weights));
    eprintln!("bf16: {bf16}\nq8: {q8}\nq4: {q4}");
    let with_kv =
        |plan: &MemoryPlan| plan.weights_bytes + plan.scratch_bytes + 4096 * plan.kv_bytes_per_token;
    let available = cuda.available_bytes().unwrap();
    assert!(with_kv(&q4) + 2_000_000_000 < available, "{q4}: {available} bytes");
    assert!(with_kv(&bf16) > available && with_kv(&q8) < with_kv(&bf16) * 6 / 10);
    // 4.5 bits, 8.25 in the embedding and the output matrix, 32 a row; vectors in f32.
    let (layers, vocabulary) = (32u64 * (4096 * (6144 + 4096) + 3 * 4096 * 14336), 2u64 * 32000 * 4096);
    let exact = layers * 9 / 16 + vocabulary * 33 / 32;
    assert!(q4.weights_bytes >= exact && q4.weights_bytes < exact + exact / 500, "{q4}: {exact}");
}

/// Memory for q4 but not for 16 bits.
#[test]
fn auto_takes_the_gpu_where_the_quantised_model_fits() {
    const TEST: &str = "auto_takes_the_gpu_where_the_quantised_model_fits";
    // What applications call finds NVRTC by the environment: in a process of its own.
    if let Some(nvrtc) = cuda_support::fetched_nvrtc().filter(|_| std::env::var_os("KOMT_NVRTC").is_none()) {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let status = child.args(["--exact", TEST, "--nocapture"]).env("KOMT_NVRTC", nvrtc).status().unwrap();
        return assert!(status.success(), "{status}");
    }
    if cuda_support::is_real() {
        return eprintln!("*** SKIPPED: a card has the memory that it has ***");
    }
    let Some(gpu) = Gpu::open(80) else { return };
    let cuda = gpu.cuda::<bf16>();
    let plans = [Weights::Stored, Weights::Q4].map(|weights| planned(&cuda, &demo(), weights).total_bytes());
    let used = DeviceSpec::sm(80).memory_bytes - cuda.available_bytes().unwrap();
    drop(cuda);
    assert!(plans[1] < plans[0] * 9 / 10, "{plans:?}");
    let memory_bytes = used + (plans[0] + plans[1]) / 2;
    gpu.soft.as_ref().unwrap().reset(&DeviceSpec { memory_bytes, ..DeviceSpec::sm(80) });
    let load = |weights| Model::load(demo(), LoadOptions::default().weights(weights)).unwrap();
    assert!(load(Weights::Stored).device_name().starts_with("CPU"));
    let q4 = load(Weights::Q4);
    assert!(q4.device_name().contains("software"), "{}: {:?}", q4.device_name(), q4.why_cpu());
}

#[test]
fn memory_that_runs_out_while_loading_is_an_error_and_leaks_nothing() {
    if cuda_support::is_real() {
        return eprintln!("*** SKIPPED: faults are of the software GPU, this is a card ***");
    }
    let Some(gpu) = Gpu::open(80) else { return };
    let soft = gpu.soft.as_ref().unwrap();
    let before = soft.live_allocations();
    let attempt = |weights| -> komt_core::Result<()> {
        let cuda = Cuda::<bf16>::with(cuda_support::options())?;
        let model = Model::load_on(cuda, models().join("head64"), LoadOptions::default().weights(weights))?;
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
        let result = attempt(if nth % 2 == 0 { Weights::Q8 } else { Weights::Q4 });
        soft.fault(Fault::None);
        assert_eq!(soft.live_allocations(), before, "after the failure of allocation {nth}");
        match result {
            Ok(()) => break,
            Err(Error::Device(KernelError::OutOfMemory { .. })) => failures += 1,
            Err(error) => panic!("allocation {nth}: {error}"),
        }
    }
    assert!(failures > 20, "{failures}");
}
