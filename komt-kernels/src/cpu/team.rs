//! [`Team`]: the threads of a [`Cpu`](super::Cpu).
//!
//! One job at a time: a task and ranges of numbers. Whoever brings it works too, and its workers join as they come: nobody waits
//! for a worker that has not begun. A job for which there is no room, because a task brings one of its own or another thread was
//! first, is done by its bringer alone; so nothing here ever waits for anything but tasks that are running.
//!
//! Every member has a part of the numbers of its own, the same in every job of that size: it finds in its cache, and in its own
//! node's memory, what it had there before. Who is done with its part takes from the others'.
//!
//! Between the jobs of a step workers turn in place for some microseconds, then sleep; between steps they sleep.

use crate::{Error, Result};
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

/// Ranges that a member's part is cut into: what the last one to finish may be late by is a 16th of an equal share of the time.
const RANGES: usize = 16;

/// Turns in a step before a worker sleeps; a turn takes 10 to 40 nanoseconds, depending on the CPU.
const TURNS: u32 = 3000;

/// The same outside of a step, and where there are more threads than cores: the core may be somebody else's.
const FEW_TURNS: u32 = 30;

/// Something that several threads write, alone on its cache lines (two: CPUs fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Alone<T>(T);

/// The job under way: `OPEN` while workers may join, the number of those that are in it below, its own number above.
///
/// The bringer, who holds `busy`, opens it and closes it again. A worker is in it from a compare-and-swap on an open state until
/// it takes itself off. So while the state is closed with nobody in, `job`, `parts` and `task` are the bringer's alone.
type State = u64;
const OPEN: State = 1 << 16;
const N_IN: State = OPEN - 1;
const NUMBER: State = OPEN << 1;

/// What a job does: a function and where its captures are.
#[derive(Clone, Copy)]
struct Task {
    call: unsafe fn(*const (), Range<usize>),
    data: *const (),
}

/// A job: `0..n` in ranges of `size`.
struct Job {
    task: Task,
    n: usize,
    size: usize,
}

struct Shared {
    state: Alone<AtomicU64>,
    /// Whether somebody has a job here.
    busy: Alone<AtomicBool>,
    job: std::cell::UnsafeCell<Job>,
    /// The next range of each member's part; the first member is the bringer.
    parts: Box<[Alone<AtomicUsize>]>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Steps under way.
    steps: AtomicU32,
    /// Whether the worker sleeps, or is about to.
    asleep: Box<[Alone<AtomicBool>]>,
    is_over: AtomicBool,
    turns: u32,
}

// SAFETY: `job` is written by whoever holds `busy` while the state is closed and nobody is in, and read by those who are in. What
// its pointer refers to is `Sync`, and alive until the job is closed and nobody is in (`Team::run`).
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Threads that do jobs together. Dropping it ends them.
pub(super) struct Team {
    shared: Arc<Shared>,
    workers: Vec<(Thread, Option<JoinHandle<()>>)>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({})", self.threads())
    }
}

/// Workers stay awake while it lives.
pub(super) struct Awake<'a>(&'a Shared);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.steps.fetch_sub(1, Relaxed);
    }
}

