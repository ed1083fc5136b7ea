//! What NVIDIA's assembler and disassembler tell about a compiled kernel. Neither needs a GPU.
//!
//! * [`ptxas()`] assembles PTX and reads what it says: registers, spills, shared memory.
//! * [`disassemble()`] reads the machine code of a cubin: which instructions a kernel and its loops are made of.
//!
//! The programs come from PyPI (`tools/fetch-cuda` puts them under `target/cuda/bin`) or from a toolkit in the `PATH`.

mod ptxas;
mod sass;

pub use ptxas::{Resources, ptxas};
pub use sass::{Code, Instruction, Loop, disassemble};

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not there.
    #[error("{name}: neither in {dir} (tools/fetch-cuda puts it there) nor in the PATH")]
    NoTool {
        /// The program.
        name: &'static str,
        /// Where it would be.
        dir: PathBuf,
    },
    /// A program could not be started, or a file for it not be written.
    #[error("{what}: {source}")]
    Io {
        /// The program or file.
        what: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program refuses its input.
    #[error("{tool} for sm_{sm}: {message}")]
    Refused {
        /// The program.
        tool: PathBuf,
        /// The architecture.
        sm: u32,
        /// What it says.
        message: String,
    },
    /// A program says what we do not understand.
    #[error("{tool}: unexpected output: {found}")]
    Output {
        /// The program.
        tool: PathBuf,
        /// A part of what it says.
        found: String,
    },
}

/// Results of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// The program `name` of `target/cuda/bin` of this repository, or of the `PATH`.
///
/// # Errors
/// [`Error::NoTool`].
pub fn tool(name: &'static str) -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::iter::once(dir.clone()).chain(std::env::split_paths(&path));
    let file = |dir: PathBuf| Some(dir.join(name)).filter(|file| file.is_file());
    dirs.find_map(file).ok_or(Error::NoTool { name, dir })
}

/// The compiler that `tools/fetch-cuda` left, unless `KOMT_NVRTC` names another.
pub fn fetched_nvrtc() -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda/lib/libnvrtc.so.12");
    (fetched.is_file() && std::env::var_os("KOMT_NVRTC").is_none()).then_some(fetched)
}

/// `bytes` in a file of its own, which is deleted when dropped.
fn temporary(bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    let failed = |source| Error::Io { what: std::env::temp_dir(), source };
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    Ok(file)
}

/// Runs `command` and returns what it wrote: (stdout, stderr).
fn run(tool: &Path, sm: u32, command: &mut Command) -> Result<(String, String)> {
    let output = command.output().map_err(|source| Error::Io { what: tool.into(), source })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok((text(&output.stdout), text(&output.stderr))),
        false => Err(Error::Refused { tool: tool.into(), sm, message: text(&output.stderr) }),
    }
}
