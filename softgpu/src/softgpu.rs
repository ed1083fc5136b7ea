//! The handle by which tests load the library, configure it and question it.

use std::ffi::{CStr, CString, c_char};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::control::{BUILD, CallCount, Fault, LaunchRecord, Options, Reply, Request};
use crate::spec::DeviceSpec;

/// Why the software GPU cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoftGpuError {
    /// Its file is not beside the test.
    #[error(
        "the software GPU is not there: none of {tried:?} is a file; does the package depend on komt-softgpu?"
    )]
    NotFound {
        /// Where it should be.
        tried: Vec<PathBuf>,
    },
    /// It does not load.
    #[error("{path}: {why}", path = path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// In the words of the loader.
        why: String,
    },
    /// It was built from other sources than the test.
    #[error("{path} is of another build ({found}, the test is of {BUILD}): build again", path = path.display())]
    Stale {
        /// The file.
        path: PathBuf,
        /// Its build.
        found: String,
    },
}

/// The file's name: not `libcuda.so`, so that no search finds it.
const FILE: &str = "libkomt_softgpu.so";

type Control = unsafe extern "C" fn(*const c_char) -> *mut c_char;
type Free = unsafe extern "C" fn(*mut c_char);

struct Library {
    control: Control,
    free: Free,
    path: PathBuf,
}

static LIBRARY: OnceLock<Result<Library, SoftGpuError>> = OnceLock::new();
/// One test at a time: the driver is one for the process.
static EXCLUSIVE: Mutex<()> = Mutex::new(());

/// The software GPU, loaded in this process. From then on `dlopen("libcuda.so")`, and so cudarc, finds it.
#[derive(Clone, Copy)]
pub struct SoftGpu {
    library: &'static Library,
}

/// The software GPU for one test alone. Declare it before everything that uses the device, so that it goes last.
pub struct Guard {
    gpu: SoftGpu,
    _exclusive: MutexGuard<'static, ()>,
}

impl Deref for Guard {
    type Target = SoftGpu;

    fn deref(&self) -> &SoftGpu {
        &self.gpu
    }
}

impl SoftGpu {
    /// Loads the library by its absolute path, from the directory of the current executable (`target/<profile>/deps` for a
    /// test) or the `deps` beside it. Once per process; must come before cudarc's first call.
    pub fn load() -> Result<Self, SoftGpuError> {
        match LIBRARY.get_or_init(open) {
            Ok(library) => Ok(Self { library }),
            Err(error) => Err(error.clone()),
        }
    }

