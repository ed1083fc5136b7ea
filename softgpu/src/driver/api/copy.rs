//! Copies.
//!
//! From pageable memory: the bytes are taken at the call. From and to page-locked memory: when the copy is executed. To pageable
//! memory: the call waits ("For transfers from device memory to pageable host memory, the function will return only once the
//! copy has completed", CUDA driver API, API synchronization behavior). Within the device: nobody waits.

use std::ffi::c_void;

use super::{DevicePtr, Handle};
use crate::driver::work::{HostRange, HostSource, Work};
use crate::driver::{Code, Error, Needs, Session, call};

/// Whether the call waits for its copy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Yes,
    No,
}

/// An allocation that is still the application's must hold all of the bytes.
pub(super) fn check_range(session: &mut Session, function: &str, addr: u64, bytes: u64) -> Result<(), Error> {
    if session.context()?.device_range(addr, bytes).is_some() {
        return Ok(());
    }
    let nearest = session.context()?.device.range(..=addr).next_back();
    let nearest = nearest.map_or_else(String::new, |(start, len)| {
        format!("; the nearest allocation below has {len} bytes from {start:#x}")
    });
    session.complain(format!(
        "{function}: {bytes} bytes at {addr:#x} are not all in one live allocation{nearest}"
    ));
    Err(Error::INVALID_VALUE)
}

fn upload(
    session: &mut Session,
    function: &str,
    to: DevicePtr,
    from: HostRange,
    stream: Handle,
    waits: Waits,
) -> Result<(), Error> {
    if from.bytes == 0 {
        return Ok(());
    }
    if from.start == 0 {
        return Err(Error::INVALID_VALUE);
    }
    check_range(session, function, to, from.bytes as u64)?;
    let pinned = session.context()?.pinned_range(from);
    let source = if pinned { HostSource::Pinned(from) } else { HostSource::Taken(from.copied()) };
    let place = session.submit(stream, Work::Upload { to, from: source })?;
    if waits == Waits::Yes { session.finish(place) } else { Ok(()) }
}

fn download(
    session: &mut Session,
    function: &str,
    to: HostRange,
    from: DevicePtr,
    stream: Handle,
    waits: Waits,
) -> Result<(), Error> {
    if to.bytes == 0 {
        return Ok(());
    }
    if to.start == 0 {
        return Err(Error::INVALID_VALUE);
    }
    check_range(session, function, from, to.bytes as u64)?;
    let pinned = session.context()?.pinned_range(to);
    let place = session.submit(stream, Work::Download { from, to, pinned })?;
    if waits == Waits::Yes || !pinned {
        session.finish(place)?;
        return session.waited();
    }
    Ok(())
}

fn within(
    session: &mut Session,
    function: &str,
    to: DevicePtr,
    from: DevicePtr,
    bytes: usize,
    stream: Handle,
) -> Result<(), Error> {
    if bytes == 0 {
        return Ok(());
    }
    let bytes = bytes as u64;
    check_range(session, function, to, bytes)?;
    check_range(session, function, from, bytes)?;
    session.submit(stream, Work::Copy { to, from, bytes }).map(|_| ())
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: DevicePtr, from: *const c_void, bytes: usize) -> Code {
    call("cuMemcpyHtoD_v2", Needs::Context, |session| {
        session.forbid_in_capture("cuMemcpyHtoD_v2")?;
        upload(session, "cuMemcpyHtoD_v2", to, HostRange::new(from, bytes), 0, Waits::Yes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: DevicePtr, from: *const c_void, bytes: usize, stream: Handle) -> Code {
    call("cuMemcpyHtoDAsync_v2", Needs::Context, |session| {
        upload(session, "cuMemcpyHtoDAsync_v2", to, HostRange::new(from, bytes), stream, Waits::No)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: DevicePtr, bytes: usize) -> Code {
    call("cuMemcpyDtoH_v2", Needs::Context, |session| {
        session.forbid_in_capture("cuMemcpyDtoH_v2")?;
        download(session, "cuMemcpyDtoH_v2", HostRange::new(to, bytes), from, 0, Waits::Yes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: DevicePtr, bytes: usize, stream: Handle) -> Code {
    call("cuMemcpyDtoHAsync_v2", Needs::Context, |session| {
        download(session, "cuMemcpyDtoHAsync_v2", HostRange::new(to, bytes), from, stream, Waits::No)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: DevicePtr, from: DevicePtr, bytes: usize) -> Code {
    call("cuMemcpyDtoD_v2", Needs::Context, |session| {
        session.forbid_in_capture("cuMemcpyDtoD_v2")?;
        within(session, "cuMemcpyDtoD_v2", to, from, bytes, 0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: DevicePtr, from: DevicePtr, bytes: usize, stream: Handle) -> Code {
    call("cuMemcpyDtoDAsync_v2", Needs::Context, |session| {
        within(session, "cuMemcpyDtoDAsync_v2", to, from, bytes, stream)
    })
}

/// A copy whose direction the addresses tell.
fn unified(
    session: &mut Session,
    function: &str,
    to: u64,
    from: u64,
    bytes: usize,
    stream: Handle,
    waits: Waits,
) -> Result<(), Error> {
    let context = session.context()?;
    let on_device = |addr| context.device_range(addr, 0).is_some();
    match (on_device(to), on_device(from)) {
        (true, true) => within(session, function, to, from, bytes, stream),
        (true, false) => {
            upload(session, function, to, HostRange { start: from as usize, bytes }, stream, waits)
        }
        (false, true) => {
            download(session, function, HostRange { start: to as usize, bytes }, from, stream, waits)
        }
        (false, false) => Err(Error::INVALID_VALUE),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy(to: DevicePtr, from: DevicePtr, bytes: usize) -> Code {
    call("cuMemcpy", Needs::Context, |session| {
        session.forbid_in_capture("cuMemcpy")?;
        unified(session, "cuMemcpy", to, from, bytes, 0, Waits::Yes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyAsync(to: DevicePtr, from: DevicePtr, bytes: usize, stream: Handle) -> Code {
    call("cuMemcpyAsync", Needs::Context, |session| {
        unified(session, "cuMemcpyAsync", to, from, bytes, stream, Waits::No)
    })
}
