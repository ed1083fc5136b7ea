//! Every operation on every instruction set of this machine, against the scalar reference.
//!
//! Metric: normalised mean squared error, `sum (a - b)^2 / sum b^2`.

#![allow(clippy::unwrap_used)]

use half::{bf16, f16};
use komt_cache::{Logits, PagePool, PageTable, StepPlan, ring_len};
use komt_kernels::{
    AttnShape, Backend, Cpu, CpuOptions, HostWeight, Isa, KvFormat, KvLayer, Precision, Rows, Step,
    StepCapacity, WeightFormat,
};

/// For operations without long sums of mixed signs: a few roundings of 2^-24 (4e-15 each when squared) and `exp` (2 units
/// in the last place, 6e-14) leave a factor of ten.
const BOUND: f64 = 1e-12;

/// For a dot product of `n` terms of random sign. Partial sum k has size sqrt(k) and rounds with 2^-24 / sqrt(3) of it,
/// so the reference, which adds in order, has an error of n^2 / 6 * 2^-48 against a result of n: n / 6 * 2^-48. A single
/// result is a random draw, and cases of one output exist: six times that.
fn dot_bound(n: usize) -> f64 {
    BOUND.max(n as f64 * 2f64.powi(-48))
}

fn cpu(isa: Isa) -> Cpu {
    Cpu::with(CpuOptions::default().isa(isa).threads(2).precision(Precision::Exact)).unwrap()
}

fn fast() -> Vec<Isa> {
    let all = Isa::available();
    eprintln!("instruction sets of this machine: {all:?}");
    all[1..].to_vec()
}

fn nmse(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    error / b.iter().map(|&b| square(f64::from(b))).sum::<f64>().max(1e-30)
}

/// Numbers of about normal size, from a counter.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| 2.0 * (uniform() + uniform() + uniform())).collect()
}

fn rows(cpu: &mut Cpu, values: &[f32], cols: usize) -> Rows<Cpu, f32> {
    let n = values.len() / cols;
    let mut rows = Rows::<Cpu, f32>::alloc(cpu, n, cols).unwrap();
    cpu.upload(&mut rows.buf, values).unwrap();
    rows.rows = n;
    rows
}

fn weight(cpu: &mut Cpu, values: &[f32], cols: usize, format: WeightFormat) -> <Cpu as Backend>::Weight {
    let bytes: Vec<u8> = match format {
        WeightFormat::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        WeightFormat::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        WeightFormat::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        WeightFormat::Q8 | WeightFormat::Q4 => unreachable!("quant_matmul.rs has those"),
    };
    // In two parts, at an odd address, as it may lie in a file.
    let mut odd = vec![0];
    odd.extend(&bytes);
    let row_bytes = cols * format.bytes(1, 1);
    let (a, b) = odd[1..].split_at(bytes.len() / row_bytes / 2 * row_bytes);
    cpu.load_weight(HostWeight { rows: values.len() / cols, cols, format, parts: &[a, b] }).unwrap()
}

#[test]
fn matmul_by_eye() {
    for isa in Isa::available() {
        let mut cpu = cpu(isa);
        let w = weight(&mut cpu, &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], 2, WeightFormat::Bf16);
        let x = rows(&mut cpu, &[3.0, 4.0, 5.0, 6.0], 2);
        let mut out = rows(&mut cpu, &[0.0; 6], 3);
        cpu.matmul(&mut out, &x, &w).unwrap();
        assert_eq!(out.buf, [3.0, 4.0, 7.0, 5.0, 6.0, 11.0], "{isa:?}");
        cpu.matmul_add(&mut out, &x, &w).unwrap();
        assert_eq!(out.buf, [6.0, 8.0, 14.0, 10.0, 12.0, 22.0], "{isa:?}");
    }
}

