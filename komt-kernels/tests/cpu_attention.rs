//! Attention on the CPU where its work is cut: blocks of rows, parts of long contexts, and the number of threads. Against the
//! scalar reference, and against itself bit for bit.
#![allow(clippy::unwrap_used)]

use komt_cache::{Logits, PAGE, PagePool, PageTable, StepPlan};
use komt_kernels::{AttnShape, Backend, Cpu, CpuOptions, Isa, KvFormat, KvLayer, Rows, Step, StepCapacity};

/// Roundings of sums whose terms have one sign, and of `exp` (see `backend_ops.rs`); scores are sums of head_dim terms of both
/// signs, and their error of sqrt(head_dim / 6) * 2^-24 times a size of sqrt(head_dim) is that of the weights: squared, for the
/// 64 columns here, 64^2 / 6 * 2^-48 = 2.4e-12 over scores scaled by 1 / 8, so 64 times less. Three times all that.
const BOUND: f64 = 3e-12;

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| 2.0 * (uniform() + uniform() + uniform())).collect()
}

fn nmse(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    error / b.iter().map(|&b| square(f64::from(b))).sum::<f64>()
}

/// Contexts of a few sequences, with the queries of every position of theirs that a test wants.
struct Case {
    attn: AttnShape,
    tables: Vec<PageTable>,
    table_len: usize,
    n_slots: usize,
    format: KvFormat,
}

impl Case {
    fn new(attn: AttnShape, format: KvFormat, lens: &[usize]) -> Self {
        let table_len = lens.iter().max().unwrap().div_ceil(PAGE);
        let mut pool = PagePool::new(table_len * lens.len());
        let mut tables: Vec<PageTable> = lens.iter().map(|_| PageTable::new(table_len)).collect();
        // Page by page in turn: those of a sequence are apart.
        for i in 0..table_len {
            for (table, &len) in tables.iter_mut().zip(lens) {
                table.extend(&mut pool, len.min((i + 1) * PAGE) - len.min(i * PAGE)).unwrap();
            }
        }
        Self { attn, tables, table_len, n_slots: table_len * lens.len() * PAGE, format }
    }

    /// The output of rows `(sequence, first position, rows)`, all in one step. A query depends on its sequence and position.
    fn run(&self, isa: Isa, threads: usize, chunks: &[(usize, usize, usize)]) -> Vec<f32> {
        let mut cpu = Cpu::with(CpuOptions::default().isa(isa).threads(threads)).unwrap();
        let attn = self.attn;
        let cols = attn.q_dim() + 2 * attn.kv_dim();
        let (mut plan, mut queries) = (StepPlan::new(self.table_len), vec![]);
        for &(seq, start, n) in chunks {
            plan.push(&self.tables[seq], start, &vec![1; n], Logits::Last);
            (start..start + n).for_each(|pos| queries.extend(noise((seq * 100_000 + pos) as u64, cols)));
        }
        let dims = plan.dims();
        let capacity = StepCapacity {
            max_tokens: dims.n_tokens,
            max_seqs: dims.n_seqs,
            max_logits: dims.n_logits,
            table_len: self.table_len,
        };
        let mut step = Step::<Cpu>::alloc(&mut cpu, capacity).unwrap();
        step.load(&mut cpu, &plan).unwrap();
        let kv = self.kv(&mut cpu);
        let mut qkv = Rows::<Cpu, f32>::alloc(&mut cpu, dims.n_tokens, cols).unwrap();
        let mut out = Rows::<Cpu, f32>::alloc(&mut cpu, dims.n_tokens, attn.q_dim()).unwrap();
        (qkv.rows, out.rows) = (dims.n_tokens, dims.n_tokens);
        cpu.upload(&mut qkv.buf, &queries).unwrap();
        cpu.attention(&mut out, &qkv, &kv, &step, attn).unwrap();
        out.buf
    }

