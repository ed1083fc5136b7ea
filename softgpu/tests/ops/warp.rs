//! Instructions of a whole warp, control flow and barriers (PTX ISA 9.7.9.6, 9.7.12, 9.7.13). `%r0` is the lane.

use super::harness::{check_warp, run_block};

/// The threads of one block.
fn block(threads: u32, body: &str) -> Vec<u32> {
    run_block(1, threads, body, &[]).unwrap_or_else(|e| panic!("{body}\n{e}")).0
}

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
    shuffle("shfl.sync.down.b32 %r8|%p1, %r1, 3, 31, -1; selp.u32 %r9, 1, 0, %p1;", |l| u32::from(l < 29));
    shuffle("shfl.sync.bfly.b32 %r8|%p1, %r1, 8, 0x1807, -1; selp.u32 %r9, 1, 0, %p1;", |l| {
        u32::from(l & 8 != 0)
    });
    shuffle("shfl.sync.idx.b32 %r8|%p1, %r1, %r0, 15, -1; selp.u32 %r9, 1, 0, %p1;", |l| u32::from(l < 16));
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
    let all = "setp.lt.u32 %p3, %r0, 32;";
    vote(&format!("{all} vote.sync.all.pred %p2, %p3, -1; selp.u32 %r9, 1, 0, %p2;"), |_| 1);
    vote(&format!("{all} vote.sync.uni.pred %p2, %p3, -1; selp.u32 %r9, 1, 0, %p2;"), |_| 1);
    vote(&format!("{all} vote.sync.uni.pred %p2, !%p3, -1; selp.u32 %r9, 1, 0, %p2;"), |_| 1);
    vote(&format!("{all} vote.sync.any.pred %p2, !%p3, -1; selp.u32 %r9, 1, 0, %p2;"), |_| 0);
    vote("activemask.b32 %r9;", |_| 0xffff_ffff);
    vote("mov.u32 %r9, 0; @%p1 activemask.b32 %r9;", |l| if l % 2 == 1 { 0xaaaa_aaaa } else { 0 });
    vote("match.any.sync.b32 %r9, %r1, -1;", |l| if l % 2 == 1 { 0xaaaa_aaaa } else { 0x5555_5555 });
    vote("match.all.sync.b32 %r9|%p2, %r1, -1;", |_| 0);
    vote("match.all.sync.b32 %r3|%p2, %r1, -1; selp.u32 %r9, 1, 0, %p2;", |_| 0);
    vote("mov.u32 %r2, 7; match.all.sync.b32 %r9, %r2, -1;", |_| 0xffff_ffff);
    vote("mov.u32 %r2, 7; match.all.sync.b32 %r3|%p2, %r2, -1; selp.u32 %r9, 1, 0, %p2;", |_| 1);
    // What differs lies above 32 bits.
    let wide = "cvt.u64.u32 %d1, %r1; shl.b64 %d1, %d1, 40;";
    vote(&format!("{wide} match.any.sync.b64 %r9, %d1, -1;"), |l| 0x5555_5555 << (l % 2));
    vote(&format!("{wide} match.all.sync.b64 %r9|%p2, %d1, -1;"), |_| 0);
    vote("redux.sync.add.s32 %r9, %r0, -1;", |_| 496);
    vote("redux.sync.max.u32 %r9, %r0, -1;", |_| 31);
    vote("redux.sync.min.s32 %r9, %r0, -1;", |_| 0);
    // -10 to 21.
    let signed = "sub.s32 %r2, %r0, 10;";
    vote(&format!("{signed} redux.sync.max.s32 %r9, %r2, -1;"), |_| 21);
    vote(&format!("{signed} redux.sync.min.s32 %r9, %r2, -1;"), |_| 0xffff_fff6);
    vote(&format!("{signed} redux.sync.max.u32 %r9, %r2, -1;"), |_| 0xffff_ffff);
    vote(&format!("{signed} redux.sync.min.u32 %r9, %r2, -1;"), |_| 0);
    vote("redux.sync.add.u32 %r9, %r0, -1;", |_| 496);
    vote("setp.lt.u32 %p2, %r0, 8; mov.u32 %r9, 0; @%p2 redux.sync.add.u32 %r9, %r0, 0xff;", |l| {
        if l < 8 { 28 } else { 0 }
    });
    vote("redux.sync.or.b32 %r9, %r0, -1;", |_| 31);
    vote("redux.sync.and.b32 %r9, %r0, -1;", |_| 0);
    vote("redux.sync.xor.b32 %r9, %r1, -1;", |_| 0);
    vote("mov.u32 %r9, %lanemask_lt;", |l| (1 << l) - 1);
    vote("mov.u32 %r9, %lanemask_ge;", |l| !((1 << l) - 1));
    vote("mov.u32 %r9, %lanemask_eq;", |l| 1 << l);
    vote("mov.u32 %r9, %lanemask_le;", |l| u32::MAX >> (31 - l));
    vote("mov.u32 %r9, %lanemask_gt;", |l| !(u32::MAX >> (31 - l)));
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
    check_warp(&table.replace("%r0, 1;", "%r0, 0;").replace("brx.idx", "brx.idx.uni"), &[], |_| 10);
    // What gives up, and only where it is reached.
    for stop in ["trap;", "brkpt;"] {
        let error = run_block(1, 32, &format!("mov.u32 %r9, 0; {stop}"), &[]).unwrap_err();
        assert!(error.contains("trap"), "{error}");
        check_warp(&format!("setp.gt.u32 %p1, %r0, 99; @%p1 {stop} mov.u32 %r9, 4;"), &[], |_| 4);
    }
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
    // One warp writes and goes on, the other waits for it.
    let arrive = "mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 4, %r1; setp.ge.u32 %p1, %r0, 32; @%p1 bra READ;
        st.shared.u32 [%r2], %r0; bar.arrive 1, 64; mov.u32 %r9, 77; bra END;
        READ: bar.sync 1, 64; ld.shared.u32 %r9, [%r2+-128];
        END:";
    assert_eq!(block(64, arrive), (0..64).map(|t| if t < 32 { 77 } else { t - 32 }).collect::<Vec<_>>());
    assert_eq!(block(72, "mov.u32 %r9, %warpid;"), (0..72).map(|t| t / 32).collect::<Vec<_>>());
    assert_eq!(block(72, "mov.u32 %r9, %nwarpid;"), vec![3; 72]);
    assert_eq!(block(32, "mov.u32 %r9, %total_smem_size;"), vec![4096; 32]);
    // Fences and hints do nothing that shows.
    let quiet = "membar.cta; membar.gl; membar.sys; fence.acq_rel.gpu; fence.sc.sys; fence.proxy.async; nanosleep.u32 10; mov.u32 %r9, 1;";
    check_warp(quiet, &[], |_| 1);
    let quiet = "fence.acq_rel.cta; fence.sc.cluster; fence.acquire.gpu; fence.release.sys; fence.proxy.alias; membar.proxy.alias;
        fence.proxy.async.global; fence.proxy.async.shared::cta; mov.u32 %r1, 20; nanosleep.u32 %r1;
        griddepcontrol.wait; griddepcontrol.launch_dependents; pmevent 1; pmevent.mask 3; mov.u32 %r9, 1;";
    check_warp(quiet, &[], |_| 1);
    let hints = "prefetch.L1 [%in]; prefetch.global.L2::evict_last [%in+64]; prefetchu.L1 [%in];
        applypriority.global.L2::evict_normal [%in], 128; mov.u32 %r9, 1;";
    check_warp(hints, &[], |_| 1);
}

