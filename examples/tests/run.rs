//! The examples, run as a user runs them: what they print, how they end, and what they say when something is wrong.
#![allow(clippy::unwrap_used)]

mod support;

use komt_core::{LoadOptions, Model, Scorer};
use safetensors::{Dtype, SafeTensors};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use support::*;

const NAMES: [&str; 8] = ["generate", "chat", "embed", "score", "frontend", "logits", "synth", "quantize"];
const JEJU: &str = "제주도를 1박2일로 혼자 여행하려고 하는데 여행 코스를 만들어줘";

fn start(name: &str, args: &[&str]) -> Child {
    example(name).args(args).stdin(Stdio::piped()).spawn().unwrap()
}

fn demo() -> Model {
    Model::load(repository().join("demo-model"), LoadOptions::default()).unwrap()
}

/// The number in front of ` tokens;` of `finish reason: end of text, 189 tokens; prompt: ...`.
fn n_tokens(err: &str) -> usize {
    let line = err.lines().find(|line| line.starts_with("finish reason: ")).unwrap();
    line.split_once(" tokens;").unwrap().0.rsplit(' ').next().unwrap().parse().unwrap()
}

fn is_hangul(c: char) -> bool {
    ('가'..='힣').contains(&c)
}

#[test]
fn help_and_size_of_every_example() {
    for name in NAMES {
        let (out, _) = good(name, &["--help"]);
        let flag = if name == "synth" { "--shape" } else { "--model <DIR>" };
        assert!(out.contains("Usage:") && out.contains(flag), "{name}: {out}");
        let source = std::fs::read_to_string(repository().join(format!("examples/{name}.rs"))).unwrap();
        assert!(source.lines().count() < 120, "{name}.rs: short enough to copy from");
    }
}

#[test]
fn generate_without_arguments_answers_the_cards_prompt_beyond_its_window() {
    let (out, err) = good("generate", &[]);
    assert!(out.chars().filter(|&c| is_hangul(c)).count() > 50, "a Korean answer: {out}");
    assert!(!out.contains('\u{FFFD}'), "whole characters: {out}");
    assert!(err.contains("finish reason: "), "{err}");
    assert!(n_tokens(&err) > demo().config().window.unwrap(), "longer than the window: {err}");
    // Where it runs, what it takes, and how to run the real thing.
    for said in ["CPU (", "KV cache", "--model DIR", "--features hub", "--hub davidkim205/komt-mistral-7b-v1"]
    {
        assert!(err.contains(said), "{said}: {err}");
    }
    // The prompt is the default, and the demo model is found from anywhere.
    let elsewhere = example("generate").arg(JEJU).current_dir(std::env::temp_dir()).output().unwrap();
    assert_eq!(told("elsewhere", elsewhere).0, out);
}

/// `cargo run` puts the build's directories on the library path, and cudarc looks for `libcuda.so` there first.
#[cfg(target_os = "linux")]
#[test]
fn the_software_gpu_is_not_a_device_by_accident() {
    let gpu = komt_softgpu::SoftGpu::load().unwrap();
    let deps = gpu.path().parent().unwrap();
    let searched = format!("{}:{}", deps.parent().unwrap().display(), deps.display());
    let run =
        |args: &[&str]| example("generate").args(args).env("LD_LIBRARY_PATH", &searched).output().unwrap();
    let (_, err) = told("generate", run(&["--max-new-tokens", "2"]));
    let on = err.split_once(" s, on ").map(|(_, on)| on).unwrap();
    assert!(!on.contains("software"), "{err}");
    if !Path::new("/dev/nvidiactl").exists() && !Path::new("/dev/dxg").exists() {
        // Not merely without a compiler: without a driver.
        assert!(on.starts_with("CPU (") && on.contains("no driver"), "{err}");
        let output = run(&["--max-new-tokens", "2", "--device", "cuda"]);
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && err.contains("error: CUDA: no driver"), "{err}");
    }
}

