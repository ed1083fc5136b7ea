//! Products and embeddings of q8 and q4 on CUDA: every kernel and edge beside the scalar CPU on the same bytes, and what they ask
//! of memory.
#![allow(clippy::unwrap_used)]

mod cuda_support;

use cuda_support::{Gpu, Twin, TwoRows, compare, normal, quant_bytes};
use half::{bf16, f16};
use komt_cache::{Logits, PagePool, StepPlan};
use komt_kernels::cuda::CudaAct;
use komt_kernels::quant::QuantLayout;
use komt_kernels::{Backend, StepCapacity, WeightFormat};
use komt_softgpu::exec::RunOptions;
use komt_softgpu::{DeviceSpec, Options};

const FORMATS: [WeightFormat; 2] = [WeightFormat::Q8, WeightFormat::Q4];

/// One rounding to `A`, of the square of a result at most, on average over many (see cuda_matmul.rs).
fn rounding<A: CudaAct>(n_results: usize) -> f64 {
    let ulp = 2f64.powi(if A::IS_F16 { -10 } else { -7 });
    ulp * ulp / if n_results < 200 { 4.0 } else { 12.0 }
}

/// For f32 results. In up to 8 rows quants are exact in `A` and all else is f32: as 16-bit weights in cuda_matmul.rs, and each
/// group's sum is scaled, k / 16 roundings of 2^-24 more. In more rows (quant * scale) is rounded to `A`, but for q4 in f16, where
/// 8 * 127 is exact. These errors are independent: their share of the result is that of one weight's, ulp^2 / 12 on average
/// where all weights were just above powers of two; single results may be a quarter of their expected size, as there: 16 times
/// where there are few results.
fn sum_bound<A: CudaAct>(format: WeightFormat, rows: usize, n_results: usize, k: usize) -> f64 {
    let sums = {
        let k = k as f64;
        16.0 * (k + 2.0 * (k / 16.0).powi(2)) * 2f64.powi(-48)
    };
    if rows <= 8 || (format == WeightFormat::Q4 && A::IS_F16) {
        return sums;
    }
    sums + rounding::<A>(200) * if n_results < 200 { 4.0 } else { 1.0 }
}

/// Every epilogue of `rows x n x k`.
fn products<A: CudaAct>(t: &mut Twin<A>, format: WeightFormat, rows: usize, n: usize, k: usize) {
    let what = |op: &str| format!("{op} {format:?} {rows} rows, [{n}, {k}]");
    let (x, w) = (t.acts(rows, k, &normal(1, rows * k)), t.quantised(format, n, k, 2));
    let bound = |n_results| sum_bound::<A>(format, rows, n_results, k);
    let act_bound = |n_results| bound(n_results) + rounding::<A>(n_results);

    let mut out = t.acts(rows, n, &vec![9.0; rows * n]);
    t.cpu.matmul(&mut out.cpu, &x.cpu, &w.cpu).unwrap();
    t.cuda.matmul(&mut out.cuda, &x.cuda, &w.cuda).unwrap();
    t.check(&what("matmul"), &out, act_bound(rows * n));

    let mut sum = t.residual(rows, n, &normal(3, rows * n));
    t.cpu.matmul_add(&mut sum.cpu, &x.cpu, &w.cpu).unwrap();
    t.cuda.matmul_add(&mut sum.cuda, &x.cuda, &w.cuda).unwrap();
    t.check(&what("matmul_add"), &sum, bound(rows * n));

    let mut logits = t.residual(rows, n, &vec![9.0; rows * n]);
    t.cpu.matmul_f32(&mut logits.cpu, &x.cpu, &w.cpu).unwrap();
    t.cuda.matmul_f32(&mut logits.cuda, &x.cuda, &w.cuda).unwrap();
    t.check(&what("matmul_f32"), &logits, bound(rows * n));

    if n.is_multiple_of(16) {
        let mut scratch: TwoRows<A> = t.acts(rows, n, &vec![9.0; rows * n]);
        let mut ffn = t.acts(rows, n / 2, &vec![9.0; rows * n / 2]);
        t.cpu.matmul_swiglu(&mut ffn.cpu, &mut scratch.cpu, &x.cpu, &w.cpu).unwrap();
        t.cuda.matmul_swiglu(&mut ffn.cuda, &mut scratch.cuda, &x.cuda, &w.cuda).unwrap();
        // silu(g) u has the relative errors of both factors, of silu up to 1.1 times g's.
        t.check(&what("matmul_swiglu"), &ffn, 3.0 * bound(rows * n / 2) + rounding::<A>(rows * n / 2));
    }
}

