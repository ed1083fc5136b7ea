//! Filling memory. Even the functions without a stream do not wait.

use super::copy::check_range;
use super::{DevicePtr, Handle};
use crate::driver::work::Work;
use crate::driver::{Code, Error, Needs, call};

fn fill(
    function: &'static str,
    to: DevicePtr,
    pattern: &[u8],
    count: usize,
    stream: Handle,
    captured: bool,
) -> Code {
    call(function, Needs::Context, |session| {
        if !captured {
            session.forbid_in_capture(function)?;
        }
        if count == 0 {
            return Ok(());
        }
        let width = pattern.len() as u64;
        let bytes = (count as u64).checked_mul(width).ok_or(Error::INVALID_VALUE)?;
        if !to.is_multiple_of(width) {
            session.complain(format!("{function}: {to:#x} is not a multiple of {width}"));
            return Err(Error::INVALID_VALUE);
        }
        check_range(session, function, to, bytes)?;
        let work = Work::Fill { to, pattern: pattern.to_vec(), count: count as u64 };
        session.submit(stream, work).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(to: DevicePtr, value: u8, count: usize) -> Code {
    fill("cuMemsetD8_v2", to, &[value], count, 0, false)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16_v2(to: DevicePtr, value: u16, count: usize) -> Code {
    fill("cuMemsetD16_v2", to, &value.to_le_bytes(), count, 0, false)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32_v2(to: DevicePtr, value: u32, count: usize) -> Code {
    fill("cuMemsetD32_v2", to, &value.to_le_bytes(), count, 0, false)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: DevicePtr, value: u8, count: usize, stream: Handle) -> Code {
    fill("cuMemsetD8Async", to, &[value], count, stream, true)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16Async(to: DevicePtr, value: u16, count: usize, stream: Handle) -> Code {
    fill("cuMemsetD16Async", to, &value.to_le_bytes(), count, stream, true)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(to: DevicePtr, value: u32, count: usize, stream: Handle) -> Code {
    fill("cuMemsetD32Async", to, &value.to_le_bytes(), count, stream, true)
}
