//! Every operation of the CPU backend in the shapes of Mistral-7B. Before a case is timed, its result is held against the
//! scalar reference.
//!
//! * `B/s` are bytes that must come from memory: of weights for one row of a matmul, of keys and values for decoding.
//! * `elem/s` of a matmul of several rows are floating-point operations (two a weight and row), of attention over a chunk
//!   likewise (four a visible key and column: q . k and p * v).
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use komt_benches::is_test;
use komt_cache::{Logits, PAGE, PagePool, PageTable, StepPlan, first_visible, ring_len};
use komt_kernels::{
    AttnShape, Backend, Cpu, CpuOptions, HostWeight, Isa, KvFormat, KvLayer, RowBuf, Rows, Step,
    StepCapacity, WeightFormat,
};
use rayon::prelude::*;
use std::cell::LazyCell;
use std::time::Duration;

const DIM: usize = 4096;
const HIDDEN_DIM: usize = 14336;
const VOCAB_SIZE: usize = 32_000;
const ATTN: AttnShape = AttnShape { n_heads: 32, n_kv_heads: 8, head_dim: 128, window: Some(4096) };
const QKV_DIM: usize = (32 + 2 * 8) * 128;

/// Normalised mean squared error that a vector kernel may have: that of a sum of n terms in another order is n * 2^-48
/// (komt-kernels/tests/backend_ops.rs), here of at most 14,336; and a factor of two.
const BOUND: f64 = 1e-10;

/// The same where a matmul rounds x and w to bf16, w in bf16 with any number of rows: 2.8e-6 each (komt-kernels/src/ops/matmul/bf16/tests.rs).
const ROUNDED: f64 = 1e-5;

/// Weights that are read in turn until they come from memory rather than from a cache: in a model, nothing of a layer is
/// still in the cache when its turn comes again.
const COLD_BYTES: usize = 1 << 30;

fn fast() -> Cpu {
    Cpu::new().unwrap()
}

fn scalar() -> Cpu {
    Cpu::with(CpuOptions::default().isa(Isa::Scalar)).unwrap()
}

fn group<'a>(c: &'a mut Criterion, op: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(op);
    group.sampling_mode(SamplingMode::Flat); // some cases take a tenth of a second
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group
}

/// Numbers of deviation 1, each a hash of its index.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let value = |i: usize| {
        let mut z = (i as u64 ^ seed << 40).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let part = |shift: u32| (z >> shift & 0xffff) as f32 / 65536.0 - 0.5;
        1.732_050_8 * (part(0) + part(16) + part(32) + part(48))
    };
    (0..n).into_par_iter().map(value).collect()
}

fn rows(values: Vec<f32>, cols: usize) -> Rows<Cpu, f32> {
    let n = values.len() / cols;
    RowBuf { buf: values, rows: n, cols, max_rows: n }
}

fn zeros(n: usize, cols: usize) -> Rows<Cpu, f32> {
    rows(vec![0.0; n * cols], cols)
}

fn nmse(a: impl Iterator<Item = f32>, b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = a.zip(b).map(|(a, &b)| square(f64::from(a) - f64::from(b))).sum();
    error / b.iter().map(|&b| square(f64::from(b))).sum::<f64>()
}

fn assert_close(case: &str, got: &[f32], reference: &[f32]) {
    assert_within(case, got, reference, BOUND);
}

fn assert_within(case: &str, got: &[f32], reference: &[f32], bound: f64) {
    assert_eq!(got.len(), reference.len(), "{case}");
    let error = nmse(got.iter().copied(), reference);
    assert!(error < bound, "{case}: NMSE {error:e} against the scalar reference, bound {bound:e}");
}

/// Times what `prepare` returns. It is called once, and not at all when the filter leaves the case out. (Criterion calls a
/// case's closure for every sample.)
fn time<F: FnMut()>(group: &mut BenchmarkGroup<'_, WallTime>, case: &str, prepare: impl FnOnce() -> F) {
    let (mut prepare, mut run) = (Some(prepare), None);
    group.bench_function(case, |b| {
        let run = run.get_or_insert_with(|| prepare.take().unwrap()());
        b.iter(run);
    });
}

