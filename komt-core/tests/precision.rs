//! `Precision::Fast`, the default, beside exact products; and threads, of which no result depends on the number: whole models, in
//! steps of one row, of a few and of many.
#![allow(clippy::unwrap_used)]

mod support;

use komt_core::{
    Cpu, CpuOptions, Device, EmbedOptions, Embedder, Isa, KvFormat, LoadOptions, Model, Pooling, Precision,
    Weights,
};
use std::path::Path;
use support::*;

/// Rows of a step: decoding, a batch, tiles of several rows with a remainder, panels.
const STEPS: [usize; 4] = [1, 3, 40, 512];

fn load(dir: &Path, weights: Weights, precision: Precision, threads: usize) -> Model {
    let cpu = CpuOptions::default().threads(threads).precision(precision);
    Model::load(dir, LoadOptions::default().device(Device::Cpu(cpu)).weights(weights)).unwrap()
}

/// The hidden states of a text, read in steps of `n_rows`, with the cache in f32: products alone are rounded.
fn hidden(model: &Model, n_rows: usize) -> Vec<f32> {
    let vocab_size = model.config().vocab_size as u32;
    let ids: Vec<u32> = (0..150).map(|i| 3 + (i * i * 31 + i * 7) % (vocab_size - 3)).collect();
    let options = EmbedOptions::default().pooling(Pooling::None).normalize(false).kv_format(KvFormat::F32);
    let options = options.max_step_tokens(n_rows).max_context(ids.len());
    Embedder::new(model, options).unwrap().embed_ids(&[ids], &[0]).unwrap().remove(0)
}

/// A product's input in 8 bits, a scale for 32 numbers, costs 2.4e-5 of what it makes: what q8 costs where it is the weights that
/// are rounded (`komt-kernels/tests/quant.rs`). So what becomes of that on its way through the layers, which differs from model to
/// model, is found with exact products, on weights in q8 and without; rounding to bf16 costs 2.8e-6, in proportion. Four times that
/// for the one row in 150 that is hit worst.
#[test]
fn the_default_is_as_far_off_as_its_roundings() {
    for dir in [demo(), models().join("head96"), models().join("tiny_nowindow")] {
        let exactly = |weights| hidden(&load(&dir, weights, Precision::Exact, 2), 512);
        let dim = load(&dir, Weights::Bf16, Precision::Exact, 1).config().dim;
        let of_8_bits = worst_row_nmse(&exactly(Weights::Q8), &exactly(Weights::Bf16), dim);
        for weights in [Weights::Bf16, Weights::Q8, Weights::Q4] {
            let fast = load(&dir, weights, Precision::Fast, 2);
            let exact = load(&dir, weights, Precision::Exact, 2);
            let want = hidden(&exact, 512);
            let rounding = if weights == Weights::Bf16 { 2.8e-6 / 2.4e-5 } else { 1.0 };
            let bound = 4.0 * of_8_bits * rounding;
            for n_rows in STEPS {
                assert!(hidden(&exact, n_rows) == want, "exact products depend on no rows");
                let nmse = worst_row_nmse(&hidden(&fast, n_rows), &want, dim);
                let name = format!("{}, {}, steps of {n_rows}", dir.display(), weights.name());
                eprintln!("{name}: {nmse:.2e}, {bound:.2e} allowed");
                assert!(nmse < bound, "{name}: {nmse:.2e}");
                // What is rounded on this CPU at all: a path that is not taken shows nothing.
                let in_8_bits = weights != Weights::Bf16 && Isa::detect() >= Isa::Avx2;
                assert!(!in_8_bits || nmse > 1e-6, "{name}: {nmse:.2e}, no rounding to 8 bits");
                let in_bf16 = weights == Weights::Bf16 && has_bf16();
                assert!(!in_bf16 || nmse > 1e-7, "{name}: {nmse:.2e}, no rounding to bf16");
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_bf16() -> bool {
    Isa::detect() >= Isa::Avx512Vnni && std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_bf16() -> bool {
    false
}

#[test]
fn no_bit_depends_on_the_number_of_threads() {
    for dir in [demo(), models().join("head64_f16"), models().join("head96"), models().join("tiny_base")] {
        for weights in [Weights::Stored, Weights::Q8, Weights::Q4] {
            for precision in [Precision::Fast, Precision::Exact] {
                let alone = load(&dir, weights, precision, 1);
                let want = STEPS.map(|n_rows| hidden(&alone, n_rows));
                for threads in [2, 3, 7] {
                    let model = load(&dir, weights, precision, threads);
                    for (n_rows, want) in STEPS.into_iter().zip(&want) {
                        let name = format!("{}, {}, {precision:?}", dir.display(), weights.name());
                        assert!(hidden(&model, n_rows) == *want, "{name}, {threads} threads, {n_rows} rows");
                    }
                }
            }
        }
    }
}

/// What runs here is the best that there is, unless the variable says less.
#[test]
fn the_instruction_set_that_is_required_is_there() {
    let best = Cpu::with(CpuOptions::default()).unwrap().isa();
    eprintln!("*** the best instruction set here: {best:?}; those above it are not tested ***");
    if let Ok(name) = std::env::var("KOMT_REQUIRE_ISA") {
        let required =
            Isa::from_name(&name).unwrap_or_else(|| panic!("KOMT_REQUIRE_ISA={name}: no such one"));
        let capped = std::env::var_os("KOMT_ISA").is_some();
        assert!(capped || best >= required, "KOMT_REQUIRE_ISA={name}, and only {best:?} is there");
    }
}
