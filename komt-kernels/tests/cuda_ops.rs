//! The CUDA operations that move, scale and turn rows, on every architecture, against the scalar CPU. (Products: cuda_matmul.rs;
//! attention: cuda_attention.rs.)

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod cuda_support;

use cuda_support::{Gpu, Twin, bound, compare, normal};
use half::{bf16, f16};
use komt_cache::{PAD_SLOT, StepPlan};
use komt_kernels::cuda::CudaAct;
use komt_kernels::{AttnShape, Backend, KvBuf, KvFormat, StepCapacity};
use komt_softgpu::Options;

/// Runs a generic test on each architecture, in the 16-bit type that models use there; sm_80 has both.
macro_rules! on_each {
    ($test:ident) => {
        $test::<f16>(75);
        $test::<bf16>(80);
        $test::<f16>(80);
        $test::<bf16>(90);
        $test::<bf16>(120);
    };
}

/// A plan of one sequence of `n` rows, of which `logit_rows` have logits; its pages are not used.
fn plan(n: usize, logit_rows: &[u32]) -> StepPlan {
    let mut plan = StepPlan::new(1);
    plan.ids = (0..n as u32).map(|i| i * 5 % 7).collect();
    plan.positions = (0..n as u32).collect();
    plan.slots = (0..n as u32).collect();
    plan.seq_of = vec![0; n];
    plan.q_start = vec![0, n as u32];
    plan.pages = vec![0];
    plan.logit_rows = logit_rows.to_vec();
    plan
}

/// Larger than the plan: an array is not where it would be in a full step.
fn capacity(plan: &StepPlan) -> StepCapacity {
    let dims = plan.dims();
    StepCapacity {
        max_tokens: dims.n_tokens + 3,
        max_seqs: dims.n_seqs + 2,
        max_logits: dims.n_logits + 1,
        table_len: plan.table_len(),
    }
}

/// Around the 1024 numbers of a block, and a real size.
const WIDTHS: [usize; 5] = [32, 992, 1024, 1056, 4096];

#[test]
fn embed_and_take_rows_move_rows() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        for dim in WIDTHS {
            let plan = plan(9, &[8, 0, 3]);
            let step = t.step(&plan, capacity(&plan));
            let table = t.weight(7, dim, &normal(1, 7 * dim));
            let mut x = t.residual(9, dim, &normal(2, 9 * dim));
            t.cpu.embed(&mut x.cpu, &table.cpu, &step.cpu).unwrap();
            t.cuda.embed(&mut x.cuda, &table.cuda, &step.cuda).unwrap();
            t.check(&format!("embed {dim}"), &x, 0.0);

            let h = t.acts(9, dim, &normal(3, 9 * dim));
            let mut out = t.acts(3, dim, &normal(4, 3 * dim));
            t.cpu.take_rows(&mut out.cpu, &h.cpu, &step.cpu).unwrap();
            t.cuda.take_rows(&mut out.cuda, &h.cuda, &step.cuda).unwrap();
            t.check(&format!("take_rows {dim}"), &out, 0.0);
        }
    }
    on_each!(test);
}

#[test]
fn embed_of_an_id_that_there_is_not_is_nan_and_reads_nothing() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let mut plan = plan(2, &[]);
    plan.ids = vec![6, 7];
    let step = t.step(&plan, capacity(&plan));
    let table = t.weight(7, 32, &normal(1, 7 * 32));
    let mut x = t.residual(2, 32, &[0.0; 64]);
    t.cuda.embed(&mut x.cuda, &table.cuda, &step.cuda).unwrap();
    let x = t.download(&x.cuda);
    assert!(x[..32].iter().all(|v| v.is_finite()) && x[32..].iter().all(|v| v.is_nan()), "{x:?}");
}

