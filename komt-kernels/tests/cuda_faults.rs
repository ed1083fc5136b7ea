//! What goes wrong outside: each thing is its own error, names what matters, leaks nothing, and what can go on does.
#![allow(clippy::unwrap_used)]

mod cuda_support;

use cuda_support::{Gpu, Twin, bound, has_nvrtc, is_real, normal, options};
use half::{bf16, f16};
use komt_cache::StepPlan;
use komt_kernels::cuda::{CudaAct, CudaCache, CudaOptions, devices};
use komt_kernels::{
    AttnShape, Backend, Cuda, Error, HostWeight, KvFormat, KvLayer, Result, Rows, Step, StepCapacity,
    WeightFormat,
};
use komt_softgpu::{DeviceSpec, Fault};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The software GPU: real ones cannot be told to fail.
fn soft(spec: DeviceSpec) -> Option<Gpu> {
    (!is_real()).then(|| Gpu::with(spec)).flatten()
}

fn open<A: CudaAct>(options: CudaOptions) -> Error {
    Cuda::<A>::with(options).map(|cuda| cuda.device_name()).unwrap_err()
}

#[track_caller]
fn contains(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in: {text}"));
}

#[test]
fn no_driver() {
    if is_real() {
        return;
    }
    // In a process of its own, which never loads the software GPU.
    let exe = std::env::current_exe().unwrap();
    let child =
        Command::new(exe).args(["--exact", "child_without_driver", "--ignored", "--nocapture"]).output();
    let child = child.unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && text.contains("NoDriver"), "{text}");
}

#[test]
#[ignore = "run by no_driver"]
fn child_without_driver() {
    let error = open::<bf16>(options());
    assert!(matches!(error, Error::NoDriver { .. }), "{error:?}");
    contains(&error, &["libcuda.so"]);
    assert!(matches!(devices(), Err(Error::NoDriver { .. })));
    println!("{error:?}");
}

#[test]
fn no_compiler() {
    let Some(_gpu) = soft(DeviceSpec::sm(80)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("libnvrtc.so.12");
    for missing in [dir.path().to_path_buf(), dir.path().join("nowhere"), broken.clone()] {
        let error = open::<bf16>(options().nvrtc(&missing));
        assert!(matches!(error, Error::NoNvrtc { .. }), "{error:?}");
        contains(&error, &[missing.to_str().unwrap(), "nvidia-cuda-nvrtc-cu12", "KOMT_NVRTC"]);
    }
    fs::write(&broken, "no library".repeat(100)).unwrap();
    contains(&open::<bf16>(options().nvrtc(dir.path())), &["libnvrtc.so.12", "invalid ELF header"]);
}

#[test]
fn no_such_device() {
    let Some(gpu) = soft(DeviceSpec::sm(80)) else { return };
    let error = open::<bf16>(options().ordinal(7));
    assert!(matches!(error, Error::NoDevice { ordinal: 7, found: 1 }), "{error:?}");
    assert_eq!(devices().unwrap().len(), 1);
    gpu.soft.as_ref().unwrap().fault(Fault::NoDevice);
    let error = open::<bf16>(options());
    assert!(matches!(error, Error::NoDevice { ordinal: 0, found: 0 }), "{error:?}");
    assert!(devices().unwrap().is_empty());
}

#[test]
fn old_driver() {
    let Some(gpu) = soft(DeviceSpec::sm(80)) else { return };
    gpu.soft.as_ref().unwrap().fault(Fault::DriverVersion(11080));
    let error = open::<bf16>(options());
    assert!(matches!(error, Error::DriverTooOld { .. }), "{error:?}");
    contains(&error, &["11.8", "12.0"]);
}

/// The driver of the CUDA 12.2 class: it takes machine code of NVRTC 12.9, and refuses its PTX. This device takes no machine
/// code, so both reasons are told.
#[test]
fn ptx_too_new() {
    for fault in [Fault::DriverVersion(12020), Fault::PtxTooNew] {
        let Some(gpu) = soft(DeviceSpec::sm(80)) else { return };
        gpu.soft.as_ref().unwrap().fault(fault);
        let error = open::<bf16>(options());
        assert!(matches!(error, Error::KernelRefused { .. }), "{error:?}");
        contains(
            &error,
            &[".cu", "machine code: CUDA_ERROR_NO_BINARY_FOR_GPU", "PTX: CUDA_ERROR_UNSUPPORTED_PTX_VERSION"],
        );
    }
}

#[test]
fn device_without_kernels() {
    if let Some(_gpu) = soft(DeviceSpec::sm(75)) {
        let error = open::<bf16>(options());
        assert!(matches!(error, Error::UnsupportedDevice { .. }), "{error:?}");
        contains(&error, &["sm_75", "sm_80", "f16"]);
        assert!(!devices().unwrap()[0].has_bf16());
    }
    let volta = DeviceSpec { arch: (7, 0), ..DeviceSpec::sm(75) };
    if let Some(_gpu) = soft(volta) {
        contains(&open::<f16>(options()), &["sm_70", "sm_75"]);
    }
}

#[test]
fn unsupported_shapes_and_weights() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut cuda = gpu.cuda::<f16>();
    let attn = AttnShape { n_heads: 8, n_kv_heads: 2, head_dim: 64, window: None };
    cuda.check_shape(attn, &[("dim", 512)]).unwrap();
    let error = cuda.check_shape(attn, &[("dim", 512), ("hidden_dim", 1000)]).unwrap_err();
    contains(&error, &["hidden_dim", "1000", "32"]);
    let error = cuda.check_shape(attn, &[("dim", (1 << 20) + 32)]).unwrap_err();
    contains(&error, &["dim", "1048608", "up to 1048576"]);
    let error = cuda.check_shape(AttnShape { head_dim: 80, ..attn }, &[]).unwrap_err();
    contains(&error, &["head_dim", "80", "64, 96 and 128"]);

    let mut load = |cols, numbers: &[bf16]| {
        let parts = [bytemuck::cast_slice(numbers)];
        let rows = numbers.len() / cols;
        cuda.load_weight(HostWeight { rows, cols, format: WeightFormat::Bf16, parts: &parts })
    };
    let error = load(33, &[bf16::ONE; 33]).unwrap_err();
    contains(&error, &["33", "32"]);
    let mut numbers = vec![bf16::ONE; 3 * 64];
    numbers[64 + 5] = bf16::from_f32(-70000.0);
    numbers[64 + 6] = bf16::INFINITY;
    let error = load(64, &numbers).unwrap_err();
    let Error::WeightRange { row, col, value, .. } = error else { panic!("{error:?}") };
    assert_eq!((row, col, value), (1, 5, bf16::from_f32(-70000.0).to_f32()));
    contains(&error, &["65504"]);
}

