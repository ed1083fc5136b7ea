//! Recordings of decode steps: CUDA graphs by the step's dimensions.
//!
//! The first step of its dimensions runs as it is (the driver loads kernels when they are first launched, which it must not
//! do in a recording); the second is recorded and launched; later ones are launched.
//!
//! A recording holds addresses. Those of the step, the activations and the cache stay the same as long as their owner
//! lives, and that owner has a [`Cuda`] of its own: recordings belong to the value, clones begin without any. After any
//! buffer of the device was given back, all are made anew: so none outlives a buffer that it refers to.

use super::context::{Context, Garbage};
use super::{Cuda, CudaAct, Mode};
use crate::Result;
use cudarc::driver::{result, sys};
use komt_cache::StepDims;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Enough for every padded size of a batch; the one not used for longest makes room.
const MAX_RECORDINGS: usize = 32;

/// Recordings of one [`Cuda`].
#[derive(Debug, Default)]
pub(super) struct Recordings {
    steps: HashMap<StepDims, Recorded>,
    n_used: u64,
    are_off: bool, // the driver could not record
}

#[derive(Debug)]
struct Recorded {
    graph: Option<Graph>, // `None`: ran once
    last_used: u64,
}

#[derive(Debug)]
struct Graph {
    exec: sys::CUgraphExec,
    n_freed: u64, // buffers that had been given back when it was recorded
    context: Arc<Context>,
}

// SAFETY: the handle is an address that the driver takes from any thread.
unsafe impl Send for Graph {}
// SAFETY: as above; launches are serialised by the context's `Work`.
unsafe impl Sync for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        self.context.discard(Garbage::Graph(self.exec));
    }
}

/// How a step is to run.
enum Plan {
    Eager,
    Record,
    Replay(sys::CUgraphExec),
}

impl Recordings {
    fn plan(&mut self, key: StepDims, n_freed: u64) -> Plan {
        self.n_used += 1;
        if let Some(recorded) = self.steps.get_mut(&key) {
            recorded.last_used = self.n_used;
            return match recorded.graph.take_if(|graph| graph.n_freed != n_freed) {
                None => recorded.graph.as_ref().map_or(Plan::Record, |graph| Plan::Replay(graph.exec)),
                Some(_stale) => Plan::Record,
            };
        }
        if self.steps.len() == MAX_RECORDINGS {
            let oldest = self.steps.iter().min_by_key(|(_, recorded)| recorded.last_used);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.steps.remove(&key);
            }
        }
        self.steps.insert(key, Recorded { graph: None, last_used: self.n_used });
        Plan::Eager
    }
}

type Body<'a, A> = &'a mut (dyn FnMut(&mut Cuda<A>) -> Result<()> + Send);

impl<A: CudaAct> Cuda<A> {
    /// Runs one step, alone on the device from its first launch to its last.
    pub(super) fn run_step(&mut self, dims: StepDims, is_repeated: bool, body: Body<'_, A>) -> Result<()> {
        assert!(self.mode == Mode::Idle, "record: a step within a step");
        let shared = self.shared.clone();
        let context = &shared.context;
        let _work = context.work()?;
        let plan = match is_repeated && !shared.is_sync && !self.recordings.are_off {
            true => self.recordings.plan(dims, context.n_freed()),
            false => Plan::Eager,
        };
        let replayed = matches!(plan, Plan::Replay(_));
        context.set_doing(|doing| (doing.step, doing.replayed) = (Some(dims), replayed));
        let done = match plan {
            Plan::Eager => self.in_mode(Mode::Step, body),
            Plan::Record => self.record_step(dims, body),
            Plan::Replay(graph) => {
                shared.counts.replays.fetch_add(1, Ordering::Relaxed);
                self.launch_graph(graph)
            }
        };
        if done.is_ok() && replayed {
            return Ok(()); // what follows is after a recorded step still
        }
        context.set_doing(|doing| doing.replayed = false);
        done
    }

    fn record_step(&mut self, dims: StepDims, body: Body<'_, A>) -> Result<()> {
        let stream = self.shared.stream.handle;
        // Of this thread alone: others may allocate meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives, and is not the default one.
        if let Err(error) = unsafe { result::stream::begin_capture(stream, mode) } {
            let error = self.shared.context.failed("cuStreamBeginCapture", error);
            return self.without_recordings(error, body);
        }
        let done = self.in_mode(Mode::Record, &mut *body);
        if let Err(error) = done {
            self.abandon_capture();
            return Err(error);
        }
        let graph = match self.end_capture() {
            Ok(graph) => graph,
            Err(error) => return self.without_recordings(error, body),
        };
        let context = self.shared.context.clone();
        // SAFETY: the graph was just made; it is not needed once it is instantiated.
        let exec = unsafe {
            let exec = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags_enum(0));
            let _ = result::graph::destroy(graph);
            exec
        };
        match exec {
            Ok(exec) => {
                self.shared.counts.recordings.fetch_add(1, Ordering::Relaxed);
                let n_freed = context.n_freed();
                if let Some(recorded) = self.recordings.steps.get_mut(&dims) {
                    recorded.graph = Some(Graph { exec, n_freed, context });
                }
                self.launch_graph(exec)
            }
            Err(error) => {
                let error = context.failed("cuGraphInstantiate", error);
                self.without_recordings(error, body)
            }
        }
    }

    pub(super) fn abandon_capture(&self) {
        // SAFETY: the graph was just made.
        let _ = self.end_capture().map(|graph| unsafe { result::graph::destroy(graph) });
    }

    fn end_capture(&self) -> Result<sys::CUgraph> {
        // SAFETY: the stream lives, and a capture was begun.
        unsafe { result::stream::end_capture(self.shared.stream.handle) }
            .map_err(|error| self.shared.context.failed("cuStreamEndCapture", error))
    }

    /// The driver could not record: this step and later ones run as they are, unless the device is lost.
    fn without_recordings(&mut self, error: crate::Error, body: Body<'_, A>) -> Result<()> {
        self.shared.context.check_alive()?;
        self.recordings.are_off = true;
        let _ = self.shared.recording_failure.set(error.to_string());
        self.in_mode(Mode::Step, body)
    }

    fn launch_graph(&self, exec: sys::CUgraphExec) -> Result<()> {
        // SAFETY: the graph is alive, and so is all that it refers to: see above.
        unsafe { result::graph::launch(exec, self.shared.stream.handle) }
            .map_err(|error| self.shared.launch_failed("a recorded step".into(), error))
    }
}
