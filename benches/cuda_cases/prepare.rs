//! A case's inputs on a device.

use super::{ATTN, Case, DIM, HIDDEN_DIM, Op, VOCAB_SIZE};
use half::{bf16, f16};
use komt_cache::{Logits, PAGE, PagePool, PageTable, StepPlan, ring_len};
use komt_kernels::cuda::CudaAct;
use komt_kernels::quant::QuantLayout;
use komt_kernels::{
    Backend, Cpu, Cuda, Elem, HostWeight, KvBuf, KvFormat, KvLayer, Result, RowBuf, Rows, Step, StepCapacity,
    WeightFormat,
};

/// A number that cases are made of.
pub trait Number: Elem {
    fn from_f32(value: f32) -> Self;
}
impl Number for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
}
impl Number for bf16 {
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
}
impl Number for f16 {
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
}

/// A backend that cases run on.
pub trait Device: Backend<Act: Number> {
    /// The device's address of a matrix; 0 where nobody asks.
    fn weight_at(_weight: &Self::Weight) -> u64 {
        0
    }
    /// Those of keys and values.
    fn kv_at(_kv: &KvLayer<Self>) -> [u64; 2] {
        [0, 0]
    }
}
impl Device for Cpu {}
impl<A: CudaAct + Number> Device for Cuda<A> {
    fn weight_at(weight: &Self::Weight) -> u64 {
        weight.ptr()
    }
    fn kv_at(kv: &KvLayer<Self>) -> [u64; 2] {
        [kv.k.ptr(), kv.v.ptr()]
    }
}

/// The results of a case; each operation writes one of them.
pub struct Outs<B: Backend> {
    pub(super) act: Rows<B, B::Act>,
    pub(super) f32: Rows<B, f32>,
    pub(super) ids: B::Buf<u32>,
}

type Run<B> = Box<dyn FnMut(&mut B, &mut Outs<B>) -> Result<()> + Send>;

/// A case with its inputs on the device.
pub struct Ready<B: Backend> {
    /// Addresses of the weights, or of the keys and values.
    pub streamed_at: Vec<u64>,
    pub(super) outs: Outs<B>,
    run: Run<B>,
}

impl<B: Backend> Ready<B> {
    /// Launches it.
    pub fn run(&mut self, b: &mut B) -> Result<()> {
        (self.run)(b, &mut self.outs)
    }

    /// Waits for what was launched.
    pub fn wait(&self, b: &mut B) -> Result<()> {
        b.download(&mut [0.0], &self.outs.f32.buf)
    }
}

/// Numbers of deviation 1, each a hash of its place, representable in `format`. They repeat after 2^16, so that large
/// matrices are made quickly.
fn noise(seed: u64, n: usize, format: WeightFormat) -> Vec<f32> {
    let value = |i: usize| {
        let mut z = (i as u64 ^ seed << 40).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let part = |shift: u32| (z >> shift & 0xffff) as f32 / 65536.0 - 0.5;
        let value = 1.732_050_8 * (part(0) + part(16) + part(32) + part(48));
        match format {
            WeightFormat::F32 => value,
            WeightFormat::F16 => f16::from_f32(value).to_f32(),
            WeightFormat::Bf16 => bf16::from_f32(value).to_f32(),
            WeightFormat::Q8 | WeightFormat::Q4 => unreachable!("not stored number by number"),
        }
    };
    let period: Vec<f32> = (0..n.min(65_521)).map(value).collect(); // a prime: no two rows are alike
    period.iter().copied().cycle().take(n).collect()
}

fn upload<B: Backend, T: Number>(b: &mut B, values: &[f32]) -> Result<B::Buf<T>> {
    let values: Vec<T> = values.iter().map(|&value| T::from_f32(value)).collect();
    let mut buf = b.alloc::<T>(values.len())?;
    b.upload(&mut buf, &values)?;
    Ok(buf)
}

fn rows<B: Backend, T: Number>(b: &mut B, values: &[f32], cols: usize) -> Result<Rows<B, T>> {
    let n = values.len() / cols;
    Ok(RowBuf { buf: upload::<B, T>(b, values)?, rows: n, cols, max_rows: n })
}

