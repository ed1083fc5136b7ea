//! Streams: queues of work, executed when something waits for it, or later.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Instant;

use super::context::{Context, LEGACY_STREAM, PER_THREAD_STREAM};
use super::work::{Failure, HostRange, Outcome, Work};
use super::{Error, Session};
use crate::control::{LaunchRecord, QueueMode};

/// A place in a stream: everything up to the `seq`-th piece of work of `stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub stream: u64,
    pub seq: u64,
}

struct Queued {
    seq: u64,
    /// What must have been executed before.
    after: Vec<Place>,
    work: Work,
}

pub(crate) struct Stream {
    /// Waits for the legacy stream and lets it wait.
    pub blocking: bool,
    pub priority: i32,
    queue: VecDeque<Queued>,
    /// The work that some thread executes now.
    running: Option<(u64, Option<HostRange>)>,
    /// Number of the last piece of work submitted, and of the last executed.
    pub submitted: u64,
    completed: u64,
    /// What the next piece of work has to wait for.
    waits: Vec<Place>,
    pub capture: Option<u64>,
    /// Destroyed by the application; goes when its work is done.
    pub destroyed: bool,
}

/// A recorded event.
#[derive(Clone, Copy)]
pub(crate) struct Recorded {
    pub place: Place,
    /// Which recording of the event this is.
    pub recording: u64,
    /// The capture in which it was recorded: it belongs to that alone.
    pub capture: Option<u64>,
    pub time: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Event {
    pub timed: bool,
    pub recordings: u64,
    pub recorded: Option<Recorded>,
}

impl Stream {
    pub fn new(blocking: bool, priority: i32) -> Self {
        Self {
            blocking,
            priority,
            queue: VecDeque::new(),
            running: None,
            submitted: 0,
            completed: 0,
            waits: Vec::new(),
            capture: None,
            destroyed: false,
        }
    }

    fn is_gone(&self) -> bool {
        self.destroyed && self.queue.is_empty() && self.running.is_none()
    }
}

impl Context {
    pub fn is_complete(&self, place: Place) -> bool {
        self.streams.get(&place.stream).is_none_or(|stream| stream.completed >= place.seq)
    }

    /// The work that is not executed yet.
    pub fn pending(&self) -> usize {
        self.streams.values().map(|stream| stream.queue.len() + usize::from(stream.running.is_some())).sum()
    }

    /// The end of each stream.
    fn ends(&self) -> Vec<Place> {
        self.streams.iter().map(|(&handle, stream)| Place { stream: handle, seq: stream.submitted }).collect()
    }

    /// Streams whose first piece of work could be executed now.
    fn ready(&self) -> Vec<u64> {
        let ready = self.streams.iter().filter(|(_, stream)| {
            let head = stream.queue.front().filter(|_| stream.running.is_none());
            head.is_some_and(|head| head.after.iter().all(|&place| self.is_complete(place)))
        });
        ready.map(|(&handle, _)| handle).collect()
    }

    /// The context is broken: nothing that is queued will run.
    fn abandon(&mut self) {
        for stream in self.streams.values_mut() {
            stream.queue.clear();
            stream.completed = stream.submitted;
        }
        self.captures.values_mut().for_each(|capture| capture.invalid = true);
    }
}

impl Session {
    /// The key of a stream given as a handle; the null stream is the legacy one.
    pub fn stream_key(&mut self, handle: u64) -> Result<u64, Error> {
        let key = if handle == 0 { LEGACY_STREAM } else { handle };
        let known = self.context()?.streams.get(&key).is_some_and(|stream| !stream.destroyed);
        if !known {
            self.complain(format!("{handle:#x} is not a stream, or is one that was destroyed"));
            return Err(Error::INVALID_HANDLE);
        }
        Ok(key)
    }

    pub fn stream(&mut self, key: u64) -> Result<&mut Stream, Error> {
        self.context()?.streams.get_mut(&key).ok_or(Error::INVALID_HANDLE)
    }

    /// Puts work at the end of a stream, or into the capture that the stream takes part in.
    pub fn submit(&mut self, handle: u64, work: Work) -> Result<Place, Error> {
        let key = self.stream_key(handle)?;
        if let Some(capture) = self.stream(key)?.capture {
            self.capture_work(capture, key, work)?;
            return Ok(Place { stream: key, seq: 0 });
        }
        self.refuse_implicit_capture(key)?;
        self.enqueue(key, work)
    }

