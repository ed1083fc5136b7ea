//! Kernels that are right, and the same kernels with one edit that breaks them: each such is caught, with the right message.
//!
//! The sources are `broken/*.cu`; a comment `caught: FORM` is at the line that the message must name (`caught below: FORM` in
//! the line before). `broken/make.py` makes the PTX beside them.
#![allow(clippy::unwrap_used)]

#[path = "broken/jobs.rs"]
mod jobs;

use std::ops::RangeInclusive;
use std::path::PathBuf;

use jobs::Job;
use komt_softgpu::DeviceSpec;
use komt_softgpu::exec::{self, Complaint, ComplaintKind, Counters, Launch, LoadedModule, RunOptions};
use komt_softgpu::memory::{Memory, MemoryError};
use komt_softgpu::ptx;

use ComplaintKind::{
    AsyncCopy, Deadlock, Divergence, Misaligned, OutOfBounds, Race, Trap, Undefined, UseAfterFree,
};

type Setup = fn(&Memory) -> Job;

/// Warp orders tried.
const SEEDS: u64 = 4;
/// Enough for the right forms, by far.
const MAX_INSTRUCTIONS: u64 = 100_000;

/// How a broken form shows.
enum Caught {
    /// The launch is stopped: kind, `blockIdx.x`, `threadIdx.x`, and how one of the instructions that may be blamed begins.
    Stopped(ComplaintKind, RangeInclusive<u32>, RangeInclusive<u32>, &'static [&'static str]),
    /// The launch is refused; the message contains this.
    Refused(&'static str),
    /// The download fails at this byte of the result, and names who first stored what nobody wrote.
    StoredUndefined(u64),
    /// The result is wrong: not the driver's business.
    Numbers,
    /// The result is right, but so many more passes over the banks are taken.
    Conflicts(u64),
    /// The result is right, but so many more sectors are touched.
    Sectors(u64),
}
use Caught::{Conflicts, Numbers, Refused, Sectors, Stopped, StoredUndefined};