/// One weight that is not zero: `w[r, c] = row_scale * scale * (stored - offset)`, at places of every word, pair and group.
#[test]
fn by_eye() {
    fn run<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        let (rows, cols) = (17, 160);
        for (format, r, c) in
            FORMATS.into_iter().flat_map(|f| [(f, 0, 0), (f, 3, 21), (f, 16, 140), (f, 9, 159)])
        {
            let layout = QuantLayout::new(format, rows, cols);
            let mut bytes = vec![0; layout.size_bytes()];
            let zero = if format == WeightFormat::Q8 { 0x80 } else { 0x88 };
            bytes[..layout.quants_bytes()].fill(zero);
            // The format's own worked example, by its definition.
            let chunk = c / layout.chunk_cols();
            let at = r / 16 * layout.block_bytes() + (chunk * 16 + r % 16) * 4 + c % 4;
            bytes[at] = match format {
                WeightFormat::Q8 => 131,              // 3
                _ if c % 8 >= 4 => zero & 0xf | 0xb0, // 3
                _ => zero & 0xf0 | 0xb,
            };
            let at = layout.scales_at() + r / 16 * layout.block_scales() + c / layout.group() * 16 + r % 16;
            bytes[at] = -5i8 as u8;
            let at = layout.quants_bytes() + r * 4;
            bytes[at..at + 4].copy_from_slice(&0.5f32.to_le_bytes());
            let w = komt_kernels::HostWeight { rows, cols, format, parts: &[&bytes] };
            let w = t.cuda.load_weight(w).unwrap();
            for n in [1, 10, 70] {
                let mut x = vec![0.0; n * cols];
                x[(n - 1) * cols + c] = 2.0;
                let x = t.acts(n, cols, &x).cuda;
                let mut out = t.residual(n, rows, &vec![0.0; rows * n]).cuda;
                t.cuda.matmul_f32(&mut out, &x, &w).unwrap();
                let mut expected = vec![0.0; rows * n];
                expected[(n - 1) * rows + r] = -15.0; // 2 * 0.5 * -5 * 3
                assert_eq!(t.download(&out), expected, "sm_{sm} {format:?} [{r}, {c}], {n} rows");
            }
        }
    }
    run::<f16>(75);
    run::<bf16>(80);
    run::<f16>(90);
    run::<bf16>(120);
}

/// Around the tiles: rows 8 | 16, 32, 64 | 128; columns 16, 64, 128; of k 32 (gemm), 64 (skinny), 128 (gemv, scales), with
/// pipelines of 3 and 4 tiles, and 512 columns for each of four warps.
const ROWS: [usize; 20] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129];
const NS: [usize; 17] = [1, 3, 4, 5, 7, 15, 16, 17, 48, 63, 64, 65, 127, 128, 129, 144, 272];
const KS: [usize; 11] = [32, 64, 96, 128, 160, 256, 288, 512, 544, 1056, 2080];

