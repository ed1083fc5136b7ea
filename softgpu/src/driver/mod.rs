//! The CUDA driver API, as far as cudarc and our host code use it, on one software device.
//!
//! What differs from a card's driver, on purpose:
//! * Submitted work is not executed until something waits for it ([`QueueMode`](crate::control::QueueMode)). Only what the
//!   documents promise to be synchronous is: blocking copies to the host, copies to pageable memory, waiting calls.
//! * Misuse that a driver may let pass is a complaint, printed and kept: use of freed memory, handles and host buffers, pageable
//!   memory in a captured copy, downloads of bytes that nobody wrote.
//! * A checker's complaint about a kernel is a sticky error of the context: every later call returns it until the primary context
//!   is released by all who retained it, or reset. (A real process would have to end.)
//! * There is one context, the primary one; the stream-ordered allocator takes memory at once and gives it back in stream order.
//!
//! `api` has the exported functions, a file for each chapter of the CUDA driver API; they translate arguments and call
//! [`Session`]. Nothing unwinds out of them: a panic of ours is `CUDA_ERROR_UNKNOWN` and a complaint.

mod api;
mod capture;
mod context;
mod error;
mod faults;
mod module;
mod occupancy;
mod queue;
mod serve;
mod work;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::control::{LaunchRecord, Options};
use crate::spec::DeviceSpec;
use context::Context;
pub(crate) use error::{Code, Error};
use faults::Faults;

/// Where a function of the API leaves a result: null, or room for one.
pub(crate) type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

/// Leaves a result; no room for it is an invalid argument.
pub(crate) fn put<T>(out: Out<'_, T>, value: T) -> Result<(), Error> {
    out.ok_or(Error::INVALID_VALUE)?.write(value);
    Ok(())
}

/// Leaves a result if it is wanted.
pub(crate) fn put_if<T>(out: Out<'_, T>, value: T) {
    if let Some(out) = out {
        out.write(value);
    }
}

/// The driver's state, one for the process.
pub(crate) struct State {
    pub spec: Arc<DeviceSpec>,
    pub options: Options,
    pub faults: Faults,
    pub initialised: bool,
    /// The primary context while somebody retains it.
    pub context: Option<Context>,
    /// How often it is retained.
    pub retained: u32,
    /// Its scheduling flags.
    pub context_flags: u32,
    /// Handles are numbers, never addresses; none is given twice.
    next_handle: u64,
    pub complaints: Vec<String>,
    pub launches: Vec<LaunchRecord>,
    pub calls: BTreeMap<&'static str, u64>,
    /// Allocations and handles that contexts left behind when they went.
    pub left_allocations: usize,
    pub left_handles: usize,
    /// State of the generator that draws when queued work runs.
    pub draw: u64,
}

impl State {
    fn new(spec: DeviceSpec) -> Self {
        Self {
            spec: Arc::new(spec),
            options: Options::default(),
            faults: Faults::default(),
            initialised: false,
            context: None,
            retained: 0,
            context_flags: 0,
            next_handle: FIRST_HANDLE,
            complaints: Vec::new(),
            launches: Vec::new(),
            calls: BTreeMap::new(),
            left_allocations: 0,
            left_handles: 0,
            draw: 0,
        }
    }

    /// A number that no handle had before. Handles go on counting over resets, so that old ones stay unknown.
    pub fn handle(&mut self) -> u64 {
        self.next_handle += 16;
        self.next_handle
    }

    /// Keeps a complaint and prints it.
    pub fn complain(&mut self, text: String) {
        if !self.options.quiet {
            eprintln!("software GPU: {text}");
        }
        self.complaints.push(text);
    }

