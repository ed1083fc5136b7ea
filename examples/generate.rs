//! Text generation: one prompt, one answer, as it comes.
//!
//! ```text
//! cargo run --release --example generate
//! cargo run --release --example generate -- --model DIR --card --seed 7 "서울에서 부산까지 어떻게 가나요?"
//! echo "Once upon a time" | cargo run --release --example generate -- --model DIR --raw -
//! ```

use clap::Parser;
use komt_core::{Message, SharedEngine, Token, Tokenizer};
use komt_examples::{
    GenerateArgs, ModelArgs, Result, encode, exit, note, parse_ids, peak_resident_mib, read_text,
};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const REAL_THING: &str = "
This was the demo model, a few megabytes that show the pipeline working. The real thing:
  cargo run --release --example generate -- --model DIR
  cargo run --release --features hub --example generate -- --hub davidkim205/komt-mistral-7b-v1";

/// Generates text: one prompt, one answer, as it comes.
#[derive(Parser)]
struct Args {
    /// The prompt; `-` reads it from standard input
    #[arg(
        conflicts_with = "ids",
        default_value = "제주도를 1박2일로 혼자 여행하려고 하는데 여행 코스를 만들어줘"
    )]
    prompt: String,
    /// Gives the prompt to the model as it is, without a template
    #[arg(long)]
    raw: bool,
    /// Token ids instead of a prompt, or a file of them; prints ids where the model has no tokenizer
    #[arg(long, conflicts_with = "raw")]
    ids: Option<String>,
    /// Prints one token a line, with ln p of it and of the N likeliest
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    generate: GenerateArgs,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let prompt = match args.prompt.as_str() {
        "-" => read_text(Path::new("-"))?.trim_end_matches(['\r', '\n']).to_owned(),
        prompt => prompt.to_owned(),
    };
    let model = args.model.load()?;
    let tokenizer = model.tokenizer();
    let ids = match &args.ids {
        Some(ids) => parse_ids(ids)?,
        None if args.raw => encode(model.tokenizer()?, &prompt)?,
        None => args.generate.template.prompt_ids(model.tokenizer()?, &[Message::user(prompt)])?,
    };
    let mut options = args.generate.options(&model);
    options.logprobs = args.logprobs;

    let engine = SharedEngine::new(args.generate.engine(&model)?);
    let mut session = engine.session().with_options(options);
    let answer = session.push_ids(&ids)?;
    let mut out = std::io::stdout();
    let (start, mut to_first, mut n_tokens) = (Instant::now(), Duration::ZERO, 0);
    for token in answer {
        let token = token?;
        match (args.logprobs, &tokenizer) {
            (Some(_), _) => writeln!(out, "{}", with_logprobs(tokenizer.as_ref().ok().copied(), &token))?,
            (None, Ok(_)) => write!(out, "{}", token.text)?,
            (None, Err(_)) => write!(out, "{} ", token.id)?,
        }
        out.flush()?;
        n_tokens += 1;
        if n_tokens == 1 {
            to_first = start.elapsed();
        }
    }
    if args.logprobs.is_none() {
        writeln!(out)?;
    }

    let rate = |n: usize, time: Duration| n as f64 / time.as_secs_f64().max(1e-9);
    let reason = session.finish_reason().map(|reason| reason.to_string()).unwrap_or_default();
    note(format!(
        "finish reason: {reason}, {n_tokens} tokens; prompt: {} tokens, {:.0} tokens/s; decoding: {:.1} tokens/s",
        ids.len(),
        rate(ids.len(), to_first),
        rate(n_tokens - 1, start.elapsed() - to_first)
    ));
    if let Some(mib) = peak_resident_mib() {
        let plan = model.memory_plan(&args.generate.engine_options())?.total_bytes() >> 20;
        note(format!("peak resident memory: {mib} MiB; the plan was {plan} MiB"));
    }
    if args.model.is_demo() {
        note(REAL_THING);
    }
    Ok(())
}

/// `-0.0123  ▁the    -0.0123 ▁the  -5.4321 ▁a`
fn with_logprobs(tokenizer: Option<&Tokenizer>, token: &Token) -> String {
    let show = |(id, logprob): (u32, f32)| {
        format!("{logprob:>8.4} {}", tokenizer.and_then(|t| t.token(id)).unwrap_or_else(|| id.to_string()))
    };
    let top: Vec<String> = token.top.iter().copied().map(show).collect();
    format!("{:<24}  {}", show((token.id, token.logprob.unwrap_or(f32::NAN))), top.join("  "))
}
