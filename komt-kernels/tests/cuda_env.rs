//! What the variables of the environment do to a device, in processes of their own. (Which directory they name: `cuda/options.rs`.)
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod cuda_support;

use cuda_support::{Gpu, fetched_nvrtc, has_nvrtc, options};
use half::f16;
use komt_cache::StepDims;
use komt_kernels::cuda::{CudaCache, CudaOptions};
use komt_kernels::{Backend, Cuda, Rows};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Three steps of one kernel on a device as the variables alone say; what was done.
#[test]
#[ignore = "run by the tests below"]
fn child_on_a_device() {
    let Some(_gpu) = Gpu::open(75) else { return }; // in f16, as every card does
    let mut options = CudaOptions::default();
    if let Some(nvrtc) = fetched_nvrtc() {
        options = options.nvrtc(nvrtc);
    }
    let mut cuda = Cuda::<f16>::with(options).unwrap();
    let mut x = Rows::<Cuda<f16>, f32>::alloc(&mut cuda, 4, 64).unwrap();
    let mut h = Rows::<Cuda<f16>, f16>::alloc(&mut cuda, 4, 64).unwrap();
    let mut w = cuda.alloc::<f32>(64).unwrap();
    (x.rows, h.rows) = (4, 4);
    cuda.upload(&mut x.buf, &[3.0; 4 * 64]).unwrap();
    cuda.upload(&mut w, &[2.0; 64]).unwrap();
    let key = StepDims { n_tokens: 4, n_seqs: 4, n_logits: 4 };
    for _ in 0..3 {
        cuda.record(key, true, &mut |cuda| cuda.rms_norm(&mut h, &x, &w, 0.0)).unwrap();
    }
    let mut found = [f16::ZERO; 4 * 64];
    cuda.download(&mut found, &h.buf).unwrap();
    assert_eq!(found, [f16::from_f32(2.0); 4 * 64]);
    let counts = cuda.counts();
    let (launches, recordings, replays) = (counts.launches, counts.recordings, counts.replays);
    println!("launches {launches}, recordings {recordings}, replays {replays}");
}

/// Runs it with these variables; what it says.
fn child(variables: &[(&str, &Path)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child_on_a_device", "--ignored", "--nocapture"]);
    for other in ["KOMT_CUDA_SYNC", "KOMT_CUDA_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"] {
        child.env_remove(other);
    }
    let output = child.envs(variables.iter().copied()).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("launches "), "{variables:?}: {text}");
    text
}

/// The tests' own directory of compiled kernels.
fn shared() -> PathBuf {
    let CudaCache::Dir(dir) = options().cache else { panic!("the tests' options name a directory") };
    dir
}

fn names(dir: &Path) -> Vec<String> {
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().into_owned();
    fs::read_dir(dir).unwrap().map(name).collect()
}

#[test]
fn waiting_for_each_operation_by_the_variable_records_nothing() {
    if !has_nvrtc() {
        return;
    }
    let (shared, one) = (shared(), Path::new("1"));
    let cache = ("KOMT_CUDA_CACHE", shared.as_path());
    // The first step runs as it is, the second is recorded, the third replayed.
    let found = child(&[cache]);
    assert!(found.contains("launches 2, recordings 1, replays 1"), "{found}");
    let found = child(&[cache, ("KOMT_CUDA_SYNC", one)]);
    assert!(found.contains("launches 3, recordings 0, replays 0"), "{found}");
}

#[test]
fn compiled_kernels_are_kept_where_the_variables_say() {
    if !has_nvrtc() {
        return;
    }
    let shared = shared();
    child(&[("KOMT_CUDA_CACHE", shared.as_path())]); // all of its entries are there now
    for variable in ["KOMT_CUDA_CACHE", "XDG_CACHE_HOME"] {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let dir = if variable == "XDG_CACHE_HOME" { root.path().join("komt") } else { root.path().into() };
        // All entries but those of a small file, so that little is compiled again.
        fs::create_dir_all(&dir).unwrap();
        let is_kept = |name: &String| !name.starts_with("embed-") && !name.ends_with(".part");
        for name in names(&shared).iter().filter(|name| is_kept(name)) {
            let (from, to) = (shared.join(name), dir.join(name));
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(|_| ())).unwrap();
        }
        let n_kept = names(&dir).len();
        child(&[(variable, root.path())]);
        let found = names(&dir);
        assert_eq!(found.len(), n_kept + 1, "{variable}: {found:?}");
        assert!(found.iter().any(|name| name.starts_with("embed-")), "{variable}: {found:?}");
    }
    // Nowhere: not even where they would be without the word.
    let caches = tempfile::tempdir().unwrap();
    child(&[("KOMT_CUDA_CACHE", Path::new("off")), ("XDG_CACHE_HOME", caches.path())]);
    assert!(names(caches.path()).is_empty());
}
