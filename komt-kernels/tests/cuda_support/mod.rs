//! What the CUDA tests share: a device to run on, and each operation on it beside the scalar CPU.
//!
//! ```ignore
//! mod cuda_support;
//! use cuda_support::{Gpu, Twin, bound};
//!
//! #[test]
//! fn my_op() {
//!     let Some(gpu) = Gpu::open(80) else { return };            // declared first: it is checked when it is dropped
//!     let mut t = gpu.twin::<bf16>();
//!     let (x, w) = (t.acts(3, 64, &normal(1, 3 * 64)), t.weight(5, 64, &normal(2, 5 * 64)));
//!     let mut out = t.acts(3, 5, &[0.0; 15]);
//!     t.cpu.matmul(&mut out.cpu, &x.cpu, &w.cpu).unwrap();
//!     t.cuda.matmul(&mut out.cuda, &x.cuda, &w.cuda).unwrap();
//!     t.check("matmul 3 x 5 x 64", &out, bound::<bf16>());     // downloads, compares, says where it differs most
//! }
//! ```
//! Both sides get the same numbers, rounded to the 16-bit type. `gpu.soft` is the software GPU's handle, where the test runs
//! on that: its counters (`take_launches`), faults and options. `KOMT_CUDA=real|soft` chooses, default: real where there is a
//! GPU. `KOMT_REQUIRE_CUDA=1` makes failures of what would be skipped.
//!
//! Once per checkout: `tools/fetch-cuda`, for NVRTC (or name another: `KOMT_NVRTC`).
#![allow(dead_code)]

mod nvrtc;

use komt_cache::{PAGE, PagePool, PageTable, StepPlan};
use komt_kernels::cuda::{CudaAct, CudaBuf, CudaCache, CudaOptions, CudaWeight};
use komt_kernels::{
    AttnShape, Backend, Cpu, CpuOptions, Cuda, Elem, HostWeight, Isa, KvBuf, KvFormat, KvLayer, RowBuf, Rows,
    SharedBytes, Step, StepCapacity, WeightFormat, cpu::CpuWeight, quant::QuantLayout,
};
use komt_softgpu::exec::RunOptions;
use komt_softgpu::{DeviceSpec, Guard, Options, SoftGpu};
pub use nvrtc::{fetched_nvrtc, has_nvrtc};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

/// A device for one test. When it is dropped, everything must have been given back, and nothing complained about.
pub struct Gpu {
    /// The software GPU, where the test runs on it.
    pub soft: Option<Guard>,
    was_lost: Cell<bool>,
}

impl Gpu {
    /// A software GPU of compute capability `sm` (75, 80, ...), or the real one, whatever it is. `None`: skipped, and said so.
    pub fn open(sm: u32) -> Option<Self> {
        Self::with(DeviceSpec::sm(sm))
    }

