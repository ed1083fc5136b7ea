//! Instructions of a whole warp, control flow and barriers (PTX ISA 9.7.9.6, 9.7.12, 9.7.13). `%r0` is the lane.

use super::harness::{check_warp, run_block};

#[test]
fn shuffles() {
    // Lane l has 10 l. `c` of up has its clamp at the segment's first lane, of the others at the last.
    let shuffle = |text: &str, expect: fn(u32) -> u32| {
        check_warp(&format!("mul.lo.u32 %r1, %r0, 10; {text}"), &[], expect);
    };
    shuffle("shfl.sync.bfly.b32 %r9, %r1, 1, 31, -1;", |l| 10 * (l ^ 1));
    shuffle("shfl.sync.bfly.b32 %r9|%p1, %r1, 16, 31, 0xffffffff;", |l| 10 * (l ^ 16));
    shuffle("shfl.sync.up.b32 %r9, %r1, 3, 0, -1;", |l| 10 * if l >= 3 { l - 3 } else { l });
    shuffle("shfl.sync.down.b32 %r9, %r1, 3, 31, -1;", |l| 10 * if l + 3 < 32 { l + 3 } else { l });
    shuffle("shfl.sync.idx.b32 %r9, %r1, 5, 31, -1;", |_| 50);
    // Segments of 8: c = 0x1800 | 7 (mask 11000b << 8), or | 0 for up.
    shuffle("shfl.sync.idx.b32 %r9, %r1, 2, 0x1807, -1;", |l| 10 * (l / 8 * 8 + 2));
    shuffle("shfl.sync.down.b32 %r9, %r1, 1, 0x1807, -1;", |l| 10 * if l % 8 == 7 { l } else { l + 1 });
    shuffle("shfl.sync.up.b32 %r9, %r1, 1, 0x1800, -1;", |l| 10 * if l % 8 == 0 { l } else { l - 1 });
    shuffle("shfl.sync.up.b32 %r8|%p1, %r1, 3, 0, -1; selp.u32 %r9, 1, 0, %p1;", |l| u32::from(l >= 3));
    // The source lane may differ from lane to lane.
    shuffle("sub.u32 %r2, 31, %r0; shfl.sync.idx.b32 %r9, %r1, %r2, 31, -1;", |l| 10 * (31 - l));
    // A part of the warp, all of it there.
    shuffle(
        "mov.u32 %r9, 7; setp.lt.u32 %p1, %r0, 16; @!%p1 bra L; shfl.sync.bfly.b32 %r9, %r1, 1, 31, 0xffff;\nL:",
        |l| if l < 16 { 10 * (l ^ 1) } else { 7 },
    );
}

#[test]
fn votes_matches_and_reductions() {
    let odd = "and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 1;";
    let vote = |text: &str, expect: fn(u32) -> u32| check_warp(&format!("{odd} {text}"), &[], expect);
    vote("vote.sync.ballot.b32 %r9, %p1, -1;", |_| 0xaaaa_aaaa);
    vote("vote.sync.ballot.b32 %r9, !%p1, -1;", |_| 0x5555_5555);
    vote("vote.sync.any.pred %p2, %p1, -1; selp.u32 %r9, 1, 0, %p2;", |_| 1);
    vote("vote.sync.all.pred %p2, %p1, -1; selp.u32 %r9, 1, 0, %p2;", |_| 0);
    vote("vote.sync.uni.pred %p2, %p1, -1; selp.u32 %r9, 1, 0, %p2;", |_| 0);
    vote("activemask.b32 %r9;", |_| 0xffff_ffff);
    vote("mov.u32 %r9, 0; @%p1 activemask.b32 %r9;", |l| if l % 2 == 1 { 0xaaaa_aaaa } else { 0 });
    vote("match.any.sync.b32 %r9, %r1, -1;", |l| if l % 2 == 1 { 0xaaaa_aaaa } else { 0x5555_5555 });
    vote("match.all.sync.b32 %r9|%p2, %r1, -1;", |_| 0);
    vote("redux.sync.add.s32 %r9, %r0, -1;", |_| 496);
    vote("redux.sync.max.u32 %r9, %r0, -1;", |_| 31);
    vote("redux.sync.min.s32 %r9, %r0, -1;", |_| 0);
    vote("redux.sync.or.b32 %r9, %r0, -1;", |_| 31);
    vote("redux.sync.and.b32 %r9, %r0, -1;", |_| 0);
    vote("redux.sync.xor.b32 %r9, %r1, -1;", |_| 0);
    vote("mov.u32 %r9, %lanemask_lt;", |l| (1 << l) - 1);
    vote("mov.u32 %r9, %lanemask_ge;", |l| !((1 << l) - 1));
    vote("mov.u32 %r9, %lanemask_eq;", |l| 1 << l);
    vote("bar.warp.sync -1; mov.u32 %r9, %laneid;", |l| l);
}

