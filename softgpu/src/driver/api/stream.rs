//! Streams and their capture.

use std::ffi::{c_int, c_uint, c_void};

use super::Handle;
use crate::driver::queue::{Place, Stream};
use crate::driver::work::{HostCall, Work};
use crate::driver::{Code, Error, Needs, Out, call, put, put_if};

/// Smaller is more urgent.
pub(super) const GREATEST_PRIORITY: c_int = -5;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: c_uint = 1;

fn create(function: &'static str, stream: Out<'_, Handle>, flags: c_uint, priority: c_int) -> Code {
    call(function, Needs::Context, |session| {
        if flags & !NON_BLOCKING != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let stream = stream.ok_or(Error::INVALID_VALUE)?;
        let handle = session.handle();
        let new = Stream::new(flags & NON_BLOCKING == 0, priority.clamp(GREATEST_PRIORITY, 0));
        session.context()?.streams.insert(handle, new);
        put(Some(stream), handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(stream: Out<'_, Handle>, flags: c_uint) -> Code {
    create("cuStreamCreate", stream, flags, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(stream: Out<'_, Handle>, flags: c_uint, priority: c_int) -> Code {
    create("cuStreamCreateWithPriority", stream, flags, priority)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: Handle) -> Code {
    call("cuStreamDestroy_v2", Needs::Destroys, |session| session.destroy_stream(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetPriority(stream: Handle, priority: Out<'_, c_int>) -> Code {
    call("cuStreamGetPriority", Needs::Context, |session| {
        let key = session.stream_key(stream)?;
        put(priority, session.stream(key)?.priority)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetFlags(stream: Handle, flags: Out<'_, c_uint>) -> Code {
    call("cuStreamGetFlags", Needs::Context, |session| {
        let key = session.stream_key(stream)?;
        put(flags, if session.stream(key)?.blocking { 0 } else { NON_BLOCKING })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCtx(stream: Handle, context: Out<'_, Handle>) -> Code {
    call("cuStreamGetCtx", Needs::Context, |session| {
        session.stream_key(stream)?;
        put(context, session.context()?.handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: Handle) -> Code {
    call("cuStreamSynchronize", Needs::Context, |session| {
        let key = session.stream_key(stream)?;
        session.forbid_waiting_for_capture("cuStreamSynchronize", Some(key))?;
        let seq = session.stream(key)?.submitted;
        session.finish(Place { stream: key, seq })?;
        session.waited()
    })
}

/// Each query lets some work be done, so that polling ends.
#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: Handle) -> Code {
    call("cuStreamQuery", Needs::Context, |session| {
        let key = session.stream_key(stream)?;
        session.forbid_waiting_for_capture("cuStreamQuery", Some(key))?;
        let place = Place { stream: key, seq: session.stream(key)?.submitted };
        if session.context()?.is_complete(place) {
            return Ok(());
        }
        session.run_for_query(place);
        Err(Error::NOT_READY)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) -> Code {
    call("cuStreamWaitEvent", Needs::Context, |session| {
        let key = session.stream_key(stream)?;
        let Some(recorded) = session.event(event)?.recorded else { return Ok(()) };
        if session.capture_wait(key, recorded.capture, recorded.place)? {
            return Ok(());
        }
        session.wait_for(key, recorded.place)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(
    stream: Handle,
    function: Option<extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> Code {
    call("cuLaunchHostFunc", Needs::Context, |session| {
        let function = function.ok_or(Error::INVALID_VALUE)?;
        session.submit(stream, Work::Host(HostCall { function, data: data as usize })).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: Handle, mode: c_uint) -> Code {
    call("cuStreamBeginCapture_v2", Needs::Context, |session| session.begin_capture(stream, mode))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamEndCapture(stream: Handle, graph: Out<'_, Handle>) -> Code {
    call("cuStreamEndCapture", Needs::Context, |session| {
        let graph = graph.ok_or(Error::INVALID_VALUE)?;
        let ended = session.end_capture(stream);
        put(Some(graph), ended.unwrap_or(0))?;
        ended.map(|_| ())
    })
}

/// `CUstreamCaptureStatus`.
const NONE: c_uint = 0;
const ACTIVE: c_uint = 1;
const INVALIDATED: c_uint = 2;

fn capture_info(function: &'static str, stream: Handle, status: Out<'_, c_uint>, id: Out<'_, u64>) -> Code {
    call(function, Needs::Context, |session| {
        let key = session.stream_key(stream)?;
        let capture = session.stream(key)?.capture;
        let invalid =
            capture.and_then(|id| session.context.as_ref()?.captures.get(&id)).is_some_and(|one| one.invalid);
        let state = match capture {
            None => NONE,
            Some(_) if invalid => INVALIDATED,
            Some(_) => ACTIVE,
        };
        put_if(id, capture.unwrap_or(0));
        put(status, state)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamIsCapturing(stream: Handle, status: Out<'_, c_uint>) -> Code {
    capture_info("cuStreamIsCapturing", stream, status, None)
}

/// The graph and the dependencies of a capture that goes on are not given out.
#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: Handle,
    status: Out<'_, c_uint>,
    id: Out<'_, u64>,
    graph: Out<'_, Handle>,
    dependencies: Out<'_, *const Handle>,
    n_dependencies: Out<'_, usize>,
) -> Code {
    put_if(graph, 0);
    put_if(dependencies, std::ptr::null());
    put_if(n_dependencies, 0);
    capture_info("cuStreamGetCaptureInfo_v2", stream, status, id)
}
