//! Copies between host and device, and conversion of weights on their way.

use super::context::{Context, Garbage, Work};
use super::repack::DeviceLayout;
use super::{CudaAct, CudaBuf};
use crate::{Elem, Error, HostWeight, Result, WeightFormat};
use bytemuck::cast_slice_mut;
use cudarc::driver::{result, sys};
use half::{bf16, f16};
use std::ffi::c_void;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

/// 2 x 8 MiB: a copy that long runs at the bus's full speed, and the memory is not missed.
const HALF_BYTES: usize = 8 << 20;

/// Pinned memory in two halves: one is filled while the other is on its way. No copy waits for more than the one before the
/// last.
#[derive(Debug)]
pub(super) struct Staging {
    start: *mut c_void,
    halves: [Half; 2],
    next: usize,
    context: Arc<Context>,
}

#[derive(Debug)]
struct Half {
    sent: sys::CUevent,
    state: State,
}

/// When a half may be filled again.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Now.
    Free,
    /// When its event has passed.
    Sent,
    /// When the stream has done all that it has: the event could not be recorded, and tells of an earlier copy.
    Unmarked,
}

// SAFETY: the memory and the events belong to this value alone, and are used under `&mut self`.
unsafe impl Send for Staging {}

impl Staging {
    pub(super) fn new(context: &Arc<Context>, _work: &Work<'_>) -> Result<Self> {
        let failed = |call| move |error| context.failed(call, error);
        // SAFETY: nobody reads it before it is written.
        let start = unsafe { result::malloc_host(2 * HALF_BYTES, 0) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Error::OutOfMemory { device: "pinned memory of the host".into(), bytes: 2 * HALF_BYTES }
            }
            _ => failed("cuMemHostAlloc")(error),
        })?;
        let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let half = |sent| Half { sent, state: State::Free };
        let halves = event().and_then(|first| match event() {
            Ok(second) => Ok([half(first), half(second)]),
            Err(error) => {
                context.discard(Garbage::Event(first));
                Err(error)
            }
        });
        match halves {
            Ok(halves) => Ok(Self { start, halves, next: 0, context: context.clone() }),
            Err(error) => {
                context.discard(Garbage::Pinned(start));
                Err(failed("cuEventCreate")(error))
            }
        }
    }

    /// Fills the next half with up to `bytes` (no more than `HALF_BYTES`), and sends it to `to` on the device.
    fn send(
        &mut self,
        stream: sys::CUstream,
        to: u64,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        assert!(bytes <= HALF_BYTES, "Staging: {bytes} bytes");
        let half = &mut self.halves[self.next];
        let context = &self.context;
        let failed = |call| move |error| context.failed(call, error);
        match half.state {
            State::Free => {}
            State::Sent => {
                // SAFETY: the event was recorded when the half was sent.
                unsafe { result::event::synchronize(half.sent) }.map_err(failed("cuEventSynchronize"))?;
            }
            State::Unmarked => {
                // SAFETY: the stream lives.
                unsafe { result::stream::synchronize(stream) }.map_err(failed("cuStreamSynchronize"))?;
            }
        }
        half.state = State::Free;
        // SAFETY: within the pinned memory; the device is not reading it; the halves do not overlap.
        let memory = unsafe {
            std::slice::from_raw_parts_mut(self.start.cast::<u8>().add(self.next * HALF_BYTES), bytes)
        };
        fill(memory)?;
        // SAFETY: `to` is a live buffer with room for the bytes; the half is not written before its state allows it.
        unsafe {
            result::memcpy_htod_async(to, memory, stream).map_err(failed("cuMemcpyHtoDAsync"))?;
            half.state = State::Unmarked;
            result::event::record(half.sent, stream).map_err(failed("cuEventRecord"))?;
        }
        half.state = State::Sent;
        self.next = 1 - self.next;
        Ok(())
    }

    /// Copies `src` to `to`: it may be changed afterwards, the copy takes its place among what is launched.
    pub(super) fn upload(&mut self, stream: sys::CUstream, mut to: u64, src: &[u8]) -> Result<()> {
        for chunk in src.chunks(HALF_BYTES) {
            self.send(stream, to, chunk.len(), |memory| {
                copy(memory, chunk);
                Ok(())
            })?;
            to += chunk.len() as u64;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.context.discard(Garbage::Pinned(self.start));
        self.halves.iter().for_each(|half| self.context.discard(Garbage::Event(half.sent)));
    }
}

/// Bytes that are worth a thread.
const TASK_BYTES: usize = 1 << 20;

/// Threads for so many bytes.
pub(super) fn threads_for(bytes: usize) -> usize {
    const MAX_THREADS: usize = 8; // they saturate the memory of most machines
    let cores = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    cores.min(bytes / TASK_BYTES)
}