/// A grid has 65,535 blocks at most in y, where sequences are, and tiles of 64 rows of a matrix.
#[test]
fn more_rows_and_sequences_than_a_grid_has_blocks() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut cuda = gpu.cuda::<bf16>();
    let rows = 64 * 65_535 + 1;
    let bytes = vec![0; rows * 32 * 2]; // read by nobody
    let weight = HostWeight { rows, cols: 32, format: WeightFormat::Bf16, parts: &[&bytes] };
    let error = cuda.load_weight(weight).map(drop).unwrap_err();
    contains(&error, &["rows of a matrix", "4194241", "4194240 at most"]);

    let (n, attn) = (65_536, AttnShape { n_heads: 1, n_kv_heads: 1, head_dim: 64, window: None });
    let mut plan = StepPlan::new(1);
    plan.pad_to(n);
    let capacity = StepCapacity { max_tokens: n, max_seqs: n, max_logits: n, table_len: 1 };
    let mut step = Step::<Cuda<bf16>>::alloc(&mut cuda, capacity).unwrap();
    step.load(&mut cuda, &plan).unwrap();
    let kv = KvLayer::<Cuda<bf16>>::alloc(&mut cuda, 16, attn, KvFormat::Bf16).unwrap();
    let mut qkv = Rows::<Cuda<bf16>, bf16>::alloc(&mut cuda, n, 3 * 64).unwrap();
    let mut out = Rows::<Cuda<bf16>, bf16>::alloc(&mut cuda, n, 64).unwrap();
    (qkv.rows, out.rows) = (n, n);
    let refused = |error: Error| contains(&error, &["sequences in a step", "65536", "65535 at most"]);
    refused(cuda.attention(&mut out, &qkv, &kv, &step, attn).unwrap_err());
    let (mut sums, weights) =
        (Rows::<Cuda<bf16>, f32>::alloc(&mut cuda, n, 64).unwrap(), cuda.alloc::<f32>(n).unwrap());
    sums.rows = n;
    refused(cuda.pool(&mut sums, &out, &weights, &step).unwrap_err());
}