#[test]
fn rms_norm_equals_the_reference() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        // Around what each instance keeps in registers, and beyond the largest.
        for dim in [32, 96, 2016, 2048, 2080, 4096, 4128, 8192, 8224, 16384, 16416] {
            let n = if dim < 5000 { 3 } else { 1 };
            let (data, w) = (normal(1, n * dim), t.vector(&normal(2, dim)));
            let x = t.residual(n, dim, &data);
            let mut out = t.acts(n, dim, &vec![9.0; n * dim]);
            t.cpu.rms_norm(&mut out.cpu, &x.cpu, &w.cpu, 1e-5).unwrap();
            t.cuda.rms_norm(&mut out.cuda, &x.cuda, &w.cuda, 1e-5).unwrap();
            t.check(&format!("rms_norm {n} x {dim}"), &out, bound::<A>());
            // The last row alone: the same bits.
            let x = t.residual(1, dim, &data[(n - 1) * dim..]);
            let mut alone = t.acts(1, dim, &vec![9.0; dim]);
            t.cuda.rms_norm(&mut alone.cuda, &x.cuda, &w.cuda, 1e-5).unwrap();
            let (all, alone) = (t.download(&out.cuda), t.download(&alone.cuda));
            assert_eq!(all[(n - 1) * dim..], alone, "rms_norm {dim}: a row alone");
        }
        let (x, w) = (t.residual(1, 4, &[3.0, 4.0, 0.0, 0.0]), t.vector(&[1.0, 2.0, 1.0, 1.0]));
        let mut out = t.acts(1, 4, &[0.0; 4]);
        t.cuda.rms_norm(&mut out.cuda, &x.cuda, &w.cuda, 0.0).unwrap(); // mean of squares 6.25
        compare("by eye", &[1.2, 3.2, 0.0, 0.0], &t.download(&out.cuda), 4, bound::<A>());
    }
    on_each!(test);
}

#[test]
fn swiglu_equals_the_reference_also_at_the_ends() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        for (n, hidden_dim) in [(2, 32), (3, 992), (1, 1024), (2, 1056), (1, 14336)] {
            let mut data = normal(1, n * 2 * hidden_dim);
            data.iter_mut().step_by(3).for_each(|gate| *gate *= 5.0);
            data[0] = -1e4;
            let gate_up = t.acts(n, 2 * hidden_dim, &data);
            let mut out = t.acts(n, hidden_dim, &vec![9.0; n * hidden_dim]);
            t.cpu.swiglu(&mut out.cpu, &gate_up.cpu).unwrap();
            t.cuda.swiglu(&mut out.cuda, &gate_up.cuda).unwrap();
            t.check(&format!("swiglu {n} x {hidden_dim}"), &out, bound::<A>());
            assert_eq!(t.download(&out.cuda)[0].abs(), 0.0, "silu(-10000) * {}", data[hidden_dim]);
        }
        let mut data = vec![1.0; 64];
        (data[0], data[1], data[2]) = (f32::NAN, f32::INFINITY, 0.0);
        let gate_up = t.acts(1, 64, &data);
        let mut out = t.acts(1, 32, &[9.0; 32]);
        t.cuda.swiglu(&mut out.cuda, &gate_up.cuda).unwrap();
        let out = t.download(&out.cuda);
        assert!(out[0].is_nan() && out[1] == f32::INFINITY && out[2] == 0.0, "{:?}", &out[..3]);
    }
    on_each!(test);
}

fn inv_freq(head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / head_dim as f64) as f32).collect()
}

/// Rotates the rows of a plan at these positions, and compares rows and caches.
fn rotate<A: CudaAct>(t: &mut Twin<A>, attn: AttnShape, format: KvFormat, positions: &[u32]) {
    let (n, q_dim, kv_dim) = (positions.len(), attn.q_dim(), attn.kv_dim());
    let (cols, n_slots) = (q_dim + 2 * kv_dim, n + 5);
    let mut plan = plan(n, &[]);
    plan.positions = positions.to_vec();
    plan.slots = (0..n as u32).map(|r| (n as u32 - r) + 3).collect(); // neither the row nor in its order
    plan.slots[n / 2] = PAD_SLOT;
    let step = t.step(&plan, capacity(&plan));
    let freqs = t.vector(&inv_freq(attn.head_dim));
    let data = normal(1, n * cols);
    let mut qkv = t.acts(n, cols, &data);
    let old = vec![7.0; n_slots * kv_dim];
    let mut kv = t.kv(attn, format, &old, &old);
    t.cpu.rope_store(&mut qkv.cpu, &mut kv.cpu, &step.cpu, &freqs.cpu, attn).unwrap();
    t.cuda.rope_store(&mut qkv.cuda, &mut kv.cuda, &step.cuda, &freqs.cuda, attn).unwrap();
    let what = format!("rope_store {format} {attn:?} at {positions:?}");
    t.check(&what, &qkv, bound::<A>());

    let rows = t.download(&qkv.cuda);
    let found = t.download_kv(&kv.cuda);
    // What the device has rounded to A is what it stores: number by number, as the host would.
    let mut expected = KvBuf::zeroed(n_slots, attn, format);
    for slot in 0..n_slots {
        match plan.slots.iter().position(|&s| s as usize == slot) {
            Some(row) => {
                let (k, v) = rows[row * cols + q_dim..(row + 1) * cols].split_at(kv_dim);
                expected.store(slot, k, v);
            }
            None => expected.store(slot, &old[..kv_dim], &old[..kv_dim]),
        }
        assert_eq!(found.load(slot), expected.load(slot), "{what}: slot {slot}");
    }
    let values = |row: &[f32]| row[q_dim + kv_dim..].to_vec();
    let rounded: Vec<f32> = data.iter().map(|&value| A::from_f32(value).to_f32()).collect();
    for (found, given) in rows.chunks(cols).zip(rounded.chunks(cols)) {
        assert_eq!(values(found), values(given), "{what}: v has changed");
    }
}

