//! [`Runner`]: owns what a step changes, and is the whole life of one step.

use crate::model::{Mistral, Scratch};
use crate::{Config, Result};
use komt_cache::{PAGE, StepDims, StepPlan};
use komt_kernels::{Backend, Elem, KvFormat, KvLayer, MAX_CANDIDATES, NO_TOKEN, Rows, Step, StepCapacity};
use std::sync::Arc;

/// What a runner has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The largest step.
    pub step: StepCapacity,
    /// Pages of all sequences together.
    pub n_pages: usize,
    /// How they are stored. `None`: the backend's default.
    pub kv_format: Option<KvFormat>,
}

/// Runs steps of a model: the backend, the shared weights, the KV cache and the activations.
pub struct Runner<B: Backend> {
    b: B,
    model: Arc<Mistral<B>>,
    scratch: Scratch<B>,
    kv: Vec<KvLayer<B>>,
    step: Step<B>,
    capacity: Capacity,
    out: Vec<f32>,    // what came down: logits or hidden states
    act: Vec<B::Act>, // hidden states in the backend's own type
    largest: Largest<B>,
    pooled: Pooled<B>,
}

/// The largest logits of each row, `[max_logits, MAX_CANDIDATES]`, on the device and here.
struct Largest<B: Backend> {
    ids: B::Buf<u32>,
    values: B::Buf<f32>,
    host_ids: Vec<u32>,
    host_values: Vec<f32>,
}

/// Weights of rows, `[max_tokens]`, and each sequence's sum, `[max_seqs, dim]`; both empty in a runner that has logits.
struct Pooled<B: Backend> {
    weights: B::Buf<f32>,
    sums: Rows<B, f32>,
}

/// Where a step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At the logits of the rows that want them: `[n_logits, vocab_size]`.
    Logits,
    /// There too, but only this many of the largest of each row matter, of which the last is below the one before it; the
    /// others may come as -inf. What a device finds needs not come down.
    Largest(usize),
    /// At the final norm, for every row: `[n_tokens, dim]`.
    Hidden,
}

impl<B: Backend> Runner<B> {
    /// Allocates everything that steps will need.
    ///
    /// # Errors
    /// A format of the KV cache that the backend has not; out of memory.
    pub fn new(mut b: B, model: Arc<Mistral<B>>, capacity: Capacity) -> Result<Self> {
        let c = &model.config;
        let StepCapacity { max_tokens, max_logits, .. } = capacity.step;
        let scratch = Scratch::alloc(&mut b, c, max_tokens, max_logits)?;
        let format = b.kv_format(capacity.kv_format)?;
        let layer = |_| KvLayer::<B>::alloc(&mut b, capacity.n_pages * PAGE, c.attn(), format);
        let kv = (0..c.n_layers).map(layer).collect::<komt_kernels::Result<_>>()?;
        let step = Step::<B>::alloc(&mut b, capacity.step)?;
        let out = vec![0.0; (max_logits * c.vocab_size).max(max_tokens * c.dim)];
        let act = vec![B::Act::default(); max_tokens * c.dim];
        let n = max_logits * MAX_CANDIDATES;
        let largest = Largest {
            ids: b.alloc(n)?,
            values: b.alloc(n)?,
            host_ids: vec![0; n],
            host_values: vec![0.0; n],
        };
        let (n_weights, n_sums) = Self::pooled(capacity.step);
        let pooled =
            Pooled { weights: b.alloc(n_weights)?, sums: Rows::<B, f32>::alloc(&mut b, n_sums, c.dim)? };
        Ok(Self { b, model, scratch, kv, step, capacity, out, act, largest, pooled })
    }

    /// Rows that are weighted and sums that are made of them, at most: who wants logits pools nothing.
    fn pooled(capacity: StepCapacity) -> (usize, usize) {
        if capacity.max_logits > 0 { (0, 0) } else { (capacity.max_tokens, capacity.max_seqs) }
    }

    /// Bytes of the KV cache for one token.
    pub fn kv_bytes_per_token(c: &Config, format: KvFormat) -> u64 {
        (c.n_layers * format.token_bytes(c.attn())) as u64
    }

    /// Bytes that a runner takes besides weights and KV cache.
    pub fn scratch_bytes(c: &Config, capacity: Capacity) -> u64 {
        let StepCapacity { max_tokens, max_logits, .. } = capacity.step;
        let step = capacity.step.size_bytes();
        let out = 4 * (max_logits * c.vocab_size).max(max_tokens * c.dim)
            + size_of::<B::Act>() * max_tokens * c.dim;
        let largest = 2 * 8 * max_logits * MAX_CANDIDATES;
        let (n_weights, n_sums) = Self::pooled(capacity.step);
        let pooled = 4 * (n_weights + n_sums * c.dim);
        Scratch::<B>::size_bytes(c, max_tokens, max_logits) + 2 * step + (out + largest + pooled) as u64
    }

    /// One pass: logits or hidden states are on the device then. Returns the dimensions of the plan as it came.
    fn pass(&mut self, plan: &mut StepPlan, until: Until) -> Result<StepDims> {
        let Self { b, model, scratch, kv, step, capacity, .. } = self;
        assert!(plan.n_slots() <= capacity.n_pages * PAGE, "plan of {} slots: {capacity:?}", plan.n_slots());
        let dims = plan.dims();
        let is_decode = until != Until::Hidden && plan.is_decode();
        if is_decode {
            plan.pad_to(b.pad_rows(dims.n_tokens).min(capacity.step.max_tokens.min(capacity.step.max_seqs)));
        }
        step.load(b, plan)?;
        scratch.set_rows(plan.dims());
        b.record(plan.dims(), is_decode, &mut |b| match until {
            Until::Logits | Until::Largest(_) => model.forward(b, scratch, kv, step),
            Until::Hidden => model.hidden(b, scratch, kv, step),
        })?;
        Ok(dims)
    }

