//! The host's side of CUDA: memory, weights on their way, recordings, threads.
#![allow(clippy::unwrap_used)]

mod cuda_support;

use cuda_support::{Gpu, Twin, compare, normal, options, table as page_table};
use half::{bf16, f16};
use komt_cache::{Logits, PagePool, StepDims, StepPlan};
use komt_kernels::cuda::{CudaAct, CudaCounts, CudaWeight};
use komt_kernels::{Backend, Cuda, Error, HostWeight, Result, Rows, StepCapacity, WeightFormat};
use komt_softgpu::{Options, QueueMode};

#[test]
fn device_in_words() {
    let Some(gpu) = Gpu::open(75) else { return };
    let cuda = gpu.cuda::<f16>();
    println!("{}, {} bytes free", cuda.device_name(), cuda.available_bytes().unwrap());
    if gpu.soft.is_some() {
        assert_eq!(cuda.device_name(), "software sm_75 (sm_75, f16)");
        assert_eq!((cuda.device().arch, cuda.device().sm_count), ((7, 5), 40));
    }
    assert!(cuda.available_bytes().unwrap() < cuda.device().memory_bytes);
}

#[test]
fn memory_there_and_back() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut cuda = gpu.cuda::<bf16>();
    let mut buf = cuda.alloc::<u32>(1000).unwrap();
    assert_eq!((buf.len(), buf.is_empty(), buf.ptr() % 256), (1000, false, 0));
    let mut back = vec![7; 1000];
    cuda.download(&mut back, &buf).unwrap();
    assert_eq!(back, [0; 1000], "zeroed");
    // Copies take their place in the order of calls, and what they read may be changed at once.
    let mut src: Vec<u32> = (0..1000).collect();
    cuda.upload(&mut buf, &src).unwrap();
    src.fill(1);
    cuda.upload(&mut buf, &src[..10]).unwrap();
    src.fill(2);
    cuda.upload(&mut buf, &src[..3]).unwrap();
    cuda.download(&mut back, &buf).unwrap();
    let expected = |i| {
        if i < 3 {
            2
        } else if i < 10 {
            1
        } else {
            i
        }
    };
    assert_eq!(back, (0..1000).map(expected).collect::<Vec<_>>());
    cuda.download(&mut back[..4], &buf).unwrap();
    cuda.upload(&mut buf, &[]).unwrap();
    let empty = cuda.alloc::<f32>(0).unwrap();
    assert!(empty.is_empty());
    cuda.download(&mut [], &empty).unwrap();
}

/// Longer than the pinned memory, so that its halves are used again while copies are under way.
#[test]
fn long_copies() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut cuda = gpu.cuda::<bf16>();
    let len = (40 << 20) / 4 + 1;
    let src: Vec<u32> = (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
    let mut buf = cuda.alloc::<u32>(len).unwrap();
    cuda.upload(&mut buf, &src).unwrap();
    let mut back = vec![0; len];
    cuda.download(&mut back, &buf).unwrap();
    assert!(back == src);
}

/// The matrix, as its rows come out of an embedding... of the identity: `out = 1 . w^T`, one column at a time.
fn stored<A: CudaAct>(cuda: &mut Cuda<A>, w: &CudaWeight<A>, rows: usize, cols: usize) -> Vec<f32> {
    let mut identity = Rows::<Cuda<A>, A>::alloc(cuda, cols, cols).unwrap();
    let ones: Vec<A> = (0..cols * cols).map(|i| A::from_f32(f32::from(i / cols == i % cols))).collect();
    cuda.upload(&mut identity.buf, &ones).unwrap();
    let mut out = Rows::<Cuda<A>, f32>::alloc(cuda, cols, rows).unwrap();
    (identity.rows, out.rows) = (cols, cols);
    cuda.matmul_f32(&mut out, &identity, w).unwrap();
    let mut columns = vec![0.0; rows * cols];
    cuda.download(&mut columns, &out.buf).unwrap();
    (0..rows * cols).map(|i| columns[i % cols * rows + i / cols]).collect()
}