#[test]
fn control_flow() {
    // Guards.
    check_warp(
        "mov.u32 %r9, 5; setp.lt.u32 %p1, %r0, 7; @%p1 mov.u32 %r9, 1; @!%p1 add.u32 %r9, %r9, 1;",
        &[],
        |l| {
            if l < 7 { 1 } else { 6 }
        },
    );
    // A loop that each lane leaves at its own time, then all meet again in a shuffle.
    let lanes = "mov.u32 %r1, 0; mov.u32 %r2, 0;
        LOOP: add.u32 %r2, %r2, %r1; add.u32 %r1, %r1, 1; setp.le.u32 %p1, %r1, %r0; @%p1 bra LOOP;
        shfl.sync.idx.b32 %r9, %r2, %r0, 31, -1;";
    check_warp(lanes, &[], |l| l * (l + 1) / 2);
    // Nested branches, bra.uni, early exits.
    let nested = "mov.u32 %r9, 1; setp.ge.u32 %p1, %r0, 16; @%p1 bra UPPER;
        and.b32 %r1, %r0, 1; setp.eq.u32 %p2, %r1, 0; @%p2 bra.uni EVEN; mov.u32 %r9, 3; bra.uni DONE;
        EVEN: mov.u32 %r9, 2; bra DONE;
        UPPER: mov.u32 %r9, 4;
        DONE: bar.warp.sync -1;";
    check_warp(&nested.replace("@%p2 bra.uni", "@%p2 bra"), &[], |l| match (l, l % 2) {
        (16.., _) => 4,
        (_, 0) => 2,
        _ => 3,
    });
    let exits = "mul.wide.u32 %d1, %r0, 4; add.u64 %d1, %out, %d1; mov.u32 %r9, 77; st.global.u32 [%d1], %r9;
        setp.lt.u32 %p1, %r0, 4; @%p1 ret; setp.gt.u32 %p2, %r0, 20; @%p2 exit; mov.u32 %r9, 5;";
    check_warp(exits, &[], |l| if (4..=20).contains(&l) { 5 } else { 77 });
    let table = "mov.u32 %r9, 0; and.b32 %r1, %r0, 1; ts: .branchtargets A, B; brx.idx %r1, ts;
        A: mov.u32 %r9, 10; bra END;
        B: mov.u32 %r9, 20;
        END:";
    check_warp(table, &[], |l| 10 + 10 * (l % 2));
}

#[test]
fn blocks_barriers_and_shared_memory() {
    // Each thread writes its square, reads its mirror's: only a barrier makes that right.
    let mirror = |bar: &str| {
        format!(
            "mov.u32 %r1, %tid.x; mul.lo.u32 %r2, %r1, %r1; mov.u32 %r3, tile; mad.lo.u32 %r4, %r1, 4, %r3;
            st.shared.u32 [%r4], %r2; {bar}
            sub.u32 %r5, 127, %r1; mad.lo.u32 %r5, %r5, 4, %r3; ld.shared.u32 %r9, [%r5];"
        )
    };
    let expect: Vec<u32> = (0..2).flat_map(|_| (0..128).map(|t| (127 - t) * (127 - t))).collect();
    for bar in [
        "bar.sync 0;",
        "barrier.sync 0;",
        "barrier.sync.aligned 0;",
        "bar.sync 1, 128;",
        "barrier.cta.sync.aligned 0, 128;",
    ] {
        assert_eq!(run_block(2, 128, &mirror(bar), &[]).map(|r| r.0), Ok(expect.clone()), "{bar}");
    }
    let error = run_block(1, 128, &mirror(""), &[]).unwrap_err();
    assert!(error.contains("race"), "{error}");
    // Reductions over the block.
    let odd = "mov.u32 %r1, %tid.x; and.b32 %r1, %r1, 1; setp.eq.u32 %p1, %r1, 1;";
    for (bar, expect) in [
        ("bar.red.popc.u32 %r9, 0, %p1;", 64),
        ("bar.red.or.pred %p2, 0, %p1; selp.u32 %r9, 1, 0, %p2;", 1),
        ("bar.red.and.pred %p2, 0, %p1; selp.u32 %r9, 1, 0, %p2;", 0),
    ] {
        assert_eq!(
            run_block(1, 128, &format!("{odd} {bar}"), &[]).map(|r| r.0),
            Ok(vec![expect; 128]),
            "{bar}"
        );
    }
    // Fences and hints do nothing that shows.
    let quiet = "membar.cta; membar.gl; membar.sys; fence.acq_rel.gpu; fence.sc.sys; fence.proxy.async; nanosleep.u32 10; mov.u32 %r9, 1;";
    check_warp(quiet, &[], |_| 1);
}

#[test]
fn functions_are_called() {
    let body = ".func (.param .b32 result) next(.param .b32 x) { .reg .b32 %a<3>;
        ld.param.u32 %a1, [x]; add.u32 %a2, %a1, 1; st.param.u32 [result], %a2; ret; }
        ----
        { .param .b32 in0; .param .b32 back; st.param.b32 [in0], %r0; call.uni (back), next, (in0); ld.param.b32 %r9, [back]; }";
    check_warp(body, &[], |l| l + 1);
    // Variables of the module.
    let body = ".global .align 4 .b32 table[4] = {5, 6, 7, 8}; .const .align 4 .b32 fixed = 3; .shared .align 4 .b32 one;
        ----
        and.b32 %r1, %r0, 3; mov.u64 %d1, table; mul.wide.u32 %d2, %r1, 4; add.u64 %d1, %d1, %d2; ld.global.u32 %r2, [%d1];
        ld.const.u32 %r3, [fixed]; ld.global.u32 %r4, [table+8]; setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [one], %r4;
        bar.sync 0; ld.shared.u32 %r4, [one]; add.u32 %r9, %r2, %r3; add.u32 %r9, %r9, %r4;";
    check_warp(body, &[], |l| 5 + l % 4 + 3 + 7);
}
