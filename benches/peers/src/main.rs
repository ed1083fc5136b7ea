//! komt beside llama.cpp and candle.
//!
//! ```text
//! cargo run --release -- list                     sections and peers
//! cargo run --release -- run decode.q4            one section; `run all`: every one
//! cargo run --release -- page                     docs/performance.md from what was run
//! cargo run --release -- quality                  docs/quality.md
//! ```
//! Run it in its own folder: `.cargo/config.toml` has the peers compiled for this machine. It needs cmake, a C++ compiler,
//! libclang and Python (README.md).

mod candle;
mod files;
mod llama;
mod machine;
mod matrices;
mod ours;
mod page;
mod pairs;
mod quality;
mod quality_page;
mod sections;
mod weights;
mod work;

use clap::{Parser, Subcommand};
use files::Files;
use quality::Texts;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Results of this program: it only tells the user.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// komt beside llama.cpp and candle: alternating pairs on the same weights.
#[derive(Parser)]
struct Args {
    /// Where models and results are kept; made when it is not there
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/models"))]
    dir: PathBuf,
    /// Layers of the 7B shape
    #[arg(long, default_value_t = 12)]
    layers: usize,
    /// Layers of the 7B shape where 8,192 tokens are read, or candle computes in f32
    #[arg(long, default_value_t = 2)]
    small: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Names of the sections, and their peers
    List,
    /// Makes the files that a section needs; `all`: of every one
    Prepare { section: String },
    /// Measures a section; `all`: every one
    Run {
        section: String,
        /// Only peers whose names contain this
        #[arg(long, default_value = "")]
        peer: String,
        /// Pairs of each
        #[arg(long, default_value_t = 5)]
        pairs: usize,
    },
    /// Prints docs/performance.md
    Page,
    /// Judges the formats on the model in a Hugging Face directory
    Quality {
        /// What it is called on the page
        name: String,
        model: PathBuf,
        /// Texts: pairs of `instruction` and `answer`, JSON, one a line (what tools/demo-model/generate.py writes)
        #[arg(long)]
        jsonl: Option<PathBuf>,
        /// Texts: files. Without any, the model's own, drawn at temperature 1
        #[arg(long)]
        text: Vec<PathBuf>,
        #[arg(long, default_value_t = 20_000)]
        tokens: usize,
    },
    /// Judges the formats on the matrices of a file, safetensors or .pt
    Matrices { name: String, file: PathBuf },
    /// Prints docs/quality.md
    QualityPage,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let files = Files { dir: args.dir.clone() };
    let results = args.dir.join("results");
    std::fs::create_dir_all(&results)?;
    let sections = sections::all(args.layers, args.small);
    let named = |name: &str| -> Result<Vec<&sections::Section>> {
        let found: Vec<_> = sections.iter().filter(|s| name == "all" || s.name == name).collect();
        if found.is_empty() { Err(format!("no section `{name}`: see `list`").into()) } else { Ok(found) }
    };
    match &args.command {
        Command::List => {
            for section in &sections {
                let peers: Vec<_> = section.peers.iter().map(ToString::to_string).collect();
                println!("{:22} {}; {}", section.name, section.work, peers.join(", "));
            }
        }
        Command::Prepare { section } => {
            for section in named(section)? {
                section.prepare(&files, "")?;
            }
        }
        Command::Run { section, peer, pairs } => {
            warn_unless_native();
            for section in named(section)? {
                section.run(&files, *pairs, peer, &mut |name, result| save(&results, name, &result))?;
            }
        }
        Command::Page => print!("{}", page::page(&sections, &results)?),
        Command::Quality { name, model, jsonl, text, tokens } => {
            let texts = match jsonl {
                Some(path) => Texts::Pairs(path),
                None if text.is_empty() => Texts::Drawn,
                None => Texts::Files(text),
            };
            let result = quality::judge(model, &args.dir, name, &texts, *tokens)?;
            write(&results, &format!("quality.{name}"), &result)?;
        }
        Command::Matrices { name, file } => {
            write(&results, &format!("matrices.{name}"), &matrices::judge(file, name)?)?;
        }
        Command::QualityPage => print!("{}", quality_page::page(&results)?),
    }
    Ok(())
}

fn save(results: &Path, name: &str, result: &serde_json::Value) -> Result<()> {
    let pairs = pairs::Pairs::from_json(&result["pairs"]).unwrap_or_default();
    let [least, middle, greatest] = pairs.ratios();
    eprintln!("  {middle:.2} ({least:.2} to {greatest:.2})");
    write(results, name, result)
}

fn write(results: &Path, name: &str, result: &serde_json::Value) -> Result<()> {
    Ok(std::fs::write(results.join(format!("{name}.json")), format!("{result:#}"))?)
}

/// Peers choose their instructions when they are compiled.
fn warn_unless_native() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && !cfg!(target_feature = "avx2") {
        eprintln!("warning: the peers are not compiled for this CPU; run this in benches/peers");
    }
}
