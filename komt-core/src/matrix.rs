//! [`Packed`]: a matrix as it is multiplied, of one or several tensors; [`Weights`]: what it is kept as.

use crate::source::{TensorData, TensorSource};
use crate::{Error, Result};
use komt_kernels::quant::RowSource;
use komt_kernels::{HostWeight, SharedBytes, WeightFormat};

/// What matrices are kept as. Vectors (the norms' weights) are f32 in any case.
///
/// Q8 and Q4 are the formats of [`komt_kernels::quant`]: whole numbers of 8 or 4 bits and a scale for every 32 or 16 of a row,
/// searched for by its error. The embedding and the output matrix are q8 under both: they are a small part of a large model,
/// and the part whose error is felt most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Weights {
    /// As the files have them. A format that there are no kernels for (the block formats of GGUF) becomes q8, whose error of
    /// 2.4e-5 of the mean square is a two-hundredth of what 4 bits have lost before.
    #[default]
    Stored,
    /// 16 bits, the upper half of f32.
    Bf16,
    /// 8.25 bits a weight.
    Q8,
    /// 4.5 bits a weight, and 8.25 in the embedding and the output matrix.
    Q4,
}

impl Weights {
    /// All, by name.
    pub const NAMES: [&str; 4] = ["stored", "bf16", "q8", "q4"];

    /// The one of this name, where there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Weights::Stored, Weights::Bf16, Weights::Q8, Weights::Q4];
        all.into_iter().find(|weights| weights.name() == name)
    }

    /// Its name, one of [`NAMES`](Self::NAMES).
    pub fn name(self) -> &'static str {
        match self {
            Weights::Stored => "stored",
            Weights::Bf16 => "bf16",
            Weights::Q8 => "q8",
            Weights::Q4 => "q4",
        }
    }

    /// `None`: as stored.
    fn format(self, is_vocabulary: bool) -> Option<WeightFormat> {
        match self {
            Weights::Stored => None,
            Weights::Bf16 => Some(WeightFormat::Bf16),
            Weights::Q4 if !is_vocabulary => Some(WeightFormat::Q4),
            Weights::Q8 | Weights::Q4 => Some(WeightFormat::Q8),
        }
    }
}

/// Matrices of a model that are multiplied as one, stacked by rows.
pub(crate) struct Packed {
    /// Its name where it lies packed in the files: of the one part, or of all together.
    whole: [(String, usize); 1],
    /// The names and rows of what Hugging Face's files have.
    parts: Vec<(String, usize)>,
    pub rows: usize,
    pub cols: usize,
    /// The embedding or the output matrix.
    is_vocabulary: bool,
}

impl Packed {
    pub fn of(name: String, parts: Vec<(String, usize)>, cols: usize) -> Self {
        let rows = parts.iter().map(|&(_, rows)| rows).sum();
        Self { whole: [(name, rows)], parts, rows, cols, is_vocabulary: false }
    }

    pub fn one(name: String, rows: usize, cols: usize) -> Self {
        Self::of(name.clone(), vec![(name, rows)], cols)
    }

    pub fn of_vocabulary(self) -> Self {
        Self { is_vocabulary: true, ..self }
    }

    pub fn name(&self) -> &str {
        &self.whole[0].0
    }

    /// Each part for itself.
    pub fn split(self) -> Vec<Self> {
        let (cols, is_vocabulary) = (self.cols, self.is_vocabulary);
        let one = |(name, rows)| Self { is_vocabulary, ..Self::one(name, rows, cols) };
        self.parts.into_iter().map(one).collect()
    }

    /// Names and rows of the tensors that the files have of it.
    pub fn parts(&self, files: &dyn TensorSource) -> &[(String, usize)] {
        if files.is_packed() { &self.whole } else { &self.parts }
    }

    /// What it is converted to; `None`: nothing else than it is.
    pub fn wanted(&self, weights: Weights) -> Option<WeightFormat> {
        weights.format(self.is_vocabulary)
    }

    /// What it is kept as. Checks shape and type of every part.
    pub fn format(&self, files: &dyn TensorSource, weights: Weights) -> Result<WeightFormat> {
        let mut stored = vec![];
        for (name, rows) in self.parts(files) {
            stored.push((name, files.format(name, &[*rows, self.cols])?));
        }
        match self.wanted(weights) {
            Some(wanted) if files.is_packed() && wanted != stored[0].1 => Err(Error::Option {
                name: "weights",
                expected: format!("`stored`: {} is quantised already", files.path().display()),
                found: format!("`{}`", weights.name()),
            }),
            Some(wanted) => Ok(wanted),
            None => common(&stored),
        }
    }

    /// The numbers of every part.
    pub fn read<'a>(&self, files: &'a dyn TensorSource) -> Result<Parts<'a>> {
        let part = |(name, rows): &(String, usize)| Ok((*rows, files.get(name, &[*rows, self.cols])?));
        let parts = self.parts(files).iter().map(part).collect::<Result<_>>()?;
        Ok(Parts { rows: self.rows, cols: self.cols, parts })
    }

    /// An error of a backend; a number that cannot be kept is told by its place in the files' own tensor.
    pub fn error(&self, mut error: komt_kernels::Error) -> Error {
        let komt_kernels::Error::WeightRange { row, .. } = &mut error else { return error.into() };
        let mut tensor = &self.whole[0].0;
        for (name, rows) in &self.parts {
            tensor = name;
            if *row < *rows {
                break;
            }
            *row -= rows;
        }
        Error::Range { tensor: tensor.clone(), source: error }
    }
}

/// The one format of all parts. Where some are decoded in any case, that of the others.
fn common(stored: &[(&String, WeightFormat)]) -> Result<WeightFormat> {
    let plain = || stored.iter().filter(|(_, format)| !format.is_quantised());
    let Some(&(first, common)) = plain().next() else { return Ok(stored[0].1) };
    match plain().find(|(_, format)| *format != common) {
        None => Ok(common),
        Some((name, format)) => {
            let expected = format!("{common:?} as `{first}`");
            Err(Error::ElementType { tensor: name.to_string(), expected, found: format!("{format:?}") })
        }
    }
}

/// The numbers of a [`Packed`], part by part.
pub(crate) struct Parts<'a> {
    rows: usize,
    cols: usize,
    parts: Vec<(usize, TensorData<'a>)>, // rows, and their numbers
}

impl<'a> Parts<'a> {
    /// The bytes, if all parts have this plain format.
    pub fn plain(&self, format: WeightFormat) -> Option<Vec<&'a [u8]>> {
        let bytes = |part: &(usize, TensorData<'a>)| match part.1 {
            TensorData::Plain(found, bytes) if found == format => Some(bytes),
            _ => None,
        };
        self.parts.iter().map(bytes).collect()
    }

    /// The bytes of a quantised matrix.
    pub fn quantised(&self) -> Option<SharedBytes> {
        match &self.parts[..] {
            [(_, TensorData::Quantised(_, bytes))] => Some(bytes.clone()),
            _ => None,
        }
    }
}

impl RowSource for Parts<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, mut row: usize, out: &mut [f32]) {
        for (rows, data) in &self.parts {
            if row >= *rows {
                row -= rows;
                continue;
            }
            let (rows, cols) = (*rows, self.cols);
            let mut of = |format, bytes| HostWeight { rows, cols, format, parts: &[bytes] }.read(row, out);
            return match data {
                TensorData::Plain(format, bytes) => of(*format, bytes),
                TensorData::Rows(source) => source.read(row, out),
                TensorData::Quantised(format, bytes) => of(*format, bytes.as_slice()),
            };
        }
    }
}
