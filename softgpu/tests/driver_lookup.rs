//! The software GPU is nobody's driver by accident: a process of its own, because loading it cannot be undone.

// Elsewhere a library that is loaded by its path is not found by the driver's name.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::path::Path;

use cudarc::driver::{CudaContext, sys};
use komt_softgpu::{DeviceSpec, SoftGpu};

/// Whether the library that cudarc would open is ours.
fn found_is_ours(name: &str) -> Option<bool> {
    // SAFETY: loading the driver runs its own initialisers alone.
    let library = unsafe { libloading::Library::new(name) }.ok()?;
    // SAFETY: the symbol is not called.
    Some(unsafe { library.get::<*const ()>(b"komt_softgpu_control\0") }.is_ok())
}

#[test]
fn a_lookup_finds_it_only_after_a_test_has_loaded_it() {
    // `cargo test` and `cargo run` put the target directory on the search path: that must not be enough.
    let searched = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let exe = std::env::current_exe().unwrap();
    let deps = exe.parent().unwrap();
    assert!(deps.join("libkomt_softgpu.so").is_file());
    let is_searched = searched.split(':').any(|dir| Path::new(dir) == deps);
    eprintln!("{} {} on the search path", deps.display(), if is_searched { "is" } else { "is not" });
    for name in ["libcuda.so", "libcuda.so.1", "libnvcuda.so"] {
        assert_ne!(found_is_ours(name), Some(true), "{name} before");
    }

    let gpu = SoftGpu::lock(&DeviceSpec::sm(90)).unwrap();
    assert_eq!(found_is_ours("libcuda.so"), Some(true), "what cudarc looks for first");
    assert_ne!(found_is_ours("libcuda.so.1"), Some(true), "NVRTC looks for this one, and must not find ours");
    // SAFETY: as above.
    assert!(unsafe { sys::is_culib_present() });
    assert!(CudaContext::new(0).unwrap().name().unwrap().contains("software"));
    assert_eq!(gpu.live_handles(), 0);
}