    /// Puts work at the end of a stream that does not capture.
    pub fn enqueue(&mut self, key: u64, work: Work) -> Result<Place, Error> {
        let context = self.context()?;
        let blocking = context.streams.get(&key).is_some_and(|stream| stream.blocking);
        let mut after = match key {
            LEGACY_STREAM => {
                let blocking =
                    |place: &Place| context.streams.get(&place.stream).is_some_and(|one| one.blocking);
                context.ends().into_iter().filter(|place| place.stream != key && blocking(place)).collect()
            }
            _ if blocking => {
                let seq = context.streams.get(&LEGACY_STREAM).map_or(0, |legacy| legacy.submitted);
                vec![Place { stream: LEGACY_STREAM, seq }]
            }
            _ => Vec::new(),
        };
        let stream = context.streams.get_mut(&key).ok_or(Error::INVALID_HANDLE)?;
        after.append(&mut stream.waits);
        stream.submitted += 1;
        let seq = stream.submitted;
        stream.queue.push_back(Queued { seq, after, work });
        self.notify();
        Ok(Place { stream: key, seq })
    }

    /// The next work of the stream waits for `place`.
    pub fn wait_for(&mut self, key: u64, place: Place) -> Result<(), Error> {
        self.stream(key)?.waits.push(place);
        // An event recorded now, or somebody who waits for the stream, must wait for it too.
        self.enqueue(key, Work::Nothing).map(|_| ())
    }

    /// Executes until `place` is reached.
    pub fn finish(&mut self, place: Place) -> Result<(), Error> {
        loop {
            let Some(context) = &self.context else { return Ok(()) };
            let sticky = context.sticky.map_or(Ok(()), Err);
            let Some(stream) = context.streams.get(&place.stream) else { return sticky };
            if stream.running.is_some_and(|(seq, _)| seq <= place.seq) {
                self.wait();
                continue;
            }
            if stream.completed >= place.seq {
                return sticky;
            }
            let unmet = stream
                .queue
                .front()
                .and_then(|head| head.after.iter().find(|&&place| !context.is_complete(place)).copied());
            match unmet {
                // Places are always of work submitted before, so this ends.
                Some(before) => self.finish(before)?,
                None => self.run_one(place.stream),
            }
        }
    }

    /// Executes everything.
    pub fn finish_all(&mut self) -> Result<(), Error> {
        let ends = self.context.as_ref().map(Context::ends).unwrap_or_default();
        ends.into_iter().try_for_each(|place| self.finish(place))
    }

    /// Somebody has waited, successfully unless that is to fail.
    pub fn waited(&mut self) -> Result<(), Error> {
        if !self.faults.synchronisation_fails() {
            return Ok(());
        }
        let context = self.context()?;
        context.sticky = Some(Error::LAUNCH_FAILED);
        context.abandon();
        Err(Error::LAUNCH_FAILED)
    }

    /// Waits for what other threads execute.
    pub fn wait_until_idle(&mut self) {
        let busy = |session: &Self| {
            session
                .context
                .as_ref()
                .is_some_and(|one| one.streams.values().any(|stream| stream.running.is_some()))
        };
        while busy(self) {
            self.wait();
        }
    }

    /// Executes some work if the mode says that work is done at any time.
    pub fn run_drawn(&mut self) {
        if !matches!(self.options.queue, QueueMode::Drawn(_)) {
            return;
        }
        // Up to three pieces: long queues grow at some calls and shrink at others.
        for _ in 0..self.draw_below(4) {
            self.run_any();
        }
    }

    /// Executes the first work of one of the streams that are ready; false when there is none.
    fn run_any(&mut self) -> bool {
        let ready = self.context.as_ref().map(Context::ready).unwrap_or_default();
        if ready.is_empty() {
            return false;
        }
        let drawn = self.draw_below(ready.len() as u64) as usize;
        self.run_one(ready[drawn]);
        true
    }

    /// Progress for somebody who polls: without it a loop around a query would never end.
    pub fn run_for_query(&mut self, place: Place) {
        if self.context.as_ref().is_some_and(|context| !context.is_complete(place)) {
            self.run_any();
        }
    }

