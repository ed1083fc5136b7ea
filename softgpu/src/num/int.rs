//! Integer, logic and shift instructions (PTX ISA 9.7.1, 9.7.2, 9.7.8).

use super::Ty;

/// An operation of [`integer`]. Operand order is PTX's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum IntOp {
    Add,
    /// `add.sat.s32`
    AddSat,
    Sub,
    /// `sub.sat.s32`
    SubSat,
    /// `mul.lo`
    MulLo,
    /// `mul.hi`
    MulHi,
    /// `mul.wide`: `ty` is the sources' (16 or 32 bits), the result has twice its width.
    MulWide,
    /// `mad.lo`
    MadLo,
    /// `mad.hi`
    MadHi,
    /// `mad.hi.sat.s32`
    MadHiSat,
    /// `mad.wide`: c has twice the width of `ty`.
    MadWide,
    /// Division by zero gives all ones, as hardware does (the ISA leaves it undefined); MIN / -1 wraps.
    Div,
    /// Remainder by zero gives the dividend.
    Rem,
    Min,
    Max,
    /// `min.relu.s32`
    MinRelu,
    /// `max.relu.s32`
    MaxRelu,
    Abs,
    Neg,
    /// c + |a - b|
    Sad,
    And,
    Or,
    Xor,
    Not,
    /// `cnot`: 1 if a is 0, else 0.
    Cnot,
    /// b is a u32; amounts above the width behave as the width.
    Shl,
    /// As `Shl`; fills with the sign of signed types.
    Shr,
    Popc,
    Clz,
    Brev,
    /// `bfind`: position of the top bit that differs from the sign; 0xffff_ffff if none.
    Bfind,
    /// `bfind.shiftamt`: the shift that brings it to the top.
    BfindShift,
    /// `bfe`: b = position, c = length, both taken mod 256.
    Bfe,
}

/// Mode of a funnel shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ShfMode {
    Clamp,
    Wrap,
}

/// Mode of `prmt.b32`; `Index` is the plain form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum PrmtMode {
    Index,
    F4e,
    B4e,
    Rc8,
    Ecl,
    Ecr,
    Rc16,
}

/// A value with the carry (or borrow) out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// Sum or difference, cut to the width.
    pub value: u64,
    /// What goes into `CC.CF`.
    pub carry: bool,
}

/// All ones below `bits`.
#[inline]
pub(super) fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// The value of `x` as `ty`: sign-extended if signed, else zero-extended, to 64 bits.
#[inline]
pub(super) fn extend(ty: Ty, x: u64) -> u64 {
    let unused = 64 - ty.bits().min(64);
    if ty.is_signed() { ((x << unused) as i64 >> unused) as u64 } else { x << unused >> unused }
}