#[test]
fn rope_store_turns_at_any_position_and_writes_only_its_slots() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        let shape = |n_heads, n_kv_heads, head_dim| AttnShape { n_heads, n_kv_heads, head_dim, window: None };
        // Quarter turns, the ends of fast paths (105,615 and 2^17), the last position that f32 holds, the last of an engine.
        let mut far =
            vec![0u32, 1, 2, 3, 4, 5, 11, 22, 4095, 32767, 105_615, 105_616, 131_072, 710_000, 999_999];
        far.extend([1 << 20, (1 << 22) + 3, 11_111_111, 1 << 24, (1 << 30) - 1]);
        for format in Twin::<A>::kv_formats() {
            for attn in [shape(2, 1, 64), shape(3, 1, 96), shape(8, 2, 128)] {
                rotate(&mut t, attn, format, &far);
            }
            rotate(&mut t, shape(2, 2, 64), format, &(100..170).collect::<Vec<_>>()); // one block a row
            rotate(&mut t, shape(32, 8, 128), format, &[1000]);
        }
    }
    on_each!(test);
}

#[test]
fn rope_store_by_eye() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let attn = AttnShape { n_heads: 1, n_kv_heads: 1, head_dim: 64, window: None };
    let mut plan = plan(1, &[]);
    plan.positions = vec![3];
    let step = t.step(&plan, capacity(&plan));
    let mut freqs = vec![0.0; 32];
    freqs[1] = std::f32::consts::FRAC_PI_2; // at position 3: three quarter turns, (a, b) becomes (b, -a)
    let freqs = t.vector(&freqs);
    let mut qkv = t.acts(1, 192, &(1..=192).map(|v| v as f32).collect::<Vec<_>>());
    let mut kv = t.kv(attn, KvFormat::Bf16, &[0.0; 64], &[0.0; 64]);
    t.cuda.rope_store(&mut qkv.cuda, &mut kv.cuda, &step.cuda, &freqs.cuda, attn).unwrap();
    let mut expected: Vec<f32> = (1..=192).map(|v| v as f32).collect();
    for head in [0, 64] {
        (expected[head + 1], expected[head + 33]) = (expected[head + 33], -expected[head + 1]);
    }
    assert_eq!(t.download(&qkv.cuda), expected);
}

/// Rows are read and written once whatever the cache's format, and numbers of 8 bits 8 bytes at a time.
#[test]
fn rope_store_in_8_bits_moves_its_rows_once() {
    let Some(gpu) = Gpu::open(80) else { return };
    let Some(soft) = &gpu.soft else { return };
    soft.options(&Options { record_launches: true, ..Options::default() });
    let mut t = gpu.twin::<bf16>();
    let attn = AttnShape { n_heads: 32, n_kv_heads: 8, head_dim: 128, window: None };
    let (q_dim, kv_dim, freqs) = (attn.q_dim(), attn.kv_dim(), t.vector(&inv_freq(128)));
    for n in [2, 100] {
        let plan = plan(n, &[]);
        let step = t.step(&plan, capacity(&plan));
        let mut qkv = t.acts(n, q_dim + 2 * kv_dim, &normal(4, n * (q_dim + 2 * kv_dim)));
        let zeros = vec![0.0; n * kv_dim];
        let mut kv = t.kv(attn, KvFormat::Q8, &zeros, &zeros);
        soft.take_launches();
        t.cuda.rope_store(&mut qkv.cuda, &mut kv.cuda, &step.cuda, &freqs.cuda, attn).unwrap();
        t.download(&qkv.cuda);
        let launches = soft.take_launches();
        let [launch] = &launches[..] else { panic!("{} launches", launches.len()) };
        let counters = &launch.counters;
        assert_eq!(launch.kernel, "rope_store_q8");
        let stored = n * ((q_dim + kv_dim) * 2 + KvFormat::Q8.token_bytes(attn));
        assert_eq!(counters.global_store_bytes_requested, stored as u64);
        let threads = u64::from(launch.grid.iter().product::<u32>() * launch.block.iter().product::<u32>());
        let beside = counters.global_load_bytes_requested - (n * (q_dim + 2 * kv_dim) * 2) as u64;
        assert!(beside <= 12 * threads, "loads {beside} bytes beside its rows");
        assert_eq!(counters.bank_conflicts(), 0);
    }
}

