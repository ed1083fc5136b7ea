use crate::cpu::simd::{Simd, map2};
use crate::cpu::{Kernel, SharedMut};
use std::ops::Range;

/// The rows `rows` of the operation.
pub(super) struct Swiglu<'a> {
    pub out: SharedMut<'a, f32>,
    pub gate_up: &'a [f32],
    pub rows: Range<usize>,
    pub hidden_dim: usize,
}

impl Kernel for Swiglu<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.hidden_dim;
        for r in self.rows {
            let (gate, up) = self.gate_up[r * 2 * n..][..2 * n].split_at(n);
            // SAFETY: each row belongs to one task.
            let out = unsafe { self.out.slice(r * n, n) };
            map2(
                s,
                out,
                gate,
                up,
                #[inline(always)]
                |s, gate, up| s.mul(s.silu(gate), up),
            );
        }
    }
}