#[test]
fn generate_streams() {
    // A busy machine may let this test sleep until the answer is whole. It will not do so every time.
    let streamed = (0..5).any(|_| {
        let mut child = start("generate", &["--ignore-eos", "--max-new-tokens", "800"]);
        let (mut out, mut first, mut rest) = (child.stdout.take().unwrap(), [0; 1 << 16], vec![]);
        let n_first = out.read(&mut first).unwrap();
        out.read_to_end(&mut rest).unwrap();
        assert!(child.wait_with_output().unwrap().status.success());
        n_first < rest.len() / 2
    });
    assert!(streamed, "the first of it comes before the rest");
}

#[test]
fn generate_draws_by_seed() {
    let text = |seed| good("generate", &["--temperature", "1", "--max-new-tokens", "40", "--seed", seed]).0;
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
}

#[test]
fn generate_takes_its_options() {
    // The answer to a prompt on standard input, as it is, on the scalar reference.
    let mut child =
        start("generate", &["--raw", "--isa", "scalar", "--threads", "1", "--max-new-tokens", "12", "-"]);
    child.stdin.take().unwrap().write_all(format!("[INST]{JEJU} [/INST]\n").as_bytes()).unwrap();
    let (raw, err) = told("raw", child.wait_with_output().unwrap());
    assert!(err.contains("Scalar, 1 threads"), "{err}");
    assert_eq!(n_tokens(&err), 12);
    let (templated, _) = good("generate", &["--max-new-tokens", "12"]);
    assert_eq!(raw, templated, "the komt template is [INST]{{x}} [/INST]");
    // A stop string ends the answer, and is not part of it.
    let word = templated.split_whitespace().nth(2).unwrap();
    let (stopped, err) = good("generate", &["--stop", "no such text", "--stop", word]);
    assert!(err.contains("finish reason: stop string") && !stopped.contains(word), "{stopped} {err}");
    assert!(templated.starts_with(stopped.trim_end()), "{stopped}");
    // A token a line: its own ln p, and that of the two likeliest. It is greedy: the first of these.
    let (lines, _) = good("generate", &["--max-new-tokens", "5", "--logprobs", "2"]);
    assert_eq!(lines.lines().count(), 5, "{lines}");
    for line in lines.lines() {
        let numbers: Vec<f32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(numbers.len() >= 3 && numbers[0] <= 0.0, "{line}");
    }
    let (_, err) = good("generate", &["--card", "--max-new-tokens", "3", "--presence-penalty", "-0.5"]);
    assert_eq!(n_tokens(&err), 3);
}

/// What was quantised while loading, and what was before: the same answer, and the plan says what it takes.
#[test]
fn quantize_writes_what_generate_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut plans = vec![];
    for weights in ["bf16", "q8", "q4"] {
        let out = dir.path().join(weights);
        let out = out.to_str().unwrap();
        let (_, err) = good("quantize", &["--weights", weights, out]);
        assert!(err.contains("bits each"), "{err}");
        let args = ["--max-new-tokens", "12", "--precision", "exact"];
        let (mapped, err) = good("generate", &[&args[..], &["--model", out]].concat());
        let (copied, _) = good("generate", &[&args[..], &["--model", out, "--no-map"]].concat());
        let (loaded, _) = good("generate", &[&args[..], &["--weights", weights]].concat());
        assert_eq!((&mapped, &copied), (&loaded, &loaded), "{weights}");
        plans.push(
            err.split_once("weights ").unwrap().1.split_once(" MiB").unwrap().0.parse::<f64>().unwrap(),
        );
        let output = run("quantize", &["--weights", weights, out]);
        assert_eq!(output.status.code(), Some(1), "a second time");
        good("quantize", &["--weights", weights, "--force", out]);
    }
    assert!(plans[1] < 0.56 * plans[0] && plans[2] < 0.9 * plans[1], "{plans:?}");
}

/// A model without a tokenizer, as `synth` writes it: ids in, ids out.
#[test]
fn generate_takes_token_ids() {
    let model = repository().join("testdata/models/head64");
    let args = ["--model", model.to_str().unwrap(), "--ids", "1 2 3", "--max-new-tokens", "8"];
    let (out, err) = good("generate", &args);
    assert_eq!(out.split_whitespace().filter_map(|id| id.parse::<u32>().ok()).count(), 8, "{out}");
    assert!(err.contains("peak resident memory: ") || !cfg!(target_os = "linux"), "{err}");
    let (lines, _) = good("generate", &[&args[..], &["--logprobs", "1", "--logit-bias", "5=1e4"]].concat());
    assert!(
        lines.lines().all(|line| line.ends_with(|c: char| c.is_ascii_digit())) && lines.contains(" 5"),
        "{lines}"
    );
}

