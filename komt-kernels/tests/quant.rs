//! The quantised formats: what they keep of a matrix, and operations on them.

use komt_kernels::quant::{QuantLayout, RowSource};
use komt_kernels::{Backend, Cpu, CpuOptions, Isa, Rows, WeightFormat};

struct Normal {
    rows: usize,
    cols: usize,
}

impl Normal {
    /// Of about a normal distribution, the same at each call.
    fn at(&self, row: usize, col: usize) -> f32 {
        let mut state = (row * self.cols + col) as u64;
        let sum: f32 = (0..12).map(|_| uniform(&mut state)).sum();
        (sum - 6.0) * 0.02
    }
}

/// splitmix64, the upper 24 bits as a number of 0..1.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
}

impl RowSource for Normal {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read(&self, row: usize, out: &mut [f32]) {
        out.iter_mut().enumerate().for_each(|(c, out)| *out = self.at(row, c));
    }
}

/// Error of a format on normal weights, relative to their mean square: below what llama.cpp's Q8_0 (2.9e-5) and Q4_K (5.1e-3)
/// leave at as many bits.
#[test]
fn errors_are_small() {
    let cpu = Cpu::new().unwrap();
    for (format, bound) in [(WeightFormat::Q8, 2.7e-5), (WeightFormat::Q4, 5.0e-3)] {
        let source = Normal { rows: 67, cols: 1000 };
        let bytes = cpu.quantise(format, &source).unwrap();
        let layout = QuantLayout::new(format, source.rows, source.cols);
        let (mut error, mut energy) = (0f64, 0f64);
        let mut row = vec![0.0; source.cols];
        for r in 0..source.rows {
            layout.decode_row(bytes.as_slice(), r, &mut row);
            for (c, &found) in row.iter().enumerate() {
                error += f64::from(found - source.at(r, c)).powi(2);
                energy += f64::from(source.at(r, c)).powi(2);
            }
        }
        let nmse = error / energy;
        eprintln!("{format:?}: {nmse:.3e}");
        assert!(nmse < bound, "{format:?}: {nmse:.3e}");
    }
}

/// Every instruction set writes the bytes of the scalar reference, so a quantised directory does not depend on who made it.
#[test]
fn every_instruction_set_writes_the_same_bytes() {
    for (rows, cols) in [(67, 1000), (16, 32), (3, 17), (1, 1)] {
        let source = Normal { rows, cols };
        for format in [WeightFormat::Q8, WeightFormat::Q4] {
            let quantise = |isa| {
                let cpu = Cpu::with(CpuOptions::default().isa(isa).threads(2)).unwrap();
                cpu.quantise(format, &source).unwrap()
            };
            let reference = quantise(Isa::Scalar);
            for isa in &Isa::available()[1..] {
                let same = quantise(*isa).as_slice() == reference.as_slice();
                assert!(same, "{isa:?} {format:?} [{rows}, {cols}]");
            }
        }
    }
}

#[test]
fn matmul_is_that_of_the_decoded_rows() {
    let mut cpu = Cpu::with(CpuOptions::default().isa(Isa::Scalar)).unwrap();
    for format in [WeightFormat::Q8, WeightFormat::Q4] {
        let source = Normal { rows: 33, cols: 80 };
        let bytes = cpu.quantise(format, &source).unwrap();
        let layout = QuantLayout::new(format, source.rows, source.cols);
        let w = cpu.load_shared(source.rows, source.cols, format, bytes.clone()).unwrap();
        let mut x = Rows::<Cpu, f32>::alloc(&mut cpu, 2, source.cols).unwrap();
        let mut out = Rows::<Cpu, f32>::alloc(&mut cpu, 2, source.rows).unwrap();
        x.buf[3] = 1.0; // row 0: column 3
        x.buf[source.cols + 77] = 2.0; // row 1: twice column 77
        (x.rows, out.rows) = (2, 2);
        cpu.matmul(&mut out, &x, &w).unwrap();
        let mut row = vec![0.0; source.cols];
        for r in 0..source.rows {
            layout.decode_row(bytes.as_slice(), r, &mut row);
            assert_eq!(
                (out.buf[r], out.buf[source.rows + r]),
                (row[3], 2.0 * row[77]),
                "{format:?}, row {r}"
            );
        }
    }
}
