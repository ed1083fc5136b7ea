//! Models on disk: the directories that we read, and the files of the same weights that peers read. What is missing is made.

use crate::Result;
use crate::llama::{self, FileType};
use candle_core::quantized::gguf_file;
use komt_benches::synth::{self, Shape};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The models there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// The shape of Mistral-7B with this number of layers, random weights.
    Cut(usize),
    /// SmolLM2-135M-Instruct.
    SmolLm2,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Cut(32) => write!(f, "7B shape"),
            Name::Cut(n) => write!(f, "7B shape, {n} layers"),
            Name::SmolLm2 => write!(f, "SmolLM2-135M"),
        }
    }
}

/// The folder that models are kept in.
pub struct Files {
    pub dir: PathBuf,
}

fn tool(name: &str, args: &[&Path], kind: Option<&str>) -> Result<()> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools");
    let status = Command::new("python3")
        .arg(tools.join(name))
        .args(args)
        .args(kind)
        .stdout(std::io::stderr())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("tools/{name}: {status}").into()) }
}

impl Files {
    /// The Hugging Face directory.
    pub fn hf(&self, name: Name) -> Result<PathBuf> {
        let dir = match name {
            Name::Cut(n) => self.dir.join(format!("7b-{n}")),
            Name::SmolLm2 => self.dir.join("smollm2"),
        };
        if !dir.join("config.json").exists() {
            eprintln!("{}: making {name}", dir.display());
            match name {
                Name::Cut(n) => {
                    synth::write_dims(&dir, &Shape::Mistral7b.dims().layers(n), 1, &mut |_, _| {})?;
                }
                Name::SmolLm2 => tool("fetch-smollm2", &[&dir], None)?,
            }
        }
        Ok(dir)
    }

    /// The same weights as a GGUF file.
    pub fn gguf(&self, name: Name, file_type: FileType) -> Result<PathBuf> {
        gguf_of(&self.hf(name)?, &self.dir, file_type)
    }
}

/// The file `<name>.<type>.gguf` in `out` of the directory `dir` of that name; made by `tools/hf-to-gguf`, and quantised by
/// llama.cpp from numbers as they are stored.
pub fn gguf_of(dir: &Path, out: &Path, file_type: FileType) -> Result<PathBuf> {
    let name = dir.file_name().ok_or("a directory without a name")?.to_string_lossy().into_owned();
    let path = out.join(format!("{name}.{}.gguf", file_type.name()));
    if !path.exists() {
        eprintln!("{}: making it", path.display());
        let stored = stored_type(dir)?;
        if [FileType::Bf16, FileType::F32].contains(&file_type) {
            let part = path.with_extension("part");
            tool("hf-to-gguf", &[dir, &part], Some(&file_type.name().to_lowercase()))?;
            std::fs::rename(part, &path)?;
        } else {
            llama::quantise(&gguf_of(dir, out, stored)?, &path, file_type)?;
        }
    }
    Ok(path)
}

fn stored_type(dir: &Path) -> Result<FileType> {
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?;
    let dtype = config["torch_dtype"].as_str().or(config["dtype"].as_str());
    Ok(if dtype == Some("bfloat16") { FileType::Bf16 } else { FileType::F32 })
}

/// Bytes of weights that a decode step reads of a GGUF file: all, but of an embedding table beside an output matrix a row.
pub fn gguf_decode_bytes(path: &Path) -> Result<u64> {
    let content = gguf_file::Content::read(&mut std::io::BufReader::new(std::fs::File::open(path)?))?;
    let is_tied = !content.tensor_infos.contains_key("output.weight");
    let mut bytes = 0;
    for (name, info) in &content.tensor_infos {
        if is_tied || name != "token_embd.weight" {
            bytes += info.shape.elem_count() / info.ggml_dtype.block_size() * info.ggml_dtype.type_size();
        }
    }
    Ok(bytes as u64)
}