#[test]
fn what_is_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.txt");
    std::fs::write(&empty, "\n\n").unwrap();
    let empty = empty.to_str().unwrap();
    let long = "가나다 ".repeat(3000);
    let cases: &[(&str, &[&str], &str)] = &[
        ("generate", &["--nonsense"], "--nonsense"),
        ("generate", &["--model", "/no/such/model"], "/no/such/model/config.json"),
        ("generate", &["--model", "tools"], "config.json"),
        ("generate", &["--template", "alpaca"], "komt-llama2"),
        ("generate", &["--template", "jinja", "--model", "testdata/models/head64"], "tokenizer"),
        ("generate", &["--weights", "q5"], "bf16"),
        ("quantize", &["out"], "--weights"),
        ("quantize", &["--weights", "q4", "--device", "cuda:0", "out"], "on the CPU only"),
        (
            "quantize",
            &["--weights", "q4", "--model", "demo-model", "demo-model"],
            "another than the model's own",
        ),
        ("quantize", &["--weights", "q4", "--model", "/no/such/model", "out"], "/no/such/model/config.json"),
        ("generate", &["--isa", "mmx"], "avx512"),
        ("generate", &["--threads", "0"], "expected 1 to 1024, found 0"),
        ("generate", &["--logit-bias", "x"], "expected a token id"),
        ("generate", &["--ids", "1 x"], "is not a token id"),
        ("generate", &["--max-context", "1"], "max_context"),
        ("generate", &["--temperature", "warm"], "--temperature"),
        ("generate", &["--temperature", "-1"], "temperature"),
        ("generate", &["--temperature", "1", "--top-p", "1.5"], "top_p"),
        ("generate", &["--repetition-penalty", "0"], "repetition_penalty"),
        ("generate", &["--max-new-tokens", "0"], "max_new_tokens"),
        ("generate", &["--logprobs", "100000"], "logprobs"),
        ("generate", &["--stop", ""], "stop"),
        ("generate", &["--revision", "main"], "--hub"),
        ("generate", &["--hub", "a/b", "--model", "demo-model"], "--model"),
        ("generate", &[&long], "at most"),
        ("embed", &["/no/such/file", "query"], "/no/such/file"),
        ("embed", &["/no/such/file"], "QUERY"),
        ("embed", &[empty, "query"], "none"),
        ("embed", &["README.md", "query", "--pooling", "max"], "weighted-mean"),
        ("embed", &["README.md", "query", "--dimensions", "100000"], "dimensions"),
        ("score", &[""], "one token"),
        ("score", &["--file", "/no/such/file"], "/no/such/file"),
        ("frontend", &["--max-new-tokens", "0"], "max_new_tokens"),
        ("logits", &["out.safetensors"], "--ids"),
        ("logits", &["out.safetensors", "--ids", "1 x"], "\"x\""),
        ("logits", &["out.safetensors", "--ids", "1 99999"], "99999"),
        ("logits", &["out.safetensors", "--ids", " "], "empty"),
        ("logits", &["/no/such/dir/out.safetensors", "--ids", "1"], "/no/such/dir"),
        ("logits", &["o.safetensors", "--text", "a", "--model", "testdata/models/head64"], "tokenizer.json"),
    ];
    for (name, args, said) in cases {
        let output = run(name, args);
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{name} {args:?} fails");
        assert!(matches!(output.status.code(), Some(1 | 2)), "{name} {args:?}: {}", output.status);
        let message = err.find("error: ").map(|at| &err[at..]);
        assert!(message.is_some_and(|message| message.contains(said)), "{name} {args:?}: {said}: {err}");
        assert!(!err.contains("panicked") && !err.contains("RUST_BACKTRACE"), "{name} {args:?}: {err}");
        assert!(output.stdout.is_empty(), "{name} {args:?}: nothing on standard output");
    }
}

#[cfg(not(feature = "hub"))]
#[test]
fn hub_without_the_feature_says_how_to_build_it() {
    let err = String::from_utf8(run("generate", &["--hub", "a/b"]).stderr).unwrap();
    assert!(err.contains("error: --hub a/b") && err.contains("--features hub"), "{err}");
}

