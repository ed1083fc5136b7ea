//! Every operation on a GPU, in the shapes of Mistral-7B. Before a case is timed, its result is held against the CPU's.
//! Without a GPU nothing is timed: the software GPU of the tests tells what kernels do, not how long that takes.
//!
//! As in a decode step, launches are recorded as a CUDA graph: a graph holds the operation many times, on matrices and caches
//! that together are larger than any L2 cache. A line of its own tells of each case the time of one operation, GB/s of all
//! bytes that must be moved, TFLOP/s of the products, and the share of the device's peak: `-` where its driver does not tell
//! that, and none of memory's for cases whose data the L2 cache holds.
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)] // the report takes the rest
#[path = "cuda_cases/mod.rs"]
mod cuda_cases;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use cuda_cases::{Case, Number, Op};
use cudarc::driver::result;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use half::{bf16, f16};
use komt_benches::{cubin, is_test};
use komt_cache::StepDims;
use komt_kernels::cuda::{CudaAct, CudaDevice, CudaOptions, device};
use komt_kernels::{Backend, Cuda, WeightFormat};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Matrices and caches that are read in turn take this much together: four times the largest L2 cache.
const COLD_BYTES: u64 = 512 << 20;

/// Operations in a graph, at least: what its launch takes is then little beside them.
const IN_GRAPH: usize = 20;

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    let mut add = |rows: &[usize], op: Op| cases.extend(rows.iter().map(|&rows| Case::new(op, rows)));
    add(&[1, 8, 128], Op::Embed);
    add(&[1, 8, 128], Op::RmsNorm);
    add(&[1, 2, 4, 8, 16, 32, 64, 128, 512, 2048], Op::Matmul(6144, 4096));
    add(&[1, 8, 128], Op::RopeStore);
    add(&[1, 8, 32], Op::Decode(4096));
    add(&[1], Op::Decode(512));
    add(&[512], Op::Prefill(512));
    add(&[2048], Op::Prefill(4096));
    add(&[1, 8, 64, 512], Op::MatmulAdd(4096, 4096));
    add(&[1, 2, 4, 8, 16, 32, 64, 128, 512, 2048], Op::MatmulSwiglu(28672, 4096));
    add(&[1, 8, 64, 512], Op::MatmulAdd(4096, 14336));
    add(&[8], Op::Swiglu);
    add(&[1, 8], Op::TakeRows);
    add(&[1, 8, 64], Op::MatmulF32(32_000, 4096));
    add(&[1, 8], Op::Argmax);
    add(&[1, 8], Op::TopCandidates(50));
    add(&[512], Op::Pool(4));
    for format in [WeightFormat::Q8, WeightFormat::Q4] {
        let mut add = |rows: &[usize], op: Op| {
            cases.extend(rows.iter().map(|&rows| Case { quantised: Some(format), ..Case::new(op, rows) }));
        };
        add(&[1, 8, 128], Op::Embed);
        add(&[1, 2, 4, 8, 16, 32, 64, 128, 512, 2048], Op::Matmul(6144, 4096));
        add(&[1, 8, 64, 512], Op::MatmulAdd(4096, 4096));
        add(&[1, 2, 4, 8, 16, 32, 64, 128, 512, 2048], Op::MatmulSwiglu(28672, 4096));
        add(&[1, 8, 64, 512], Op::MatmulAdd(4096, 14336));
        add(&[1, 8, 64], Op::MatmulF32(32_000, 4096));
    }
    // With a cache in 8 bits.
    let mut add = |rows: &[usize], op: Op| {
        let q8 = Some(WeightFormat::Q8);
        cases.extend(rows.iter().map(|&rows| Case { quantised: q8, ..Case::new(op, rows) }));
    };
    add(&[1, 8, 128], Op::RopeStore);
    add(&[1, 8, 32], Op::Decode(4096));
    add(&[1], Op::Decode(512));
    add(&[512], Op::Prefill(512));
    add(&[2048], Op::Prefill(4096));
    cases
}

/// What the device could do at best, by its own account; `None` where its driver does not tell.
struct Peak {
    bytes_per_s: Option<f64>,
    flops: Option<f64>,
    l2_bytes: u64,
}

impl Peak {
    fn of(device: &CudaDevice) -> Self {
        let attribute = |attribute| {
            let handle = result::device::get(device.ordinal as i32).unwrap();
            // SAFETY: the handle is the driver's.
            f64::from(unsafe { result::device::get_attribute(handle, attribute) }.unwrap_or(0))
        };
        // In kHz and bits; memory transfers twice a cycle.
        let memory = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE) * 1e3;
        let bus = attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH) / 8.0;
        let clock = attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE) * 1e3;
        let l2_bytes = attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE) as u64;
        let told = |value: f64| (value > 0.0).then_some(value);
        Self {
            bytes_per_s: told(2.0 * memory * bus),
            flops: told(clock * f64::from(device.sm_count) * per_cycle(device.arch)),
            l2_bytes: if l2_bytes > 0 { l2_bytes } else { COLD_BYTES / 4 },
        }
    }

    /// Whether arithmetic bounds the time, and not memory.
    fn is_arithmetic(&self, bytes: u64, flops: u64) -> bool {
        const A100: f64 = 312e12 / 1.555e12; // operations for each byte, where the device's own are not known
        let balance = self.flops.zip(self.bytes_per_s).map_or(A100, |(flops, bytes)| flops / bytes);
        flops as f64 > balance * bytes as f64
    }
}