    /// Executes the first work of a stream, which must be ready.
    fn run_one(&mut self, key: u64) {
        let (spec, options) = (Arc::clone(&self.spec), self.options.run.clone());
        let Some(context) = &mut self.context else { return };
        let (epoch, memory) = (context.handle, Arc::clone(&context.memory));
        let Some(stream) = context.streams.get_mut(&key) else { return };
        let Some(queued) = stream.queue.pop_front() else { return };
        let host_range = queued.work.host_range();
        stream.running = Some((queued.seq, host_range));
        let freed = host_range.is_some_and(|range| !context.pinned_range(range));
        let outcome = if freed {
            let complaint = format!("{} uses host memory that was freed", queued.work.describe());
            Err(Failure { error: Error::ILLEGAL_ADDRESS, complaint })
        } else if matches!(queued.work, Work::Launch(_)) && self.faults.execution_fails() {
            Err(Failure { error: Error::LAUNCH_FAILED, complaint: String::new() })
        } else {
            let run = || queued.work.run(&memory, &spec, &options);
            let outcome = self.unlocked(|| catch_unwind(AssertUnwindSafe(run)));
            outcome.unwrap_or_else(|_| {
                let complaint = format!("{} panicked, a bug of the software GPU", queued.work.describe());
                Err(Failure { error: Error::LAUNCH_FAILED, complaint })
            })
        };
        self.executed(epoch, key, &queued, outcome);
        self.notify();
    }

    /// Notes what execution gave.
    fn executed(&mut self, epoch: u64, key: u64, queued: &Queued, outcome: Outcome) {
        let record_launches = self.options.record_launches;
        let Some(context) = self.context.as_mut().filter(|context| context.handle == epoch) else { return };
        if let Some(stream) = context.streams.get_mut(&key) {
            stream.running = None;
            stream.completed = stream.completed.max(queued.seq);
            if stream.is_gone() {
                context.streams.remove(&key);
            }
        }
        if let Work::Record { event, recording } = queued.work
            && let Some(recorded) = context.events.get_mut(&event).and_then(|event| event.recorded.as_mut())
            && recorded.recording == recording
        {
            recorded.time = Some(Instant::now());
        }
        match outcome {
            Ok(Some(counters)) if record_launches => {
                if let Work::Launch(launch) = &queued.work {
                    self.launches.push(LaunchRecord {
                        kernel: launch.kernel.clone(),
                        grid: launch.grid,
                        block: launch.block,
                        dynamic_shared_bytes: launch.dynamic_shared_bytes,
                        from_graph: launch.from_graph,
                        counters,
                    });
                }
            }
            Ok(_) => {}
            Err(failure) => {
                context.sticky.get_or_insert(failure.error);
                context.abandon();
                if !failure.complaint.is_empty() {
                    self.complain(failure.complaint);
                }
            }
        }
    }

    /// Page-locked memory is about to go: work that uses it must not run.
    pub fn withdraw_copies(&mut self, function: &str, range: HostRange) {
        let overlaps = |used: Option<HostRange>| used.is_some_and(|used| used.overlaps(range));
        let mut complaints = Vec::new();
        let Some(context) = &mut self.context else { return };
        for queued in context.streams.values_mut().flat_map(|stream| &mut stream.queue) {
            if overlaps(queued.work.host_range()) {
                complaints
                    .push(format!("{function}: {} is queued and uses the memory", queued.work.describe()));
                queued.work = Work::Nothing;
            }
        }
        let busy = |session: &Self| {
            let mut streams = session.context.iter().flat_map(|context| context.streams.values());
            streams.any(|stream| stream.running.is_some_and(|(_, used)| overlaps(used)))
        };
        if busy(self) {
            complaints.push(format!("{function}: a copy is running and uses the memory"));
        }
        while busy(self) {
            self.wait();
        }
        complaints.into_iter().for_each(|complaint| self.complain(complaint));
    }

    /// Destroys a stream; its work will still be done.
    pub fn destroy_stream(&mut self, handle: u64) -> Result<(), Error> {
        let key = self.stream_key(handle)?;
        if key <= PER_THREAD_STREAM {
            return Err(Error::INVALID_HANDLE);
        }
        self.invalidate_capture(key);
        let context = self.context()?;
        if let Some(stream) = context.streams.get_mut(&key) {
            stream.destroyed = true;
            if stream.is_gone() {
                context.streams.remove(&key);
            }
        }
        Ok(())
    }
}

/// Starts the thread that executes work as it comes. It lives as long as the process, and does nothing in other modes.
pub(crate) fn start_thread() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        std::thread::spawn(|| {
            loop {
                let mut session = Session::open();
                if !matches!(session.options.queue, QueueMode::Thread(_)) || !session.run_any() {
                    session.wait();
                }
            }
        });
    });
}
