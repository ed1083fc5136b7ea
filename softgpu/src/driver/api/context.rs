//! The primary context, and which context is the thread's.

use std::cell::RefCell;
use std::ffi::{c_int, c_uint, c_void};

use super::device::check;
use super::{Device, Handle};
use crate::driver::{CURRENT, Code, DEVICE, Error, Needs, Out, call, put, put_if};

thread_local! {
    /// Contexts below the current one, as `cuCtxPushCurrent` leaves them.
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Scheduling flags, `CU_CTX_SCHED_MASK`, and the others that a primary context can have.
const FLAGS: c_uint = 0x1f | 0x20 | 0x40 | 0x80;

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: Out<'_, Handle>, device: Device) -> Code {
    call("cuDevicePrimaryCtxRetain", Needs::Init, |session| {
        check(device)?;
        let context = context.ok_or(Error::INVALID_VALUE)?;
        put(Some(context), session.retain())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: Device) -> Code {
    call("cuDevicePrimaryCtxRelease_v2", Needs::Init, |session| {
        check(device)?;
        session.release()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxReset_v2(device: Device) -> Code {
    call("cuDevicePrimaryCtxReset_v2", Needs::Init, |session| {
        check(device)?;
        session.reset_context();
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: Device, flags: c_uint) -> Code {
    call("cuDevicePrimaryCtxSetFlags_v2", Needs::Init, |session| {
        check(device)?;
        if flags & !FLAGS != 0 {
            return Err(Error::INVALID_VALUE);
        }
        session.context_flags = flags;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxGetState(
    device: Device,
    flags: Out<'_, c_uint>,
    active: Out<'_, c_int>,
) -> Code {
    call("cuDevicePrimaryCtxGetState", Needs::Init, |session| {
        check(device)?;
        put(flags, session.context_flags)?;
        put(active, c_int::from(session.context.is_some()))
    })
}

/// Only the primary context is here.
#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v2(_context: Out<'_, Handle>, _flags: c_uint, _device: Device) -> Code {
    call("cuCtxCreate_v2", Needs::Init, |_| Err(Error::NOT_SUPPORTED))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v4(
    _context: Out<'_, Handle>,
    _params: *const c_void,
    _flags: c_uint,
    _device: Device,
) -> Code {
    call("cuCtxCreate_v4", Needs::Init, |_| Err(Error::NOT_SUPPORTED))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxDestroy_v2(_context: Handle) -> Code {
    call("cuCtxDestroy_v2", Needs::Init, |_| Err(Error::INVALID_CONTEXT))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: Out<'_, Handle>) -> Code {
    call("cuCtxGetCurrent", Needs::Init, |_| put(context, CURRENT.get()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: Handle) -> Code {
    call("cuCtxSetCurrent", Needs::Init, |session| {
        if context != 0 && session.context.as_ref().is_none_or(|known| known.handle != context) {
            return Err(Error::INVALID_CONTEXT);
        }
        CURRENT.set(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPushCurrent_v2(context: Handle) -> Code {
    call("cuCtxPushCurrent_v2", Needs::Init, |session| {
        if session.context.as_ref().is_none_or(|known| known.handle != context) {
            return Err(Error::INVALID_CONTEXT);
        }
        STACK.with_borrow_mut(|stack| stack.push(CURRENT.replace(context)));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPopCurrent_v2(context: Out<'_, Handle>) -> Code {
    call("cuCtxPopCurrent_v2", Needs::Init, |_| {
        if CURRENT.get() == 0 {
            return Err(Error::INVALID_CONTEXT);
        }
        let below = STACK.with_borrow_mut(Vec::pop).unwrap_or(0);
        put_if(context, CURRENT.replace(below));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(device: Out<'_, Device>) -> Code {
    call("cuCtxGetDevice", Needs::Init, |session| {
        session.context()?;
        put(device, DEVICE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetApiVersion(_context: Handle, version: Out<'_, c_uint>) -> Code {
    // The version of contexts since CUDA 4.
    call("cuCtxGetApiVersion", Needs::Init, |_| put(version, 4020))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetFlags(flags: Out<'_, c_uint>) -> Code {
    call("cuCtxGetFlags", Needs::Context, |session| put(flags, session.context_flags))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(flags: c_uint) -> Code {
    call("cuCtxSetFlags", Needs::Context, |session| {
        if flags & !FLAGS != 0 {
            return Err(Error::INVALID_VALUE);
        }
        session.context_flags = flags;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Code {
    call("cuCtxSynchronize", Needs::Context, |session| {
        session.forbid_waiting_for_capture("cuCtxSynchronize", None)?;
        session.finish_all()?;
        session.waited()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetStreamPriorityRange(least: Out<'_, c_int>, greatest: Out<'_, c_int>) -> Code {
    call("cuCtxGetStreamPriorityRange", Needs::Context, |_| {
        put_if(least, 0);
        put_if(greatest, super::stream::GREATEST_PRIORITY);
        Ok(())
    })
}

/// `CUlimit` values below this exist.
const LIMITS: c_uint = 10;

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetLimit(value: Out<'_, usize>, limit: c_uint) -> Code {
    call("cuCtxGetLimit", Needs::Context, |session| {
        if limit >= LIMITS {
            return Err(Error::INVALID_VALUE);
        }
        // Stack, printf buffer, heap: the defaults of a driver. The rest is 0.
        let default = [1024, 1 << 20, 8 << 20].get(limit as usize).copied().unwrap_or(0);
        put(value, session.context()?.limits.get(&limit).copied().unwrap_or(default))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetLimit(limit: c_uint, value: usize) -> Code {
    call("cuCtxSetLimit", Needs::Context, |session| {
        if limit >= LIMITS {
            return Err(Error::INVALID_VALUE);
        }
        session.context()?.limits.insert(limit, value);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCacheConfig(config: Out<'_, c_uint>) -> Code {
    call("cuCtxGetCacheConfig", Needs::Context, |_| put(config, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCacheConfig(_config: c_uint) -> Code {
    call("cuCtxSetCacheConfig", Needs::Context, |_| Ok(()))
}