/// Every `nth` of rows and columns in all pairs, each with another k.
fn edges<A: CudaAct>(spec: DeviceSpec, nth: usize) {
    let Some(gpu) = Gpu::with(spec) else { return };
    let mut t = gpu.twin::<A>();
    for (i, (rows, n)) in ROWS.iter().flat_map(|&rows| NS.map(|n| (rows, n))).enumerate() {
        if i % nth == 0 {
            products(&mut t, FORMATS[i / nth % 2], rows, n, KS[(i + i / 11) % KS.len()]);
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

/// Rows of a step of up to 8 have the bits that they have alone, and every launch gives the same bits again, whatever the order
/// of warps.
#[test]
fn the_same_bits_whoever_shares_the_step() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let (n, k) = (70, 1056);
    let x = normal(1, 200 * k);
    for format in FORMATS {
        let w = t.quantised(format, n, k, 2).cuda;
        let mut run = |rows: usize, first: usize| {
            let x = t.acts(rows, k, &x[first * k..][..rows * k]).cuda;
            let mut out = t.residual(rows, n, &vec![0.0; rows * n]).cuda;
            t.cuda.matmul_f32(&mut out, &x, &w).unwrap();
            t.download(&out)
        };
        let alone: Vec<f32> = (0..8).flat_map(|row| run(1, row)).collect();
        for rows in 2..=8 {
            assert_eq!(run(rows, 0), alone[..rows * n], "{format:?} {rows} rows");
        }
        for rows in [8, 30, 200] {
            let first = run(rows, 0);
            for seed in 1..4 {
                if let Some(soft) = &gpu.soft {
                    let run = RunOptions { seed, ..RunOptions::default() };
                    soft.options(&Options { run, ..Options::default() });
                }
                assert_eq!(run(rows, 0), first, "{format:?} {rows} rows");
            }
        }
    }
}

/// Rows of a table are those of the format's definition, bit for bit.
#[test]
fn embeddings() {
    fn run<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        for (format, vocab_size, dim) in FORMATS.into_iter().flat_map(|f| [(f, 37, 32), (f, 50, 1056)]) {
            let table = t.quantised(format, vocab_size, dim, 4);
            let ids = [0, 36, 5, 5, 17];
            let mut pool = PagePool::new(1);
            let pages = cuda_support::table(&mut pool, 1, ids.len());
            let mut plan = StepPlan::new(1);
            plan.push(&pages, 0, &ids, Logits::Last);
            let capacity = StepCapacity { max_tokens: 8, max_seqs: 1, max_logits: 1, table_len: 1 };
            let step = t.step(&plan, capacity);
            let mut x = t.residual(ids.len(), dim, &vec![9.0; ids.len() * dim]);
            t.cpu.embed(&mut x.cpu, &table.cpu, &step.cpu).unwrap();
            t.cuda.embed(&mut x.cuda, &table.cuda, &step.cuda).unwrap();
            assert_eq!(t.check("embed", &x, 0.0), 0.0);
        }
    }
    run::<f16>(75);
    run::<bf16>(80);
    run::<bf16>(120);
}

/// What a launch at a shape of Mistral-7B asks of memory: results against sums in f64 at some places, then the counters. The
/// aims: in up to 8 rows each byte of the weights is asked for once (1.02 times at most); no bank conflicts in any.
fn real_shape<A: CudaAct>(t: &mut Twin<A>, gpu: &Gpu, format: WeightFormat, rows: usize, n: usize, k: usize) {
    let xs = normal(1, rows * k);
    let (x, bytes) = (t.acts(rows, k, &xs).cuda, quant_bytes(format, n, k, 2));
    let w = komt_kernels::HostWeight { rows: n, cols: k, format, parts: &[&bytes] };
    let w = t.cuda.load_weight(w).unwrap();
    let mut out = t.residual(rows, n, &vec![0.0; rows * n]).cuda;
    t.download(&out);
    if let Some(soft) = &gpu.soft {
        soft.options(&Options { record_launches: true, ..Options::default() });
        soft.take_launches();
    }
    t.cuda.matmul_f32(&mut out, &x, &w).unwrap();

    let found = t.download(&out);
    let layout = QuantLayout::new(format, n, k);
    let mut row = vec![0.0; k];
    let (mut expected, mut at_places) = (vec![], vec![]);
    for i in 0..400 {
        let (r, c) = (i * 7 % rows, i * 7919 % n);
        layout.decode_row(&bytes, c, &mut row);
        let rounded = |v: f32| f64::from(<A as CudaAct>::from_f32(v).to_f32());
        let dot: f64 = row.iter().zip(&xs[r * k..]).map(|(&w, &x)| f64::from(w) * rounded(x)).sum();
        expected.push(dot as f32);
        at_places.push(found[r * n + c]);
    }
    let what = format!("matmul_f32 {format:?} {rows} rows, [{n}, {k}]");
    let nmse = compare(&what, &expected, &at_places, 1, sum_bound::<A>(format, rows, 400, k));

    let Some(soft) = &gpu.soft else { return };
    let launches = soft.take_launches();
    let record = &launches[0];
    let (counters, weight_bytes) = (&record.counters, w.size_bytes() as u64);
    let used = &counters.allocations[&w.ptr()];
    let requested = used.loaded_requested as f64 / weight_bytes as f64;
    let (sectors, requests) = (counters.global_sectors as f64, counters.global_requests as f64);
    eprintln!(
        "{what}: {} of {:?} blocks, {} launches; weight bytes requested / size {requested:.4}, {:.2} thread instructions a \
         weight, {:.2} sectors a request, {} bank conflicts of {} wavefronts, NMSE {nmse:.1e}",
        record.kernel,
        record.grid,
        launches.len(),
        counters.thread_instructions() as f64 / (n * k) as f64,
        sectors / requests,
        counters.bank_conflicts(),
        counters.shared_wavefronts,
    );
    assert_eq!(counters.bank_conflicts(), 0, "{what}");
    assert_eq!(used.loaded_distinct, weight_bytes, "{what}");
    // Each warp of a tile, and of each part of its columns, asks for row scales: gemm four times, one for each 32 rows.
    let most = if rows <= 8 { 1.02 } else { 1.2 };
    assert!(requested <= most, "{what}: {requested}");
}

/// The ways out of shared memory of every tile, with and without partial sums, have no bank conflicts either.
#[test]
fn epilogues_without_bank_conflicts() {
    for spec in [DeviceSpec::sm(80), one_multiprocessor(80)] {
        let Some(gpu) = Gpu::with(spec) else { return };
        let Some(soft) = &gpu.soft else { return };
        soft.options(&Options { record_launches: true, ..Options::default() });
        let mut t = gpu.twin::<bf16>();
        for (format, rows) in FORMATS.into_iter().flat_map(|f| [1, 8, 16, 32, 64, 128].map(|rows| (f, rows)))
        {
            products(&mut t, format, rows, 256, 512);
        }
        for record in soft.take_launches() {
            let conflicts = record.counters.bank_conflicts();
            assert_eq!(conflicts, 0, "{} of {:?} blocks", record.kernel, record.grid);
        }
    }
}

#[test]
fn real_shapes() {
    for (sm, shapes) in [
        (90, vec![(1, 6144, 4096), (1, 4096, 14336), (3, 4096, 4096)]),
        (80, vec![(8, 4096, 4096), (16, 4096, 4096), (32, 4096, 4096), (64, 4096, 4096), (128, 2048, 4096)]),
    ] {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<bf16>();
        for (format, (rows, n, k)) in FORMATS.into_iter().flat_map(|f| shapes.iter().map(move |&s| (f, s))) {
            real_shape(&mut t, &gpu, format, rows, n, k);
        }
    }
}
