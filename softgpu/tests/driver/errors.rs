//! Faults on request, and what stays after an error.

use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg, sys};
use komt_softgpu::Fault;

use crate::{Bench, code, gpu, quiet};

type Code = sys::CUresult;

/// Adds `n` elements of vectors of 64.
fn add(bench: &Bench, n: u32) -> Result<Vec<f32>, DriverError> {
    let a = bench.stream.clone_htod(&[1f32; 64])?;
    let b = bench.stream.clone_htod(&[2f32; 64])?;
    let mut c = bench.stream.alloc_zeros::<f32>(64)?;
    let mut launch = bench.stream.launch_builder(&bench.add);
    launch.arg(&a).arg(&b).arg(&mut c).arg(&n);
    // SAFETY: the software GPU checks bounds.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n)) }?;
    bench.stream.clone_dtoh(&c)
}

#[test]
fn no_device() {
    let gpu = gpu(80);
    gpu.fault(Fault::NoDevice);
    assert_eq!(code(CudaContext::new(0).unwrap_err()), Code::CUDA_ERROR_NO_DEVICE);
    gpu.fault(Fault::None);
    CudaContext::new(0).unwrap();
}

#[test]
fn the_version_of_the_driver() {
    let gpu = gpu(80);
    let version = || {
        let mut version = 0;
        // SAFETY: room for an int.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().unwrap();
        version
    };
    assert_eq!(version(), 12090);
    gpu.fault(Fault::DriverVersion(12020));
    assert_eq!(version(), 12020);
}

#[test]
fn each_allocation_can_fail_and_nothing_leaks() {
    let gpu = gpu(80);
    let bench = Bench::new();
    for nth in 1..=3 {
        gpu.fault(Fault::AllocationFails { nth });
        assert_eq!(code(add(&bench, 64).unwrap_err()), Code::CUDA_ERROR_OUT_OF_MEMORY, "allocation {nth}");
        assert_eq!(gpu.live_allocations(), 0);
        assert_eq!(add(&bench, 64).unwrap(), [3.0; 64], "it fails once");
    }
    gpu.fault(Fault::AllocationFails { nth: 1 });
    // SAFETY: refused.
    let pinned = unsafe { bench.ctx.alloc_pinned::<u8>(8) };
    assert_eq!(code(pinned.map(|_| ()).unwrap_err()), Code::CUDA_ERROR_OUT_OF_MEMORY);
}

#[test]
fn memory_ends() {
    let mut spec = komt_softgpu::DeviceSpec::sm(80);
    spec.memory_bytes = 1 << 20;
    let _gpu = komt_softgpu::SoftGpu::lock(&spec).unwrap();
    let bench = Bench::new();
    let most = bench.stream.alloc_zeros::<u8>(1 << 20).unwrap();
    let error = bench.stream.alloc_zeros::<u8>(1).unwrap_err();
    assert_eq!(code(error), Code::CUDA_ERROR_OUT_OF_MEMORY);
    drop(most);
    bench.stream.synchronize().unwrap();
    bench.stream.alloc_zeros::<u8>(1 << 20).unwrap();
}

#[test]
fn a_launch_that_is_refused_can_be_tried_again() {
    let gpu = gpu(80);
    let bench = Bench::new();
    gpu.fault(Fault::LaunchFails { nth: 2, sticky: false });
    assert_eq!(add(&bench, 64).unwrap(), [3.0; 64]);
    assert_eq!(code(add(&bench, 64).unwrap_err()), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(add(&bench, 64).unwrap(), [3.0; 64]);
}

/// Ends `bench` and looks whether a new context works.
fn a_new_context_works(bench: Bench) {
    drop(bench);
    let bench = Bench::new();
    assert_eq!(add(&bench, 64).unwrap(), [3.0; 64]);
}

#[test]
fn a_kernel_that_fails_breaks_the_context() {
    let gpu = gpu(80);
    let bench = Bench::new();
    gpu.fault(Fault::LaunchFails { nth: 1, sticky: true });
    assert_eq!(code(add(&bench, 64).unwrap_err()), Code::CUDA_ERROR_LAUNCH_FAILED);
    for _ in 0..3 {
        assert_eq!(code(add(&bench, 64).unwrap_err()), Code::CUDA_ERROR_LAUNCH_FAILED);
    }
    assert_eq!(gpu.live_allocations(), 0, "destroying goes on, whatever it returns");
    a_new_context_works(bench);
    assert_eq!(gpu.live_allocations(), 0);
    assert_eq!(gpu.take_complaints(), Vec::<String>::new());
}

#[test]
fn waiting_can_fail() {
    let gpu = gpu(80);
    let bench = Bench::new();
    gpu.fault(Fault::SynchronizeFails { nth: 2 });
    bench.stream.synchronize().unwrap();
    assert_eq!(code(bench.stream.synchronize().unwrap_err()), Code::CUDA_ERROR_LAUNCH_FAILED);
    a_new_context_works(bench);
}

#[test]
fn what_a_broken_context_takes_along_is_no_leak() {
    let gpu = gpu(80);
    let bench = Bench::new();
    std::mem::forget(bench.stream.clone_htod(&[1u8]).unwrap());
    gpu.fault(Fault::SynchronizeFails { nth: 1 });
    assert!(bench.stream.synchronize().is_err());
    assert_eq!(gpu.live_allocations(), 1);
    // SAFETY: nothing of the context is used after it.
    unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }.result().unwrap();
    assert_eq!((gpu.live_allocations(), gpu.live_bytes(), gpu.live_handles()), (0, 0, 0));
    let data = bench.ctx.default_stream().clone_htod(&[7u8]).unwrap();
    assert_eq!(bench.ctx.default_stream().clone_dtoh(&data).unwrap(), [7], "the context works again");
    std::mem::forget(bench);
}

