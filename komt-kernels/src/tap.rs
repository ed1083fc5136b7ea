//! [`Tap`]: a backend that lets somebody look.

use crate::{
    AttnShape, Backend, Elem, Error, HostWeight, KvFormat, KvLayer, Result, Rows, SharedBytes, Step,
    WeightFormat,
};
use komt_cache::StepDims;
use std::sync::{Arc, Mutex, PoisonError};

/// One operation that is about to run.
#[derive(Debug)]
pub struct TapEvent<'a> {
    /// Name of the operation, as in [`Backend`].
    pub op: &'static str,
    /// The residual stream `[n_tokens, dim]`, when the operation is `rms_norm`: its input. In a model of n layers there
    /// are `2 n + 1` a step: the embeddings, then the stream after each attention and each feed-forward block.
    pub residual: Option<&'a [f32]>,
}

type Observer = Box<dyn FnMut(TapEvent<'_>) -> std::result::Result<(), String> + Send>;

/// A backend that shows every operation to an observer before another backend runs it. It reads hidden states without a
/// word in the forward pass, and makes operations fail in tests: the observer's `Err` becomes the operation's.
///
/// It shares all types with `B`, so weights of one serve the other. It downloads at every `rms_norm`: not for speed.
/// Clones share the observer.
#[derive(Clone)]
pub struct Tap<B> {
    inner: B,
    observer: Arc<Mutex<Observer>>,
    residual: Vec<f32>,
}

impl<B: Backend> Tap<B> {
    /// Shows the operations of `inner` to `observer`.
    pub fn new(
        inner: B,
        observer: impl FnMut(TapEvent<'_>) -> std::result::Result<(), String> + Send + 'static,
    ) -> Self {
        Self { inner, observer: Arc::new(Mutex::new(Box::new(observer))), residual: vec![] }
    }

    fn tell(&self, op: &'static str, residual: Option<&[f32]>) -> Result<()> {
        let mut observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        observer(TapEvent { op, residual }).map_err(|reason| Error::Stopped { op, reason })
    }

    fn show(&mut self, op: &'static str) -> Result<&mut B> {
        self.tell(op, None)?;
        Ok(&mut self.inner)
    }
}

impl<B: Backend> Backend for Tap<B> {
    type Buf<T: Elem> = B::Buf<T>;
    type Act = B::Act;
    type Weight = B::Weight;

    fn device_name(&self) -> String {
        self.inner.device_name()
    }
    fn available_bytes(&self) -> Option<u64> {
        self.inner.available_bytes()
    }
    fn weight_bytes(&self, rows: usize, cols: usize, format: WeightFormat) -> u64 {
        self.inner.weight_bytes(rows, cols, format)
    }
    fn kv_formats(&self) -> &'static [KvFormat] {
        self.inner.kv_formats()
    }
    fn check_shape(&self, attn: AttnShape, widths: &[(&'static str, usize)]) -> Result<()> {
        self.inner.check_shape(attn, widths)
    }
    fn alloc<T: Elem>(&mut self, len: usize) -> Result<Self::Buf<T>> {
        self.show("alloc")?.alloc(len)
    }
    fn upload<T: Elem>(&mut self, dst: &mut Self::Buf<T>, src: &[T]) -> Result<()> {
        self.show("upload")?.upload(dst, src)
    }
    fn download<T: Elem>(&mut self, dst: &mut [T], src: &Self::Buf<T>) -> Result<()> {
        self.show("download")?.download(dst, src)
    }
    fn load_weight(&mut self, weight: HostWeight<'_>) -> Result<Self::Weight> {
        self.show("load_weight")?.load_weight(weight)
    }
    fn load_shared(
        &mut self,
        rows: usize,
        cols: usize,
        format: WeightFormat,
        bytes: SharedBytes,
    ) -> Result<Self::Weight> {
        self.show("load_shared")?.load_shared(rows, cols, format, bytes)
    }
    fn embed(&mut self, x: &mut Rows<Self, f32>, table: &Self::Weight, step: &Step<Self>) -> Result<()> {
        self.show("embed")?.embed(x, table, step)
    }
    fn rms_norm(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        x: &Rows<Self, f32>,
        w: &Self::Buf<f32>,
        eps: f32,
    ) -> Result<()> {
        self.residual.resize(x.rows * x.cols, 0.0);
        self.inner.download(&mut self.residual, &x.buf)?;
        self.tell("rms_norm", Some(&self.residual))?;
        self.inner.rms_norm(out, x, w, eps)
    }
    fn matmul(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        x: &Rows<Self, Self::Act>,
        w: &Self::Weight,
    ) -> Result<()> {
        self.show("matmul")?.matmul(out, x, w)
    }
    fn matmul_add(
        &mut self,
        x: &mut Rows<Self, f32>,
        a: &Rows<Self, Self::Act>,
        w: &Self::Weight,
    ) -> Result<()> {
        self.show("matmul_add")?.matmul_add(x, a, w)
    }
    fn matmul_f32(
        &mut self,
        out: &mut Rows<Self, f32>,
        x: &Rows<Self, Self::Act>,
        w: &Self::Weight,
    ) -> Result<()> {
        self.show("matmul_f32")?.matmul_f32(out, x, w)
    }
    fn rope_store(
        &mut self,
        qkv: &mut Rows<Self, Self::Act>,
        kv: &mut KvLayer<Self>,
        step: &Step<Self>,
        inv_freq: &Self::Buf<f32>,
        attn: AttnShape,
    ) -> Result<()> {
        self.show("rope_store")?.rope_store(qkv, kv, step, inv_freq, attn)
    }
    fn attention(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        qkv: &Rows<Self, Self::Act>,
        kv: &KvLayer<Self>,
        step: &Step<Self>,
        attn: AttnShape,
    ) -> Result<()> {
        self.show("attention")?.attention(out, qkv, kv, step, attn)
    }
    fn swiglu(&mut self, out: &mut Rows<Self, Self::Act>, gate_up: &Rows<Self, Self::Act>) -> Result<()> {
        self.show("swiglu")?.swiglu(out, gate_up)
    }
    fn matmul_swiglu(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        gate_up: &mut Rows<Self, Self::Act>,
        x: &Rows<Self, Self::Act>,
        w: &Self::Weight,
    ) -> Result<()> {
        self.show("matmul_swiglu")?.matmul_swiglu(out, gate_up, x, w)
    }
    fn take_rows(
        &mut self,
        out: &mut Rows<Self, Self::Act>,
        x: &Rows<Self, Self::Act>,
        step: &Step<Self>,
    ) -> Result<()> {
        self.show("take_rows")?.take_rows(out, x, step)
    }
    fn argmax(&mut self, out: &mut Self::Buf<u32>, logits: &Rows<Self, f32>) -> Result<bool> {
        self.show("argmax")?.argmax(out, logits)
    }
    fn top_candidates(
        &mut self,
        ids: &mut Self::Buf<u32>,
        values: &mut Self::Buf<f32>,
        logits: &Rows<Self, f32>,
        k: usize,
    ) -> Result<bool> {
        self.show("top_candidates")?.top_candidates(ids, values, logits, k)
    }
    fn pool(
        &mut self,
        out: &mut Rows<Self, f32>,
        h: &Rows<Self, Self::Act>,
        weights: &Self::Buf<f32>,
        step: &Step<Self>,
    ) -> Result<bool> {
        self.show("pool")?.pool(out, h, weights, step)
    }
    fn pad_rows(&self, n: usize) -> usize {
        self.inner.pad_rows(n)
    }
    /// Never recorded: the observer is to see every operation.
    fn record(
        &mut self,
        _dims: StepDims,
        _is_repeated: bool,
        body: &mut (dyn FnMut(&mut Self) -> Result<()> + Send),
    ) -> Result<()> {
        body(self)
    }
}