/// `op.ty` for integer and untyped (`.b*`) scalars, and `.u16x2` / `.s16x2` half by half. See the module's register conventions.
#[inline]
pub fn integer(op: IntOp, ty: Ty, a: u64, b: u64, c: u64) -> u64 {
    if matches!(ty, Ty::U16x2 | Ty::S16x2) {
        let half = if ty == Ty::U16x2 { Ty::U16 } else { Ty::S16 };
        let lo = integer(op, half, a, b, c) & 0xffff;
        return lo | (integer(op, half, a >> 16, b >> 16, c >> 16) & 0xffff) << 16;
    }
    let (bits, signed) = (ty.bits(), ty.is_signed());
    let (x, y) = (extend(ty, a), extend(ty, b));
    let (sx, sy) = (x as i64, y as i64);
    let saturate = |v: i128| v.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) as u64;
    let least = if signed { sx <= sy } else { x <= y };
    let relu = |v: u64| if (v as i64) < 0 { 0 } else { v };
    let value = match op {
        IntOp::Add => x.wrapping_add(y),
        IntOp::Sub => x.wrapping_sub(y),
        IntOp::AddSat => saturate(i128::from(sx) + i128::from(sy)),
        IntOp::SubSat => saturate(i128::from(sx) - i128::from(sy)),
        IntOp::MulLo => x.wrapping_mul(y),
        IntOp::MadLo => x.wrapping_mul(y).wrapping_add(c),
        IntOp::MulHi => mul_hi(ty, x, y),
        IntOp::MadHi => mul_hi(ty, x, y).wrapping_add(c),
        IntOp::MadHiSat => saturate(i128::from(mul_hi(ty, x, y) as i64) + i128::from(extend(ty, c) as i64)),
        IntOp::MulWide => return x.wrapping_mul(y) & mask(2 * bits) | sign_fill(ty, x.wrapping_mul(y)),
        IntOp::MadWide => {
            let sum = x.wrapping_mul(y).wrapping_add(c);
            return sum & mask(2 * bits) | sign_fill(ty, sum);
        }
        IntOp::Div if y == 0 => u64::MAX,
        IntOp::Div if signed => sx.wrapping_div(sy) as u64,
        IntOp::Div => x / y,
        IntOp::Rem if y == 0 => x,
        IntOp::Rem if signed => sx.wrapping_rem(sy) as u64,
        IntOp::Rem => x % y,
        IntOp::Min => {
            if least {
                x
            } else {
                y
            }
        }
        IntOp::Max => {
            if least {
                y
            } else {
                x
            }
        }
        IntOp::MinRelu => relu(if least { x } else { y }),
        IntOp::MaxRelu => relu(if least { y } else { x }),
        IntOp::Abs => sx.wrapping_abs() as u64,
        IntOp::Neg => sx.wrapping_neg() as u64,
        IntOp::Sad => c.wrapping_add(if least { y.wrapping_sub(x) } else { x.wrapping_sub(y) }),
        IntOp::And => x & y,
        IntOp::Or => x | y,
        IntOp::Xor => x ^ y,
        IntOp::Not => !x,
        IntOp::Cnot => u64::from(x == 0),
        IntOp::Shl => shl(ty, a, b as u32),
        IntOp::Shr => shr(ty, a, b as u32),
        IntOp::Popc => u64::from((a & mask(bits)).count_ones()),
        IntOp::Clz => u64::from(clz(ty, a)),
        IntOp::Brev => brev(ty, a),
        IntOp::Bfind => return u64::from(bfind(ty, a, false)),
        IntOp::BfindShift => return u64::from(bfind(ty, a, true)),
        IntOp::Bfe => bfe(ty, a, b as u32, c as u32),
    };
    extend(ty, value)
}

/// For wide results: the bits above twice the width, of a signed one.
fn sign_fill(ty: Ty, value: u64) -> u64 {
    let width = 2 * ty.bits();
    if ty.is_signed() && width < 64 && value >> (width - 1) & 1 == 1 { !mask(width) } else { 0 }
}

/// The upper half of the product; operands extended to 64 bits.
#[inline]
fn mul_hi(ty: Ty, x: u64, y: u64) -> u64 {
    if ty.is_signed() {
        (i128::from(x as i64).wrapping_mul(i128::from(y as i64)) >> ty.bits()) as u64
    } else {
        (u128::from(x).wrapping_mul(u128::from(y)) >> ty.bits()) as u64
    }
}

/// `shl`: a shift by the width or more gives 0.
#[inline]
pub fn shl(ty: Ty, a: u64, amount: u32) -> u64 {
    if amount >= ty.bits() { 0 } else { (a << amount) & mask(ty.bits()) }
}

/// `shr`: a shift by the width or more gives 0, or the sign in every bit.
#[inline]
pub fn shr(ty: Ty, a: u64, amount: u32) -> u64 {
    let x = extend(ty, a);
    if ty.is_signed() {
        ((x as i64) >> amount.min(63)) as u64
    } else if amount >= ty.bits() {
        0
    } else {
        x >> amount
    }
}

