//! Graphs, as captures make them: they are not built or changed node by node.

use std::ffi::{c_char, c_uint};
use std::sync::Arc;

use super::{Handle, put_text};
use crate::driver::capture::{Exec, node_type};
use crate::driver::{Code, Error, Needs, Out, call, put, put_if};

/// Free what a launch allocates before the next, upload at instantiation, use the priorities of nodes. Launching from the device
/// (4) goes with none of the first, and is not here.
const FLAGS: u64 = 1 | 2 | 8;

fn instantiate(function: &'static str, exec: Out<'_, Handle>, graph: Handle, flags: u64) -> Code {
    call(function, Needs::Context, |session| {
        if flags & !FLAGS != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let exec = exec.ok_or(Error::INVALID_VALUE)?;
        let work = Arc::clone(&session.context()?.graphs.get(&graph).ok_or(Error::INVALID_VALUE)?.work);
        let handle = session.handle();
        session.context()?.execs.insert(handle, Exec { work });
        put(Some(exec), handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(exec: Out<'_, Handle>, graph: Handle, flags: u64) -> Code {
    instantiate("cuGraphInstantiateWithFlags", exec, graph, flags)
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiate_v2(
    exec: Out<'_, Handle>,
    graph: Handle,
    error_node: Out<'_, Handle>,
    log: *mut c_char,
    log_bytes: usize,
) -> Code {
    put_if(error_node, 0);
    let _ = put_text(log, log_bytes, "");
    instantiate("cuGraphInstantiate_v2", exec, graph, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(exec: Handle, stream: Handle) -> Code {
    call("cuGraphUpload", Needs::Context, |session| {
        session.stream_key(stream)?;
        session.context()?.execs.get(&exec).map(|_| ()).ok_or(Error::INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(exec: Handle, stream: Handle) -> Code {
    call("cuGraphLaunch", Needs::Context, |session| session.launch_graph(exec, stream))
}

/// Launches that are queued still run.
#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(exec: Handle) -> Code {
    call("cuGraphExecDestroy", Needs::Destroys, |session| {
        session.context()?.execs.remove(&exec).map(|_| ()).ok_or(Error::INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: Handle) -> Code {
    call("cuGraphDestroy", Needs::Destroys, |session| {
        session.context()?.graphs.remove(&graph).map(|_| ()).ok_or(Error::INVALID_VALUE)
    })
}

/// With no room for nodes, their number; else up to `count` of them, and null for those that are not there.
#[unsafe(no_mangle)]
extern "C" fn cuGraphGetNodes(graph: Handle, nodes: *mut Handle, count: Option<&mut usize>) -> Code {
    call("cuGraphGetNodes", Needs::Context, |session| {
        let count = count.ok_or(Error::INVALID_VALUE)?;
        let known = &session.context()?.graphs.get(&graph).ok_or(Error::INVALID_VALUE)?.nodes;
        if !nodes.is_null() {
            for at in 0..*count {
                // SAFETY: the application says that there is room for `count` nodes.
                unsafe { nodes.add(at).write(known.get(at).copied().unwrap_or(0)) };
            }
        }
        *count = if nodes.is_null() { known.len() } else { known.len().min(*count) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphNodeGetType(node: Handle, kind: Out<'_, c_uint>) -> Code {
    call("cuGraphNodeGetType", Needs::Context, |session| {
        let graphs = session.context()?.graphs.values();
        let found = graphs.filter_map(|graph| {
            let at = graph.nodes.iter().position(|&known| known == node)?;
            graph.work.get(at)
        });
        put(kind, found.map(node_type).next().ok_or(Error::INVALID_VALUE)?)
    })
}