/// Two parts at odd addresses, in each format, to each type.
fn weights_keep_their_values<A: CudaAct>(sm: u32) {
    let Some(gpu) = Gpu::open(sm) else { return };
    let mut cuda = gpu.cuda::<A>();
    let (rows, cols) = (7, 32);
    let numbers = normal(5, rows * cols);
    for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
        let (bytes, values): (Vec<Vec<u8>>, Vec<f32>) = numbers
            .iter()
            .map(|&x| match format {
                WeightFormat::F32 => (x.to_le_bytes().to_vec(), x),
                WeightFormat::F16 => (f16::from_f32(x).to_le_bytes().to_vec(), f16::from_f32(x).to_f32()),
                WeightFormat::Bf16 => (bf16::from_f32(x).to_le_bytes().to_vec(), bf16::from_f32(x).to_f32()),
                WeightFormat::Q8 | WeightFormat::Q4 => unreachable!("not stored number by number"),
            })
            .unzip();
        let bytes = [vec![0], bytes.concat()].concat();
        let (first, second) = bytes[1..].split_at(2 * cols * format.bytes(1, 1));
        let second = [&[0, 0, 0], second].concat();
        let weight = HostWeight { rows, cols, format, parts: &[first, &second[3..]] };
        let w = cuda.load_weight(weight).unwrap();
        assert_eq!(cuda.weight_bytes(rows, cols, format), 2 * (rows * cols) as u64);
        let expected: Vec<f32> = values.iter().map(|&value| A::from_f32(value).to_f32()).collect();
        assert_eq!(stored(&mut cuda, &w, rows, cols), expected, "{format:?}");
    }
}

#[test]
fn weights_keep_their_values_in_bf16() {
    weights_keep_their_values::<bf16>(80);
}

#[test]
fn weights_keep_their_values_in_f16() {
    weights_keep_their_values::<f16>(75);
}

/// Longer than the pinned memory: rows at its seams, and everywhere.
#[test]
fn long_weights() {
    const ROWS: usize = 140_000;
    const COLS: usize = 64;
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<f16>();
    let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 4001) as f32 / 16.0 - 125.0; // exact in all formats
    let numbers: Vec<f32> = (0..ROWS * COLS).map(value).collect();
    let load = |cuda: &mut Cuda<f16>, numbers: &[f32]| {
        let (first, rest) = numbers.split_at(3 * COLS);
        let parts = [bytemuck::cast_slice(first), bytemuck::cast_slice(rest)];
        cuda.load_weight(HostWeight { rows: ROWS, cols: COLS, format: WeightFormat::F32, parts: &parts })
    };
    let table = load(&mut t.cuda, &numbers).unwrap();

    let ids: Vec<u32> = (0..64).map(|i| (i * (ROWS - 1) / 63) as u32).collect();
    let mut plan = StepPlan::new(4);
    plan.push(&page_table(&mut PagePool::new(4), 4, 64), 0, &ids, Logits::None);
    let capacity = StepCapacity { max_tokens: 64, max_seqs: 1, max_logits: 1, table_len: 4 };
    let step = t.step(&plan, capacity).cuda;
    let mut x = t.residual(64, COLS, &[0.0; 64 * COLS]).cuda;
    t.cuda.embed(&mut x, &table, &step).unwrap();
    let expected: Vec<f32> =
        ids.iter().flat_map(|&id| (0..COLS).map(move |c| value(id as usize * COLS + c))).collect();
    assert_eq!(t.download(&x), expected);

    let mut wrong = numbers.clone();
    (wrong[ROWS * COLS - 70], wrong[ROWS * COLS - 1]) = (1e6, f32::NEG_INFINITY);
    let error = load(&mut t.cuda, &wrong).map(drop).unwrap_err();
    let Error::WeightRange { row, col, value, .. } = error else { panic!("{error:?}") };
    assert_eq!((row, col, value), (ROWS - 2, COLS - 6, 1e6));
}

/// `x += x . w^T` and `h = norm(x)`, over and over: a step that changes what it reads.
struct Model<A: CudaAct> {
    x: Rows<Cuda<A>, f32>,
    h: Rows<Cuda<A>, A>,
    w: CudaWeight<A>,
    norm: <Cuda<A> as Backend>::Buf<f32>,
}

const DIM: usize = 64;
const ROWS: usize = 4;

