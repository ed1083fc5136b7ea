//! The other end of [`SoftGpu`](crate::softgpu::SoftGpu): requests come in and replies go out.

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::context::Context;
use super::queue::start_thread;
use super::{Session, State};
use crate::control::{BUILD, CallCount, Options, QueueMode, Reply, Request};
use crate::spec::DeviceSpec;

/// Answers a request. The reply is freed by `komt_softgpu_free`.
#[unsafe(no_mangle)]
unsafe extern "C" fn komt_softgpu_control(request: *const c_char) -> *mut c_char {
    // SAFETY: the caller passes a C string, as `SoftGpu` does.
    let request = unsafe { CStr::from_ptr(request) }.to_string_lossy();
    let answer = || match serde_json::from_str(&request) {
        Ok(request) => Session::open().answer(request),
        Err(error) => Reply::Refused(format!("{error}: {request}")),
    };
    let reply =
        catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| Reply::Refused("panicked".to_owned()));
    let text = serde_json::to_string(&reply).unwrap_or_default();
    CString::new(text).map_or(std::ptr::null_mut(), CString::into_raw)
}

/// Frees a reply.
#[unsafe(no_mangle)]
unsafe extern "C" fn komt_softgpu_free(reply: *mut c_char) {
    if !reply.is_null() {
        // SAFETY: made by `CString::into_raw` above, freed once.
        drop(unsafe { CString::from_raw(reply) });
    }
}

impl Session {
    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Build => Reply::Build(BUILD.to_owned()),
            Request::Reset(spec) => self.reset(*spec),
            Request::Fault(fault) => {
                self.faults.set(fault);
                Reply::Done
            }
            Request::Options(options) => self.set_options(options),
            Request::TakeLaunches => Reply::Launches(std::mem::take(&mut self.launches)),
            Request::TakeComplaints => Reply::Texts(std::mem::take(&mut self.complaints)),
            Request::TakeCalls => {
                let calls = std::mem::take(&mut self.calls).into_iter();
                Reply::Calls(
                    calls
                        .map(|(function, calls)| CallCount { function: function.to_owned(), calls })
                        .collect(),
                )
            }
            Request::LiveAllocations => {
                self.count(|context| context.live_allocations() as u64, |state| state.left_allocations as u64)
            }
            Request::LiveBytes => self.count(Context::live_bytes, |_| 0),
            Request::LiveHandles => {
                self.count(|context| context.live_handles() as u64, |state| state.left_handles as u64)
            }
            Request::LiveRetains => Reply::Count(u64::from(self.retained)),
            Request::Pending => self.count(|context| context.pending() as u64, |_| 0),
        }
    }

    fn count(&self, of_context: impl Fn(&Context) -> u64, left: impl Fn(&State) -> u64) -> Reply {
        Reply::Count(self.context.as_ref().map_or(0, of_context) + left(self))
    }

    /// A fresh device. What the former context had queued is dropped: its host buffers may be gone.
    fn reset(&mut self, spec: DeviceSpec) -> Reply {
        self.wait_until_idle();
        let next_handle = self.next_handle;
        **self = State { next_handle, ..State::new(spec) };
        self.notify();
        Reply::Done
    }

    fn set_options(&mut self, options: Options) -> Reply {
        match options.queue {
            QueueMode::Lazy => {}
            QueueMode::Drawn(seed) => self.draw = seed,
            QueueMode::Thread(seed) => {
                self.draw = seed;
                start_thread();
            }
        }
        self.options = options;
        self.notify();
        Reply::Done
    }
}
