//! Arithmetic of PTX on bit patterns: pure functions, no state. Semantics follow the PTX ISA document, section 9.7; sections are named beside
//! the functions.
//!
//! Two levels. Typed functions (`f32_add`, `bfe`, `lop3`, ...) for the interpreter's hot loops; and three dispatchers that take any type as a
//! zero-extended bit pattern in a `u64` and match on operation and type: [`float`], [`integer`], [`convert`]. Called with constants, the
//! dispatchers' matches fold away; called per lane with variables they cost a few ns.
//!
//! Register conventions: operands may carry rubbish above their type's width (a `.u16` read from a `.b32` register): every dispatcher masks or
//! sign-extends its inputs itself. Results of signed types narrower than 64 bits are sign-extended to 64 bits, all others zero-extended: the
//! caller truncates to the register it writes.

mod approx;
mod convert;
mod double;
mod float;
mod int;
mod round;
mod small;
#[cfg(test)]
mod tests;

pub use approx::{cos_approx, ex2_approx, lg2_approx, rsqrt_approx, sin_approx, tanh_approx};
pub use convert::{Conversion, convert, convert_packed};
pub use double::{f64_add, f64_div, f64_fma, f64_mul, f64_sqrt, f64_sub};
pub use float::{
    FloatMode, FloatOp, TestKind, f32_add, f32_div, f32_fma, f32_max, f32_min, f32_mul, f32_sqrt, f32_sub,
    float, fma_f32_warp, testp,
};
pub use int::{
    Carry, IntOp, PrmtMode, ShfMode, add_carry, bfe, bfi, bfind, brev, clz, dp2a, dp4a, fns, integer, lop3,
    mul24, popc, prmt, shf, shl, shr, sub_borrow,
};
pub use round::{
    BF16, F16, F32, Format, TF32, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, flush_f32, odd_add,
    odd_fma, round_f64,
};

/// A type as PTX names it after the dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    U16x2,
    S16x2,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
}

impl Ty {
    /// The type called `name`, without the dot: `"u32"`, `"bf16x2"`.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(text, _)| *text == name).map(|(_, ty)| *ty)
    }

    /// The name without the dot.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, ty)| *ty == self).map_or("?", |(text, _)| text)
    }

    /// Width in bits; a predicate has 1.
    pub fn bits(self) -> u32 {
        match self {
            Ty::Pred => 1,
            Ty::B8 | Ty::U8 | Ty::S8 => 8,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16 => 16,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F32 | Ty::Tf32 => 32,
            Ty::F16x2 | Ty::Bf16x2 | Ty::U16x2 | Ty::S16x2 => 32,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 64,
            Ty::B128 => 128,
        }
    }

    /// Width in memory; a predicate has none and answers 1.
    pub fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    /// `.s8` to `.s64`.
    pub fn is_signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    /// `.u8` to `.u64` and `.s8` to `.s64`; untyped `.b*` are not among them.
    pub fn is_int(self) -> bool {
        self.is_signed() || matches!(self, Ty::U8 | Ty::U16 | Ty::U32 | Ty::U64)
    }

    /// Every floating point type, packed ones included.
    pub fn is_float(self) -> bool {
        matches!(self, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 | Ty::Tf32 | Ty::F32 | Ty::F64)
    }
}

const NAMES: [(&str, Ty); 23] = [
    ("pred", Ty::Pred),
    ("b8", Ty::B8),
    ("b16", Ty::B16),
    ("b32", Ty::B32),
    ("b64", Ty::B64),
    ("b128", Ty::B128),
    ("u8", Ty::U8),
    ("u16", Ty::U16),
    ("u32", Ty::U32),
    ("u64", Ty::U64),
    ("s8", Ty::S8),
    ("s16", Ty::S16),
    ("s32", Ty::S32),
    ("s64", Ty::S64),
    ("u16x2", Ty::U16x2),
    ("s16x2", Ty::S16x2),
    ("f16", Ty::F16),
    ("f16x2", Ty::F16x2),
    ("bf16", Ty::Bf16),
    ("bf16x2", Ty::Bf16x2),
    ("tf32", Ty::Tf32),
    ("f32", Ty::F32),
    ("f64", Ty::F64),
];

/// A rounding modifier. The `*i` forms round to an integral value (`cvt` only).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Round {
    /// To nearest, ties to even.
    #[default]
    Rn,
    /// Towards zero.
    Rz,
    /// Towards minus infinity.
    Rm,
    /// Towards plus infinity.
    Rp,
    /// To nearest, ties away from zero.
    Rna,
    /// To the nearest integer, ties to even.
    Rni,
    /// To an integer towards zero.
    Rzi,
    /// To an integer towards minus infinity.
    Rmi,
    /// To an integer towards plus infinity.
    Rpi,
}

