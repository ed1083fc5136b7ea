//! What the software GPU counts while the operations run on it.

use crate::cuda_cases::{Case, Op};
use half::bf16;
use komt_benches::cubin;
use komt_kernels::cuda::{CudaCache, CudaOptions};
use komt_kernels::{Cuda, WeightFormat};
use komt_softgpu::exec::Counters;
use komt_softgpu::{DeviceSpec, LaunchRecord, Options, SoftGpu};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

/// A case and what its launches did.
pub struct Counted {
    pub case: Case,
    pub launches: Vec<LaunchRecord>,
    /// Of all launches together.
    pub total: Counters,
    /// Bytes of weights, or of keys and values, that threads asked for.
    pub streamed_bytes: u64,
    /// Error of the result against the CPU's.
    pub nmse: f64,
}

impl Counted {
    /// Bytes of weights, or of keys and values, that threads asked for, over what is there.
    pub fn streamed_ratio(&self) -> Option<f64> {
        let size = self.case.streamed_bytes();
        (size > 0).then(|| self.streamed_bytes as f64 / size as f64)
    }

    /// Instructions of threads for each weight, or each number of keys and values.
    pub fn instructions_per_number(&self) -> Option<f64> {
        let numbers = self.case.numbers();
        (numbers > 0).then(|| self.total.thread_instructions() as f64 / numbers as f64)
    }

    /// Bytes that threads loaded beside the weights, or keys and values.
    pub fn other_loaded_bytes(&self) -> u64 {
        self.total.global_load_bytes_requested - self.streamed_bytes
    }

    pub fn sectors_per_request(&self) -> f64 {
        self.total.global_sectors as f64 / self.total.global_requests.max(1) as f64
    }
}

/// What was seen on one architecture.
pub struct Seen {
    pub spec: DeviceSpec,
    pub counted: Vec<Counted>,
    /// Seconds to open the device with an empty cache of compiled kernels, and with a full one.
    pub cold_s: f64,
    pub warm_s: f64,
}

impl Seen {
    /// 80: sm_80.
    pub fn sm(&self) -> u32 {
        self.spec.arch.0 * 10 + self.spec.arch.1
    }

    /// As the build's that ran.
    pub fn name(&self) -> String {
        format!("sm_{}, bf16", self.sm())
    }
}

/// Rows of the decode steps whose launches are counted: one sequence, the most that one reading of the weights serves, and what
/// `EngineOptions::max_seqs` is by default.
pub const STEP_ROWS: [usize; 3] = [1, 8, 16];

/// The rows of one step's operations, in the order of the forward pass.
pub fn step_cases(rows: usize) -> Vec<Case> {
    let ops = [
        Op::Embed,
        Op::RmsNorm,
        Op::Matmul(6144, 4096),
        Op::RopeStore,
        Op::Decode(4096),
        Op::MatmulAdd(4096, 4096),
        Op::MatmulSwiglu(28672, 4096),
        Op::MatmulAdd(4096, 14336),
        Op::TakeRows,
        Op::MatmulF32(32_000, 4096),
    ];
    ops.map(|op| Case::new(op, rows)).into()
}

