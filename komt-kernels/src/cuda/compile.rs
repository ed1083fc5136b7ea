//! From sources to images, in parallel threads, through the cache.

use super::nvrtc::{Image, Nvrtc};
use super::{CudaAct, Source, cache, library};
use crate::{Error, Result, ops};
use std::cmp::Reverse;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

const PRELUDE: &str = include_str!("prelude.cuh");

/// What all kernels of a source file became, for reports and for checks on machines without a GPU.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Compiled {
    /// The file, below `ops/`.
    pub name: &'static str,
    /// Names of the kernels.
    pub kernels: Vec<&'static str>,
    /// PTX.
    pub ptx: String,
    /// Machine code.
    pub cubin: Vec<u8>,
    /// Warnings.
    pub log: String,
    /// Time of the compilation.
    pub seconds: f64,
}

/// The NVRTC that would be used: its file, or the name that the loader knows it by, and its version. `nvrtc`: as in
/// [`CudaOptions`](super::CudaOptions).
///
/// # Errors
/// [`Error::NoNvrtc`].
pub fn find_nvrtc(nvrtc: Option<&Path>) -> Result<(PathBuf, (i32, i32))> {
    library::find(None, nvrtc).map(|nvrtc| (nvrtc.path, nvrtc.version))
}

/// Compiles all kernels for activations of type `A` and compute capability `arch` (75, 80, ...). No GPU, driver or cache is
/// used. `nvrtc`: as in [`CudaOptions`](super::CudaOptions).
///
/// # Errors
/// No NVRTC; what does not compile.
pub fn compile_all<A: CudaAct>(arch: u32, nvrtc: Option<&Path>) -> Result<Vec<Compiled>> {
    let nvrtc = library::find(None, nvrtc)?;
    let compiler = Compiler { nvrtc, arch, is_f16: A::IS_F16, cache: None };
    let sources = sources();
    let images = compiler.compile(&sources)?;
    let compiled = sources.into_iter().zip(images).map(|(source, (image, seconds))| Compiled {
        name: source.name,
        kernels: source.kernels.iter().map(|kernel| kernel.name).collect(),
        ptx: String::from_utf8_lossy(&image.ptx).into_owned(),
        cubin: image.cubin,
        log: image.log,
        seconds,
    });
    Ok(compiled.collect())
}

/// The files of all operations.
pub(super) fn sources() -> Vec<&'static Source> {
    ops::cuda_sources().into_iter().flatten().collect()
}

/// A compiler and what it compiles for.
#[derive(Debug)]
pub(super) struct Compiler {
    pub(super) nvrtc: Nvrtc,
    arch: u32,
    is_f16: bool,
    cache: Option<PathBuf>,
}

impl Compiler {
    /// For the device's own architecture or, when the compiler is older than the device, the newest below it.
    pub(super) fn new<A: CudaAct>(
        driver_version: i32,
        device_arch: (u32, u32),
        nvrtc: Option<&Path>,
        cache: Option<PathBuf>,
    ) -> Result<Self> {
        let nvrtc = library::find(Some(driver_version), nvrtc)?;
        let device = device_arch.0 * 10 + device_arch.1;
        let arch = nvrtc.archs().into_iter().filter(|&arch| arch <= device).max().unwrap_or(device);
        Ok(Self { nvrtc, arch, is_f16: A::IS_F16, cache })
    }

    /// Whether a device runs the machine code: it does that of its own major version's smaller minor ones.
    pub(super) fn makes_code_for(&self, device_arch: (u32, u32)) -> bool {
        self.arch / 10 == device_arch.0
    }

