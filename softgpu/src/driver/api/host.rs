//! Page-locked memory of the host.

use std::ffi::{c_uint, c_void};

use crate::driver::work::HostRange;
use crate::driver::{Code, Error, Needs, Out, call, put};

fn alloc(function: &'static str, out: Out<'_, *mut c_void>, bytes: usize) -> Code {
    call(function, Needs::Context, |session| {
        session.forbid_in_capture(function)?;
        let out = out.ok_or(Error::INVALID_VALUE)?;
        put(Some(out), session.host_alloc(bytes)? as *mut c_void)
    })
}

/// `CU_MEMHOSTALLOC_PORTABLE`, `_DEVICEMAP`, `_WRITECOMBINED`.
const ALLOC_FLAGS: c_uint = 1 | 2 | 4;

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(out: Out<'_, *mut c_void>, bytes: usize, flags: c_uint) -> Code {
    if flags & !ALLOC_FLAGS != 0 {
        return Error::INVALID_VALUE.0;
    }
    alloc("cuMemHostAlloc", out, bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(out: Out<'_, *mut c_void>, bytes: usize) -> Code {
    alloc("cuMemAllocHost_v2", out, bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(start: *mut c_void) -> Code {
    call("cuMemFreeHost", Needs::Destroys, |session| {
        session.host_free("cuMemFreeHost", start as usize, false)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostRegister_v2(start: *mut c_void, bytes: usize, _flags: c_uint) -> Code {
    call("cuMemHostRegister_v2", Needs::Context, |session| {
        session.forbid_in_capture("cuMemHostRegister_v2")?;
        if start.is_null() || bytes == 0 {
            return Err(Error::INVALID_VALUE);
        }
        session.host_register(HostRange::new(start, bytes))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostUnregister(start: *mut c_void) -> Code {
    call("cuMemHostUnregister", Needs::Destroys, |session| {
        session.host_free("cuMemHostUnregister", start as usize, true)
    })
}

/// Kernels do not see host memory here.
#[unsafe(no_mangle)]
extern "C" fn cuMemHostGetDevicePointer_v2(_addr: Out<'_, u64>, _start: *mut c_void, _flags: c_uint) -> Code {
    call("cuMemHostGetDevicePointer_v2", Needs::Context, |_| Err(Error::NOT_SUPPORTED))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostGetFlags(flags: Out<'_, c_uint>, start: *mut c_void) -> Code {
    call("cuMemHostGetFlags", Needs::Context, |session| {
        let known = session.context()?.pinned_range(HostRange::new(start, 1));
        if known { put(flags, 0) } else { Err(Error::INVALID_VALUE) }
    })
}
