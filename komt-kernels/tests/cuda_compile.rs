//! Every kernel compiles for every architecture, without a warning. Needs NVRTC, no GPU.
#![allow(clippy::unwrap_used)]

#[path = "cuda_support/nvrtc.rs"]
mod nvrtc;

use half::{bf16, f16};
use komt_kernels::cuda::{Compiled, CudaAct, compile_all};
use nvrtc::{fetched_nvrtc, has_nvrtc};
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

#[test]
fn every_kernel_compiles_for_every_architecture() {
    if !has_nvrtc() {
        return;
    }
    for arch in ARCHS {
        check(arch, &compile::<f16>(arch));
        if arch >= 80 {
            check(arch, &compile::<bf16>(arch));
        }
    }
}