/// `run` on the fast kernels, after one comparison of what it makes of `out` with what the scalar reference does.
fn checked(
    case: &str,
    mut out: Rows<Cpu, f32>,
    mut run: impl FnMut(&mut Cpu, &mut Rows<Cpu, f32>),
) -> impl FnMut() {
    let (mut cpu, mut reference) = (fast(), zeros(out.rows, out.cols));
    run(&mut cpu, &mut out);
    run(&mut scalar(), &mut reference);
    assert_close(case, &out.buf, &reference.buf);
    move || run(&mut cpu, &mut out)
}

/// A matrix as it lies in a file, and copies of it on the backend.
struct Matrix {
    rows: usize,
    cols: usize,
    format: WeightFormat,
    bytes: Vec<u8>,
    copies: Vec<<Cpu as Backend>::Weight>,
}

impl Matrix {
    fn new(rows: usize, cols: usize, format: WeightFormat) -> Self {
        let values = noise(1, rows * cols);
        let mut bytes = vec![0; rows * cols * format.bytes(1, 1)];
        let store = |(out, &v): (&mut [u8], &f32)| match format {
            WeightFormat::F32 => out.copy_from_slice(&v.to_le_bytes()),
            WeightFormat::F16 => out.copy_from_slice(&f16::from_f32(v).to_le_bytes()),
            WeightFormat::Bf16 => out.copy_from_slice(&bf16::from_f32(v).to_le_bytes()),
            WeightFormat::Q8 | WeightFormat::Q4 => unreachable!("not stored number by number"),
        };
        bytes.par_chunks_exact_mut(format.bytes(1, 1)).zip(&values).for_each(store);
        let mut cpu = fast();
        // Half of what is there, at most: others use this machine too.
        let room = cpu.available_bytes().unwrap_or(0) as usize / 2;
        let n_copies = if is_test() { 1 } else { (COLD_BYTES.min(room) / bytes.len()).max(1) };
        let host = HostWeight { rows, cols, format, parts: &[&bytes] };
        let copies = (0..n_copies).map(|_| cpu.load_weight(host).unwrap()).collect();
        Self { rows, cols, format, bytes, copies }
    }

    /// `got = x . w^T` against the scalar reference, in every 61st column: the whole reference would take minutes.
    fn check(&self, case: &str, x: &[f32], got: &[f32]) {
        let row_bytes = self.cols * self.format.bytes(1, 1);
        let parts: Vec<&[u8]> = self.bytes.chunks_exact(row_bytes).step_by(61).collect();
        let mut cpu = scalar();
        let (n, outs) = (x.len() / self.cols, parts.len());
        let host = HostWeight { rows: outs, cols: self.cols, format: self.format, parts: &parts };
        let w = cpu.load_weight(host).unwrap();
        let (x, mut reference) = (rows(x.to_vec(), self.cols), zeros(n, outs));
        cpu.matmul(&mut reference, &x, &w).unwrap();
        let picked: Vec<f32> =
            got.chunks_exact(self.rows).flat_map(|row| row.iter().copied().step_by(61)).collect();
        let bound = match self.format {
            WeightFormat::F32 => BOUND,
            WeightFormat::F16 if n == 1 => BOUND,
            _ => ROUNDED,
        };
        assert_within(case, &picked, &reference.buf, bound);
    }
}

type MatmulOp =
    fn(&mut Cpu, &mut Rows<Cpu, f32>, &Rows<Cpu, f32>, &<Cpu as Backend>::Weight) -> komt_kernels::Result<()>;

fn matmul_cases(
    c: &mut Criterion,
    op: &str,
    run: MatmulOp,
    shapes: &[(usize, usize)],
    formats: &[WeightFormat],
) {
    let mut group = group(c, op);
    for (&(outs, cols), &format) in shapes.iter().flat_map(|shape| formats.iter().map(move |f| (shape, f))) {
        let matrix = LazyCell::new(|| Matrix::new(outs, cols, format)); // not made when the filter leaves all cases out
        for n in [1, 4, 16, 64, 512] {
            group.throughput(match n {
                1 => Throughput::BytesDecimal((outs * cols * format.bytes(1, 1)) as u64),
                n => Throughput::Elements((2 * n * outs * cols) as u64),
            });
            let case = format!("{outs}x{cols}/{format:?}/{n} rows").to_lowercase();
            time(&mut group, &case, || {
                let (mut cpu, x, mut out) = (fast(), rows(noise(2, n * cols), cols), zeros(n, outs));
                run(&mut cpu, &mut out, &x, &matrix.copies[0]).unwrap();
                matrix.check(&format!("{op} {case}"), &x.buf, &out.buf);
                let mut copies = matrix.copies.iter().cycle();
                move || run(&mut cpu, &mut out, &x, copies.next().unwrap()).unwrap()
            });
        }
    }
}

