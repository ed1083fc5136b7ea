//! How much memory quantising takes beside what it makes: that of one matrix. The programs tell their peaks.
#![cfg(target_os = "linux")] // where they can
#![allow(clippy::unwrap_used)]

mod support;

use komt_benches::synth::Shape;
use komt_core::kernels::WeightFormat;
use support::*;

/// What a program takes whatever the model, with threads' rows, what the allocator keeps and pages that are rounded up.
const PROGRAM_MIB: u64 = 64;

/// The MiB behind `label`, of `peak resident memory: 205 MiB; the plan was 222 MiB`.
fn mib(err: &str, label: &str) -> u64 {
    let (_, rest) = err.split_once(label).unwrap_or_else(|| panic!("{label}: {err}"));
    rest.split_once(" MiB").unwrap().0.parse().unwrap()
}

/// One layer of the shape `1b`, 334 MiB of bf16. No matrix is larger than the embedding: 125 MiB as it is read, 64.6 in q8, which
/// it becomes under q4. In MiB:
///
/// ```text
/// quantize                      a matrix as read and quantised, the program     125 + 64.6 + 64 = 254
/// generate                      the plan, a matrix as read, the program         221 + 125 + 64 = 410
/// generate, quantised before    the plan, the program                           221 + 64 = 285
/// ```
/// The plan has 153 for the weights, 68 for cache and scratch. If the pages of the source stayed, `quantize` would have 334 + 64.6
/// and `generate` 334 + 153 before the program: pages of a mapped file count from when they are read until they are given back.
#[test]
fn quantising_has_one_matrix_at_a_time() {
    // On the disk of the build: temporary files may lie in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let paths = ["source", "q4"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let [source, out] = paths.each_ref().map(String::as_str);
    good("synth", &["--shape", "1b", "--layers", "1", source]);

    let dims = Shape::OneB.dims().layers(1);
    let bytes = |rows, format: WeightFormat| format.bytes(rows, dims.dim) as u64;
    let as_read = bytes(dims.vocab_size, WeightFormat::Bf16);
    assert!(as_read > bytes(2 * dims.hidden_dim, WeightFormat::Bf16), "the largest");
    let quantised = bytes(dims.vocab_size, WeightFormat::Q8);
    let in_mib = |bytes: u64| bytes.div_ceil(1 << 20);

    let cpu = ["--threads", "2"];
    let (_, err) = good("quantize", &[&["--model", source, "--weights", "q4", out], &cpu[..]].concat());
    let (peak, most) = (mib(&err, "peak resident memory: "), in_mib(as_read + quantised) + PROGRAM_MIB);
    let file_bytes = std::fs::metadata(dir.path().join("source/model.safetensors")).unwrap().len();
    eprintln!("quantize: {peak} MiB, {most} allowed, the source has {}", in_mib(file_bytes));
    assert!(peak <= most, "{peak} MiB, {most} allowed");
    assert!(most < in_mib(file_bytes), "or it shows nothing");

    let ids = ["--ids", "1 2 3", "--max-new-tokens", "2"];
    for (model, weights, beside) in [(source, "q4", in_mib(as_read)), (out, "stored", 0)] {
        let args = [&["--model", model, "--weights", weights], &cpu[..], &ids[..]].concat();
        let (_, err) = good("generate", &args);
        let (peak, most) =
            (mib(&err, "peak resident memory: "), mib(&err, "the plan was ") + beside + PROGRAM_MIB);
        eprintln!("generate --weights {weights}: {peak} MiB, {most} allowed");
        assert!(peak <= most, "--weights {weights}: {peak} MiB, {most} allowed");
    }
}