/// `shf.l` (`left`) or `shf.r` of the 64 bits b:a (b the upper word): the upper word of the left-shifted, the lower of the right-shifted.
#[inline]
pub fn shf(left: bool, mode: ShfMode, a: u32, b: u32, amount: u32) -> u32 {
    let n = if mode == ShfMode::Clamp { amount.min(32) } else { amount & 31 };
    let pair = u64::from(b) << 32 | u64::from(a);
    if left { (pair << n >> 32) as u32 } else { (pair >> n) as u32 }
}

/// `bfe.ty d, a, pos, len` for 32 and 64 bits. Bits beyond the field are 0, or of signed types the field's top bit (at most the word's).
#[inline]
pub fn bfe(ty: Ty, a: u64, pos: u32, len: u32) -> u64 {
    let (pos, len, top) = (pos & 0xff, len & 0xff, ty.bits() - 1);
    let a = a & mask(ty.bits());
    let field = if pos > top { 0 } else { a >> pos };
    let taken = len.min(if pos > top { 0 } else { top + 1 - pos });
    let sign = ty.is_signed() && len != 0 && a >> (pos + len - 1).min(top) & 1 == 1;
    let fill = if sign { !mask(taken) & mask(ty.bits()) } else { 0 };
    field & mask(taken) | fill
}

/// `bfi.ty f, a, b, pos, len` for 32 and 64 bits: b with a's low `len` bits put at `pos`.
#[inline]
pub fn bfi(ty: Ty, a: u64, b: u64, pos: u32, len: u32) -> u64 {
    let (pos, len, width) = (pos & 0xff, len & 0xff, ty.bits());
    if pos >= width {
        return b & mask(width);
    }
    let field = mask(len.min(width - pos)) << pos;
    b & mask(width) & !field | a << pos & field
}

/// `popc`: bits set, of a value already cut to its type.
#[inline]
pub fn popc(a: u64) -> u32 {
    a.count_ones()
}

/// `clz`: leading zeros within the type's width.
#[inline]
pub fn clz(ty: Ty, a: u64) -> u32 {
    (a & mask(ty.bits())).leading_zeros() - (64 - ty.bits())
}

/// `brev`: bits reversed within the type's width.
#[inline]
pub fn brev(ty: Ty, a: u64) -> u64 {
    a.reverse_bits() >> (64 - ty.bits())
}

/// `bfind{.shiftamt}`: see [`IntOp::Bfind`].
#[inline]
pub fn bfind(ty: Ty, a: u64, shift_amount: bool) -> u32 {
    let x = extend(ty, a);
    let x = if ty.is_signed() && (x as i64) < 0 { !x } else { x } & mask(ty.bits());
    match (x == 0, shift_amount) {
        (true, _) => u32::MAX,
        (false, false) => 63 - x.leading_zeros(),
        (false, true) => ty.bits() - 64 + x.leading_zeros(),
    }
}

/// `fns.b32 d, mask, base, offset`: position of the `|offset|`-th set bit from `base`, upwards if positive, downwards if negative; offset 0:
/// `base` itself if set. 0xffff_ffff if there is none.
pub fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    let set = |i: i64| (0..32).contains(&i) && mask >> i & 1 == 1;
    let mut at = i64::from(base);
    if offset == 0 {
        return if set(at) { base } else { u32::MAX };
    }
    let mut found = 0;
    while (0..32).contains(&at) {
        found += u32::from(set(at));
        if found == offset.unsigned_abs() {
            return at as u32;
        }
        at += i64::from(offset.signum());
    }
    u32::MAX
}

/// `lop3.b32` with the table `lut`: bit i of the result is bit `a_i * 4 + b_i * 2 + c_i` of it.
#[inline]
pub fn lop3(a: u32, b: u32, c: u32, lut: u8) -> u32 {
    let mut out = 0;
    for row in 0..8u32 {
        // Masks, no branches: the table differs from call to call.
        let pick = |x: u32, bit: u32| if row >> bit & 1 == 1 { x } else { !x };
        out |= pick(a, 2) & pick(b, 1) & pick(c, 0) & 0u32.wrapping_sub(u32::from(lut >> row & 1));
    }
    out
}

