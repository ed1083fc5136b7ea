//! Attributes of functions, `CUfunction_attribute`.

use std::ffi::{c_int, c_uint};

use super::Handle;
use crate::driver::{Code, Error, Needs, Out, Session, call, put, put_if};

const MAX_THREADS: c_int = 0;
const SHARED_BYTES: c_int = 1;
const CONST_BYTES: c_int = 2;
const LOCAL_BYTES: c_int = 3;
const REGISTERS: c_int = 4;
const PTX_VERSION: c_int = 5;
const BINARY_VERSION: c_int = 6;
const MAX_DYNAMIC_SHARED_BYTES: c_int = 8;
const CARVEOUT: c_int = 9;
const END: c_int = 17;

fn get(session: &mut Session, number: c_int, function: Handle) -> Result<c_int, Error> {
    let spec = std::sync::Arc::clone(&session.spec);
    let function = session.function(function)?;
    let kernel = function.kernel()?;
    let module = function.image.module();
    let value = match number {
        MAX_THREADS => kernel.maxntid.map_or(spec.max_threads_per_block, |threads| threads.iter().product()),
        SHARED_BYTES => function.static_shared_bytes()?,
        CONST_BYTES => {
            module.globals().filter(|one| one.space == crate::ptx::Space::Const).map(|one| one.bytes).sum()
        }
        LOCAL_BYTES => kernel.local_bytes(),
        // Nobody has allocated registers: what the text names, which is far more than ptxas takes.
        REGISTERS => kernel.virtual_registers().min(spec.max_registers_per_thread),
        PTX_VERSION => module.version.0 * 10 + module.version.1,
        BINARY_VERSION => spec.arch.0 * 10 + spec.arch.1,
        MAX_DYNAMIC_SHARED_BYTES => function.max_dynamic_shared_bytes,
        CARVEOUT => return Ok(function.carveout),
        number if (0..END).contains(&number) => 0,
        _ => return Err(Error::INVALID_VALUE),
    };
    Ok(value as c_int)
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(value: Out<'_, c_int>, number: c_int, function: Handle) -> Code {
    call("cuFuncGetAttribute", Needs::Context, |session| put(value, get(session, number, function)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: Handle, number: c_int, value: c_int) -> Code {
    call("cuFuncSetAttribute", Needs::Context, |session| {
        let limit = session.spec.shared_bytes_per_block_optin;
        let function = session.function(function)?;
        match number {
            MAX_DYNAMIC_SHARED_BYTES => {
                let value = c_uint::try_from(value).map_err(|_| Error::INVALID_VALUE)?;
                if function.static_shared_bytes()?.saturating_add(value) > limit {
                    return Err(Error::INVALID_VALUE);
                }
                function.max_dynamic_shared_bytes = value;
            }
            // -1 is the driver's choice, then percent.
            CARVEOUT if (-1..=100).contains(&value) => function.carveout = value,
            _ => return Err(Error::INVALID_VALUE),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetCacheConfig(function: Handle, _config: c_uint) -> Code {
    call("cuFuncSetCacheConfig", Needs::Context, |session| session.function(function).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetModule(module: Out<'_, Handle>, function: Handle) -> Code {
    call("cuFuncGetModule", Needs::Context, |session| put(module, session.function(function)?.module))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetParamInfo(
    function: Handle,
    index: usize,
    offset: Out<'_, usize>,
    bytes: Out<'_, usize>,
) -> Code {
    call("cuFuncGetParamInfo", Needs::Context, |session| {
        let function = session.function(function)?;
        let (at, variable) = function.kernel()?.params.get(index).ok_or(Error::INVALID_VALUE)?;
        put_if(bytes, variable.bytes as usize);
        put(offset, *at as usize)
    })
}
