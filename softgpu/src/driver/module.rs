//! Modules and their functions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::faults::ptx_of_driver;
use super::{Error, Session};
use crate::exec::{LoadError, LoadedModule};
use crate::ptx::{self, Kernel, Module, PtxError};

/// A module in the device's memory.
pub(crate) struct LoadedImage {
    loaded: LoadedModule,
    unloaded: AtomicBool,
}

impl LoadedImage {
    pub fn loaded(&self) -> &LoadedModule {
        &self.loaded
    }

    pub fn module(&self) -> &Module {
        &self.loaded.module
    }

    pub fn is_unloaded(&self) -> bool {
        self.unloaded.load(Relaxed)
    }

    /// Its global and const variables: (address, bytes).
    pub fn globals(&self) -> impl Iterator<Item = (u64, u64)> {
        self.module().globals().filter_map(|variable| self.loaded.global(&variable.name))
    }
}

/// A kernel with what the application has set for it.
#[derive(Clone)]
pub(crate) struct Function {
    pub module: u64,
    pub image: Arc<LoadedImage>,
    pub name: String,
    /// Dynamic shared memory that a launch may ask for.
    pub max_dynamic_shared_bytes: u32,
    /// Other settable attributes, by number.
    pub carveout: i32,
}

impl Function {
    pub fn kernel(&self) -> Result<&Kernel, Error> {
        self.image.module().kernel(&self.name).ok_or(Error::INVALID_HANDLE)
    }

    pub fn static_shared_bytes(&self) -> Result<u32, Error> {
        Ok(self.kernel()?.static_shared_bytes(self.image.module()))
    }
}

/// Machine code, of which the software GPU executes none: ELF, and the fat binary's container.
const MACHINE_CODE: [&[u8]; 3] = [b"\x7fELF", &[0x50, 0xed, 0x55, 0xba], &[0xb1, 0x43, 0x62, 0x46]];

/// Whether an image begins as machine code does.
pub(crate) fn is_machine_code(image: &[u8]) -> bool {
    MACHINE_CODE.iter().any(|magic| image.starts_with(magic))
}

impl Session {
    /// Loads PTX. The text of an error is what the log gets.
    pub fn load_module(&mut self, text: &str) -> Result<u64, (Error, String)> {
        self.context().map_err(|error| (error, String::new()))?;
        if self.faults.ptx_too_new {
            return Err((Error::UNSUPPORTED_PTX_VERSION, "fault: PTX is newer than the driver".to_owned()));
        }
        let mut spec = (*self.spec).clone();
        let version = self.faults.driver_version.unwrap_or(spec.driver_version);
        spec.ptx_version = spec.ptx_version.min(ptx_of_driver(version));
        let module = ptx::parse(text, &spec).map_err(|error| self.refusal(&error))?;
        let context = self.context().map_err(|error| (error, String::new()))?;
        let memory = Arc::clone(&context.memory);
        let alloc = |bytes| if self.faults.allocation_fails() { None } else { memory.alloc(bytes) };
        let loaded = LoadedModule::with(module, &memory, alloc).map_err(|error| {
            let code =
                if error == LoadError::OutOfMemory { Error::OUT_OF_MEMORY } else { Error::INVALID_PTX };
            (code, error.to_string())
        })?;
        let handle = self.handle();
        let image = LoadedImage { loaded, unloaded: AtomicBool::new(false) };
        if let Some(context) = &mut self.context {
            context.modules.insert(handle, Arc::new(image));
        }
        Ok(handle)
    }

    /// A text that does not fit driver or device is the application's business, one that we do not understand ours.
    fn refusal(&mut self, error: &PtxError) -> (Error, String) {
        let code = match error {
            PtxError::TooNew { .. } => Error::UNSUPPORTED_PTX_VERSION,
            PtxError::Target { .. } => Error::NO_BINARY_FOR_GPU,
            PtxError::Syntax { .. } => {
                self.complain(format!("a module does not load: {error}"));
                Error::INVALID_PTX
            }
        };
        (code, error.to_string())
    }

    /// Unloads a module once its queued launches have run, as a driver does.
    pub fn unload_module(&mut self, handle: u64) -> Result<(), Error> {
        if !self.context()?.modules.contains_key(&handle) {
            self.complain(format!("cuModuleUnload: {handle:#x} is not a loaded module"));
            return Err(Error::INVALID_HANDLE);
        }
        let finished = self.finish_all();
        let context = self.context()?;
        if let Some(image) = context.modules.remove(&handle) {
            image.unloaded.store(true, Relaxed);
            for (addr, _) in image.globals() {
                let _ = context.memory.free(addr);
            }
            context.functions.retain(|_, function| function.module != handle);
        }
        finished
    }

    /// The function of this name.
    pub fn find_function(&mut self, module: u64, name: &str) -> Result<u64, Error> {
        let default = self.spec.shared_bytes_per_block;
        let context = self.context()?;
        let image = Arc::clone(context.modules.get(&module).ok_or(Error::INVALID_HANDLE)?);
        let known = context.functions.iter().find(|(_, known)| known.module == module && known.name == name);
        if let Some((&handle, _)) = known {
            return Ok(handle);
        }
        let kernel = image.module().kernel(name).ok_or(Error::NOT_FOUND)?;
        let used = kernel.static_shared_bytes(image.module());
        let function = Function {
            module,
            name: name.to_owned(),
            max_dynamic_shared_bytes: default.saturating_sub(used),
            carveout: -1,
            image: Arc::clone(&image),
        };
        let handle = self.handle();
        self.context()?.functions.insert(handle, function);
        Ok(handle)
    }

    /// A function by its handle.
    pub fn function(&mut self, handle: u64) -> Result<&mut Function, Error> {
        let known = self.context()?.functions.contains_key(&handle);
        if !known {
            self.complain(format!("{handle:#x} is not a function of a loaded module"));
        }
        self.context()?.functions.get_mut(&handle).ok_or(Error::INVALID_HANDLE)
    }
}
