//! [`Nvrtc`]: the run-time compiler. Its few functions are looked up by ourselves: cudarc panics where one is missing, and
//! finds version 12 by name alone.

use libloading::Library;
use std::error::Error;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

type Program = *mut c_void;

/// The compiler's library.
#[derive(Debug)]
pub(crate) struct Nvrtc {
    /// Version, (major, minor).
    pub(crate) version: (i32, i32),
    /// The file, or the name that the loader knew it by.
    pub(crate) path: PathBuf,
    functions: Functions,
    _library: Library, // keeps the functions mapped
}

/// What a source was compiled to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Image {
    /// PTX text, without the final NUL.
    pub ptx: Vec<u8>,
    /// Machine code; empty for a virtual architecture.
    pub cubin: Vec<u8>,
    /// Warnings.
    pub log: String,
}

/// Declares the functions with their names in the library.
macro_rules! functions {
    ($($field:ident = $symbol:ident($($arg:ty),*);)*) => {
        #[derive(Debug, Clone, Copy)]
        struct Functions {
            $($field: unsafe extern "C" fn($($arg),*) -> c_int,)*
            error_text: unsafe extern "C" fn(c_int) -> *const c_char,
        }

        impl Functions {
            fn load(library: &Library) -> Result<Self, String> {
                // SAFETY: the types are those of nvrtc.h, the same from CUDA 11.2 to 13.
                unsafe {
                    Ok(Self {
                        $($field: symbol(library, stringify!($symbol))?,)*
                        error_text: symbol(library, "nvrtcGetErrorString")?,
                    })
                }
            }
        }
    };
}

functions! {
    get_version = nvrtcVersion(*mut c_int, *mut c_int);
    n_archs = nvrtcGetNumSupportedArchs(*mut c_int);
    archs = nvrtcGetSupportedArchs(*mut c_int);
    create = nvrtcCreateProgram(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char);
    destroy = nvrtcDestroyProgram(*mut Program);
    compile = nvrtcCompileProgram(Program, c_int, *const *const c_char);
    ptx_size = nvrtcGetPTXSize(Program, *mut usize);
    ptx = nvrtcGetPTX(Program, *mut c_char);
    cubin_size = nvrtcGetCUBINSize(Program, *mut usize);
    cubin = nvrtcGetCUBIN(Program, *mut c_char);
    log_size = nvrtcGetProgramLogSize(Program, *mut usize);
    log = nvrtcGetProgramLog(Program, *mut c_char);
}

/// # Safety
/// `T` is the type of the function `name`.
unsafe fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
    // SAFETY: as the caller vouches.
    unsafe { library.get::<T>(name.as_bytes()) }.map(|symbol| *symbol).map_err(|_| format!("it lacks {name}"))
}

type Get<T> = unsafe extern "C" fn(Program, *mut T) -> c_int;

impl Nvrtc {
    /// Opens a file, or whatever the loader finds by that name.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let is_name = path.parent().is_none_or(|parent| parent.as_os_str().is_empty());
        if !is_name && !path.exists() {
            return Err("no such file".into());
        }
        let name: &OsStr = path.as_os_str();
        // SAFETY: the file carries the name of NVIDIA's library in a place that the user or the system chose; its
        // initialisers run.
        let library = unsafe { Library::new(name) }.map_err(|error| match is_name {
            true => "not found by the loader".into(),
            false => error.source().map_or_else(|| error.to_string(), ToString::to_string),
        })?;
        let functions = Functions::load(&library)?;
        let mut version = (0, 0);
        // SAFETY: both pointers are to live integers.
        let status = unsafe { (functions.get_version)(&mut version.0, &mut version.1) };
        match (status, version.0) {
            (0, 12..) => Ok(Self { version, path: path.into(), functions, _library: library }),
            (0, _) => Err(format!("version {}.{}, 12 or newer is needed", version.0, version.1)),
            _ => Err("it does not tell its version".into()),
        }
    }

    /// The architectures that it compiles for: 75, 80, ...
    pub(super) fn archs(&self) -> Vec<u32> {
        let mut n = 0;
        // SAFETY: the pointer is to a live integer.
        if unsafe { (self.functions.n_archs)(&mut n) } != 0 || n <= 0 {
            return vec![];
        }
        let mut archs = vec![0; n as usize];
        // SAFETY: there is room for as many as it said.
        let status = unsafe { (self.functions.archs)(archs.as_mut_ptr()) };
        if status == 0 { archs.iter().map(|&arch| arch as u32).collect() } else { vec![] }
    }

    /// Compiles `text`.
    ///
    /// # Errors
    /// The compiler's log.
    pub(super) fn compile(&self, name: &str, text: &str, options: &[String]) -> Result<Image, String> {
        let c_string = |text: &str| CString::new(text).map_err(|_| "a source holds a NUL".to_string());
        let (name, text) = (c_string(name)?, c_string(text)?);
        let options = options.iter().map(|option| c_string(option)).collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let f = &self.functions;
        let mut program = Running { program: std::ptr::null_mut(), functions: f };
        let none = std::ptr::null();
        // SAFETY: the strings live until the end of this function; there are no headers.
        self.check(unsafe { (f.create)(&mut program.program, text.as_ptr(), name.as_ptr(), 0, none, none) })?;
        // SAFETY: the program was created; the options live.
        let status = unsafe { (f.compile)(program.program, pointers.len() as c_int, pointers.as_ptr()) };
        let log = self.bytes(&program, f.log_size, f.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches(['\0', '\n']).to_string();
        if let Err(error) = self.check(status) {
            return Err(if log.is_empty() { error } else { format!("{error}\n{log}") });
        }
        let mut ptx = self.bytes(&program, f.ptx_size, f.ptx)?;
        ptx.truncate(ptx.iter().position(|&byte| byte == 0).unwrap_or(ptx.len()));
        let cubin = self.bytes(&program, f.cubin_size, f.cubin)?;
        Ok(Image { ptx, cubin, log })
    }

    fn check(&self, status: c_int) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: it returns a static string for any number.
        let text = unsafe { (self.functions.error_text)(status) };
        if text.is_null() {
            return Err(format!("NVRTC error {status}"));
        }
        // SAFETY: a C string of the library, which stays loaded.
        Err(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    fn bytes(&self, program: &Running<'_>, size: Get<usize>, get: Get<c_char>) -> Result<Vec<u8>, String> {
        let mut n = 0;
        // SAFETY: the program lives; the pointer is to a live integer.
        self.check(unsafe { size(program.program, &mut n) })?;
        let mut bytes = vec![0u8; n];
        if n > 0 {
            // SAFETY: there is room for as many bytes as it said.
            self.check(unsafe { get(program.program, bytes.as_mut_ptr().cast()) })?;
        }
        Ok(bytes)
    }
}

struct Running<'a> {
    program: Program,
    functions: &'a Functions,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: it was created and is destroyed once.
            unsafe { (self.functions.destroy)(&mut self.program) };
        }
    }
}