/// From the hub's cache: the hub's own tests see to downloads.
#[cfg(feature = "hub")]
#[test]
fn hub_models_come_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let repo = cache.path().join("models--a--b");
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::create_dir_all(repo.join("snapshots/1234")).unwrap();
    std::fs::write(repo.join("refs/main"), "1234").unwrap();
    for file in std::fs::read_dir(repository().join("demo-model")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), repo.join("snapshots/1234").join(file.file_name())).unwrap();
    }
    let hub = |name: &str, args: &[&str]| {
        let mut command = example(name);
        command.env("HF_HUB_CACHE", cache.path()).env("HF_HUB_OFFLINE", "1").args(args).output().unwrap()
    };
    let (text, err) = told("hub", hub("generate", &["--hub", "a/b"]));
    assert_eq!(text, good("generate", &[]).0);
    assert!(!err.contains("demo model"), "{err}");
    let out = cache.path().join("out.safetensors");
    told("hub", hub("logits", &["--hub", "a/b", "--revision", "1234", "--ids", "1", out.to_str().unwrap()]));
    for args in [["--hub", "a/c"], ["--hub", "nonsense"]] {
        let output = hub("generate", &args);
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(1) && err.contains(&format!("error: hub: {}", args[1])),
            "{err}"
        );
    }
}

#[test]
fn nobody_reads_any_more_and_nobody_panics() {
    let cases: [(&str, &[&str]); 5] = [
        ("generate", &[]),
        ("chat", &[]),
        ("frontend", &[]),
        ("score", &["제주도는 섬입니다."]),
        ("embed", &["demo-model/README.md", "weights"]),
    ];
    for (name, args) in cases {
        let mut child = start(name, args);
        drop(child.stdout.take());
        child.stdin.take().unwrap().write_all("안녕하세요\n".as_bytes()).ok();
        let (_, err) = told(name, child.wait_with_output().unwrap());
        assert!(!err.contains("panicked"), "{name}: {err}");

        let mut child = start(name, args);
        drop(child.stderr.take());
        child.stdin.take().unwrap().write_all("안녕하세요\n".as_bytes()).ok();
        let (out, _) = told(name, child.wait_with_output().unwrap());
        assert!(!out.is_empty(), "{name}: what it prints does not depend on what it notes");
    }
}

#[test]
fn chat_has_turns_and_forgets_on_request() {
    let mut child = start("chat", &["--max-new-tokens", "40"]);
    let lines = format!("{JEJU}\n고마워\n/reset\n\n{JEJU}\n/quit\n부산은?\n");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let (out, err) = told("chat", child.wait_with_output().unwrap());
    assert_eq!(err.lines().filter(|line| line.starts_with('[')).count(), 3, "three answers: {err}");
    let mut once = start("chat", &["--max-new-tokens", "40"]);
    once.stdin.take().unwrap().write_all(JEJU.as_bytes()).unwrap();
    let (once, _) = told("chat", once.wait_with_output().unwrap());
    assert!(out.starts_with(&once) && out.ends_with(&once), "after /reset as at the beginning: {out}");
    assert!(out.len() > 2 * once.len(), "the second turn was answered: {out}");
}

#[test]
fn chat_tells_what_is_wrong_and_goes_on() {
    let mut child =
        start("chat", &["--template", "mistral", "--max-new-tokens", "10", "--system", "Be brief."]);
    child.stdin.take().unwrap().write_all("안녕하세요\n안녕하세요\n".as_bytes()).unwrap();
    let (out, err) = told("chat", child.wait_with_output().unwrap());
    assert_eq!(err.matches("error: ").count(), 2, "the template has no place for a system message: {err}");
    assert!(out.is_empty(), "{out}");
}

