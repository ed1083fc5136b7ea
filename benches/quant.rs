//! Products with q8 and q4 weights in the shapes of Mistral-7B, without criterion: time of one pass over weights that come from
//! memory, how much of what this machine reads that is, and operations a second (two a weight and row).
//!
//! `cargo bench -p komt-benches --bench quant -- [WORD..] [--exact]`: cases whose names have all the words. Every result is held
//! against the scalar reference first (komt-kernels/tests/quant_matmul.rs derives bounds; this one is coarse).
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use komt_benches::bandwidth::{BUFFER_BYTES, read_bandwidth};
use komt_benches::is_test;
use komt_kernels::quant::QuantLayout;
use komt_kernels::{
    AlignedBytes, Backend, Cpu, CpuOptions, CpuWeight, Isa, Precision, RowBuf, SharedBytes, WeightFormat,
};
use std::sync::Arc;
use std::time::Instant;

/// q, k and v; gate and up; down.
const SHAPES: [(usize, usize); 3] = [(6144, 4096), (28672, 4096), (4096, 14336)];

/// Weights that are read in turn: more than the caches hold.
const COLD_BYTES: usize = 1 << 30;

/// The root of the mean squared error over that of the reference: activations in 8 bits cost 0.5 %.
const BOUND: f64 = 0.02;

fn hash(i: usize) -> u64 {
    let z = (i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (z ^ z >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Any bytes are weights; the scales of the rows are set.
fn weights(layout: &QuantLayout) -> SharedBytes {
    let mut words = AlignedBytes::zeroed(layout.size_bytes()).unwrap();
    let bytes = words.as_mut();
    bytes
        .chunks_mut(8)
        .enumerate()
        .for_each(|(i, to)| to.copy_from_slice(&hash(i).to_le_bytes()[..to.len()]));
    let row_scales = layout.quants_bytes()..layout.scales_at();
    bytes[row_scales].chunks_exact_mut(4).for_each(|to| to.copy_from_slice(&1e-4f32.to_le_bytes()));
    SharedBytes::new(Arc::new(words), 0..layout.size_bytes())
}

fn rows(values: Vec<f32>, cols: usize) -> RowBuf<Vec<f32>> {
    let n = values.len() / cols;
    RowBuf { buf: values, rows: n, cols, max_rows: n }
}

fn check(case: &str, x: &RowBuf<Vec<f32>>, got: &RowBuf<Vec<f32>>, w: &(QuantLayout, SharedBytes)) {
    let mut row = vec![0.0; w.0.cols];
    let (mut error, mut square) = (0.0, 0.0);
    for o in (0..w.0.rows).step_by(997) {
        w.0.decode_row(w.1.as_slice(), o, &mut row);
        for (r, x) in x.buf.chunks_exact(x.cols).enumerate().step_by(37) {
            let expected: f64 = x.iter().zip(&row).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            error += (f64::from(got.buf[r * got.cols + o]) - expected).powi(2);
            square += expected.powi(2);
        }
    }
    let ratio = (error / square).sqrt();
    assert!(ratio < BOUND, "{case}: error {ratio} of the scalar reference, bound {BOUND}");
}

/// Seconds of a product: the median of what fits into half a second, 5 at least.
fn time(cpu: &mut Cpu, out: &mut RowBuf<Vec<f32>>, x: &RowBuf<Vec<f32>>, copies: &[CpuWeight]) -> f64 {
    let mut times = vec![];
    let start = Instant::now();
    for w in copies.iter().cycle() {
        let one = Instant::now();
        cpu.matmul(out, x, w).unwrap();
        times.push(one.elapsed().as_secs_f64());
        if is_test() || times.len() >= 5 && start.elapsed().as_secs_f64() > 0.5 {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let precision = if args.iter().any(|arg| arg == "--exact") { Precision::Exact } else { Precision::Fast };
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let mut cpu = Cpu::with(CpuOptions::default().precision(precision)).unwrap();
    let limit = read_bandwidth(if is_test() { 1 << 20 } else { BUFFER_BYTES });
    println!("{}, {precision:?}; memory is read at {:.1} GB/s", cpu.device_name(), limit / 1e9);
    assert!(cpu.isa() > Isa::Scalar, "the reference is not timed");
    for (format, name) in [(WeightFormat::Q8, "q8"), (WeightFormat::Q4, "q4")] {
        for (outs, cols) in SHAPES {
            let case = |n: usize| format!("{name} {outs}x{cols} {n} rows");
            let ns = [1, 4, 16, 64, 512].into_iter().filter(|&n| words.iter().all(|w| case(n).contains(*w)));
            let ns: Vec<usize> = ns.filter(|&n| !is_test() || n == 4).collect();
            if ns.is_empty() {
                continue;
            }
            let layout = QuantLayout::new(format, outs, cols);
            let bytes = layout.size_bytes();
            let n_copies = if is_test() { 1 } else { COLD_BYTES.div_ceil(bytes) };
            let stored: Vec<SharedBytes> = (0..n_copies).map(|_| weights(&layout)).collect();
            let load = |bytes: &SharedBytes| cpu.load_shared(outs, cols, format, bytes.clone()).unwrap();
            let copies: Vec<CpuWeight> = stored.iter().map(load).collect();
            for n in ns {
                let value = |i| (hash(i) >> 40) as f32 / 2f32.powi(23) - 1.0;
                let x = rows((0..n * cols).map(value).collect(), cols);
                let mut out = rows(vec![0.0; n * outs], outs);
                cpu.matmul(&mut out, &x, &copies[0]).unwrap();
                check(&case(n), &x, &out, &(layout, stored[0].clone()));
                let seconds = time(&mut cpu, &mut out, &x, &copies);
                let (read, ops) = (bytes as f64 / seconds, (2 * n * outs * cols) as f64 / seconds);
                println!(
                    "{:<24} {:9.1} us {:7.1} GB/s {:4.0} % {:8.0} GOP/s",
                    case(n),
                    seconds * 1e6,
                    read / 1e9,
                    100.0 * read / limit,
                    ops / 1e9
                );
            }
        }
    }
    let again = read_bandwidth(if is_test() { 1 << 20 } else { BUFFER_BYTES });
    println!("memory is read at {:.1} GB/s", again / 1e9);
}
