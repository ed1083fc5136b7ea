//! CUDA attention, decode and prefill, on every architecture, against the scalar CPU.
//!
//! Bound: the weights of the softmax are rounded to the 16-bit type for their product with v, and the output is: two independent
//! roundings. A weighted sum of values of random sign takes over the relative error of its weights:
//! `sum (d_j w_j v_j)^2 / sum (w_j v_j)^2` is the mean of `d_j^2`. Scores, maxima and sums are f32 (1e-12 and less).
//!
//! With a cache in 8 bits, of whose numbers the CPU has the same, a weight is rounded with its value's scale in it. Where one key has
//! all the weight, that is one rounding for all numbers of its group's heads: too few for a mean. Each is off by half the distance
//! of neighbours at most, of the number itself 2^-8 (bf16), 2^-11 (f16).

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod cuda_support;

use cuda_support::{Gpu, Twin, bound, compare, normal};
use half::{bf16, f16};
use komt_cache::{Logits, PAGE, PagePool, PageTable, StepPlan, first_visible, ring_len};
use komt_kernels::cuda::CudaAct;
use komt_kernels::{AttnShape, Backend, KvFormat, StepCapacity};
use komt_softgpu::exec::RunOptions;
use komt_softgpu::{Guard, LaunchRecord, Options};

/// A step over sequences in permuted pages of rings as short as the window allows.
struct Fixture {
    attn: AttnShape,
    plan: StepPlan,
    n_slots: usize,
}

fn shape(n_heads: usize, n_kv_heads: usize, head_dim: usize, window: Option<usize>) -> AttnShape {
    AttnShape { n_heads, n_kv_heads, head_dim, window }
}

/// `seqs`: first position and rows of each.
fn fixture(attn: AttnShape, seqs: &[(usize, usize)]) -> Fixture {
    let max_chunk = seqs.iter().map(|&(_, n)| n).max().unwrap();
    let max_len = seqs.iter().map(|&(start, n)| start + n).max().unwrap();
    let table_len = ring_len(attn.window, max_chunk, max_len);
    let n_pages = table_len * seqs.len() + 7;
    let mut pool = PagePool::new(n_pages);
    // Every page is taken and given back in another order.
    let mut pages: Vec<u32> = std::iter::from_fn(|| pool.take()).collect();
    pages.sort_unstable_by_key(|&page| page * 7919 % 251);
    pages.iter().for_each(|&page| pool.release(page));
    let mut plan = StepPlan::new(table_len);
    for &(start, n) in seqs {
        let mut table = PageTable::new(table_len);
        (0..start).for_each(|_| table.extend(&mut pool, 1).unwrap());
        table.extend(&mut pool, n).unwrap();
        plan.push(&table, start, &vec![0; n], Logits::Last);
    }
    Fixture { attn, plan, n_slots: n_pages * PAGE }
}

impl Fixture {
    /// Slots that a row of the step sees; padding rows see none.
    fn seen(&self) -> Vec<bool> {
        let (plan, table_len) = (&self.plan, self.plan.table_len());
        let mut seen = vec![false; self.n_slots];
        for r in (0..plan.n_tokens()).filter(|&r| plan.slots[r] != komt_cache::PAD_SLOT) {
            let table = &plan.pages[plan.seq_of[r] as usize * table_len..][..table_len];
            let pos = plan.positions[r] as usize;
            for j in first_visible(pos, self.attn.window)..=pos {
                seen[table[(j / PAGE) % table_len] as usize * PAGE + j % PAGE] = true;
            }
        }
        seen
    }

    /// The cache's numbers, NaN in slots that no row may see.
    fn cache(&self, seed: u64) -> Vec<f32> {
        let kv_dim = self.attn.kv_dim();
        let mut cache = normal(seed, self.n_slots * kv_dim);
        for (slot, _) in self.seen().iter().enumerate().filter(|(_, seen)| !**seen) {
            cache[slot * kv_dim..][..kv_dim].fill(f32::NAN);
        }
        cache
    }

    fn capacity(&self) -> StepCapacity {
        let dims = self.plan.dims();
        StepCapacity {
            max_tokens: dims.n_tokens + 3,
            max_seqs: dims.n_seqs + 1,
            max_logits: dims.n_logits,
            table_len: self.plan.table_len(),
        }
    }

    /// Compares the step's attention with the CPU's; the device's output.
    fn check<A: CudaAct>(&self, t: &mut Twin<A>, what: &str) -> Vec<f32> {
        let [native, q8] = Twin::<A>::kv_formats();
        self.check_in(t, q8, what);
        self.check_in(t, native, what)
    }