/// Source, form of its PTX, name of the comment in the source, data, and what is seen.
type Case = (&'static str, &'static str, &'static str, Setup, Caught);

const LOADS: &[&str] = &["ld.shared", "st.shared"];
const GLOBAL: &[&str] = &["ld.global", "st.global"];

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("reduce", "missing_first_barrier", "missing_first_barrier", jobs::reduce, Stopped(Race, 0..=2, 0..=255, LOADS)),
    ("reduce", "missing_barrier", "missing_barrier", jobs::reduce, Stopped(Race, 0..=2, 0..=127, LOADS)),
    ("reduce", "barrier_of_warps_only", "barrier_of_warps_only", jobs::reduce, Stopped(Race, 0..=2, 0..=127, LOADS)),
    ("reduce", "warp_in_step", "warp_in_step", jobs::reduce, Stopped(Race, 0..=2, 0..=31, LOADS)),
    ("reduce", "divergent_barrier", "divergent_barrier", jobs::turn, Stopped(Divergence, 0..=0, 32..=63, &["bar"])),
    ("reduce", "early_return", "early_return", jobs::turn_only, Stopped(Divergence, 0..=0, 32..=63, &["bar"])),
    ("scale", "off_by_one", "off_by_one", jobs::scale, Stopped(OutOfBounds, 3..=3, 232..=232, &["ld.global"])),
    ("scale", "dropped_guard", "dropped_guard", jobs::scale, Stopped(OutOfBounds, 3..=3, 232..=255, &["ld.global"])),
    ("scale", "right", "freed_input", jobs::scale_freed_input, Stopped(UseAfterFree, 0..=3, 0..=255, &["ld.global"])),
    ("scale", "right", "freed_output", jobs::scale_freed_output, Stopped(UseAfterFree, 0..=3, 0..=255, &["st.global"])),
    ("scale", "right", "unwritten_input", jobs::scale_unwritten_input, StoredUndefined(3000)),
    ("scale", "misaligned_load", "misaligned_load", jobs::scale4, Stopped(Misaligned, 0..=0, 0..=249, &["ld.global.v4"])),
    ("scale", "right", "misaligned_argument", jobs::scale4_misaligned, Stopped(Misaligned, 0..=0, 0..=249, &["ld.global.v4"])),
    ("scale", "right", "", jobs::scale_too_many_threads, Refused("2048")),
    ("scale", "right", "", jobs::scale_no_blocks, Refused("0")),
    ("scale", "right", "", jobs::scale_lacks_a_parameter, Refused("20")),
    ("copy", "missing_wait", "missing_wait", jobs::copy, Stopped(AsyncCopy, 0..=1, 0..=63, &["ld.shared"])),
    ("copy", "missing_barrier", "missing_barrier", jobs::copy, Stopped(Race, 0..=1, 0..=63, &["ld.shared", "cp.async"])),
    ("copy", "dropped_zero_fill", "dropped_zero_fill", jobs::copy, Stopped(OutOfBounds, 1..=1, 36..=63, &["cp.async"])),
    ("copy", "misaligned", "misaligned", jobs::copy, Stopped(Misaligned, 0..=1, 1..=63, &["cp.async"])),
    ("copy", "missing_wait", "missing_own_wait", jobs::copy_own, Stopped(AsyncCopy, 0..=1, 0..=63, &["ld.shared"])),
    // While the next copy is under way, it is the better word.
    ("pipeline", "missing_trailing_barrier", "missing_trailing_barrier", jobs::pipeline,
        Stopped(AsyncCopy, 0..=0, 0..=63, &["cp.async", "ld.shared"])),
    ("pipeline", "missing_barrier", "missing_barrier", jobs::pipeline, Stopped(Race, 0..=0, 0..=63, &["cp.async", "ld.shared"])),
    ("pipeline", "wait_for_one_less", "wait_for_one_less", jobs::pipeline, Stopped(AsyncCopy, 0..=0, 0..=63, &["ld.shared"])),
    ("pipeline", "one_buffer", "one_buffer", jobs::pipeline, Stopped(AsyncCopy, 0..=0, 0..=63, &["cp.async", "ld.shared"])),
    ("transpose", "lost_swizzle", "", jobs::transpose, Conflicts(32 * 31)),
    ("transpose", "swizzle_of_one_side", "", jobs::transpose, Numbers),
    // For each k and warp: 4 and 2 matrices, each in 8 passes in place of 1.
    ("product", "lost_swizzle", "", jobs::product, Conflicts(4 * 2 * (4 + 2) * 7)),
    ("product", "swizzle_of_one_side", "", jobs::product, Numbers),
    ("product", "missing_barrier", "missing_barrier", jobs::product, Stopped(Race, 0..=0, 0..=63, &["ldmatrix", "st.shared"])),
    ("product", "guarded_mma", "guarded_mma", jobs::product_of_5_rows, Stopped(Divergence, 0..=0, 0..=63, &["ldmatrix"])),
    ("product", "mma_of_part", "mma_of_part", jobs::product_of_5_rows, Stopped(Divergence, 0..=0, 0..=63, &["ldmatrix", "mma"])),
    ("shuffle", "guarded_shuffle", "guarded_shuffle", jobs::row_sums, Stopped(Divergence, 0..=0, 0..=63, &["shfl.sync"])),
    ("shuffle", "missing_member", "missing_member", jobs::row_sums, Stopped(Divergence, 0..=0, 0..=63, &["shfl.sync"])),
    ("shuffle", "guarded_vote", "guarded_vote", jobs::odd, Stopped(Divergence, 0..=0, 0..=63, &["vote.sync"])),
    ("shuffle", "from_absent_lane", "from_absent_lane", jobs::pass_down, StoredUndefined(60)),
    ("races", "two_lanes_one_place", "two_lanes_one_place", jobs::exchange, Stopped(Race, 0..=0, 0..=63, &["st.shared"])),
    ("races", "missing_warp_barrier", "missing_warp_barrier", jobs::exchange, Stopped(Race, 0..=0, 0..=63, LOADS)),
    ("races", "read_beside_atomics", "read_beside_atomics", jobs::histogram,
        Stopped(Race, 0..=0, 0..=255, &["atom.shared", "ld.shared"])),
    ("races", "not_atomic", "not_atomic", jobs::histogram, Stopped(Race, 0..=0, 0..=255, LOADS)),
    ("races", "not_atomic", "blocks_not_atomic", jobs::total, Stopped(Race, 0..=39, 0..=0, GLOBAL)),
    ("races", "overlap", "overlap", jobs::parts, Stopped(Race, 0..=3, 0..=63, &["st.global"])),
    ("races", "right", "in_place", jobs::neighbours_in_place, Stopped(Race, 0..=3, 0..=63, GLOBAL)),
    ("races", "right", "in_place_in_one_block", jobs::neighbours_in_place_in_one_block, Stopped(Race, 0..=0, 0..=63, GLOBAL)),
    ("races", "missing_global_barrier", "missing_global_barrier", jobs::reverse, Stopped(Race, 0..=0, 0..=63, GLOBAL)),
    ("unwritten", "fill_one_short", "used_as_address", jobs::gather, Stopped(Undefined, 0..=0, 0..=0, &["ld.global"])),
    ("unwritten", "fill_one_short", "used_as_condition", jobs::count_large, Stopped(Undefined, 0..=0, 0..=0, &["bra"])),
    ("unwritten", "fill_one_short", "copied_out", jobs::reversed, StoredUndefined(0)),
    ("unwritten", "seconds", "seconds", jobs::firsts, Stopped(Undefined, 0..=0, 63..=63, &["st.global"])),
    ("hanging", "dropped_arrive", "dropped_arrive", jobs::hand_over, Stopped(Deadlock, 0..=0, 32..=63, &["bar"])),
    ("hanging", "wrong_count", "wrong_count", jobs::hand_over, Stopped(Deadlock, 0..=0, 32..=63, &["bar"])),
    ("hanging", "dropped_signal", "dropped_signal", jobs::signal, Stopped(Deadlock, 0..=0, 32..=32, &[""])),
    ("hanging", "past_zero", "past_zero", jobs::count_down, Stopped(Deadlock, 0..=0, 0..=0, &[""])),
    ("bounds", "shared_one_short", "shared_one_short", jobs::shared_sums, Stopped(OutOfBounds, 0..=0, 0..=0, &["st.shared"])),
    ("bounds", "right", "too_little_shared", jobs::rotate_too_little_shared, Stopped(OutOfBounds, 0..=0, 64..=127, &["st.shared"])),
    ("bounds", "right", "", jobs::rotate_too_much_shared, Refused("shared")),
    ("bounds", "right", "", jobs::rotate_too_many_threads, Refused("128")),
    ("bounds", "local_one_too_many", "local_one_too_many", jobs::sort_of, Stopped(OutOfBounds, 0..=0, 0..=15, &["ld.local"])),
    ("bounds", "const_one_too_many", "const_one_too_many", jobs::prime, Stopped(OutOfBounds, 0..=0, 8..=8, &["ld.const"])),
    ("bounds", "const_written", "const_written", jobs::store_prime, Stopped(OutOfBounds, 0..=0, 0..=7, &["st"])),
    ("bounds", "param_one_too_many", "param_one_too_many", jobs::look_up, Stopped(OutOfBounds, 0..=0, 8..=8, &["ld.param"])),
    ("bounds", "trapped", "trapped", jobs::checked, Stopped(Trap, 0..=0, 63..=63, &["trap"])),
    ("coalesced", "piece_of_its_own", "", jobs::coalesced, Sectors(64 * (32 - 4))),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/broken").join(name)
}