impl<A: CudaAct> Model<A> {
    fn new(t: &mut Twin<A>) -> Self {
        let (w, norm) = (t.weight(DIM, DIM, &normal(3, DIM * DIM)).cuda, t.vector(&[0.1; DIM]).cuda);
        let (x, h) =
            (t.residual(ROWS, DIM, &[0.0; ROWS * DIM]).cuda, t.acts(ROWS, DIM, &[0.0; ROWS * DIM]).cuda);
        Self { x, h, w, norm }
    }

    /// Starts anew from `seed`, runs `n` steps, and returns what is in `x`.
    fn run(&mut self, cuda: &mut Cuda<A>, seed: u64, n: usize, key: Option<StepDims>) -> Result<Vec<f32>> {
        cuda.upload(&mut self.x.buf, &normal(seed, ROWS * DIM))?;
        for _ in 0..n {
            self.step(cuda, key)?;
        }
        let mut back = vec![0.0; ROWS * DIM];
        cuda.download(&mut back, &self.x.buf)?;
        Ok(back)
    }

    fn step(&mut self, cuda: &mut Cuda<A>, key: Option<StepDims>) -> Result<()> {
        let Self { x, h, w, norm } = self;
        cuda.record(key.unwrap_or_default(), key.is_some(), &mut |cuda| {
            cuda.rms_norm(h, x, norm, 1e-5)?;
            cuda.matmul_add(x, h, w)
        })
    }
}

fn dims(n: usize) -> Option<StepDims> {
    Some(StepDims { n_tokens: n, n_seqs: n, n_logits: n })
}

#[test]
fn replayed_steps_are_the_eager_ones() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let mut model = Model::new(&mut t);
    let cuda = &mut t.cuda;
    let before = cuda.counts();
    let eager = [1, 2].map(|seed| model.run(cuda, seed, 5, None).unwrap());
    assert_ne!(eager[0], eager[1]);
    assert_eq!(cuda.counts().launches - before.launches, 20);
    let recorded = [1, 2].map(|seed| model.run(cuda, seed, 5, dims(ROWS)).unwrap());
    assert_eq!(recorded, eager, "bit for bit");
    // The first runs as it is, the second is recorded, eight are replayed.
    let CudaCounts { launches, recordings, replays, .. } = cuda.counts();
    assert_eq!((launches - before.launches, recordings, replays), (24, 1, 8));
    // Other dimensions, other recordings; a clone begins without.
    assert_eq!(model.run(cuda, 1, 5, dims(5)).unwrap(), eager[0]);
    assert_eq!(cuda.counts().recordings, 2);
    assert_eq!(model.run(&mut cuda.clone(), 1, 5, dims(5)).unwrap(), eager[0]);
    assert_eq!(cuda.counts().recordings, 3);
    // A step that fails while it is recorded leaves the device in order, and can be tried again.
    let mut fails = |cuda: &mut Cuda<bf16>| {
        let mut n = 0;
        cuda.record(dims(6).unwrap(), true, &mut |cuda| {
            n += 1;
            cuda.rms_norm(&mut model.h, &model.x, &model.norm, 1e-5)?;
            Err(Error::Stopped { op: "test", reason: n.to_string() })
        })
    };
    fails(cuda).unwrap_err();
    fails(cuda).unwrap_err();
    assert_eq!(model.run(cuda, 2, 5, dims(6)).unwrap(), eager[1]);
}

/// When the device runs what was launched makes no difference: at the last moment, at odd ones, at once.
#[test]
fn any_time_is_right() {
    let Some(gpu) = Gpu::open(80) else { return };
    let Some(soft) = &gpu.soft else { return };
    let mut found = vec![];
    for queue in [QueueMode::Lazy, QueueMode::Drawn(1), QueueMode::Drawn(2), QueueMode::Thread(1)] {
        soft.options(&Options { queue, ..Options::default() });
        let mut t = gpu.twin::<bf16>();
        let mut model = Model::new(&mut t);
        let mut all = vec![];
        for seed in 0..4 {
            all.push(model.run(&mut t.cuda, seed, 3, dims(ROWS)).unwrap());
        }
        // Halves of the pinned memory are filled again while they may still be on their way.
        let mut buf = t.cuda.alloc::<u32>(100).unwrap();
        (0..10).for_each(|i| t.cuda.upload(&mut buf, &[i; 100][..100 - 10 * i as usize]).unwrap());
        let mut back = [0; 100];
        t.cuda.download(&mut back, &buf).unwrap();
        assert!((0..100).all(|i| back[i] == 9 - i as u32 / 10), "{queue:?}: {back:?}");
        found.push(all);
    }
    assert!(found.iter().all(|all| *all == found[0]));
}