#[test]
fn matmul_equals_the_reference() {
    // Tiles are 1 to 5 rows by 4 outputs by 8 or 16 columns, blocks 64 outputs: around each of them, and real sizes.
    let mut cases = vec![(1, 4096, 64), (3, 14336, 33), (9, 4096, 129), (1, 576, 1536)];
    for n in [1, 2, 3, 4, 5, 6, 11] {
        for (cols, outs) in [(1, 1), (7, 3), (8, 4), (9, 5), (15, 63), (16, 64), (17, 65), (48, 200)] {
            cases.push((n, cols, outs));
        }
    }
    for (n, cols, outs) in cases {
        for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
            let (x, w) = (noise(1, n * cols), noise(2, outs * cols));
            let run = |isa: Isa| {
                let mut cpu = cpu(isa);
                let (x, w) = (rows(&mut cpu, &x, cols), weight(&mut cpu, &w, cols, format));
                let mut out = rows(&mut cpu, &noise(3, n * outs), outs);
                cpu.matmul_add(&mut out, &x, &w).unwrap();
                let mut stored = rows(&mut cpu, &noise(4, n * outs), outs);
                cpu.matmul_f32(&mut stored, &x, &w).unwrap();
                (out.buf, stored.buf)
            };
            let reference = run(Isa::Scalar);
            for isa in fast() {
                let got = run(isa);
                let case = format!("{isa:?} n {n} cols {cols} outs {outs} {format:?}");
                assert!(
                    nmse(&got.0, &reference.0) < dot_bound(cols),
                    "matmul_add {case}: {}",
                    nmse(&got.0, &reference.0)
                );
                assert!(
                    nmse(&got.1, &reference.1) < dot_bound(cols),
                    "matmul_f32 {case}: {}",
                    nmse(&got.1, &reference.1)
                );
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_whoever_shares_the_step() {
    for isa in Isa::available() {
        let mut cpu = cpu(isa);
        let (cols, outs) = (100, 70);
        let (x, w) = (noise(1, 7 * cols), weight(&mut cpu, &noise(2, outs * cols), cols, WeightFormat::Bf16));
        let mut all = rows(&mut cpu, &vec![0.0; 7 * outs], outs);
        let xs = rows(&mut cpu, &x, cols);
        cpu.matmul(&mut all, &xs, &w).unwrap();
        for r in 0..7 {
            let x = rows(&mut cpu, &x[r * cols..][..cols], cols);
            let mut alone = rows(&mut cpu, &vec![0.0; outs], outs);
            cpu.matmul(&mut alone, &x, &w).unwrap();
            assert_eq!(alone.buf, all.buf[r * outs..][..outs], "{isa:?} row {r}");
        }
    }
}

#[test]
fn rms_norm_equals_the_reference() {
    for (n, dim) in [(1, 1), (2, 7), (3, 8), (9, 15), (17, 16), (1, 17), (3, 576), (2, 4096)] {
        let (x, w) = (noise(1, n * dim), noise(2, dim));
        let run = |isa| {
            let mut cpu = cpu(isa);
            let x = rows(&mut cpu, &x, dim);
            let mut out = rows(&mut cpu, &vec![0.0; n * dim], dim);
            cpu.rms_norm(&mut out, &x, &w, 1e-5).unwrap();
            out.buf
        };
        let reference = run(Isa::Scalar);
        for isa in fast() {
            assert!(nmse(&run(isa), &reference) < BOUND, "{isa:?} n {n} dim {dim}");
        }
    }
    let mut cpu = cpu(Isa::detect());
    let x = rows(&mut cpu, &[3.0, 4.0], 2); // mean of squares 12.5
    let mut out = rows(&mut cpu, &[0.0, 0.0], 2);
    cpu.rms_norm(&mut out, &x, &vec![1.0, 2.0], 0.0).unwrap();
    assert!((out.buf[0] - 0.848_528).abs() < 1e-6 && (out.buf[1] - 2.262_742).abs() < 1e-6);
}

#[test]
fn swiglu_equals_the_reference_also_at_the_ends() {
    for (n, hidden_dim) in [(1, 1), (2, 7), (3, 16), (9, 17), (2, 14336)] {
        let mut gate_up = noise(1, n * 2 * hidden_dim);
        gate_up.iter_mut().step_by(3).for_each(|g| *g *= 30.0);
        gate_up[0] = -1e4;
        let run = |isa| {
            let mut cpu = cpu(isa);
            let gate_up = rows(&mut cpu, &gate_up, 2 * hidden_dim);
            let mut out = rows(&mut cpu, &vec![9.0; n * hidden_dim], hidden_dim);
            cpu.swiglu(&mut out, &gate_up).unwrap();
            out.buf
        };
        let reference = run(Isa::Scalar);
        for isa in fast() {
            let got = run(isa);
            assert!(nmse(&got, &reference) < BOUND, "{isa:?} n {n} hidden_dim {hidden_dim}");
            assert!(got[0].abs() < 1e-30, "silu(-10000) = {}", got[0]);
        }
    }
    for isa in Isa::available() {
        let mut cpu = cpu(isa);
        for (gate, check) in
            [(f32::NAN, f32::is_nan as fn(f32) -> bool), (f32::INFINITY, |v| v == f32::INFINITY)]
        {
            let gate_up = rows(&mut cpu, &[gate, 1.0], 2);
            let mut out = rows(&mut cpu, &[0.0], 1);
            cpu.swiglu(&mut out, &gate_up).unwrap();
            assert!(check(out.buf[0]), "{isa:?}: silu({gate}) = {}", out.buf[0]);
        }
    }
}

/// A cache of a few sequences with permuted pages, and a step over them.
struct Fixture {
    attn: AttnShape,
    plan: StepPlan,
    n_slots: usize,
    table_len: usize,
}

fn fixture(attn: AttnShape, seqs: &[(usize, usize)]) -> Fixture {
    let max_len = seqs.iter().map(|&(start, n)| start + n).max().unwrap();
    let table_len = ring_len(attn.window, max_len, max_len);
    let n_pages = 2 * table_len * seqs.len();
    let mut pool = PagePool::new(n_pages);
    let mut plan = StepPlan::new(table_len);
    for &(start, n) in seqs {
        let mut table = PageTable::new(table_len);
        for i in 0..start + n {
            table.extend(&mut pool, 1).unwrap();
            if i % 5 == 0 {
                pool.take(); // holes between the pages
            }
            if pool.n_free() < table_len {
                pool = PagePool::new(n_pages); // only the numbers matter here
            }
        }
        let ids: Vec<u32> = (0..n as u32).collect();
        plan.push(&table, start, &ids, Logits::Last);
    }
    Fixture { attn, plan, n_slots: n_pages * komt_cache::PAGE, table_len }
}

impl Fixture {
    fn step(&self, cpu: &mut Cpu) -> Step<Cpu> {
        let dims = self.plan.dims();
        let capacity = StepCapacity {
            max_tokens: dims.n_tokens + 3,
            max_seqs: dims.n_seqs + 1,
            max_logits: dims.n_logits,
            table_len: self.table_len,
        };
        let mut step = Step::<Cpu>::alloc(cpu, capacity).unwrap();
        step.load(cpu, &self.plan).unwrap();
        step
    }

    fn attention(&self, isa: Isa, format: KvFormat, poison: f32) -> Vec<f32> {
        let mut cpu = cpu(isa);
        let step = self.step(&mut cpu);
        let (q_dim, kv_dim) = (self.attn.q_dim(), self.attn.kv_dim());
        let mut kv = KvLayer::<Cpu>::alloc(&mut cpu, self.n_slots, self.attn, format).unwrap();
        let (k, v) = (noise(5, self.n_slots * kv_dim), noise(6, self.n_slots * kv_dim));
        // Slots that no row of the step may see hold poison.
        let mut seen = vec![false; self.n_slots];
        for (&pos, &seq) in step.positions().iter().zip(step.seq_of()) {
            let table = step.table(seq);
            for j in komt_cache::first_visible(pos as usize, self.attn.window)..=pos as usize {
                let page = table[(j / komt_cache::PAGE) % table.len()] as usize;
                seen[page * komt_cache::PAGE + j % komt_cache::PAGE] = true;
            }
        }
        let poison = vec![poison; kv_dim];
        for (slot, (k, v)) in k.chunks_exact(kv_dim).zip(v.chunks_exact(kv_dim)).enumerate() {
            if seen[slot] { kv.store(slot, k, v) } else { kv.store(slot, &poison, &poison) }
        }
        let n = self.plan.n_tokens();
        let qkv = rows(&mut cpu, &noise(7, n * (q_dim + 2 * kv_dim)), q_dim + 2 * kv_dim);
        let mut out = rows(&mut cpu, &vec![0.0; n * q_dim], q_dim);
        cpu.attention(&mut out, &qkv, &kv, &step, self.attn).unwrap();
        out.buf
    }
}

#[test]
fn attention_equals_the_reference_and_reads_nothing_else() {
    let shape = |n_heads, n_kv_heads, head_dim, window| AttnShape { n_heads, n_kv_heads, head_dim, window };
    let shapes = [
        shape(1, 1, 1, None),
        shape(4, 2, 7, None),
        shape(8, 4, 8, Some(1)),
        shape(4, 4, 12, Some(5)),
        shape(6, 2, 64, Some(16)),
        shape(9, 3, 96, Some(17)),
        shape(24, 2, 128, None), // more query heads a key head than one pass takes
        shape(2, 1, 256, Some(40)),
    ];
    for attn in shapes {
        for seqs in [&[(0, 1)][..], &[(0, 40)], &[(15, 1), (16, 1), (17, 1)], &[(70, 1), (3, 20), (31, 2)]] {
            let fixture = fixture(attn, seqs);
            for format in KvFormat::ALL {
                let reference = fixture.attention(Isa::Scalar, format, f32::NAN);
                assert!(
                    reference.iter().all(|v| v.is_finite()),
                    "the reference read poison: {attn:?} {seqs:?}"
                );
                for isa in fast() {
                    let error = nmse(&fixture.attention(isa, format, f32::NAN), &reference);
                    assert!(error < BOUND, "{isa:?} {format} {attn:?} {seqs:?}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn attention_by_eye() {
    // One head of width 2; the query points at the key at position 1, far: its value is the answer.
    let attn = AttnShape { n_heads: 1, n_kv_heads: 1, head_dim: 2, window: None };
    let fixture = fixture(attn, &[(2, 1)]);
    for isa in Isa::available() {
        let mut cpu = cpu(isa);
        let step = fixture.step(&mut cpu);
        let mut kv = KvLayer::<Cpu>::alloc(&mut cpu, fixture.n_slots, attn, KvFormat::F32).unwrap();
        let slot = |pos: usize| step.table(0)[0] as usize * komt_cache::PAGE + pos;
        for (pos, k, v) in
            [(0, [0.0, 1.0], [1.0, 1.0]), (1, [1.0, 0.0], [5.0, 7.0]), (2, [0.0, -1.0], [2.0, 2.0])]
        {
            kv.store(slot(pos), &k, &v);
        }
        let qkv = rows(&mut cpu, &[1000.0, 0.0, 0.0, 0.0, 0.0, 0.0], 6);
        let mut out = rows(&mut cpu, &[0.0, 0.0], 2);
        cpu.attention(&mut out, &qkv, &kv, &step, attn).unwrap();
        assert_eq!(out.buf, [5.0, 7.0], "{isa:?}");
    }
}

#[test]
fn rope_store_rotates_pairs_and_writes_only_its_slots() {
    let attn = AttnShape { n_heads: 2, n_kv_heads: 1, head_dim: 4, window: None };
    let mut fixture = fixture(attn, &[(1, 1)]);
    fixture.plan.pad_to(2); // the second row is padding
    for isa in Isa::available() {
        let mut cpu = cpu(isa);
        let mut capacity = fixture.step(&mut cpu).capacity;
        capacity.max_logits = 2;
        let mut step = Step::<Cpu>::alloc(&mut cpu, capacity).unwrap();
        step.load(&mut cpu, &fixture.plan).unwrap();
        let mut kv = KvLayer::<Cpu>::alloc(&mut cpu, fixture.n_slots, attn, KvFormat::F32).unwrap();
        (0..fixture.n_slots).for_each(|slot| kv.store(slot, &[9.0; 4], &[9.0; 4]));
        let row: Vec<f32> = (1..=16).map(|v| v as f32).collect();
        let mut qkv = rows(&mut cpu, &[row.clone(), row].concat(), 16);
        let inv_freq = vec![std::f32::consts::FRAC_PI_2, 0.0]; // at position 1: a quarter turn, and none
        cpu.rope_store(&mut qkv, &mut kv, &step, &inv_freq, attn).unwrap();
        // heads (1 2 3 4) (5 6 7 8) (9 10 11 12): pairs are (1, 3), (2, 4); a quarter turn makes (a, b) to (-b, a)
        let expected =
            [-3.0, 2.0, 1.0, 4.0, -7.0, 6.0, 5.0, 8.0, -11.0, 10.0, 9.0, 12.0, 13.0, 14.0, 15.0, 16.0];
        assert!(nmse(&qkv.buf[..16], &expected) < BOUND, "{isa:?} {:?}", &qkv.buf[..16]);
        let slot = step.slots()[0] as usize;
        assert_eq!(kv.load(slot), [qkv.buf[8..12].to_vec(), vec![13.0, 14.0, 15.0, 16.0]]);
        kv.store(slot, &[9.0; 4], &[9.0; 4]);
        let others = (0..fixture.n_slots).flat_map(|slot| kv.load(slot).concat());
        assert!(others.into_iter().all(|v| v == 9.0), "{isa:?}: something else was written");
    }
}

#[test]
fn embed_and_take_rows_pick_rows() {
    let attn = AttnShape { n_heads: 1, n_kv_heads: 1, head_dim: 2, window: None };
    let fixture = fixture(attn, &[(0, 3), (0, 2)]); // ids 0 1 2, 0 1; logits of rows 2 and 4
    for isa in Isa::available() {
        for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
            let mut cpu = cpu(isa);
            let step = fixture.step(&mut cpu);
            let table = weight(&mut cpu, &[0.5, 1.0, 2.0, 3.0, 4.0, 5.0], 2, format);
            let mut x = rows(&mut cpu, &[0.0; 10], 2);
            cpu.embed(&mut x, &table, &step).unwrap();
            assert_eq!(x.buf, [0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 0.5, 1.0, 2.0, 3.0]);
            let mut out = rows(&mut cpu, &[0.0; 4], 2);
            cpu.take_rows(&mut out, &x, &step).unwrap();
            assert_eq!(out.buf, [4.0, 5.0, 2.0, 3.0]);
        }
    }
}

#[test]
fn what_is_not_there_is_an_error() {
    let mut cpu = Cpu::new().unwrap();
    let error = cpu.alloc::<f32>(usize::MAX / 8).unwrap_err();
    assert!(error.to_string().starts_with("CPU: out of memory, "), "{error}");
    if Isa::detect() < Isa::Avx512 {
        assert!(Cpu::with(CpuOptions::default().isa(Isa::Avx512)).is_err());
    }
    assert!(cpu.available_bytes().unwrap() > 1 << 20);
    for threads in [0, 1025] {
        let error = Cpu::with(CpuOptions::default().threads(threads)).unwrap_err();
        assert_eq!(error.to_string(), format!("threads: expected 1 to 1024, found {threads}"));
    }
}

#[test]
#[should_panic(expected = "matmul: out [1, 3], x [1, 2], w [4, 2]")]
fn shapes_that_do_not_fit_name_themselves() {
    let mut cpu = Cpu::new().unwrap();
    let w = weight(&mut cpu, &[0.0; 8], 2, WeightFormat::F32);
    let x = rows(&mut cpu, &[0.0; 2], 2);
    let mut out = rows(&mut cpu, &[0.0; 3], 3);
    cpu.matmul(&mut out, &x, &w).unwrap();
}