/// Everything that is run on the software GPU.
pub fn cases() -> Vec<Case> {
    let mut cases = STEP_ROWS.map(step_cases).concat();
    let (qkv, gate_up, down) =
        (Op::Matmul(6144, 4096), Op::MatmulSwiglu(28672, 4096), Op::MatmulAdd(4096, 14336));
    let more = [
        (2, vec![qkv]),
        (4, vec![qkv]),
        (32, vec![qkv]),
        (64, vec![qkv, gate_up, down]),
        (128, vec![qkv, gate_up, down]),
        (512, vec![qkv]),
    ];
    for (rows, ops) in more {
        cases.extend(ops.into_iter().map(|op| Case::new(op, rows)));
    }
    cases.push(Case::new(Op::Swiglu, 8));
    cases.push(Case::new(Op::Prefill(512), 512));
    cases.push(Case::new(Op::Prefill(4096), 128));
    // Behind a step: a draw, and what becomes of texts.
    let draws = [1, 8].map(|rows| [Op::Argmax, Op::TopCandidates(50)].map(|op| Case::new(op, rows)));
    cases.extend(draws.as_flattened());
    cases.push(Case::new(Op::Pool(4), 512));
    // Heads of other widths: each of their kernels is launched once.
    for head_dim in [64, 96] {
        for quantised in [None, Some(WeightFormat::Q8)] {
            let ops = [(1, Op::Decode(512)), (64, Op::Prefill(512))];
            cases.extend(ops.map(|(rows, op)| Case { quantised, head_dim, ..Case::new(op, rows) }));
        }
    }
    // With a cache in 8 bits.
    let cached = [1, 8].map(|rows| [(rows, Op::RopeStore), (rows, Op::Decode(4096))]);
    let chunks = [(512, Op::Prefill(512)), (128, Op::Prefill(4096))];
    let q8 = |(rows, op)| Case { quantised: Some(WeightFormat::Q8), ..Case::new(op, rows) };
    cases.extend(cached.concat().into_iter().chain(chunks).map(q8));
    for format in [WeightFormat::Q8, WeightFormat::Q4] {
        let one_row =
            vec![Op::Embed, qkv, Op::MatmulAdd(4096, 4096), gate_up, down, Op::MatmulF32(32_000, 4096)];
        let few = [(1, one_row), (2, vec![qkv]), (8, vec![qkv, gate_up]), (16, vec![qkv, gate_up])];
        let more = [(32, vec![qkv]), (64, vec![qkv, gate_up]), (128, vec![qkv, down])];
        for (rows, ops) in few.into_iter().chain(more) {
            let case = |op| Case { quantised: Some(format), ..Case::new(op, rows) };
            cases.extend(ops.into_iter().map(case));
        }
    }
    cases
}

/// Runs `cases` on a software GPU of compute capability `sm`.
pub fn count(sm: u32, cases: &[Case], cache: &Path) -> Result<Seen, Box<dyn Error>> {
    let spec = DeviceSpec::sm(sm);
    let soft = SoftGpu::lock(&spec)?;
    let mut options = Options { record_launches: true, ..Options::default() };
    options.run.checks = false; // the tests run with them: here they would only take time
    soft.options(&options);
    let (_, cold_s) = open(cache)?;
    let (mut cuda, warm_s) = open(cache)?;
    let mut counted = vec![];
    for case in cases {
        let start = Instant::now();
        let mut ready = case.prepare(&mut cuda, WeightFormat::Bf16, 1)?;
        ready.wait(&mut cuda)?;
        soft.take_launches();
        ready.run(&mut cuda)?;
        ready.wait(&mut cuda)?;
        let launches = soft.take_launches();
        let mut total = Counters::default();
        launches.iter().for_each(|launch| total.add(&launch.counters));
        let loaded = |at| total.allocations.get(at).map_or(0, |used| used.loaded_requested);
        let streamed_bytes = ready.streamed_at.iter().map(loaded).sum();
        let nmse = case.check(&mut cuda, &ready, WeightFormat::Bf16)?;
        println!("sm_{sm} {} {}: {:.1} s", case.op_name(), case.shape(), start.elapsed().as_secs_f64());
        counted.push(Counted { case: *case, launches, total, streamed_bytes, nmse });
    }
    Ok(Seen { spec, counted, cold_s, warm_s })
}

fn open(cache: &Path) -> Result<(Cuda<bf16>, f64), Box<dyn Error>> {
    let mut options = CudaOptions::default().cache(CudaCache::Dir(cache.into()));
    if let Some(nvrtc) = cubin::fetched_nvrtc() {
        options = options.nvrtc(nvrtc);
    }
    let start = Instant::now();
    let cuda = Cuda::with(options)?;
    Ok((cuda, start.elapsed().as_secs_f64()))
}