/// After a buffer was given back, nothing is replayed that may refer to it.
#[test]
fn recordings_do_not_outlive_buffers() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let mut model = Model::new(&mut t);
    let expected = model.run(&mut t.cuda, 1, 5, dims(ROWS)).unwrap();
    drop(model);
    let _elsewhere = t.cuda.alloc::<f32>(12345).unwrap();
    let mut model = Model::new(&mut t);
    assert_eq!(model.run(&mut t.cuda, 1, 5, dims(ROWS)).unwrap(), expected);
    assert_eq!(t.cuda.counts().recordings, 2);
}

#[test]
fn many_dimensions_are_recorded_in_bounded_number() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let mut model = Model::new(&mut t);
    let expected = model.run(&mut t.cuda, 1, 3, None).unwrap();
    for n in 1..=50 {
        assert_eq!(model.run(&mut t.cuda, 1, 3, dims(n)).unwrap(), expected);
    }
    if let Some(soft) = &gpu.soft {
        assert!(soft.live_handles() < 60, "{} handles", soft.live_handles());
    }
    let before = t.cuda.counts();
    model.run(&mut t.cuda, 1, 3, dims(50)).unwrap(); // still there
    model.run(&mut t.cuda, 1, 3, dims(1)).unwrap(); // made room
    let CudaCounts { recordings, replays, .. } = t.cuda.counts();
    assert_eq!((recordings - before.recordings, replays - before.replays), (1, 3 + 1));
}

#[test]
fn waiting_for_each_operation_records_nothing() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    t.cuda = Cuda::with(options().sync(true)).unwrap();
    let mut model = Model::new(&mut t);
    model.run(&mut t.cuda, 1, 5, dims(ROWS)).unwrap();
    let CudaCounts { launches, recordings, replays, .. } = t.cuda.counts();
    assert_eq!((launches, recordings, replays), (10, 0, 0));
}

/// Runners on several threads, with recordings, while others allocate and give back.
#[test]
fn threads_take_turns() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let expected: Vec<_> =
        (0..3).map(|seed| Model::new(&mut t).run(&mut t.cuda, seed, 8, None).unwrap()).collect();
    std::thread::scope(|scope| {
        for (seed, expected) in expected.iter().enumerate() {
            let mut t = Twin { cpu: t.cpu.clone(), cuda: t.cuda.clone() };
            scope.spawn(move || {
                let mut model = Model::new(&mut t);
                for key in [dims(1), dims(2), None, dims(1)] {
                    let found = model.run(&mut t.cuda, seed as u64, 8, key).unwrap();
                    compare("a thread's steps", expected, &found, DIM, 0.0);
                }
            });
        }
        let mut cuda = t.cuda.clone();
        scope.spawn(move || {
            for len in 1..50 {
                let mut buf = cuda.alloc::<u32>(1000 * len).unwrap();
                cuda.upload(&mut buf, &[len as u32; 10]).unwrap();
                let mut back = [0; 11];
                cuda.download(&mut back, &buf).unwrap();
                assert_eq!((back[9], back[10]), (len as u32, 0));
            }
        });
    });
}

/// A panic of an operation, which is a bug of its caller, leaves the device usable.
#[test]
fn a_panic_in_a_step() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let mut model = Model::new(&mut t);
    let expected = model.run(&mut t.cuda, 1, 5, None).unwrap();
    for _ in 0..2 {
        let cuda = &mut t.cuda;
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cuda.record(dims(3).unwrap(), true, &mut |_| panic!("on purpose")).unwrap();
        }));
        assert!(panic.is_err());
    }
    assert_eq!(model.run(&mut t.cuda, 1, 5, dims(ROWS)).unwrap(), expected);
}
