//! Initialisation, version, errors, entry points.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::text;
use crate::driver::{Code, Error, Needs, Out, call, error, put, put_if};

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: c_uint) -> Code {
    call("cuInit", Needs::Nothing, |session| {
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        if session.faults.no_device {
            return Err(Error::NO_DEVICE);
        }
        session.initialised = true;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Out<'_, c_int>) -> Code {
    call("cuDriverGetVersion", Needs::Nothing, |session| {
        put(version, session.faults.driver_version.unwrap_or(session.spec.driver_version))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: Code, name: Out<'_, *const c_char>) -> Code {
    call("cuGetErrorName", Needs::Nothing, |_| match error::describe(code) {
        Some((found, _)) => put(name, found.as_ptr()),
        None => {
            put_if(name, std::ptr::null());
            Err(Error::INVALID_VALUE)
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: Code, string: Out<'_, *const c_char>) -> Code {
    call("cuGetErrorString", Needs::Nothing, |_| match error::describe(code) {
        Some((_, found)) => put(string, found.as_ptr()),
        None => {
            put_if(string, std::ptr::null());
            Err(Error::INVALID_VALUE)
        }
    })
}

/// `CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND`.
const SYMBOL_NOT_FOUND: c_uint = 1;

/// Entry points are found by `dlsym` in this library. Who asks here learns that there are no others.
#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    function: Out<'_, *const c_void>,
    _cuda_version: c_int,
    _flags: u64,
    status: Out<'_, c_uint>,
) -> Code {
    call("cuGetProcAddress_v2", Needs::Nothing, |_| {
        text(symbol)?;
        put_if(function, std::ptr::null());
        put_if(status, SYMBOL_NOT_FOUND);
        Err(Error::NOT_FOUND)
    })
}

/// Undocumented tables of the driver: there are none. NVRTC asks for them, and takes no for an answer.
#[unsafe(no_mangle)]
extern "C" fn cuGetExportTable(table: Out<'_, *const c_void>, _id: *const c_void) -> Code {
    call("cuGetExportTable", Needs::Nothing, |_| {
        put_if(table, std::ptr::null());
        Err(Error::NOT_FOUND)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStart() -> Code {
    call("cuProfilerStart", Needs::Context, |_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStop() -> Code {
    call("cuProfilerStop", Needs::Context, |_| Ok(()))
}
