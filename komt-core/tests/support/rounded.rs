//! The CPU with the roundings of a 16-bit backend: what those alone do to a model, without a line of CUDA.

use komt_core::kernels::cpu::CpuWeight;
use komt_core::kernels::cuda::CudaAct;
use komt_core::kernels::quant::QuantLayout;
use komt_core::kernels::{
    AttnShape, Backend, Cpu, Elem, HostWeight, KvFormat, KvLayer, Result, Rows, Step, WeightFormat,
};
use std::marker::PhantomData;

/// [`Cpu`], rounding whatever it leaves in an activation or the cache to `A`. Not rounded are the weights of softmax, which
/// never leave an operation; the products that SwiGLU takes are not either, as there the operations are one. Quantised weights are
/// rounded, too: tensor cores take a quant times its group's scale in `A`.
#[derive(Clone)]
pub struct Rounded<A> {
    cpu: Cpu,
    act: PhantomData<fn() -> A>,
}

impl<A: CudaAct> Rounded<A> {
    pub fn new(cpu: Cpu) -> Self {
        Self { cpu, act: PhantomData }
    }

    fn round(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = A::from_f32(*value).to_f32());
    }

    fn done(out: &mut Rows<Cpu, f32>) -> Result<()> {
        let n = out.rows * out.cols;
        Self::round(&mut out.buf[..n]);
        Ok(())
    }
}

type Act = Rows<Cpu, f32>;

impl<A: CudaAct> Backend for Rounded<A> {
    type Buf<T: Elem> = Vec<T>;
    type Act = f32;
    type Weight = CpuWeight;

    /// The cache holds what is rounded to `A` before.
    fn kv_formats(&self) -> &'static [KvFormat] {
        &[KvFormat::F32, KvFormat::Q8]
    }
    fn device_name(&self) -> String {
        format!("{} in {}", self.cpu.device_name(), std::any::type_name::<A>())
    }
    fn available_bytes(&self) -> Option<u64> {
        self.cpu.available_bytes()
    }
    fn weight_bytes(&self, rows: usize, cols: usize, format: WeightFormat) -> u64 {
        self.cpu.weight_bytes(rows, cols, format)
    }
    fn alloc<T: Elem>(&mut self, len: usize) -> Result<Vec<T>> {
        self.cpu.alloc(len)
    }
    fn upload<T: Elem>(&mut self, dst: &mut Vec<T>, src: &[T]) -> Result<()> {
        self.cpu.upload(dst, src)
    }
    fn download<T: Elem>(&mut self, dst: &mut [T], src: &Vec<T>) -> Result<()> {
        self.cpu.download(dst, src)
    }
    fn load_weight(&mut self, weight: HostWeight<'_>) -> Result<CpuWeight> {
        if !weight.format.is_quantised() {
            return self.cpu.load_weight(weight);
        }
        let layout = QuantLayout::new(weight.format, weight.rows, weight.cols);
        let mut numbers = vec![0.0; weight.rows * weight.cols];
        for (row, numbers) in numbers.chunks_exact_mut(weight.cols).enumerate() {
            layout.decode_row(weight.parts[0], row, numbers);
        }
        Self::round(&mut numbers);
        let parts = [bytemuck::cast_slice(&numbers)];
        self.cpu.load_weight(HostWeight { format: WeightFormat::F32, parts: &parts, ..weight })
    }
    fn embed(&mut self, x: &mut Act, table: &CpuWeight, step: &Step<Self>) -> Result<()> {
        self.cpu.embed(x, table, step)
    }
    fn rms_norm(&mut self, out: &mut Act, x: &Act, w: &Vec<f32>, eps: f32) -> Result<()> {
        self.cpu.rms_norm(out, x, w, eps)?;
        Self::done(out)
    }
    fn matmul(&mut self, out: &mut Act, x: &Act, w: &CpuWeight) -> Result<()> {
        self.cpu.matmul(out, x, w)?;
        Self::done(out)
    }
    fn matmul_add(&mut self, x: &mut Act, a: &Act, w: &CpuWeight) -> Result<()> {
        self.cpu.matmul_add(x, a, w)
    }
    fn matmul_f32(&mut self, out: &mut Act, x: &Act, w: &CpuWeight) -> Result<()> {
        self.cpu.matmul_f32(out, x, w)
    }
    fn rope_store(
        &mut self,
        qkv: &mut Act,
        kv: &mut KvLayer<Self>,
        step: &Step<Self>,
        inv_freq: &Vec<f32>,
        attn: AttnShape,
    ) -> Result<()> {
        self.cpu.rope_store(qkv, kv, step, inv_freq, attn)?;
        Self::done(qkv)?;
        // Stored again, rounded before.
        for (row, &slot) in qkv.buf.chunks_exact(qkv.cols).zip(step.slots()) {
            if slot != komt_core::cache::PAD_SLOT {
                let (k, v) = row[attn.q_dim()..].split_at(attn.kv_dim());
                kv.store(slot as usize, k, v);
            }
        }
        Ok(())
    }
    fn attention(
        &mut self,
        out: &mut Act,
        qkv: &Act,
        kv: &KvLayer<Self>,
        step: &Step<Self>,
        attn: AttnShape,
    ) -> Result<()> {
        self.cpu.attention(out, qkv, kv, step, attn)?;
        Self::done(out)
    }
    fn swiglu(&mut self, out: &mut Act, gate_up: &Act) -> Result<()> {
        self.cpu.swiglu(out, gate_up)?;
        Self::done(out)
    }
    fn matmul_swiglu(&mut self, out: &mut Act, gate_up: &mut Act, x: &Act, w: &CpuWeight) -> Result<()> {
        self.cpu.matmul(gate_up, x, w)?;
        self.swiglu(out, gate_up)
    }
    fn take_rows(&mut self, out: &mut Act, x: &Act, step: &Step<Self>) -> Result<()> {
        self.cpu.take_rows(out, x, step)
    }
}
