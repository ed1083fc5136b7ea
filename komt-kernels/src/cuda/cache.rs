//! Compiled kernels on disk: an entry for each source, architecture, set of options and version of the compiler.
//!
//! An entry repeats its whole key, so that a hash is only a name, and carries a checksum. What does not fit is ignored and
//! written anew. A directory that cannot be read or written is no error: kernels are then compiled each time.
//!
//! ```text
//! magic | checksum of what follows | four lengths | key | PTX | machine code | log        numbers: u64, little-endian
//! ```

use super::nvrtc::Image;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: &[u8] = b"komt kernels 1\n";

/// `KOMT_CUDA_CACHE` (`off`: none), else `komt` in the user's directory for caches.
pub(super) fn default_dir() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match set("KOMT_CUDA_CACHE") {
        Some(dir) if dir.as_os_str() == "off" => None,
        Some(dir) => Some(dir),
        None => set("XDG_CACHE_HOME")
            .or_else(|| set("LOCALAPPDATA"))
            .or_else(|| set("HOME").map(|home| home.join(".cache")))
            .map(|caches| caches.join("komt")),
    }
}

/// What an image was made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    /// Name of the source, for the entry's name.
    pub name: &'a str,
    /// Version of the compiler, options and text.
    pub text: &'a str,
}

impl Key<'_> {
    fn file(&self, dir: &Path) -> PathBuf {
        let name: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        dir.join(format!("{name}-{:016x}", fnv(self.text.as_bytes())))
    }
}

/// The entry, if it is there and whole.
pub(super) fn read(dir: &Path, key: Key<'_>) -> Option<Image> {
    let bytes = fs::read(key.file(dir)).ok()?;
    let rest = bytes.strip_prefix(MAGIC)?;
    let (checksum, body) = number(rest)?;
    if checksum != fnv(body) {
        return None;
    }
    let mut rest = body;
    let mut lens = [0; 4];
    for len in &mut lens {
        (*len, rest) = number(rest)?;
    }
    let mut part = |len: u64| {
        let (part, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        rest = after;
        Some(part.to_vec())
    };
    let (text, ptx, cubin, log) = (part(lens[0])?, part(lens[1])?, part(lens[2])?, part(lens[3])?);
    (text == key.text.as_bytes() && rest.is_empty()).then(|| Image {
        ptx,
        cubin,
        log: String::from_utf8_lossy(&log).into(),
    })
}

/// Writes an entry, whole or not at all: several processes may do so at once.
pub(super) fn write(dir: &Path, key: Key<'_>, image: &Image) {
    let parts = [key.text.as_bytes(), &image.ptx, &image.cubin, image.log.as_bytes()];
    let mut body = vec![];
    parts.iter().for_each(|part| body.extend((part.len() as u64).to_le_bytes()));
    parts.iter().for_each(|part| body.extend(*part));
    let entry = [MAGIC, &fnv(&body).to_le_bytes(), &body].concat();

    static UNIQUE: AtomicU64 = AtomicU64::new(0);
    let file = key.file(dir);
    let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
    let part = file.with_extension(format!("{}-{unique}.part", std::process::id()));
    let written = fs::create_dir_all(dir)
        .and_then(|()| fs::File::create(&part))
        .and_then(|mut file| file.write_all(&entry))
        .and_then(|()| fs::rename(&part, &file));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

/// FNV-1a: against accidents, not against attackers, who could as well replace the program.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