    /// The same with a cache in this format.
    fn check_in<A: CudaAct>(&self, t: &mut Twin<A>, format: KvFormat, what: &str) -> Vec<f32> {
        let what = &format!("{what} {format}");
        let (n, q_dim, kv_dim) = (self.plan.n_tokens(), self.attn.q_dim(), self.attn.kv_dim());
        let step = t.step(&self.plan, self.capacity());
        let kv = t.kv(self.attn, format, &self.cache(5), &self.cache(6));
        let qkv = t.acts(n, q_dim + 2 * kv_dim, &normal(7, n * (q_dim + 2 * kv_dim)));
        let mut out = t.acts(n, q_dim, &vec![9.0; n * q_dim]);
        t.cpu.attention(&mut out.cpu, &qkv.cpu, &kv.cpu, &step.cpu, self.attn).unwrap();
        t.cuda.attention(&mut out.cuda, &qkv.cuda, &kv.cuda, &step.cuda, self.attn).unwrap();
        let found = t.download(&out.cuda);
        // The CPU has no answer for padding rows that see slot 0 when that is poison; they are zero here.
        for r in 0..n {
            if self.plan.slots[r] == komt_cache::PAD_SLOT {
                assert!(found[r * q_dim..][..q_dim].iter().all(|&v| v == 0.0), "{what}: padding row {r}");
                out.cpu.buf[r * q_dim..][..q_dim].fill(0.0);
            }
        }
        assert!(out.cpu.buf.iter().all(|v| v.is_finite()), "{what}: the reference read poison");
        let nmse = compare(what, &out.cpu.buf[..n * q_dim], &found, q_dim, bound_with::<A>(format));
        eprintln!("{what}: NMSE {nmse:.2e}");
        found
    }
}

/// The bound for a cache in this format.
fn bound_with<A: CudaAct>(format: KvFormat) -> f64 {
    match format {
        KvFormat::Q8 => bound::<A>() / 2.0 + if A::IS_F16 { 2f64.powi(-22) } else { 2f64.powi(-16) },
        _ => bound::<A>(),
    }
}

macro_rules! on_each {
    ($test:ident) => {
        $test::<f16>(75);
        $test::<bf16>(80);
        $test::<f16>(80);
        $test::<bf16>(90);
        $test::<bf16>(120);
    };
}

/// Groups of 1 to 8, and more than one pass takes (9, 16).
const GROUPS: [(usize, usize); 6] = [(4, 4), (8, 2), (6, 2), (7, 1), (9, 1), (16, 1)];

#[test]
fn decode_equals_the_reference_and_reads_nothing_else() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        // Around a page (16), a split (128: then there are several, and some of them empty), a ring that has wrapped.
        let lengths = [(0, 1), (14, 1), (15, 1), (16, 1), (127, 1), (128, 1), (300, 1)];
        for head_dim in [64, 96, 128] {
            for (i, (n_heads, n_kv_heads)) in GROUPS.into_iter().enumerate() {
                // Every window with every width and architecture, and every group with some.
                let windows = [None, Some(1), Some(15), Some(16), Some(17), Some(200)];
                let window = windows[(i + head_dim / 32 + sm as usize) % windows.len()];
                let attn = shape(n_heads, n_kv_heads, head_dim, window);
                fixture(attn, &lengths).check(&mut t, &format!("decode sm_{sm} {attn:?}"));
            }
        }
        let attn = shape(8, 2, 128, None);
        fixture(attn, &[(1000, 1)]).check(&mut t, &format!("decode sm_{sm} alone, in splits, {attn:?}"));
    }
    on_each!(test);
}

#[test]
fn prefill_equals_the_reference_and_reads_nothing_else() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        for head_dim in [64, 96, 128] {
            for (i, (n_heads, n_kv_heads)) in GROUPS.into_iter().enumerate() {
                // Chunks around a tile of 64 / group tokens; keys around tiles of 64.
                let tokens = 64 / (n_heads / n_kv_heads);
                let seqs = [(0, tokens), (63, tokens - 1), (64, tokens + 1), (1, 2)];
                let windows = [Some(63), Some(64), Some(65), None, Some(1), Some(17)];
                let window = windows[(i + head_dim / 32 + sm as usize) % windows.len()];
                let attn = shape(n_heads, n_kv_heads, head_dim, window);
                fixture(attn, &seqs).check(&mut t, &format!("prefill sm_{sm} {attn:?} {seqs:?}"));
            }
        }
        // A long chunk alone; then decoding sequences, chunks and a chunk of one row in one step; more than 32 sequences.
        let attn = shape(8, 2, 128, Some(100));
        fixture(attn, &[(150, 70)]).check(&mut t, &format!("prefill sm_{sm} alone {attn:?}"));
        fixture(attn, &[(70, 1), (0, 1), (3, 20), (31, 2), (200, 1), (130, 33), (5, 1)])
            .check(&mut t, &format!("mixed sm_{sm} {attn:?}"));
        let many: Vec<_> = (0..40).map(|i| (i * 3, 1 + i % 3)).collect();
        fixture(shape(2, 1, 64, None), &many).check(&mut t, &format!("many sm_{sm}"));
    }
    on_each!(test);
}

