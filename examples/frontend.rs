//! What a front end does: the engine lives on a thread of its own, requests go in and tokens come out over channels, and
//! whoever knows a request's number can cancel it. The users here are two threads that print; in a server they are
//! connections. A user that goes away (its receiver is dropped) is cancelled as well.
//!
//! ```text
//! cargo run --release --example frontend
//! ```

use clap::Parser;
use komt_core::{Engine, Event, GenerateOptions, Message, SeqId};
use komt_examples::{GenerateArgs, ModelArgs, Result, exit};
use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

/// Two users of one engine at once; the second one's answer is cancelled midway.
#[derive(Parser)]
struct Args {
    /// What A asks
    #[arg(default_value = "제주도를 1박2일로 혼자 여행하려고 하는데 여행 코스를 만들어줘")]
    a: String,
    /// What B asks
    #[arg(default_value = "부산을 2박3일로 가족과 여행하려고 하는데 여행 코스를 만들어줘")]
    b: String,
    /// Cancels B's answer after N tokens
    #[arg(long, value_name = "N", default_value_t = 24)]
    cancel_after: usize,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    generate: GenerateArgs,
}

enum Request {
    /// A prompt, where its number is to go, and where its events.
    Generate(Vec<u32>, GenerateOptions, Sender<komt_core::Result<SeqId>>, Sender<Event>),
    Cancel(SeqId),
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let model = args.model.load()?;
    let engine = args.generate.engine(&model)?;
    let (requests, inbox) = channel();
    let server = thread::spawn(move || serve(engine, &inbox));
    let (tell, told) = channel();
    let mut users = vec![];
    for (label, text) in [("A", &args.a), ("B", &args.b)] {
        let prompt = args.generate.template.prompt_ids(model.tokenizer()?, &[Message::user(text)])?;
        let ((seq, number), (events, answer)) = (channel(), channel());
        requests.send(Request::Generate(prompt, args.generate.options(&model), seq, events))?;
        let Ok(submitted) = number.recv() else { break }; // The engine's thread has ended: `join` tells why.
        let (seq, tell) = (submitted?, tell.clone());
        users.push((seq, thread::spawn(move || show(label, &answer, &tell))));
    }
    drop(tell);
    // Somebody else listens in, and has had enough of B.
    if told.iter().filter(|&label| label == "B").nth(args.cancel_after.saturating_sub(1)).is_some() {
        let _ = requests.send(Request::Cancel(users[1].0));
    }
    for (_, user) in users {
        user.join().map_err(|_| "a user's thread panicked")??;
    }
    drop(requests); // The server's inbox closes: it ends.
    Ok(server.join().map_err(|_| "the engine's thread panicked")??)
}

/// The engine's thread: takes requests between steps, and waits for them only when it is idle. A failed step is tried again.
fn serve(mut engine: Engine, inbox: &Receiver<Request>) -> komt_core::Result<()> {
    let mut users: HashMap<SeqId, Sender<Event>> = HashMap::new();
    loop {
        let wait = || inbox.recv().map_err(|_| TryRecvError::Disconnected);
        match if engine.is_idle() { wait() } else { inbox.try_recv() } {
            Ok(Request::Generate(prompt, options, seq, events)) => {
                let submitted = engine.submit(&prompt, options);
                users.extend(submitted.iter().map(|&seq| (seq, events.clone())));
                let _ = seq.send(submitted);
                continue; // There may be more: they join the same step.
            }
            Ok(Request::Cancel(seq)) => engine.cancel(seq),
            Err(TryRecvError::Disconnected) if engine.is_idle() => return Ok(()),
            Err(_) => {}
        }
        for event in engine.step().or_else(|_| engine.step())? {
            let (seq, is_last) = (event.seq(), !matches!(event, Event::Token { .. }));
            if users.get(&seq).is_some_and(|user| user.send(event).is_err()) {
                engine.cancel(seq); // Its user went away.
            }
            if is_last {
                users.remove(&seq);
            }
        }
    }
}

/// A user: prints its answer, a few words at a time, and tells of every token.
fn show(label: &'static str, answer: &Receiver<Event>, tell: &Sender<&'static str>) -> std::io::Result<()> {
    let mut line = String::new();
    for event in answer {
        let is_last = !matches!(event, Event::Token { .. });
        line += &match event {
            Event::Token { token, .. } => token.text.replace('\n', " / "),
            Event::Done { reason, tail, .. } => format!("{tail} [{reason}]"),
            Event::Failed { error, .. } => format!(" [{error}]"),
            other => format!(" [{other:?}]"),
        };
        if is_last || line.chars().count() >= 30 {
            writeln!(std::io::stdout(), "{label}: {}", line.trim())?;
            line.clear();
        }
        let _ = tell.send(label);
    }
    Ok(())
}
