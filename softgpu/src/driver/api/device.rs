//! The device and what it says of itself.

use std::ffi::{c_char, c_int, c_uchar};

use super::attributes::attribute;
use super::{Device, put_text};
use crate::driver::{Code, DEVICE, Error, Needs, Out, Session, call, put, put_if};

/// The one device's number is the one that is right.
pub(super) fn check(device: Device) -> Result<(), Error> {
    if device == DEVICE { Ok(()) } else { Err(Error::INVALID_DEVICE) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: Out<'_, c_int>) -> Code {
    call("cuDeviceGetCount", Needs::Init, |session| put(count, c_int::from(!session.faults.no_device)))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: Out<'_, Device>, ordinal: c_int) -> Code {
    call("cuDeviceGet", Needs::Init, |session| {
        if ordinal != DEVICE || session.faults.no_device {
            return Err(Error::INVALID_DEVICE);
        }
        put(device, DEVICE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: Device) -> Code {
    call("cuDeviceGetName", Needs::Init, |session| {
        check(device)?;
        put_text(name, usize::try_from(len).unwrap_or(0), &session.spec.name)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: Out<'_, usize>, device: Device) -> Code {
    call("cuDeviceTotalMem_v2", Needs::Init, |session| {
        check(device)?;
        put(bytes, session.spec.memory_bytes as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(value: Out<'_, c_int>, number: c_int, device: Device) -> Code {
    call("cuDeviceGetAttribute", Needs::Init, |session| {
        check(device)?;
        put(value, attribute(&session.spec, number)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceComputeCapability(
    major: Out<'_, c_int>,
    minor: Out<'_, c_int>,
    device: Device,
) -> Code {
    call("cuDeviceComputeCapability", Needs::Init, |session| {
        check(device)?;
        put(major, session.spec.arch.0 as c_int)?;
        put(minor, session.spec.arch.1 as c_int)
    })
}

/// The first bytes spell what it is; the last two are the architecture.
fn uuid(session: &Session) -> [c_uchar; 16] {
    let mut uuid = *b"software gpu\0\0\0\0";
    uuid[14] = session.spec.arch.0 as u8;
    uuid[15] = session.spec.arch.1 as u8;
    uuid
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(out: Out<'_, [c_uchar; 16]>, device: Device) -> Code {
    call("cuDeviceGetUuid", Needs::Init, |session| {
        check(device)?;
        put(out, uuid(session))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(out: Out<'_, [c_uchar; 16]>, device: Device) -> Code {
    call("cuDeviceGetUuid_v2", Needs::Init, |session| {
        check(device)?;
        put(out, uuid(session))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetPCIBusId(id: *mut c_char, len: c_int, device: Device) -> Code {
    call("cuDeviceGetPCIBusId", Needs::Init, |_| {
        check(device)?;
        put_text(id, usize::try_from(len).unwrap_or(0), "0000:00:00.0")
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceCanAccessPeer(can: Out<'_, c_int>, device: Device, peer: Device) -> Code {
    call("cuDeviceCanAccessPeer", Needs::Init, |_| {
        check(device)?;
        check(peer)?;
        put(can, 0)
    })
}

/// Execution affinity is Multi-Process Service's.
#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetExecAffinitySupport(
    supported: Out<'_, c_int>,
    _kind: c_int,
    device: Device,
) -> Code {
    call("cuDeviceGetExecAffinitySupport", Needs::Init, |_| {
        check(device)?;
        put_if(supported, 0);
        Ok(())
    })
}
