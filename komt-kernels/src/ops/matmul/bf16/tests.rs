#![allow(clippy::unwrap_used)]

use super::*;
use crate::Backend;
use crate::cpu::CpuOptions;
use crate::quant::RowSource;

/// Errors of sums of `n` products in f32, in other orders, squared and relative to their size: n / 6 * 2^-48 and twice that
/// for pairs, six times over for cases of one output; 1e-12 where there are few.
fn bound(n: usize) -> f64 {
    1e-12f64.max(2.0 * n as f64 * 2f64.powi(-48))
}

/// What rounding normal numbers once to bf16 costs: relative errors up to 2^-8 / 2, whose mean square is 2.8e-6. For each of the
/// two operands; the cases are random draws.
const ROUNDINGS: f64 = 2.0 * 2.8e-6 * 1.5;

fn units() -> Vec<(Isa, Unit)> {
    let found: Vec<_> = Isa::available().into_iter().filter_map(|isa| Some((isa, Unit::new(isa)?))).collect();
    for kind in [Kind::Amx, Kind::Dot] {
        if !found.iter().any(|(_, unit)| unit.0 == kind) {
            eprintln!(
                "!!! SKIPPED: {kind:?}, products in bf16: this CPU has no such instructions, or KOMT_ISA forbids them"
            );
        }
    }
    found
}

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| 2.0 * (uniform() + uniform() + uniform())).collect()
}

fn rows(values: &[f32], cols: usize) -> RowBuf<Vec<f32>> {
    let n = values.len() / cols;
    RowBuf { buf: values.to_vec(), rows: n, cols, max_rows: n }
}

/// A matrix in some format, its numbers, and those numbers as the products take them: rounded, and what a row is scaled by.
struct Matrix {
    format: WeightFormat,
    cols: usize,
    bf16: Vec<bf16>,
    f16: Vec<f16>,
    layout: QuantLayout,
    bytes: Vec<u8>,
    exact: Vec<f32>,
    rounded: Vec<f32>,
    scales: Vec<f32>,
}

struct Rows<'a>(&'a [f32], usize);

impl RowSource for Rows<'_> {
    fn rows(&self) -> usize {
        self.0.len() / self.1
    }
    fn cols(&self) -> usize {
        self.1
    }
    fn read(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.0[row * self.1..][..self.1]);
    }
}

/// To nearest, ties away from zero.
fn round_away(v: f32) -> f32 {
    f32::from_bits((v.to_bits() + 0x8000) & 0xffff_0000)
}

impl Matrix {
    fn new(format: WeightFormat, values: &[f32], cols: usize) -> Self {
        let n = values.len() / cols;
        let quantised = if format == WeightFormat::Q4 { WeightFormat::Q4 } else { WeightFormat::Q8 };
        let layout = QuantLayout::new(quantised, n, cols);
        let mut m = Self {
            format,
            cols,
            bf16: values.iter().map(|&v| bf16::from_f32(v)).collect(),
            f16: values.iter().map(|&v| f16::from_f32(v)).collect(),
            layout,
            bytes: Vec::new(),
            exact: Vec::new(),
            rounded: Vec::new(),
            scales: vec![1.0; n],
        };
        match format {
            WeightFormat::Bf16 => m.exact = m.bf16.iter().map(|v| v.to_f32()).collect(),
            WeightFormat::F16 => m.exact = m.f16.iter().map(|v| v.to_f32()).collect(),
            _ => {
                let cpu = Cpu::new().unwrap();
                m.bytes = cpu.quantise(format, &Rows(values, cols)).unwrap().as_slice().to_vec();
                m.exact = vec![0.0; n * cols];
                for (row, out) in m.exact.chunks_exact_mut(cols).enumerate() {
                    layout.decode_row(&m.bytes, row, out);
                    let at = layout.quants_bytes() + row * 4;
                    m.scales[row] = f32::from_le_bytes(m.bytes[at..at + 4].try_into().unwrap());
                }
            }
        }
        let scale = |i: usize| m.scales[i / cols];
        m.rounded = match format {
            WeightFormat::Bf16 => m.exact.clone(),
            WeightFormat::F16 => m.exact.iter().map(|&v| bf16::from_f32(v).to_f32()).collect(),
            _ => {
                let whole = |(i, &v): (usize, &f32)| if v == 0.0 { 0.0 } else { (v / scale(i)).round() };
                m.exact.iter().enumerate().map(|iv| round_away(whole(iv))).collect()
            }
        };
        m
    }

    fn weights(&self) -> Weights<'_> {
        match self.format {
            WeightFormat::Bf16 => Weights::Bf16(&self.bf16),
            WeightFormat::F16 => Weights::F16(&self.f16),
            _ => Weights::Quant(&self.layout, &self.bytes),
        }
    }

    /// The twin: rounded numbers, sums in f64.
    fn twin(&self, x: &[f32], out: &[f32], epilogue: Epilogue) -> Vec<f64> {
        let rounded: Vec<f32> = x.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
        self.product(&rounded, &self.rounded, true, out, epilogue)
    }

    fn product(&self, x: &[f32], w: &[f32], scaled: bool, out: &[f32], epilogue: Epilogue) -> Vec<f64> {
        let mut result = Vec::new();
        for x in x.chunks_exact(self.cols) {
            for (o, w) in w.chunks_exact(self.cols).enumerate() {
                let sum: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                let scale = if scaled { f64::from(self.scales[o]) } else { 1.0 };
                let before = if epilogue == Epilogue::Add { f64::from(out[result.len()]) } else { 0.0 };
                result.push(before + sum * scale);
            }
        }
        result
    }
}

