//! The driver's library and its devices. cudarc finds symbols one by one and panics where one is missing: so all that we
//! call are looked up first.

use crate::{Error, Result};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{DriverError, result, sys};
use std::ffi::c_int;

/// The oldest driver: machine code of NVRTC 12 needs one of CUDA 12.
const MIN_DRIVER: i32 = 12000;

/// Everything of the driver that this module's neighbours call.
const SYMBOLS: [&str; 41] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxReset_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemGetInfo_v2",
    "cuMemsetD8Async",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuModuleLoadData",
    "cuModuleLoadDataEx",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
];

/// A device as the driver tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaDevice {
    /// Its number.
    pub ordinal: usize,
    /// Its name: `NVIDIA A100-SXM4-40GB`.
    pub name: String,
    /// Compute capability, (major, minor).
    pub arch: (u32, u32),
    /// Multiprocessors.
    pub sm_count: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// CUDA version of the driver: 12040 is 12.4.
    pub driver_version: i32,
}

impl CudaDevice {
    /// Whether its tensor cores compute in bf16 (sm_80 and newer); all that are supported do in f16.
    pub fn has_bf16(&self) -> bool {
        self.arch >= (8, 0)
    }
}

/// The devices of this machine: those that the driver shows (`CUDA_VISIBLE_DEVICES`).
///
/// # Errors
/// No driver, or one that is too old. No device is no error.
pub fn devices() -> Result<Vec<CudaDevice>> {
    match device_count()? {
        0 => Ok(vec![]),
        n => (0..n).map(device).collect(),
    }
}

/// The device with this number.
///
/// # Errors
/// No driver, one that is too old, no such device.
pub fn device(ordinal: usize) -> Result<CudaDevice> {
    handle(ordinal).map(|(_, device)| device)
}

/// `CUDA_ERROR_OUT_OF_MEMORY (2): out of memory`.
pub(super) fn describe(error: DriverError) -> String {
    let name = error.error_name().map_or("unknown error".into(), |name| name.to_string_lossy());
    let text = error.error_string().map_or("no text".into(), |text| text.to_string_lossy());
    format!("{name} ({}): {text}", error.0 as i32)
}

/// `12.4` of 12040.
pub(super) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The driver's handle of a device, and what it tells of it.
pub(super) fn handle(ordinal: usize) -> Result<(sys::CUdevice, CudaDevice)> {
    let found = device_count()?;
    if ordinal >= found {
        return Err(Error::NoDevice { ordinal, found });
    }
    let failed = |call| {
        move |error| Error::Driver { device: format!("CUDA device {ordinal}"), call, reason: describe(error) }
    };
    let device = result::device::get(ordinal as c_int).map_err(failed("cuDeviceGet"))?;
    let attribute = |attribute| {
        // SAFETY: `device` was just given out by the driver, as it was below.
        unsafe { result::device::get_attribute(device, attribute) }
            .map(|value| value as u32)
            .map_err(failed("cuDeviceGetAttribute"))
    };
    let arch = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let sm_count = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
    // SAFETY: as above.
    let memory_bytes =
        unsafe { result::device::total_mem(device) }.map_err(failed("cuDeviceTotalMem"))? as u64;
    let driver_version = driver_version()?;
    Ok((device, CudaDevice { ordinal, name, arch, sm_count, memory_bytes, driver_version }))
}

/// Opens the library, looks its symbols up, and counts the devices.
fn device_count() -> Result<usize> {
    load()?;
    let found = driver_version()?;
    if found < MIN_DRIVER {
        return Err(Error::DriverTooOld {
            found: version_text(found),
            needed: format!("{} (for the machine code that NVRTC 12 makes)", version_text(MIN_DRIVER)),
        });
    }
    let refused = |error| Error::NoDriver { reason: describe(error) };
    match result::init() {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(0),
        done => done.map_err(refused)?,
    }
    match result::device::get_count() {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        count => count.map(|n| n as usize).map_err(refused),
    }
}

fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the symbol is there; the pointer is to a live c_int.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|error| Error::NoDriver { reason: describe(error) })?;
    Ok(version)
}

fn load() -> Result<()> {
    // SAFETY: opening the driver's library runs its initialisers: it is the system's own.
    if !unsafe { sys::is_culib_present() } {
        let reason =
            "libcuda.so (Windows: nvcuda.dll) could not be opened; it comes with the NVIDIA driver".into();
        return Err(Error::NoDriver { reason });
    }
    // SAFETY: it was opened just now.
    let library = unsafe { sys::culib() };
    let missing = SYMBOLS.iter().find(|name| {
        // SAFETY: the symbol is only looked for.
        unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err()
    });
    match missing {
        None => Ok(()),
        Some(name) => Err(Error::DriverTooOld {
            found: format!("a version without {name}"),
            needed: version_text(MIN_DRIVER),
        }),
    }
}
