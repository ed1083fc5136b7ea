//! Gives the library the name under which cudarc will look for the driver: once a test has loaded it by its path, a later
//! lookup by this name finds it. No file of that name exists, so nothing finds it by accident.
//!
//! Also names the build by its sources, so that a test does not question a library left over from another one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    }
    let mut hasher = DefaultHasher::new();
    hash(Path::new("src"), &mut hasher);
    println!("cargo:rustc-env=KOMT_SOFTGPU_BUILD={:016x}", hasher.finish());
}

/// Names and texts of all files below, in the order of their names.
fn hash(path: &Path, hasher: &mut DefaultHasher) {
    if let Ok(entries) = std::fs::read_dir(path) {
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().for_each(|path| hash(path, hasher));
    } else if let Ok(text) = std::fs::read(path) {
        (path, text).hash(hasher);
    }
}
