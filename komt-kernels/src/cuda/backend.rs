//! [`Backend`] for [`Cuda`].

use super::repack::DeviceLayout;
use super::{Cuda, CudaAct, CudaBuf, CudaWeight, Mode, Packing, transfer};
use crate::{
    AttnShape, Backend, Elem, Error, HostWeight, KvFormat, KvLayer, Result, Rows, Step, WeightFormat, ops,
};
use bytemuck::cast_slice;
use komt_cache::StepDims;
use ops::matmul::cuda::{Epilogue, MAX_W_ROWS};
use std::sync::PoisonError;

/// Rows of weights are read 16 bytes at a time, by tiles of 32 columns.
const WIDTH: usize = 32;

/// A row of any format fits the host's staging memory, and 32 bits count its elements.
const MAX_WIDTH: usize = 1 << 20;

/// Rows of a matrix, in words. q|k|v and gate|up of widths as above have fewer; a vocabulary may have more.
const MAX_ROWS: &str = "4194240 at most";
const _: () = assert!(MAX_W_ROWS == 4_194_240);

impl<A: CudaAct> Backend for Cuda<A> {
    type Buf<T: Elem> = CudaBuf<T>;
    type Act = A;
    type Weight = CudaWeight<A>;

    fn device_name(&self) -> String {
        let device = self.device();
        let act = if A::IS_F16 { "f16" } else { "bf16" };
        format!("{} (sm_{}{}, {act})", device.name, device.arch.0, device.arch.1)
    }

    fn available_bytes(&self) -> Option<u64> {
        let work = self.work(&self.shared).ok()?;
        self.shared.context.free_bytes(&work).ok()
    }

