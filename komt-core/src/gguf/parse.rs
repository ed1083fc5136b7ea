//! The container: header, metadata, and where tensors lie. Little-endian, versions 2 and 3
//! (ggml's docs/gguf.md is the source).
//!
//! ```text
//! "GGUF"  version u32  n_tensors u64  n_metadata u64
//! n_metadata times: key string, type u32, value          string = length u64, UTF-8
//! n_tensors  times: name string, n_dims u32, dims u64 (innermost first), type u32, offset u64
//! zeros to the alignment; then the tensors, each at its offset from here
//! ```
//! The file is hostile until shown otherwise: every length is held against the bytes that are left before anything of that
//! length is made, so what is allocated is in proportion to the file.

use super::blocks::ElementKind;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// What every file begins with.
pub const MAGIC: &[u8; 4] = b"GGUF";

/// A longer key or name is no key (the specification allows 65,535 and 64 bytes).
const MAX_NAME_BYTES: usize = 65_535;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Array),
}

/// An array, left where it is: vocabularies are read once, and most others never.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub kind: u32,
    pub len: usize,
    bytes: Range<usize>,
}

/// A tensor's place.
#[derive(Debug, Clone)]
pub(super) struct Info {
    pub kind: ElementKind,
    /// Rows and columns: outermost first.
    pub shape: Vec<usize>,
    /// In the file.
    pub bytes: Range<usize>,
}

/// What stands before the tensors.
#[derive(Debug)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: BTreeMap<String, Info>,
}

pub(super) const TEXT: u32 = 8;
const ARRAY: u32 = 9;
/// The size in bytes of each type but strings and arrays, by number: u8, i8, u16, i16, u32, i32, f32, bool, -, -, u64, i64, f64.
const SIZES: [usize; 13] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];

/// Reads forward through bytes of a file.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn wrong(&self, what: &str, expected: &str, found: impl ToString) -> Error {
        wrong(self.path, what, expected, found)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, what: &str, len: u64) -> Result<&'a [u8]> {
        match usize::try_from(len).ok().filter(|&len| len <= self.left()) {
            Some(len) => {
                self.at += len;
                Ok(&self.bytes[self.at - len..self.at])
            }
            None => {
                let expected = format!("{len} bytes from byte {} on", self.at);
                Err(self.wrong(what, &expected, format!("{}: the file ends", self.left())))
            }
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N as u64)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things that take `least` bytes each at least.
    fn count(&mut self, what: &str, least: usize) -> Result<usize> {
        let n = self.u64(what)?;
        let most = self.left() / least;
        match usize::try_from(n) {
            Ok(n) if n <= most => Ok(n),
            _ => Err(self.wrong(what, &format!("{most} at most, as the file ends"), n)),
        }
    }

    fn text(&mut self, what: &str) -> Result<&'a str> {
        let len = self.u64(what)?;
        let bytes = self.take(what, len)?;
        std::str::from_utf8(bytes).map_err(|error| self.wrong(what, "UTF-8", error))
    }

    fn name(&mut self, what: &str) -> Result<&'a str> {
        let name = self.text(what)?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(char::is_control) {
            return Err(self.wrong(what, "a name", format!("{:?}", excerpt(name))));
        }
        Ok(name)
    }

    /// A value of a type that has a fixed size.
    fn scalar(&mut self, what: &str, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(self.array::<1>(what)?[0].into()),
            1 => Value::Signed(i8::from_le_bytes(self.array(what)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array(what)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(what)?).into()),
            4 => Value::Unsigned(self.u32(what)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(what)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(what)?).into()),
            7 => match self.array::<1>(what)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(self.wrong(what, "a bool of 0 or 1", other)),
            },
            10 => Value::Unsigned(self.u64(what)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(what)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(what)?)),
            other => return Err(self.wrong(what, "a type of 0..=12", other)),
        })
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        match self.u32(key)? {
            TEXT => Ok(Value::Text(self.text(key)?.to_owned())),
            ARRAY => self.array_value(key),
            kind => self.scalar(key, kind),
        }
    }

    fn array_value(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32(key)?;
        let size = match (kind, SIZES.get(kind as usize)) {
            (TEXT, _) => 8,
            (_, Some(&size)) if size > 0 => size,
            _ => return Err(self.wrong(key, "an array of numbers or texts", format!("type {kind}"))),
        };
        let len = self.count(key, size)?;
        let start = self.at;
        if kind == TEXT {
            for _ in 0..len {
                let bytes = self.u64(key)?;
                self.take(key, bytes)?;
            }
        } else {
            self.take(key, (len * size) as u64)?;
        }
        Ok(Value::Array(Array { kind, len, bytes: start..self.at }))
    }
}

/// The first characters of a text, for a message.
fn excerpt(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}

pub(super) fn wrong(path: &Path, what: &str, expected: &str, found: impl ToString) -> Error {
    Error::Gguf { path: path.into(), what: what.into(), expected: expected.into(), found: found.to_string() }
}

impl Array {
    /// The texts of an array of them.
    pub fn texts(&self, path: &Path, bytes: &[u8], key: &str) -> Result<Vec<String>> {
        let mut cursor = self.cursor(path, bytes);
        if self.kind != TEXT {
            return Err(cursor.wrong(key, "an array of texts", format!("type {}", self.kind)));
        }
        (0..self.len).map(|_| cursor.text(key).map(String::from)).collect()
    }

    /// The numbers of an array of them.
    pub fn numbers(&self, path: &Path, bytes: &[u8], key: &str) -> Result<Vec<f64>> {
        let mut cursor = self.cursor(path, bytes);
        let number = |_| match cursor.scalar(key, self.kind)? {
            Value::Unsigned(n) => Ok(n as f64),
            Value::Signed(n) => Ok(n as f64),
            Value::Float(n) => Ok(n),
            other => Err(cursor.wrong(key, "an array of numbers", format!("{other:?}"))),
        };
        (0..self.len).map(number).collect()
    }

