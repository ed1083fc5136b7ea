//! [`Runner`]: owns what a step changes, and is the whole life of one step.

use crate::model::{Mistral, Scratch};
use crate::{Config, Result};
use komt_cache::{PAGE, StepDims, StepPlan};
use komt_kernels::{Backend, Elem, KvLayer, Step, StepCapacity};
use std::sync::Arc;

/// What a runner has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The largest step.
    pub step: StepCapacity,
    /// Pages of all sequences together.
    pub n_pages: usize,
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
}

/// Where a step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At the logits of the rows that want them: `[n_logits, vocab_size]`.
    Logits,
    /// At the final norm, for every row: `[n_tokens, dim]`.
    Hidden,
}

impl<B: Backend> Runner<B> {
    /// Allocates everything that steps will need.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(mut b: B, model: Arc<Mistral<B>>, capacity: Capacity) -> Result<Self> {
        let c = &model.config;
        let StepCapacity { max_tokens, max_logits, .. } = capacity.step;
        let scratch = Scratch::alloc(&mut b, c, max_tokens, max_logits)?;
        let layer = |_| KvLayer::<B>::alloc(&mut b, capacity.n_pages * PAGE, c.kv_dim());
        let kv = (0..c.n_layers).map(layer).collect::<komt_kernels::Result<_>>()?;
        let step = Step::<B>::alloc(&mut b, capacity.step)?;
        let out = vec![0.0; (max_logits * c.vocab_size).max(max_tokens * c.dim)];
        let act = vec![B::Act::default(); max_tokens * c.dim];
        Ok(Self { b, model, scratch, kv, step, capacity, out, act })
    }

    /// Bytes of the KV cache for one token.
    pub fn kv_bytes_per_token(c: &Config) -> u64 {
        2 * (c.n_layers * c.kv_dim() * size_of::<B::Kv>()) as u64
    }

    /// Bytes that a runner takes besides weights and KV cache.
    pub fn scratch_bytes(c: &Config, capacity: Capacity) -> u64 {
        let StepCapacity { max_tokens, max_logits, .. } = capacity.step;
        let step = capacity.step.size_bytes();
        let out = 4 * (max_logits * c.vocab_size).max(max_tokens * c.dim)
            + size_of::<B::Act>() * max_tokens * c.dim;
        Scratch::<B>::size_bytes(c, max_tokens, max_logits) + 2 * step + out as u64
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

    /// What there is room for.
    fn capacity(&self) -> Capacity;
}

impl<B: Backend> Run for Runner<B> {
    fn run(&mut self, plan: &mut StepPlan, until: Until) -> Result<&mut [f32]> {
        let Self { b, model, scratch, kv, step, capacity, out, act } = self;
        assert!(plan.n_slots() <= capacity.n_pages * PAGE, "plan of {} slots: {capacity:?}", plan.n_slots());
        let StepDims { n_tokens, n_logits, .. } = plan.dims();
        let is_decode = until == Until::Logits && plan.is_decode();
        if is_decode {
            plan.pad_to(b.pad_rows(n_tokens).min(capacity.step.max_tokens.min(capacity.step.max_seqs)));
        }
        step.load(b, plan)?;
        scratch.set_rows(plan.dims());
        b.record(is_decode.then(|| plan.dims()), &mut |b| match until {
            Until::Logits => model.forward(b, scratch, kv, step),
            Until::Hidden => model.hidden(b, scratch, kv, step),
        })?;
        match until {
            Until::Logits => {
                let out = &mut out[..n_logits * model.config.vocab_size];
                b.download(out, &scratch.logits.buf)?;
                Ok(out)
            }
            Until::Hidden => {
                let n = n_tokens * model.config.dim;
                b.download(&mut act[..n], &scratch.h.buf)?;
                out.iter_mut().zip(&act[..n]).for_each(|(out, act)| *out = act.to_f32());
                Ok(&mut out[..n])
            }
        }
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }
}