/// `prmt.b32{.mode} d, a, b, c`: bytes 0..3 are a's, 4..7 b's. In the plain mode bit 3 of a selector spreads the byte's sign over the byte.
#[inline]
pub fn prmt(mode: PrmtMode, a: u32, b: u32, c: u32) -> u32 {
    let pair = u64::from(b) << 32 | u64::from(a);
    let low = c & 3;
    let selectors = match mode {
        PrmtMode::Index => c,
        // Byte i comes from source byte: (low + i), (low - i) mod 8, low, max(i, low), min(i, low), the 16-bit half `low & 1`.
        PrmtMode::F4e => nibbles(|i| low + i),
        PrmtMode::B4e => nibbles(|i| low.wrapping_sub(i) & 7),
        PrmtMode::Rc8 => nibbles(|_| low),
        PrmtMode::Ecl => nibbles(|i| i.max(low)),
        PrmtMode::Ecr => nibbles(|i| i.min(low)),
        PrmtMode::Rc16 => nibbles(|i| (low & 1) * 2 + (i & 1)),
    };
    let mut out = 0;
    for i in 0..4 {
        let selector = selectors >> (4 * i) & 0xf;
        let byte = (pair >> (8 * (selector & 7))) as u8;
        let byte = if selector & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        out |= u32::from(byte) << (8 * i);
    }
    out
}

#[inline]
fn nibbles(source: impl Fn(u32) -> u32) -> u32 {
    (0..4).fold(0, |all, i| all | source(i) << (4 * i))
}

/// `dp4a.atype.btype d, a, b, c`: c + the sum of four byte products, mod 2^32.
#[inline]
pub fn dp4a(a_signed: bool, b_signed: bool, a: u32, b: u32, c: u32) -> u32 {
    (0..4).fold(c, |sum, i| sum.wrapping_add(byte(a, i, a_signed).wrapping_mul(byte(b, i, b_signed)) as u32))
}

/// `dp2a.lo` / `dp2a.hi` (`hi`): c + a's two 16-bit halves times the two lower (upper) bytes of b.
#[inline]
pub fn dp2a(hi: bool, a_signed: bool, b_signed: bool, a: u32, b: u32, c: u32) -> u32 {
    (0..2).fold(c, |sum, i| {
        let half = (a >> (16 * i)) as u16;
        let half = if a_signed { i32::from(half as i16) } else { i32::from(half) };
        sum.wrapping_add(half.wrapping_mul(byte(b, i + 2 * u32::from(hi), b_signed)) as u32)
    })
}

#[inline]
fn byte(x: u32, i: u32, signed: bool) -> i32 {
    let byte = (x >> (8 * i)) as u8;
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

/// `mul24.lo` / `mul24.hi` (`hi`): the lower (upper) 32 of the 48 bits of the product of two 24-bit values.
#[inline]
pub fn mul24(hi: bool, signed: bool, a: u32, b: u32) -> u32 {
    let value = |x: u32| if signed { i64::from((x << 8) as i32 >> 8) } else { i64::from(x & 0xff_ffff) };
    let product = value(a) * value(b);
    (if hi { product >> 16 } else { product }) as u32
}

/// `add.cc` / `addc{.cc}` of 32 or 64 bits with the carry in.
#[inline]
pub fn add_carry(ty: Ty, a: u64, b: u64, carry: bool) -> Carry {
    let m = mask(ty.bits());
    let sum = u128::from(a & m) + u128::from(b & m) + u128::from(carry);
    Carry { value: sum as u64 & m, carry: sum > u128::from(m) }
}

/// `sub.cc` / `subc{.cc}`: a - b - borrow; the flag out is the borrow.
#[inline]
pub fn sub_borrow(ty: Ty, a: u64, b: u64, borrow: bool) -> Carry {
    let m = mask(ty.bits());
    let taken = u128::from(b & m) + u128::from(borrow);
    Carry { value: (a & m).wrapping_sub(taken as u64) & m, carry: taken > u128::from(a & m) }
}
