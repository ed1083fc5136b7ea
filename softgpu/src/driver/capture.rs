//! Stream capture and graphs. A capture keeps its work in the order of submission, which is one of the orders that the
//! dependencies allow; a launch of the graph queues it again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::ThreadId;

use super::context::LEGACY_STREAM;
use super::queue::Place;
use super::work::{HostSource, KernelLaunch, Work};
use super::{Error, Session};

/// `CUstreamCaptureMode`: which calls are refused while a capture goes on.
const MODE_GLOBAL: u32 = 0;
const MODE_THREAD_LOCAL: u32 = 1;
const MODE_RELAXED: u32 = 2;

pub(crate) struct Capture {
    /// The stream in which it began.
    origin: u64,
    mode: u32,
    thread: ThreadId,
    work: Vec<Work>,
    /// Streams that joined it by waiting for one of its events, and whose work nobody has waited for.
    unjoined: BTreeSet<u64>,
    pub invalid: bool,
}

pub(crate) struct Graph {
    pub work: Arc<Vec<Work>>,
    /// One handle for each piece of work.
    pub nodes: Vec<u64>,
}

pub(crate) struct Exec {
    pub work: Arc<Vec<Work>>,
}

/// `CUgraphNodeType`.
pub(crate) fn node_type(work: &Work) -> u32 {
    match work {
        Work::Launch(_) => 0,
        Work::Upload { .. } | Work::Download { .. } | Work::Copy { .. } => 1,
        Work::Fill { .. } => 2,
        Work::Host(_) => 3,
        Work::Nothing => 5,
        Work::Record { .. } => 7,
        Work::Free { .. } => 11,
    }
}

