//! The forward pass: the only one there is, for every backend.

use crate::Config;
use komt_cache::StepDims;
use komt_kernels::{Backend, KvLayer, Result, Rows, Step};

/// The weights of a Mistral-architecture model on a backend, and what is computed with them.
pub struct Mistral<B: Backend> {
    pub(crate) config: Config,
    pub(crate) embed: B::Weight, // [vocab_size, dim]
    pub(crate) layers: Vec<Layer<B>>,
    pub(crate) norm: B::Buf<f32>,          // [dim]
    pub(crate) lm_head: Option<B::Weight>, // [vocab_size, dim]; None: the embedding is used again
    pub(crate) inv_freq: B::Buf<f32>,      // [head_dim / 2]
}

pub(crate) struct Layer<B: Backend> {
    pub attn_norm: B::Buf<f32>, // [dim]
    pub wqkv: B::Weight,        // [q_dim + 2 kv_dim, dim]: rows of q, k, v
    pub wo: B::Weight,          // [dim, q_dim]
    pub ffn_norm: B::Buf<f32>,  // [dim]
    pub w_gate_up: B::Weight,   // [2 hidden_dim, dim]: rows of gate, up
    pub w_down: B::Weight,      // [dim, hidden_dim]
}

/// The activations of one step.
pub struct Scratch<B: Backend> {
    pub(crate) x: Rows<B, f32>,          // [n_tokens, dim]  residual stream
    pub(crate) h: Rows<B, B::Act>,       // [n_tokens, dim]  normalised, the input of a matmul
    pub(crate) qkv: Rows<B, B::Act>,     // [n_tokens, q_dim + 2 kv_dim]
    pub(crate) att: Rows<B, B::Act>,     // [n_tokens, q_dim]
    pub(crate) gate_up: Rows<B, B::Act>, // [n_tokens, 2 hidden_dim]
    pub(crate) ffn: Rows<B, B::Act>,     // [n_tokens, hidden_dim]
    pub(crate) last: Rows<B, B::Act>,    // [n_logits, dim]
    pub(crate) logits: Rows<B, f32>,     // [n_logits, vocab_size]
}

impl<B: Backend> Scratch<B> {
    /// Room for steps of up to `max_tokens` rows with up to `max_logits` rows of logits.
    ///
    /// # Errors
    /// Out of memory.
    pub fn alloc(b: &mut B, c: &Config, max_tokens: usize, max_logits: usize) -> Result<Self> {
        Ok(Self {
            x: Rows::<B, f32>::alloc(b, max_tokens, c.dim)?,
            h: Rows::<B, B::Act>::alloc(b, max_tokens, c.dim)?,
            qkv: Rows::<B, B::Act>::alloc(b, max_tokens, c.q_dim() + 2 * c.kv_dim())?,
            att: Rows::<B, B::Act>::alloc(b, max_tokens, c.q_dim())?,
            gate_up: Rows::<B, B::Act>::alloc(b, max_tokens, 2 * c.hidden_dim)?,
            ffn: Rows::<B, B::Act>::alloc(b, max_tokens, c.hidden_dim)?,
            last: Rows::<B, B::Act>::alloc(b, max_logits, c.dim)?,
            logits: Rows::<B, f32>::alloc(b, max_logits, c.vocab_size)?,
        })
    }

    /// Bytes that [`Scratch::alloc`] takes.
    pub fn size_bytes(c: &Config, max_tokens: usize, max_logits: usize) -> u64 {
        let act = size_of::<B::Act>();
        let per_token = 4 * c.dim + act * (c.dim + c.q_dim() + 2 * c.kv_dim() + c.q_dim() + 3 * c.hidden_dim);
        let per_logit = act * c.dim + 4 * c.vocab_size;
        max_tokens as u64 * per_token as u64 + max_logits as u64 * per_logit as u64
    }

    /// Sets the rows in use.
    pub fn set_rows(&mut self, dims: StepDims) {
        self.x.rows = dims.n_tokens;
        for rows in [&mut self.h, &mut self.qkv, &mut self.att, &mut self.gate_up, &mut self.ffn] {
            rows.rows = dims.n_tokens;
        }
        (self.last.rows, self.logits.rows) = (dims.n_logits, dims.n_logits);
    }
}

impl<B: Backend> Mistral<B> {
    /// One step: its tokens through every layer; leaves `s.logits` `[n_logits, vocab_size]`.
    ///
    /// # Errors
    /// The device's.
    pub fn forward(
        &self,
        b: &mut B,
        s: &mut Scratch<B>,
        kv: &mut [KvLayer<B>],
        step: &Step<B>,
    ) -> Result<()> {
        self.hidden(b, s, kv, step)?;
        b.take_rows(&mut s.last, &s.h, step)?;
        b.matmul_f32(&mut s.logits, &s.last, self.lm_head.as_ref().unwrap_or(&self.embed))
    }

    /// The same up to the final norm: leaves `s.h` `[n_tokens, dim]`. What an embedding is made of.
    ///
    /// # Errors
    /// The device's.
    pub fn hidden(&self, b: &mut B, s: &mut Scratch<B>, kv: &mut [KvLayer<B>], step: &Step<B>) -> Result<()> {
        let (eps, attn) = (self.config.norm_eps, self.config.attn());
        b.embed(&mut s.x, &self.embed, step)?;
        for (layer, kv) in self.layers.iter().zip(kv) {
            // attention block: x += Wo . attend(rope(Wqkv . norm(x)))
            b.rms_norm(&mut s.h, &s.x, &layer.attn_norm, eps)?;
            b.matmul(&mut s.qkv, &s.h, &layer.wqkv)?;
            b.rope_store(&mut s.qkv, kv, step, &self.inv_freq, attn)?;
            b.attention(&mut s.att, &s.qkv, kv, step, attn)?;
            b.matmul_add(&mut s.x, &s.att, &layer.wo)?;
            // feed-forward block: x += Wdown . (silu(gate) * up)
            b.rms_norm(&mut s.h, &s.x, &layer.ffn_norm, eps)?;
            b.matmul_swiglu(&mut s.ffn, &mut s.gate_up, &s.h, &layer.w_gate_up)?;
            b.matmul_add(&mut s.x, &s.ffn, &layer.w_down)?;
        }
        b.rms_norm(&mut s.h, &s.x, &self.norm, eps)
    }
}
