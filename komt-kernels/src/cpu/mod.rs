//! [`Cpu`]: every operation on the host's cores.
//!
//! Weights stay in their stored type; activations are f32, and the KV cache has a format of its own. Results never depend on the
//! number of threads: every output element is computed by one task in an order that only its own inputs determine. With
//! [`Precision::Exact`] they depend neither on the rows that share a step nor on how a prompt is cut into chunks;
//! [`Precision::Fast`] chooses by the number of rows how a product rounds its input.

#[cfg(target_arch = "x86_64")]
mod amx;
mod isa;
mod options;
pub(crate) mod pages;
mod scratch;
pub(crate) mod simd;
mod team;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use crate::quant::QuantLayout;
use crate::{
    AttnShape, Backend, Elem, Error, HostWeight, KvFormat, KvLayer, Result, Rows, SharedBytes, Step,
    WeightFormat, ops,
};
use bytemuck::Pod;
use half::{bf16, f16};
pub use isa::Isa;
pub(crate) use isa::{Kernel, dispatch};
use komt_cache::StepDims;
pub use options::{CpuOptions, Precision};
use scratch::Scratch;
use std::ops::Range;
use std::sync::Arc;
use team::Team;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512Vnni};

/// The CPU backend. Cloning is cheap: clones share the threads.
#[derive(Debug, Clone)]
pub struct Cpu {
    team: Arc<Team>,
    isa: Isa,
    precision: Precision,
    pub(crate) scratch: Scratch,
    pub(crate) attention_scratch: ops::attention::AttentionScratch,
    pub(crate) angles: ops::rope_store::Angles,
}

/// A matrix `[rows, cols]` in its stored type, row-major.
#[derive(Debug)]
pub struct CpuWeight {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: WeightData,
}

impl CpuWeight {
    pub(crate) fn format(&self) -> WeightFormat {
        match &self.data {
            WeightData::F32(_) => WeightFormat::F32,
            WeightData::F16(_) => WeightFormat::F16,
            WeightData::Bf16(_) => WeightFormat::Bf16,
            WeightData::Quant(layout, _) => layout.format,
        }
    }
}

#[derive(Debug)]
pub(crate) enum WeightData {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    Quant(QuantLayout, SharedBytes),
}

/// Runs `$body` with `$data` as the slice of whatever type the weight is stored in.
macro_rules! with_stored {
    ($weight:expr, |$data:ident| $body:expr) => {
        match &$weight.data {
            $crate::cpu::WeightData::F32($data) => $body,
            $crate::cpu::WeightData::F16($data) => $body,
            $crate::cpu::WeightData::Bf16($data) => $body,
            $crate::cpu::WeightData::Quant(..) => unreachable!("quantised matrices go another way"),
        }
    };
}
pub(crate) use with_stored;

impl Cpu {
    /// The best kernels, one thread for each core.
    ///
    /// # Errors
    /// When the threads cannot be started, or the variable `KOMT_ISA` names no instruction set.
    pub fn new() -> Result<Self> {
        Self::with(CpuOptions::default())
    }

    /// As `options` say.
    ///
    /// # Errors
    /// When the threads cannot be started, the CPU lacks the instructions asked for, or the variable `KOMT_ISA` names none.
    pub fn with(options: CpuOptions) -> Result<Self> {
        Isa::check_cap()?;
        let isa = options.isa.unwrap_or_else(Isa::detect);
        isa.check()?;
        // More than any machine has cores, and few enough that all of them start at once.
        const MAX_THREADS: usize = 1024;
        if let Some(found) = options.threads.filter(|threads| !(1..=MAX_THREADS).contains(threads)) {
            return Err(Error::Threads { max: MAX_THREADS, found });
        }
        let threads =
            options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let team = Arc::new(Team::new(threads.min(MAX_THREADS))?);
        Ok(Self {
            team,
            isa,
            precision: options.precision,
            scratch: Scratch::default(),
            attention_scratch: Default::default(),
            angles: Default::default(),
        })
    }

    /// The kernels in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// How exactly a matmul takes its input.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Threads that work together: the caller's, and our own.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Runs `task` over ranges that make up `0..n`, each of about `grain` or more, on this thread and our own; one that starts
    /// within another, or while another thread's runs, on this thread alone. Handing a range over costs about a microsecond.
    pub(crate) fn for_ranges(&self, n: usize, grain: usize, task: impl Fn(Range<usize>) + Sync) {
        self.team.run(n, grain, &task);
    }
}

