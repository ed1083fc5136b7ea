//! A conversation in the terminal. Ctrl-C stops an answer, Ctrl-D or /quit ends the program.
//!
//! ```text
//! cargo run --release --example chat
//! ```
//!
//! Each turn uses the cache of the turns before it: only what is new goes through the model.

use clap::Parser;
use komt_core::{Canceller, Error, Session, SharedEngine};
use komt_examples::{GenerateArgs, ModelArgs, Result, exit, note};
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What stops the answer that is being generated, while one is.
fn answering() -> MutexGuard<'static, Option<Canceller>> {
    static ANSWERING: Mutex<Option<Canceller>> = Mutex::new(None);
    ANSWERING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A conversation in the terminal. Ctrl-C stops an answer, /reset forgets the conversation, Ctrl-D or /quit ends.
#[derive(Parser)]
struct Args {
    /// Instructions in front of the conversation, where the template has a place for them
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    generate: GenerateArgs,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let model = args.model.load()?;
    let engine = SharedEngine::new(args.generate.engine(&model)?);
    let begin = || -> Result<Session> {
        let (options, template) = (args.generate.options(&model), args.generate.template.clone());
        let session = engine.session().with_options(options).with_template(template);
        Ok(match &args.system {
            Some(text) => session.with_system(text)?,
            None => session,
        })
    };
    let mut session = begin()?;
    ctrlc::set_handler(|| match answering().take() {
        Some(answer) => answer.cancel(),
        None => note("\n(Ctrl-D or /quit ends)"),
    })?;
    note("Ctrl-C stops an answer, /reset forgets the conversation, Ctrl-D or /quit ends.");
    loop {
        if std::io::stdin().is_terminal() {
            write!(std::io::stderr(), "> ")?;
        }
        let mut line = vec![];
        if std::io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line);
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/reset" => session = begin()?,
            text => answer(&mut session, text)?,
        }
    }
}

/// Prints one answer as it comes. What goes wrong with a turn is told, and the conversation goes on.
fn answer(session: &mut Session, text: &str) -> Result<()> {
    if let Err(error) = session.say(text) {
        let hint =
            if matches!(error, Error::TooLong { .. }) { " (/reset forgets the conversation)" } else { "" };
        note(format!("error: {error}{hint}"));
        return Ok(());
    }
    *answering() = Some(session.canceller());
    let mut out = std::io::stdout();
    for token in session.by_ref() {
        match token {
            Ok(token) => write!(out, "{}", token.text)?,
            Err(error) => note(format!("error: {error}")),
        }
        out.flush()?;
    }
    *answering() = None;
    writeln!(out)?;
    if let Some(reason) = session.finish_reason() {
        note(format!("[{reason}]"));
    }
    Ok(())
}
