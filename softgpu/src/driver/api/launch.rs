//! Launches.

use std::ffi::{c_uint, c_void};
use std::sync::Arc;

use super::Handle;
use crate::driver::work::{KernelLaunch, Work};
use crate::driver::{Code, Error, Needs, Session, call};
use crate::ptx::Kernel;

/// `CU_LAUNCH_PARAM_BUFFER_POINTER`, `_SIZE`: the parameters as one block, laid out by the application.
const PARAM_BUFFER: usize = 1;
const PARAM_BUFFER_BYTES: usize = 2;

/// Grid, block and dynamic shared memory.
#[derive(Clone, Copy)]
struct Shape {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
}

/// Copies the parameters: the application may forget them after the call.
fn params(
    kernel: &Kernel,
    each: *const *const c_void,
    extra: *const *const c_void,
) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; kernel.param_bytes as usize];
    if kernel.params.is_empty() {
        return Ok(bytes);
    }
    if !each.is_null() {
        for (at, (offset, variable)) in kernel.params.iter().enumerate() {
            // SAFETY: the API takes as many pointers as the kernel has parameters.
            let from = unsafe { each.add(at).read() };
            if from.is_null() {
                return Err(Error::INVALID_VALUE);
            }
            let to = bytes.get_mut(*offset as usize..(*offset + variable.bytes) as usize);
            let to = to.ok_or(Error::INVALID_VALUE)?;
            // SAFETY: each points to a value of its parameter's size.
            unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from.cast(), to.len()) };
        }
        return Ok(bytes);
    }
    let (buffer, len) = param_buffer(extra)?;
    if len != bytes.len() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: the application says that the buffer has these many bytes.
    unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(buffer.cast(), len) };
    Ok(bytes)
}

/// The buffer of `extra`: pairs of a key and a value, ended by a null key.
fn param_buffer(extra: *const *const c_void) -> Result<(*const c_void, usize), Error> {
    if extra.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    let (mut buffer, mut len) = (std::ptr::null(), 0);
    for pair in 0..2 {
        // SAFETY: the list is not at its end yet, so a key is there.
        let key = unsafe { extra.add(2 * pair).read() } as usize;
        if key == 0 {
            break;
        }
        // SAFETY: a key is followed by its value.
        let value = unsafe { extra.add(2 * pair + 1).read() };
        match key {
            PARAM_BUFFER => buffer = value,
            // SAFETY: the value of this key points to a size.
            PARAM_BUFFER_BYTES => len = unsafe { value.cast::<usize>().read() },
            _ => return Err(Error::INVALID_VALUE),
        }
    }
    if buffer.is_null() { Err(Error::INVALID_VALUE) } else { Ok((buffer, len)) }
}

/// The limits of the device and of the kernel.
fn check(session: &mut Session, function: Handle, shape: Shape) -> Result<(), Error> {
    let spec = Arc::clone(&session.spec);
    let function = session.function(function)?;
    let kernel = function.kernel()?;
    let within =
        |dims: [c_uint; 3], max: [c_uint; 3]| dims.iter().zip(max).all(|(&dim, max)| dim >= 1 && dim <= max);
    let threads = shape.block.iter().map(|&dim| u64::from(dim)).product::<u64>();
    let allowed = kernel.maxntid.map_or(u64::from(spec.max_threads_per_block), |max| {
        max.iter().map(|&dim| u64::from(dim)).product::<u64>().min(u64::from(spec.max_threads_per_block))
    });
    let why = if !within(shape.grid, spec.max_grid) {
        format!("grid {:?}, the device takes up to {:?}", shape.grid, spec.max_grid)
    } else if !within(shape.block, spec.max_block) || threads > allowed {
        format!("block {:?}, {threads} threads: the kernel takes up to {allowed}", shape.block)
    } else if kernel.reqntid.is_some_and(|required| required != shape.block) {
        format!("block {:?}, the kernel requires {:?}", shape.block, kernel.reqntid.unwrap_or_default())
    } else if shape.shared_bytes > function.max_dynamic_shared_bytes {
        format!(
            "{} bytes of dynamic shared memory, the function is set up for {}",
            shape.shared_bytes, function.max_dynamic_shared_bytes
        )
    } else if function.static_shared_bytes()? + shape.shared_bytes > spec.shared_bytes_per_block_optin {
        format!("{} + {} bytes of shared memory", function.static_shared_bytes()?, shape.shared_bytes)
    } else if kernel.param_bytes > spec.max_param_bytes {
        format!("{} bytes of parameters", kernel.param_bytes)
    } else {
        return Ok(());
    };
    let name = function.name.clone();
    session.complain(format!("launch of `{name}` refused: {why}"));
    Err(Error::INVALID_VALUE)
}

fn launch(
    session: &mut Session,
    function: Handle,
    shape: Shape,
    stream: Handle,
    each: *const *const c_void,
    extra: *const *const c_void,
) -> Result<(), Error> {
    check(session, function, shape)?;
    if session.faults.submission_fails() {
        return Err(Error::INVALID_VALUE);
    }
    let function = session.function(function)?;
    let launch = KernelLaunch {
        params: params(function.kernel()?, each, extra)?,
        image: Arc::clone(&function.image),
        kernel: function.name.clone(),
        grid: shape.grid,
        block: shape.block,
        dynamic_shared_bytes: shape.shared_bytes,
        from_graph: false,
    };
    session.submit(stream, Work::Launch(Arc::new(launch))).map(|_| ())
}

// The signature is CUDA's.
#[allow(clippy::too_many_arguments)]
#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: Handle,
    each: *const *const c_void,
    extra: *const *const c_void,
) -> Code {
    let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
    call("cuLaunchKernel", Needs::Context, |session| launch(session, function, shape, stream, each, extra))
}

/// `CUlaunchConfig`.
#[repr(C)]
struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: Handle,
    attributes: *const c_void,
    n_attributes: c_uint,
}

/// Clusters, programmatic launches and the other attributes are not here.
#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernelEx(
    config: Option<&LaunchConfig>,
    function: Handle,
    each: *const *const c_void,
    extra: *const *const c_void,
) -> Code {
    call("cuLaunchKernelEx", Needs::Context, |session| {
        let config = config.ok_or(Error::INVALID_VALUE)?;
        if config.n_attributes > 0 {
            return Err(Error::NOT_SUPPORTED);
        }
        let shape = Shape { grid: config.grid, block: config.block, shared_bytes: config.shared_bytes };
        launch(session, function, shape, config.stream, each, extra)
    })
}
