//! What a safetensors file with quantised weights says of itself, in its metadata. Only komt reads the numbers of such a file;
//! its list of tensors is for everybody.
//!
//! ```text
//! "komt.version": "1"
//! "komt.format": "q4"                                                     what the matrices were quantised to
//! "komt.tensor.model.layers.0.self_attn.qkv_proj.weight": "q4 6144x4096"  rows x columns of each matrix
//! ```
//! A matrix lies as it is multiplied: q, k and v are one, gate and up another, of type U8 and one dimension: the bytes of its
//! [`QuantLayout`], filled up with zeros to a multiple of 64. The matrices come first, from a multiple of 64 bytes on, so that
//! each begins at a cache line when the file is mapped; then the norms, in f32.

use komt_kernels::quant::QuantLayout;
use komt_kernels::{AlignedBytes, SharedBytes, WeightFormat};
use memmap2::Mmap;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

pub(crate) const VERSION_KEY: &str = "komt.version";
pub(crate) const FORMAT_KEY: &str = "komt.format";
const VERSION: &str = "1";

/// Where matrices begin: a cache line.
pub(crate) const ALIGN: usize = 64;

/// The key and value of a matrix.
pub(crate) fn describe(name: &str, layout: &QuantLayout) -> (String, String) {
    let format = if layout.format == WeightFormat::Q8 { "q8" } else { "q4" };
    (key(name), format!("{format} {}x{}", layout.rows, layout.cols))
}

/// The keys and values of a file.
pub(crate) fn versions(format: &str) -> [(String, String); 2] {
    [(FORMAT_KEY.into(), format.into()), (VERSION_KEY.into(), VERSION.into())]
}

fn key(name: &str) -> String {
    format!("komt.tensor.{name}")
}

/// Whether the file has packed matrices; the reason why it cannot be read, if so.
pub(crate) fn is_packed(metadata: &HashMap<String, String>) -> Result<bool, String> {
    match metadata.get(VERSION_KEY).map(String::as_str) {
        None if metadata.contains_key(FORMAT_KEY) => Err(format!("`{FORMAT_KEY}` without `{VERSION_KEY}`")),
        None => Ok(false),
        Some(VERSION) => Ok(true),
        Some(other) => Err(format!(
            "quantised weights of version {other:?}; this version of komt reads version {VERSION}"
        )),
    }
}

/// The layout of a matrix of `bytes` bytes, where the metadata have one; the reason why it cannot be.
pub(crate) fn layout(
    metadata: &HashMap<String, String>,
    name: &str,
    is_u8: bool,
    bytes: usize,
) -> Result<Option<QuantLayout>, String> {
    let Some(value) = metadata.get(&key(name)) else { return Ok(None) };
    let layout = parse(value).ok_or_else(|| {
        format!("tensor `{name}`: expected a format and a shape as `q4 6144x4096`, found {value:?}")
    })?;
    let expected = layout.size_bytes().next_multiple_of(ALIGN);
    match is_u8 && bytes == expected {
        true => Ok(Some(layout)),
        false => Err(format!("tensor `{name}`: {value} has {expected} bytes of type U8, found {bytes}")),
    }
}

fn parse(value: &str) -> Option<QuantLayout> {
    let (format, shape) = value.split_once(' ')?;
    let format = match format {
        "q8" => WeightFormat::Q8,
        "q4" => WeightFormat::Q4,
        _ => return None,
    };
    let (rows, cols) = shape.split_once('x')?;
    // Below 2^31, as in a config.json: no product of the two overflows.
    let number = |text: &str| text.parse().ok().filter(|n| (1..1usize << 31).contains(n));
    Some(QuantLayout::new(format, number(rows)?, number(cols)?))
}

/// A matrix in a mapped file. Gives its pages back when nobody needs it any more: after a backend has copied it, or with the
/// model.
struct MappedMatrix {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl AsRef<[u8]> for MappedMatrix {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Drop for MappedMatrix {
    fn drop(&mut self) {
        release(&self.map, &self.range);
    }
}

/// The matrix at `range` of a file: as it lies there, or a copy where some tool has moved it from its cache line. `None` where
/// there is no memory for that.
pub(crate) fn matrix(map: &Arc<Mmap>, range: Range<usize>) -> Option<SharedBytes> {
    let len = range.len();
    if range.start.is_multiple_of(ALIGN) {
        return Some(SharedBytes::new(Arc::new(MappedMatrix { map: map.clone(), range }), 0..len));
    }
    let mut copy = AlignedBytes::zeroed(len)?;
    copy.as_mut().copy_from_slice(&map[range.clone()]);
    release(map, &range);
    Some(SharedBytes::new(Arc::new(copy), 0..len))
}

/// Gives mapped pages back; they will be read from the file if asked for again.
pub(crate) fn release(map: &Mmap, range: &Range<usize>) {
    #[cfg(unix)]
    {
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the mapping is of a file and read-only, so what is dropped comes back unchanged when it is read.
        // Failure only means that the pages stay.
        let _ = unsafe { map.unchecked_advise_range(advice, range.start, range.len()) };
    }
    #[cfg(not(unix))]
    let _ = (map, range); // the system takes pages of files back by itself
}
