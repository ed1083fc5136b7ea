//! Warp-wide matrix instructions: `mma.sync` (PTX ISA 9.7.14.5) and the lane mapping of `ldmatrix` / `stmatrix`.
//!
//! A register of a warp is `[u32; 32]`, one word a lane. All fragments follow one pattern (ISA, figures of 9.7.14.5.2 to 9.7.14.5.10): with
//! `g = lane / 4`, `t = lane % 4` and `per` elements to a 32-bit register (1 tf32, 2 16-bit, 4 8-bit),
//! - A register r: row `g + 8 * (r % 2)` (m = 16) or `g` (m = 8), columns `(r / 2) * 4 * per + t * per ..+ per`
//! - B register r: rows `r * 4 * per + t * per ..+ per`, column `g`
//! - C, D: rows `g`, `g + 8`; columns `2t`, `2t + 1`: 32-bit accumulators in registers (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1); f16 pairs
//!   in registers (g), (g + 8).

mod matrix;
#[cfg(test)]
mod tests;
mod tile;

pub use matrix::{ldmatrix, ldmatrix_lane, stmatrix};

use crate::num::Ty;

/// A form of `mma.sync.aligned.mMnNkK.row.col` that we execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mma {
    m: u8,
    k: u8,
    a: Ty,
    b: Ty,
    d: Ty,
    satfinite: bool,
}

impl Mma {
    /// The form with these shapes and types, or `None` if PTX or we have none such. n is always 8. Supported:
    /// m16n8k16, m16n8k8 f16 (D = C = f16 or f32) and bf16 (f32); m16n8k8, m16n8k4 tf32 (f32); m16n8k32, m16n8k16, m8n8k16 of s8/u8 in any
    /// mixture (s32, `satfinite` allowed).
    #[allow(clippy::too_many_arguments)]
    pub fn new(m: u32, n: u32, k: u32, d: Ty, a: Ty, b: Ty, c: Ty, satfinite: bool) -> Option<Self> {
        let byte = |ty| matches!(ty, Ty::S8 | Ty::U8);
        let shape = (m, n, k);
        let known = match a {
            Ty::F16 => a == b && matches!(d, Ty::F16 | Ty::F32) && matches!(shape, (16, 8, 8 | 16)),
            Ty::Bf16 => a == b && d == Ty::F32 && matches!(shape, (16, 8, 8 | 16)),
            Ty::Tf32 => a == b && d == Ty::F32 && matches!(shape, (16, 8, 4 | 8)),
            _ => byte(a) && byte(b) && d == Ty::S32 && matches!(shape, (16, 8, 16 | 32) | (8, 8, 16)),
        };
        let known = known && c == d && (!satfinite || d == Ty::S32);
        known.then_some(Self { m: m as u8, k: k as u8, a, b, d, satfinite })
    }

    /// 32-bit registers of the A operand: 1, 2 or 4.
    pub fn a_registers(&self) -> usize {
        usize::from(self.m) / 8 * self.b_registers()
    }

    /// 32-bit registers of the B operand: 1 or 2.
    pub fn b_registers(&self) -> usize {
        usize::from(self.k) / (4 * self.per())
    }

    /// Registers of C and of D: 2 or 4.
    pub fn c_registers(&self) -> usize {
        let words = usize::from(self.m) / 8 * 2;
        if self.d == Ty::F16 { words / 2 } else { words }
    }

    /// Multiply-accumulate operations of one instruction: m * n * k.
    pub fn macs(&self) -> u64 {
        u64::from(self.m) * 8 * u64::from(self.k)
    }

    fn per(&self) -> usize {
        32 / self.a.bits() as usize
    }

    /// `d = a * b + c` for the whole warp. `a`, `b`, `c` have as many registers as [`Mma::a_registers`] and so on say, and so has `d`, which
    /// is written entirely. (d is a buffer of the caller's: it cannot alias c.)
    ///
    /// Floats: products are exact; the sum starts at c and runs over k in order, in f32, rounding to nearest each time; f16 accumulators round
    /// once at the end. Hardware's order and inner precision are not documented, so the last bits may differ from a GPU's.
    /// Integers: exact, mod 2^32 or clamped at the end with `satfinite`.
    pub fn run(&self, d: &mut [[u32; 32]], a: &[&[u32; 32]], b: &[&[u32; 32]], c: &[&[u32; 32]]) {
        assert_eq!(
            (d.len(), a.len(), b.len(), c.len()),
            (self.c_registers(), self.a_registers(), self.b_registers(), self.c_registers()),
            "registers of {self:?}"
        );
        let sums = match self.d {
            Ty::S32 => tile::Sums::Int { satfinite: self.satfinite },
            Ty::F16 => tile::Sums::F16,
            _ => tile::Sums::F32,
        };
        tile::multiply(&self.form(), sums, d, a, b, c);
    }

    fn form(&self) -> Form {
        Form {
            halves: usize::from(self.m) / 8,
            chunks: self.b_registers(),
            per: self.per(),
            a: self.a,
            b: self.b,
        }
    }
}

/// What the tile loops need to know.
struct Form {
    /// Groups of 8 rows.
    halves: usize,
    /// Registers of B: groups of 4 * per steps of k.
    chunks: usize,
    /// Elements to a 32-bit register.
    per: usize,
    a: Ty,
    b: Ty,
}
