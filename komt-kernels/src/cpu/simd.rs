//! [`Simd`]: the vector operations that the kernels are written in, and [`Portable`], the one for any target.
//!
//! A value of a `Simd` type is the proof that the CPU has its instructions (`new() -> Option<Self>`). Kernels are
//! generic over it and entered through `isa::dispatch`. Everything is `#[inline(always)]`: only then is it compiled for
//! the instructions of the function it ends up in.

use half::{bf16, f16};

/// Vectors of f32.
pub(crate) trait Simd: Copy + Send + Sync {
    /// A vector.
    type V: Copy;
    /// Its lanes: 8 or 16, a divisor of `komt_cache::PAGE`.
    const LANES: usize;
    /// Rows of activations that the matmul tile takes at once: as many as the registers hold.
    const TILE_ROWS: usize;

    /// A vector of as many words of 32 bits.
    type Bits: Copy;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V;
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn load_f16(self, p: *const f16) -> Self::V;
    /// `LANES` words, with the bits of `flip` flipped.
    ///
    /// # Safety
    /// `LANES` words can be read, from any address.
    unsafe fn load_bits(self, p: *const u8, flip: u32) -> Self::Bits;
    /// The signed number that is left of each word after `left` bits are shifted out above and then `right` below.
    fn field(self, bits: Self::Bits, left: u32, right: u32) -> Self::V;
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn load_i8(self, p: *const i8) -> Self::V;
    /// # Safety
    /// `LANES` values can be written.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the CPU can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `x` in lanes where `a < b`, else `y`.
    fn select_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// `a` limited to `low..=high`; NaN stays NaN.
    fn clamp(self, a: Self::V, low: f32, high: f32) -> Self::V;
    /// `a * 2^n` for integral `n` in -126..=127.
    fn scale(self, a: Self::V, n: Self::V) -> Self::V;
    /// The sum of the lanes, in a fixed order.
    fn sum(self, a: Self::V) -> f32;
    /// The sums of four vectors' lanes, in a fixed order that need not be that of `sum`.
    #[inline(always)]
    fn sum4(self, a: [Self::V; 4]) -> [f32; 4] {
        a.map(
            #[inline(always)]
            |a| self.sum(a),
        )
    }

    /// e^x: Cody-Waite reduction to |r| <= ln(2)/2, Taylor polynomial of degree 7 (remainder r^8/8! < 6e-9 relative), so
    /// the result is within 2 units in the last place. Below -87.3 it stays at e^-87.3 = 1.2e-38, above 88 at e^88.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        // ln(2) in two parts: 355/512 has 9 bits, so n * HI is exact for the |n| <= 127 that occur.
        const HI: f32 = 0.693_359_4;
        const LO: f32 = -2.121_944_4e-4;
        const TAYLOR: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
        let x = self.clamp(x, -87.3, 88.0);
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        let r = self.mul_add(n, self.splat(-HI), x);
        let r = self.mul_add(n, self.splat(-LO), r);
        let mut p = self.splat(1.0 / 5040.0);
        for c in TAYLOR {
            p = self.mul_add(p, r, self.splat(c));
        }
        self.scale(p, n)
    }

    /// Without the sign.
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        let minus = self.mul(a, self.splat(-1.0));
        self.select_less(a, minus, minus, a)
    }

    /// `g / (1 + e^-g)`.
    #[inline(always)]
    fn silu(self, g: Self::V) -> Self::V {
        let e = self.exp(self.mul(g, self.splat(-1.0)));
        self.div(g, self.add(e, self.splat(1.0)))
    }
}

/// A number that weights are stored as.
pub(crate) trait Stored: Copy + Send + Sync + 'static {
    /// The value 0.
    const ZERO: Self;
    /// As f32, exactly.
    fn widen(self) -> f32;
    /// # Safety
    /// `S::LANES` values can be read.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;

    /// The `n < S::LANES` values at `p`, and zeros.
    ///
    /// # Safety
    /// `n` values can be read.
    #[inline(always)]
    unsafe fn load_tail<S: Simd>(s: S, p: *const Self, n: usize) -> S::V {
        let mut padded = [Self::ZERO; 16];
        // SAFETY: the caller vouches for `n` values at `p`; n < LANES <= 16. The padded copy has LANES values.
        unsafe {
            std::ptr::copy_nonoverlapping(p, padded.as_mut_ptr(), n);
            Self::load(s, padded.as_ptr())
        }
    }
}

impl Stored for f32 {
    const ZERO: Self = 0.0;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: as the caller vouches.
        unsafe { s.load(p) }
    }
}
impl Stored for f16 {
    const ZERO: Self = f16::ZERO;
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: as the caller vouches.
        unsafe { s.load_f16(p) }
    }
}
/// The numbers of q8, without their scale.
impl Stored for i8 {
    const ZERO: Self = 0;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: as the caller vouches.
        unsafe { s.load_i8(p) }
    }
}
impl Stored for bf16 {
    const ZERO: Self = bf16::ZERO;
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: as the caller vouches.
        unsafe { s.load_bf16(p) }
    }
}

