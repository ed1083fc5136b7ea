//! `matmul` on CUDA with its epilogues: every kernel and edge beside the scalar CPU, real shapes, and what they ask of memory.
#![allow(clippy::unwrap_used)]

mod cuda_support;

use cuda_support::{Gpu, Twin, TwoRows, compare, normal};
use half::{bf16, f16};
use komt_kernels::Backend;
use komt_kernels::cuda::CudaAct;
use komt_softgpu::exec::RunOptions;
use komt_softgpu::{DeviceSpec, Options};

/// For f32 results of `k` products. The reference adds in order, which costs k / 6 * 2^-48 (see backend_ops.rs). A tensor core
/// adds 16 products and the sum so far at once and cuts the result off (softgpu: rounds it): k / 16 errors of up to 2^-23 that
/// may have the same sign, (k / 16 * 2^-24)^2 on average. Single results may be a quarter of their expected size: 16 times.
fn f32_bound(k: usize) -> f64 {
    let k = k as f64;
    16.0 * (k + (k / 16.0).powi(2)) * 2f64.powi(-48)
}

/// For results that are rounded to `A` once. With an ulp of 2^-p of a power of two (p 7 in bf16, 10 in f16) an error is at most
/// half an ulp, a square of ulp^2 / 12 on average; it weighs most where the result is the power of two itself (of normal data:
/// 2.8e-6, 4.3e-8). Some hundred results keep to the average.
fn act_bound<A: CudaAct>(n_results: usize) -> f64 {
    let ulp = 2f64.powi(if A::IS_F16 { -10 } else { -7 });
    ulp * ulp / if n_results < 200 { 4.0 } else { 12.0 }
}

/// Weights for results of size 1.
fn weights(seed: u64, n: usize, k: usize) -> Vec<f32> {
    normal(seed, n * k).iter().map(|v| v / (k as f32).sqrt()).collect()
}

/// Every epilogue of `rows x n x k`.
fn products<A: CudaAct>(t: &mut Twin<A>, rows: usize, n: usize, k: usize) {
    let what = |op: &str| format!("{op} {rows} rows, [{n}, {k}]");
    let (x, w) = (t.acts(rows, k, &normal(1, rows * k)), t.weight(n, k, &weights(2, n, k)));

    let mut out = t.acts(rows, n, &vec![9.0; rows * n]);
    t.cpu.matmul(&mut out.cpu, &x.cpu, &w.cpu).unwrap();
    t.cuda.matmul(&mut out.cuda, &x.cuda, &w.cuda).unwrap();
    t.check(&what("matmul"), &out, act_bound::<A>(rows * n));

    let mut sum = t.residual(rows, n, &normal(3, rows * n));
    t.cpu.matmul_add(&mut sum.cpu, &x.cpu, &w.cpu).unwrap();
    t.cuda.matmul_add(&mut sum.cuda, &x.cuda, &w.cuda).unwrap();
    t.check(&what("matmul_add"), &sum, f32_bound(k));

    let mut logits = t.residual(rows, n, &vec![9.0; rows * n]);
    t.cpu.matmul_f32(&mut logits.cpu, &x.cpu, &w.cpu).unwrap();
    t.cuda.matmul_f32(&mut logits.cuda, &x.cuda, &w.cuda).unwrap();
    t.check(&what("matmul_f32"), &logits, f32_bound(k));

    if n.is_multiple_of(16) {
        let mut scratch: TwoRows<A> = t.acts(rows, n, &vec![9.0; rows * n]);
        let mut ffn = t.acts(rows, n / 2, &vec![9.0; rows * n / 2]);
        t.cpu.matmul_swiglu(&mut ffn.cpu, &mut scratch.cpu, &x.cpu, &w.cpu).unwrap();
        t.cuda.matmul_swiglu(&mut ffn.cuda, &mut scratch.cuda, &x.cuda, &w.cuda).unwrap();
        t.check(&what("matmul_swiglu"), &ffn, act_bound::<A>(rows * n / 2));
    }
}

#[test]
fn by_eye() {
    fn run<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        let padded = |rows: &[[f32; 2]]| -> Vec<f32> {
            rows.iter().flat_map(|row| row.iter().copied().chain([0.0; 30])).collect()
        };
        let w = t.weight(3, 32, &padded(&[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])).cuda;
        for n in [2, 10, 70] {
            let mut pairs = vec![[0.0; 2]; n];
            (pairs[0], pairs[n - 1]) = ([3.0, 4.0], [5.0, 6.0]);
            let x = t.acts(n, 32, &padded(&pairs)).cuda;
            let mut out = t.residual(n, 3, &vec![0.0; 3 * n]).cuda;
            t.cuda.matmul_f32(&mut out, &x, &w).unwrap();
            t.cuda.matmul_add(&mut out, &x, &w).unwrap();
            let out = t.download(&out);
            assert_eq!(out[..3], [6.0, 8.0, 14.0], "sm_{sm}, {n} rows");
            assert_eq!(out[3 * n - 3..], [10.0, 12.0, 22.0], "sm_{sm}, {n} rows");
        }
    }
    run::<f16>(75);
    run::<bf16>(80);
    run::<f16>(90);
    run::<bf16>(120);
}

