//! [`Fields`]: the fields of a configuration file, each of the type that it must have.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A JSON object and the file it came from.
pub(crate) struct Fields {
    path: PathBuf,
    pub map: Map<String, Value>,
}

impl Fields {
    /// An object that was read from the file `path`.
    pub fn new(path: &Path, map: Map<String, Value>) -> Self {
        Self { path: path.into(), map }
    }

    /// The object that `text`, the contents of `path`, is.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self> {
        let map = serde_json::from_slice(text).map_err(|error| Error::json(path, &error))?;
        Ok(Self::new(path, map))
    }

    /// The value of a field; a `null` counts as missing.
    pub fn value(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub fn wrong(&self, field: &str, expected: &str, found: impl ToString) -> Error {
        let found = found.to_string();
        Error::Config { path: self.path.clone(), field: field.into(), expected: expected.into(), found }
    }

    pub fn unsupported(&self, field: &str, found: impl ToString, supported: &str) -> Error {
        let found = found.to_string();
        Error::Unsupported {
            path: self.path.clone(),
            field: field.into(),
            found,
            supported: supported.into(),
        }
    }

    /// A positive integer below 2^31.
    pub fn count(&self, field: &str, default: Option<usize>) -> Result<usize> {
        const EXPECTED: &str = "an integer in 1..2^31";
        match (self.value(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.wrong(field, EXPECTED, "nothing")),
            (Some(value), _) => match value.as_u64() {
                Some(n @ 1..0x8000_0000) => Ok(n as usize),
                _ => Err(self.wrong(field, EXPECTED, value)),
            },
        }
    }

    /// An integer from 0 on.
    pub fn size(&self, field: &str, default: usize) -> Result<usize> {
        self.value(field).map_or(Ok(default), |value| {
            let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
            size.ok_or_else(|| self.wrong(field, "an integer, 0 or more", value))
        })
    }

    /// A text, a list of texts, or none; empty ones say nothing.
    pub fn texts(&self, field: &str) -> Result<Vec<String>> {
        let text = |value: &Value| {
            let text = value.as_str().map(String::from);
            text.filter(|text| !text.is_empty())
                .ok_or_else(|| self.wrong(field, "a text or a list of texts", value))
        };
        match self.value(field) {
            None => Ok(vec![]),
            Some(Value::Array(values)) => values.iter().map(text).collect(),
            Some(value) => Ok(vec![text(value)?]),
        }
    }

    pub fn number(&self, field: &str, default: f64) -> Result<f64> {
        self.value(field)
            .map_or(Ok(default), |value| value.as_f64().ok_or_else(|| self.wrong(field, "a number", value)))
    }

    pub fn positive(&self, field: &str, default: f32) -> Result<f32> {
        let number = self.number(field, f64::from(default))? as f32;
        if number > 0.0 && number.is_finite() {
            Ok(number)
        } else {
            Err(self.wrong(field, "a positive number", number))
        }
    }

    pub fn flag(&self, field: &str) -> Result<bool> {
        self.value(field).map_or(Ok(false), |value| {
            value.as_bool().ok_or_else(|| self.wrong(field, "true or false", value))
        })
    }

    /// One id, a list of ids, or none.
    pub fn ids(&self, field: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.wrong(field, "a token id or a list of token ids", value))
        };
        match self.value(field) {
            None => Ok(vec![]),
            Some(Value::Array(values)) => values.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }
}