#[test]
fn padding_rows_read_nothing_and_are_zero() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        for lengths in [&[(40, 1), (300, 1), (5, 1)][..], &[(3, 1)]] {
            let mut fixture = fixture(shape(8, 2, 64, None), lengths);
            fixture.plan.pad_to(8);
            fixture.check(&mut t, &format!("padded sm_{sm} {lengths:?}"));
        }
    }
    on_each!(test);
}

/// What a row gets does not depend on who shares its step: the same bits from the same kernels.
#[test]
fn a_sequence_has_the_same_bits_in_any_company() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let attn = shape(8, 2, 64, Some(50));
    let first = fixture(attn, &[(60, 20), (90, 20)]);
    let out = first.check(&mut t, "two chunks");
    let alone = {
        let mut plan = StepPlan::new(first.plan.table_len());
        plan.ids = first.plan.ids[..20].to_vec();
        plan.positions = first.plan.positions[..20].to_vec();
        plan.slots = first.plan.slots[..20].to_vec();
        plan.seq_of = vec![0; 20];
        plan.q_start = vec![0, 20];
        plan.pages = first.plan.pages[..first.plan.table_len()].to_vec();
        plan
    };
    // The cache of both, the rows of one: NaN where the other's keys are.
    let alone = Fixture { attn, plan: alone, n_slots: first.n_slots }.check(&mut t, "one of them");
    assert_eq!(out[..alone.len()], alone);
}

/// Whatever order warps run in, and whenever their copies arrive.
#[test]
fn the_order_of_warps_changes_no_bit() {
    let Some(gpu) = Gpu::open(80) else { return };
    let Some(soft) = &gpu.soft else { return };
    let mut t = gpu.twin::<bf16>();
    let fixture = fixture(shape(8, 2, 64, Some(300)), &[(400, 1), (20, 1), (100, 33)]);
    let mut first = None;
    for seed in 0..6 {
        soft.options(&Options { run: RunOptions { seed, ..RunOptions::default() }, ..Options::default() });
        let out = fixture.check(&mut t, &format!("seed {seed}"));
        assert_eq!(*first.get_or_insert_with(|| out.clone()), out, "seed {seed}");
    }
}

#[test]
fn attention_by_eye() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        let attn = shape(1, 1, 64, None);
        // The query points far at the key of position 1: its value is the answer. In a decode step, and as row 2 of a chunk,
        // of which row 0 sees itself alone.
        for (start, n) in [(2, 1), (0, 3)] {
            let fixture = fixture(attn, &[(start, n)]);
            let step = t.step(&fixture.plan, fixture.capacity());
            let (mut k, mut v) = (fixture.cache(5), fixture.cache(6));
            let page = fixture.plan.pages[0] as usize * PAGE;
            for pos in 0..3 {
                k[(page + pos) * 64..][..64].fill(if pos == 1 { 1.0 } else { -1.0 });
                v[(page + pos) * 64..][..64].fill(5.0 + pos as f32);
            }
            for format in Twin::<A>::kv_formats() {
                let kv = t.kv(attn, format, &k, &v);
                let qkv = t.acts(n, 192, &vec![10.0; n * 192]);
                let mut out = t.acts(n, 64, &vec![0.0; n * 64]);
                t.cuda.attention(&mut out.cuda, &qkv.cuda, &kv.cuda, &step.cuda, attn).unwrap();
                let out = t.download(&out.cuda);
                // Of 8 bits a value's scale, 6 / 127, is rounded.
                let expected = |value: f32, found: f32| (found - value).abs() <= value / 256.0;
                let is_exact = format != KvFormat::Q8;
                assert!(out[(n - 1) * 64..].iter().all(|&found| expected(6.0, found)), "sm_{sm} {format}");
                assert!(!is_exact || out[(n - 1) * 64..] == [6.0; 64], "sm_{sm} {format}");
                assert!(expected(if n == 3 { 5.0 } else { 6.0 }, out[0]), "sm_{sm} {format}");
            }
        }
    }
    on_each!(test);
}

/// Mistral 7B's shapes, context 1024: each byte of K and V is asked for once, and nobody waits for a bank.
#[test]
fn keys_and_values_are_read_once_without_bank_conflicts() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let Some(soft) = &gpu.soft else { return };
        soft.options(&Options { record_launches: true, ..Options::default() });
        let mut t = gpu.twin::<A>();
        for head_dim in [64, 96, 128] {
            let attn = shape(32, 8, head_dim, Some(4096));
            for format in Twin::<A>::kv_formats() {
                for (start, n) in [(1023, 1), (960, 64)] {
                    let what = format!("sm_{sm} {format}");
                    reads_once(&mut t, soft, &fixture(attn, &[(start, n)]), format, &what);
                }
            }
        }
    }
    test::<f16>(75);
    test::<bf16>(80);
    test::<f16>(80);
    test::<bf16>(90);
}

