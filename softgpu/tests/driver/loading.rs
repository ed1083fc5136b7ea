//! The library, and what it loads.

use std::ffi::CString;

use cudarc::driver::{CudaContext, sys};
use cudarc::nvrtc::Ptx;
use komt_softgpu::{DeviceSpec, Fault, SoftGpu};

use crate::{ADD, Bench, code, gpu, quiet};

type Code = sys::CUresult;

fn load(ctx: &std::sync::Arc<CudaContext>, ptx: &str) -> Code {
    match ctx.load_module(Ptx::from_src(ptx)) {
        Ok(_) => Code::CUDA_SUCCESS,
        Err(error) => code(error),
    }
}

#[test]
fn no_file_has_the_drivers_name() {
    let gpu = SoftGpu::load().unwrap();
    assert_eq!(gpu.path().file_name().unwrap(), "libkomt_softgpu.so");
    let deps = gpu.path().parent().unwrap();
    for dir in [deps, deps.parent().unwrap()] {
        for entry in std::fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                !name.starts_with("libcuda.") && !name.starts_with("libnvcuda."),
                "{name} in {}",
                dir.display()
            );
        }
    }
}

#[test]
fn machine_code_is_not_for_this_gpu() {
    let _gpu = gpu(80);
    let bench = Bench::new();
    let mut elf = b"\x7fELF\x02\x01\x01\x33".to_vec();
    elf.resize(1024, 0);
    let loaded = bench.ctx.load_module(Ptx::from_binary(elf));
    assert_eq!(code(loaded.map(|_| ()).unwrap_err()), Code::CUDA_ERROR_NO_BINARY_FOR_GPU);
}

#[test]
fn ptx_of_another_time_or_device_is_refused() {
    let gpu = gpu(80);
    let ctx = CudaContext::new(0).unwrap();
    assert_eq!(load(&ctx, ADD), Code::CUDA_SUCCESS);
    assert_eq!(load(&ctx, &ADD.replace(".version 7.0", ".version 8.8")), Code::CUDA_SUCCESS);
    assert_eq!(
        load(&ctx, &ADD.replace(".version 7.0", ".version 8.9")),
        Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
    );
    assert_eq!(load(&ctx, &ADD.replace("sm_75", "sm_90")), Code::CUDA_ERROR_NO_BINARY_FOR_GPU);
    gpu.fault(Fault::DriverVersion(12020));
    assert_eq!(load(&ctx, &ADD.replace(".version 7.0", ".version 8.2")), Code::CUDA_SUCCESS);
    assert_eq!(
        load(&ctx, &ADD.replace(".version 7.0", ".version 8.3")),
        Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
    );
    gpu.fault(Fault::PtxTooNew);
    assert_eq!(load(&ctx, ADD), Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    gpu.fault(Fault::None);
    assert_eq!(load(&ctx, ADD), Code::CUDA_SUCCESS);
}

#[test]
fn an_unknown_instruction_is_named_in_the_log() {
    let gpu = quiet(80);
    let ctx = CudaContext::new(0).unwrap();
    let ptx = CString::new(ADD.replace("add.f32 %f3", "wibble.f32 %f3")).unwrap();
    let mut log = vec![0u8; 256];
    let mut module = std::ptr::null_mut();
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast(), log.len() as *mut std::ffi::c_void];
    // SAFETY: two options with their values; the log has room for as much as it says.
    let loaded = unsafe {
        let image = ptx.as_ptr().cast();
        sys::cuModuleLoadDataEx(&mut module, image, 2, options.as_mut_ptr(), values.as_mut_ptr())
    };
    assert_eq!(loaded, Code::CUDA_ERROR_INVALID_PTX);
    let text = String::from_utf8(log[..values[1] as usize].to_vec()).unwrap();
    assert!(text.contains("wibble") && text.contains("line 34"), "{text}");
    assert!(gpu.take_complaints()[0].contains("wibble"));
    drop(ctx);
}

#[test]
fn functions_say_what_they_need() {
    use sys::CUfunction_attribute_enum as F;
    let _gpu = gpu(80);
    let bench = Bench::new();
    let attribute = |which| bench.add.get_attribute(which).unwrap();
    assert_eq!(attribute(F::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 1024);
    assert_eq!(attribute(F::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES), 0);
    assert_eq!(attribute(F::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES), 0);
    assert_eq!(attribute(F::CU_FUNC_ATTRIBUTE_PTX_VERSION), 70);
    assert_eq!(attribute(F::CU_FUNC_ATTRIBUTE_BINARY_VERSION), 80);
    assert!(attribute(F::CU_FUNC_ATTRIBUTE_NUM_REGS) > 0);
    assert_eq!(bench.add.occupancy_max_active_blocks_per_multiprocessor(256, 0, None).unwrap(), 8);
    assert_eq!(
        code(bench.ctx.load_module(Ptx::from_src(ADD)).unwrap().load_function("sub").unwrap_err()),
        Code::CUDA_ERROR_NOT_FOUND
    );
}

#[test]
fn a_module_whose_variables_find_no_memory_leaves_nothing_behind() {
    let gpu = gpu(80);
    let ctx = CudaContext::new(0).unwrap();
    let variables = "\n.global .align 4 .b8 table[64];\n.const .align 4 .b8 other[64];";
    let ptx = ADD.replacen(".address_size 64", &format!(".address_size 64{variables}"), 1);
    let free = ctx.mem_get_info().unwrap().0;
    for nth in 1..=2 {
        gpu.fault(Fault::AllocationFails { nth });
        assert_eq!(load(&ctx, &ptx), Code::CUDA_ERROR_OUT_OF_MEMORY, "variable {nth}");
        assert_eq!((ctx.mem_get_info().unwrap().0, gpu.live_handles()), (free, 0));
    }
    let module = ctx.load_module(Ptx::from_src(ptx)).unwrap();
    assert!(ctx.mem_get_info().unwrap().0 < free, "it fails once");
    drop(module);
    assert_eq!(ctx.mem_get_info().unwrap().0, free);
    assert_eq!(gpu.take_complaints(), Vec::<String>::new());
}

#[test]
fn contexts_are_counted() {
    let gpu = gpu(80);
    let state = || {
        let (mut flags, mut active) = (0, 0);
        // SAFETY: room for both.
        unsafe { sys::cuDevicePrimaryCtxGetState(0, &mut flags, &mut active) }.result().unwrap();
        active
    };
    let a = CudaContext::new(0).unwrap();
    let b = CudaContext::new(0).unwrap();
    assert_eq!(a.cu_ctx(), b.cu_ctx());
    assert_eq!(gpu.live_retains(), 2);
    drop(a);
    assert_eq!((state(), gpu.live_retains()), (1, 1));
    drop(b);
    assert_eq!((state(), gpu.live_retains()), (0, 0));
    let bench = Bench::new();
    assert_eq!(gpu.live_handles(), 2, "a stream and a module");
    drop(bench);
    assert_eq!(gpu.live_handles(), 0);
    assert_eq!(DeviceSpec::sm(80).arch, (8, 0));
}
