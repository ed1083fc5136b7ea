//! Kernels that a compiler of other people's making wrote (Triton; `triton/SOURCES.md`), run with every check, against naive loops in f64.
#![allow(clippy::unwrap_used)]

use komt_softgpu::DeviceSpec;
use komt_softgpu::exec::{Launch, LoadedModule, RunOptions, run};
use komt_softgpu::memory::Memory;
use komt_softgpu::num::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use komt_softgpu::ptx;

/// Element types of buffers, as bits. A value is rounded once going in.
#[derive(Clone, Copy, PartialEq)]
enum El {
    Bf16,
    F16,
    F32,
    I8,
    I32,
}

impl El {
    fn bytes(self) -> usize {
        match self {
            El::I8 => 1,
            El::Bf16 | El::F16 => 2,
            El::F32 | El::I32 => 4,
        }
    }

    fn encode(self, x: f64) -> Vec<u8> {
        match self {
            El::Bf16 => f32_to_bf16(x as f32).to_le_bytes().to_vec(),
            El::F16 => f32_to_f16(x as f32).to_le_bytes().to_vec(),
            El::F32 => (x as f32).to_le_bytes().to_vec(),
            El::I8 => vec![x as i8 as u8],
            El::I32 => (x as i32).to_le_bytes().to_vec(),
        }
    }

    fn decode(self, b: &[u8]) -> f64 {
        match self {
            El::Bf16 => bf16_to_f32(u16::from_le_bytes([b[0], b[1]])).into(),
            El::F16 => f16_to_f32(u16::from_le_bytes([b[0], b[1]])).into(),
            El::F32 => f32::from_le_bytes(b.try_into().unwrap()).into(),
            El::I8 => f64::from(b[0] as i8),
            El::I32 => i32::from_le_bytes(b.try_into().unwrap()).into(),
        }
    }
}

/// A device buffer of the test: what was written into it, as the kernel will read it.
struct Buffer {
    addr: u64,
    el: El,
    values: Vec<f64>,
}

enum Arg<'a> {
    Buffer(&'a Buffer),
    Int(i32),
    Float(f32),
}

struct Gpu {
    memory: Memory,
    spec: DeviceSpec,
}

impl Gpu {
    fn new() -> Self {
        Self { memory: Memory::new(64 << 20), spec: DeviceSpec::sm(80) }
    }

    /// `count` values of a fixed sequence in [-1, 1), or integers of [-100, 100), rounded to the type.
    fn random(&self, el: El, count: usize, seed: u32) -> Buffer {
        let mut state = seed;
        let values = (0..count).map(|_| {
            // Numerical Recipes' generator; the upper bits are the good ones.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f64::from(state >> 8) / f64::from(1 << 23) - 1.0;
            if matches!(el, El::I8 | El::I32) { (x * 100.0).floor() } else { x }
        });
        self.filled(el, values.collect())
    }

    fn filled(&self, el: El, values: Vec<f64>) -> Buffer {
        let bytes: Vec<u8> = values.iter().flat_map(|x| el.encode(*x)).collect();
        let addr = self.memory.alloc(bytes.len() as u64).unwrap();
        self.memory.write(addr, &bytes).unwrap();
        let values = bytes.chunks(el.bytes()).map(|b| el.decode(b)).collect();
        Buffer { addr, el, values }
    }

    /// Nothing in it is defined.
    fn empty(&self, el: El, count: usize) -> Buffer {
        Buffer { addr: self.memory.alloc((count * el.bytes()) as u64).unwrap(), el, values: vec![0.0; count] }
    }

    fn read(&self, buffer: &Buffer) -> Vec<f64> {
        let mut bytes = vec![0; buffer.values.len() * buffer.el.bytes()];
        self.memory.read(buffer.addr, &mut bytes).unwrap();
        bytes.chunks(buffer.el.bytes()).map(|b| buffer.el.decode(b)).collect()
    }

