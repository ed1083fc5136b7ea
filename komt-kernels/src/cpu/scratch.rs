//! [`Scratch`].

use crate::{AlignedBytes, Error, Result};

/// Room for what an operation makes of its input. It grows to what was asked for at most, and is kept; a clone begins with
/// none.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bytes: Option<AlignedBytes>,
}

impl Clone for Scratch {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Scratch {
    /// `len` bytes that begin at a cache line, with whatever was there before.
    pub(crate) fn get(&mut self, len: usize) -> Result<&mut [u8]> {
        if self.bytes.as_ref().is_none_or(|bytes| bytes.as_ref().len() < len) {
            self.bytes = None;
        }
        let bytes = match self.bytes.take() {
            Some(bytes) => bytes,
            None => AlignedBytes::zeroed(len)
                .ok_or_else(|| Error::OutOfMemory { device: "CPU".into(), bytes: len })?,
        };
        Ok(&mut self.bytes.insert(bytes).as_mut()[..len])
    }
}