    fn kv(&self, cpu: &mut Cpu) -> KvLayer<Cpu> {
        let mut kv = KvLayer::<Cpu>::alloc(cpu, self.n_slots, self.attn, self.format).unwrap();
        let kv_dim = self.attn.kv_dim();
        let (k, v) = (noise(5, self.n_slots * kv_dim), noise(6, self.n_slots * kv_dim));
        for (slot, (k, v)) in k.chunks_exact(kv_dim).zip(v.chunks_exact(kv_dim)).enumerate() {
            kv.store(slot, k, v);
        }
        kv
    }
}

fn fast() -> Vec<Isa> {
    Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar).collect()
}

/// Contexts that end before, at and behind the borders of pages and of parts (512 keys), with windows that begin there.
#[test]
fn long_contexts_equal_the_reference() {
    let shape = |n_heads, n_kv_heads, window| AttnShape { n_heads, n_kv_heads, head_dim: 64, window };
    let shapes = [shape(4, 1, None), shape(3, 3, Some(600)), shape(9, 1, Some(512)), shape(6, 2, Some(1200))];
    for (attn, format) in shapes.into_iter().zip(KvFormat::ALL) {
        let case = Case::new(attn, format, &[1700, 1100]);
        let chunks =
            [511, 512, 513, 1023, 1024, 1025, 1111, 1112, 1535, 1536, 1537, 1699].map(|pos| (0, pos, 1));
        let reference = case.run(Isa::Scalar, 1, &chunks);
        let rows = [(1, 0, 70), (1, 500, 40), (0, 1015, 33)];
        let reference_rows = case.run(Isa::Scalar, 1, &rows);
        for isa in fast() {
            for threads in [1, 3] {
                let error = nmse(&case.run(isa, threads, &chunks), &reference);
                assert!(error < BOUND, "{isa:?} {attn:?} {threads} threads: {error:e}");
                let error = nmse(&case.run(isa, threads, &rows), &reference_rows);
                assert!(error < BOUND, "{isa:?} {attn:?} {threads} threads, rows: {error:e}");
            }
        }
    }
}

/// The same bits alone and in a block of rows, alone and in a batch, on one thread and on more than there are tasks.
#[test]
fn bits_depend_on_the_position_alone() {
    let shape = |n_heads, n_kv_heads, head_dim, window| AttnShape { n_heads, n_kv_heads, head_dim, window };
    let shapes = [
        shape(8, 2, 16, None),
        shape(3, 1, 40, Some(700)),
        shape(2, 2, 7, Some(17)),
        shape(20, 2, 8, Some(530)), // more heads a key head than pass together
    ];
    for (attn, format) in shapes.into_iter().zip(KvFormat::ALL) {
        let case = Case::new(attn, format, &[1200, 90]);
        for isa in fast() {
            let whole = case.run(isa, 2, &[(0, 480, 600), (1, 0, 90)]);
            let row = |pos: usize| &whole[(pos - 480) * attn.q_dim()..][..attn.q_dim()];
            for pos in [480, 481, 511, 512, 527, 528, 640, 1023, 1024, 1079] {
                for threads in [1, 2, 5, 16] {
                    let alone = case.run(isa, threads, &[(0, pos, 1)]);
                    assert_eq!(alone, row(pos), "{isa:?} {attn:?} position {pos}, {threads} threads");
                }
            }
            let chunked = case.run(isa, 5, &[(1, 0, 7), (0, 480, 43), (1, 7, 83), (0, 523, 557)]);
            let (a, b) = (7 * attn.q_dim(), 43 * attn.q_dim());
            let (c, d) = (83 * attn.q_dim(), 600 * attn.q_dim());
            assert_eq!(chunked[a..][..b], whole[..b], "{isa:?} {attn:?}");
            assert_eq!(chunked[a + b + c..], whole[b..d], "{isa:?} {attn:?}");
            assert_eq!(chunked[..a], whole[d..][..a], "{isa:?} {attn:?}");
            assert_eq!(chunked[a + b..][..c], whole[d + a..], "{isa:?} {attn:?}");
        }
    }
}