/// A decode step of Mistral 7B's shapes: what each small operation asks of memory, and no bank conflicts.
#[test]
fn small_operations_move_their_rows_once() {
    let Some(gpu) = Gpu::open(80) else { return };
    let Some(soft) = &gpu.soft else { return };
    soft.options(&Options { record_launches: true, ..Options::default() });
    let mut t = gpu.twin::<bf16>();
    let (n, dim, hidden_dim) = (2, 4096, 14336);
    let attn = AttnShape { n_heads: 32, n_kv_heads: 8, head_dim: 128, window: None };
    let (q_dim, kv_dim) = (attn.q_dim(), attn.kv_dim());
    let plan = plan(n, &[0, 1]);
    let step = t.step(&plan, capacity(&plan));
    let mut x = t.residual(n, dim, &normal(1, n * dim));
    let (table, w) = (t.weight(7, dim, &normal(2, 7 * dim)), t.vector(&normal(3, dim)));
    let mut h = t.acts(n, dim, &vec![0.0; n * dim]);
    let mut last = t.acts(n, dim, &vec![0.0; n * dim]);
    let mut qkv = t.acts(n, q_dim + 2 * kv_dim, &normal(4, n * (q_dim + 2 * kv_dim)));
    let mut kv = t.kv(attn, KvFormat::Bf16, &vec![0.0; n * kv_dim], &vec![0.0; n * kv_dim]);
    let gate_up = t.acts(n, 2 * hidden_dim, &normal(5, n * 2 * hidden_dim));
    let mut ffn = t.acts(n, hidden_dim, &vec![0.0; n * hidden_dim]);
    let freqs = t.vector(&inv_freq(128));
    soft.take_launches();
    t.cuda.embed(&mut x.cuda, &table.cuda, &step.cuda).unwrap();
    t.cuda.rms_norm(&mut h.cuda, &x.cuda, &w.cuda, 1e-5).unwrap();
    t.cuda.rope_store(&mut qkv.cuda, &mut kv.cuda, &step.cuda, &freqs.cuda, attn).unwrap();
    t.cuda.swiglu(&mut ffn.cuda, &gate_up.cuda).unwrap();
    t.cuda.take_rows(&mut last.cuda, &h.cuda, &step.cuda).unwrap();
    t.download(&last.cuda);
    let launches = soft.take_launches();
    assert_eq!(launches.len(), 5);
    let kib = |bytes: usize| bytes as u64;
    // (kernel, bytes loaded, bytes stored) beside positions, ids and slots: a few bytes a thread at most.
    let expected = [
        ("embed", kib(n * dim * 2), kib(n * dim * 4)),
        ("rms_norm_8", kib(n * dim * 4 + n * dim * 4), kib(n * dim * 2)), // x, and w for every row
        ("rope_store", kib(n * (q_dim + 2 * kv_dim) * 2), kib(n * (q_dim + 3 * kv_dim) * 2)),
        ("swiglu", kib(n * hidden_dim * 4), kib(n * hidden_dim * 2)),
        ("take_rows", kib(n * dim * 2), kib(n * dim * 2)),
    ];
    for (launch, (kernel, loaded, stored)) in launches.iter().zip(expected) {
        let counters = &launch.counters;
        eprintln!(
            "{kernel}: {} bytes loaded, {} stored, {} sectors for {} requests, {} bank conflicts",
            counters.global_load_bytes_requested,
            counters.global_store_bytes_requested,
            counters.global_sectors,
            counters.global_requests,
            counters.bank_conflicts()
        );
        assert_eq!(launch.kernel, kernel);
        assert_eq!(counters.global_store_bytes_requested, stored, "{kernel}: stored");
        let beside = counters.global_load_bytes_requested - loaded;
        let threads = u64::from(launch.grid.iter().product::<u32>() * launch.block.iter().product::<u32>());
        assert!(beside <= 12 * threads, "{kernel}: loads {beside} bytes beside its rows");
        assert_eq!(counters.bank_conflicts(), 0, "{kernel}");
    }
}