/// Around the tiles: rows 1, 2, 4, 8 | 16, 32, 64 | 128; columns 4, 64, 128; of k 32 (gemm), 64 (skinny), 512 (gemv), with
/// pipelines of 3 and 4 tiles.
const ROWS: [usize; 20] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129];
const NS: [usize; 17] = [1, 3, 4, 5, 7, 15, 16, 17, 48, 63, 64, 65, 127, 128, 129, 144, 272];
const KS: [usize; 10] = [32, 64, 96, 160, 256, 288, 512, 544, 576, 1056];

/// Every `nth` of rows and columns in all pairs, each with another k.
fn edges<A: CudaAct>(spec: DeviceSpec, nth: usize) {
    let Some(gpu) = Gpu::with(spec) else { return };
    let mut t = gpu.twin::<A>();
    for (i, (rows, n)) in ROWS.iter().flat_map(|&rows| NS.map(|n| (rows, n))).enumerate() {
        if i % nth == 0 {
            products(&mut t, rows, n, KS[(i + i / 10) % KS.len()]);
        }
    }
}

/// One multiprocessor is full at once: no tile's columns are split, the epilogues are those of the tiles.
fn one_multiprocessor(sm: u32) -> DeviceSpec {
    DeviceSpec { sm_count: 1, ..DeviceSpec::sm(sm) }
}

#[test]
fn edges_of_ampere() {
    edges::<bf16>(DeviceSpec::sm(80), 1);
}

#[test]
fn edges_of_ampere_without_splits() {
    edges::<bf16>(one_multiprocessor(80), 1);
}

#[test]
fn edges_of_turing() {
    edges::<f16>(DeviceSpec::sm(75), 3);
    edges::<f16>(one_multiprocessor(75), 3);
}

#[test]
fn edges_in_f16() {
    edges::<f16>(DeviceSpec::sm(80), 7);
    edges::<f16>(one_multiprocessor(86), 7);
}

#[test]
fn edges_of_hopper_and_blackwell() {
    edges::<bf16>(DeviceSpec::sm(90), 7);
    edges::<bf16>(one_multiprocessor(100), 7);
    edges::<bf16>(DeviceSpec::sm(120), 7);
}

/// The demo model's shapes, and SmolLM2's.
#[test]
fn small_models() {
    let Some(gpu) = Gpu::open(89) else { return };
    let mut t = gpu.twin::<bf16>();
    for (n, k) in [(512, 256), (768, 256), (256, 384), (3072, 256), (960, 576), (3072, 576), (576, 1536)] {
        for rows in [1, 6, 20, 100] {
            products(&mut t, rows, n, k);
        }
    }
}

/// Rows of a step of up to 8 have the bits that they have alone, and every launch gives the same bits again.
#[test]
fn the_same_bits_whoever_shares_the_step() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let (n, k) = (70, 1056);
    let (x, w) = (normal(1, 200 * k), t.weight(n, k, &weights(2, n, k)).cuda);
    let mut run = |rows: usize, first: usize| {
        let x = t.acts(rows, k, &x[first * k..][..rows * k]).cuda;
        let mut out = t.residual(rows, n, &vec![0.0; rows * n]).cuda;
        t.cuda.matmul_f32(&mut out, &x, &w).unwrap();
        t.download(&out)
    };
    let alone: Vec<f32> = (0..8).flat_map(|row| run(1, row)).collect();
    for rows in 2..=8 {
        assert_eq!(run(rows, 0), alone[..rows * n], "{rows} rows");
    }
    for rows in [8, 30, 200] {
        let first = run(rows, 0);
        for seed in 1..4 {
            if let Some(soft) = &gpu.soft {
                // Warps in another order.
                soft.options(&Options {
                    run: RunOptions { seed, ..RunOptions::default() },
                    ..Options::default()
                });
            }
            assert_eq!(run(rows, 0), first, "{rows} rows");
        }
    }
}

/// `n` values, of which the first 65,537 are drawn, and repeated: large matrices are made in no time.
fn repeated(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let drawn = normal(seed, n.min(65_537));
    drawn.iter().cycle().take(n).map(|v| v * scale).collect()
}

