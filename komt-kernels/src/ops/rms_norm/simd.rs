use crate::cpu::simd::{Simd, dot, map2};
use crate::cpu::{Kernel, SharedMut};
use std::ops::Range;

/// The rows `rows` of the operation.
pub(super) struct RmsNorm<'a> {
    pub out: SharedMut<'a, f32>,
    pub x: &'a [f32],
    pub rows: Range<usize>,
    pub w: &'a [f32],
    pub eps: f32,
}

impl Kernel for RmsNorm<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.w.len();
        for r in self.rows {
            let x = &self.x[r * dim..][..dim];
            let scale = s.splat(1.0 / (dot(s, x, x) / dim as f32 + self.eps).sqrt());
            // SAFETY: each row belongs to one task.
            let out = unsafe { self.out.slice(r * dim, dim) };
            map2(
                s,
                out,
                x,
                self.w,
                #[inline(always)]
                |s, x, w| s.mul(s.mul(x, scale), w),
            );
        }
    }
}
