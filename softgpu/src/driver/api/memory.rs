//! Device memory.

use std::ffi::{c_int, c_uint, c_void};

use super::{DevicePtr, Handle};
use crate::driver::work::{HostRange, Work};
use crate::driver::{Code, DEVICE, Error, Needs, Out, call, put, put_if};

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Out<'_, usize>, total: Out<'_, usize>) -> Code {
    call("cuMemGetInfo_v2", Needs::Context, |session| {
        let free_bytes = session.context()?.memory.free_bytes();
        put(free, free_bytes as usize)?;
        put(total, session.spec.memory_bytes as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(addr: Out<'_, DevicePtr>, bytes: usize) -> Code {
    call("cuMemAlloc_v2", Needs::Context, |session| {
        session.forbid_in_capture("cuMemAlloc_v2")?;
        let addr = addr.ok_or(Error::INVALID_VALUE)?;
        put(Some(addr), session.alloc(bytes as u64)?)
    })
}

/// Does not wait for what is queued, as the documents do not promise it: that finds its memory freed.
#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(addr: DevicePtr) -> Code {
    call("cuMemFree_v2", Needs::Destroys, |session| {
        session.forbid_in_capture("cuMemFree_v2")?;
        if addr == 0 { Ok(()) } else { session.free("cuMemFree_v2", addr) }
    })
}

/// Memory is there at once, its bytes unwritten.
#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(addr: Out<'_, DevicePtr>, bytes: usize, stream: Handle) -> Code {
    call("cuMemAllocAsync", Needs::Context, |session| {
        if !session.spec.memory_pools {
            return Err(Error::NOT_SUPPORTED);
        }
        let addr = addr.ok_or(Error::INVALID_VALUE)?;
        let key = session.stream_key(stream)?;
        if session.stream(key)?.capture.is_some() {
            session.complain("cuMemAllocAsync in a stream that captures".to_owned());
            session.invalidate_capture(key);
            return Err(Error::NOT_SUPPORTED);
        }
        put(Some(addr), session.alloc(bytes as u64)?)
    })
}

/// Whatever is submitted later may not use the memory; what is queued before still does.
#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(addr: DevicePtr, stream: Handle) -> Code {
    call("cuMemFreeAsync", Needs::Destroys, |session| {
        if !session.spec.memory_pools {
            return Err(Error::NOT_SUPPORTED);
        }
        session.stream_key(stream)?;
        session.forget_allocation("cuMemFreeAsync", addr)?;
        session.submit(stream, Work::Free { addr }).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetAddressRange_v2(
    base: Out<'_, DevicePtr>,
    bytes: Out<'_, usize>,
    addr: DevicePtr,
) -> Code {
    call("cuMemGetAddressRange_v2", Needs::Context, |session| {
        let (start, len) = session.context()?.device_range(addr, 0).ok_or(Error::NOT_FOUND)?;
        put_if(base, start);
        put_if(bytes, len as usize);
        Ok(())
    })
}

/// `CU_MEMORYTYPE_HOST` and `CU_MEMORYTYPE_DEVICE`.
const HOST: c_uint = 1;
const ON_DEVICE: c_uint = 2;

/// Whose an address is. Of the attributes, the memory type (2), the address itself (3 and 4), managed (8) and the ordinal (9).
#[unsafe(no_mangle)]
extern "C" fn cuPointerGetAttribute(out: *mut c_void, attribute: c_int, addr: DevicePtr) -> Code {
    call("cuPointerGetAttribute", Needs::Context, |session| {
        let context = session.context()?;
        let on_device = context.device_range(addr, 0).is_some();
        if !on_device && !context.pinned_range(HostRange { start: addr as usize, bytes: 0 }) || out.is_null()
        {
            return Err(Error::INVALID_VALUE);
        }
        let number = match attribute {
            2 => {
                if on_device {
                    ON_DEVICE
                } else {
                    HOST
                }
            }
            8 => 0,
            9 => DEVICE as c_uint,
            3 | 4 if on_device == (attribute == 3) => {
                // SAFETY: not null, and the API takes room for an address for this attribute.
                unsafe { out.cast::<u64>().write(addr) };
                return Ok(());
            }
            _ => return Err(Error::INVALID_VALUE),
        };
        // SAFETY: not null, and the API takes room for an int for this attribute.
        unsafe { out.cast::<c_uint>().write(number) };
        Ok(())
    })
}
