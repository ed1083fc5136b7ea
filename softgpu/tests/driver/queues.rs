//! Streams, events, launches.

use cudarc::driver::{LaunchConfig, PushKernelArg, result, sys};
use komt_softgpu::{Options, QueueMode};

use crate::{Bench, code, gpu, modes, quiet};

/// Adds two vectors and reads the sum, whatever the queue does.
#[test]
fn a_kernel_adds_in_every_mode() {
    for queue in modes() {
        let gpu = gpu(80);
        gpu.options(&Options { queue, record_launches: true, ..Options::default() });
        let bench = Bench::new();
        let n = 1000u32;
        let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..n).map(|i| 0.5 * i as f32).collect();
        let (a, b) = (bench.stream.clone_htod(&a).unwrap(), bench.stream.clone_htod(&b).unwrap());
        let mut c = bench.stream.alloc_zeros::<f32>(n as usize).unwrap();
        let config = LaunchConfig::for_num_elems(n);
        let mut launch = bench.stream.launch_builder(&bench.add);
        launch.arg(&a).arg(&b).arg(&mut c).arg(&n);
        // SAFETY: n elements each.
        unsafe { launch.launch(config) }.unwrap();
        let sum = bench.stream.clone_dtoh(&c).unwrap();
        assert!(sum.iter().enumerate().all(|(i, &x)| x == 1.5 * i as f32), "{queue:?}: {sum:?}");
        let launches = gpu.take_launches();
        assert_eq!(launches.len(), 1);
        assert_eq!(
            (launches[0].kernel.as_str(), launches[0].grid, launches[0].block),
            ("add", [1, 1, 1], [1024, 1, 1])
        );
        assert_eq!(launches[0].counters.global_store_bytes_requested, 4000);
        assert_eq!(gpu.take_complaints(), Vec::<String>::new());
    }
}

#[test]
fn nothing_happens_before_somebody_waits() {
    let gpu = gpu(80);
    let bench = Bench::new();
    let data = bench.stream.clone_htod(&[1u32, 2, 3]).unwrap();
    // SAFETY: filled before it is read.
    let mut pinned = unsafe { bench.ctx.alloc_pinned::<u32>(3) }.unwrap();
    pinned.as_mut_slice().unwrap().fill(9);
    let host = pinned.as_mut_ptr().unwrap();
    let (from, _sync) = cudarc::driver::DevicePtr::device_ptr(&data, &bench.stream);
    // SAFETY: three elements, alive until the stream has been waited for.
    unsafe { sys::cuMemcpyDtoHAsync_v2(host.cast(), from, 12, bench.stream.cu_stream()) }.result().unwrap();
    assert_eq!(pinned.as_slice().unwrap(), [9; 3], "the copy is queued");
    assert!(gpu.pending() > 0);
    bench.stream.synchronize().unwrap();
    assert_eq!(pinned.as_slice().unwrap(), [1, 2, 3]);
    assert_eq!(gpu.pending(), 0);
}

#[test]
fn pageable_bytes_are_taken_at_once_and_pinned_ones_when_the_copy_runs() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let mut pageable = vec![1u8; 4];
    // SAFETY: filled below.
    let mut pinned = unsafe { bench.ctx.alloc_pinned::<u8>(4) }.unwrap();
    pinned.as_mut_slice().unwrap().fill(1);
    let (mut a, mut b) =
        (bench.stream.alloc_zeros::<u8>(4).unwrap(), bench.stream.alloc_zeros::<u8>(4).unwrap());
    bench.stream.memcpy_htod(&pageable, &mut a).unwrap();
    let (to, _sync) = cudarc::driver::DevicePtrMut::device_ptr_mut(&mut b, &bench.stream);
    let host = pinned.as_mut_ptr().unwrap();
    // SAFETY: four bytes, alive until the end.
    unsafe { sys::cuMemcpyHtoDAsync_v2(to, host.cast(), 4, bench.stream.cu_stream()) }.result().unwrap();
    drop(_sync);
    pageable.fill(2);
    // The application forgot to wait before it used its buffer again.
    // SAFETY: ours.
    unsafe { host.write_bytes(2, 4) };
    assert_eq!(bench.stream.clone_dtoh(&a).unwrap(), [1; 4]);
    assert_eq!(bench.stream.clone_dtoh(&b).unwrap(), [2; 4]);
}

#[test]
fn pinned_memory_freed_under_a_queued_copy_is_a_complaint() {
    let gpu = quiet(80);
    let bench = Bench::new();
    let mut data = bench.stream.alloc_zeros::<u8>(64).unwrap();
    let (to, sync) = cudarc::driver::DevicePtrMut::device_ptr_mut(&mut data, &bench.stream);
    // SAFETY: the misuse is the point; the copy is withdrawn.
    unsafe {
        let host = result::malloc_host(64, 0).unwrap();
        sys::cuMemcpyHtoDAsync_v2(to, host, 64, bench.stream.cu_stream()).result().unwrap();
        result::free_host(host).unwrap();
    }
    drop(sync);
    let complaints = gpu.take_complaints();
    assert!(
        complaints.len() == 1 && complaints[0].contains("is queued and uses the memory"),
        "{complaints:?}"
    );
    assert_eq!(bench.stream.clone_dtoh(&data).unwrap(), [0; 64]);
}