fn matmul(c: &mut Criterion) {
    let formats = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16];
    matmul_cases(c, "matmul", Cpu::matmul, &[(DIM, DIM), (HIDDEN_DIM, DIM)], &formats);
}

fn matmul_add(c: &mut Criterion) {
    matmul_cases(c, "matmul_add", Cpu::matmul_add, &[(DIM, HIDDEN_DIM)], &[WeightFormat::Bf16]);
}

fn matmul_f32(c: &mut Criterion) {
    matmul_cases(c, "matmul_f32", Cpu::matmul_f32, &[(VOCAB_SIZE, DIM)], &[WeightFormat::Bf16]);
}

/// The last `n` tokens of a sequence of `context`, as a step.
struct Chunk {
    plan: StepPlan,
    n_slots: usize,
}

impl Chunk {
    fn new(context: usize, n: usize) -> Self {
        let table_len = ring_len(ATTN.window, n, context);
        let mut pool = PagePool::new(table_len);
        let mut table = PageTable::new(table_len);
        table.extend(&mut pool, context).unwrap();
        let mut plan = StepPlan::new(table_len);
        let ids: Vec<u32> = (0..n as u32).map(|i| i * 7919 % VOCAB_SIZE as u32).collect();
        plan.push(&table, context - n, &ids, Logits::Last);
        Self { plan, n_slots: table_len * PAGE }
    }

    fn step(&self, cpu: &mut Cpu) -> Step<Cpu> {
        let dims = self.plan.dims();
        let table_len = self.plan.table_len();
        let capacity =
            StepCapacity { max_tokens: dims.n_tokens, max_seqs: 1, max_logits: dims.n_logits, table_len };
        let mut step = Step::<Cpu>::alloc(cpu, capacity).unwrap();
        step.load(cpu, &self.plan).unwrap();
        step
    }

    fn kv(&self, cpu: &mut Cpu, format: KvFormat) -> KvLayer<Cpu> {
        let mut kv = KvLayer::<Cpu>::alloc(cpu, self.n_slots, ATTN, format).unwrap();
        let (k, v) = (noise(3, self.n_slots * kv.kv_dim), noise(4, self.n_slots * kv.kv_dim));
        let tokens = k.chunks_exact(kv.kv_dim).zip(v.chunks_exact(kv.kv_dim));
        tokens.enumerate().for_each(|(slot, (k, v))| kv.store(slot, k, v));
        kv
    }

    /// Keys that the rows see, all together.
    fn n_visible(&self) -> usize {
        let seen = |&pos: &u32| pos as usize + 1 - first_visible(pos as usize, ATTN.window);
        self.plan.positions.iter().map(seen).sum()
    }
}

fn attention(c: &mut Criterion) {
    let mut group = group(c, "attention");
    for (name, context, n, format) in [
        ("decode at 128", 128, 1, KvFormat::F32),
        ("decode at 1024", 1024, 1, KvFormat::F32),
        ("decode at 4096", 4096, 1, KvFormat::F32),
        ("decode at 4096, f16", 4096, 1, KvFormat::F16),
        ("decode at 4096, q8", 4096, 1, KvFormat::Q8),
        ("chunk of 128 at 0", 128, 128, KvFormat::F32),
        ("chunk of 128 at 896", 1024, 128, KvFormat::F32),
        ("chunk of 128 at 896, f16", 1024, 128, KvFormat::F16),
        ("chunk of 128 at 896, q8", 1024, 128, KvFormat::Q8),
    ] {
        let chunk = Chunk::new(context, n);
        group.throughput(match n {
            1 => Throughput::BytesDecimal((context * format.token_bytes(ATTN)) as u64),
            _ => Throughput::Elements((4 * chunk.n_visible() * ATTN.q_dim()) as u64),
        });
        time(&mut group, name, || {
            let mut cpu = fast();
            let (step, kv) = (chunk.step(&mut cpu), chunk.kv(&mut cpu, format));
            let qkv = rows(noise(5, n * QKV_DIM), QKV_DIM);
            checked(name, zeros(n, ATTN.q_dim()), move |cpu, out| {
                cpu.attention(out, &qkv, &kv, &step, ATTN).unwrap();
            })
        });
    }
}