    /// Runs the only kernel of `text` under a seed; any complaint fails the test.
    fn run(&self, text: &str, grid: [u32; 3], args: &[Arg<'_>], seed: u64) {
        let module = LoadedModule::new(ptx::parse(text, &self.spec).unwrap(), &self.memory).unwrap();
        let kernel = &module.module.kernels[0];
        let head: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
        let after = |word| head[head.iter().position(|w| *w == word).unwrap() + 1].parse::<u32>().unwrap();
        let mut params = vec![0; kernel.param_bytes as usize];
        for (arg, (offset, _)) in args.iter().zip(&kernel.params) {
            let bytes = match arg {
                Arg::Buffer(buffer) => buffer.addr.to_le_bytes().to_vec(),
                Arg::Int(x) => x.to_le_bytes().to_vec(),
                Arg::Float(x) => x.to_le_bytes().to_vec(),
            };
            params[*offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(args.len() + 2, kernel.params.len(), "two scratch pointers follow");
        let launch = Launch {
            kernel,
            grid,
            block: [after("threads"), 1, 1],
            dynamic_shared_bytes: after("shared"),
            params: &params,
        };
        let options = RunOptions { seed, checks: true, ..RunOptions::default() };
        if let Err(complaint) = run(&launch, &module, &self.memory, &self.spec, &options) {
            panic!("seed {seed}: {complaint}");
        }
    }
}

/// Normalised mean squared error.
fn nmse(got: &[f64], expect: &[f64]) -> f64 {
    assert_eq!(got.len(), expect.len());
    let error: f64 = got.iter().zip(expect).map(|(a, b)| (a - b) * (a - b)).sum();
    error / expect.iter().map(|x| x * x).sum::<f64>()
}

/// One rounding of normal data costs an NMSE of 2.8e-6 in bf16 and 4.3e-8 in f16; sums in f32 far less.
fn bound(el: El) -> f64 {
    match el {
        El::Bf16 => 3.5e-6,
        El::F16 => 6e-8,
        _ => 1e-12,
    }
}

const SEEDS: [u64; 3] = [0, 1, 2];

/// c = a b^T (`transposed`: B is [n, k]) or a b, with every dimension past a tile's edge.
fn check_matmul(text: &str, input: El, output: El, transposed: bool, allowed: f64) {
    let (m, n, k) = (100, if transposed { 70 } else { 80 }, 80);
    for seed in SEEDS {
        let gpu = Gpu::new();
        let (a, b) = (gpu.random(input, m * k, 1), gpu.random(input, n * k, 2));
        let c = gpu.empty(output, m * n);
        let args = [
            Arg::Buffer(&a),
            Arg::Buffer(&b),
            Arg::Buffer(&c),
            Arg::Int(100),
            Arg::Int(n as i32),
            Arg::Int(80),
        ];
        gpu.run(text, [2, 2, 1], &args, seed);
        // tf32 operands are f32 without their lowest 13 bits.
        let value = |x: f64| {
            if input == El::F32 { f64::from(f32::from_bits((x as f32).to_bits() & !0x1fff)) } else { x }
        };
        let mut expect = vec![0.0; m * n];
        for (at, sum) in expect.iter_mut().enumerate() {
            let (row, col) = (at / n, at % n);
            let right = |i: usize| if transposed { b.values[col * k + i] } else { b.values[i * n + col] };
            *sum = (0..k).map(|i| value(a.values[row * k + i]) * value(right(i))).sum();
        }
        let error = nmse(&gpu.read(&c), &expect);
        assert!(error <= allowed, "seed {seed}: NMSE {error:e}");
    }
}

#[test]
fn matmul_bf16() {
    check_matmul(include_str!("triton/matmul_bf16.ptx"), El::Bf16, El::Bf16, true, bound(El::Bf16));
}

#[test]
fn matmul_f16_with_f32_result() {
    check_matmul(include_str!("triton/matmul_f16.ptx"), El::F16, El::F32, true, bound(El::F32));
}

#[test]
fn matmul_i8_is_exact() {
    check_matmul(include_str!("triton/matmul_i8.ptx"), El::I8, El::I32, true, 0.0);
}

#[test]
fn matmul_with_f16_sums() {
    // k = 80 in steps of 16: five roundings of growing sums, and the last one.
    check_matmul(include_str!("triton/matmul_nn_f16.ptx"), El::F16, El::F16, false, 5.0 * bound(El::F16));
}

#[test]
fn matmul_tf32() {
    check_matmul(include_str!("triton/matmul_tf32.ptx"), El::F32, El::F32, true, bound(El::F32));
}

fn check_softmax(text: &str, el: El, rows: usize, n: usize) {
    for seed in SEEDS {
        let gpu = Gpu::new();
        let x = gpu.random(el, rows * n, 3);
        let y = gpu.empty(el, rows * n);
        gpu.run(text, [rows as u32, 1, 1], &[Arg::Buffer(&y), Arg::Buffer(&x), Arg::Int(n as i32)], seed);
        let mut expect = Vec::new();
        for row in x.values.chunks(n) {
            let sum: f64 = row.iter().map(|v| v.exp()).sum();
            expect.extend(row.iter().map(|v| v.exp() / sum));
        }
        let error = nmse(&gpu.read(&y), &expect);
        // exp2(x * log2 e) in f32: the argument's rounding alone is 2^-25 relative to 1.
        let allowed = if el == El::F32 { 1e-13 } else { 2.0 * bound(el) };
        assert!(error <= allowed, "seed {seed}: NMSE {error:e}");
    }
}

#[test]
fn softmax_in_f16() {
    check_softmax(include_str!("triton/softmax.ptx"), El::F16, 5, 1000);
}

#[test]
fn softmax_of_one_warp() {
    check_softmax(include_str!("triton/softmax_odd.ptx"), El::F32, 7, 101);
}

#[test]
fn layer_norm() {
    let (rows, n, eps) = (6, 500, 1e-5f32);
    for seed in SEEDS {
        let gpu = Gpu::new();
        let (x, w, b) =
            (gpu.random(El::F32, rows * n, 4), gpu.random(El::F32, n, 5), gpu.random(El::F32, n, 6));
        let y = gpu.empty(El::Bf16, rows * n);
        let buffers = [&y, &x, &w, &b].map(Arg::Buffer);
        let args: Vec<_> = buffers.into_iter().chain([Arg::Int(n as i32), Arg::Float(eps)]).collect();
        gpu.run(include_str!("triton/layer_norm.ptx"), [rows as u32, 1, 1], &args, seed);
        let mut expect = Vec::new();
        for row in x.values.chunks(n) {
            let mean = row.iter().sum::<f64>() / n as f64;
            let var = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
            let scale = 1.0 / (var + f64::from(eps)).sqrt();
            expect
                .extend(row.iter().enumerate().map(|(i, v)| (v - mean) * scale * w.values[i] + b.values[i]));
        }
        let error = nmse(&gpu.read(&y), &expect);
        assert!(error <= bound(El::Bf16), "seed {seed}: NMSE {error:e}");
    }
}

/// Two heads, 100 positions: a whole tile of queries and one with 28 missing.
fn check_attention(text: &str, el: El) {
    let (heads, n, dim) = (2, 100, 64);
    for seed in SEEDS {
        let gpu = Gpu::new();
        let [q, k, v] = [7, 8, 9].map(|at| gpu.random(el, heads * n * dim, at));
        let out = gpu.empty(el, heads * n * dim);
        let scale = 1.0 / (dim as f64).sqrt();
        let args: Vec<_> = [&out, &q, &k, &v]
            .map(Arg::Buffer)
            .into_iter()
            .chain([Arg::Int(n as i32), Arg::Float((scale * std::f64::consts::LOG2_E) as f32)])
            .collect();
        gpu.run(text, [2, heads as u32, 1], &args, seed);
        let mut expect = Vec::new();
        for at in 0..heads * n {
            let (head, row) = (at / n * n, at % n);
            let line = |x: &Buffer, i: usize| x.values[(head + i) * dim..][..dim].to_vec();
            let query = line(&q, row);
            let weights: Vec<f64> = (0..=row)
                .map(|j| (query.iter().zip(line(&k, j)).map(|(a, b)| a * b).sum::<f64>() * scale).exp())
                .collect();
            let total: f64 = weights.iter().sum();
            let mut sums = vec![0.0; dim];
            for (j, weight) in weights.iter().enumerate() {
                sums.iter_mut().zip(line(&v, j)).for_each(|(sum, x)| *sum += weight / total * x);
            }
            expect.extend(sums);
        }
        let error = nmse(&gpu.read(&out), &expect);
        // The probabilities are rounded to the type, and the result.
        assert!(error <= 2.0 * bound(el), "seed {seed}: NMSE {error:e}");
    }
}

#[test]
fn attention_bf16() {
    check_attention(include_str!("triton/attention_bf16.ptx"), El::Bf16);
}

#[test]
fn attention_f16() {
    check_attention(include_str!("triton/attention_f16.ptx"), El::F16);
}

#[test]
fn running_sums_argmax_and_counts() {
    let n = 300;
    for seed in SEEDS {
        let gpu = Gpu::new();
        let x = gpu.random(El::I32, n, 10);
        let (sums, places) = (gpu.empty(El::I32, n), gpu.filled(El::I32, vec![0.0; 5]));
        let args = [Arg::Buffer(&sums), Arg::Buffer(&places), Arg::Buffer(&x), Arg::Int(n as i32)];
        gpu.run(include_str!("triton/scan.ptx"), [1, 1, 1], &args, seed);
        let mut total = 0.0;
        let running: Vec<f64> = x.values.iter().map(|v| (total += v, total).1).collect();
        assert_eq!(gpu.read(&sums), running);
        let largest = x.values.iter().copied().fold(f64::MIN, f64::max);
        let mut expect =
            vec![x.values.iter().position(|v| *v == largest).unwrap() as f64, 0.0, 0.0, 0.0, 0.0];
        x.values.iter().for_each(|v| expect[1 + (*v as i32 & 3) as usize] += 1.0);
        assert_eq!(gpu.read(&places), expect);
    }
}
