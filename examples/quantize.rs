//! Writes a model with its weights in 8 or 4 bits, as a directory that loads in about no time. Only komt reads q8 and q4; with
//! bf16 it is an ordinary Hugging Face directory.
//!
//! ```text
//! cargo run --release --example quantize -- --model DIR --weights q4 OUT
//! cargo run --release --example generate -- --model OUT
//! ```

use clap::Parser;
use komt_core::{Weights, convert};
use komt_examples::{ModelArgs, Result, exit, note, peak_resident_mib};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Writes a model with its weights in 8 or 4 bits, as a directory that loads in about no time (and that only komt reads).
#[derive(Parser)]
struct Args {
    /// The directory; made when it is not there, refused when a model is in it
    out: PathBuf,
    /// Replaces the model that is in the directory, if it is in one file
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    model: ModelArgs,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    if args.model.weights == Weights::Stored {
        return Err("--weights: expected q8, q4 or bf16".into());
    }
    args.model.cpu_only()?;
    let start = Instant::now();
    let written = args.model.with_files(|dir, options| convert(dir, &args.out, args.force, options))?;
    note(format!(
        "{}: {} weights, {:.3} bits each, {} bytes in all, {:.1} s",
        args.out.display(),
        written.n_weights,
        written.bits_per_weight(),
        written.file_bytes,
        start.elapsed().as_secs_f64()
    ));
    if let Some(mib) = peak_resident_mib() {
        note(format!("peak resident memory: {mib} MiB"));
    }
    Ok(())
}