    fn kv_formats(&self) -> &'static [KvFormat] {
        if A::IS_F16 { &[KvFormat::F16, KvFormat::Q8] } else { &[KvFormat::Bf16, KvFormat::Q8] }
    }

    fn check_shape(&self, attn: AttnShape, widths: &[(&'static str, usize)]) -> Result<()> {
        let refuse = |what, found, expected| Err(Error::UnsupportedShape { what, found, expected });
        if ![64, 96, 128].contains(&attn.head_dim) {
            return refuse("head_dim", attn.head_dim, "64, 96 and 128");
        }
        if attn.group() > 64 {
            return refuse("query heads for each key head", attn.group(), "64 at most");
        }
        match widths.iter().find(|(_, width)| width % WIDTH != 0 || *width > MAX_WIDTH) {
            Some((what, width)) => refuse(what, *width, "multiples of 32 up to 1048576"),
            None => Ok(()),
        }
    }

    fn weight_bytes(&self, rows: usize, cols: usize, format: WeightFormat) -> u64 {
        match format {
            // What does not fit the kernels is refused when it is loaded.
            WeightFormat::Q8 | WeightFormat::Q4 => {
                DeviceLayout::new(format, rows, cols.next_multiple_of(WIDTH)).size_bytes() as u64
            }
            _ => rows as u64 * cols as u64 * size_of::<A>() as u64,
        }
    }

    fn alloc<T: Elem>(&mut self, len: usize) -> Result<CudaBuf<T>> {
        assert!(self.mode == Mode::Idle, "alloc within a step");
        let work = self.work(&self.shared)?;
        CudaBuf::zeroed(&self.shared.context, &work, self.shared.stream.handle, len)
    }

    fn upload<T: Elem>(&mut self, dst: &mut CudaBuf<T>, src: &[T]) -> Result<()> {
        assert!(src.len() <= dst.len(), "upload: {} elements to {}", src.len(), dst.len());
        assert!(self.mode != Mode::Record, "upload within a recording");
        let _work = self.work(&self.shared)?;
        let mut staging = self.shared.staging.lock().unwrap_or_else(PoisonError::into_inner);
        staging.upload(self.shared.stream.handle, dst.ptr(), cast_slice(src))
    }

    fn download<T: Elem>(&mut self, dst: &mut [T], src: &CudaBuf<T>) -> Result<()> {
        assert!(self.mode != Mode::Record, "download within a recording");
        let work = self.work(&self.shared)?;
        transfer::download(&self.shared.context, &work, self.shared.stream.handle, dst, src)
    }

    fn load_weight(&mut self, weight: HostWeight<'_>) -> Result<CudaWeight<A>> {
        weight.check();
        assert!(self.mode == Mode::Idle, "load_weight within a step");
        if !weight.cols.is_multiple_of(WIDTH) {
            let (what, expected) = ("the width of a matrix", "multiples of 32");
            return Err(Error::UnsupportedShape { what, found: weight.cols, expected });
        }
        if weight.rows > MAX_W_ROWS {
            let what = "the number of rows of a matrix";
            return Err(Error::UnsupportedShape { what, found: weight.rows, expected: MAX_ROWS });
        }
        let work = self.work(&self.shared)?;
        let packing = match weight.format {
            WeightFormat::Q8 => Packing::Q8,
            WeightFormat::Q4 => Packing::Q4,
            _ => Packing::Act,
        };
        let bytes = self.weight_bytes(weight.rows, weight.cols, weight.format) as usize;
        let data = CudaBuf::undefined(&self.shared.context, &work, bytes)?;
        let mut staging = self.shared.staging.lock().unwrap_or_else(PoisonError::into_inner);
        transfer::weight::<A>(&mut staging, self.shared.stream.handle, data.ptr(), weight)?;
        Ok(CudaWeight::new(weight.rows, weight.cols, packing, data))
    }

    fn embed(&mut self, x: &mut Rows<Self, f32>, table: &CudaWeight<A>, step: &Step<Self>) -> Result<()> {
        self.op("embed", |cuda| ops::embed::cuda::run(cuda, x, table, step))
    }
    fn rms_norm(
        &mut self,
        out: &mut Rows<Self, A>,
        x: &Rows<Self, f32>,
        w: &CudaBuf<f32>,
        eps: f32,
    ) -> Result<()> {
        self.op("rms_norm", |cuda| ops::rms_norm::cuda::run(cuda, out, x, w, eps))
    }
    fn matmul(&mut self, out: &mut Rows<Self, A>, x: &Rows<Self, A>, w: &CudaWeight<A>) -> Result<()> {
        self.op("matmul", |cuda| ops::matmul::cuda::run(cuda, out, x, w))
    }
    fn matmul_add(&mut self, x: &mut Rows<Self, f32>, a: &Rows<Self, A>, w: &CudaWeight<A>) -> Result<()> {
        self.op("matmul_add", |cuda| ops::matmul::cuda::run_f32(cuda, x, a, w, Epilogue::Add))
    }
    fn matmul_f32(&mut self, out: &mut Rows<Self, f32>, x: &Rows<Self, A>, w: &CudaWeight<A>) -> Result<()> {
        self.op("matmul_f32", |cuda| ops::matmul::cuda::run_f32(cuda, out, x, w, Epilogue::Store))
    }
    fn rope_store(
        &mut self,
        qkv: &mut Rows<Self, A>,
        kv: &mut KvLayer<Self>,
        step: &Step<Self>,
        inv_freq: &CudaBuf<f32>,
        attn: AttnShape,
    ) -> Result<()> {
        self.op("rope_store", |cuda| ops::rope_store::cuda::run(cuda, qkv, kv, step, inv_freq, attn))
    }
    fn attention(
        &mut self,
        out: &mut Rows<Self, A>,
        qkv: &Rows<Self, A>,
        kv: &KvLayer<Self>,
        step: &Step<Self>,
        attn: AttnShape,
    ) -> Result<()> {
        self.op("attention", |cuda| ops::attention::cuda::run(cuda, out, qkv, kv, step, attn))
    }
    fn swiglu(&mut self, out: &mut Rows<Self, A>, gate_up: &Rows<Self, A>) -> Result<()> {
        self.op("swiglu", |cuda| ops::swiglu::cuda::run(cuda, out, gate_up))
    }
    fn matmul_swiglu(
        &mut self,
        out: &mut Rows<Self, A>,
        _gate_up: &mut Rows<Self, A>,
        x: &Rows<Self, A>,
        w: &CudaWeight<A>,
    ) -> Result<()> {
        self.op("matmul_swiglu", |cuda| ops::matmul::cuda::run_swiglu(cuda, out, x, w))
    }
    fn take_rows(&mut self, out: &mut Rows<Self, A>, x: &Rows<Self, A>, step: &Step<Self>) -> Result<()> {
        self.op("take_rows", |cuda| ops::take_rows::cuda::run(cuda, out, x, step))
    }

    fn argmax(&mut self, out: &mut CudaBuf<u32>, logits: &Rows<Self, f32>) -> Result<bool> {
        self.op("argmax", |cuda| ops::argmax::cuda::run(cuda, out, logits)).map(|()| true)
    }
    fn top_candidates(
        &mut self,
        ids: &mut CudaBuf<u32>,
        values: &mut CudaBuf<f32>,
        logits: &Rows<Self, f32>,
        k: usize,
    ) -> Result<bool> {
        self.op("top_candidates", |cuda| ops::argmax::cuda::run_candidates(cuda, ids, values, logits, k))
            .map(|()| true)
    }
    fn pool(
        &mut self,
        out: &mut Rows<Self, f32>,
        h: &Rows<Self, A>,
        weights: &CudaBuf<f32>,
        step: &Step<Self>,
    ) -> Result<bool> {
        self.op("pool", |cuda| ops::pool::cuda::run(cuda, out, h, weights, step)).map(|()| true)
    }

    /// 1, 2, 4, then multiples of 8, of 16 beyond 64 and of 64 beyond 256: few recordings, little padding.
    fn pad_rows(&self, n: usize) -> usize {
        match n {
            0..=4 => n.next_power_of_two(),
            5..=64 => n.next_multiple_of(8),
            65..=256 => n.next_multiple_of(16),
            _ => n.next_multiple_of(64),
        }
    }

    fn record(
        &mut self,
        dims: StepDims,
        is_repeated: bool,
        body: &mut (dyn FnMut(&mut Self) -> Result<()> + Send),
    ) -> Result<()> {
        self.run_step(dims, is_repeated, body)
    }
}
