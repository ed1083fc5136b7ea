//! Which compiler the tests use, and what they do without one.
#![allow(dead_code)]

use komt_kernels::Error;
use std::path::{Path, PathBuf};

/// The compiler that `tools/fetch-cuda` left, unless another is named.
pub fn fetched_nvrtc() -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda/lib/libnvrtc.so.12");
    (fetched.is_file() && std::env::var_os("KOMT_NVRTC").is_none()).then_some(fetched)
}

/// The same whatever is named, for tests of how it is found; where `tools/fetch-cuda` has not been run they are skipped, unless
/// `KOMT_REQUIRE_CUDA=1`.
pub fn fetched_or_skipped() -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda/lib/libnvrtc.so.12");
    if fetched.is_file() {
        return Some(fetched);
    }
    assert!(std::env::var("KOMT_REQUIRE_CUDA").as_deref() != Ok("1"), "run tools/fetch-cuda");
    eprintln!("SKIPPED: tools/fetch-cuda has not been run");
    None
}

/// Whether there is a compiler; when not, the test is skipped, unless `KOMT_REQUIRE_CUDA=1`.
pub fn has_nvrtc() -> bool {
    let Err(error) = komt_kernels::cuda::find_nvrtc(fetched_nvrtc().as_deref()) else { return true };
    assert!(matches!(error, Error::NoNvrtc { .. }), "{error}");
    assert!(std::env::var("KOMT_REQUIRE_CUDA").as_deref() != Ok("1"), "{error}\nor run tools/fetch-cuda");
    eprintln!("SKIPPED: {error}; tools/fetch-cuda fetches it for tests");
    false
}