/// 0 to n - 1, over and over.
fn turns(n: usize) -> impl FnMut() -> usize + Send {
    let mut turn = (0..n).cycle();
    move || turn.next().unwrap_or(0)
}

/// `copies` of a matrix, of deviation 1 / sqrt(cols) so that results have deviation 1. f16 and bf16 alike hold it exactly when
/// the factor is a power of two: the next one below.
fn weights<B: Backend>(
    b: &mut B,
    (outs, cols): (usize, usize),
    format: WeightFormat,
    copies: usize,
) -> Result<Vec<B::Weight>> {
    if format.is_quantised() {
        let bytes = quant_bytes(QuantLayout::new(format, outs, cols));
        let weight = HostWeight { rows: outs, cols, format, parts: &[&bytes] };
        return (0..copies).map(|_| b.load_weight(weight)).collect();
    }
    let factor = 0.5f32.powi((cols as f32).sqrt().log2().ceil() as i32);
    let values = noise(1, 65_521, format).into_iter().map(|value| value * factor);
    let period: Vec<[u8; 2]> = match format {
        WeightFormat::F16 => values.map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        _ => values.map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
    };
    let mut bytes = Vec::with_capacity(outs * cols * 2 + period.len() * 2);
    while bytes.len() < outs * cols * 2 {
        bytes.extend_from_slice(period.as_flattened());
    }
    bytes.truncate(outs * cols * 2);
    (0..copies).map(|_| b.load_weight(HostWeight { rows: outs, cols, format, parts: &[&bytes] })).collect()
}