/// The step's launches, each with the bytes that it asks of K and of V.
fn launched<A: CudaAct>(
    t: &mut Twin<A>,
    soft: &Guard,
    fixture: &Fixture,
    format: KvFormat,
) -> Vec<(LaunchRecord, [u64; 2])> {
    let (attn, n) = (fixture.attn, fixture.plan.n_tokens());
    let (q_dim, kv_dim) = (attn.q_dim(), attn.kv_dim());
    let step = t.step(&fixture.plan, fixture.capacity());
    let kv = t.kv(attn, format, &fixture.cache(5), &fixture.cache(6));
    let qkv = t.acts(n, q_dim + 2 * kv_dim, &normal(7, n * (q_dim + 2 * kv_dim)));
    let mut out = t.acts(n, q_dim, &vec![9.0; n * q_dim]);
    soft.take_launches();
    t.cuda.attention(&mut out.cuda, &qkv.cuda, &kv.cuda, &step.cuda, attn).unwrap();
    t.download(&out.cuda);
    let asked = |launch: LaunchRecord| {
        let used = &launch.counters.allocations;
        let bytes = [kv.cuda.k.ptr(), kv.cuda.v.ptr()]
            .map(|addr| used.get(&addr).map_or(0, |used| used.loaded_requested));
        (launch, bytes)
    };
    soft.take_launches().into_iter().map(asked).collect()
}

fn reads_once<A: CudaAct>(t: &mut Twin<A>, soft: &Guard, fixture: &Fixture, format: KvFormat, what: &str) {
    let size = (1024 * format.token_bytes(fixture.attn) / 2) as f64; // scales, too
    for (launch, bytes) in launched(t, soft, fixture, format) {
        let (counters, [k, v]) = (&launch.counters, bytes.map(|bytes| bytes as f64 / size));
        eprintln!(
            "{what} {}: K {k:.3}, V {v:.3} of their size; {} sectors for {} requests; {} of {} wavefronts are conflicts",
            launch.kernel,
            counters.global_sectors,
            counters.global_requests,
            counters.bank_conflicts(),
            counters.shared_wavefronts
        );
        if launch.kernel.contains("decode") {
            assert!(k > 0.98 && k <= 1.02 && v > 0.98 && v <= 1.02, "{}: K {k}, V {v}", launch.kernel);
        }
        assert_eq!(counters.bank_conflicts(), 0, "{}", launch.kernel);
    }
}

/// Tiles and pages outside of the window cost nothing: how far a sequence has come changes neither instructions nor bytes.
#[test]
fn what_is_outside_of_the_window_is_skipped() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let Some(soft) = &gpu.soft else { return };
        soft.options(&Options { record_launches: true, ..Options::default() });
        let mut t = gpu.twin::<A>();
        // A chunk; decoding, with one split and with several.
        for (head_dim, (window, n)) in
            [64, 96, 128].into_iter().flat_map(|dim| [(64, 40), (64, 1), (256, 1)].map(|case| (dim, case)))
        {
            let attn = shape(8, 2, head_dim, Some(window));
            for format in Twin::<A>::kv_formats() {
                let mut work = |start: usize| -> Vec<(String, u64, [u64; 2])> {
                    let launches = launched(&mut t, soft, &fixture(attn, &[(start, n)]), format);
                    let of = |(launch, bytes): (LaunchRecord, [u64; 2])| {
                        let n_instructions = launch.counters.thread_instructions();
                        (launch.kernel, n_instructions, bytes)
                    };
                    launches.into_iter().map(of).collect()
                };
                // The same place in tiles of 64 keys and in the ring, some 3000 keys later.
                let ring = PAGE * ring_len(attn.window, n, usize::MAX);
                let later = 1000 + 3000usize.next_multiple_of(4 * ring);
                let (near, far) = (work(1000), work(later));
                eprintln!("sm_{sm} {format} at 1000 and {later}: {near:?}");
                assert_eq!(near, far, "sm_{sm} {format} {attn:?}: {n} rows at 1000 and at {later}");
                // Keys that some row sees, once for each tile of queries: 16 tokens, of which the last has the rest.
                let tiles: Vec<usize> = (0..n).step_by(16).map(|at| (n - at).min(16)).collect();
                let n_keys: usize = tiles.iter().map(|tokens| window + tokens - 1).sum();
                let bytes = (n_keys * format.token_bytes(attn) / 2) as u64;
                assert_eq!(near[0].2, [bytes; 2], "sm_{sm} {format} {attn:?}: {n} rows, bytes of K and V");
            }
        }
    }
    on_each!(test);
}