/// The PTX of a form, with the device that it was made for.
fn texts(file: &str, form: &str) -> Vec<(u32, String)> {
    let of = |sm: u32| Some((sm, std::fs::read_to_string(path(&format!("{file}.{form}.{sm}.ptx"))).ok()?));
    let texts: Vec<_> = [80, 100].into_iter().filter_map(of).collect();
    assert!(!texts.is_empty(), "{file}.{form}: no PTX");
    texts
}

/// The lines of a source at which a comment says that a form is caught.
fn lines(file: &str, form: &str) -> Vec<u32> {
    let source = std::fs::read_to_string(path(&format!("{file}.cu"))).unwrap();
    let mut found = Vec::new();
    for (line, text) in (1..).zip(source.lines()) {
        for (mark, at) in [("// caught: ", line), ("// caught below: ", line + 1)] {
            if text.split_once(mark).is_some_and(|(_, forms)| forms.split(", ").any(|one| one == form)) {
                found.push(at);
            }
        }
    }
    found
}

/// What a run came to.
struct Run {
    job: Job,
    memory: Memory,
    outcome: Result<Counters, Complaint>,
}

impl Run {
    fn new(sm: u32, text: &str, setup: Setup, seed: u64) -> Self {
        let spec = DeviceSpec::sm(sm);
        let memory = Memory::new(1 << 24);
        let module = LoadedModule::new(ptx::parse(text, &spec).unwrap(), &memory).unwrap();
        let job = setup(&memory);
        let launch = Launch {
            kernel: module.module.kernel(job.kernel).unwrap(),
            grid: [job.grid, 1, 1],
            block: job.block,
            dynamic_shared_bytes: job.shared_bytes,
            params: &job.params,
        };
        let options = RunOptions { seed, checks: true, max_instructions: MAX_INSTRUCTIONS };
        let outcome = exec::run(&launch, &module, &memory, &spec, &options);
        Self { job, memory, outcome }
    }