    /// The images of `sources`, in their order, with the seconds that each took.
    pub(super) fn compile(&self, sources: &[&Source]) -> Result<Vec<(Image, f64)>> {
        // The longest first, so that no thread is left with them.
        let mut order: Vec<usize> = (0..sources.len()).collect();
        order.sort_by_key(|&i| Reverse(sources[i].text.len()));
        let next = AtomicUsize::new(0);
        let images = Mutex::new((0..sources.len()).map(|_| None).collect::<Vec<_>>());
        let work = || {
            while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let image = self.one(sources[i]);
                images.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(image);
            }
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(sources.len());
        thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let images = images.into_inner().unwrap_or_else(PoisonError::into_inner);
        images.into_iter().flatten().collect()
    }

    fn one(&self, source: &Source) -> Result<(Image, f64)> {
        let start = Instant::now();
        let options = self.options();
        let text =
            format!("#line 1 \"prelude.cuh\"\n{PRELUDE}\n#line 1 \"{}\"\n{}", source.name, source.text);
        let key_text = format!("NVRTC {:?} {options:?}\n{text}", self.nvrtc.version);
        let key = cache::Key { name: source.name, text: &key_text };
        if let Some(image) = self.cache.as_ref().and_then(|dir| cache::read(dir, key)) {
            return Ok((image, start.elapsed().as_secs_f64()));
        }
        let image = self.nvrtc.compile(source.name, &text, &options).map_err(|log| Error::Compile {
            source_name: source.name.into(),
            arch: format!("sm_{}", self.arch),
            log,
        })?;
        if let Some(dir) = &self.cache {
            cache::write(dir, key, &image);
        }
        Ok((image, start.elapsed().as_secs_f64()))
    }

    fn options(&self) -> Vec<String> {
        vec![
            format!("--gpu-architecture=sm_{}", self.arch),
            "--std=c++17".into(),
            "-lineinfo".into(),
            format!("-DKOMT_F16={}", u8::from(self.is_f16)),
            format!("-DKOMT_SM={}", self.arch),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Where `tools/fetch-cuda` puts it. Where it has not been run the test is skipped, unless `KOMT_REQUIRE_CUDA=1`.
    fn nvrtc() -> Option<PathBuf> {
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda/lib");
        if fetched.exists() {
            return Some(fetched);
        }
        assert!(std::env::var("KOMT_REQUIRE_CUDA").as_deref() != Ok("1"), "run tools/fetch-cuda");
        eprintln!("SKIPPED: tools/fetch-cuda has not been run");
        None
    }

    #[test]
    fn what_does_not_compile_is_told_with_its_line() {
        let Some(nvrtc) = nvrtc() else { return };
        let compiler = Compiler::new::<bf16>(12090, (8, 0), Some(&nvrtc), None).expect("a compiler");
        let good = Source { name: "good.cu", text: "extern \"C\" __global__ void f() {}", kernels: &[] };
        let bad = Source { name: "matmul/bad.cu", text: "\nint x = y;", kernels: &[] };
        assert!(compiler.compile(&[&good]).is_ok());
        let error = compiler.compile(&[&good, &bad]).map(|_| ()).expect_err("an error").to_string();
        for part in ["matmul/bad.cu for sm_80", "matmul/bad.cu(2): error", "identifier \"y\" is undefined"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_newer_device_gets_the_newest_code_below_it() {
        let Some(nvrtc) = nvrtc() else { return };
        let compiler = |arch| Compiler::new::<bf16>(12090, arch, Some(&nvrtc), None).expect("a compiler");
        assert_eq!(compiler((8, 6)).arch, 86);
        assert_eq!(compiler((8, 8)).arch, 87);
        assert!(compiler((8, 8)).makes_code_for((8, 8)));
        let newest = compiler((99, 0));
        assert!(newest.arch >= 120 && !newest.makes_code_for((99, 0)), "its PTX is what runs there");
    }

    #[test]
    fn a_compiler_newer_than_the_driver() {
        let Some(nvrtc) = nvrtc() else { return };
        let error = Compiler::new::<bf16>(11040, (8, 0), Some(&nvrtc), None).expect_err("an error");
        assert!(matches!(error, Error::DriverTooOld { .. }), "{error:?}");
        assert!(error.to_string().contains("NVRTC 12"), "{error}");
    }
}