/// Runs `task` on pieces of `to` and the pieces of `from` (`size` bytes an element) that belong to them, with the piece's
/// first element, in threads of its own: with locks in its hands, this one must not take up a pool's other work.
fn in_pieces<T: Send, R: Send>(
    to: &mut [T],
    from: &[u8],
    size: usize,
    task: impl Fn(usize, &mut [T], &[u8]) -> R + Sync,
) -> Vec<R> {
    let threads = threads_for(from.len());
    if threads <= 1 {
        return vec![task(0, to, from)];
    }
    let len = to.len().div_ceil(threads);
    thread::scope(|scope| {
        let pieces = to.chunks_mut(len).zip(from.chunks(len * size)).enumerate();
        let task = &task;
        let tasks: Vec<_> =
            pieces.map(|(i, (to, from))| scope.spawn(move || task(i * len, to, from))).collect();
        let done = tasks.into_iter().map(|task| task.join());
        done.map(|done| done.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

fn copy(to: &mut [u8], from: &[u8]) {
    in_pieces(to, from, 1, |_, to, from| to.copy_from_slice(from));
}

/// Sends a matrix to `to` on the device, converted to `A` or, where it is quantised, to the layout of its kernels.
pub(super) fn weight<A: CudaAct>(
    staging: &mut Staging,
    stream: sys::CUstream,
    to: u64,
    weight: HostWeight<'_>,
) -> Result<()> {
    if weight.format.is_quantised() {
        return quantised::<A>(staging, stream, to, weight);
    }
    const CHUNK: usize = HALF_BYTES / 2; // elements
    let HostWeight { cols, format, parts, .. } = weight;
    let mut at = 0; // element of the matrix
    for part in parts {
        for from in part.chunks(CHUNK * format.bytes(1, 1)) {
            let n = from.len() / format.bytes(1, 1);
            staging.send(stream, to + 2 * at as u64, 2 * n, |memory| {
                convert::<A>(cast_slice_mut(memory), from, format)
                    .map_err(|(i, value)| out_of_range::<A>((at + i) / cols, (at + i) % cols, value))
            })?;
            at += n;
        }
    }
    Ok(())
}

fn quantised<A: CudaAct>(
    staging: &mut Staging,
    stream: sys::CUstream,
    to: u64,
    weight: HostWeight<'_>,
) -> Result<()> {
    let layout = DeviceLayout::new(weight.format, weight.rows, weight.cols);
    for range in layout.row_ranges(HALF_BYTES) {
        let (at, bytes) = layout.quants_of(&range);
        staging.send(stream, to + at as u64, bytes, |memory| {
            layout.repack_quants(weight.parts[0], range.start, memory, A::IS_F16);
            Ok(())
        })?;
        let (at, bytes) = layout.scales_of(&range);
        staging.send(stream, to + at as u64, bytes, |memory| {
            layout.repack_scales(weight.parts[0], range.start, memory);
            Ok(())
        })?;
    }
    staging.upload(stream, to + layout.row_scales_at() as u64, &layout.row_scales(weight.parts[0]))
}

fn out_of_range<A: CudaAct>(row: usize, col: usize, value: f32) -> Error {
    let (format, max) = match A::IS_F16 {
        true => ("f16", f16::MAX.to_f32()),
        false => ("bf16", bf16::MAX.to_f32()),
    };
    Error::WeightRange { row, col, value, format, min: -max, max }
}

/// The first number that does not fit, and its place, where there is one.
type Converted = std::result::Result<(), (usize, f32)>;

/// Converts numbers of any alignment.
fn convert<A: CudaAct>(to: &mut [A], from: &[u8], format: WeightFormat) -> Converted {
    match (format, A::IS_F16) {
        (WeightFormat::F16, true) | (WeightFormat::Bf16, false) => {
            copy(cast_slice_mut(to), from);
            Ok(())
        }
        (WeightFormat::F32, _) => each(to, from, |bytes: [u8; 4]| f32::from_le_bytes(bytes)),
        (WeightFormat::F16, false) => each(to, from, |bytes| f16::from_le_bytes(bytes).to_f32()),
        (WeightFormat::Bf16, true) => each(to, from, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        (WeightFormat::Q8 | WeightFormat::Q4, _) => unreachable!("repacked, not converted"),
    }
}

fn each<A: CudaAct, const N: usize>(
    to: &mut [A],
    from: &[u8],
    widen: impl Fn([u8; N]) -> f32 + Sync,
) -> Converted {
    let bad = in_pieces(to, from, N, |start, to, from| {
        let (numbers, _) = from.as_chunks::<N>();
        let mut is_bad = false;
        for (to, number) in to.iter_mut().zip(numbers) {
            *to = A::from_f32(widen(*number));
            is_bad |= to.is_infinite();
        }
        // Looked for again only where there is one: the loop above stays free of branches.
        let i = if is_bad { to.iter().position(|number| number.is_infinite()) } else { None };
        i.map(|i| (start + i, widen(numbers[i])))
    });
    bad.into_iter().flatten().next().map_or(Ok(()), Err)
}

/// Copies the start of `src` to `dst`, and waits until it is there.
pub(super) fn download<T: Elem>(
    context: &Context,
    _work: &Work<'_>,
    stream: sys::CUstream,
    dst: &mut [T],
    src: &CudaBuf<T>,
) -> Result<()> {
    assert!(dst.len() <= src.len(), "download: {} of {} elements", dst.len(), src.len());
    // SAFETY: the buffer is live and as long; an `Elem` may be of any bits; `dst` is not touched until the copy is done.
    unsafe { result::memcpy_dtoh_async(dst, src.ptr(), stream) }
        .map_err(|error| context.failed("cuMemcpyDtoHAsync", error))?;
    // SAFETY: the stream lives.
    unsafe { result::stream::synchronize(stream) }
        .map_err(|error| context.failed("cuStreamSynchronize", error))
}
