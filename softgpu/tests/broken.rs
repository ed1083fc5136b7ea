//! Kernels that are wrong in one way each: the interpreter tells what is wrong and where, and has nothing to say about the right twin.

#![allow(clippy::unwrap_used, clippy::result_large_err, missing_docs)]

use komt_softgpu::exec::{Complaint, ComplaintKind, Counters, Launch, LoadedModule, RunOptions, run};
use komt_softgpu::memory::{Memory, MemoryError};
use komt_softgpu::{DeviceSpec, ptx};

const SOURCE: &str = include_str!("broken/broken.cu");

/// A device with `broken.ptx`, x of 512 elements, y of 128.
struct Bench {
    spec: DeviceSpec,
    memory: Memory,
    module: LoadedModule,
    x: u64,
    y: u64,
}

impl Bench {
    fn new() -> Self {
        let spec = DeviceSpec::sm(80);
        let memory = Memory::new(1 << 20);
        let module = ptx::parse(include_str!("broken/broken.ptx"), &spec).unwrap();
        let module = LoadedModule::new(module, &memory).unwrap();
        let x = memory.alloc(512 * 4).unwrap();
        let values: Vec<u8> = (0..512u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
        memory.write(x, &values).unwrap();
        let y = memory.alloc(128 * 4).unwrap();
        Self { spec, memory, module, x, y }
    }

    fn options(&self, seed: u64) -> RunOptions {
        RunOptions { seed, max_instructions: 100_000, ..RunOptions::default() }
    }

    fn launch(
        &self,
        name: &str,
        blocks: u32,
        threads: u32,
        (x, y): (u64, u64),
        seed: u64,
    ) -> Result<Counters, Complaint> {
        let params: Vec<u8> = [x, y].iter().flat_map(|pointer| pointer.to_le_bytes()).collect();
        let kernel = self.module.module.kernel(name).unwrap_or_else(|| panic!("no kernel {name}"));
        let launch = Launch {
            kernel,
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            dynamic_shared_bytes: 0,
            params: &params,
        };
        run(&launch, &self.module, &self.memory, &self.spec, &self.options(seed))
    }

    fn read(&self, addr: u64, n: usize) -> Result<Vec<f32>, MemoryError> {
        let mut bytes = vec![0; n * 4];
        self.memory.read(addr, &mut bytes)?;
        Ok(bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect())
    }
}

/// The line of the source that holds all of `text` after the template called `name` begins.
fn line_of(name: &str, text: &str) -> u32 {
    let start = SOURCE.lines().position(|line| line.contains(&format!("void {name}("))).unwrap();
    let offset = SOURCE.lines().skip(start).position(|line| line.contains(text)).unwrap();
    (start + offset) as u32 + 1
}

/// The complaint about `name`_broken, in whatever order the warps run; the twin passes.
fn complaint(name: &str, blocks: u32, threads: u32) -> Complaint {
    let mut first = None;
    for seed in 0..8 {
        let bench = Bench::new();
        bench.launch(&format!("{name}_right"), blocks, threads, (bench.x, bench.y), seed).unwrap_or_else(
            |complaint| {
                panic!("seed {seed}: {complaint}");
            },
        );
        let complaint = bench.launch(&format!("{name}_broken"), blocks, threads, (bench.x, bench.y), seed);
        first.get_or_insert(complaint.expect_err("something is wrong"));
    }
    first.unwrap()
}

/// Kind, and the line of the source that holds `text`.
#[track_caller]
fn check(complaint: &Complaint, name: &str, kind: ComplaintKind, text: &str) {
    println!("{complaint}");
    assert_eq!(complaint.kind, kind, "{complaint}");
    assert_eq!(complaint.kernel, format!("{name}_broken"), "{complaint}");
    let (file, line) = complaint.source.clone().unwrap();
    assert_eq!(file, "broken.cu", "{complaint}");
    // Of a race, the access that came second is told.
    assert!(text.split(" / ").any(|text| line == line_of(name, text)), "{complaint}");
    assert!(complaint.ptx_line > 0 && !complaint.instruction.is_empty(), "{complaint}");
}

#[test]
fn a_missing_barrier_is_a_race() {
    let complaint = complaint("exchange", 1, 64);
    check(&complaint, "exchange", ComplaintKind::Race, "s[threadIdx.x] = / s[63 - threadIdx.x]");
    assert!(complaint.detail.contains("with no barrier between"), "{complaint}");
}

#[test]
fn a_missing_barrier_behind_a_tile_is_a_race() {
    let complaint = complaint("tiles", 1, 64);
    check(&complaint, "tiles", ComplaintKind::Race, "s[threadIdx.x] = / s[63 - threadIdx.x]");
}

#[test]
fn a_copy_is_read_only_when_it_has_been_waited_for() {
    let complaint = complaint("copy_own", 1, 64);
    check(&complaint, "copy_own", ComplaintKind::AsyncCopy, "s[threadIdx.x].x");
}

#[test]
fn the_copy_of_another_warp_takes_a_barrier_too() {
    let complaint = complaint("copy_others", 1, 64);
    assert_eq!(complaint.kind, ComplaintKind::Race, "{complaint}");
    assert!(complaint.detail.contains("with no barrier between"), "{complaint}");
}

#[test]
fn one_element_too_many_is_out_of_bounds() {
    for seed in 0..4 {
        let bench = Bench::new();
        let x = bench.memory.alloc(60 * 4).unwrap();
        bench.memory.set(x, 0, 60 * 4).unwrap();
        bench.launch("tail_right", 1, 64, (x, bench.y), seed).unwrap();
        let complaint = bench.launch("tail_broken", 1, 64, (x, bench.y), seed).unwrap_err();
        check(&complaint, "tail", ComplaintKind::OutOfBounds, "threadIdx.x < 60");
        assert_eq!((complaint.block, complaint.thread), ([0; 3], [60, 0, 0]), "{complaint}");
        assert!(
            complaint.detail.contains("0 bytes past the end of the allocation of 240 bytes"),
            "{complaint}"
        );
    }
}

#[test]
fn a_lost_swizzle_shows_in_the_passes_over_the_banks() {
    let bench = Bench::new();
    let right = bench.launch("swizzle_right", 1, 32, (bench.x, bench.y), 0).unwrap();
    let lost = bench.launch("swizzle_broken", 1, 32, (bench.x, bench.y), 0).unwrap();
    assert_eq!(right.bank_conflicts(), 0, "{right:?}");
    // Four matrices, each of whose eight rows lie in two groups of banks: four passes for one.
    assert_eq!((lost.bank_conflicts(), lost.classes["ldmatrix"].warps), (4 * 3, 1), "{lost:?}");
}

#[test]
fn a_shuffle_needs_all_lanes_that_it_names() {
    let complaint = complaint("shuffle", 1, 64);
    assert_eq!(complaint.kind, ComplaintKind::Divergence, "{complaint}");
    assert!(complaint.instruction.starts_with("shfl.sync.bfly"), "{complaint}");
    assert!(
        complaint.detail.contains("0x0000ffff") && complaint.detail.contains("0xffff0000"),
        "{complaint}"
    );
}

#[test]
fn a_barrier_needs_whole_warps() {
    let complaint = complaint("barrier", 1, 64);
    check(&complaint, "barrier", ComplaintKind::Divergence, "threadIdx.x < 40");
    assert!(complaint.detail.contains("0x000000ff"), "{complaint}");
    assert_eq!(complaint.thread, [32, 0, 0]);
}

#[test]
fn a_barrier_that_too_few_come_to_is_a_deadlock() {
    let complaint = complaint("deadlock", 1, 64);
    check(&complaint, "deadlock", ComplaintKind::Deadlock, "bar.sync 1");
    assert!(complaint.detail.contains("warp 0 waits at barrier 1, warp 1 waits at barrier 1"), "{complaint}");
}

#[test]
fn a_loop_without_end_is_a_deadlock() {
    let complaint = complaint("spin", 1, 64);
    assert_eq!(complaint.kind, ComplaintKind::Deadlock, "{complaint}");
    assert!(complaint.detail.contains("has not ended"), "{complaint}");
}

#[test]
fn blocks_that_write_to_one_place_race() {
    let complaint = complaint("blocks", 2, 64);
    check(&complaint, "blocks", ComplaintKind::Race, "64 * blockIdx.x");
    assert!(complaint.detail.contains("written by another block of the launch"), "{complaint}");
}

#[test]
fn global_memory_is_not_ordered_within_a_block() {
    check(
        &complaint("global_exchange", 1, 64),
        "global_exchange",
        ComplaintKind::Race,
        "63 - threadIdx.x / y[threadIdx.x] =",
    );
}

#[test]
fn what_nobody_wrote_decides_nothing() {
    let complaint = complaint("unwritten", 1, 64);
    assert_eq!(complaint.kind, ComplaintKind::Undefined, "{complaint}");
    assert_eq!(complaint.source.as_ref().unwrap().1, line_of("unwritten", "v > 1.0f"), "{complaint}");
}

#[test]
fn what_nobody_wrote_makes_results_unwritten() {
    let bench = Bench::new();
    bench.launch("unwritten_result_right", 1, 64, (bench.x, bench.y), 0).unwrap();
    assert_eq!(bench.read(bench.y, 64).unwrap()[5], 5.0);
    bench.launch("unwritten_result_broken", 1, 64, (bench.x, bench.y), 0).unwrap();
    assert!(matches!(bench.read(bench.y, 64), Err(MemoryError::NotWritten { addr, .. }) if addr == bench.y));
}

#[test]
fn pairs_are_aligned() {
    check(&complaint("pairs", 1, 32), "pairs", ComplaintKind::Misaligned, "const float2*");
}

#[test]
fn lanes_do_not_store_different_values_to_one_place() {
    let complaint = complaint("one_place", 1, 32);
    check(&complaint, "one_place", ComplaintKind::Race, "BROKEN ? 0");
    assert!(complaint.detail.contains("lanes 0 and 1 store different values"), "{complaint}");
}

#[test]
fn shared_memory_has_an_end() {
    let complaint = complaint("shared_tail", 1, 64);
    check(&complaint, "shared_tail", ComplaintKind::OutOfBounds, "% (BROKEN");
    assert_eq!(complaint.thread, [63, 0, 0]);
}

#[test]
fn a_trap_is_told_with_its_thread() {
    let complaint = complaint("give_up", 1, 64);
    check(&complaint, "give_up", ComplaintKind::Trap, "__trap");
    assert_eq!(complaint.thread, [33, 0, 0]);
}

#[test]
fn the_sum_of_atomics_is_read_behind_a_barrier() {
    let complaint = complaint("sums", 1, 64);
    assert_eq!(complaint.kind, ComplaintKind::Race, "{complaint}");
    let bench = Bench::new();
    bench.launch("sums_right", 1, 64, (bench.x, bench.y), 0).unwrap();
    let sum = bench.read(bench.y, 1).unwrap()[0];
    assert_eq!(sum, 63.0 + 2.0);
}

#[test]
fn freed_memory_is_known() {
    let bench = Bench::new();
    bench.memory.free(bench.x).unwrap();
    let complaint = bench.launch("tail_right", 1, 64, (bench.x, bench.y), 0).unwrap_err();
    assert_eq!(complaint.kind, ComplaintKind::UseAfterFree, "{complaint}");
    assert!(complaint.detail.contains("2048 bytes at"), "{complaint}");
}

#[test]
fn launches_beyond_the_limits_are_refused() {
    let bench = Bench::new();
    let complaint = bench.launch("tail_right", 1, 1025, (bench.x, bench.y), 0).unwrap_err();
    assert_eq!(complaint.kind, ComplaintKind::Launch, "{complaint}");
    assert_eq!(complaint.to_string(), "kernel `tail_right`: invalid launch: 1025 threads of 1024 in a block");
    let complaint = bench.launch("tail_right", 0, 64, (bench.x, bench.y), 0).unwrap_err();
    assert_eq!(complaint.kind, ComplaintKind::Launch, "{complaint}");
}