/// Opens a device, loads, and runs an operation: everything that allocates.
fn everything(gpu: &Gpu) -> Result<()> {
    let _ = gpu;
    let mut cuda = Cuda::<bf16>::with(options())?;
    let numbers = vec![bf16::ONE; 32 * 64];
    let parts = [bytemuck::cast_slice(&numbers)];
    let _w =
        cuda.load_weight(HostWeight { rows: 32, cols: 64, format: WeightFormat::Bf16, parts: &parts })?;
    let mut buf = cuda.alloc::<f32>(1000)?;
    let _other = cuda.alloc::<u32>(1)?;
    cuda.upload(&mut buf, &[1.0; 1000])?;
    let mut back = [0.0; 1000];
    cuda.download(&mut back, &buf)?;
    assert_eq!(back, [1.0; 1000]);
    Ok(())
}

#[test]
fn out_of_memory_at_each_allocation() {
    let Some(gpu) = soft(DeviceSpec::sm(80)) else { return };
    let soft = gpu.soft.as_ref().unwrap();
    for nth in 1.. {
        assert!(nth < 500, "out of memory without end");
        soft.fault(Fault::AllocationFails { nth });
        let done = everything(&gpu);
        soft.fault(Fault::None);
        assert_eq!((soft.live_allocations(), soft.live_handles()), (0, 0), "after {done:?}");
        match done {
            Ok(()) => {
                assert!(nth > 5, "only {nth} allocations");
                break;
            }
            Err(error) => assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}"),
        }
    }
    everything(&gpu).unwrap();
}

#[test]
fn a_buffer_larger_than_the_device() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut cuda = gpu.cuda::<bf16>();
    let available = cuda.available_bytes().unwrap();
    for len in [available as usize + 1, usize::MAX / 2, usize::MAX] {
        let error = cuda.alloc::<f32>(len).map(|buf| buf.len()).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}");
    }
    // On a card others take and give memory meanwhile.
    let is_available = |cuda: &Cuda<bf16>| gpu.soft.is_none() || cuda.available_bytes() == Some(available);
    assert!(is_available(&cuda));
    let half = cuda.alloc::<u32>(available as usize / 8).unwrap();
    assert!(cuda.available_bytes().unwrap() <= available / 2);
    drop(half);
    assert!(is_available(&cuda), "given back");
}

fn matmul<A: CudaAct>(t: &mut Twin<A>) -> Result<()> {
    let (x, w) = (t.acts(2, 64, &normal(1, 128)), t.weight(5, 64, &normal(2, 320)));
    let mut out = t.acts(2, 5, &[0.0; 10]);
    t.cpu.matmul(&mut out.cpu, &x.cpu, &w.cpu)?;
    t.cuda.matmul(&mut out.cuda, &x.cuda, &w.cuda)?;
    t.check("matmul", &out, bound::<A>());
    Ok(())
}

#[test]
fn a_launch_that_is_refused() {
    let Some(gpu) = soft(DeviceSpec::sm(80)) else { return };
    let mut t = gpu.twin::<bf16>();
    matmul(&mut t).unwrap();
    gpu.soft.as_ref().unwrap().fault(Fault::LaunchFails { nth: 1, sticky: false });
    let error = matmul(&mut t).unwrap_err();
    assert!(matches!(error, Error::Launch { .. }), "{error:?}");
    contains(&error, &["software sm_80: matmul (matmul_", "threads", "CUDA_ERROR_INVALID_VALUE"]);
    matmul(&mut t).unwrap(); // the device works still
}

#[test]
fn a_kernel_that_fails() {
    for sync in [false, true] {
        let Some(gpu) = soft(DeviceSpec::sm(80)) else { return };
        let soft = gpu.soft.as_ref().unwrap();
        let mut t = gpu.twin::<bf16>();
        t.cuda = Cuda::with(options().sync(sync)).unwrap();
        let (x, w) = (t.acts(2, 64, &normal(1, 128)), t.weight(5, 64, &normal(2, 320)));
        let mut out = t.acts(2, 5, &[0.0; 10]);
        gpu.loses_a_context();
        soft.fault(Fault::LaunchFails { nth: 1, sticky: true });
        let launched = t.cuda.matmul(&mut out.cuda, &x.cuda, &w.cuda);
        let error = match sync {
            true => launched.unwrap_err(),
            false => {
                launched.unwrap(); // it shows itself later
                t.cuda.download(&mut [bf16::ZERO; 10], &out.cuda.buf).unwrap_err()
            }
        };
        assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
        contains(&error, &["software sm_80", "matmul", "CUDA_ERROR_LAUNCH_FAILED"]);
        // From now on everything says so, on every clone.
        let mut clone = t.cuda.clone();
        let lost =
            |result: Result<()>| assert!(matches!(result, Err(Error::DeviceLost { .. })), "{result:?}");
        lost(clone.alloc::<f32>(1).map(drop));
        lost(clone.upload(&mut out.cuda.buf, &[bf16::ONE]));
        lost(clone.download(&mut [bf16::ONE], &out.cuda.buf));
        lost(t.cuda.matmul(&mut out.cuda, &x.cuda, &w.cuda));
        lost(t.cuda.record(Default::default(), false, &mut |_| Ok(())));
        assert_eq!(t.cuda.available_bytes(), None);
        // Opened anew it works, while what was lost is alive still; then that is dropped, and it works still.
        let mut fresh = gpu.twin::<bf16>();
        matmul(&mut fresh).unwrap();
        lost(clone.alloc::<f32>(1).map(drop));
        drop((t, clone, x, w, out));
        matmul(&mut fresh).unwrap();
    }
}