    /// Fills `out` from the `n` largest logits of each row, if the device finds them and they are told from the others.
    fn largest(&mut self, n_rows: usize, n: usize) -> Result<bool> {
        let Self { b, scratch, out, largest, .. } = self;
        let Largest { ids, values, host_ids, host_values } = largest;
        let found = match n {
            1 => b.argmax(ids, &scratch.logits)?,
            2..=MAX_CANDIDATES if n <= scratch.logits.cols => {
                b.top_candidates(ids, values, &scratch.logits, n)?
            }
            _ => false,
        };
        if !found {
            return Ok(false);
        }
        let (ids, values) = (&mut host_ids[..n_rows * n], &mut host_values[..n_rows * n]);
        b.download(ids, &largest.ids)?;
        match n {
            1 => values.fill(0.0), // any number: it is alone
            _ => b.download(values, &largest.values)?,
        }
        let is_told = |values: &[f32]| match values[n.saturating_sub(2)..] {
            // By more than a rounding or two, so that dividing by a temperature does not make them equal.
            [last, next] => last - next > 1e-6 * last.abs().max(next.abs()),
            _ => true,
        };
        if ids.contains(&NO_TOKEN) || !values.chunks_exact(n).all(is_told) {
            return Ok(false);
        }
        let vocab_size = self.model.config.vocab_size;
        for (r, row) in out.chunks_exact_mut(vocab_size).take(n_rows).enumerate() {
            row.fill(f32::NEG_INFINITY);
            for (&id, &value) in ids[r * n..][..n].iter().zip(&values[r * n..]) {
                row[id as usize] = value;
            }
        }
        Ok(true)
    }
}

/// A [`Runner`] whatever its backend: what an engine drives, with one virtual call a step.
pub trait Run: Send {
    /// Runs one step, and returns what `until` says, row by row. A pure decode step may be padded.
    ///
    /// # Errors
    /// The device's. The step may then have been stored in part: its positions are to be run again.
    ///
    /// # Panics
    /// When the plan exceeds the capacity.
    fn run(&mut self, plan: &mut StepPlan, until: Until) -> Result<&mut [f32]>;

    /// Runs one step up to the final norm, and adds each sequence's rows to its sum, row r times `weights[r]`: `sums [n_seqs, dim]`.
    /// Rows of weight 0 are not looked at. For runners without logits.
    ///
    /// # Errors
    /// As of [`Run::run`].
    ///
    /// # Panics
    /// Likewise, and unless there is a weight for each row and a sum for each sequence.
    fn run_pooled(&mut self, plan: &mut StepPlan, weights: &[f32], sums: &mut [f64]) -> Result<()>;

    /// What there is room for.
    fn capacity(&self) -> Capacity;
}

impl<B: Backend> Run for Runner<B> {
    fn run(&mut self, plan: &mut StepPlan, until: Until) -> Result<&mut [f32]> {
        let StepDims { n_tokens, n_logits, .. } = self.pass(plan, until)?;
        let (dim, vocab_size) = (self.model.config.dim, self.model.config.vocab_size);
        if until == Until::Hidden {
            let Self { b, scratch, act, out, .. } = self;
            let n = n_tokens * dim;
            b.download(&mut act[..n], &scratch.h.buf)?;
            out.iter_mut().zip(&act[..n]).for_each(|(out, act)| *out = act.to_f32());
            return Ok(&mut out[..n]);
        }
        let n = n_logits * vocab_size;
        let is_done = match until {
            Until::Largest(n) if n_logits > 0 => self.largest(n_logits, n)?,
            _ => false,
        };
        if !is_done {
            self.b.download(&mut self.out[..n], &self.scratch.logits.buf)?;
        }
        Ok(&mut self.out[..n])
    }

    fn run_pooled(&mut self, plan: &mut StepPlan, weights: &[f32], sums: &mut [f64]) -> Result<()> {
        let dim = self.model.config.dim;
        let expected = (plan.n_tokens(), plan.n_seqs() * dim);
        assert_eq!((weights.len(), sums.len()), expected, "weights and sums of a pooled step");
        self.b.upload(&mut self.pooled.weights, weights)?;
        let StepDims { n_tokens, n_seqs, .. } = self.pass(plan, Until::Hidden)?;
        let Self { b, scratch, step, pooled, out, act, .. } = self;
        pooled.sums.rows = n_seqs;
        if b.pool(&mut pooled.sums, &scratch.h, &pooled.weights, step)? {
            let out = &mut out[..n_seqs * dim];
            b.download(out, &pooled.sums.buf)?;
            sums.iter_mut().zip(out).for_each(|(sum, x)| *sum += f64::from(*x));
            return Ok(());
        }
        b.download(&mut act[..n_tokens * dim], &scratch.h.buf)?;
        for ((row, &seq), &weight) in act.chunks_exact(dim).zip(&plan.seq_of).zip(weights) {
            if weight != 0.0 {
                let sum = &mut sums[seq as usize * dim..][..dim];
                sum.iter_mut()
                    .zip(row)
                    .for_each(|(sum, x)| *sum += f64::from(weight) * f64::from(x.to_f32()));
            }
        }
        Ok(())
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }
}