impl Round {
    /// The rounding called `name`, without the dot.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "rn" => Round::Rn,
            "rz" => Round::Rz,
            "rm" => Round::Rm,
            "rp" => Round::Rp,
            "rna" => Round::Rna,
            "rni" => Round::Rni,
            "rzi" => Round::Rzi,
            "rmi" => Round::Rmi,
            "rpi" => Round::Rpi,
            _ => return None,
        })
    }

    /// True of `rni`, `rzi`, `rmi`, `rpi`.
    pub fn to_integer(self) -> bool {
        matches!(self, Round::Rni | Round::Rzi | Round::Rmi | Round::Rpi)
    }
}

/// A comparison of `set` and `setp` (PTX ISA 9.7.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Unsigned lower, lower-or-same, higher, higher-or-same.
    Lo,
    Ls,
    Hi,
    Hs,
    /// As `eq`, ..., but true when an operand is NaN.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    /// Both operands are numbers.
    Num,
    /// Some operand is NaN.
    Nan,
}

impl Cmp {
    /// The comparison called `name`, without the dot.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "eq" => Cmp::Eq,
            "ne" => Cmp::Ne,
            "lt" => Cmp::Lt,
            "le" => Cmp::Le,
            "gt" => Cmp::Gt,
            "ge" => Cmp::Ge,
            "lo" => Cmp::Lo,
            "ls" => Cmp::Ls,
            "hi" => Cmp::Hi,
            "hs" => Cmp::Hs,
            "equ" => Cmp::Equ,
            "neu" => Cmp::Neu,
            "ltu" => Cmp::Ltu,
            "leu" => Cmp::Leu,
            "gtu" => Cmp::Gtu,
            "geu" => Cmp::Geu,
            "num" => Cmp::Num,
            "nan" => Cmp::Nan,
            _ => return None,
        })
    }

    /// What an ordering (none: NaN is involved) answers to this comparison.
    #[inline]
    pub fn holds(self, order: Option<std::cmp::Ordering>) -> bool {
        let Some(order) = order else {
            return matches!(
                self,
                Cmp::Equ | Cmp::Neu | Cmp::Ltu | Cmp::Leu | Cmp::Gtu | Cmp::Geu | Cmp::Nan
            );
        };
        match self {
            Cmp::Eq | Cmp::Equ => order.is_eq(),
            Cmp::Ne | Cmp::Neu => order.is_ne(),
            Cmp::Lt | Cmp::Lo | Cmp::Ltu => order.is_lt(),
            Cmp::Le | Cmp::Ls | Cmp::Leu => order.is_le(),
            Cmp::Gt | Cmp::Hi | Cmp::Gtu => order.is_gt(),
            Cmp::Ge | Cmp::Hs | Cmp::Geu => order.is_ge(),
            Cmp::Num => true,
            Cmp::Nan => false,
        }
    }
}

/// `setp.cmp{.ftz}.ty` of scalar operands, as bit patterns. Packed types compare their low halves (call twice, shifted by 16).
#[inline]
pub fn compare(cmp: Cmp, ty: Ty, ftz: bool, a: u64, b: u64) -> bool {
    let f = |x: u64| {
        let x = f32::from_bits(x as u32);
        if ftz { flush_f32(x) } else { x }
    };
    let unsigned = matches!(cmp, Cmp::Lo | Cmp::Ls | Cmp::Hi | Cmp::Hs);
    cmp.holds(match ty {
        Ty::F32 | Ty::Tf32 => f(a).partial_cmp(&f(b)),
        Ty::F64 => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
        Ty::F16 | Ty::F16x2 => {
            let (a, b) = (small::flush_bits(a as u16, F16, ftz), small::flush_bits(b as u16, F16, ftz));
            f16_to_f32(a).partial_cmp(&f16_to_f32(b))
        }
        Ty::Bf16 | Ty::Bf16x2 => bf16_to_f32(a as u16).partial_cmp(&bf16_to_f32(b as u16)),
        _ if ty.is_signed() && !unsigned => {
            Some((int::extend(ty, a) as i64).cmp(&(int::extend(ty, b) as i64)))
        }
        _ => {
            let mask = int::mask(ty.bits());
            Some((a & mask).cmp(&(b & mask)))
        }
    })
}
