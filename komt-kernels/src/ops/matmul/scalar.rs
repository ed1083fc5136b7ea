use super::Epilogue;
use crate::cpu::simd::Stored;
use crate::quant::QuantLayout;

/// The reference, three loops: out `[n_rows, w.len() / cols]`, x `[n_rows, cols]`, w `[.., cols]`.
pub(super) fn matmul<T: Stored>(
    out: &mut [f32],
    x: &[f32],
    n_rows: usize,
    w: &[T],
    cols: usize,
    epilogue: Epilogue,
) {
    let n_outs = w.len() / cols;
    for r in 0..n_rows {
        for o in 0..n_outs {
            let mut sum = 0.0;
            for c in 0..cols {
                sum += x[r * cols + c] * w[o * cols + c].widen();
            }
            match epilogue {
                Epilogue::Store => out[r * n_outs + o] = sum,
                Epilogue::Add => out[r * n_outs + o] += sum,
            }
        }
    }
}

/// The same on a quantised matrix: each of its rows as f32, then as above.
pub(super) fn matmul_quant(
    out: &mut [f32],
    x: &[f32],
    n_rows: usize,
    layout: &QuantLayout,
    bytes: &[u8],
    epilogue: Epilogue,
) {
    let (n_outs, cols) = (layout.rows, layout.cols);
    let mut row = vec![0.0; cols];
    let mut column = vec![0.0; n_rows];
    for o in 0..n_outs {
        layout.decode_row(bytes, o, &mut row);
        matmul(&mut column, x, n_rows, &row, cols, Epilogue::Store);
        for (r, &sum) in column.iter().enumerate() {
            match epilogue {
                Epilogue::Store => out[r * n_outs + o] = sum,
                Epilogue::Add => out[r * n_outs + o] += sum,
            }
        }
    }
}