    /// Loads it, waits until no other test of this process uses it, and makes it a fresh `spec`.
    pub fn lock(spec: &DeviceSpec) -> Result<Guard, SoftGpuError> {
        let gpu = Self::load()?;
        let exclusive = EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner);
        gpu.reset(spec);
        Ok(Guard { gpu, _exclusive: exclusive })
    }

    /// The file that was loaded.
    pub fn path(&self) -> &'static std::path::Path {
        &self.library.path
    }

    /// Forgets everything, contexts and faults included, and becomes `spec`.
    pub fn reset(&self, spec: &DeviceSpec) {
        self.ask(&Request::Reset(Box::new(spec.clone())));
    }

    /// Will fail so.
    pub fn fault(&self, fault: Fault) {
        self.ask(&Request::Fault(fault));
    }

    /// Will behave so.
    pub fn options(&self, options: &Options) {
        self.ask(&Request::Options(options.clone()));
    }

    /// The launches executed since the last call, if [`Options::record_launches`] is set.
    pub fn take_launches(&self) -> Vec<LaunchRecord> {
        match self.ask(&Request::TakeLaunches) {
            Reply::Launches(launches) => launches,
            other => unexpected(&other),
        }
    }

    /// What was wrong since the last call: one line for each.
    pub fn take_complaints(&self) -> Vec<String> {
        match self.ask(&Request::TakeComplaints) {
            Reply::Texts(texts) => texts,
            other => unexpected(&other),
        }
    }

    /// The functions called since the last call, and how often.
    pub fn take_calls(&self) -> Vec<CallCount> {
        match self.ask(&Request::TakeCalls) {
            Reply::Calls(calls) => calls,
            other => unexpected(&other),
        }
    }

    /// Allocations of device and pinned memory that nobody has freed, those of contexts that are gone included,
    /// unless they went because of an error.
    pub fn live_allocations(&self) -> usize {
        self.count(&Request::LiveAllocations)
    }

    /// Their bytes, device and pinned, of the present context.
    pub fn live_bytes(&self) -> usize {
        self.count(&Request::LiveBytes)
    }

    /// Streams, events, modules and graphs that nobody has destroyed, those of contexts that are gone
    /// included, unless they went because of an error.
    pub fn live_handles(&self) -> usize {
        self.count(&Request::LiveHandles)
    }

    /// How often the primary context was retained and has not been released.
    pub fn live_retains(&self) -> usize {
        self.count(&Request::LiveRetains)
    }

    /// Operations that are queued and have not been executed.
    pub fn pending(&self) -> usize {
        self.count(&Request::Pending)
    }

    fn count(&self, request: &Request) -> usize {
        match self.ask(request) {
            Reply::Count(count) => count as usize,
            other => unexpected(&other),
        }
    }

    fn ask(&self, request: &Request) -> Reply {
        let reply = ask(self.library, request);
        if let Reply::Refused(_) = reply {
            unexpected(&reply);
        }
        reply
    }
}

/// A bug of ours: both sides are of one build.
fn unexpected(reply: &Reply) -> ! {
    panic!("the software GPU answers {reply:?}")
}

fn ask(library: &Library, request: &Request) -> Reply {
    let request = serde_json::to_string(request).expect("a request is JSON");
    let request = CString::new(request).expect("JSON has no NUL");
    // SAFETY: the function is `komt_softgpu_control` of a library of this crate: it takes a C string and answers with one.
    let reply = unsafe { (library.control)(request.as_ptr()) };
    assert!(!reply.is_null(), "the software GPU does not answer");
    // SAFETY: the reply is a C string that is ours until it is freed below.
    let text = unsafe { CStr::from_ptr(reply) }.to_string_lossy().into_owned();
    // SAFETY: freed once, by the library that made it.
    unsafe { (library.free)(reply) };
    serde_json::from_str(&text).unwrap_or(Reply::Refused(text))
}

fn open() -> Result<Library, SoftGpuError> {
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().map(PathBuf::from).unwrap_or_default();
    // A test lies in deps itself, a binary above it, an example beside it.
    let tried = vec![dir.join(FILE), dir.join("deps").join(FILE), dir.join("../deps").join(FILE)];
    let Some(path) = tried.iter().find(|path| path.is_file()) else {
        return Err(SoftGpuError::NotFound { tried });
    };
    let failed = |why: libloading::Error| SoftGpuError::Load { path: path.clone(), why: why.to_string() };
    // SAFETY: the library is of this crate; loading it runs no code of ours.
    let library = unsafe { libloading::Library::new(path) }.map_err(failed)?;
    // SAFETY: the crate exports the function with this signature; the library is never unloaded.
    let control = unsafe { library.get::<Control>(b"komt_softgpu_control\0") }.map_err(failed)?;
    // SAFETY: as above.
    let free = unsafe { library.get::<Free>(b"komt_softgpu_free\0") }.map_err(failed)?;
    let opened = Library { control: *control, free: *free, path: path.clone() };
    // Its functions are called, and its thread may run, until the process ends.
    std::mem::forget(library);
    match ask(&opened, &Request::Build) {
        Reply::Build(build) if build == BUILD => Ok(opened),
        other => Err(SoftGpuError::Stale { path: path.clone(), found: format!("{other:?}") }),
    }
}