    /// The next number of a generator (SplitMix64), below `n`.
    pub fn draw_below(&mut self, n: u64) -> u64 {
        self.draw = self.draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.draw;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}

/// Far from the addresses of the device and of the host, so that a mixed-up argument is not taken for one.
const FIRST_HANDLE: u64 = 0x6b_0000_0000;
/// The device.
pub(crate) const DEVICE: i32 = 0;

struct Driver {
    state: Mutex<State>,
    /// Something was executed, submitted or configured.
    changed: Condvar,
}

static DRIVER: LazyLock<Driver> =
    LazyLock::new(|| Driver { state: Mutex::new(State::new(DeviceSpec::sm(80))), changed: Condvar::new() });

fn lock() -> MutexGuard<'static, State> {
    DRIVER.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state, locked for one call; unlocked while work is executed.
pub(crate) struct Session {
    state: Option<MutexGuard<'static, State>>,
}

impl Session {
    pub fn open() -> Self {
        Self { state: Some(lock()) }
    }

    /// Runs `body` with the state unlocked: other threads may call meanwhile.
    pub fn unlocked<R>(&mut self, body: impl FnOnce() -> R) -> R {
        self.state = None;
        let result = body();
        self.state = Some(lock());
        result
    }

    /// Waits until another thread has changed something.
    pub fn wait(&mut self) {
        let state = self.state.take().unwrap_or_else(lock);
        self.state = Some(DRIVER.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
    }

    /// Tells those who wait.
    pub fn notify(&self) {
        DRIVER.changed.notify_all();
    }

    /// The context that the thread has made current.
    pub fn context(&mut self) -> Result<&mut Context, Error> {
        let current = CURRENT.get();
        let context = self.context.as_mut().ok_or(Error::INVALID_CONTEXT)?;
        if context.handle == current { Ok(context) } else { Err(Error::INVALID_CONTEXT) }
    }
}

impl Deref for Session {
    type Target = State;

    fn deref(&self) -> &State {
        self.state.as_ref().expect("locked outside of `unlocked`")
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("locked outside of `unlocked`")
    }
}

thread_local! {
    /// Handle of the thread's current context; 0 when there is none.
    pub(crate) static CURRENT: Cell<u64> = const { Cell::new(0) };
    /// The thread runs a host function of a stream, which must not call the driver.
    pub(crate) static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

/// What a call needs before it may do anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// `cuInit`.
    Init,
    /// A current context without a sticky error.
    Context,
    /// A current context. Destroys something: does so in a broken context too, and returns its error.
    Destroys,
}

/// Runs the body of an exported function.
pub(crate) fn call(
    function: &'static str,
    needs: Needs,
    body: impl FnOnce(&mut Session) -> Result<(), Error>,
) -> Code {
    if IN_HOST_FUNCTION.get() {
        // The lock is free then, but CUDA forbids the call: "The host function must not make any CUDA API calls".
        Session::open().complain(format!("{function} called from a host function of a stream"));
        return Error::NOT_PERMITTED.0;
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut session = Session::open();
        *session.calls.entry(function).or_default() += 1;
        checked(&mut session, needs, body)
    }));
    match outcome {
        Ok(result) => error::code(result),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            lock().complain(format!("{function} panicked, a bug of the software GPU: {text}"));
            Error::UNKNOWN.0
        }
    }
}

fn checked(
    session: &mut Session,
    needs: Needs,
    body: impl FnOnce(&mut Session) -> Result<(), Error>,
) -> Result<(), Error> {
    if needs != Needs::Nothing && !session.initialised {
        return Err(Error::NOT_INITIALIZED);
    }
    if !matches!(needs, Needs::Context | Needs::Destroys) {
        return body(session);
    }
    let sticky = session.context()?.sticky;
    if let Some(error) = sticky {
        if needs == Needs::Destroys {
            // What it returns is the context's error all the same.
            let _ = body(session);
        }
        return Err(error);
    }
    body(session)?;
    session.run_drawn();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_ours_is_an_unknown_error_and_a_complaint() {
        let refused = call("cuTest", Needs::Init, |_| Ok(()));
        assert_eq!(refused, Error::NOT_INITIALIZED.0);
        let code = call("cuTest", Needs::Nothing, |_| panic!("on purpose"));
        assert_eq!(code, Error::UNKNOWN.0);
        assert!(
            Session::open()
                .complaints
                .iter()
                .any(|text| text.contains("cuTest panicked") && text.contains("on purpose"))
        );
        assert_eq!(call("cuTest", Needs::Nothing, |_| Ok(())), 0, "the lock is not poisoned");
    }
}