impl Team {
    /// `threads`, of which the caller is one.
    pub(super) fn new(threads: usize) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let nothing = Task { call: |_, _| {}, data: std::ptr::null() };
        let shared = Arc::new(Shared {
            state: Alone::default(),
            busy: Alone::default(),
            job: Job { task: nothing, n: 0, size: 1 }.into(),
            parts: (0..threads).map(|_| Alone::default()).collect(),
            panic: Mutex::default(),
            steps: AtomicU32::new(0),
            asleep: (1..threads).map(|_| Alone::default()).collect(),
            is_over: AtomicBool::new(false),
            turns: if threads > cores { FEW_TURNS } else { TURNS },
        });
        let mut team = Self { shared, workers: Vec::with_capacity(threads - 1) };
        for worker in 0..threads - 1 {
            let shared = team.shared.clone();
            let handle = std::thread::Builder::new()
                .name(format!("komt-{}", worker + 1))
                .spawn(move || shared.work(worker))
                .map_err(|error| Error::ThreadPool { reason: error.to_string() })?;
            team.workers.push((handle.thread().clone(), Some(handle)));
        }
        Ok(team)
    }

    /// Threads, the caller's included.
    pub(super) fn threads(&self) -> usize {
        self.shared.parts.len()
    }

    /// Wakes the workers for a step.
    pub(super) fn stay_awake(&self) -> Awake<'_> {
        // A worker that sees it late sleeps once more, and is woken by the first job.
        self.shared.steps.fetch_add(1, Relaxed);
        self.wake(self.workers.len());
        Awake(&self.shared)
    }

    /// Wakes up to `n` of those that sleep.
    fn wake(&self, n: usize) {
        for (asleep, (thread, _)) in self.shared.asleep.iter().zip(&self.workers).take(n) {
            // SeqCst: either this sees that the worker sleeps, or the worker sees what was stored before this call. The plain
            // load first leaves the line where it is.
            if asleep.0.load(SeqCst) && asleep.0.swap(false, SeqCst) {
                thread.unpark();
            }
        }
    }

    /// Runs `task` over ranges that make up `0..n`, each of `grain` numbers or more (the last may be shorter). Panics of tasks
    /// are the caller's, when all others are done.
    pub(super) fn run<F: Fn(Range<usize>) + Sync>(&self, n: usize, grain: usize, task: &F) {
        let size = n.div_ceil(RANGES * self.threads()).max(grain).max(1);
        let n_ranges = n.div_ceil(size);
        // Acquire, with the Release at the end of the job before: its end is before our beginning.
        if n_ranges <= 1 || self.workers.is_empty() || self.shared.busy.0.swap(true, Acquire) {
            return if n > 0 {
                task(0..n)
            };
        }
        /// # Safety
        /// `data` is an `F`.
        unsafe fn call<F: Fn(Range<usize>)>(data: *const (), range: Range<usize>) {
            // SAFETY: the caller's promise.
            let task = unsafe { &*data.cast::<F>() };
            task(range);
        }
        let shared = &*self.shared;
        // SAFETY: we hold `busy`, so the state is closed with nobody in.
        unsafe {
            *shared.job.get() =
                Job { task: Task { call: call::<F>, data: (&raw const *task).cast() }, n, size };
        }
        for (member, part) in shared.parts.iter().enumerate() {
            part.0.store(shared.part(member, n_ranges).start, Relaxed);
        }
        let number = (shared.state.0.load(Relaxed) & !(N_IN | OPEN)).wrapping_add(NUMBER);
        // SeqCst, with `wake` and `sleep`; and Release: who joins sees the job.
        shared.state.0.store(number | OPEN, SeqCst);
        self.wake(n_ranges - 1);
        shared.take_part(0);
        // From here on nobody joins. Acquire, with `leave`: what the workers did is before our return.
        shared.state.0.fetch_and(!OPEN, Relaxed);
        let mut turns = 0;
        while shared.state.0.load(Acquire) & N_IN != 0 {
            pause(&mut turns, shared.turns);
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.busy.0.store(false, Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// Waits a moment: for a core that is at work in place, later by giving up ours.
fn pause(turns: &mut u32, limit: u32) {
    if *turns < limit {
        *turns += 1;
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

impl Shared {
    /// The ranges that are a member's own.
    fn part(&self, member: usize, n_ranges: usize) -> Range<usize> {
        let members = self.parts.len();
        member * n_ranges / members..(member + 1) * n_ranges / members
    }

    /// Does ranges of the job until none is left: first the member's own, then those of the next ones. It must be in the job.
    fn take_part(&self, member: usize) {
        // SAFETY: nobody writes the job while somebody is in it.
        let job = unsafe { &*self.job.get() };
        let n_ranges = job.n.div_ceil(job.size);
        let work = || {
            for other in (member..self.parts.len()).chain(0..member) {
                let end = self.part(other, n_ranges).end;
                loop {
                    // Relaxed: each number is given out once, and what is done with it is ordered by joining and leaving.
                    let i = self.parts[other].0.fetch_add(1, Relaxed);
                    if i >= end {
                        break;
                    }
                    // SAFETY: the task outlives the job.
                    unsafe { (job.task.call)(job.task.data, i * job.size..job.n.min((i + 1) * job.size)) };
                }
            }
        };
        // A member that panics leaves its ranges to the others; the first panic is kept.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    /// The life of a worker.
    fn work(&self, worker: usize) {
        let mut last = 0;
        while let Some(state) = self.wait(worker, last) {
            last = state & !(N_IN | OPEN);
            self.take_part(worker + 1);
            // Release, with the bringer's Acquire.
            self.state.0.fetch_sub(1, Release);
        }
    }

    /// Joins the next job after number `last`, and returns its state; `None`: the team's time is over.
    fn wait(&self, worker: usize, last: State) -> Option<State> {
        let mut turns = 0;
        loop {
            let state = self.state.0.load(Relaxed);
            if state & OPEN != 0 && state & !(N_IN | OPEN) != last {
                // Acquire, with the store that opened it: others' joining and leaving in between continues its release.
                if self.state.0.compare_exchange_weak(state, state + 1, Acquire, Relaxed).is_ok() {
                    return Some(state);
                }
                continue;
            }
            if self.is_over.load(Relaxed) {
                return None;
            }
            let in_step = self.steps.load(Relaxed) > 0;
            if turns < if in_step { self.turns } else { FEW_TURNS } {
                turns += 1;
                std::hint::spin_loop();
            } else {
                self.sleep(worker, last);
                turns = 0;
            }
        }
    }

    /// Sleeps until somebody calls `Team::wake`.
    fn sleep(&self, worker: usize, last: State) {
        let asleep = &self.asleep[worker].0;
        asleep.store(true, SeqCst);
        // SeqCst: as in `wake`.
        let state = self.state.0.load(SeqCst);
        let is_new = state & OPEN != 0 && state & !(N_IN | OPEN) != last;
        if !is_new && !self.is_over.load(SeqCst) {
            std::thread::park(); // for no reason at all, perhaps: `wait` looks again
        }
        asleep.store(false, Relaxed);
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        for (thread, handle) in &mut self.workers {
            thread.unpark();
            if let Some(handle) = handle.take() {
                let _ = handle.join(); // tasks' panics are caught
            }
        }
    }
}

#[cfg(test)]
mod tests;