fn nmse(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - b) * (f64::from(a) - b)).sum();
    error / b.iter().map(|b| b * b).sum::<f64>().max(1e-30)
}

fn cpu(isa: Isa, threads: usize) -> Cpu {
    Cpu::with(CpuOptions::default().isa(isa).threads(threads)).unwrap()
}

const FORMATS: [WeightFormat; 4] =
    [WeightFormat::Bf16, WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4];

#[test]
fn edges_of_tiles_panels_and_blocks() {
    let mut cases = vec![
        (513, 33, 520),
        (33, 545, 1090),
        (2, 4096, 64),
        (31, 1024, 96),
        (16, 64, 288),
        (17, 575, 40),
        (40, 577, 33),
        (64, 1153, 70),
    ];
    let sizes = [1, 15, 16, 17, 31, 32, 33, 63, 65];
    for (i, &n) in sizes.iter().enumerate() {
        for (j, &outs) in sizes.iter().enumerate() {
            cases.push((n, [1, 31, 32, 33, 64, 100, 511, 512, 513][(i * 2 + j) % 9], outs));
        }
    }
    for (isa, unit) in units() {
        for &(n, cols, outs) in &cases {
            for format in FORMATS {
                let (x, m) = (noise(1, n * cols), Matrix::new(format, &noise(2, outs * cols), cols));
                for epilogue in [Epilogue::Store, Epilogue::Add] {
                    let case = format!("{isa:?} {format:?} {n} rows, {outs} x {cols}, {epilogue:?}");
                    let before = noise(3, n * outs);
                    let mut out = rows(&before, outs);
                    run(
                        &mut cpu(isa, 2),
                        unit,
                        &mut out,
                        &rows(&x, cols),
                        m.weights(),
                        Output::Sums(epilogue),
                    )
                    .unwrap();
                    let error = nmse(&out.buf, &m.twin(&x, &before, epilogue));
                    assert!(error < bound(cols), "{case}: NMSE {error:e} against the twin");
                    if cols > 30 && n * outs > 200 && epilogue == Epilogue::Store {
                        let error = nmse(&out.buf, &m.product(&x, &m.exact, false, &before, epilogue));
                        assert!(error < ROUNDINGS, "{case}: NMSE {error:e} against exact products");
                    }
                }
            }
        }
    }
}

/// Edges of pieces, tiles of rows and blocks of outputs; results of a row do not depend on others, nor on threads.
#[test]
fn lines_of_a_few_rows() {
    let Some(lines) = lines::Lines::new(Isa::detect()) else {
        return eprintln!("!!! SKIPPED: lines of bf16: this CPU has no AVX-512-BF16, or KOMT_ISA forbids it");
    };
    let product = |threads: usize, m: &Matrix, x: &[f32], before: &[f32], epilogue| {
        let mut out = rows(before, before.len() / (x.len() / m.cols));
        lines::run(&mut cpu(Isa::detect(), threads), lines, &mut out, &rows(x, m.cols), &m.bf16, epilogue)
            .unwrap();
        out.buf
    };
    for (i, cols) in [1, 31, 32, 33, 96, 127, 128, 129, 160, 300, 576, 4096].into_iter().enumerate() {
        for n in [1, 2, 3, 4, 5, 8, 9, 31] {
            let outs = [1, 31, 32, 33, 65, 200][(i + n) % 6];
            let (x, m) = (noise(1, n * cols), Matrix::new(WeightFormat::Bf16, &noise(2, outs * cols), cols));
            let before = noise(3, n * outs);
            for epilogue in [Epilogue::Store, Epilogue::Add] {
                let got = product(2, &m, &x, &before, epilogue);
                let error = nmse(&got, &m.twin(&x, &before, epilogue));
                assert!(
                    error < bound(cols),
                    "{n} rows, {outs} x {cols}, {epilogue:?}: {error:e} against the twin"
                );
                for threads in [1, 3, 7] {
                    assert_eq!(product(threads, &m, &x, &before, epilogue), got, "{threads} threads");
                }
                let last = product(2, &m, &x[(n - 1) * cols..], &before[(n - 1) * outs..], epilogue);
                assert_eq!(last, got[(n - 1) * outs..], "{n} rows, {outs} x {cols}: the last one alone");
            }
        }
    }
    // What is not a number stays where it is, also in the last columns, whose neighbours are other rows.
    let (mut x, mut w) = (noise(1, 3 * 70), noise(2, 50 * 70));
    (x[70 + 69], w[33 * 70]) = (f32::NAN, f32::NAN);
    let m = Matrix::new(WeightFormat::Bf16, &w, 70);
    for (i, v) in product(1, &m, &x, &[0.0; 150], Epilogue::Store).into_iter().enumerate() {
        assert_eq!(v.is_nan(), i / 50 == 1 || i % 50 == 33, "row {}, output {}: {v}", i / 50, i % 50);
    }
}