#[test]
fn functions_are_called() {
    let body = ".func (.param .b32 result) next(.param .b32 x) { .reg .b32 %a<3>;
        ld.param.u32 %a1, [x]; add.u32 %a2, %a1, 1; st.param.u32 [result], %a2; ret; }
        ----
        { .param .b32 in0; .param .b32 back; st.param.b32 [in0], %r0; call.uni (back), next, (in0); ld.param.b32 %r9, [back]; }";
    check_warp(body, &[], |l| l + 1);
    // One calls another, twice.
    let body = ".func (.param .b32 result) next(.param .b32 x) { .reg .b32 %a<3>;
        ld.param.u32 %a1, [x]; add.u32 %a2, %a1, 1; st.param.u32 [result], %a2; ret; }
        .func (.param .b32 result) skip(.param .b32 x) { .reg .b32 %a<3>; ld.param.u32 %a1, [x];
        { .param .b32 in1; .param .b32 out1; st.param.b32 [in1], %a1; call (out1), next, (in1); ld.param.b32 %a1, [out1]; }
        { .param .b32 in2; .param .b32 out2; st.param.b32 [in2], %a1; call (out2), next, (in2); ld.param.b32 %a2, [out2]; }
        st.param.u32 [result], %a2; ret; }
        ----
        { .param .b32 in0; .param .b32 back; st.param.b32 [in0], %r0; call.uni (back), skip, (in0); ld.param.b32 %r9, [back]; }";
    check_warp(body, &[], |l| l + 2);
    // Nothing goes in or out.
    let body = ".global .align 4 .b32 count = 5; .func tick() { .reg .b32 %a; atom.global.add.u32 %a, [count], 1; ret; }
        ----
        call.uni tick; bar.warp.sync -1; call tick; bar.warp.sync -1; ld.global.u32 %r9, [count];";
    check_warp(body, &[], |_| 69);
    // Variables of the module.
    let body = ".global .align 4 .b32 table[4] = {5, 6, 7, 8}; .const .align 4 .b32 fixed = 3; .shared .align 4 .b32 one;
        ----
        and.b32 %r1, %r0, 3; mov.u64 %d1, table; mul.wide.u32 %d2, %r1, 4; add.u64 %d1, %d1, %d2; ld.global.u32 %r2, [%d1];
        ld.const.u32 %r3, [fixed]; ld.global.u32 %r4, [table+8]; setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [one], %r4;
        bar.sync 0; ld.shared.u32 %r4, [one]; add.u32 %r9, %r2, %r3; add.u32 %r9, %r9, %r4;";
    check_warp(body, &[], |l| 5 + l % 4 + 3 + 7);
}
