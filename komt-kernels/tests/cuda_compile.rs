//! Every kernel compiles for every architecture, without a warning, a spilled register or a byte of local memory, and its
//! machine code is what a disassembler can read. Needs NVRTC, ptxas and nvdisasm (`tools/fetch-cuda`), no GPU.
#![allow(clippy::unwrap_used)]

#[path = "cuda_support/nvrtc.rs"]
mod nvrtc;

use half::{bf16, f16};
use komt_benches::cubin;
use komt_kernels::cuda::{Compiled, CudaAct, compile_all};
use nvrtc::{fetched_nvrtc, fetched_or_skipped, has_nvrtc};
use rayon::prelude::*;
use std::collections::BTreeSet;

const ARCHS: [u32; 7] = [75, 80, 86, 89, 90, 100, 120];

fn compile<A: CudaAct>(arch: u32) -> Vec<Compiled> {
    compile_all::<A>(arch, fetched_nvrtc().as_deref()).unwrap_or_else(|error| panic!("{error}"))
}

fn check(arch: u32, compiled: &[Compiled]) {
    let mut names = BTreeSet::new();
    for Compiled { name, kernels, ptx, cubin, log, seconds, .. } in compiled {
        println!(
            "sm_{arch} {name}: {} kernels, {} bytes of code, {seconds:.2} s",
            kernels.len(),
            cubin.len()
        );
        assert!(log.is_empty(), "{name} for sm_{arch}: {log}");
        assert!(cubin.starts_with(b"\x7fELF"), "{name} for sm_{arch}: no machine code");
        for kernel in kernels {
            assert!(ptx.contains(&format!(".entry {kernel}(")), "{name} for sm_{arch}: no kernel {kernel}");
            assert!(names.insert(*kernel), "{name}: another file has a kernel {kernel}, too");
        }
        let entries = ptx.matches(".entry ").count();
        assert_eq!(entries, kernels.len(), "{name} for sm_{arch}: kernels that its Source does not name");
    }
}

/// Whether a tool is there; when not, what it would check is skipped, unless `KOMT_REQUIRE_CUDA=1`.
fn has_tool(name: &'static str) -> bool {
    let Err(error) = cubin::tool(name) else { return true };
    assert!(std::env::var("KOMT_REQUIRE_CUDA").as_deref() != Ok("1"), "{error}");
    eprintln!("SKIPPED in part: {error}");
    false
}

/// What the assembler says of the PTX.
fn check_resources(arch: u32, Compiled { name, kernels, ptx, .. }: &Compiled) {
    let resources = cubin::ptxas(ptx.as_bytes(), arch).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(resources.len(), kernels.len(), "{name} for sm_{arch}");
    for it in resources {
        assert_eq!((it.spill_bytes, it.stack_bytes), (0, 0), "{name} for sm_{arch}: spills: {it:?}");
        assert!(it.shared_bytes <= 48 << 10, "{name} for sm_{arch}: {it:?}");
    }
}

/// What the disassembler says of the machine code.
fn check_code(arch: u32, Compiled { name, kernels, cubin, .. }: &Compiled) {
    let codes = cubin::disassemble(cubin, arch).unwrap_or_else(|error| panic!("{name}: {error}"));
    let found: BTreeSet<&str> = codes.iter().map(|code| code.kernel.as_str()).collect();
    assert_eq!(found, kernels.iter().copied().collect(), "{name} for sm_{arch}");
    for code in codes {
        let local = code.all("STL").chain(code.all("LDL")).count();
        assert_eq!(local, 0, "{name} for sm_{arch}: {} uses local memory", code.kernel);
        assert!(code.all("EXIT").next().is_some(), "{name} for sm_{arch}: {} has no end", code.kernel);
    }
}

#[test]
fn every_kernel_compiles_for_every_architecture() {
    if !has_nvrtc() {
        return;
    }
    let f16s = ARCHS.map(|arch| (arch, true));
    let bf16s = ARCHS.into_iter().filter(|&arch| arch >= 80).map(|arch| (arch, false));
    let wanted: Vec<_> = f16s.into_iter().chain(bf16s).collect();
    let compile = |(arch, is_f16)| (arch, if is_f16 { compile::<f16>(arch) } else { compile::<bf16>(arch) });
    let all: Vec<(u32, Vec<Compiled>)> = wanted.into_par_iter().map(compile).collect();
    all.iter().for_each(|(arch, compiled)| check(*arch, compiled));
    let files: Vec<_> =
        all.iter().flat_map(|(arch, files)| files.iter().map(move |file| (*arch, file))).collect();
    if has_tool("ptxas") {
        // One of each front end and generation, for the time: what spills has local memory in its machine code, too.
        let some = files.par_iter().filter(|(arch, _)| [75, 80, 90, 120].contains(arch));
        some.for_each(|(arch, file)| check_resources(*arch, file));
    }
    if has_tool("nvdisasm") {
        files.par_iter().for_each(|(arch, file)| check_code(*arch, file));
    }
}

/// The places where toolkits and Python packages leave the compiler, each in a process of its own.
#[test]
#[cfg(unix)]
fn the_compiler_is_found_where_it_usually_is() {
    let Some(file) = fetched_or_skipped() else { return };
    let places = [
        ("VIRTUAL_ENV", "lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib"),
        ("CONDA_PREFIX", "lib/python3.9/site-packages/nvidia/cu13/lib"),
        ("HOME", ".local/lib/python3.13/site-packages/nvidia/cuda_nvrtc/lib"),
        ("CUDA_HOME", "lib64"),
        ("CUDA_PATH", "targets/x86_64-linux/lib"),
        ("KOMT_NVRTC", ""),
        ("KOMT_NVRTC", "libnvrtc.so.12"),
    ];
    for (variable, place) in places {
        let root = tempfile::tempdir().unwrap();
        let is_file = place.ends_with(".12");
        let dir = if is_file { root.path().into() } else { root.path().join(place) };
        std::fs::create_dir_all(&dir).unwrap();
        for name in ["libnvrtc.so.12", "libnvrtc-builtins.so.12.9"] {
            std::os::unix::fs::symlink(file.with_file_name(name).canonicalize().unwrap(), dir.join(name))
                .unwrap();
        }
        let value = if is_file { dir.join(place) } else { root.path().into() };
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child_that_finds_the_compiler", "--ignored", "--nocapture"]);
        for other in ["VIRTUAL_ENV", "CONDA_PREFIX", "HOME", "CUDA_HOME", "CUDA_PATH", "KOMT_NVRTC"] {
            child.env_remove(other);
        }
        let output = child.env(variable, value).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        // A machine with a toolkit has it in the loader's places, too, and those come first.
        let found = [format!("found {}", dir.display()), "found libnvrtc.so".into()];
        assert!(found.iter().any(|found| text.contains(found)), "{variable}/{place}: {text}");
    }
}

#[test]
#[ignore = "run by the_compiler_is_found_where_it_usually_is"]
fn child_that_finds_the_compiler() {
    let (path, version) = komt_kernels::cuda::find_nvrtc(None).unwrap();
    println!("found {} {version:?}", path.display());
    if std::env::var_os("VIRTUAL_ENV").is_some() {
        assert!(!compile_all::<f16>(75, None).unwrap().is_empty()); // it finds its own second library, too
    }
}