#[test]
fn the_same_bits_with_any_threads_and_company() {
    for (isa, unit) in units() {
        for format in FORMATS {
            let (n, cols, outs) = (70, 600, 1100);
            let (x, m) = (noise(1, n * cols), Matrix::new(format, &noise(2, outs * cols), cols));
            let result = |threads: usize, x: &[f32]| {
                let mut out = rows(&vec![0.0; x.len() / cols * outs], outs);
                run(
                    &mut cpu(isa, threads),
                    unit,
                    &mut out,
                    &rows(x, cols),
                    m.weights(),
                    Output::Sums(Epilogue::Store),
                )
                .unwrap();
                out.buf
            };
            let all = result(1, &x);
            for threads in [2, 3, 7] {
                assert_eq!(result(threads, &x), all, "{isa:?} {format:?} {threads} threads");
            }
            assert_eq!(result(2, &x[..5 * cols]), all[..5 * outs], "{isa:?} {format:?}: 5 rows");
        }
    }
}

/// The product and `silu(gate) * up` in one have the bits of the two operations.
#[test]
fn swiglu_in_one_and_in_two() {
    for (isa, unit) in units() {
        for format in FORMATS {
            for (n, cols, hidden) in [(5, 64, 32), (33, 96, 64), (70, 600, 544), (513, 40, 96)] {
                let (x, m) = (noise(1, n * cols), Matrix::new(format, &noise(2, 2 * hidden * cols), cols));
                let (mut cpu, x) = (cpu(isa, 2), rows(&x, cols));
                let mut gate_up = rows(&vec![0.0; n * 2 * hidden], 2 * hidden);
                let sums = Output::Sums(Epilogue::Store);
                run(&mut cpu, unit, &mut gate_up, &x, m.weights(), sums).unwrap();
                let (mut two, mut one) =
                    (rows(&vec![0.0; n * hidden], hidden), rows(&vec![0.0; n * hidden], hidden));
                cpu.swiglu(&mut two, &gate_up).unwrap();
                run(&mut cpu, unit, &mut one, &x, m.weights(), Output::Swiglu).unwrap();
                assert!(one.buf == two.buf, "{isa:?} {format:?} {n} rows, 2 x {hidden} x {cols}");
            }
        }
    }
    assert!(has_swiglu(64) && !has_swiglu(96));
}

#[test]
fn direct_and_packed_tiles_have_the_same_bits() {
    for (isa, unit) in units() {
        let (n, cols, outs) = (40, 1088, 64);
        let (x, m) = (noise(1, n * cols), Matrix::new(WeightFormat::Bf16, &noise(2, outs * cols), cols));
        let result = |x: &[f32]| {
            let mut out = rows(&vec![0.0; x.len() / cols * outs], outs);
            run(&mut cpu(isa, 2), unit, &mut out, &rows(x, cols), m.weights(), Output::Sums(Epilogue::Store))
                .unwrap();
            out.buf
        };
        assert_eq!(result(&x[..MAX_DIRECT_ROWS * cols]), result(&x)[..MAX_DIRECT_ROWS * outs], "{isa:?}");
    }
}

#[test]
fn not_a_number_and_infinity_stay_in_their_rows_and_outputs() {
    for (isa, unit) in units() {
        for n in [3, 40] {
            let (cols, outs) = (70, 50);
            let (mut x, mut w) = (noise(1, n * cols), noise(2, outs * cols));
            (x[cols + 69], x[2 * cols]) = (f32::NAN, f32::INFINITY);
            w[33 * cols + 5] = f32::NAN;
            let m = Matrix::new(WeightFormat::Bf16, &w, cols);
            let mut out = rows(&vec![0.0; n * outs], outs);
            run(
                &mut cpu(isa, 2),
                unit,
                &mut out,
                &rows(&x, cols),
                m.weights(),
                Output::Sums(Epilogue::Store),
            )
            .unwrap();
            for (i, v) in out.buf.iter().enumerate() {
                let (row, o) = (i / outs, i % outs);
                assert_eq!(v.is_nan(), row == 1 || o == 33, "{isa:?} row {row}, output {o}: {v}");
                assert!(row != 2 || !v.is_finite(), "{isa:?} row {row}, output {o}: {v}");
            }
        }
    }
}

#[test]
fn tiny_numbers_count_as_zeros() {
    for (isa, unit) in units() {
        let cols = 32;
        let m = Matrix::new(WeightFormat::Bf16, &vec![1e38; 32 * cols], cols);
        let mut out = rows(&[1.0; 64], 32);
        run(
            &mut cpu(isa, 1),
            unit,
            &mut out,
            &rows(&vec![1e-39; 2 * cols], cols),
            m.weights(),
            Output::Sums(Epilogue::Store),
        )
        .unwrap();
        assert!(out.buf.iter().all(|&v| v == 0.0), "{isa:?}: {:?}", &out.buf[..4]);
    }
}
