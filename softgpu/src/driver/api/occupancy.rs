//! Occupancy.

use std::ffi::{c_int, c_uint};
use std::sync::Arc;

use super::Handle;
use crate::driver::occupancy::{blocks_per_sm, dynamic_bytes};
use crate::driver::{Code, Error, Needs, Out, call, put};

fn max_active(
    function: &'static str,
    blocks: Out<'_, c_int>,
    kernel: Handle,
    threads: c_int,
    dynamic: usize,
) -> Code {
    call(function, Needs::Context, |session| {
        let threads =
            c_uint::try_from(threads).ok().filter(|&threads| threads > 0).ok_or(Error::INVALID_VALUE)?;
        let used = session.function(kernel)?.static_shared_bytes()?;
        let shared = used.saturating_add(c_uint::try_from(dynamic).unwrap_or(c_uint::MAX));
        put(blocks, blocks_per_sm(&session.spec, threads, shared) as c_int)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: Out<'_, c_int>,
    function: Handle,
    threads: c_int,
    dynamic_bytes: usize,
) -> Code {
    max_active("cuOccupancyMaxActiveBlocksPerMultiprocessor", blocks, function, threads, dynamic_bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: Out<'_, c_int>,
    function: Handle,
    threads: c_int,
    dynamic_bytes: usize,
    _flags: c_uint,
) -> Code {
    let name = "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags";
    max_active(name, blocks, function, threads, dynamic_bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    bytes: Out<'_, usize>,
    function: Handle,
    blocks: c_int,
    threads: c_int,
) -> Code {
    call("cuOccupancyAvailableDynamicSMemPerBlock", Needs::Context, |session| {
        let blocks = c_uint::try_from(blocks).map_err(|_| Error::INVALID_VALUE)?;
        let threads = c_uint::try_from(threads).map_err(|_| Error::INVALID_VALUE)?;
        let used = session.function(function)?.static_shared_bytes()?;
        if blocks == 0 || blocks > blocks_per_sm(&session.spec, threads, 0) {
            return Err(Error::INVALID_VALUE);
        }
        put(bytes, dynamic_bytes(&session.spec, blocks, used) as usize)
    })
}

/// `CUoccupancyB2DSize`: dynamic shared memory by the threads of a block.
type BytesOfThreads = Option<extern "C" fn(c_int) -> usize>;

/// Size of block with most threads on a multiprocessor, and the grid that fills the device with them.
fn potential(
    name: &'static str,
    grid: Out<'_, c_int>,
    block: Out<'_, c_int>,
    function: Handle,
    bytes_of: BytesOfThreads,
    dynamic: usize,
    limit: c_int,
) -> Code {
    call(name, Needs::Context, |session| {
        let spec = Arc::clone(&session.spec);
        let function = session.function(function)?;
        let used = function.static_shared_bytes()?;
        let kernel_max = function.kernel()?.maxntid.map_or(u32::MAX, |max| max.iter().product());
        let wanted = c_uint::try_from(limit).ok().filter(|&limit| limit > 0).unwrap_or(c_uint::MAX);
        let most = spec.max_threads_per_block.min(kernel_max).min(wanted);
        let warps = (1..=most.div_ceil(spec.warp_size)).map(|warps| (warps * spec.warp_size).min(most));
        let active = |threads: c_uint| {
            let dynamic = bytes_of.map_or(dynamic, |bytes_of| bytes_of(threads as c_int));
            let shared = used.saturating_add(c_uint::try_from(dynamic).unwrap_or(c_uint::MAX));
            blocks_per_sm(&spec, threads, shared)
        };
        let best =
            warps.max_by_key(|&threads| (active(threads) * threads, threads)).ok_or(Error::INVALID_VALUE)?;
        put(block, best as c_int)?;
        put(grid, (active(best) * spec.sm_count) as c_int)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: Out<'_, c_int>,
    block: Out<'_, c_int>,
    function: Handle,
    bytes_of: BytesOfThreads,
    dynamic_bytes: usize,
    limit: c_int,
) -> Code {
    potential("cuOccupancyMaxPotentialBlockSize", grid, block, function, bytes_of, dynamic_bytes, limit)
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: Out<'_, c_int>,
    block: Out<'_, c_int>,
    function: Handle,
    bytes_of: BytesOfThreads,
    dynamic_bytes: usize,
    limit: c_int,
    _flags: c_uint,
) -> Code {
    potential(
        "cuOccupancyMaxPotentialBlockSizeWithFlags",
        grid,
        block,
        function,
        bytes_of,
        dynamic_bytes,
        limit,
    )
}