fn rope_store(c: &mut Criterion) {
    let mut group = group(c, "rope_store");
    let frequency = |i: usize| 10_000f32.powf(-(2.0 * i as f32) / ATTN.head_dim as f32);
    let inv_freq: Vec<f32> = (0..ATTN.head_dim / 2).map(frequency).collect();
    for n in [1, 128] {
        // Read, rotated and written back; keys and values written once more.
        let (q, k) = (ATTN.q_dim(), ATTN.kv_dim());
        group.throughput(Throughput::BytesDecimal((n * (2 * (q + k) + k + 2 * k) * size_of::<f32>()) as u64));
        time(&mut group, &format!("{n} rows"), || {
            let chunk = Chunk::new(1024, n);
            let stored = |mut cpu: Cpu| {
                let (step, mut kv) = (chunk.step(&mut cpu), chunk.kv(&mut cpu, KvFormat::F32));
                let mut qkv = rows(noise(5, n * QKV_DIM), QKV_DIM);
                cpu.rope_store(&mut qkv, &mut kv, &step, &inv_freq, ATTN).unwrap();
                (cpu, step, kv, qkv)
            };
            let (mut cpu, step, mut kv, mut qkv) = stored(fast());
            let (_, _, reference_kv, reference) = stored(scalar());
            assert_close("rope_store qkv", &qkv.buf, &reference.buf);
            let last = chunk.n_slots - 1;
            assert_close("rope_store", &kv.load(last).concat(), &reference_kv.load(last).concat());
            let inv_freq = inv_freq.clone();
            // Rotating again what is rotated changes no length.
            move || cpu.rope_store(&mut qkv, &mut kv, &step, &inv_freq, ATTN).unwrap()
        });
    }
}

fn embed(c: &mut Criterion) {
    let mut group = group(c, "embed");
    let table = LazyCell::new(|| Matrix::new(VOCAB_SIZE, DIM, WeightFormat::Bf16));
    for n in [1, 128] {
        group.throughput(Throughput::BytesDecimal((n * DIM * (size_of::<bf16>() + size_of::<f32>())) as u64));
        let table = &table;
        time(&mut group, &format!("{n} rows"), || {
            let step = Chunk::new(1024, n).step(&mut fast());
            checked("embed", zeros(n, DIM), move |cpu, x| cpu.embed(x, &table.copies[0], &step).unwrap())
        });
    }
}

fn rms_norm(c: &mut Criterion) {
    let mut group = group(c, "rms_norm");
    for n in [1, 128] {
        group.throughput(Throughput::BytesDecimal((n * 2 * DIM * size_of::<f32>()) as u64));
        time(&mut group, &format!("{n} rows"), || {
            let (x, w) = (rows(noise(6, n * DIM), DIM), noise(7, DIM));
            checked("rms_norm", zeros(n, DIM), move |cpu, out| cpu.rms_norm(out, &x, &w, 1e-5).unwrap())
        });
    }
}

fn swiglu(c: &mut Criterion) {
    let mut group = group(c, "swiglu");
    for n in [1, 128] {
        group.throughput(Throughput::BytesDecimal((n * 3 * HIDDEN_DIM * size_of::<f32>()) as u64));
        time(&mut group, &format!("{n} rows"), || {
            let gate_up = rows(noise(8, n * 2 * HIDDEN_DIM), 2 * HIDDEN_DIM);
            checked("swiglu", zeros(n, HIDDEN_DIM), move |cpu, out| cpu.swiglu(out, &gate_up).unwrap())
        });
    }
}

fn take_rows(c: &mut Criterion) {
    let mut group = group(c, "take_rows");
    let n = 128;
    group.throughput(Throughput::BytesDecimal((2 * n * DIM * size_of::<f32>()) as u64));
    time(&mut group, "128 of 128 rows", || {
        let mut chunk = Chunk::new(1024, n);
        chunk.plan.logit_rows = (0..n as u32).rev().collect();
        let step = chunk.step(&mut fast());
        let x = rows(noise(9, n * DIM), DIM);
        checked("take_rows", zeros(n, DIM), move |cpu, out| cpu.take_rows(out, &x, &step).unwrap())
    });
}

criterion_group!(
    benches, embed, rms_norm, matmul, matmul_add, matmul_f32, rope_store, attention, swiglu, take_rows
);
criterion_main!(benches);