    pub fn with(spec: DeviceSpec) -> Option<Self> {
        if is_real() {
            let is_turing = komt_kernels::cuda::device(0).is_ok_and(|device| !device.has_bf16());
            if is_turing && spec.arch >= (8, 0) {
                eprintln!("*** SKIPPED: {} has bf16, the real GPU has not ***", spec.name);
                return None;
            }
            eprintln!("on the real GPU, not on {}", spec.name);
            return has_nvrtc().then_some(Self::of(None));
        }
        if !has_nvrtc() {
            return None;
        }
        let soft = SoftGpu::lock(&spec).unwrap_or_else(|error| panic!("{error}"));
        // Each test has an order of warps of its own, the same every time.
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let seed = name.bytes().fold(1, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let run = RunOptions { seed, ..RunOptions::default() };
        soft.options(&Options { run, ..Options::default() });
        eprintln!("on the software GPU: {}, order of warps {seed:x}", spec.name);
        Some(Self::of(Some(soft)))
    }

    fn of(soft: Option<Guard>) -> Self {
        Self { soft, was_lost: Cell::new(false) }
    }

    /// A context will be lost: what was in it goes with it, and is given back by nobody.
    pub fn loses_a_context(&self) {
        self.was_lost.set(true);
    }

    /// The backend, with the compiler of the tests and a cache that they share.
    pub fn cuda<A: CudaAct>(&self) -> Cuda<A> {
        Cuda::with(options()).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn twin<A: CudaAct>(&self) -> Twin<A> {
        Twin { cpu: Cpu::with(CpuOptions::default().isa(Isa::Scalar)).unwrap(), cuda: self.cuda() }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let Some(soft) = self.soft.as_ref().filter(|_| !std::thread::panicking()) else { return };
        let complaints = soft.take_complaints();
        assert!(complaints.is_empty(), "the software GPU complains:\n{}", complaints.join("\n"));
        if self.was_lost.get() {
            return assert_eq!(soft.live_bytes(), 0, "bytes that were not given back");
        }
        assert_eq!(soft.live_allocations(), 0, "allocations that were not given back");
        assert_eq!(soft.live_handles(), 0, "streams, events, modules or graphs that were not given back");
        assert_eq!(soft.live_retains(), 0, "retains of the context that were not released");
    }
}

/// With NVRTC where `tools/fetch-cuda` put it, and a cache in the target directory.
pub fn options() -> CudaOptions {
    let cache = CudaCache::Dir(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-cache"));
    let options = CudaOptions::default().cache(cache);
    match fetched_nvrtc() {
        Some(nvrtc) => options.nvrtc(nvrtc),
        None => options,
    }
}

/// Whether tests are to run on the GPU of this machine.
pub fn is_real() -> bool {
    match std::env::var("KOMT_CUDA").as_deref() {
        Ok("real") => true,
        Ok("soft") => false,
        Ok(other) => panic!("KOMT_CUDA is {other}; real or soft"),
        // Looked for in the file system: cudarc must not open the driver before the software GPU is loaded.
        Err(_) => ["/dev/nvidiactl", "/dev/dxg"].iter().any(|path| Path::new(path).exists()),
    }
}

/// The scalar CPU and CUDA, side by side.
pub struct Twin<A: CudaAct> {
    pub cpu: Cpu,
    pub cuda: Cuda<A>,
}

/// The same thing on both.
pub struct Two<C, G> {
    pub cpu: C,
    pub cuda: G,
}

pub type TwoRows<T> = Two<Rows<Cpu, f32>, RowBuf<CudaBuf<T>>>;

impl<A: CudaAct> Twin<A> {
    /// Activations `[n, cols]`, all rows in use.
    pub fn acts(&mut self, n: usize, cols: usize, data: &[f32]) -> TwoRows<A> {
        let rounded: Vec<A> = data.iter().map(|&value| A::from_f32(value)).collect();
        self.rows(n, cols, &rounded)
    }

    /// Rows in f32, such as the residual stream, all in use.
    pub fn residual(&mut self, n: usize, cols: usize, data: &[f32]) -> TwoRows<f32> {
        self.rows(n, cols, data)
    }

    fn rows<T: Elem>(&mut self, n: usize, cols: usize, data: &[T]) -> TwoRows<T> {
        assert_eq!(data.len(), n * cols);
        let mut cpu = Rows::<Cpu, f32>::alloc(&mut self.cpu, n, cols).unwrap();
        let mut cuda = RowBuf::<CudaBuf<T>>::alloc(&mut self.cuda, n, cols).unwrap();
        cpu.buf.copy_from_slice(&widened(data));
        self.cuda.upload(&mut cuda.buf, data).unwrap();
        (cpu.rows, cuda.rows) = (n, n);
        Two { cpu, cuda }
    }

    /// A matrix `[rows, cols]`.
    pub fn weight(&mut self, rows: usize, cols: usize, data: &[f32]) -> Two<CpuWeight, CudaWeight<A>> {
        let rounded: Vec<A> = data.iter().map(|&value| A::from_f32(value)).collect();
        let format = if A::IS_F16 { WeightFormat::F16 } else { WeightFormat::Bf16 };
        let parts = [bytemuck::cast_slice(&rounded)];
        let weight = HostWeight { rows, cols, format, parts: &parts };
        Two { cpu: self.cpu.load_weight(weight).unwrap(), cuda: self.cuda.load_weight(weight).unwrap() }
    }

    /// A quantised matrix `[rows, cols]` of [`quant_bytes`].
    pub fn quantised(
        &mut self,
        format: WeightFormat,
        rows: usize,
        cols: usize,
        seed: u64,
    ) -> Two<CpuWeight, CudaWeight<A>> {
        let bytes = quant_bytes(format, rows, cols, seed);
        let parts = [&bytes[..]];
        let weight = HostWeight { rows, cols, format, parts: &parts };
        let cuda = self.cuda.load_weight(weight).unwrap();
        let shared = SharedBytes::new(Arc::new(bytes.clone()), 0..bytes.len());
        Two { cpu: self.cpu.load_shared(rows, cols, format, shared).unwrap(), cuda }
    }

    /// A vector in f32: the weights of a norm, inverse frequencies.
    pub fn vector(&mut self, data: &[f32]) -> Two<Vec<f32>, CudaBuf<f32>> {
        let mut cuda = self.cuda.alloc(data.len()).unwrap();
        self.cuda.upload(&mut cuda, data).unwrap();
        Two { cpu: data.to_vec(), cuda }
    }

    /// A step, loaded, in buffers for `capacity`.
    pub fn step(&mut self, plan: &StepPlan, capacity: StepCapacity) -> Two<Step<Cpu>, Step<Cuda<A>>> {
        let mut cpu = Step::<Cpu>::alloc(&mut self.cpu, capacity).unwrap();
        let mut cuda = Step::<Cuda<A>>::alloc(&mut self.cuda, capacity).unwrap();
        cpu.load(&mut self.cpu, plan).unwrap();
        cuda.load(&mut self.cuda, plan).unwrap();
        Two { cpu, cuda }
    }

    /// The formats of its cache.
    pub fn kv_formats() -> [KvFormat; 2] {
        [if A::IS_F16 { KvFormat::F16 } else { KvFormat::Bf16 }, KvFormat::Q8]
    }

    /// A cache for `k` and `v`, `[n_slots, kv_dim]` each.
    pub fn kv(
        &mut self,
        attn: AttnShape,
        format: KvFormat,
        k: &[f32],
        v: &[f32],
    ) -> Two<KvLayer<Cpu>, KvLayer<Cuda<A>>> {
        let (kv_dim, n_slots) = (attn.kv_dim(), k.len() / attn.kv_dim());
        let mut cpu = KvLayer::<Cpu>::alloc(&mut self.cpu, n_slots, attn, format).unwrap();
        for (slot, (k, v)) in k.chunks_exact(kv_dim).zip(v.chunks_exact(kv_dim)).enumerate() {
            cpu.store(slot, k, v);
        }
        let mut cuda = KvLayer::<Cuda<A>>::alloc(&mut self.cuda, n_slots, attn, format).unwrap();
        self.cuda.upload(&mut cuda.k, &cpu.k).unwrap();
        self.cuda.upload(&mut cuda.v, &cpu.v).unwrap();
        Two { cpu, cuda }
    }

    /// The device's cache, copied to the host.
    pub fn download_kv(&mut self, cuda: &KvLayer<Cuda<A>>) -> KvLayer<Cpu> {
        let KvBuf { format, n_slots, kv_dim, head_dim, .. } = *cuda;
        let mut kv =
            KvBuf { k: vec![0; cuda.k.len()], v: vec![0; cuda.v.len()], format, n_slots, kv_dim, head_dim };
        self.cuda.download(&mut kv.k, &cuda.k).unwrap();
        self.cuda.download(&mut kv.v, &cuda.v).unwrap();
        kv
    }

    /// The rows in use of the device's copy.
    pub fn download<T: Elem>(&mut self, rows: &RowBuf<CudaBuf<T>>) -> Vec<f32> {
        let mut data = vec![T::default(); rows.rows * rows.cols];
        self.cuda.download(&mut data, &rows.buf).unwrap();
        widened(&data)
    }

    /// Panics unless the rows in use agree: NMSE of at most `bound`. Returns it.
    #[track_caller]
    pub fn check<T: Elem>(&mut self, what: &str, out: &TwoRows<T>, bound: f64) -> f64 {
        let found = self.download(&out.cuda);
        assert_eq!((out.cpu.rows, out.cpu.cols), (out.cuda.rows, out.cuda.cols), "{what}: shapes");
        compare(what, &out.cpu.buf[..found.len()], &found, out.cpu.cols, bound)
    }
}

/// Bound for an output that is rounded to `A` once, and whose exact value may have been computed from one intermediate that
/// was, too: one rounding of normal data costs an NMSE of 2.8e-6 (bf16), 4.3e-8 (f16); errors of independent roundings add.
pub fn bound<A: CudaAct>() -> f64 {
    let rounding = if A::IS_F16 { 4.3e-8 } else { 2.8e-6 };
    2.0 * rounding * 1.1 // 1.1: of a small sample
}

/// Panics unless `found` is `expected`, both of rows of `cols`, with an NMSE of at most `bound`. Returns the NMSE.
#[track_caller]
pub fn compare(what: &str, expected: &[f32], found: &[f32], cols: usize, bound: f64) -> f64 {
    assert_eq!(expected.len(), found.len(), "{what}: lengths");
    let pairs = || expected.iter().zip(found).map(|(&e, &f)| (f64::from(e), f64::from(f)));
    let error: f64 = pairs().map(|(e, f)| (e - f).powi(2)).sum();
    let norm: f64 = pairs().map(|(e, _)| e * e).sum();
    let nmse = if error == 0.0 { 0.0 } else { error / norm };
    if nmse.is_nan() || nmse > bound {
        let distance = |(e, f): (f64, f64)| if f.is_nan() { f64::INFINITY } else { (e - f).abs() };
        let worst = (0..expected.len()).max_by(|&a, &b| {
            let at = |i: usize| distance((f64::from(expected[i]), f64::from(found[i])));
            at(a).total_cmp(&at(b))
        });
        let i = worst.unwrap_or(0);
        let (row, col) = (i / cols, i % cols);
        panic!(
            "{what}: NMSE {nmse:.3e}, at most {bound:.3e}; worst at [{row}, {col}]: {} expected, {} found",
            expected[i], found[i]
        );
    }
    nmse
}

fn widened<T: Elem>(data: &[T]) -> Vec<f32> {
    data.iter().map(|value| value.to_f32()).collect()
}

/// `n` numbers of a normal distribution, the same for the same seed.
pub fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    // splitmix64; the sum of 12 uniform numbers less 6 is normal enough (variance 1, tails to 6).
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

/// A quantised matrix: any bytes are one. Row scales are such that products with normal data have about size 1, and differ by up
/// to a factor of two from row to row.
pub fn quant_bytes(format: WeightFormat, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let layout = QuantLayout::new(format, rows, cols);
    let mut state = seed ^ 0x5851_f42d_4c95_7f2d;
    let mut bytes: Vec<u8> = (0..layout.size_bytes())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    // Deviations of the uniform quants and scales.
    let deviation = 73.0 * if format == WeightFormat::Q8 { 74.0 } else { 4.6 };
    let (first, end) = (layout.quants_bytes(), layout.scales_at());
    for (i, scale) in bytes[first..end].as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let turn = (1.0 + (i % 7) as f32 / 6.0) / 1.5;
        *scale = (turn / (deviation * (cols as f32).sqrt())).to_le_bytes();
    }
    for scale in &mut bytes[end..] {
        *scale = if *scale == 0x80 { 0x81 } else { *scale }; // -127 is the least
    }
    bytes
}

/// A table of `table_len` pages that holds `n` tokens.
pub fn table(pool: &mut PagePool, table_len: usize, n: usize) -> PageTable {
    assert!(n <= table_len * PAGE);
    let mut table = PageTable::new(table_len);
    table.extend(pool, n).unwrap();
    table
}
