//! What a format costs in one matrix product: the error of its output, where no format falls back to another.

use crate::Result;
use candle_core::{DType, Device, pickle::PthTensors};
use komt_core::Cpu;
use komt_core::kernels::WeightFormat;
use komt_core::kernels::quant::{QuantLayout, RowSource};
use llama_cpp_sys_2 as sys;
use serde_json::{Value, json};
use std::path::Path;

/// A trained matrix, as it was stored.
struct Matrix {
    rows: usize,
    cols: usize,
    values: Vec<f32>,
}

impl RowSource for Matrix {
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

/// The matrices of a file (safetensors, or PyTorch's .pt), in f32 or bf16, whose width is a multiple of 256: that of the K
/// formats' blocks. Tables of words are left out: they are no matrix products.
fn read(path: &Path) -> Result<Vec<Matrix>> {
    let mut tensors = vec![];
    if path.extension().is_some_and(|e| e == "safetensors") {
        tensors.extend(candle_core::safetensors::load(path, &Device::Cpu)?);
    } else {
        // The weights stand in a dictionary of the file, or are the file.
        let key = |key| PthTensors::new(path, key).ok().filter(|found| !found.tensor_infos().is_empty());
        let found = key(Some("model_state")).or_else(|| key(None)).ok_or("no tensors")?;
        for name in found.tensor_infos().keys() {
            tensors.extend(found.get(name)?.map(|tensor| (name.clone(), tensor)));
        }
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut matrices = vec![];
    for (name, tensor) in tensors {
        if let [rows, cols] = *tensor.dims()
            && cols % 256 == 0
            && rows >= 64
            && !name.contains("embed")
            && [DType::F32, DType::BF16].contains(&tensor.dtype())
        {
            let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            matrices.push(Matrix { rows, cols, values });
        }
    }
    Ok(matrices)
}

/// Uniform numbers of 0..1 (SplitMix64), and normal ones of them (Box and Muller).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform().max(1e-300), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// Rows of input for a matrix.
const INPUTS: usize = 32;

/// Inputs `[INPUTS, cols]`: normal, or with what activations of language models have: columns of very different size (log-normal,
/// deviation 1), and products of a gate and a value in them.
fn inputs(cols: usize, realistic: bool) -> Vec<f64> {
    let mut random = Random(cols as u64);
    let sizes: Vec<f64> = (0..cols).map(|_| if realistic { random.normal().exp() } else { 1.0 }).collect();
    let mut one = |i: usize| {
        let x = random.normal();
        if !realistic {
            return x;
        }
        let gate = random.normal();
        sizes[i % cols] * x * gate / (1.0 + (-gate).exp())
    };
    (0..INPUTS * cols).map(&mut one).collect()
}

/// What a format makes of a matrix: its bits a weight, and the values it gives back.
fn ours(matrix: &Matrix, format: WeightFormat) -> Result<(f64, Vec<f32>)> {
    let bytes = Cpu::new()?.quantise(format, matrix)?;
    let layout = QuantLayout::new(format, matrix.rows, matrix.cols);
    let mut values = vec![0.0; matrix.values.len()];
    for (row, out) in values.chunks_mut(matrix.cols).enumerate() {
        layout.decode_row(bytes.as_slice(), row, out);
    }
    Ok((8.0 * bytes.as_slice().len() as f64 / values.len() as f64, values))
}

fn llama(matrix: &Matrix, ggml_type: sys::ggml_type) -> Result<(f64, Vec<f32>)> {
    let mut values = vec![0f32; matrix.values.len()];
    // SAFETY: the buffer has the size that the library names; widths are multiples of the blocks.
    let n_bytes = unsafe {
        let n_bytes = sys::ggml_row_size(ggml_type, matrix.cols as i64) * matrix.rows;
        let mut bytes = vec![0u8; n_bytes];
        let (rows, cols) = (matrix.rows as i64, matrix.cols as i64);
        let to = bytes.as_mut_ptr().cast();
        sys::ggml_quantize_chunk(ggml_type, matrix.values.as_ptr(), to, 0, rows, cols, std::ptr::null());
        let to_float = (*sys::ggml_get_type_traits(ggml_type)).to_float.ok_or("no to_float")?;
        to_float(bytes.as_ptr().cast(), values.as_mut_ptr(), values.len() as i64);
        n_bytes
    };
    Ok((8.0 * n_bytes as f64 / values.len() as f64, values))
}

/// Squares of the output's error, and of the output, for both kinds of inputs.
fn error(matrix: &Matrix, values: &[f32], inputs: &[f64]) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for (exact, found) in matrix.values.chunks(matrix.cols).zip(values.chunks(matrix.cols)) {
        for input in inputs.chunks(matrix.cols) {
            let (mut wrong, mut right) = (0.0, 0.0);
            for ((&w, &q), &x) in exact.iter().zip(found).zip(input) {
                wrong += (f64::from(q) - f64::from(w)) * x;
                right += f64::from(w) * x;
            }
            sums[0] += wrong * wrong;
            sums[1] += right * right;
        }
    }
    sums
}

/// Judges all formats on the matrices of a file.
pub fn judge(path: &Path, name: &str) -> Result<Value> {
    let matrices = read(path)?;
    let mut rows = vec![];
    let formats = ["q8", "q4", "Q8_0", "Q4_0", "Q4_K"];
    for format in formats {
        let (mut bits, mut n, mut normal, mut realistic) = (0.0, 0.0, vec![], vec![]);
        for matrix in &matrices {
            let (matrix_bits, values) = match format {
                "q8" => ours(matrix, WeightFormat::Q8)?,
                "q4" => ours(matrix, WeightFormat::Q4)?,
                "Q8_0" => llama(matrix, sys::GGML_TYPE_Q8_0)?,
                "Q4_0" => llama(matrix, sys::GGML_TYPE_Q4_0)?,
                _ => llama(matrix, sys::GGML_TYPE_Q4_K)?,
            };
            bits += matrix_bits * values.len() as f64;
            n += values.len() as f64;
            for (list, is_realistic) in [(&mut normal, false), (&mut realistic, true)] {
                let [wrong, right] = error(matrix, &values, &inputs(matrix.cols, is_realistic));
                list.push(wrong / right);
            }
        }
        let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
        rows.push(json!({"format": format, "bits": bits / n, "normal": mean(&normal), "realistic": mean(&realistic)}));
    }
    let mut shapes: Vec<String> = matrices.iter().map(|m| format!("{} x {}", m.rows, m.cols)).collect();
    shapes.sort();
    shapes.dedup();
    Ok(json!({"name": name, "matrices": matrices.len(), "shapes": shapes.join(", "), "rows": rows}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_wrong_is_no_error() {
        let matrix = Matrix { rows: 2, cols: 2, values: vec![1.0, 2.0, 3.0, 4.0] };
        let [wrong, right] = error(&matrix, &matrix.values, &[1.0, 0.0]);
        assert_eq!((wrong, right), (0.0, 10.0)); // 1 * 1 + 3 * 3
    }
}
