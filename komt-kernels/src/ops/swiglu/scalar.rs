/// The reference: out `[rows, hidden_dim]`, gate_up `[rows, 2 hidden_dim]`.
pub(super) fn swiglu(out: &mut [f32], gate_up: &[f32], rows: usize, hidden_dim: usize) {
    for r in 0..rows {
        for c in 0..hidden_dim {
            let gate = gate_up[r * 2 * hidden_dim + c];
            let up = gate_up[r * 2 * hidden_dim + hidden_dim + c];
            out[r * hidden_dim + c] = gate / (1.0 + (-gate).exp()) * up;
        }
    }
}
