//! [`Backend`]: everything that a device must do.

use crate::{Elem, Error, HostWeight, KvFormat, KvLayer, Result, Rows, SharedBytes, Step, WeightFormat};
use komt_cache::StepDims;

/// No id: what [`Backend::argmax`] says of rows without an answer.
pub const NO_TOKEN: u32 = u32::MAX;

/// Most candidates of [`Backend::top_candidates`].
pub const MAX_CANDIDATES: usize = 128;

/// The shape of attention, the same for every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttnShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; `n_heads / n_kv_heads` query heads read the same one.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Keys that a query sees, itself included; `None`: all (`komt_cache::first_visible`).
    pub window: Option<usize>,
}

impl AttnShape {
    /// Width of all query heads.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Query heads per key head.
    pub fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// A device: how it holds numbers, and the operations of a Mistral-architecture forward pass on them.
///
/// The backend owns the number formats: [`Backend::Act`], what the KV cache may be
/// stored as, and the packing of [`Backend::Weight`]. The
/// residual stream is f32 everywhere. Buffers are rows of fixed width, row-major, with the rows in use set per step.
///
/// Inside a forward pass nothing allocates, uploads, compiles or synchronises: only the nine operations are called, and
/// `matmul_swiglu`, which is two of them in one.
/// Shapes that do not fit together are a bug of the caller and panic with both shapes; errors are the device's.
pub trait Backend: Sized + Send + 'static {
    /// Memory of the device.
    type Buf<T: Elem>: Send + Sync + 'static;
    /// What matmuls read and write: f32 on CPUs, 16 bits on GPUs.
    type Act: Elem;
    /// A matrix `[out, in]` in whatever format and packing this backend likes.
    type Weight: Send + Sync + 'static;

    /// The device in words, for people.
    fn device_name(&self) -> String;
    /// Bytes that can still be allocated, where the device can tell.
    fn available_bytes(&self) -> Option<u64>;
    /// Bytes that [`Backend::load_weight`] will keep of such a matrix.
    fn weight_bytes(&self, rows: usize, cols: usize, format: WeightFormat) -> u64 {
        format.bytes(rows, cols) as u64
    }

    /// What the KV cache can be stored as, the default first.
    fn kv_formats(&self) -> &'static [KvFormat];
    /// The format asked for, or the default.
    ///
    /// # Errors
    /// `Error::UnsupportedKvFormat`.
    fn kv_format(&self, wanted: Option<KvFormat>) -> Result<KvFormat> {
        let formats = self.kv_formats();
        let found = wanted.unwrap_or(formats[0]);
        if formats.contains(&found) {
            return Ok(found);
        }
        let expected = formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ");
        Err(Error::UnsupportedKvFormat { device: self.device_name(), found, expected })
    }