/// `45 % of 3350`, the peak in multiples of `unit`.
fn share(value: f64, peak: Option<f64>, unit: f64) -> String {
    peak.map_or("-".into(), |peak| format!("{:.0} % of {:.0}", 100.0 * value / peak, peak / unit))
}

/// Floating-point operations of a multiprocessor's tensor cores in a cycle: 16-bit factors, sums in f32, nothing sparse
/// (NVIDIA's architecture white papers). Of 8.6, 8.9 and 12.0 those of the GeForce cards; the professional ones do twice as many.
fn per_cycle(arch: (u32, u32)) -> f64 {
    match arch {
        (7, _) => 1024.0,
        (8, 0) => 2048.0,
        (8, _) | (12, _) => 512.0,
        (9, _) => 4096.0,
        _ => 8192.0,
    }
}

fn format<A: CudaAct>() -> WeightFormat {
    if A::IS_F16 { WeightFormat::F16 } else { WeightFormat::Bf16 }
}

/// Times `case`, and tells the rest.
fn time<A: CudaAct + Number>(c: &mut Criterion, cuda: &mut Cuda<A>, peak: &Peak, nth: usize, case: Case) {
    let (op, shape) = (case.op_name(), case.shape());
    let (bytes, flops) = (case.streamed_bytes() + case.act_bytes(), case.flops());
    let mut group = c.benchmark_group(format!("cuda/{op}"));
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(match peak.is_arithmetic(bytes, flops) {
        true => Throughput::Elements(flops),
        false => Throughput::BytesDecimal(bytes),
    });
    let room = cuda.available_bytes().unwrap_or(0) / 2;
    let copies = match case.streamed_bytes() {
        0 => 1,
        _ if is_test() => 1,
        one => (COLD_BYTES.min(room) / one).max(1) as usize,
    };
    let is_cached = copies as u64 * case.streamed_bytes() + case.act_bytes() <= peak.l2_bytes;
    let (mut ready, best_s) = (None, Cell::new(f64::INFINITY));
    let key = StepDims { n_tokens: nth + 1, n_seqs: 0, n_logits: 0 };
    group.bench_function(&shape, |b| {
        let ready = ready.get_or_insert_with(|| {
            let mut ready = case.prepare(cuda, format::<A>(), copies).unwrap();
            ready.run(cuda).unwrap();
            case.check(cuda, &ready, format::<A>()).unwrap_or_else(|error| panic!("{error}"));
            ready
        });
        let in_graph = copies.max(IN_GRAPH);
        b.iter_custom(|iters| {
            let n = iters.div_ceil(in_graph as u64);
            let mut graph = |cuda: &mut Cuda<A>| (0..in_graph).try_for_each(|_| ready.run(cuda));
            let start = Instant::now();
            (0..n).for_each(|_| cuda.record(key, true, &mut graph).unwrap());
            ready.wait(cuda).unwrap();
            let one = start.elapsed().as_secs_f64() / (n * in_graph as u64) as f64;
            best_s.set(best_s.get().min(one));
            Duration::from_secs_f64(one * iters as f64)
        });
    });
    group.finish();
    if is_test() || best_s.get().is_infinite() {
        return;
    }
    let (bytes_per_s, flops_per_s) = (bytes as f64 / best_s.get(), flops as f64 / best_s.get());
    let of_memory = match is_cached {
        true => "in the L2 cache".into(),
        false => share(bytes_per_s, peak.bytes_per_s, 1e9),
    };
    let products = match flops {
        0 => String::new(),
        _ => format!(", {:.1} TFLOP/s ({})", flops_per_s / 1e12, share(flops_per_s, peak.flops, 1e12)),
    };
    println!(
        "{op} {shape}: {:.1} us, {:.0} GB/s ({of_memory}){products}",
        best_s.get() * 1e6,
        bytes_per_s / 1e9
    );
}

fn all<A: CudaAct + Number>(c: &mut Criterion) {
    let mut options = CudaOptions::default();
    if let Some(nvrtc) = cubin::fetched_nvrtc() {
        options = options.nvrtc(nvrtc);
    }
    let mut cuda = match Cuda::<A>::with(options) {
        Ok(cuda) => cuda,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    println!("on {}", cuda.device_name());
    let peak = Peak::of(cuda.device());
    for (nth, case) in cases().into_iter().enumerate() {
        time(c, &mut cuda, &peak, nth, case);
    }
}

fn cuda(c: &mut Criterion) {
    match device(0) {
        Ok(device) if device.name.contains("software") => {
            println!("SKIPPED: {}: it tells what kernels do, not how long that takes", device.name);
        }
        Ok(device) if device.has_bf16() => all::<bf16>(c),
        Ok(_) => all::<f16>(c),
        Err(error) => println!("SKIPPED: operations are timed on a GPU only, and there is none: {error}"),
    }
}

criterion_group!(benches, cuda);
criterion_main!(benches);
