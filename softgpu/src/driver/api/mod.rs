//! The exported functions, with the names and signatures of `cuda.h`. A handle is a number in the place of the pointer; an
//! argument through which a result is returned is an [`Out`](super::Out), so that most of them need no unsafe code.

// The names are CUDA's.
#![allow(non_snake_case)]

mod attributes;
mod context;
mod copy;
mod device;
mod event;
mod fill;
mod function;
mod graph;
mod host;
mod init;
mod launch;
mod memory;
mod module;
mod occupancy;
mod pool;
mod stream;

use std::ffi::{CStr, c_char};

use super::Error;

/// A `CUcontext`, `CUstream`, `CUevent`, `CUmodule`, ...: opaque to the application.
type Handle = u64;
/// A `CUdevice`.
type Device = i32;
/// A `CUdeviceptr`.
type DevicePtr = u64;

/// A C string of the application.
fn text(string: *const c_char) -> Result<String, Error> {
    if string.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: not null, and the API takes a C string here.
    Ok(unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned())
}

/// Fills the application's buffer of `len` bytes with as much of a text as fits, and a NUL.
fn put_text(buffer: *mut c_char, len: usize, text: &str) -> Result<(), Error> {
    if buffer.is_null() || len == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let bytes = text.as_bytes();
    let fits = bytes.len().min(len - 1);
    // SAFETY: the API takes a buffer of `len` bytes here; `fits` < `len`.
    unsafe {
        buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), fits);
        buffer.add(fits).write(0);
    }
    Ok(())
}