/// The same, with everything dropped before the device is opened again.
#[test]
fn a_kernel_that_fails_and_nothing_left() {
    let Some(gpu) = soft(DeviceSpec::sm(80)) else { return };
    let mut t = gpu.twin::<bf16>();
    gpu.loses_a_context();
    gpu.soft.as_ref().unwrap().fault(Fault::LaunchFails { nth: 1, sticky: true });
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| matmul(&mut t)));
    assert!(failed.is_err(), "the download in it fails");
    drop(t);
    matmul(&mut gpu.twin::<bf16>()).unwrap();
}

#[test]
fn cache_entries() {
    let Some(gpu) = soft(DeviceSpec::sm(80)) else { return };
    let CudaCache::Dir(shared) = options().cache else { panic!() };
    drop(gpu.cuda::<bf16>()); // all of its entries are there now
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("new/komt");
    let works = |what: &str| {
        let mut t = gpu.twin::<bf16>();
        let cached = options().cache(CudaCache::Dir(dir.clone()));
        t.cuda = Cuda::with(cached).unwrap_or_else(|error| panic!("{what}: {error}"));
        matmul(&mut t).unwrap();
    };
    // Small ones are broken, so that little is compiled again; the others are taken over.
    let is_small =
        |path: &Path| ["embed", "swiglu", "take-rows"].iter().any(|name| file_name(path).starts_with(name));
    fs::create_dir_all(&dir).unwrap();
    for path in files(&shared).into_iter().filter(|path| !is_small(path)) {
        fs::copy(&path, dir.join(file_name(&path))).unwrap();
    }
    works("no entry");
    let entries = || -> Vec<_> {
        let small = files(&dir).into_iter().filter(|path| is_small(path));
        small.map(|path| (fs::read(&path).unwrap(), path)).collect()
    };
    let whole = entries();
    assert_eq!(whole.len(), 3);
    works("whole entries");
    assert!(entries() == whole, "left as they are");
    type Change = fn(&[u8], &[u8]) -> Vec<u8>;
    let broken: [(&str, Change); 6] = [
        ("empty", |_, _| vec![]),
        ("cut", |entry, _| entry[..entry.len() / 2].into()),
        ("one byte more", |entry, _| [entry, b"!"].concat()),
        ("another format", |entry, _| [b"other", &entry[5..]].concat()),
        ("of another key", |_, other| other.into()),
        ("one bit wrong", |entry, _| {
            let mut entry = entry.to_vec();
            let middle = entry.len() / 2;
            entry[middle] ^= 1;
            entry
        }),
    ];
    for (what, change) in broken {
        for (i, (entry, path)) in whole.iter().enumerate() {
            fs::write(path, change(entry, &whole[(i + 1) % whole.len()].0)).unwrap();
        }
        works(what);
        assert!(entries() == whole, "{what}: written anew");
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The files of a directory, sorted; temporary ones, which others may be writing, left out.
fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_none()).collect();
    paths.sort();
    paths
}

#[test]
fn cache_that_cannot_be_written() {
    let Some(gpu) = soft(DeviceSpec::sm(80)) else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut t = gpu.twin::<bf16>();
    t.cuda = Cuda::with(options().cache(CudaCache::Dir(file.path().into()))).unwrap();
    matmul(&mut t).unwrap();
}

#[test]
fn the_compiler_is_there_when_it_must_be() {
    let _ = has_nvrtc(); // fails under KOMT_REQUIRE_CUDA=1 without one, where everything else would be skipped
}
