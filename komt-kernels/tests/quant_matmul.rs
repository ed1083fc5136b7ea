//! Products with q8 and q4 weights on every instruction set of this machine, exact and fast, against the scalar reference.
//!
//! Metric: normalised mean squared error, `sum (a - b)^2 / sum b^2`.
#![allow(clippy::unwrap_used)]

use komt_kernels::quant::{QuantLayout, RowSource};
use komt_kernels::{Backend, Cpu, CpuOptions, Isa, Precision, Rows, SharedBytes, WeightFormat};

const FORMATS: [WeightFormat; 2] = [WeightFormat::Q8, WeightFormat::Q4];

struct Matrix<'a> {
    rows: usize,
    cols: usize,
    values: &'a [f32],
}

impl RowSource for Matrix<'_> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.values[row * self.cols..][..self.cols]);
    }
}

fn cpu(isa: Isa, precision: Precision, threads: usize) -> Cpu {
    Cpu::with(CpuOptions::default().isa(isa).threads(threads).precision(precision)).unwrap()
}

/// Every instruction set and precision but the reference, with the threads.
fn fast(threads: &[usize]) -> Vec<Cpu> {
    let isas = Isa::available();
    let cases = isas[1..].iter().flat_map(|&isa| [(isa, Precision::Exact), (isa, Precision::Fast)]);
    cases.flat_map(|(isa, precision)| threads.iter().map(move |&n| cpu(isa, precision, n))).collect()
}

/// Numbers of about normal size, from a counter.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| 2.0 * (uniform() + uniform() + uniform())).collect()
}

fn quantise(format: WeightFormat, values: &[f32], cols: usize) -> SharedBytes {
    let matrix = Matrix { rows: values.len() / cols, cols, values };
    cpu(Isa::detect(), Precision::Exact, 2).quantise(format, &matrix).unwrap()
}

/// `x . w^T` on top of `before`, or in its place.
fn product(cpu: &mut Cpu, x: &[f32], w: (&SharedBytes, QuantLayout), before: Option<&[f32]>) -> Vec<f32> {
    let (bytes, layout) = w;
    let w = cpu.load_shared(layout.rows, layout.cols, layout.format, bytes.clone()).unwrap();
    let n = x.len() / layout.cols;
    let rows = |cpu: &mut Cpu, values: &[f32], cols| {
        let mut rows = Rows::<Cpu, f32>::alloc(cpu, n, cols).unwrap();
        cpu.upload(&mut rows.buf, values).unwrap();
        rows.rows = n;
        rows
    };
    let x = rows(cpu, x, layout.cols);
    let mut out = rows(cpu, before.unwrap_or(&vec![f32::NAN; n * layout.rows]), layout.rows);
    match before {
        Some(_) => cpu.matmul_add(&mut out, &x, &w).unwrap(),
        None => cpu.matmul(&mut out, &x, &w).unwrap(),
    }
    out.buf
}

fn square_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

fn square(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum()
}

/// The expected square error of all outputs when x is rounded to 8 bits in groups of 32: a number is off by a uniform draw of
/// at most half a step, `step^2 / 12` when squared, times the weight's square.
fn rounding_error(x: &[f32], decoded: &[f32], cols: usize) -> f64 {
    let mut weights = vec![0f64; cols]; // sum over the outputs of w^2
    for row in decoded.chunks_exact(cols) {
        weights.iter_mut().zip(row).for_each(|(sum, &w)| *sum += f64::from(w).powi(2));
    }
    let group = |(x, w): (&[f32], &[f64])| {
        let step = f64::from(x.iter().fold(0f32, |m, x| m.max(x.abs()))) / 127.0;
        step * step / 12.0 * w.iter().sum::<f64>()
    };
    x.chunks_exact(cols).map(|row| row.chunks(32).zip(weights.chunks(32)).map(group).sum::<f64>()).sum()
}

fn decode(layout: &QuantLayout, bytes: &SharedBytes) -> Vec<f32> {
    let mut all = vec![0.0; layout.rows * layout.cols];
    for (r, row) in all.chunks_exact_mut(layout.cols).enumerate() {
        layout.decode_row(bytes.as_slice(), r, row);
    }
    all
}

