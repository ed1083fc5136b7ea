//! Semantic search: the lines of a text file that are closest to a query.
//!
//! ```text
//! cargo run --release --example embed -- README.md "how do I generate text?"
//! cargo run --release --example embed -- --model DIR --pooling last --eos \
//!     --instruction "Instruct: find the passage that answers the question\nQuery: " notes.txt "언제 가나요?"
//! ```
//!
//! The mean of all tokens is what serves models that nobody trained for embeddings. Those that were say in their card how
//! they want it: mostly the last token, after EOS, with an instruction in front of queries (not of passages).

use clap::{Parser, ValueEnum};
use komt_core::{EmbedOptions, Embedder, Error, Pooling};
use komt_examples::{KvArgs, ModelArgs, Result, exit, note, read_text};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Semantic search: the lines of a text file that are closest to a query, with their cosines.
#[derive(Parser)]
struct Args {
    /// The text file; `-` is standard input
    file: PathBuf,
    /// What to look for
    query: String,
    /// Lines to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
    /// How the tokens' vectors become one
    #[arg(long, value_enum, default_value = "mean")]
    pooling: Pool,
    /// Text in front of the query
    #[arg(long, value_name = "TEXT", default_value = "")]
    instruction: String,
    /// Leaves the instruction out of the pooling
    #[arg(long)]
    exclude_instruction: bool,
    /// Puts the end-of-text token behind every text
    #[arg(long)]
    eos: bool,
    /// Keeps only the first N dimensions
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    kv: KvArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Pool {
    Last,
    Mean,
    WeightedMean,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let text = read_text(&args.file)?;
    let lines: Vec<(usize, &str)> =
        (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err(format!("{}: expected lines of text, found none", args.file.display()).into());
    }
    let model = args.model.load()?;
    let pooling = match args.pooling {
        Pool::Last => Pooling::Last,
        Pool::Mean => Pooling::Mean,
        Pool::WeightedMean => Pooling::WeightedMean,
    };
    let mut options = EmbedOptions::default().pooling(pooling).eos(args.eos);
    options.kv_format = args.kv.format();
    let mut options = options.exclude_instruction(args.exclude_instruction);
    options.dimensions = args.dimensions;
    let embedder = Embedder::new(&model, options)?;

    let start = Instant::now();
    let texts: Vec<&str> = lines.iter().map(|&(_, line)| line).collect();
    let vectors = embedder.embed(&texts).map_err(|error| match error {
        Error::Text { text, source } => format!("{}, line {}: {source}", args.file.display(), lines[text].0),
        error => error.to_string(),
    })?;
    let query = embedder.embed_with(&args.instruction, &[&args.query])?.remove(0);
    note(format!("{} lines in {:.2} s", lines.len(), start.elapsed().as_secs_f64()));

    // The vectors have length 1: their product is the cosine.
    let cosine = |vector: &Vec<f32>| query.iter().zip(vector).map(|(a, b)| a * b).sum::<f32>();
    let mut scored: Vec<(f32, (usize, &str))> = vectors.iter().map(cosine).zip(lines).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut out = std::io::stdout();
    for (score, (number, line)) in scored.into_iter().take(args.top) {
        writeln!(out, "{score:7.4}  {number:>5}  {line}")?;
    }
    Ok(())
}
