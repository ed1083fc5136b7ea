//! Memory pools: there is one, the device's own.

use std::ffi::{c_uint, c_void};

use super::device::check;
use super::{Device, DevicePtr, Handle};
use crate::driver::{Code, Error, Needs, Out, Session, call, put};

/// The handle of the default pool.
const POOL: Handle = 0x6b_0000_0000;
/// `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD` and the amounts in use, of 64 bits each; those before are ints.
const RELEASE_THRESHOLD: c_uint = 4;
const RESERVED_CURRENT: c_uint = 5;
const USED_HIGH: c_uint = 8;

fn supported(session: &Session) -> Result<(), Error> {
    if session.spec.memory_pools { Ok(()) } else { Err(Error::NOT_SUPPORTED) }
}

fn known(session: &Session, pool: Handle) -> Result<(), Error> {
    supported(session)?;
    if pool == POOL { Ok(()) } else { Err(Error::INVALID_VALUE) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetDefaultMemPool(pool: Out<'_, Handle>, device: Device) -> Code {
    call("cuDeviceGetDefaultMemPool", Needs::Init, |session| {
        check(device)?;
        supported(session)?;
        put(pool, POOL)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetMemPool(pool: Out<'_, Handle>, device: Device) -> Code {
    call("cuDeviceGetMemPool", Needs::Init, |session| {
        check(device)?;
        supported(session)?;
        put(pool, POOL)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceSetMemPool(device: Device, pool: Handle) -> Code {
    call("cuDeviceSetMemPool", Needs::Init, |session| {
        check(device)?;
        known(session, pool)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(pool: Handle, attribute: c_uint, value: *const c_void) -> Code {
    call("cuMemPoolSetAttribute", Needs::Context, |session| {
        known(session, pool)?;
        if value.is_null() || attribute == 0 || attribute > USED_HIGH {
            return Err(Error::INVALID_VALUE);
        }
        let value = if attribute < RELEASE_THRESHOLD {
            // SAFETY: not null, and the API takes an int for these.
            u64::from(unsafe { value.cast::<c_uint>().read() })
        } else {
            // SAFETY: not null, and the API takes 64 bits for these.
            unsafe { value.cast::<u64>().read() }
        };
        session.context()?.pool_attributes.insert(attribute, value);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolGetAttribute(pool: Handle, attribute: c_uint, out: *mut c_void) -> Code {
    call("cuMemPoolGetAttribute", Needs::Context, |session| {
        known(session, pool)?;
        if out.is_null() || attribute == 0 || attribute > USED_HIGH {
            return Err(Error::INVALID_VALUE);
        }
        let total = session.spec.memory_bytes;
        let context = session.context()?;
        if attribute < RELEASE_THRESHOLD {
            // Reuse is allowed unless it was forbidden.
            let value = context.pool_attributes.get(&attribute).map_or(1, |&value| value as c_uint);
            // SAFETY: not null, and the API takes room for an int for these.
            unsafe { out.cast::<c_uint>().write(value) };
            return Ok(());
        }
        let value = match attribute {
            RELEASE_THRESHOLD => context.pool_attributes.get(&attribute).copied().unwrap_or(0),
            RESERVED_CURRENT.. => total - context.memory.free_bytes(),
            _ => 0,
        };
        // SAFETY: not null, and the API takes room for 64 bits for these.
        unsafe { out.cast::<u64>().write(value) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(pool: Handle, _keep_bytes: usize) -> Code {
    call("cuMemPoolTrimTo", Needs::Context, |session| known(session, pool))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocFromPoolAsync(
    addr: Out<'_, DevicePtr>,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> Code {
    call("cuMemAllocFromPoolAsync", Needs::Context, |session| {
        known(session, pool)?;
        let addr = addr.ok_or(Error::INVALID_VALUE)?;
        session.stream_key(stream)?;
        session.forbid_in_capture("cuMemAllocFromPoolAsync")?;
        put(Some(addr), session.alloc(bytes as u64)?)
    })
}