    fn result(&self) -> Result<Vec<u32>, MemoryError> {
        let mut bytes = vec![0; self.job.want.len() * 4];
        self.memory.read(self.job.out, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
    }

    /// The counters of a run that did what it should.
    fn right(&self) -> Result<&Counters, String> {
        let counters = self.outcome.as_ref().map_err(Complaint::to_string)?;
        let found = self.result().map_err(|error| error.to_string())?;
        match found.iter().zip(&self.job.want).position(|(found, want)| found != want) {
            Some(at) => Err(format!("word {at} is {:#x}, not {:#x}", found[at], self.job.want[at])),
            None => Ok(counters),
        }
    }
}

/// Whether a complaint is the one that is wanted; what is wrong with it otherwise.
fn check_complaint(case: &Case, run: &Run, complaint: &Complaint) -> Result<(), String> {
    let (file, _, form, _, Stopped(kind, blocks, threads, instructions)) = case else { unreachable!() };
    let file = format!("{file}.cu");
    let wrong = |what: &str| Err(format!("{what}: {complaint}"));
    let Some((found, line)) = &complaint.source else { return wrong("no source line") };
    if complaint.kind != *kind {
        return wrong(&format!("kind is {:?}, not {kind:?}", complaint.kind));
    }
    if *found != file || !lines(&file[..file.len() - 3], form).contains(line) {
        return wrong("another line");
    }
    if !blocks.contains(&complaint.block[0]) || !threads.contains(&complaint.thread[0]) {
        return wrong("another thread");
    }
    if !instructions.iter().any(|one| complaint.instruction.starts_with(one)) {
        return wrong("another instruction");
    }
    let text = complaint.to_string();
    if complaint.kernel != run.job.kernel || complaint.detail.is_empty() || text.contains('\n') {
        return wrong("kernel, detail or text");
    }
    let parts = [run.job.kernel, &format!("{file}:{line}"), &complaint.instruction, &complaint.detail];
    if !parts.iter().all(|part| text.contains(part)) {
        return wrong("the text lacks something");
    }
    Ok(())
}

/// Whether a run of a broken form shows what it should.
fn check(case: &Case, run: &Run, right: &Run) -> Result<(), String> {
    let more = |of: fn(&Counters) -> u64, by: u64| {
        let (found, right) = (of(run.right()?), of(right.right()?));
        if found == right + by { Ok(()) } else { Err(format!("{found} against {right}, not {by} more")) }
    };
    match (&case.4, &run.outcome) {
        (Stopped(..), Err(complaint)) => check_complaint(case, run, complaint),
        (Refused(part), Err(complaint)) => {
            let named = complaint.kind == ComplaintKind::Launch && complaint.detail.contains(part);
            if named { Ok(()) } else { Err(complaint.to_string()) }
        }
        (StoredUndefined(at), Ok(_)) => match run.result() {
            Err(MemoryError::Undefined { addr, first, .. }) if addr == run.job.out + at => {
                // Which byte was the first depends on the order of blocks.
                let stored = format!("kernel `{}`: undefined value: stored in byte ", run.job.kernel);
                let named = first.starts_with(&stored) && first.contains("`st.global");
                let mut lines = lines(case.0, case.2).into_iter();
                let placed = lines.any(|line| first.ends_with(&format!("{}.cu:{line})", case.0)));
                if named && placed { Ok(()) } else { Err(first) }
            }
            other => Err(format!("the download gives {other:?}")),
        },
        (Numbers, Ok(_)) => match run.result() {
            Ok(found) if found != run.job.want => Ok(()),
            other => Err(format!("the download gives {other:?}")),
        },
        (Conflicts(by), Ok(_)) => more(Counters::bank_conflicts, *by),
        (Sectors(by), Ok(_)) => more(|counters| counters.global_sectors, *by),
        (_, Ok(_)) => Err("not caught".to_owned()),
        (_, Err(complaint)) => Err(complaint.to_string()),
    }
}

#[test]
fn every_comment_names_a_line_with_instructions() {
    for (file, form, mark, _, caught) in CASES {
        let Stopped(.., instructions) = caught else { continue };
        let lines = lines(file, mark);
        assert!(!lines.is_empty(), "{file}.cu: nothing is `caught: {mark}`");
        for (sm, text) in texts(file, form) {
            let module = ptx::parse(&text, &DeviceSpec::sm(sm)).unwrap();
            for line in &lines {
                let there = module.kernels.iter().flat_map(|kernel| &kernel.body).any(|one| {
                    one.source.is_some_and(|(_, at)| at == *line)
                        && instructions.iter().any(|begin| one.text.starts_with(begin))
                });
                assert!(there, "{file}.{form}.{sm}.ptx: none of {instructions:?} of line {line}");
            }
        }
    }
}

#[test]
fn right_kernels_run_without_complaint() {
    let mut failed = Vec::new();
    let setups: &[(&str, Setup)] = &[
        ("reduce", jobs::reduce),
        ("reduce", jobs::turn),
        ("reduce", jobs::turn_only),
        ("scale", jobs::scale),
        ("scale", jobs::scale4),
        ("copy", jobs::copy),
        ("copy", jobs::copy_own),
        ("pipeline", jobs::pipeline),
        ("transpose", jobs::transpose),
        ("product", jobs::product),
        ("product", jobs::product_of_5_rows),
        ("shuffle", jobs::row_sums),
        ("shuffle", jobs::odd),
        ("shuffle", jobs::pass_down),
        ("races", jobs::exchange),
        ("races", jobs::histogram),
        ("races", jobs::total),
        ("races", jobs::parts),
        ("races", jobs::neighbours),
        ("races", jobs::reverse),
        ("unwritten", jobs::gather),
        ("unwritten", jobs::count_large),
        ("unwritten", jobs::reversed),
        ("unwritten", jobs::firsts),
        ("hanging", jobs::hand_over),
        ("hanging", jobs::signal),
        ("hanging", jobs::count_down),
        ("bounds", jobs::shared_sums),
        ("bounds", jobs::rotate),
        ("bounds", jobs::sort_of),
        ("bounds", jobs::prime),
        ("bounds", jobs::store_prime),
        ("bounds", jobs::look_up),
        ("bounds", jobs::checked),
        ("coalesced", jobs::coalesced),
    ];
    for (file, setup) in setups {
        for (sm, text) in texts(file, "right") {
            for seed in 0..SEEDS {
                let run = Run::new(sm, &text, *setup, seed);
                if let Err(what) = run.right() {
                    failed.push(format!("{file}.right.{sm} {} seed {seed}: {what}", run.job.kernel));
                }
                if *file == "transpose" || *file == "product" {
                    assert_eq!(run.outcome.map_or(0, |counters| counters.bank_conflicts()), 0, "{file}");
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn broken_kernels_are_caught() {
    let mut failed = Vec::new();
    for case in CASES {
        let (file, form, mark, setup, _) = case;
        for ((sm, text), (_, right)) in texts(file, form).into_iter().zip(texts(file, "right")) {
            for seed in 0..SEEDS {
                let run = Run::new(sm, &text, *setup, seed);
                let right = Run::new(sm, &right, *setup, seed);
                if let Err(what) = check(case, &run, &right) {
                    failed.push(format!("{file}.{form}.{sm} {mark} seed {seed}: {what}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn an_instruction_that_nobody_knows_fails_at_load() {
    let (sm, text) = texts("scale", "right").remove(0);
    let line = text.lines().position(|line| line.contains("mul.f32")).unwrap() + 1;
    let error = ptx::parse(&text.replacen("mul.f32", "frobnicate.f32", 1), &DeviceSpec::sm(sm)).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(&format!("line {line}")) && message.contains("frobnicate.f32"), "{message}");
}
