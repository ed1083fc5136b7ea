//! Writes a model of a given shape with random weights, in the Hugging Face layout: for speed and memory.
//!
//! ```text
//! cargo run --release --example synth -- --shape mistral-7b OUT
//! cargo run --release --example generate -- --model OUT --ids "1 2 3" --max-new-tokens 8
//! KOMT_BENCH_MODEL=$PWD/OUT cargo bench -p komt-benches --bench model -- decode
//! ```

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use komt_benches::synth::{self, Shape};
use komt_examples::{Result, exit, note};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Writes a model of a given shape with random bf16 weights, as a Hugging Face directory (without a tokenizer).
#[derive(Parser)]
struct Args {
    /// The shape: mistral-7b (14.5 GB, what Mistral-7B-v0.1 is), 1b (2.2 GB) or tiny (10 MB)
    #[arg(long, value_name = "NAME")]
    shape: Shape,
    /// With this number of layers, not the shape's own: a cut
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// The same seed writes the same weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The directory; made when it is not there, refused when a model is in it
    out: PathBuf,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let (start, bar) = (Instant::now(), ProgressBar::no_length());
    bar.set_style(ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} left")?);
    let dims = args.layers.map_or(args.shape.dims(), |n| args.shape.dims().layers(n));
    let written = synth::write_dims(&args.out, &dims, args.seed, &mut |done_bytes, total_bytes| {
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
    });
    bar.finish_and_clear();
    let plan = written?;
    note(format!(
        "{}: {} tensors, {} bytes in {} files, {:.1} s",
        args.out.display(),
        plan.n_tensors(),
        plan.total_bytes(),
        plan.shards.len(),
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}
