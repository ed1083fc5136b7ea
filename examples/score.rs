//! How likely a model thinks a text is: ln p of each token after those before it, and the perplexity of all.
//!
//! ```text
//! cargo run --release --example score -- "제주도는 한국에서 가장 큰 섬입니다."
//! cargo run --release --example score -- --model DIR --file article.txt --quiet
//! ```

use clap::Parser;
use komt_core::{ScoreOptions, Scorer};
use komt_examples::{KvArgs, ModelArgs, Result, exit, read_text};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How likely a model thinks a text is: ln p of each token after those before it, and the perplexity of all.
#[derive(Parser)]
struct Args {
    /// The text [default: standard input]
    text: Option<String>,
    /// Reads the text from a file; `-` is standard input
    #[arg(long, conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Prints the perplexity and nothing else
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    kv: KvArgs,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let text = match &args.text {
        Some(text) => text.clone(),
        None => read_text(args.file.as_deref().unwrap_or(Path::new("-")))?,
    };
    let model = args.model.load()?;
    let tokenizer = model.tokenizer()?;
    let mut options = ScoreOptions::default();
    options.kv_format = args.kv.format();
    let score = Scorer::with(&model, options)?.score(&text)?;
    let perplexity = score.perplexity().ok_or("the text is one token, and nothing predicts the first")?;
    let mut out = std::io::stdout();
    if args.quiet {
        writeln!(out, "{perplexity}")?;
        return Ok(());
    }
    // Nothing predicts the first token.
    let logprobs = std::iter::once(None).chain(score.logprobs.iter().map(Some));
    writeln!(out, "      id      ln p  token")?;
    for (&id, logprob) in score.ids.iter().zip(logprobs) {
        let logprob = logprob.map_or("-".into(), |logprob| format!("{logprob:.4}"));
        writeln!(out, "{id:>8} {logprob:>9}  {}", tokenizer.token(id).unwrap_or_default())?;
    }
    writeln!(out, "{} tokens, ln p {:.4}, perplexity {perplexity:.4}", score.ids.len(), score.logprob())?;
    Ok(())
}
