//! Writes docs/kernels.md: what the CUDA kernels are made of, and what they do in the shapes of Mistral-7B. Needs no GPU.
//!
//! ```sh
//! tools/fetch-cuda
//! cargo run --release -p komt-benches --example kernel-report [FILE]     # default: docs/kernels.md
//! ```

mod aims;
mod built;
mod counted;
#[allow(dead_code, unused_imports)] // the benchmark takes the rest
#[path = "../cuda_cases/mod.rs"]
mod cuda_cases;
mod occupancy;
mod page;

use built::Build;
use half::{bf16, f16};
use komt_benches::cubin;
use komt_kernels::cuda::find_nvrtc;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The architectures that are reported on: A100 and H100.
const SMS: [u32; 2] = [80, 90];

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
    let file = std::env::args_os().nth(1).map_or(default, PathBuf::from);
    let (_, version) = find_nvrtc(cubin::fetched_nvrtc().as_deref())?;
    let mut builds = vec![];
    for sm in SMS {
        builds.push(Build::new::<bf16>(sm)?);
        builds.push(Build::new::<f16>(sm)?);
    }
    let cache = tempfile::tempdir()?;
    let mut seen = vec![];
    for sm in SMS {
        seen.push(counted::count(sm, &counted::cases(), cache.path())?);
    }
    let text = page::page(&builds, &seen, &format!("NVRTC {}.{}", version.0, version.1));
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&file, text)?;
    println!("{}: written in {:.0} s", file.display(), start.elapsed().as_secs_f64());
    Ok(())
}
