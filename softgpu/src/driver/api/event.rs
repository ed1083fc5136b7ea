//! Events.

use std::ffi::c_uint;
use std::time::Instant;

use super::Handle;
use crate::driver::queue::{Event, Place, Recorded};
use crate::driver::work::Work;
use crate::driver::{Code, Error, Needs, Out, Session, call, put};

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: c_uint = 2;
/// With `CU_EVENT_BLOCKING_SYNC`; events of other processes are not here.
const FLAGS: c_uint = 1 | DISABLE_TIMING;

impl Session {
    /// An event by its handle.
    pub fn event(&mut self, handle: Handle) -> Result<&mut Event, Error> {
        if !self.context()?.events.contains_key(&handle) {
            self.complain(format!("{handle:#x} is not an event, or is one that was destroyed"));
        }
        self.context()?.events.get_mut(&handle).ok_or(Error::INVALID_HANDLE)
    }

    /// Its last recording, which must not be part of a capture.
    fn recorded(&mut self, handle: Handle) -> Result<Option<Recorded>, Error> {
        let recorded = self.event(handle)?.recorded;
        if recorded.is_some_and(|recorded| recorded.capture.is_some()) {
            return Err(Error::CAPTURED_EVENT);
        }
        Ok(recorded)
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(event: Out<'_, Handle>, flags: c_uint) -> Code {
    call("cuEventCreate", Needs::Context, |session| {
        if flags & !FLAGS != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let event = event.ok_or(Error::INVALID_VALUE)?;
        let handle = session.handle();
        let new = Event { timed: flags & DISABLE_TIMING == 0, ..Event::default() };
        session.context()?.events.insert(handle, new);
        put(Some(event), handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: Handle) -> Code {
    call("cuEventDestroy_v2", Needs::Destroys, |session| {
        session.event(event)?;
        session.context()?.events.remove(&event);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> Code {
    call("cuEventRecord", Needs::Context, |session| {
        let key = session.stream_key(stream)?;
        let known = session.event(event)?;
        known.recordings += 1;
        let recording = known.recordings;
        let capture = session.stream(key)?.capture;
        let place = match capture {
            Some(_) => Place { stream: key, seq: 0 },
            None => session.submit(stream, Work::Record { event, recording })?,
        };
        session.event(event)?.recorded = Some(Recorded { place, recording, capture, time: None });
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> Code {
    call("cuEventSynchronize", Needs::Context, |session| {
        let Some(recorded) = session.recorded(event)? else { return Ok(()) };
        session.finish(recorded.place)?;
        session.waited()
    })
}

/// Each query lets some work be done, so that polling ends.
#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: Handle) -> Code {
    call("cuEventQuery", Needs::Context, |session| {
        session.forbid_in_capture("cuEventQuery")?;
        let Some(recorded) = session.recorded(event)? else { return Ok(()) };
        if session.context()?.is_complete(recorded.place) {
            return Ok(());
        }
        session.run_for_query(recorded.place);
        Err(Error::NOT_READY)
    })
}

/// Time of the host between the executions of two events: says nothing of a card.
fn elapsed(function: &'static str, ms: Out<'_, f32>, start: Handle, end: Handle) -> Code {
    call(function, Needs::Context, |session| {
        let mut times = [None; 2];
        for (time, event) in times.iter_mut().zip([start, end]) {
            let recorded = session.recorded(event)?.ok_or(Error::INVALID_HANDLE)?;
            if !session.event(event)?.timed {
                return Err(Error::INVALID_HANDLE);
            }
            *time = recorded.time;
        }
        let [Some(start), Some(end)]: [Option<Instant>; 2] = times else { return Err(Error::NOT_READY) };
        let forward = end.saturating_duration_since(start).as_secs_f32();
        let backward = start.saturating_duration_since(end).as_secs_f32();
        put(ms, (forward - backward) * 1e3)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(ms: Out<'_, f32>, start: Handle, end: Handle) -> Code {
    elapsed("cuEventElapsedTime", ms, start, end)
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(ms: Out<'_, f32>, start: Handle, end: Handle) -> Code {
    elapsed("cuEventElapsedTime_v2", ms, start, end)
}
