//! Capture and graphs.

use cudarc::driver::{CudaGraph, CudaSlice, LaunchConfig, PushKernelArg, result, sys};
use komt_softgpu::Options;

use crate::{Bench, code, gpu, modes, quiet};

const MODE: sys::CUstreamCaptureMode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const NO_FLAGS: sys::CUgraphInstantiate_flags = sys::CUgraphInstantiate_flags(0);

/// `a += b`, `n` times, captured.
fn capture(bench: &Bench, a: &mut CudaSlice<f32>, b: &CudaSlice<f32>, times: usize) -> CudaGraph {
    bench.stream.begin_capture(MODE).unwrap();
    add(bench, a, b, times);
    bench.stream.end_capture(NO_FLAGS).unwrap().unwrap()
}

fn add(bench: &Bench, a: &mut CudaSlice<f32>, b: &CudaSlice<f32>, times: usize) {
    let n = b.len() as u32;
    let pointer = {
        let (pointer, _sync) = cudarc::driver::DevicePtr::device_ptr(&*a, &bench.stream);
        pointer
    };
    for _ in 0..times {
        let mut launch = bench.stream.launch_builder(&bench.add);
        launch.arg(&pointer).arg(b).arg(&pointer).arg(&n);
        // SAFETY: n elements each; each thread reads its element before it writes it.
        unsafe { launch.launch(LaunchConfig::for_num_elems(n)) }.unwrap();
    }
}

#[test]
fn a_capture_executes_nothing_and_its_graph_replays() {
    for queue in modes() {
        let gpu = gpu(80);
        gpu.options(&Options { queue, record_launches: true, ..Options::default() });
        let bench = Bench::new();
        let mut a = bench.stream.clone_htod(&[0f32; 40]).unwrap();
        let b = bench.stream.clone_htod(&[1f32; 40]).unwrap();
        let graph = capture(&bench, &mut a, &b, 3);
        assert_eq!(bench.stream.clone_dtoh(&a).unwrap(), [0.0; 40]);
        assert_eq!(gpu.take_launches().len(), 0);
        for round in 1..=3 {
            graph.launch().unwrap();
            assert_eq!(bench.stream.clone_dtoh(&a).unwrap(), [3.0 * round as f32; 40], "{queue:?}");
        }
        let launches = gpu.take_launches();
        assert!(launches.len() == 9 && launches.iter().all(|launch| launch.from_graph));
        assert_eq!(gpu.take_complaints(), Vec::<String>::new());
    }
}

#[test]
fn a_graph_counts_its_nodes() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let mut a = bench.stream.clone_htod(&[0f32; 4]).unwrap();
    let b = bench.stream.clone_htod(&[1f32; 4]).unwrap();
    let graph = capture(&bench, &mut a, &b, 5);
    let mut count = 0;
    // SAFETY: null asks for the number; then there is room for all.
    let kinds: Vec<_> = unsafe {
        sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &mut count).result().unwrap();
        let mut nodes = vec![std::ptr::null_mut(); count];
        sys::cuGraphGetNodes(graph.cu_graph(), nodes.as_mut_ptr(), &mut count).result().unwrap();
        let kind = |node| {
            let mut kind = sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
            sys::cuGraphNodeGetType(node, &mut kind).result().unwrap();
            kind
        };
        nodes.into_iter().map(kind).collect()
    };
    assert_eq!(kinds, [sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL; 5]);
}

#[test]
fn allocating_in_a_capture_makes_it_void() {
    let gpu = quiet(80);
    let bench = Bench::new();
    bench.stream.begin_capture(MODE).unwrap();
    // SAFETY: refused.
    let refused = unsafe { result::malloc_sync(64) };
    assert_eq!(code(refused.unwrap_err()), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    let status = bench.stream.capture_status().unwrap();
    assert_eq!(status, sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    let error = bench.stream.end_capture(NO_FLAGS).map(|_| ()).unwrap_err();
    assert_eq!(code(error), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert!(gpu.take_complaints()[0].contains("cuMemAlloc_v2 while a stream captures"));
    let data = bench.stream.clone_htod(&[1u8]).unwrap();
    assert_eq!(bench.stream.clone_dtoh(&data).unwrap(), [1], "the stream is as before");
}

#[test]
fn waiting_in_a_capture_makes_it_void() {
    let _gpu = quiet(80);
    let bench = Bench::new();
    bench.stream.begin_capture(MODE).unwrap();
    let error = bench.stream.synchronize().unwrap_err();
    assert_eq!(code(error), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert!(bench.stream.end_capture(NO_FLAGS).is_err());
}

#[test]
fn pageable_memory_is_not_captured() {
    let gpu = quiet(80);
    let bench = Bench::new();
    let mut data = bench.stream.clone_htod(&[1u8; 8]).unwrap();
    bench.stream.begin_capture(MODE).unwrap();
    let error = bench.stream.memcpy_htod(&[2u8; 8], &mut data).unwrap_err();
    assert_eq!(code(error), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert!(bench.stream.end_capture(NO_FLAGS).is_err());
    assert!(gpu.take_complaints()[0].contains("only page-locked memory"));
}

#[test]
fn the_null_stream_is_not_captured() {
    let _gpu = quiet(80);
    let bench = Bench::new();
    let error = bench.ctx.default_stream().begin_capture(MODE).unwrap_err();
    assert_eq!(code(error), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

#[test]
fn a_capture_spreads_over_streams_that_wait_and_must_be_joined() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let other = bench.ctx.new_stream().unwrap();
    let mut data = bench.stream.clone_htod(&[1u8; 8]).unwrap();
    bench.stream.synchronize().unwrap();
    for joined in [false, true] {
        let (fork, join) = (bench.ctx.new_event(None).unwrap(), bench.ctx.new_event(None).unwrap());
        bench.stream.begin_capture(MODE).unwrap();
        fork.record(&bench.stream).unwrap();
        other.wait(&fork).unwrap();
        other.memset_zeros(&mut data).unwrap();
        join.record(&other).unwrap();
        if joined {
            bench.stream.wait(&join).unwrap();
        }
        let ended = bench.stream.end_capture(NO_FLAGS);
        if joined {
            ended.unwrap().unwrap().launch().unwrap();
            assert_eq!(bench.stream.clone_dtoh(&data).unwrap(), [0; 8]);
        } else {
            assert_eq!(
                code(ended.map(|_| ()).unwrap_err()),
                sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED
            );
        }
    }
}

#[test]
fn a_captured_stream_does_not_wait_for_the_outside() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let before = bench.stream.record_event(None).unwrap();
    bench.stream.begin_capture(MODE).unwrap();
    assert_eq!(
        code(bench.stream.wait(&before).unwrap_err()),
        sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION
    );
    assert!(bench.stream.end_capture(NO_FLAGS).is_err());
}

#[test]
fn a_replay_after_its_module_went_is_caught() {
    let gpu = quiet(80);
    let bench = Bench::new();
    let mut a = bench.stream.clone_htod(&[0f32; 4]).unwrap();
    let b = bench.stream.clone_htod(&[1f32; 4]).unwrap();
    let graph = capture(&bench, &mut a, &b, 1);
    let Bench { ctx, stream, add } = bench;
    drop(add);
    graph.launch().unwrap();
    assert_eq!(code(stream.synchronize().unwrap_err()), sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(gpu.take_complaints()[0].contains("after its module was unloaded"));
    drop((graph, a, b, stream, ctx));
}