#[test]
fn equals_the_reference() {
    // Tiles are 1 to 12 rows by 16 outputs by 32 columns: around each of them, and real sizes.
    let mut cases = vec![(1, 4096, 64), (3, 14336, 33), (9, 4096, 129), (1, 576, 1536), (64, 256, 48)];
    for n in [1, 2, 3, 5, 8, 9, 12, 13, 15, 16, 17] {
        for (cols, outs) in [(1, 1), (7, 3), (31, 15), (32, 16), (33, 17), (64, 33), (100, 31), (1000, 65)] {
            cases.push((n, cols, outs));
        }
    }
    let mut cpus = fast(&[2]);
    eprintln!("instruction sets of this machine: {:?}", Isa::available());
    let mut scalar = cpu(Isa::Scalar, Precision::Fast, 1); // exact, as f32 weights and portable vectors are
    for (n, cols, outs) in cases {
        for format in FORMATS {
            let layout = QuantLayout::new(format, outs, cols);
            let bytes = quantise(format, &noise(2, outs * cols), cols);
            let (x, before) = (noise(1, n * cols), noise(3, n * outs));
            let reference = product(&mut scalar, &x, (&bytes, layout), None);
            // Sums of f32 in another order: tests/backend_ops.rs derives n * 2^-48. A few roundings of single products more.
            let sums = square(&reference) * (4.0 + cols as f64) * 2f64.powi(-48) + 1e-12;
            // Single results are random draws: with one output, four deviations; the errors of an output's rows are apart.
            let draws = 1.0 + 16.0 / (n * outs) as f64;
            let rounded = rounding_error(&x, &decode(&layout, &bytes), cols) * draws;
            for cpu in &mut cpus {
                let case =
                    format!("{} {:?} {n} x {cols} -> {outs} {format:?}", cpu.device_name(), cpu.precision());
                let is_exact = cpu.precision() == Precision::Exact || cpu.isa() <= Isa::Portable;
                let bound = if is_exact { sums } else { 2.0 * sums + 1.2 * rounded };
                let got = product(cpu, &x, (&bytes, layout), None);
                let error = square_error(&got, &reference);
                assert!(error <= bound, "{case}: {error:e}, bound {bound:e}");
                let added = product(cpu, &x, (&bytes, layout), Some(&before));
                let expected: Vec<f32> = got.iter().zip(&before).map(|(sum, before)| before + sum).collect();
                assert_eq!(added, expected, "{case}: matmul_add");
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_whoever_shares_the_step() {
    let (n, cols, outs) = (29, 416, 70);
    for format in FORMATS {
        let layout = QuantLayout::new(format, outs, cols);
        let bytes = quantise(format, &noise(2, outs * cols), cols);
        let x = noise(1, n * cols);
        for isa in &Isa::available()[1..] {
            for precision in [Precision::Exact, Precision::Fast] {
                let mut first = cpu(*isa, precision, 1);
                let all = product(&mut first, &x, (&bytes, layout), None);
                for threads in [2, 3] {
                    let again = product(&mut cpu(*isa, precision, threads), &x, (&bytes, layout), None);
                    assert_eq!(again, all, "{isa:?} {precision:?} {format:?} {threads} threads");
                }
                // With many rows a CPU may take another kernel: only exact results are the same then.
                if precision == Precision::Fast && *isa >= Isa::Amx {
                    continue;
                }
                for part in [1, 2, 7, 13] {
                    for (i, x) in x.chunks(part * cols).enumerate() {
                        let got = product(&mut first, x, (&bytes, layout), None);
                        let same = got == all[i * part * outs..][..got.len()];
                        assert!(same, "{isa:?} {precision:?} {format:?} {part} rows at a time");
                    }
                }
            }
        }
    }
}

/// Zeros give zeros; an outlier costs its own group only; huge and tiny numbers come through; what is not a number stays so.
#[test]
fn unusual_numbers() {
    let (cols, outs) = (96, 20);
    for format in FORMATS {
        let layout = QuantLayout::new(format, outs, cols);
        let bytes = quantise(format, &noise(2, outs * cols), cols);
        let decoded = decode(&layout, &bytes);
        let mut scalar = cpu(Isa::Scalar, Precision::Exact, 1);
        for cpu in &mut fast(&[1]) {
            let case = format!("{} {:?} {format:?}", cpu.device_name(), cpu.precision());
            let zeros = product(cpu, &vec![0.0; cols], (&bytes, layout), None);
            assert!(zeros.iter().all(|&sum| sum == 0.0), "{case}");
            for size in [1e-30, 1e-10, 1e30] {
                for at in [None, Some(40)] {
                    let mut x: Vec<f32> = noise(1, cols).iter().map(|x| x * size).collect();
                    if let Some(at) = at {
                        x[at] *= 1000.0;
                    }
                    let reference = product(&mut scalar, &x, (&bytes, layout), None);
                    let got = product(cpu, &x, (&bytes, layout), None);
                    let bound = 2.0 * rounding_error(&x, &decoded, cols) + square(&reference) * 1e-11;
                    let error = square_error(&got, &reference);
                    assert!(error <= bound, "{case} size {size} outlier {at:?}: {error:e}, bound {bound:e}");
                }
            }
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = noise(1, 3 * cols);
                x[cols + 50] = bad;
                let got = product(cpu, &x, (&bytes, layout), None);
                let row = |r: usize| &got[r * outs..][..outs];
                assert!(row(1).iter().all(|sum| !sum.is_finite()), "{case}: {bad} in, numbers out");
                assert!(row(0).iter().chain(row(2)).all(|sum| sum.is_finite()), "{case}: other rows");
            }
        }
    }
}