/// What a launch at a shape of Mistral-7B asks of memory: results against sums in f64 at some places, then the counters. The
/// aims: each byte of the weights is asked for once (1.02 times at most, for tails), in loads of 16 bytes, whole sectors, no
/// bank conflicts.
fn real_shape<A: CudaAct>(t: &mut Twin<A>, gpu: &Gpu, rows: usize, n: usize, k: usize) {
    let (xs, ws) = (repeated(1, rows * k, 1.0), repeated(2, n * k, 1.0 / (k as f32).sqrt()));
    let (x, w) = (t.acts(rows, k, &xs).cuda, t.weight(n, k, &ws).cuda);
    let mut out = t.residual(rows, n, &vec![0.0; rows * n]).cuda;
    t.download(&out);
    if let Some(soft) = &gpu.soft {
        soft.options(&Options { record_launches: true, ..Options::default() });
        soft.take_launches();
    }
    t.cuda.matmul_f32(&mut out, &x, &w).unwrap();

    let found = t.download(&out);
    let places: Vec<(usize, usize)> = (0..400).map(|i| (i * 7 % rows, i * 7919 % n)).collect();
    let rounded = |v: f32| f64::from(<A as CudaAct>::from_f32(v).to_f32());
    let dot = |&(r, c): &(usize, usize)| -> f32 {
        (0..k).map(|i| rounded(xs[r * k + i]) * rounded(ws[c * k + i])).sum::<f64>() as f32
    };
    let expected: Vec<f32> = places.iter().map(dot).collect();
    let found: Vec<f32> = places.iter().map(|&(r, c)| found[r * n + c]).collect();
    let what = format!("matmul_f32 {rows} rows, [{n}, {k}]");
    compare(&what, &expected, &found, 1, f32_bound(k));

    let Some(soft) = &gpu.soft else { return };
    let launches = soft.take_launches();
    let record = &launches[0];
    let (counters, weight_bytes) = (&record.counters, (n * k * 2) as u64);
    // The workspace may be as large, but nothing loads from it before the second launch.
    let same_size = counters.allocations.values().filter(|used| used.bytes == weight_bytes);
    let used = same_size.max_by_key(|used| used.loaded_requested).unwrap();
    let requested = used.loaded_requested as f64 / weight_bytes as f64;
    let (sectors, requests) = (counters.global_sectors as f64, counters.global_requests as f64);
    eprintln!(
        "{what}: {} of {:?} blocks, {} launches; weight bytes requested / size {requested:.4}, {:.2} thread instructions a \
         weight, {:.2} sectors a request, {} bank conflicts of {} wavefronts",
        record.kernel,
        record.grid,
        launches.len(),
        counters.thread_instructions() as f64 / (n * k) as f64,
        sectors / requests,
        counters.bank_conflicts(),
        counters.shared_wavefronts,
    );
    assert!(requested <= 1.02 && used.loaded_distinct == weight_bytes, "{what}: {requested}");
    assert_eq!(counters.bank_conflicts(), 0, "{what}");
    for class in counters.classes.keys().filter(|class| class.starts_with("ld.global")) {
        assert_eq!(class, "ld.global.16", "{what}: other loads than of 16 bytes");
    }
}

/// The ways out of shared memory of every tile, with and without partial sums, have no bank conflicts either.
#[test]
fn epilogues_without_bank_conflicts() {
    for spec in [DeviceSpec::sm(80), one_multiprocessor(80)] {
        let Some(gpu) = Gpu::with(spec) else { return };
        let Some(soft) = &gpu.soft else { return };
        soft.options(&Options { record_launches: true, ..Options::default() });
        let mut t = gpu.twin::<bf16>();
        for rows in [1, 8, 16, 32, 64, 128] {
            products(&mut t, rows, 256, 512);
        }
        for record in soft.take_launches() {
            let conflicts = record.counters.bank_conflicts();
            assert_eq!(conflicts, 0, "{} of {:?} blocks", record.kernel, record.grid);
        }
    }
}

#[test]
fn real_shapes_in_one_row() {
    let Some(gpu) = Gpu::open(90) else { return };
    let mut t = gpu.twin::<bf16>();
    for (n, k) in [(6144, 4096), (4096, 14336), (32000, 4096)] {
        real_shape(&mut t, &gpu, 1, n, k);
    }
}

#[test]
fn real_shapes_in_few_rows() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    for rows in [2, 4, 8, 16, 32, 64] {
        real_shape(&mut t, &gpu, rows, 4096, 4096);
    }
}

#[test]
fn real_shapes_in_many_rows() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    real_shape(&mut t, &gpu, 128, 4096, 4096);
    drop((t, gpu));
    let Some(gpu) = Gpu::open(75) else { return };
    let mut t = gpu.twin::<f16>();
    real_shape(&mut t, &gpu, 128, 1024, 4096);
    real_shape(&mut t, &gpu, 1, 4096, 4096);
}