#[cfg(unix)]
#[test]
fn interrupting_chat_stops_the_answer_and_not_the_program() {
    let interrupt = |child: &Child| {
        let kill = format!("kill -INT {}", child.id()); // a shell's own: not every system has the program
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    };
    // An answer of seconds, to be interrupted as soon as it has begun.
    let mut child = start("chat", &["--isa", "scalar", "--ignore-eos", "--max-new-tokens", "900"]);
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut noted =
        |mark: char| stderr.find_map(|line| line.ok().filter(|line| line.starts_with(mark))).unwrap();
    writeln!(stdin, "{JEJU}").unwrap();
    assert!(stdout.read(&mut [0; 4096]).unwrap() > 0);
    interrupt(&child);
    assert_eq!(noted('['), "[cancelled]");
    // Between answers it only says how to end.
    interrupt(&child);
    assert_eq!(noted('('), "(Ctrl-D or /quit ends)");
    // The conversation goes on, until there is no more of it.
    writeln!(stdin, "고마워").unwrap();
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(
        ["[as many tokens as allowed]", "[the context is full]"].contains(&noted('[').as_str()),
        "it was not stopped"
    );
    assert!(rest.len() > 1000, "{rest}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn embed_finds_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines.txt");
    let lines =
        "제주도에 가면 한라산에 올라가 보세요.\n\nHow do I make kimchi stew?\n부산에서는 회를 먹습니다.\n";
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    for pooling in ["mean", "last", "weighted-mean"] {
        let args = [file, "How do I make kimchi stew?", "--pooling", pooling, "--top", "2"];
        let (out, _) = good("embed", &args);
        let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 2, "{out}");
        assert_eq!(rows[0][1..].join(" "), "3 How do I make kimchi stew?", "{out}");
        let scores: Vec<f32> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
        assert!((scores[0] - 1.0).abs() < 1e-3 && scores[1] < scores[0], "{scores:?}");
    }
    // From standard input; an instruction changes the query's vector, not the lines'.
    let mut child =
        start("embed", &["-", "부산", "--instruction", "Find a line about: ", "--eos", "--dimensions", "64"]);
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert_eq!(told("embed", child.wait_with_output().unwrap()).0.lines().count(), 3);
}

#[test]
fn score_says_what_the_scorer_says() {
    let text = "제주도는 한국에서 가장 큰 섬입니다.";
    let score = Scorer::new(&demo(), None).unwrap().score(text).unwrap();
    let (quiet, _) = good("score", &[text, "--quiet"]);
    let perplexity: f64 = quiet.trim().parse().unwrap();
    assert!(perplexity.is_finite() && perplexity > 1.0);
    assert_eq!(perplexity, score.perplexity().unwrap());
    let (table, _) = good("score", &[text]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), score.ids.len() + 2, "a heading, the tokens, the sum: {table}");
    for (i, (row, id)) in rows[1..].iter().zip(&score.ids).enumerate() {
        assert_eq!(row[0], id.to_string());
        let logprob = i.checked_sub(1).map_or("-".into(), |i| format!("{:.4}", score.logprobs[i]));
        assert_eq!(row[1], logprob);
    }
    assert!(table.trim_end().ends_with(&format!("perplexity {:.4}", score.perplexity().unwrap())), "{table}");
}

#[test]
fn frontend_serves_two_and_cancels_one() {
    // The scalar reference takes its time: what is cancelled midway is not at its end.
    let (out, _) = good("frontend", &["--isa", "scalar"]);
    let of = |label: &str| out.lines().filter(|line| line.starts_with(label)).collect::<Vec<_>>();
    let (a, b) = (of("A: "), of("B: "));
    assert_eq!(a.len() + b.len(), out.lines().count(), "every line has a label: {out}");
    assert!(
        a.len() > 2 && a.last().unwrap().ends_with("[end of text]")
            || a.last().unwrap().ends_with("[as many tokens as allowed]"),
        "{out}"
    );
    assert!(b.len() > 1 && b.last().unwrap().ends_with("[cancelled]"), "{out}");
    let first_b = out.lines().position(|line| line.starts_with("B: ")).unwrap();
    let last_a = out.lines().collect::<Vec<_>>().iter().rposition(|line| line.starts_with("A: ")).unwrap();
    assert!(first_b < last_a, "both at once: {out}");
    // What A is told does not depend on B.
    let answer: String = a.iter().map(|line| line[3..].trim()).collect();
    let (alone, _) = good("generate", &["--isa", "scalar"]);
    let letters =
        |text: &str| text.chars().filter(|&c| is_hangul(c) || c.is_ascii_digit()).collect::<String>();
    assert_eq!(letters(&answer), letters(&alone));
    // Nobody is cancelled when the answers are shorter than that.
    let (out, _) = good("frontend", &["--max-new-tokens", "5"]);
    assert_eq!(out.matches("[as many tokens as allowed]").count(), 2, "{out}");
}