/// Any bytes are a quantised matrix; row scales are such that results have about deviation 1.
fn quant_bytes(layout: QuantLayout) -> Vec<u8> {
    let hash = |i: usize| (i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    // A prime: no two rows are alike. -127 is the least scale.
    let period: Vec<u8> = (0..65_521).map(|i| hash(i)[7]).map(|byte| byte.max(1)).collect();
    let mut bytes: Vec<u8> = period.iter().copied().cycle().take(layout.size_bytes()).collect();
    let quant_deviation = if layout.format == WeightFormat::Q8 { 74.0 } else { 4.6 };
    let row_scale = 1.0 / (73.0 * quant_deviation * (layout.cols as f32).sqrt());
    let (first, end) = (layout.quants_bytes(), layout.scales_at());
    for scale in bytes[first..end].as_chunks_mut::<4>().0 {
        *scale = row_scale.to_le_bytes();
    }
    for scale in &mut bytes[end..] {
        *scale = if *scale == 0x80 { 0x81 } else { *scale };
    }
    bytes
}

impl Case {
    /// Logits of its rows.
    pub(super) fn logits(&self) -> Vec<f32> {
        noise(10, self.rows * VOCAB_SIZE, WeightFormat::F32)
    }

    /// What is pooled, and the rows' weights.
    pub(super) fn pooled(&self, format: WeightFormat) -> [Vec<f32>; 2] {
        [noise(9, self.rows * DIM, format), noise(11, self.rows, WeightFormat::F32)]
    }

    /// The cache beside activations in `format`.
    fn kv_beside(&self, format: WeightFormat) -> KvFormat {
        match self.kv_format() {
            KvFormat::Bf16 if format == WeightFormat::F16 => KvFormat::F16,
            other => other,
        }
    }

    /// The sequences' step, and the slots of a cache that has room for them.
    fn plan(&self) -> (StepPlan, usize) {
        let sequences = self.sequences();
        let longest = sequences.iter().map(|one| one.0).max().unwrap_or(1);
        let table_len = ring_len(ATTN.window, self.rows, longest);
        let mut pool = PagePool::new(table_len * sequences.len());
        let mut plan = StepPlan::new(table_len);
        for (context, n) in sequences {
            let mut table = PageTable::new(table_len);
            table.extend(&mut pool, context).expect("the pool has a table's pages for each");
            let ids: Vec<u32> = (0..n as u32).map(|i| i * 7919 % VOCAB_SIZE as u32).collect();
            let logits = if self.op == Op::TakeRows { Logits::All } else { Logits::Last };
            plan.push(&table, context - n, &ids, logits);
        }
        (plan, pool.n_pages() * PAGE)
    }

    /// The inputs on `b`; matrices and caches are there `copies` times and taken in turn, so that they come from memory rather than
    /// from a cache.
    pub fn prepare<B: Device>(&self, b: &mut B, format: WeightFormat, copies: usize) -> Result<Ready<B>> {
        let (n, attn) = (self.rows, self.attn());
        let qkv_dim = attn.q_dim() + 2 * attn.kv_dim();
        let (act_cols, f32_cols) = match self.op {
            Op::Matmul(outs, _) => (outs, 1),
            Op::MatmulSwiglu(outs, _) => (outs / 2, 1),
            Op::MatmulAdd(outs, _) | Op::MatmulF32(outs, _) => (1, outs),
            Op::Embed => (1, DIM),
            Op::RopeStore => (qkv_dim, 1),
            Op::Swiglu => (HIDDEN_DIM, 1),
            Op::RmsNorm | Op::TakeRows => (DIM, 1),
            Op::Decode(_) | Op::Prefill(_) => (attn.q_dim(), 1),
            Op::Argmax => (1, 1),
            Op::TopCandidates(k) => (1, k),
            Op::Pool(_) => (1, DIM),
        };
        let n_sums = if let Op::Pool(n_seqs) = self.op { n_seqs } else { n };
        let n_ids = if let Op::TopCandidates(k) = self.op { n * k } else { n };
        let qkv = || noise(5, n * qkv_dim, format);
        let act = if self.op == Op::RopeStore { qkv() } else { vec![0.0; n * act_cols] };
        let outs = Outs {
            act: rows(b, &act, act_cols)?,
            f32: rows(b, &vec![0.0; n_sums * f32_cols], f32_cols)?,
            ids: b.alloc::<u32>(n_ids)?,
        };
        let (streamed_at, run) = match self.matrix() {
            Some(shape) => self.prepare_matmul(b, shape, format, copies)?,
            None => self.prepare_other(b, format, copies)?,
        };
        Ok(Ready { streamed_at, outs, run })
    }

    fn prepare_matmul<B: Device>(
        &self,
        b: &mut B,
        (outs, cols): (usize, usize),
        format: WeightFormat,
        copies: usize,
    ) -> Result<(Vec<u64>, Run<B>)> {
        let x: Rows<B, B::Act> = rows(b, &noise(2, self.rows * cols, format), cols)?;
        let w = weights(b, (outs, cols), self.quantised.unwrap_or(format), copies)?;
        let at = w.iter().map(B::weight_at).collect();
        let mut next = turns(copies);
        let run: Run<B> = match self.op {
            Op::MatmulAdd(..) => Box::new(move |b, outs| b.matmul_add(&mut outs.f32, &x, &w[next()])),
            Op::MatmulF32(..) => Box::new(move |b, outs| b.matmul_f32(&mut outs.f32, &x, &w[next()])),
            Op::MatmulSwiglu(..) => {
                let mut gate_up = RowBuf::alloc::<B, B::Act>(b, self.rows, outs)?;
                gate_up.rows = self.rows;
                Box::new(move |b, outs| b.matmul_swiglu(&mut outs.act, &mut gate_up, &x, &w[next()]))
            }
            _ => Box::new(move |b, outs| b.matmul(&mut outs.act, &x, &w[next()])),
        };
        Ok((at, run))
    }

    fn prepare_other<B: Device>(
        &self,
        b: &mut B,
        format: WeightFormat,
        copies: usize,
    ) -> Result<(Vec<u64>, Run<B>)> {
        let (n, attn) = (self.rows, self.attn());
        let (plan, n_slots) = self.plan();
        let (dims, table_len) = (plan.dims(), plan.table_len());
        let (max_tokens, max_seqs, max_logits) = (dims.n_tokens, dims.n_seqs, dims.n_logits);
        let mut step = Step::<B>::alloc(b, StepCapacity { max_tokens, max_seqs, max_logits, table_len })?;
        step.load(b, &plan)?;
        let mut at = vec![];
        let run: Run<B> = match self.op {
            Op::Embed => {
                let table = weights(b, (VOCAB_SIZE, DIM), self.quantised.unwrap_or(format), 1)?;
                Box::new(move |b, outs| b.embed(&mut outs.f32, &table[0], &step))
            }
            Op::RmsNorm => {
                let x: Rows<B, f32> = rows(b, &noise(6, n * DIM, WeightFormat::F32), DIM)?;
                let w = upload::<B, f32>(b, &noise(7, DIM, WeightFormat::F32))?;
                Box::new(move |b, outs| b.rms_norm(&mut outs.act, &x, &w, 1e-5))
            }
            Op::RopeStore => {
                let frequency = |i: usize| 10_000f32.powf(-(2.0 * i as f32) / attn.head_dim as f32);
                let inv_freq: Vec<f32> = (0..attn.head_dim / 2).map(frequency).collect();
                let inv_freq = upload::<B, f32>(b, &inv_freq)?;
                let mut kv = KvLayer::<B>::alloc(b, n_slots, attn, self.kv_beside(format))?;
                Box::new(move |b, outs| b.rope_store(&mut outs.act, &mut kv, &step, &inv_freq, attn))
            }
            Op::Swiglu => {
                let gate_up: Rows<B, B::Act> =
                    rows(b, &noise(8, n * 2 * HIDDEN_DIM, format), 2 * HIDDEN_DIM)?;
                Box::new(move |b, outs| b.swiglu(&mut outs.act, &gate_up))
            }
            Op::TakeRows => {
                let x: Rows<B, B::Act> = rows(b, &noise(9, n * DIM, format), DIM)?;
                Box::new(move |b, outs| b.take_rows(&mut outs.act, &x, &step))
            }
            Op::Argmax => {
                let logits: Rows<B, f32> = rows(b, &self.logits(), VOCAB_SIZE)?;
                Box::new(move |b, outs| b.argmax(&mut outs.ids, &logits).map(|_| ()))
            }
            Op::TopCandidates(k) => {
                let logits: Rows<B, f32> = rows(b, &self.logits(), VOCAB_SIZE)?;
                Box::new(move |b, outs| {
                    b.top_candidates(&mut outs.ids, &mut outs.f32.buf, &logits, k).map(|_| ())
                })
            }
            Op::Pool(_) => {
                let [h, weights] = self.pooled(format);
                let h: Rows<B, B::Act> = rows(b, &h, DIM)?;
                let weights = upload::<B, f32>(b, &weights)?;
                Box::new(move |b, outs| b.pool(&mut outs.f32, &h, &weights, &step).map(|_| ()))
            }
            _ => {
                let qkv_dim = attn.q_dim() + 2 * attn.kv_dim();
                let qkv: Rows<B, B::Act> = rows(b, &noise(5, n * qkv_dim, format), qkv_dim)?;
                let len = n_slots * attn.kv_dim();
                let mut stored = KvBuf::zeroed(n_slots, attn, self.kv_beside(format));
                let (k, v) = (noise(3, len, format), noise(4, len, format));
                let tokens = k.chunks_exact(attn.kv_dim()).zip(v.chunks_exact(attn.kv_dim()));
                tokens.enumerate().for_each(|(slot, (k, v))| stored.store(slot, k, v));
                let mut kv = vec![];
                for _ in 0..copies {
                    let mut layer = KvLayer::<B>::alloc(b, n_slots, attn, stored.format)?;
                    b.upload(&mut layer.k, &stored.k)?;
                    b.upload(&mut layer.v, &stored.v)?;
                    kv.push(layer);
                }
                at.extend(kv.iter().flat_map(B::kv_at));
                let mut next = turns(copies);
                Box::new(move |b, outs| b.attention(&mut outs.act, &qkv, &kv[next()], &step, attn))
            }
        };
        Ok((at, run))
    }
}