/// A buffer that several tasks write, each its own elements.
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    _borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]`, given to several threads under the contract of `slice`.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<T> Clone for SharedMut<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(all: &'a mut [T]) -> Self {
        Self { start: all.as_mut_ptr(), len: all.len(), _borrow: std::marker::PhantomData }
    }

    /// Elements `at..at + len`.
    ///
    /// # Safety
    /// While the slice lives, nobody else touches these elements.
    #[inline(always)]
    pub(crate) unsafe fn slice(self, at: usize, len: usize) -> &'a mut [T] {
        assert!(at + len <= self.len, "SharedMut: {at} + {len} of {}", self.len);
        // SAFETY: within the buffer; exclusive as the caller vouches.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

/// Zeroed memory, from the operating system's zero pages where it is large, and in huge pages where it has them.
fn zeroed<T: Pod>(len: usize) -> Result<Vec<T>> {
    let mut memory = bytemuck::try_zeroed_vec(len).map_err(|()| Error::OutOfMemory {
        device: "CPU".into(),
        bytes: len.saturating_mul(size_of::<T>()),
    })?;
    pages::ask_for_huge::<T>(&mut memory);
    Ok(memory)
}

impl Cpu {
    /// One copy of the parts.
    fn stack<T: Pod>(&self, parts: &[&[u8]]) -> Result<Vec<T>> {
        let mut data: Vec<T> = zeroed(parts.iter().map(|part| part.len()).sum::<usize>() / size_of::<T>())?;
        let mut rest: &mut [u8] = bytemuck::cast_slice_mut(&mut data);
        for part in parts {
            let (to, after) = rest.split_at_mut(part.len());
            self.copy(to, part);
            rest = after;
        }
        Ok(data)
    }

    /// In parallel: reading a mapped file waits for its pages.
    fn copy(&self, to: &mut [u8], from: &[u8]) {
        const BLOCK: usize = 1 << 18; // bytes: long runs for the disk, small against any matrix
        let to = SharedMut::new(to);
        self.for_ranges(from.len(), BLOCK, |range| {
            // SAFETY: the ranges are disjoint.
            unsafe { to.slice(range.start, range.len()) }.copy_from_slice(&from[range]);
        });
    }
}

impl Backend for Cpu {
    type Buf<T: Elem> = Vec<T>;
    type Act = f32;
    type Weight = CpuWeight;

    /// f16 where the CPU widens it at once and exact results are not asked for; else f32.
    fn kv_formats(&self) -> &'static [KvFormat] {
        use KvFormat::{Bf16, F16, F32, Q8};
        match self.precision {
            Precision::Fast if self.isa >= Isa::Avx2 => &[F16, F32, Bf16, Q8],
            _ => &[F32, F16, Bf16, Q8],
        }
    }

    fn device_name(&self) -> String {
        format!("CPU ({:?}, {} threads)", self.isa, self.threads())
    }

    /// What the system says is available, and at most what is left of the control group's limit where there is one.
    fn available_bytes(&self) -> Option<u64> {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        let group = system.cgroup_limits().map_or(u64::MAX, |c| c.total_memory.saturating_sub(c.rss));
        (system.total_memory() > 0).then(|| system.available_memory().min(group))
    }

    fn alloc<T: Elem>(&mut self, len: usize) -> Result<Vec<T>> {
        zeroed(len)
    }

    fn upload<T: Elem>(&mut self, dst: &mut Vec<T>, src: &[T]) -> Result<()> {
        dst[..src.len()].copy_from_slice(src);
        Ok(())
    }

    fn download<T: Elem>(&mut self, dst: &mut [T], src: &Vec<T>) -> Result<()> {
        dst.copy_from_slice(&src[..dst.len()]);
        Ok(())
    }

    fn load_weight(&mut self, weight: HostWeight<'_>) -> Result<CpuWeight> {
        const { assert!(cfg!(target_endian = "little"), "weights are little-endian") };
        weight.check();
        let data = match weight.format {
            WeightFormat::F32 => WeightData::F32(self.stack(weight.parts)?),
            WeightFormat::F16 => WeightData::F16(self.stack(weight.parts)?),
            WeightFormat::Bf16 => WeightData::Bf16(self.stack(weight.parts)?),
            format @ (WeightFormat::Q8 | WeightFormat::Q4) => {
                let layout = QuantLayout::new(format, weight.rows, weight.cols);
                let bytes = self.aligned(layout.size_bytes(), |to| {
                    self.copy(to, weight.parts[0]);
                    Ok(())
                })?;
                WeightData::Quant(layout, bytes)
            }
        };
        Ok(CpuWeight { rows: weight.rows, cols: weight.cols, data })
    }

    /// Keeps quantised matrices, mapped files included.
    fn load_shared(
        &mut self,
        rows: usize,
        cols: usize,
        format: WeightFormat,
        bytes: SharedBytes,
    ) -> Result<CpuWeight> {
        if !format.is_quantised() {
            return self.load_weight(HostWeight { rows, cols, format, parts: &[bytes.as_slice()] });
        }
        HostWeight { rows, cols, format, parts: &[bytes.as_slice()] }.check();
        let data = WeightData::Quant(QuantLayout::new(format, rows, cols), bytes);
        Ok(CpuWeight { rows, cols, data })
    }

    fn embed(&mut self, x: &mut Rows<Self, f32>, table: &CpuWeight, step: &Step<Self>) -> Result<()> {
        ops::embed::run(self, x, table, step);
        Ok(())
    }
    fn rms_norm(
        &mut self,
        out: &mut Rows<Self, f32>,
        x: &Rows<Self, f32>,
        w: &Vec<f32>,
        eps: f32,
    ) -> Result<()> {
        ops::rms_norm::run(self, out, x, w, eps);
        Ok(())
    }
    fn matmul(&mut self, out: &mut Rows<Self, f32>, x: &Rows<Self, f32>, w: &CpuWeight) -> Result<()> {
        ops::matmul::run(self, out, x, w, ops::matmul::Epilogue::Store)
    }
    fn matmul_add(&mut self, x: &mut Rows<Self, f32>, a: &Rows<Self, f32>, w: &CpuWeight) -> Result<()> {
        ops::matmul::run(self, x, a, w, ops::matmul::Epilogue::Add)
    }
    fn matmul_f32(&mut self, out: &mut Rows<Self, f32>, x: &Rows<Self, f32>, w: &CpuWeight) -> Result<()> {
        ops::matmul::run(self, out, x, w, ops::matmul::Epilogue::Store)
    }
    fn matmul_swiglu(
        &mut self,
        out: &mut Rows<Self, f32>,
        gate_up: &mut Rows<Self, f32>,
        x: &Rows<Self, f32>,
        w: &CpuWeight,
    ) -> Result<()> {
        if ops::matmul::run_swiglu(self, out, x, w)? {
            return Ok(());
        }
        self.matmul(gate_up, x, w)?;
        self.swiglu(out, gate_up)
    }
    fn rope_store(
        &mut self,
        qkv: &mut Rows<Self, f32>,
        kv: &mut KvLayer<Self>,
        step: &Step<Self>,
        inv_freq: &Vec<f32>,
        attn: AttnShape,
    ) -> Result<()> {
        ops::rope_store::run(self, qkv, kv, step, inv_freq, attn);
        Ok(())
    }
    fn attention(
        &mut self,
        out: &mut Rows<Self, f32>,
        qkv: &Rows<Self, f32>,
        kv: &KvLayer<Self>,
        step: &Step<Self>,
        attn: AttnShape,
    ) -> Result<()> {
        ops::attention::run(self, out, qkv, kv, step, attn);
        Ok(())
    }
    fn swiglu(&mut self, out: &mut Rows<Self, f32>, gate_up: &Rows<Self, f32>) -> Result<()> {
        ops::swiglu::run(self, out, gate_up);
        Ok(())
    }
    fn take_rows(&mut self, out: &mut Rows<Self, f32>, x: &Rows<Self, f32>, step: &Step<Self>) -> Result<()> {
        ops::take_rows::run(out, x, step);
        Ok(())
    }

    /// Runs the step on this thread, with the others awake.
    fn record(
        &mut self,
        _dims: StepDims,
        _is_repeated: bool,
        body: &mut (dyn FnMut(&mut Self) -> Result<()> + Send),
    ) -> Result<()> {
        let team = self.team.clone();
        let _awake = team.stay_awake();
        body(self)
    }
}