/// `(name, shape)` of a file's tensors, and their numbers.
struct Tensors(Vec<u8>);

impl Tensors {
    fn read(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            SafeTensors::deserialize(&self.0).unwrap().names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }
    fn f32(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, shape), "{name}");
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
    fn ids(&self, name: &str) -> Vec<u32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    }
}

#[test]
fn logits_writes_what_the_scorer_shows() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.safetensors");
    let text = format!("[INST]{JEJU} [/INST] ").repeat(8); // more than a step of the scorer
    good("logits", &[file.to_str().unwrap(), "--text", &text]);
    let (model, tensors) = (demo(), Tensors::read(&file));
    assert_eq!(tensors.names(), ["input_ids", "logits"]);
    let ids = tensors.ids("input_ids");
    assert_eq!(ids, model.tokenizer().unwrap().encode_with_bos(&text).unwrap());
    assert!(ids.len() > 128);
    let mut want = vec![];
    let scorer = Scorer::new(&model, None).unwrap();
    scorer.each_logits(ids.clone(), |_, row| want.extend_from_slice(row)).unwrap();
    assert!(tensors.f32("logits", &[ids.len(), model.config().vocab_size]) == want, "every number equal");
}

/// Names, shapes and numbers of hidden states: those of transformers.
#[test]
fn logits_writes_the_hidden_states_of_the_golden_file() {
    let (case, layers) = ("float32.w8.p0", ["layer.0.output", "layer.1.output"]);
    let golden = Tensors::read(&repository().join("testdata/models/head64/golden.safetensors"));
    let ids = golden.ids(&format!("{case}.input_ids"));
    let dir = tempfile::tempdir().unwrap();
    let (list, file) = (dir.path().join("ids.txt"), dir.path().join("out.safetensors"));
    std::fs::write(&list, format!("{ids:?}\n")).unwrap();
    let (list, out) = (list.to_str().unwrap(), file.to_str().unwrap());
    let model = ["--model", "testdata/models/head64", "--precision", "exact"];
    good("logits", &[&[out, "--ids", list, "--layers"], &model[..]].concat());
    let tensors = Tensors::read(&file);
    assert_eq!(tensors.names(), ["embeddings", "final_hidden", "input_ids", layers[0], layers[1], "logits"]);
    assert_eq!(tensors.ids("input_ids"), ids);
    for (name, width) in
        [("embeddings", 64), (layers[0], 64), (layers[1], 64), ("final_hidden", 64), ("logits", 320)]
    {
        let shape = [ids.len(), width];
        let (got, want) = (tensors.f32(name, &shape), golden.f32(&format!("{case}.{name}"), &shape));
        for (got, want) in got.chunks_exact(width).zip(want.chunks_exact(width)) {
            let square = |x: f32| f64::from(x) * f64::from(x);
            let error: f64 = got.iter().zip(want).map(|(&a, &b)| square(a - b)).sum();
            let nmse = error / want.iter().map(|&b| square(b)).sum::<f64>();
            assert!(nmse < 1e-9, "{name}: NMSE {nmse:.1e}");
        }
    }
}

#[test]
fn smollm2_knows_the_capital_of_france() {
    let dir = std::env::var_os("KOMT_SMOLLM2")
        .map_or_else(|| repository().join("target/models/smollm2"), PathBuf::from);
    if !dir.exists() {
        let missing = format!("{} is not there: run tools/fetch-smollm2", dir.display());
        assert!(
            std::env::var_os("KOMT_REQUIRE_SMOLLM2").is_none(),
            "KOMT_REQUIRE_SMOLLM2 is set, and {missing}"
        );
        // Not `eprintln!`: the test harness would swallow it.
        let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {missing} ***\n");
        return;
    }
    let model = dir.to_str().unwrap();
    let args = ["--model", model, "--template", "jinja", "What is the capital of France?"];
    let (out, err) = good("generate", &args);
    assert!(out.contains("capital of France is Paris"), "{out}");
    assert!(!err.contains("demo model"), "{err}");
}
