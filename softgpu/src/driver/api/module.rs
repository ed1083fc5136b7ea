//! Modules: PTX alone. Machine code is answered as on a card of another architecture.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{DevicePtr, Handle, put_text, text};
use crate::driver::module::is_machine_code;
use crate::driver::{Code, Error, Needs, Out, Session, call, put, put_if};

/// Enough of an image to know what it is.
const MAGIC_BYTES: usize = 4;

/// What the image says, if it is a text.
fn image_text(image: *const c_void) -> Result<String, Error> {
    if image.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    let mut magic = [0; MAGIC_BYTES];
    for (at, byte) in magic.iter_mut().enumerate() {
        // SAFETY: an image has a byte here: a text ends with its first 0, after which we do not read; machine code is longer.
        *byte = unsafe { image.cast::<u8>().add(at).read() };
        if *byte == 0 {
            break;
        }
    }
    if is_machine_code(&magic) {
        return Err(Error::NO_BINARY_FOR_GPU);
    }
    // SAFETY: what is not machine code is a C string, says the API.
    Ok(unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy().into_owned())
}

/// Loads an image; the text of an error goes to `log`.
fn load(session: &mut Session, image: *const c_void, log: impl FnOnce(&str)) -> Result<Handle, Error> {
    session.forbid_in_capture("cuModuleLoadData")?;
    let loaded = match image_text(image) {
        Ok(text) => session.load_module(&text),
        Err(error) => Err((error, "not a text: the software GPU executes PTX alone".to_owned())),
    };
    loaded.map_err(|(error, why)| {
        log(&why);
        error
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(module: Out<'_, Handle>, image: *const c_void) -> Code {
    call("cuModuleLoadData", Needs::Context, |session| {
        let module = module.ok_or(Error::INVALID_VALUE)?;
        put(Some(module), load(session, image, |_| ())?)
    })
}

/// `CU_JIT_ERROR_LOG_BUFFER`, and its size, which comes back as the bytes used; the same for the information log.
const INFO_LOG: c_int = 3;
const INFO_LOG_BYTES: c_int = 4;
const ERROR_LOG: c_int = 5;
const ERROR_LOG_BYTES: c_int = 6;

/// Where the options want the log.
struct Logs {
    error: (*mut c_char, usize),
    info: (*mut c_char, usize),
    /// The slots that take the bytes written.
    error_bytes: *mut usize,
    info_bytes: *mut usize,
}

/// Reads the options: `n` kinds, and `n` values which are pointers or, of sizes, numbers.
fn logs(n: c_uint, options: *const c_int, values: *mut *mut c_void) -> Logs {
    let null = std::ptr::null_mut();
    let mut logs =
        Logs { error: (null, 0), info: (null, 0), error_bytes: null.cast(), info_bytes: null.cast() };
    if options.is_null() || values.is_null() {
        return logs;
    }
    for at in 0..n as usize {
        // SAFETY: the API takes two arrays of `n` here.
        let (option, slot) = unsafe { (options.add(at).read(), values.add(at)) };
        // SAFETY: as above.
        let value = unsafe { slot.read() };
        match option {
            INFO_LOG => logs.info.0 = value.cast(),
            INFO_LOG_BYTES => (logs.info.1, logs.info_bytes) = (value as c_uint as usize, slot.cast()),
            ERROR_LOG => logs.error.0 = value.cast(),
            ERROR_LOG_BYTES => (logs.error.1, logs.error_bytes) = (value as c_uint as usize, slot.cast()),
            _ => {}
        }
    }
    logs
}

/// Fills a log and says how much of it.
fn write_log((buffer, bytes): (*mut c_char, usize), written: *mut usize, text: &str) {
    let put = put_text(buffer, bytes, text).is_ok();
    if !written.is_null() {
        // SAFETY: the slot of the size option in the application's array of values, as wide as a pointer.
        unsafe { written.write(if put { text.len().min(bytes - 1) } else { 0 }) };
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadDataEx(
    module: Out<'_, Handle>,
    image: *const c_void,
    n_options: c_uint,
    options: *const c_int,
    values: *mut *mut c_void,
) -> Code {
    call("cuModuleLoadDataEx", Needs::Context, |session| {
        let module = module.ok_or(Error::INVALID_VALUE)?;
        let logs = logs(n_options, options, values);
        write_log(logs.info, logs.info_bytes, "");
        let mut log = String::new();
        let loaded = load(session, image, |text| log = text.to_owned());
        write_log(logs.error, logs.error_bytes, &log);
        put(Some(module), loaded?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadFatBinary(_module: Out<'_, Handle>, _image: *const c_void) -> Code {
    call("cuModuleLoadFatBinary", Needs::Context, |_| Err(Error::NO_BINARY_FOR_GPU))
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoad(module: Out<'_, Handle>, path: *const c_char) -> Code {
    call("cuModuleLoad", Needs::Context, |session| {
        let module = module.ok_or(Error::INVALID_VALUE)?;
        let mut image = std::fs::read(text(path)?).map_err(|_| Error::FILE_NOT_FOUND)?;
        image.push(0);
        put(Some(module), load(session, image.as_ptr().cast(), |_| ())?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: Handle) -> Code {
    call("cuModuleUnload", Needs::Destroys, |session| session.unload_module(module))
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(function: Out<'_, Handle>, module: Handle, name: *const c_char) -> Code {
    call("cuModuleGetFunction", Needs::Context, |session| {
        let name = text(name)?;
        let function = function.ok_or(Error::INVALID_VALUE)?;
        put(Some(function), session.find_function(module, &name)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunctionCount(count: Out<'_, c_uint>, module: Handle) -> Code {
    call("cuModuleGetFunctionCount", Needs::Context, |session| {
        let image = session.context()?.modules.get(&module).ok_or(Error::INVALID_HANDLE)?;
        put(count, image.module().kernels.iter().filter(|kernel| kernel.is_entry).count() as c_uint)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetGlobal_v2(
    addr: Out<'_, DevicePtr>,
    bytes: Out<'_, usize>,
    module: Handle,
    name: *const c_char,
) -> Code {
    call("cuModuleGetGlobal_v2", Needs::Context, |session| {
        let name = text(name)?;
        let image = session.context()?.modules.get(&module).ok_or(Error::INVALID_HANDLE)?;
        let (start, len) = image.loaded().global(&name).ok_or(Error::NOT_FOUND)?;
        put_if(addr, start);
        put_if(bytes, len as usize);
        Ok(())
    })
}

/// Modules are loaded when they are asked for: `CU_MODULE_EAGER_LOADING`.
#[unsafe(no_mangle)]
extern "C" fn cuModuleGetLoadingMode(mode: Out<'_, c_uint>) -> Code {
    call("cuModuleGetLoadingMode", Needs::Nothing, |_| put(mode, 1))
}
