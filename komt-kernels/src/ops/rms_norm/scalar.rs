/// The reference: out and x `[rows, w.len()]`.
pub(super) fn rms_norm(out: &mut [f32], x: &[f32], rows: usize, w: &[f32], eps: f32) {
    let dim = w.len();
    for r in 0..rows {
        let x = &x[r * dim..][..dim];
        let mut sum = 0.0;
        for &value in x {
            sum += value * value;
        }
        let scale = 1.0 / (sum / dim as f32 + eps).sqrt();
        for c in 0..dim {
            out[r * dim + c] = x[c] * scale * w[c];
        }
    }
}