/// The dot product of `a` and `b`: one accumulator a lane, the tail padded with zeros, one sum at the end. Every dot
/// product of a backend runs through this order, whatever the tile, so results do not depend on the number of rows.
#[inline(always)]
pub(crate) fn dot<S: Simd, T: Stored>(s: S, a: &[f32], b: &[T]) -> f32 {
    let n = a.len();
    assert_eq!(n, b.len(), "dot: lengths");
    let mut acc = s.splat(0.0);
    let mut i = 0;
    while i + S::LANES <= n {
        // SAFETY: LANES values from `i` on.
        let (va, vb) = unsafe { (s.load(a.as_ptr().add(i)), T::load(s, b.as_ptr().add(i))) };
        acc = s.mul_add(va, vb, acc);
        i += S::LANES;
    }
    if i < n {
        // SAFETY: the `n - i` values that are left.
        let (va, vb) = unsafe {
            (f32::load_tail(s, a.as_ptr().add(i), n - i), T::load_tail(s, b.as_ptr().add(i), n - i))
        };
        acc = s.mul_add(va, vb, acc);
    }
    s.sum(acc)
}

/// Asks for the cache line of `p`, which may be any address.
#[inline(always)]
pub(crate) fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, and it does not fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// The same, no nearer than the second level of the cache.
#[inline(always)]
pub(crate) fn prefetch_far<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// A vector of the `left` values at `p`: a full one, or the tail with zeros.
///
/// # Safety
/// `left` values can be read.
#[inline(always)]
pub(crate) unsafe fn load_at<S: Simd, T: Stored>(s: S, p: *const T, left: usize) -> S::V {
    // SAFETY: as the caller vouches.
    unsafe { if left >= S::LANES { T::load(s, p) } else { T::load_tail(s, p, left) } }
}

/// Applies `f` to the vector of the first `left` values of `out`: a full one, or the tail with zeros.
#[inline(always)]
pub(crate) fn map_vector<S: Simd>(s: S, out: &mut [f32], left: usize, f: impl FnOnce(S, S::V) -> S::V) {
    let out = &mut out[..left.min(S::LANES)];
    // SAFETY: `out` has LANES values, or fewer and then the tail is handled in a padded copy of 16 >= LANES.
    unsafe {
        let v = f(s, load_at(s, out.as_ptr(), out.len()));
        if out.len() == S::LANES {
            s.store(out.as_mut_ptr(), v);
        } else {
            let mut padded = [0.0; 16];
            s.store(padded.as_mut_ptr(), v);
            out.copy_from_slice(&padded[..out.len()]);
        }
    }
}

/// `out = f(a, b)`, vector by vector.
#[inline(always)]
pub(crate) fn map2<S: Simd>(s: S, out: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(S, S::V, S::V) -> S::V) {
    let n = out.len();
    assert!(a.len() == n && b.len() == n, "map2: lengths");
    let mut i = 0;
    while i < n {
        let left = n - i;
        // SAFETY: i < n, and `left` values of a and b follow.
        let (va, vb) = unsafe { (load_at(s, a.as_ptr().add(i), left), load_at(s, b.as_ptr().add(i), left)) };
        map_vector(
            s,
            &mut out[i..],
            left,
            #[inline(always)]
            |s, _| f(s, va, vb),
        );
        i += S::LANES;
    }
}

/// Eight lanes in plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type V8 = [f32; 8];

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> V8 {
    let mut v = [0.0; 8];
    for (i, v) in v.iter_mut().enumerate() {
        *v = f(i);
    }
    v
}

impl Simd for Portable {
    type V = V8;
    type Bits = [u32; 8];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> V8 {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V8 {
        // SAFETY: the caller vouches for 8 values.
        unsafe { p.cast::<V8>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_bits(self, p: *const u8, flip: u32) -> [u32; 8] {
        // SAFETY: as above.
        let words: [[u8; 4]; 8] = unsafe { *p.cast() };
        words.map(|word| u32::from_le_bytes(word) ^ flip)
    }
    #[inline(always)]
    fn field(self, bits: [u32; 8], left: u32, right: u32) -> V8 {
        lanes(|i| ((bits[i] << left) as i32 >> right) as f32)
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> V8 {
        // SAFETY: as above.
        let values: [i8; 8] = unsafe { *p.cast() };
        lanes(|i| f32::from(values[i]))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> V8 {
        // SAFETY: as above.
        let bits: [bf16; 8] = unsafe { *p.cast() };
        lanes(|i| f32::from_bits(u32::from(bits[i].to_bits()) << 16))
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> V8 {
        // SAFETY: as above.
        let bits: [f16; 8] = unsafe { *p.cast() };
        lanes(|i| bits[i].to_f32())
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V8) {
        // SAFETY: as above.
        unsafe { *p.cast() = v }
    }
    #[inline(always)]
    fn add(self, a: V8, b: V8) -> V8 {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn mul(self, a: V8, b: V8) -> V8 {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: V8, b: V8) -> V8 {
        lanes(|i| a[i] / b[i])
    }
    /// Two roundings: `f32::mul_add` is a slow library call on targets without the instruction.
    #[inline(always)]
    fn mul_add(self, a: V8, b: V8, c: V8) -> V8 {
        lanes(|i| a[i] * b[i] + c[i])
    }
    /// Adding and subtracting 1.5 * 2^23 leaves no bits for a fraction; exact for |a| < 2^22, and `exp` stays below 2^7.
    #[inline(always)]
    fn round(self, a: V8) -> V8 {
        const MAGIC: f32 = 12_582_912.0;
        lanes(|i| (a[i] + MAGIC) - MAGIC)
    }
    #[inline(always)]
    fn select_less(self, a: V8, b: V8, x: V8, y: V8) -> V8 {
        lanes(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    fn clamp(self, a: V8, low: f32, high: f32) -> V8 {
        lanes(|i| a[i].clamp(low, high))
    }
    #[inline(always)]
    fn scale(self, a: V8, n: V8) -> V8 {
        lanes(|i| a[i] * f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn sum(self, a: V8) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
}
