//! [`Kernels`]: what was loaded into a context.

use super::compile::{Compiler, sources};
use super::context::{Context, Garbage, Work};
use super::driver::describe;
use super::nvrtc::Image;
use super::{KernelSpec, Source};
use crate::{Error, Result};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::sys::CUfunction_attribute as FunctionAttribute;
use cudarc::driver::sys::CUjit_option as Option_;
use cudarc::driver::{DriverError, result, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// Kernels by name, and the modules that hold them.
#[derive(Debug)]
pub(super) struct Kernels {
    by_name: HashMap<&'static str, Kernel>,
    modules: Vec<sys::CUmodule>,
    context: Arc<Context>,
}

/// A kernel that can be launched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    pub(super) function: sys::CUfunction,
    /// The most dynamic shared memory that it can be launched with.
    pub(super) max_shared_bytes: u32,
}

// SAFETY: handles are addresses that the driver takes from any thread.
unsafe impl Send for Kernels {}
// SAFETY: as above.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Compiles all kernels and loads them.
    pub(super) fn load(context: &Arc<Context>, compiler: &Compiler) -> Result<Self> {
        let sources = sources();
        let images = compiler.compile(&sources)?;
        let mut kernels = Self { by_name: HashMap::new(), modules: vec![], context: context.clone() };
        let work = context.work()?;
        let runs_code = compiler.makes_code_for(context.device.arch);
        for (source, (image, _)) in sources.into_iter().zip(images) {
            let module = load(context, &work, source, &image, runs_code)?;
            kernels.modules.push(module);
            for spec in source.kernels {
                let kernel = function(context, &work, module, source, *spec)?;
                let twin = kernels.by_name.insert(spec.name, kernel);
                assert!(twin.is_none(), "two kernels are called {}", spec.name);
            }
        }
        drop(work); // before `kernels`, should dropping it ever come first
        Ok(kernels)
    }

    pub(super) fn get(&self, name: &'static str) -> Kernel {
        *self.by_name.get(name).unwrap_or_else(|| panic!("no Source declares a kernel {name}"))
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        self.modules.iter().for_each(|&module| self.context.discard(Garbage::Module(module)));
    }
}

/// Machine code where the device runs it, PTX where the driver refuses that.
fn load(
    context: &Context,
    _work: &Work<'_>,
    source: &Source,
    image: &Image,
    runs_code: bool,
) -> Result<sys::CUmodule> {
    let mut refused = vec![];
    if runs_code && !image.cubin.is_empty() {
        // SAFETY: the compiler made the image; it is whole.
        match unsafe { result::module::load_data(image.cubin.as_ptr().cast()) } {
            Ok(module) => return Ok(module),
            Err(error) if is_refusal(error) => refused.push(format!("machine code: {}", describe(error))),
            Err(error) => return Err(failed(context, source, image.cubin.len(), error)),
        }
    }
    match load_ptx(&image.ptx) {
        Ok(module) => Ok(module),
        Err((error, log)) if is_refusal(error) => {
            refused.push(format!("PTX: {} {log}", describe(error)));
            let reason = refused.join("; ").trim_end().to_string();
            let device = context.device.name.clone();
            Err(Error::KernelRefused { device, source_name: source.name.into(), reason })
        }
        Err((error, _)) => Err(failed(context, source, image.ptx.len(), error)),
    }
}

/// `bytes`: of the image. What the driver takes beside them is its business.
fn failed(context: &Context, source: &Source, bytes: usize, error: DriverError) -> Error {
    match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            let device = format!("{}, kernels of {}", context.device.name, source.name);
            Error::OutOfMemory { device, bytes }
        }
        _ => context.failed("cuModuleLoadData", error),
    }
}

/// Whether the driver found fault with the image, rather than with its own state.
fn is_refusal(error: DriverError) -> bool {
    use sys::CUresult as E;
    matches!(
        error.0,
        E::CUDA_ERROR_INVALID_IMAGE
            | E::CUDA_ERROR_NO_BINARY_FOR_GPU
            | E::CUDA_ERROR_INVALID_PTX
            | E::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | E::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            | E::CUDA_ERROR_JIT_COMPILATION_DISABLED
            | E::CUDA_ERROR_INVALID_SOURCE
            | E::CUDA_ERROR_SHARED_OBJECT_INIT_FAILED
            | E::CUDA_ERROR_NOT_SUPPORTED
            | E::CUDA_ERROR_INVALID_VALUE
            | E::CUDA_ERROR_NOT_FOUND
    )
}

/// Loads PTX; with the error, what the driver's compiler says.
fn load_ptx(ptx: &[u8]) -> std::result::Result<sys::CUmodule, (DriverError, String)> {
    const LOG_BYTES: usize = 8192;
    let mut log = vec![0u8; LOG_BYTES];
    let text = [ptx, b"\0"].concat();
    let mut options = [Option_::CU_JIT_ERROR_LOG_BUFFER, Option_::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // Sizes are passed in the place of pointers.
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), LOG_BYTES as *mut c_void];
    let mut module = std::ptr::null_mut();
    // SAFETY: the text ends with a NUL; the log has the size that is told.
    let status = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            text.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(LOG_BYTES);
    status.result().map(|()| module).map_err(|error| (error, String::from_utf8_lossy(&log[..end]).into()))
}

/// Looks a kernel up, and opts in to more shared memory than the 48 KiB that a block has for the asking.
fn function(
    context: &Context,
    work: &Work<'_>,
    module: sys::CUmodule,
    source: &Source,
    spec: KernelSpec,
) -> Result<Kernel> {
    const FOR_THE_ASKING: u32 = 48 << 10;
    let refused = |call: &str, error| Error::KernelRefused {
        device: context.device.name.clone(),
        source_name: source.name.into(),
        reason: format!("{}: {call}: {}", spec.name, describe(error)),
    };
    let name = CString::new(spec.name).expect("no kernel has a NUL in its name");
    // SAFETY: the module was just loaded.
    let function = unsafe { result::module::get_function(module, name) }
        .map_err(|error| refused("cuModuleGetFunction", error))?;
    if spec.max_shared_bytes <= FOR_THE_ASKING {
        return Ok(Kernel { function, max_shared_bytes: spec.max_shared_bytes });
    }
    // A device may have less than the largest launch takes: then that one is not chosen there.
    let max_shared_bytes = spec.max_shared_bytes.min(context.max_shared_bytes(work)?);
    // SAFETY: the function was just given out.
    unsafe {
        result::function::set_function_attribute(
            function,
            FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            max_shared_bytes as i32,
        )
    }
    .map_err(|error| refused("cuFuncSetAttribute", error))?;
    Ok(Kernel { function, max_shared_bytes })
}

impl Context {
    /// Shared memory of a block, opted in.
    fn max_shared_bytes(&self, _work: &Work<'_>) -> Result<u32> {
        let attribute = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        // SAFETY: the handle is the driver's.
        unsafe { result::device::get_attribute(self.device_handle, attribute) }
            .map(|bytes| bytes as u32)
            .map_err(|error| self.failed("cuDeviceGetAttribute", error))
    }
}