#[test]
fn out_of_bounds_is_an_illegal_address_that_stays() {
    let gpu = quiet(80);
    let bench = Bench::new();
    assert_eq!(code(add(&bench, 65).unwrap_err()), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_eq!(code(add(&bench, 64).unwrap_err()), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    let complaints = gpu.take_complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    for part in ["kernel `add`", "out of bounds", "thread (64, 0, 0)", "ld.global.f32"] {
        assert!(complaints[0].contains(part), "{part}: {}", complaints[0]);
    }
    a_new_context_works(bench);
}

#[test]
fn a_download_of_what_a_kernel_had_from_nobody_names_the_kernel() {
    let gpu = quiet(80);
    let bench = Bench::new();
    // SAFETY: reading it is the point.
    let a = unsafe { bench.stream.alloc::<f32>(64) }.unwrap();
    let mut c = bench.stream.alloc_zeros::<f32>(64).unwrap();
    let mut launch = bench.stream.launch_builder(&bench.add);
    launch.arg(&a).arg(&a).arg(&mut c).arg(&64u32);
    // SAFETY: 64 elements each.
    unsafe { launch.launch(LaunchConfig::for_num_elems(64)) }.unwrap();
    assert_eq!(code(bench.stream.clone_dtoh(&c).unwrap_err()), Code::CUDA_ERROR_LAUNCH_FAILED);
    let complaints = gpu.take_complaints().concat();
    for part in ["a copy of 256 bytes", "holds an undefined value", "kernel `add`", "`st.global.f32"] {
        assert!(complaints.contains(part), "{part}: {complaints}");
    }
}

#[test]
fn memory_freed_under_a_queued_kernel_is_caught() {
    let gpu = quiet(80);
    let bench = Bench::new();
    let a = bench.stream.clone_htod(&[1f32; 64]).unwrap();
    let mut c = bench.stream.alloc_zeros::<f32>(64).unwrap();
    bench.stream.synchronize().unwrap();
    // SAFETY: freed once, below.
    let early = unsafe { cudarc::driver::result::malloc_sync(256) }.unwrap();
    // SAFETY: 256 bytes.
    unsafe { cudarc::driver::result::memset_d8_async(early, 0, 256, bench.stream.cu_stream()) }.unwrap();
    let mut launch = bench.stream.launch_builder(&bench.add);
    launch.arg(&a).arg(&early).arg(&mut c).arg(&64u32);
    // SAFETY: the software GPU catches the misuse.
    unsafe { launch.launch(LaunchConfig::for_num_elems(64)) }.unwrap();
    // SAFETY: not used by what is submitted later. The queue has not been waited for: the point.
    unsafe { cudarc::driver::result::free_sync(early) }.unwrap();
    assert_eq!(code(bench.stream.synchronize().unwrap_err()), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(gpu.take_complaints()[0].contains("use after free"));
}

#[test]
fn freeing_twice_is_refused() {
    let gpu = quiet(80);
    let _bench = Bench::new();
    // SAFETY: the second is refused.
    unsafe {
        let ptr = cudarc::driver::result::malloc_sync(16).unwrap();
        cudarc::driver::result::free_sync(ptr).unwrap();
        let again = cudarc::driver::result::free_sync(ptr);
        assert_eq!(code(again.unwrap_err()), Code::CUDA_ERROR_INVALID_VALUE);
    }
    assert!(gpu.take_complaints()[0].contains("not the start of a live allocation"));
}

#[test]
fn launches_beyond_the_limits_are_refused() {
    let gpu = quiet(86);
    let bench = Bench::new();
    let (p, n) = (0u64, 0u32);
    let launch = |grid_dim, block_dim, shared_mem_bytes| {
        let mut launch = bench.stream.launch_builder(&bench.add);
        launch.arg(&p).arg(&p).arg(&p).arg(&n);
        // SAFETY: n = 0: nothing is read.
        unsafe { launch.launch(LaunchConfig { grid_dim, block_dim, shared_mem_bytes }) }.map(|_| ())
    };
    let one = (1, 1, 1);
    launch(one, one, 48 << 10).unwrap();
    for (grid, block, shared) in [
        ((0, 1, 1), one, 0),
        ((1, 65536, 1), one, 0),
        (one, (1025, 1, 1), 0),
        (one, (1, 1, 65), 0),
        (one, one, (48 << 10) + 1),
    ] {
        let error = launch(grid, block, shared).unwrap_err();
        assert_eq!(code(error), Code::CUDA_ERROR_INVALID_VALUE, "{grid:?} {block:?} {shared}");
    }
    let dynamic = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    bench.add.set_attribute(dynamic, 99 << 10).unwrap();
    launch(one, one, 99 << 10).unwrap();
    assert!(bench.add.set_attribute(dynamic, (99 << 10) + 1).is_err(), "sm_86 has 99 KiB");
    bench.stream.synchronize().unwrap();
    assert_eq!(gpu.take_complaints().len(), 5);
}

#[test]
fn error_names_are_cudas() {
    let _gpu = gpu(80);
    let error = DriverError(Code::CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_eq!(error.error_name().unwrap().to_str().unwrap(), "CUDA_ERROR_NO_BINARY_FOR_GPU");
    assert_eq!(
        error.error_string().unwrap().to_str().unwrap(),
        "no kernel image is available for execution on the device"
    );
}