impl Session {
    /// Begins a capture.
    pub fn begin_capture(&mut self, handle: u64, mode: u32) -> Result<(), Error> {
        let key = self.stream_key(handle)?;
        if key == LEGACY_STREAM {
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        if mode > MODE_RELAXED {
            return Err(Error::INVALID_VALUE);
        }
        if self.stream(key)?.capture.is_some() {
            return Err(Error::ILLEGAL_STATE);
        }
        let id = self.handle();
        let thread = std::thread::current().id();
        let capture = Capture {
            origin: key,
            mode,
            thread,
            work: Vec::new(),
            unjoined: BTreeSet::new(),
            invalid: false,
        };
        self.context()?.captures.insert(id, capture);
        self.stream(key)?.capture = Some(id);
        Ok(())
    }

    /// Ends a capture; its graph.
    pub fn end_capture(&mut self, handle: u64) -> Result<u64, Error> {
        let key = self.stream_key(handle)?;
        let id = self.stream(key)?.capture.ok_or(Error::ILLEGAL_STATE)?;
        let context = self.context()?;
        let capture = context.captures.get(&id).ok_or(Error::ILLEGAL_STATE)?;
        if capture.origin != key {
            return Err(Error::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != MODE_RELAXED && capture.thread != std::thread::current().id() {
            return Err(Error::STREAM_CAPTURE_WRONG_THREAD);
        }
        for stream in context.streams.values_mut().filter(|stream| stream.capture == Some(id)) {
            stream.capture = None;
        }
        let capture = context.captures.remove(&id).ok_or(Error::ILLEGAL_STATE)?;
        if capture.invalid {
            return Err(Error::STREAM_CAPTURE_INVALIDATED);
        }
        if !capture.unjoined.is_empty() {
            return Err(Error::STREAM_CAPTURE_UNJOINED);
        }
        let nodes = capture.work.iter().map(|_| self.handle()).collect();
        let graph = self.handle();
        self.context()?.graphs.insert(graph, Graph { work: Arc::new(capture.work), nodes });
        Ok(graph)
    }

    /// Adds work to a capture instead of a queue.
    pub fn capture_work(&mut self, id: u64, key: u64, work: Work) -> Result<(), Error> {
        let pageable = match &work {
            Work::Upload { from: HostSource::Taken(_), .. } => true,
            Work::Download { pinned, .. } => !pinned,
            _ => false,
        };
        if pageable || matches!(work, Work::Free { .. }) {
            self.complain(format!(
                "{} is captured: only page-locked memory can be, and no allocation",
                work.describe()
            ));
            self.invalidate_capture(key);
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        let capture = self.context()?.captures.get_mut(&id).ok_or(Error::ILLEGAL_STATE)?;
        if capture.invalid {
            return Err(Error::STREAM_CAPTURE_INVALIDATED);
        }
        if capture.origin != key {
            capture.unjoined.insert(key);
        }
        capture.work.push(work);
        Ok(())
    }

    /// A stream of a capture, or one that is to take part, waits for an event.
    pub fn capture_wait(&mut self, key: u64, recorded_in: Option<u64>, from: Place) -> Result<bool, Error> {
        let own = self.stream(key)?.capture;
        match (own, recorded_in) {
            (None, None) => Ok(false),
            (Some(_), None) => {
                self.invalidate_capture(key);
                Err(Error::STREAM_CAPTURE_ISOLATION)
            }
            (Some(own), Some(other)) if own != other => {
                self.invalidate_capture(key);
                Err(Error::STREAM_CAPTURE_MERGE)
            }
            (own, Some(id)) => {
                let capture = self.context()?.captures.get_mut(&id).ok_or(Error::CAPTURED_EVENT)?;
                if own.is_none() {
                    capture.unjoined.insert(key);
                    self.stream(key)?.capture = Some(id);
                } else {
                    capture.unjoined.remove(&from.stream);
                }
                Ok(true)
            }
        }
    }

    /// The capture of a stream cannot become a graph any more.
    pub fn invalidate_capture(&mut self, key: u64) {
        let Some(context) = &mut self.context else { return };
        let id = context.streams.get(&key).and_then(|stream| stream.capture);
        if let Some(capture) = id.and_then(|id| context.captures.get_mut(&id)) {
            capture.invalid = true;
        }
    }

    /// Refuses a call that a capture forbids: one that allocates, waits or copies at once.
    pub fn forbid_in_capture(&mut self, function: &str) -> Result<(), Error> {
        let thread = std::thread::current().id();
        let mut forbidden = false;
        for capture in self.context()?.captures.values_mut() {
            let applies = match capture.mode {
                MODE_GLOBAL => true,
                MODE_THREAD_LOCAL => capture.thread == thread,
                _ => false,
            };
            if applies {
                capture.invalid = true;
                forbidden = true;
            }
        }
        if forbidden {
            self.complain(format!("{function} while a stream captures: the capture is void"));
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        Ok(())
    }

    /// Refuses to wait for streams that capture.
    pub fn forbid_waiting_for_capture(&mut self, function: &str, key: Option<u64>) -> Result<(), Error> {
        let context = self.context()?;
        let capturing = context.streams.iter().filter(|(_, stream)| stream.capture.is_some());
        let hit: Vec<u64> = capturing
            .map(|(&stream, _)| stream)
            .filter(|&stream| key.is_none_or(|key| key == stream))
            .collect();
        if hit.is_empty() {
            return Ok(());
        }
        hit.into_iter().for_each(|key| self.invalidate_capture(key));
        self.complain(format!("{function} waits for a stream that captures: the capture is void"));
        Err(Error::STREAM_CAPTURE_UNSUPPORTED)
    }

    /// Work in the legacy stream would wait for blocking streams, also for those that capture.
    pub fn refuse_implicit_capture(&mut self, key: u64) -> Result<(), Error> {
        if key != LEGACY_STREAM {
            return Ok(());
        }
        let context = self.context()?;
        let blocking =
            context.streams.iter().filter(|(_, stream)| stream.blocking && stream.capture.is_some());
        let hit: Vec<u64> = blocking.map(|(&key, _)| key).collect();
        if hit.is_empty() {
            return Ok(());
        }
        hit.into_iter().for_each(|key| self.invalidate_capture(key));
        Err(Error::STREAM_CAPTURE_IMPLICIT)
    }

    /// Queues the work of a graph.
    pub fn launch_graph(&mut self, exec: u64, stream: u64) -> Result<(), Error> {
        let Some(exec) = self.context()?.execs.get(&exec) else {
            self.complain(format!("{exec:#x} is not an executable graph"));
            return Err(Error::INVALID_HANDLE);
        };
        let work = Arc::clone(&exec.work);
        if self.faults.submission_fails() {
            return Err(Error::INVALID_VALUE);
        }
        if work.is_empty() {
            self.submit(stream, Work::Nothing)?;
        }
        for one in work.iter() {
            let one = match one {
                Work::Launch(launch) => {
                    Work::Launch(Arc::new(KernelLaunch { from_graph: true, ..(**launch).clone() }))
                }
                other => other.clone(),
            };
            self.submit(stream, one)?;
        }
        Ok(())
    }
}
