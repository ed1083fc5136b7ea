//! The device and its memory.

use cudarc::driver::{CudaContext, result, sys};
use komt_softgpu::DeviceSpec;
use sys::CUdevice_attribute as A;

use crate::{Bench, code, gpu, quiet};

#[test]
fn the_device_says_what_its_spec_says() {
    for sm in DeviceSpec::all_sm() {
        let _gpu = gpu(sm);
        let spec = DeviceSpec::sm(sm);
        assert_eq!(CudaContext::device_count().unwrap(), 1);
        let ctx = CudaContext::new(0).unwrap();
        assert!(ctx.name().unwrap().contains("software"), "{}", ctx.name().unwrap());
        let (major, minor) = ctx.compute_capability().unwrap();
        assert_eq!((major as u32, minor as u32), spec.arch);
        assert_eq!(ctx.total_mem().unwrap() as u64, spec.memory_bytes);
        assert_eq!(ctx.mem_get_info().unwrap(), (spec.memory_bytes as usize, spec.memory_bytes as usize));
        let attribute = |which| ctx.attribute(which).unwrap() as u32;
        assert_eq!(attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), spec.sm_count);
        assert_eq!(
            attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            spec.shared_bytes_per_block_optin
        );
        assert_eq!(attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK), 49152);
        assert_eq!(attribute(A::CU_DEVICE_ATTRIBUTE_WARP_SIZE), 32);
        assert_eq!(attribute(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE), spec.l2_bytes);
        assert_eq!(attribute(A::CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING), 1);
        assert_eq!(attribute(A::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE), spec.memory_clock_khz);
        assert_eq!(attribute(A::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH), spec.memory_bus_bits);
        assert_eq!(ctx.uuid().unwrap().bytes[..8].iter().map(|&b| b as u8).collect::<Vec<_>>(), b"software");
    }
}

#[test]
fn there_is_one_device() {
    let _gpu = gpu(80);
    assert_eq!(code(CudaContext::new(1).unwrap_err()), sys::CUresult::CUDA_ERROR_INVALID_DEVICE);
}

#[test]
fn memory_goes_up_and_down_and_is_counted() {
    let gpu = gpu(80);
    let bench = Bench::new();
    assert_eq!(gpu.live_allocations(), 0);
    let data: Vec<u32> = (0..1000).collect();
    let up = bench.stream.clone_htod(&data).unwrap();
    let mut other = bench.stream.alloc_zeros::<u32>(1000).unwrap();
    assert_eq!(gpu.live_allocations(), 2);
    assert_eq!(bench.stream.clone_dtoh(&other).unwrap(), vec![0; 1000]);
    bench.stream.memcpy_dtod(&up, &mut other).unwrap();
    assert_eq!(bench.stream.clone_dtoh(&other).unwrap(), data);
    let (free, total) = bench.ctx.mem_get_info().unwrap();
    assert!(total - free >= 8000, "{}", total - free);
    drop((up, other));
    assert_eq!(gpu.live_allocations(), 0);
    bench.stream.synchronize().unwrap();
    assert_eq!(bench.ctx.mem_get_info().unwrap().0, total, "given back in stream order");
    assert_eq!(gpu.take_complaints(), Vec::<String>::new());
}

#[test]
fn without_pools_allocations_are_the_synchronous_ones() {
    let mut spec = DeviceSpec::sm(75);
    spec.memory_pools = false;
    let gpu = komt_softgpu::SoftGpu::lock(&spec).unwrap();
    let bench = Bench::new();
    assert!(!bench.ctx.has_async_alloc());
    let up = bench.stream.clone_htod(&[1u8, 2, 3]).unwrap();
    assert_eq!(bench.stream.clone_dtoh(&up).unwrap(), [1, 2, 3]);
    drop(up);
    let calls = gpu.take_calls();
    let count = |name: &str| calls.iter().find(|call| call.function == name).map_or(0, |call| call.calls);
    assert_eq!((count("cuMemAlloc_v2"), count("cuMemFree_v2")), (1, 1));
    assert_eq!((count("cuMemAllocAsync"), count("cuMemFreeAsync")), (0, 0));
    // SAFETY: refused.
    let refused = unsafe { result::malloc_async(bench.stream.cu_stream(), 4) };
    assert_eq!(code(refused.unwrap_err()), sys::CUresult::CUDA_ERROR_NOT_SUPPORTED);
}

#[test]
fn what_is_not_freed_is_told_after_the_context_too() {
    let gpu = gpu(80);
    let bench = Bench::new();
    let kept = bench.stream.clone_htod(&[1u8]).unwrap();
    // SAFETY: written before use; not used.
    let pinned = unsafe { bench.ctx.alloc_pinned::<u8>(10) }.unwrap();
    std::mem::forget(kept);
    std::mem::forget(pinned);
    assert_eq!(gpu.live_allocations(), 2);
    // SAFETY: nothing is used any more; `kept` holds the context in its own count.
    unsafe { result::primary_ctx::release(0) }.unwrap();
    assert_eq!(gpu.live_allocations(), 2, "left behind");
    std::mem::forget(bench);
}

#[test]
fn memory_that_nobody_wrote_does_not_come_down() {
    let gpu = quiet(80);
    let bench = Bench::new();
    // SAFETY: reading it is the point.
    let fresh = unsafe { bench.stream.alloc::<u32>(4) }.unwrap();
    let error = bench.stream.clone_dtoh(&fresh).unwrap_err();
    assert_eq!(code(error), sys::CUresult::CUDA_ERROR_LAUNCH_FAILED);
    let complaints = gpu.take_complaints();
    assert!(complaints.iter().any(|one| one.contains("never been written")), "{complaints:?}");
}

#[test]
fn a_copy_past_the_end_is_refused_and_told() {
    let gpu = quiet(80);
    let bench = Bench::new();
    let small = bench.stream.clone_htod(&[0u8; 16]).unwrap();
    let (ptr, _sync) = cudarc::driver::DevicePtr::device_ptr(&small, &bench.stream);
    // SAFETY: refused.
    let refused = unsafe { result::memcpy_htod_async(ptr + 8, &[1u8; 9], bench.stream.cu_stream()) };
    assert_eq!(code(refused.unwrap_err()), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
    assert!(gpu.take_complaints()[0].contains("9 bytes at"));
    assert_eq!(bench.stream.clone_dtoh(&small).unwrap(), [0; 16], "not sticky");
}

#[test]
fn fills_of_every_width() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let mut data = bench.stream.alloc_zeros::<u8>(8).unwrap();
    bench.stream.memset_zeros(&mut data).unwrap();
    let (ptr, _sync) = cudarc::driver::DevicePtr::device_ptr(&data, &bench.stream);
    let stream = bench.stream.cu_stream();
    // SAFETY: inside of the allocation.
    unsafe {
        sys::cuMemsetD32Async(ptr, 0x0403_0201, 1, stream).result().unwrap();
        sys::cuMemsetD16Async(ptr + 4, 0x0605, 1, stream).result().unwrap();
        sys::cuMemsetD8Async(ptr + 6, 7, 2, stream).result().unwrap();
    }
    assert_eq!(bench.stream.clone_dtoh(&data).unwrap(), [1, 2, 3, 4, 5, 6, 7, 7]);
}
