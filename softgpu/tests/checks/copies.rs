//! cp.async: the banks of its destination, and its source before the wait.

use komt_softgpu::exec::ComplaintKind::{AsyncCopy, Race};

use super::{caught, options, passes, run};

/// Passes over the banks that one copy of a warp takes, and would take without conflicts; `place` puts its place into `%r4`.
fn wavefronts(bytes: u32, place: &str) -> (u64, u64) {
    let how = if bytes == 16 { "cg" } else { "ca" };
    let body = format!(
        "mul.wide.u32 %d1, %t, 16; add.u64 %d1, %d1, %in; {place} add.u32 %r4, %r4, %w;
        cp.async.{how}.shared.global [%r4], [%d1], {bytes}; cp.async.wait_all;"
    );
    let counters = run(32, &body, &options(0)).unwrap().counters;
    assert_eq!(counters.shared_requests, 1);
    (counters.shared_wavefronts, counters.shared_wavefronts_ideal)
}

#[test]
fn copies_pass_over_the_banks_as_stores_do() {
    let every = |bytes: u32, stride: u32| wavefronts(bytes, &format!("mul.lo.u32 %r4, %t, {stride};"));
    // Lanes side by side, then each in a row of 128 bytes of its own: in the same banks.
    assert_eq!([every(4, 4), every(4, 128)], [(1, 1), (32, 1)]);
    assert_eq!([every(8, 8), every(8, 128)], [(2, 2), (32, 2)]);
    assert_eq!([every(16, 16), every(16, 128)], [(4, 4), (32, 4)]);
    // 20 words apart, 8 lanes have all banks.
    assert_eq!(every(16, 80), (4, 4));
}

#[test]
fn a_lost_swizzle_of_a_copy_costs_passes() {
    // Lane l copies chunk l / 8 of row l % 8; rows have 128 bytes, chunks 16.
    let tile = |chunk: &str| {
        let place = format!(
            "and.b32 %r1, %t, 7; shr.u32 %r2, %t, 3; {chunk} shl.b32 %r4, %r1, 7; shl.b32 %r2, %r2, 4;
            add.u32 %r4, %r4, %r2;"
        );
        wavefronts(16, &place)
    };
    assert_eq!(tile("xor.b32 %r2, %r2, %r1;"), (4, 4), "with the swizzle, no conflicts");
    assert_eq!(tile(""), (32, 4), "without, the 8 rows of a phase lie in 4 banks");
}

#[test]
fn zeros_pass_over_the_banks_too() {
    let body = "shl.b32 %r4, %t, 7; add.u32 %r4, %r4, %w; mov.u32 %r1, 0; mov.u64 %d1, 0;
        cp.async.cg.shared.global [%r4], [%d1], 16, %r1; cp.async.wait_all; bar.warp.sync -1; ld.shared.u32 %r9, [%w+12];";
    let ran = run(32, body, &options(0)).unwrap();
    assert_eq!(ran.results(), [0; 32]);
    assert_eq!(ran.counters.bank_conflicts(), 28);
    assert_eq!(ran.counters.global_requests, 1, "the result");
}

/// Each thread copies its 16 bytes; `early` comes before the wait, `late` after it.
fn copy(early: &str, late: &str) -> String {
    format!(
        "mul.wide.u32 %d1, %t, 16; add.u64 %d1, %d1, %in; shl.b32 %r4, %t, 4; add.u32 %r4, %r4, %w;
        cp.async.cg.shared.global [%r4], [%d1], 16; cp.async.commit_group;
        {early} cp.async.wait_group 0; {late} ld.shared.u32 %r9, [%r4];"
    )
}

#[test]
fn a_source_is_not_written_before_the_wait() {
    let store = "st.global.u32 [%d1+8], %t;";
    passes(32, &copy("", store), |t| 4 * t);
    caught(32, &copy(store, ""), &[AsyncCopy], "st.global");
    caught(32, &copy("red.global.add.u32 [%d1], 1;", ""), &[AsyncCopy], "red.global");
    // Beside what is copied: 64 threads copy 1024 bytes.
    passes(64, &copy("st.global.u32 [%d1+1024], %t;", ""), |t| 4 * t);
    // A group that is waited for, and one that is not.
    let two =
        "cp.async.ca.shared.global [%r4+2048], [%d1+1024], 4; cp.async.commit_group; cp.async.wait_group 1;";
    passes(32, &copy(&format!("{two} {store}"), ""), |t| 4 * t);
    caught(32, &copy(&format!("{two} st.global.u32 [%d1+1024], %t;"), ""), &[AsyncCopy], "st.global");
}

#[test]
fn a_barrier_before_the_wait_does_not_free_the_source_for_others() {
    let other =
        "xor.b32 %r5, %t, 32; mul.wide.u32 %d2, %r5, 16; add.u64 %d2, %d2, %in; st.global.u32 [%d2], %t;";
    passes(64, &copy("", &format!("bar.sync 0; {other}")), |t| 4 * t);
    caught(64, &copy(&format!("bar.sync 0; {other} bar.sync 0;"), ""), &[AsyncCopy], "st.global");
    // Whichever of the two comes first: the copy may have read until the wait.
    let one_way = |barrier: &str| {
        format!(
            "setp.ge.u32 %p1, %t, 32; and.b32 %r1, %t, 31; mul.wide.u32 %d1, %r1, 16; add.u64 %d1, %d1, %in;
            shl.b32 %r4, %r1, 4; add.u32 %r4, %r4, %w; @!%p1 cp.async.cg.shared.global [%r4], [%d1], 16;
            bar.sync 0; cp.async.wait_all; {barrier} @%p1 st.global.u32 [%d1], %t;"
        )
    };
    passes(64, &one_way("bar.sync 0;"), |_| 0);
    caught(64, &one_way(""), &[AsyncCopy, Race], "");
}
