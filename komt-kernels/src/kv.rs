//! [`KvLayer`]: the cached keys and values of one layer, and [`KvFormat`]: how they are stored.

use crate::{AttnShape, Backend, Result};
use bytemuck::{Pod, cast_slice, cast_slice_mut};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use komt_cache::PAGE;

/// How the numbers of the KV cache are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvFormat {
    /// IEEE binary32.
    F32,
    /// IEEE binary16: numbers beyond 65,504 become infinite.
    F16,
    /// The upper half of binary32, rounded.
    Bf16,
    /// 8 bits, and an f32 for each head of a token by which they are multiplied: its largest number / 127.
    /// `8 + 32 / head_dim` bits a number: 8.25 for heads of 128.
    Q8,
}

impl KvFormat {
    /// All, the most exact first.
    pub const ALL: [KvFormat; 4] = [KvFormat::F32, KvFormat::F16, KvFormat::Bf16, KvFormat::Q8];

    /// Its name in options and messages.
    pub fn name(self) -> &'static str {
        match self {
            KvFormat::F32 => "f32",
            KvFormat::F16 => "f16",
            KvFormat::Bf16 => "bf16",
            KvFormat::Q8 => "q8",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<KvFormat> {
        KvFormat::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Bytes of a number, without its share of a scale.
    pub(crate) fn number_bytes(self) -> usize {
        match self {
            KvFormat::F32 => 4,
            KvFormat::F16 | KvFormat::Bf16 => 2,
            KvFormat::Q8 => 1,
        }
    }

    /// Bytes of a token's keys and values in one layer: where there are scales, with them.
    pub fn token_bytes(self, attn: AttnShape) -> usize {
        let scales = if self == KvFormat::Q8 { 4 * attn.n_kv_heads } else { 0 };
        2 * (attn.kv_dim() * self.number_bytes() + scales)
    }
}

impl std::fmt::Display for KvFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The cached keys and values of one layer: `[n_slots, kv_dim]` numbers each, in a buffer of 32-bit words, whatever the format.
///
/// Behind the numbers of q8, from [`KvBuf::scales_at`] on, lie the scales `[n_pages, n_kv_heads, PAGE]`, in f32: those of a
/// head's keys in a page follow one another, as attention reads them.
#[derive(Debug)]
pub struct KvBuf<S> {
    /// Keys, rotated.
    pub k: S,
    /// Values.
    pub v: S,
    /// How both are stored.
    pub format: KvFormat,
    /// Slots that there are.
    pub n_slots: usize,
    /// Width of a slot.
    pub kv_dim: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// The cached keys and values of one layer on backend `B`.
pub type KvLayer<B> = KvBuf<<B as Backend>::Buf<u32>>;

impl<S> KvBuf<S> {
    /// Room for `n_slots` tokens.
    ///
    /// # Errors
    /// Out of memory.
    pub fn alloc<B: Backend<Buf<u32> = S>>(
        b: &mut B,
        n_slots: usize,
        attn: AttnShape,
        format: KvFormat,
    ) -> Result<Self> {
        let (kv_dim, head_dim) = (attn.kv_dim(), attn.head_dim);
        let words = words(n_slots, kv_dim, head_dim, format);
        Ok(Self { k: b.alloc::<u32>(words)?, v: b.alloc::<u32>(words)?, format, n_slots, kv_dim, head_dim })
    }

    /// Where the scales of q8 begin in a buffer, in words.
    pub fn scales_at(&self) -> usize {
        number_words(self.n_slots, self.kv_dim, self.format)
    }
}

/// Where the scales are, for the launches of kernels; zeros but for q8.
#[cfg(feature = "cuda")]
impl KvBuf<crate::cuda::CudaBuf<u32>> {
    pub(crate) fn scale_ptrs(&self) -> [u64; 2] {
        let at = 4 * self.scales_at() as u64;
        if self.format == KvFormat::Q8 { [self.k.ptr() + at, self.v.ptr() + at] } else { [0, 0] }
    }
}

/// The format of a GPU's activations.
#[cfg(feature = "cuda")]
pub(crate) fn native<A: crate::cuda::CudaAct>() -> KvFormat {
    if A::IS_F16 { KvFormat::F16 } else { KvFormat::Bf16 }
}

/// Words of the numbers, 16-byte aligned at their end.
fn number_words(n_slots: usize, kv_dim: usize, format: KvFormat) -> usize {
    (n_slots * kv_dim * format.number_bytes()).div_ceil(16) * 4
}

fn words(n_slots: usize, kv_dim: usize, head_dim: usize, format: KvFormat) -> usize {
    let scales = if format == KvFormat::Q8 { n_slots.div_ceil(PAGE) * PAGE * (kv_dim / head_dim) } else { 0 };
    number_words(n_slots, kv_dim, format) + scales
}

/// Place of a head's scale in those of a buffer.
#[inline(always)]
pub(crate) fn scale_at(slot: usize, head: usize, n_kv_heads: usize) -> usize {
    (slot / PAGE * n_kv_heads + head) * PAGE + slot % PAGE
}

/// Runs `$body` with `$k` and `$v` as slices of whatever the numbers are stored as.
macro_rules! with_kv {
    ($kv:expr, |$k:ident, $v:ident| $body:expr) => {
        match $kv.format {
            $crate::KvFormat::F32 => {
                let ($k, $v) = $kv.numbers::<f32>();
                $body
            }
            $crate::KvFormat::F16 => {
                let ($k, $v) = $kv.numbers::<half::f16>();
                $body
            }
            $crate::KvFormat::Bf16 => {
                let ($k, $v) = $kv.numbers::<half::bf16>();
                $body
            }
            $crate::KvFormat::Q8 => {
                let ($k, $v) = $kv.numbers::<i8>();
                $body
            }
        }
    };
}
pub(crate) use with_kv;

/// On the host: what the formats mean, number by number.
impl KvBuf<Vec<u32>> {
    /// Zeros.
    pub fn zeroed(n_slots: usize, attn: AttnShape, format: KvFormat) -> Self {
        let (kv_dim, head_dim) = (attn.kv_dim(), attn.head_dim);
        let zeros = || vec![0; words(n_slots, kv_dim, head_dim, format)];
        Self { k: zeros(), v: zeros(), format, n_slots, kv_dim, head_dim }
    }

    /// Keys and values as they are stored, `[n_slots, kv_dim]` each.
    pub(crate) fn numbers<T: Pod>(&self) -> (&[T], &[T]) {
        assert_eq!(size_of::<T>(), self.format.number_bytes(), "KV cache in {}: its numbers", self.format);
        let len = self.n_slots * self.kv_dim;
        (&cast_slice(&self.k)[..len], &cast_slice(&self.v)[..len])
    }

    /// Scales of keys and values: none but of q8.
    pub(crate) fn scales(&self) -> (&[f32], &[f32]) {
        let at = self.scales_at();
        (cast_slice(&self.k[at..]), cast_slice(&self.v[at..]))
    }

    /// Stores a token's key and value, `[kv_dim]` each, in a slot: rounded to nearest, ties to even.
    pub fn store(&mut self, slot: usize, k: &[f32], v: &[f32]) {
        let Self { format, n_slots, kv_dim, head_dim, .. } = *self;
        assert!(slot < n_slots && k.len() == kv_dim && v.len() == kv_dim, "store: slot {slot} of {n_slots}");
        let scales_at = self.scales_at();
        for (buffer, values) in [(&mut self.k, k), (&mut self.v, v)] {
            let (numbers, scales) = buffer.split_at_mut(scales_at);
            let range = slot * kv_dim..(slot + 1) * kv_dim;
            match format {
                KvFormat::F32 => cast_slice_mut(numbers)[range].copy_from_slice(values),
                KvFormat::F16 => {
                    cast_slice_mut::<_, f16>(numbers)[range].convert_from_f32_slice(values);
                }
                KvFormat::Bf16 => {
                    cast_slice_mut::<_, bf16>(numbers)[range].convert_from_f32_slice(values);
                }
                KvFormat::Q8 => {
                    let numbers: &mut [i8] = &mut cast_slice_mut(numbers)[range];
                    let heads = numbers.chunks_exact_mut(head_dim).zip(values.chunks_exact(head_dim));
                    for (head, (numbers, values)) in heads.enumerate() {
                        scales[scale_at(slot, head, kv_dim / head_dim)] = round_q8(numbers, values).to_bits();
                    }
                }
            }
        }
    }

    /// The key and the value of a slot, `[kv_dim]` each.
    pub fn load(&self, slot: usize) -> [Vec<f32>; 2] {
        let range = slot * self.kv_dim..(slot + 1) * self.kv_dim;
        let widened: [Vec<f32>; 2] = with_kv!(self, |k, v| [k, v].map(|numbers| {
            numbers[range.clone()].iter().map(|&number| crate::cpu::simd::Stored::widen(number)).collect()
        }));
        let [mut k, mut v] = widened;
        if self.format == KvFormat::Q8 {
            let (k_scales, v_scales) = self.scales();
            for (values, scales) in [(&mut k, k_scales), (&mut v, v_scales)] {
                for (head, values) in values.chunks_exact_mut(self.head_dim).enumerate() {
                    let scale = scales[scale_at(slot, head, self.kv_dim / self.head_dim)];
                    values.iter_mut().for_each(|value| *value *= scale);
                }
            }
        }
        [k, v]
    }
}

/// Stores a head in 8 bits; its scale. One that holds a NaN or an infinity has a scale that is one, too: what reads it finds no
/// finite number.
fn round_q8(to: &mut [i8], from: &[f32]) -> f32 {
    // Magnitudes are ordered as their bits are, NaN above infinity.
    let largest = from.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    // As on the GPU: a product with the reciprocal. Below the smallest normal number it would be infinite: zeros.
    let inverse = if largest >= 127.0 * f32::MIN_POSITIVE { 127.0 / largest } else { 0.0 };
    to.iter_mut().zip(from).for_each(|(to, &value)| *to = (value * inverse).round_ties_even() as i8);
    largest * (1.0 / 127.0)
}
