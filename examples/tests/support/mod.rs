//! The examples as programs.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// An example of this build: `cargo test` puts them into `examples/`, beside the `deps/` that this test runs from.
pub fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let path = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not there: `cargo test -p komt-examples` builds it", path.display());
    let mut command = Command::new(path);
    command.current_dir(repository()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn run(name: &str, args: &[&str]) -> Output {
    example(name).args(args).output().unwrap()
}

/// Standard output and error of a run that must go well.
pub fn good(name: &str, args: &[&str]) -> (String, String) {
    told(name, run(name, args))
}

pub fn told(what: &str, output: Output) -> (String, String) {
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    (out, err)
}