#[test]
fn streams_wait_only_for_what_they_are_told_to() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let other = bench.ctx.new_stream().unwrap();
    let mut data = bench.stream.clone_htod(&[1u32; 4]).unwrap();
    bench.stream.synchronize().unwrap();
    bench.stream.memset_zeros(&mut data).unwrap();
    // SAFETY: u32 of any bits.
    let mut copy = unsafe { other.alloc::<u32>(4) }.unwrap();
    other.memcpy_dtod(&data, &mut copy).unwrap();
    assert_eq!(other.clone_dtoh(&copy).unwrap(), [1; 4], "nothing orders the copy after the fill");
    let event = bench.stream.record_event(None).unwrap();
    assert!(!event.is_complete());
    other.wait(&event).unwrap();
    other.memcpy_dtod(&data, &mut copy).unwrap();
    assert_eq!(other.clone_dtoh(&copy).unwrap(), [0; 4]);
    assert!(event.is_complete());
}

#[test]
fn polling_ends() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let data = bench.stream.clone_htod(&[1u32; 4]).unwrap();
    let event = bench.stream.record_event(None).unwrap();
    let mut polls = 0;
    while !event.try_is_complete().unwrap() {
        polls += 1;
        assert!(polls < 100);
    }
    assert!(polls > 0);
    drop(data);
}

#[test]
fn the_null_stream_waits_for_blocking_streams_and_not_for_others() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let stream = result::stream::create(result::stream::StreamKind::Default).unwrap();
    let (blocking, null) = (stream, bench.ctx.default_stream());
    let mut data = null.clone_htod(&[1u8; 4]).unwrap();
    null.synchronize().unwrap();
    let (ptr, sync) = cudarc::driver::DevicePtrMut::device_ptr_mut(&mut data, &null);
    // SAFETY: four bytes.
    unsafe { result::memset_d8_async(ptr, 5, 4, blocking) }.unwrap();
    drop(sync);
    assert_eq!(null.clone_dtoh(&data).unwrap(), [5; 4]);
    // SAFETY: not used any more.
    unsafe { result::stream::destroy(blocking) }.unwrap();
    bench.stream.memset_zeros(&mut data).unwrap();
    assert_eq!(null.clone_dtoh(&data).unwrap(), [5; 4], "the fill is in a stream that does not block");
    bench.stream.synchronize().unwrap();
}

#[test]
fn time_passes_between_events() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let start = bench.stream.record_event(timed).unwrap();
    let data = bench.stream.clone_htod(&vec![1u8; 1 << 20]).unwrap();
    let end = bench.stream.record_event(timed).unwrap();
    let ms = start.elapsed_ms(&end).unwrap();
    assert!(ms > 0.0 && ms < 10_000.0, "{ms}");
    let untimed = bench.stream.record_event(None).unwrap();
    assert_eq!(code(start.elapsed_ms(&untimed).unwrap_err()), sys::CUresult::CUDA_ERROR_INVALID_HANDLE);
    drop(data);
}

#[test]
fn host_functions_run_in_order_and_may_not_call_the_driver() {
    let gpu = quiet(80);
    gpu.options(&Options { quiet: true, queue: QueueMode::Lazy, ..Options::default() });
    let bench = Bench::new();
    static SEEN: std::sync::Mutex<Vec<sys::CUresult>> = std::sync::Mutex::new(Vec::new());
    unsafe extern "C" fn note(_: *mut std::ffi::c_void) {
        // SAFETY: no arguments.
        let refused = unsafe { sys::cuCtxSynchronize() };
        SEEN.lock().unwrap().push(refused);
    }
    for _ in 0..3 {
        // SAFETY: the function takes no data.
        unsafe { sys::cuLaunchHostFunc(bench.stream.cu_stream(), Some(note), std::ptr::null_mut()) }
            .result()
            .unwrap();
    }
    assert!(SEEN.lock().unwrap().is_empty());
    bench.stream.synchronize().unwrap();
    let refused = sys::CUresult::CUDA_ERROR_NOT_PERMITTED;
    assert_eq!(*SEEN.lock().unwrap(), [refused; 3]);
    assert_eq!(gpu.take_complaints().len(), 3);
}

#[test]
fn threads_share_the_driver() {
    for queue in modes() {
        let gpu = gpu(80);
        gpu.options(&Options { queue, ..Options::default() });
        let bench = Bench::new();
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let ctx = &bench.ctx;
                scope.spawn(move || {
                    let stream = ctx.new_stream().unwrap();
                    for round in 0..20 {
                        let data = vec![thread * 100 + round; 100];
                        let up = stream.clone_htod(&data).unwrap();
                        let mut copy = stream.alloc_zeros::<u32>(100).unwrap();
                        stream.memcpy_dtod(&up, &mut copy).unwrap();
                        assert_eq!(stream.clone_dtoh(&copy).unwrap(), data);
                    }
                });
            }
        });
        bench.ctx.synchronize().unwrap();
        assert_eq!(gpu.live_allocations(), 0);
        assert_eq!(gpu.take_complaints(), Vec::<String>::new());
    }
}

#[test]
fn what_is_drawn_is_drawn_again() {
    let pending = |seed| {
        let gpu = gpu(80);
        gpu.options(&Options { queue: QueueMode::Drawn(seed), ..Options::default() });
        let bench = Bench::new();
        let mut data = bench.stream.alloc_zeros::<u8>(16).unwrap();
        let steps: Vec<usize> = (0..40)
            .map(|_| {
                bench.stream.memset_zeros(&mut data).unwrap();
                gpu.pending()
            })
            .collect();
        bench.stream.synchronize().unwrap();
        steps
    };
    assert_eq!(pending(7), pending(7));
    assert_ne!(pending(7), pending(8));
    assert!(pending(7).iter().any(|&pending| pending > 0));
}
