//! Gives the library the name under which cudarc will look for the driver: once a test has loaded it by its path, a later
//! lookup by this name finds it. No file of that name exists, so nothing finds it by accident.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    }
}
