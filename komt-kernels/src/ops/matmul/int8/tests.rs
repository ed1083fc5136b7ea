//! Every instruction set against the twin, bit for bit; the rounding against its definition.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::quant::RowSource;
use crate::{Backend, CpuOptions, SharedBytes};

struct Noise(usize, usize);

fn noise(i: usize) -> f32 {
    let mut z = (i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let part = |shift: u32| (z >> shift & 0xffff) as f32 / 65536.0 - 0.5;
    1.7 * (part(0) + part(16) + part(32) + part(48))
}

impl RowSource for Noise {
    fn rows(&self) -> usize {
        self.0
    }
    fn cols(&self) -> usize {
        self.1
    }
    fn read(&self, row: usize, out: &mut [f32]) {
        out.iter_mut().enumerate().for_each(|(c, out)| *out = noise(row * self.1 + c));
    }
}

fn cpu(isa: Isa, threads: usize) -> Cpu {
    Cpu::with(CpuOptions::default().isa(isa).threads(threads)).unwrap()
}

fn product(cpu: &mut Cpu, x: &[f32], layout: &QuantLayout, bytes: &SharedBytes) -> Vec<f32> {
    let n = x.len() / layout.cols;
    let mut x = RowBuf { buf: x.to_vec(), rows: n, cols: layout.cols, max_rows: n };
    let mut out = RowBuf { buf: vec![f32::NAN; n * layout.rows], rows: n, cols: layout.rows, max_rows: n };
    run(cpu, &mut out, &x, layout, bytes.as_slice(), Epilogue::Store).unwrap();
    // Adding to it, twice the same sum.
    x.buf.iter_mut().for_each(|x| *x *= -1.0);
    let once = out.buf.clone();
    run(cpu, &mut out, &x, layout, bytes.as_slice(), Epilogue::Add).unwrap();
    assert!(out.buf.iter().all(|&x| x == 0.0), "x . w - x . w");
    once
}

fn fast() -> Vec<Isa> {
    let all: Vec<Isa> = Isa::available().into_iter().filter(|&isa| isa >= Isa::Avx2).collect();
    if !all.contains(&Isa::Avx512Vnni) {
        eprintln!("\n*** SKIPPED: this CPU (or KOMT_ISA) has no AVX-512 VNNI ***\n");
    }
    all
}

/// Weights of every bit pattern there is, the ones that our quantiser never writes included.
fn any_bytes(layout: &QuantLayout) -> SharedBytes {
    let mut bytes: Vec<u8> = (0..layout.size_bytes()).map(|i| (noise(i).to_bits() >> 7) as u8).collect();
    for row in 0..layout.blocks() * BLOCK_ROWS {
        let at = layout.quants_bytes() + row * 4;
        bytes[at..at + 4].copy_from_slice(&(0.01 + noise(row).abs()).to_le_bytes());
    }
    let len = bytes.len();
    SharedBytes::new(std::sync::Arc::new(bytes), 0..len)
}

#[test]
fn every_instruction_set_has_the_bits_of_the_twin() {
    let shapes = [(1, 1), (16, 32), (15, 31), (17, 33), (33, 64), (1, 100), (48, 1000), (40, 4096)];
    let mut cpus: Vec<Cpu> =
        fast().into_iter().flat_map(|isa| [1, 2, 3].map(|threads| cpu(isa, threads))).collect();
    for (outs, cols) in shapes {
        for format in [WeightFormat::Q8, WeightFormat::Q4] {
            let layout = QuantLayout::new(format, outs, cols);
            let quantised = cpu(Isa::Portable, 1).quantise(format, &Noise(outs, cols)).unwrap();
            for bytes in [any_bytes(&layout), quantised] {
                for n in [1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 16, 17, 24, 25] {
                    let x: Vec<f32> = (0..n * cols).map(|i| noise(i + 77)).collect();
                    let twin = twin(&x, &layout, &bytes);
                    for cpu in &mut cpus {
                        let got = product(cpu, &x, &layout, &bytes);
                        let same = got.iter().zip(&twin).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{} {format:?} {n} x {cols} -> {outs}", cpu.device_name());
                    }
                }
            }
        }
    }
}

/// The scalar reference has no vectors to round x with: those of the portable path are the same numbers.
fn twin(x: &[f32], layout: &QuantLayout, bytes: &SharedBytes) -> Vec<f32> {
    let packing = Packing::new(layout, x.len() / layout.cols, 5);
    let mut packed = vec![0xa5; packing.size_bytes()];
    let to = SharedMut::new(&mut packed[..]);
    dispatch(Isa::Portable, Pack { packing, x, to, tiles: 0..packing.tiles() });
    let mut twin = vec![f32::NAN; packing.n_rows * layout.rows];
    let (out, bytes) = (SharedMut::new(&mut twin[..]), bytes.as_slice());
    let job = Job { out, x: &packed, packing, layout, bytes, epilogue: Epilogue::Store };
    job.run(scalar::Twin, 0..layout.blocks());
    twin
}

#[test]
fn by_eye() {
    let mut x = [0.0; GROUP];
    assert_eq!(pack::round_group(&x), ([0; GROUP], 0.0));
    x[..5].copy_from_slice(&[1.27, -1.27, 0.634, 0.005, 0.015]);
    let (quants, scale) = pack::round_group(&x);
    // 63.4 to 63, 0.5 (a little less in binary) to 0, 1.5 to the even 2.
    assert_eq!(quants[..6], [127, -127, 63, 0, 2, 0]);
    assert!((scale - 0.01).abs() < 1e-8);
}

/// Rounding is at most half a step off, however large or small the numbers are.
#[test]
fn rounding() {
    for size in [1e-35, 1e-20, 1.0, 1e20, 1e38] {
        let x: [f32; GROUP] = std::array::from_fn(|i| size * noise(i));
        let (quants, scale) = pack::round_group(&x);
        for (x, q) in x.into_iter().zip(quants) {
            let error = (f64::from(x) - f64::from(scale) * f64::from(q)).abs();
            assert!(error <= f64::from(scale) * 0.5001, "{x}: {q} times {scale}");
        }
    }
    let largest = [f32::MAX; GROUP];
    assert_eq!(pack::round_group(&largest), ([127; GROUP], f32::MAX / 127.0));
    assert_eq!(pack::round_group(&[1e-37; GROUP]), ([0; GROUP], 0.0));
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = [1.0; GROUP];
        x[17] = bad;
        let (quants, scale) = pack::round_group(&x);
        assert!(quants == [0; GROUP] && scale.is_nan(), "{bad}");
    }
}