    /// Whether there are kernels for a model of this shape: its attention, and `widths`, the columns of its matrices. Told
    /// before anything is loaded. Default: for any.
    ///
    /// # Errors
    /// What is not supported, by name, and what is.
    fn check_shape(&self, attn: AttnShape, widths: &[(&'static str, usize)]) -> Result<()> {
        let _ = (attn, widths);
        Ok(())
    }

    /// Zeroed memory for `len` elements.
    ///
    /// # Errors
    /// `Error::OutOfMemory`.
    fn alloc<T: Elem>(&mut self, len: usize) -> Result<Self::Buf<T>>;
    /// Copies `src` to the start of `dst`.
    ///
    /// # Errors
    /// The device's.
    fn upload<T: Elem>(&mut self, dst: &mut Self::Buf<T>, src: &[T]) -> Result<()>;
    /// Copies the start of `src` to `dst`, after everything launched so far. The only synchronisation.
    ///
    /// # Errors
    /// The device's, those of operations launched earlier included.
    fn download<T: Elem>(&mut self, dst: &mut [T], src: &Self::Buf<T>) -> Result<()>;
    /// Takes a matrix over into the backend's own packing: one copy, after which the source is not needed.
    ///
    /// # Errors
    /// `Error::OutOfMemory`.
    fn load_weight(&mut self, weight: HostWeight<'_>) -> Result<Self::Weight>;
    /// The same of a whole matrix in one piece, which a backend may keep instead of copying it. Default: copies.
    ///
    /// # Errors
    /// Those of [`Backend::load_weight`].
    fn load_shared(
        &mut self,
        rows: usize,
        cols: usize,
        format: WeightFormat,
        bytes: SharedBytes,
    ) -> Result<Self::Weight> {
        self.load_weight(HostWeight { rows, cols, format, parts: &[bytes.as_slice()] })
    }

    /// `x[r, :] = table[ids[r], :]`.
    ///
    /// # Errors
    /// The device's.
    fn embed(&mut self, x: &mut Rows<Self, f32>, table: &Self::Weight, step: &Step<Self>) -> Result<()>;
    /// `out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * w` (arXiv:1910.07467).
    ///
    /// # Errors
    /// The device's.
    fn rms_norm(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        x: &Rows<Self, f32>,
        w: &Self::Buf<f32>,
        eps: f32,
    ) -> Result<()>;
    /// `out = x . w^T`.
    ///
    /// # Errors
    /// The device's.
    fn matmul(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        x: &Rows<Self, Self::Act>,
        w: &Self::Weight,
    ) -> Result<()>;
    /// `x += a . w^T`: the epilogue writes the residual stream.
    ///
    /// # Errors
    /// The device's.
    fn matmul_add(
        &mut self,
        x: &mut Rows<Self, f32>,
        a: &Rows<Self, Self::Act>,
        w: &Self::Weight,
    ) -> Result<()>;
    /// `out = x . w^T` in f32: the logits.
    ///
    /// # Errors
    /// The device's.
    fn matmul_f32(
        &mut self,
        out: &mut Rows<Self, f32>,
        x: &Rows<Self, Self::Act>,
        w: &Self::Weight,
    ) -> Result<()>;
    /// Rotates the q and k columns of `qkv [n_tokens, q_dim + 2 kv_dim]` by their absolute positions, and writes k and v
    /// to the slots of the step. `inv_freq [head_dim / 2]` comes from the host.
    ///
    /// # Errors
    /// The device's.
    fn rope_store(
        &mut self,
        qkv: &mut Rows<Self, Self::Act>,
        kv: &mut KvLayer<Self>,
        step: &Step<Self>,
        inv_freq: &Self::Buf<f32>,
        attn: AttnShape,
    ) -> Result<()>;
    /// Causal attention of the q columns of `qkv` over the cached keys of each row's sequence, within the window.
    ///
    /// # Errors
    /// The device's.
    fn attention(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        qkv: &Rows<Self, Self::Act>,
        kv: &KvLayer<Self>,
        step: &Step<Self>,
        attn: AttnShape,
    ) -> Result<()>;
    /// `out[r, c] = silu(gate_up[r, c]) * gate_up[r, hidden_dim + c]` (arXiv:2002.05202).
    ///
    /// # Errors
    /// The device's.
    fn swiglu(&mut self, out: &mut Rows<Self, Self::Act>, gate_up: &Rows<Self, Self::Act>) -> Result<()>;
    /// `out = swiglu(x . w^T)`: the first half of a feed-forward block; rows `[0, hidden_dim)` of w are the gates, the others
    /// the ups. `gate_up` is scratch: what it holds afterwards is the backend's business. Default: the two operations.
    ///
    /// # Errors
    /// The device's.
    fn matmul_swiglu(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        gate_up: &mut Rows<Self, Self::Act>,
        x: &Rows<Self, Self::Act>,
        w: &Self::Weight,
    ) -> Result<()> {
        self.matmul(gate_up, x, w)?;
        self.swiglu(out, gate_up)
    }
    /// `out[i, :] = x[logit_rows[i], :]`.
    ///
    /// # Errors
    /// The device's.
    fn take_rows(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        x: &Rows<Self, Self::Act>,
        step: &Step<Self>,
    ) -> Result<()>;

    /// `out[r]`: the id of the largest logit of row r, the lowest where several are largest; [`NO_TOKEN`] for a row with a NaN or
    /// +inf, or without a finite logit. `false`: not done, the logits are to be downloaded. Default.
    ///
    /// # Errors
    /// The device's.
    fn argmax(&mut self, out: &mut Self::Buf<u32>, logits: &Rows<Self, f32>) -> Result<bool> {
        let _ = (out, logits);
        Ok(false)
    }
    /// The `k` (at most [`MAX_CANDIDATES`], and no more than a row has) largest logits of each row with their ids, `[n_rows, k]` both, largest first and lower
    /// ids first among equals. Ids are [`NO_TOKEN`] for a row as in [`Backend::argmax`], and where a backend gives up on
    /// a row, which it may. `false`: not done, the logits are to be downloaded. Default.
    ///
    /// # Errors
    /// The device's.
    fn top_candidates(
        &mut self,
        ids: &mut Self::Buf<u32>,
        values: &mut Self::Buf<f32>,
        logits: &Rows<Self, f32>,
        k: usize,
    ) -> Result<bool> {
        let _ = (ids, values, logits, k);
        Ok(false)
    }
    /// `out[s, :] = sum of weights[r] * h[r, :]` over the rows r of sequence s of the step: what it adds to the sums of an
    /// embedding, of which then n_seqs rows are downloaded and not n_tokens. `false`: not done, download h. Default.
    ///
    /// # Errors
    /// The device's.
    fn pool(
        &mut self,
        out: &mut Rows<Self, f32>,
        h: &Rows<Self, Self::Act>,
        weights: &Self::Buf<f32>,
        step: &Step<Self>,
    ) -> Result<bool> {
        let _ = (out, h, weights, step);
        Ok(false)
    }

    /// The size that a decode step of `n` rows is padded to, so that recordings can be used again. Default: none.
    fn pad_rows(&self, n: usize) -> usize {
        n
    }

    /// Runs `body`, a step of these dimensions, which errors name. `is_repeated`: those before and after it do the same, so that it
    /// may be recorded, and a recording that was made earlier for the same dimensions replayed. Default: runs it.
    ///
    /// # Errors
    /// Those of `body`.
    fn record(
        &mut self,
        dims: StepDims,
        is_repeated: bool,
        body: &mut (dyn FnMut(&mut Self) -> Result<()> + Send),
    ) -> Result<()> {
        let _ = (dims, is_repeated);
        body(self)
    }
}