    fn cursor<'a>(&self, path: &'a Path, bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { path, bytes: &bytes[..self.bytes.end], at: self.bytes.start }
    }
}

impl Header {
    /// Reads the header of a file with these bytes.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor { path, bytes, at: 0 };
        version(&mut cursor)?;
        let n_tensors = cursor.count("number of tensors", 24)?;
        let n_metadata = cursor.count("number of keys", 13)?;
        let mut metadata = BTreeMap::new();
        for i in 0..n_metadata {
            let key = cursor.name(&format!("key {i}"))?;
            let value = cursor.value(key)?;
            if metadata.insert(key.to_owned(), value).is_some() {
                return Err(cursor.wrong(key, "each key once", "it twice"));
            }
        }
        let alignment = alignment(&cursor, &metadata)?;
        let mut tensors = BTreeMap::new();
        for i in 0..n_tensors {
            let name = cursor.name(&format!("name of tensor {i}"))?;
            let info = info(&mut cursor, name)?;
            if tensors.insert(name.to_owned(), info).is_some() {
                return Err(cursor.wrong(name, "each tensor once", "it twice"));
            }
        }
        let start = cursor.at.next_multiple_of(alignment);
        for (name, info) in &mut tensors {
            place(&cursor, name, info, start, alignment)?;
        }
        check_overlaps(&cursor, &tensors)?;
        Ok(Self { metadata, tensors })
    }
}

fn version(cursor: &mut Cursor<'_>) -> Result<()> {
    let magic = cursor.array::<4>("magic")?;
    if magic != *MAGIC {
        return Err(cursor.wrong("magic", "GGUF", format!("{magic:?}")));
    }
    match cursor.u32("version")? {
        2 | 3 => Ok(()),
        n if n.swap_bytes() < 0x1_0000 => {
            Err(cursor.wrong("byte order", "little-endian", "a big-endian file"))
        }
        n => Err(cursor.wrong("version", "2 or 3", n)),
    }
}

/// Where tensors may begin: multiples of this.
fn alignment(cursor: &Cursor<'_>, metadata: &BTreeMap<String, Value>) -> Result<usize> {
    const KEY: &str = "general.alignment";
    match metadata.get(KEY) {
        None => Ok(32),
        Some(&Value::Unsigned(n)) if n.is_power_of_two() && n <= 1 << 20 => Ok(n as usize),
        Some(other) => Err(cursor.wrong(KEY, "a power of two up to 2^20", format!("{other:?}"))),
    }
}

/// A tensor's entry; its bytes count from 0 until they are placed.
fn info(cursor: &mut Cursor<'_>, name: &str) -> Result<Info> {
    let n_dims = cursor.u32(name)?;
    if !(1..=4).contains(&n_dims) {
        return Err(cursor.wrong(name, "1 to 4 dimensions", n_dims));
    }
    let mut shape = vec![];
    for _ in 0..n_dims {
        match cursor.u64(name)? {
            n @ 1..0x8000_0000 => shape.insert(0, n as usize),
            n => return Err(cursor.wrong(name, "dimensions in 1..2^31", n)),
        }
    }
    let kind = cursor.u32(name)?;
    let offset = cursor.u64(name)?;
    let kind = ElementKind::of_number(kind).map_err(|found| Error::ElementType {
        tensor: name.into(),
        expected: ElementKind::NAMES.into(),
        found,
    })?;
    let cols = shape[shape.len() - 1];
    if !cols.is_multiple_of(kind.block_len()) {
        let expected = format!("rows of a multiple of {} numbers, as in {kind:?}", kind.block_len());
        return Err(cursor.wrong(name, &expected, cols));
    }
    let len = shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim as u64));
    let len = len.and_then(|len| (len / kind.block_len() as u64).checked_mul(kind.block_bytes() as u64));
    let end = len.and_then(|len| offset.checked_add(len)).and_then(|end| usize::try_from(end).ok());
    match (usize::try_from(offset), end) {
        (Ok(offset), Some(end)) => Ok(Info { kind, shape, bytes: offset..end }),
        _ => Err(cursor.wrong(name, "bytes within the file", format!("{shape:?} at offset {offset}"))),
    }
}

fn place(cursor: &Cursor<'_>, name: &str, info: &mut Info, start: usize, alignment: usize) -> Result<()> {
    let Range { start: offset, end } = info.bytes;
    if !offset.is_multiple_of(alignment) {
        return Err(cursor.wrong(name, &format!("an offset that is a multiple of {alignment}"), offset));
    }
    match end.checked_add(start).filter(|&end| end <= cursor.bytes.len()) {
        Some(end) => info.bytes = start + offset..end,
        None => {
            let expected = format!("{} bytes from byte {} on", end - offset, start.saturating_add(offset));
            return Err(cursor.wrong(name, &expected, format!("a file of {}", cursor.bytes.len())));
        }
    }
    Ok(())
}

/// No two tensors may share bytes.
fn check_overlaps(cursor: &Cursor<'_>, tensors: &BTreeMap<String, Info>) -> Result<()> {
    let mut places: Vec<_> =
        tensors.iter().map(|(name, info)| (info.bytes.start, info.bytes.end, name)).collect();
    places.sort_unstable();
    for pair in places.windows(2) {
        let ((_, end, first), (start, _, second)) = (pair[0], pair[1]);
        if start < end {
            return Err(cursor.wrong(
                second,
                &format!("it behind `{first}`, which ends at byte {end}"),
                start,
            ));
        }
    }
    Ok(())
}
