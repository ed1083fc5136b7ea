//! Loads, stores, cp.async (PTX ISA 9.7.9.8 and on). `%in` holds words 0x100, 0x101, ...; `%r0` is the lane.

use super::harness::{check_warp, run_block, run_block_on, run_registers};

fn words() -> Vec<u32> {
    (0x100..0x200).collect()
}

#[test]
fn loads_of_every_width() {
    let bytes: Vec<u32> = vec![0x8182_8384, 0x7172_7374, 0x9192_9394, 0xa1a2_a3a4];
    for (load, expect) in [
        ("ld.global.u8 %r9, [%in];", 0x84),
        ("ld.global.s8 %r9, [%in];", 0xffff_ff84),
        ("ld.global.b8 %r9, [%in+1];", 0x83),
        ("ld.global.u16 %r9, [%in+2];", 0x8182),
        ("ld.global.s16 %r9, [%in+2];", 0xffff_8182),
        ("ld.global.b16 %h1, [%in+2]; cvt.u32.u16 %r9, %h1;", 0x8182),
        ("ld.global.u32 %r9, [%in+4];", 0x7172_7374),
        ("ld.global.f32 %r9, [%in+4];", 0x7172_7374),
        ("ld.global.u64 %d1, [%in]; mov.b64 {%r1, %r9}, %d1;", 0x7172_7374),
        ("ld.global.v2.u8 {%h1, %h2}, [%in]; cvt.u32.u16 %r9, %h2;", 0x83),
        ("ld.global.v2.b16 {%h1, %h2}, [%in]; cvt.u32.u16 %r9, %h2;", 0x8182),
        ("ld.global.v4.u16 {%h1, %h2, %h3, %h4}, [%in]; cvt.u32.u16 %r9, %h4;", 0x7172),
        ("ld.global.v2.u32 {%r1, %r9}, [%in];", 0x7172_7374),
        ("ld.global.v4.u32 {%r1, %r2, %r3, %r9}, [%in];", 0xa1a2_a3a4),
        ("ld.global.v4.f32 {%r1, %r2, %r9, %r3}, [%in];", 0x9192_9394),
        ("ld.global.v2.f32 {%r1, %r9}, [%in];", 0x7172_7374),
        ("ld.global.v2.b64 {%d1, %d2}, [%in]; mov.b64 {%r9, %r1}, %d2;", 0x9192_9394),
        ("ld.global.nc.u32 %r9, [%in];", 0x8182_8384),
        ("ld.global.nc.v4.u32 {%r9, %r1, %r2, %r3}, [%in];", 0x8182_8384),
        ("ld.global.nc.L1::no_allocate.v4.u32 {%r9, %r1, %r2, %r3}, [%in];", 0x8182_8384),
        ("ld.global.nc.L1::no_allocate.L2::128B.v4.b32 {%r9, %r1, %r2, %r3}, [%in];", 0x8182_8384),
        ("ld.global.L1::evict_first.u32 %r9, [%in];", 0x8182_8384),
        ("ld.global.ca.u32 %r9, [%in];", 0x8182_8384),
        ("ld.global.cg.u32 %r9, [%in];", 0x8182_8384),
        ("ld.global.cs.v2.u32 {%r9, %r1}, [%in];", 0x8182_8384),
        ("ld.global.cv.u32 %r9, [%in];", 0x8182_8384),
        ("ld.volatile.global.u32 %r9, [%in];", 0x8182_8384),
        ("ld.relaxed.gpu.global.u32 %r9, [%in];", 0x8182_8384),
        ("ld.acquire.gpu.global.u32 %r9, [%in];", 0x8182_8384),
        ("ld.u32 %r9, [%in];", 0x8182_8384),
        ("ldu.global.u32 %r9, [%in];", 0x8182_8384),
        ("ldu.global.v2.u32 {%r1, %r9}, [%in];", 0x7172_7374),
        ("ld.global.lu.u32 %r9, [%in];", 0x8182_8384),
        ("ld.weak.global.u32 %r9, [%in];", 0x8182_8384),
        ("ld.relaxed.cta.global.u32 %r9, [%in];", 0x8182_8384),
        ("ld.acquire.sys.global.u32 %r9, [%in];", 0x8182_8384),
        ("ld.mmio.relaxed.sys.global.u32 %r9, [%in];", 0x8182_8384),
        ("ld.global.L2::64B.u32 %r9, [%in];", 0x8182_8384),
        ("ld.global.nc.L2::256B.u32 %r9, [%in];", 0x8182_8384),
        ("ld.global.nc.u8 %r9, [%in];", 0x84),
        ("ld.global.v2.s16 {%r1, %r9}, [%in];", 0xffff_8182),
        ("ld.global.v4.u8 {%h1, %h2, %h3, %h4}, [%in]; cvt.u32.u16 %r9, %h4;", 0x81),
        // Registers wider than what is loaded: filled with the sign, or with zeros.
        ("ld.global.s8 %h1, [%in]; cvt.u32.u16 %r9, %h1;", 0xff84),
        ("ld.global.u8 %d1, [%in]; cvt.u32.u64 %r9, %d1;", 0x84),
        ("ld.global.s16 %d1, [%in+2]; mov.b64 {%r1, %r9}, %d1;", 0xffff_ffff),
        ("ld.global.s32 %d1, [%in]; mov.b64 {%r1, %r9}, %d1;", 0xffff_ffff),
        ("ld.global.u32 %d1, [%in]; mov.b64 {%r1, %r9}, %d1;", 0),
        ("prefetch.global.L2 [%in]; prefetch.global.L1 [%in]; mov.u32 %r9, 1;", 1),
    ] {
        check_warp(load, &bytes, |_| expect);
    }
}

#[test]
fn stores_of_every_width() {
    // Only lane 0 stores; every lane reads nothing.
    let store = |text: &str, expect: [u32; 4]| {
        let body = format!(
            "mov.u32 %r9, 0; setp.ne.u32 %p1, %r0, 0; @%p1 bra END; mov.u32 %r1, 0x11223344; mov.u32 %r2, 0x55667788;
            cvt.u16.u32 %h1, %r1; mov.b64 %d1, {{%r1, %r2}}; {text}\nEND:"
        );
        let (_, buffer) = run_block(1, 32, &body, &[]).unwrap_or_else(|e| panic!("{text}\n{e}"));
        assert_eq!(buffer[..4], expect, "{text}");
    };
    store("st.global.u8 [%in+1], %r1;", [0x4400, 0, 0, 0]);
    store("st.global.b8 [%in+1], %h1;", [0x4400, 0, 0, 0]);
    store("st.global.u16 [%in+2], %h1;", [0x3344_0000, 0, 0, 0]);
    store("st.global.b32 [%in], %r1;", [0x1122_3344, 0, 0, 0]);
    store("st.global.f32 [%in], 0f3F800000;", [0x3f80_0000, 0, 0, 0]);
    store("st.global.b32 [%in], -1;", [0xffff_ffff, 0, 0, 0]);
    store("st.global.b64 [%in], %d1;", [0x1122_3344, 0x5566_7788, 0, 0]);
    store("st.global.v2.u16 [%in], {%h1, %h1};", [0x3344_3344, 0, 0, 0]);
    store("st.global.v2.u32 [%in+8], {%r2, %r1};", [0, 0, 0x5566_7788, 0x1122_3344]);
    store(
        "st.global.v4.b32 [%in], {%r1, %r2, %r1, %r2};",
        [0x1122_3344, 0x5566_7788, 0x1122_3344, 0x5566_7788],
    );
    store("st.global.v2.f32 [%in], {%r2, %r1};", [0x5566_7788, 0x1122_3344, 0, 0]);
    store(
        "st.global.v4.f32 [%in], {%r2, %r2, %r2, %r1};",
        [0x5566_7788, 0x5566_7788, 0x5566_7788, 0x1122_3344],
    );
    store(
        "st.global.v4.u32 [%in], {%r1, %r1, %r1, %r2};",
        [0x1122_3344, 0x1122_3344, 0x1122_3344, 0x5566_7788],
    );
    store("st.global.v2.b64 [%in], {%d1, %d1};", [0x1122_3344, 0x5566_7788, 0x1122_3344, 0x5566_7788]);
    store("st.global.cs.u32 [%in], %r1; st.global.wt.u32 [%in+4], %r1;", [0x1122_3344, 0x1122_3344, 0, 0]);
    store("st.volatile.global.u32 [%in], %r1;", [0x1122_3344, 0, 0, 0]);
    store(
        "st.relaxed.gpu.global.u32 [%in], %r1; st.release.gpu.global.u32 [%in+4], %r1;",
        [0x1122_3344, 0x1122_3344, 0, 0],
    );
    store("st.u32 [%in], %r1;", [0x1122_3344, 0, 0, 0]);
    store("st.global.u8 [%in+3], %d1;", [0x4400_0000, 0, 0, 0]);
    store("st.global.u32 [%in], %d1;", [0x1122_3344, 0, 0, 0]);
    store("st.global.v4.u8 [%in], {%r1, %r2, %r1, %r2};", [0x8844_8844, 0, 0, 0]);
    store("st.global.v4.b16 [%in], {%h1, %h1, %h1, %h1};", [0x3344_3344, 0x3344_3344, 0, 0]);
    store(
        "st.weak.global.wb.u32 [%in], %r1; st.global.cg.u32 [%in+4], %r1;",
        [0x1122_3344, 0x1122_3344, 0, 0],
    );
    store(
        "st.global.L1::no_allocate.u32 [%in], %r1; st.mmio.relaxed.sys.global.u32 [%in+4], %r2;",
        [0x1122_3344, 0x5566_7788, 0, 0],
    );
}

#[test]
fn thirty_two_bytes_at_once() {
    // Lane l has words 8 l to 8 l + 7.
    let head = "mul.wide.u32 %d1, %r0, 32; add.u64 %d1, %in, %d1;";
    let run = |text: &str| {
        run_block_on(100, 1, 32, &format!("{head} {text}"), &words())
            .unwrap_or_else(|e| panic!("{text}\n{e}"))
    };
    let lanes = |f: fn(u32) -> u32| (0..32).map(f).collect::<Vec<_>>();
    let all = "{%r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8}";
    let two = "shl.b32 %r2, %r2, 16; or.b32 %r9, %r2, %r7;";
    let expect = lanes(|l| (0x101 + 8 * l) << 16 | (0x106 + 8 * l));
    for form in ["v8.b32", "v8.f32", "nc.v8.u32", "L1::no_allocate.L2::evict_first.v8.b32"] {
        assert_eq!(run(&format!("ld.global.{form} {all}, [%d1]; {two}")).0, expect, "{form}");
    }
    let sinks = "ld.global.v8.b32 {_, _, _, %r9, _, _, _, _}, [%d1];";
    assert_eq!(run(sinks).0, lanes(|l| 0x103 + 8 * l));
    let wide = "ld.global.v4.b64 {%d2, %d3, %d4, %d5}, [%d1]; mov.b64 {%r1, %r9}, %d5;";
    assert_eq!(run(wide).0, lanes(|l| 0x107 + 8 * l));
    let back = "st.global.v8.b32 [%d1+1024], {%r8, %r7, %r6, %r5, %r4, %r3, %r2, %r1};";
    let (_, buffer) = run(&format!("ld.global.v8.b32 {all}, [%d1]; {back} mov.u32 %r9, 0;"));
    let turned = |at: u32| 0x100 + at / 8 * 8 + 7 - at % 8;
    assert_eq!(buffer[256..512], (0..256).map(turned).collect::<Vec<_>>());
}

#[test]
fn cache_policies() {
    for policy in [
        "createpolicy.fractional.L2::evict_first.b64 %d5;",
        "createpolicy.fractional.L2::evict_last.L2::evict_unchanged.b64 %d5, 0.25;",
        "createpolicy.range.global.L2::evict_last.L2::evict_first.b64 %d5, [%in], 128, 256;",
        "mov.u64 %d6, 0; createpolicy.cvt.L2.b64 %d5, %d6;",
    ] {
        check_warp(&format!("{policy} ld.global.L2::cache_hint.u32 %r9, [%in+4], %d5;"), &words(), |_| 0x101);
    }
    let both = "createpolicy.fractional.L2::evict_last.b64 %d5, 1.0; mul.wide.u32 %d1, %r0, 4; add.u64 %d1, %in, %d1;
        ld.global.nc.L1::evict_last.L2::cache_hint.L2::128B.v2.u32 {%r9, %r1}, [%in], %d5;
        st.global.L2::cache_hint.u32 [%d1+1024], %r0, %d5;";
    assert_eq!(run_block(1, 32, both, &words()).unwrap().1[256..288], (0..32).collect::<Vec<_>>());
}

#[test]
fn shared_local_and_generic_addresses() {
    let shared = "mov.u32 %r1, tile; mad.lo.u32 %r1, %r0, 16, %r1; add.u32 %r2, %r0, 1;";
    let check =
        |text: &str, expect: fn(u32) -> u32| check_warp(&format!("{shared} {text}"), &words(), expect);
    check("mov.b64 %d1, {%r2, %r0}; st.shared.u64 [%r1], %d1; ld.shared.u32 %r9, [%r1];", |l| l + 1);
    check(
        "ld.param.v2.u32 {%r3, %r4}, [a]; mov.b64 %d1, {%r3, %r4}; sub.s64 %d1, %d1, %in; cvt.u32.u64 %r9, %d1;",
        |_| 0,
    );
    check("ld.param.f32 %r3, [a+4]; mov.b64 {%r4, %r5}, %in; sub.u32 %r9, %r3, %r5;", |_| 0);
    check("st.shared.u32 [%r1], %r2; ld.shared.u32 %r9, [%r1];", |l| l + 1);
    check("st.shared.v2.u32 [%r1+8], {%r0, %r2}; ld.shared.u32 %r9, [%r1+12];", |l| l + 1);
    check(
        "st.shared.v4.u32 [%r1], {%r0, %r0, %r0, %r2}; ld.shared.v4.f32 {%r3, %r4, %r5, %r9}, [%r1];",
        |l| l + 1,
    );
    check("st.shared.f32 [%r1], %r2; ld.shared.f32 %r9, [%r1];", |l| l + 1);
    check("st.shared.v2.f32 [%r1], {%r0, %r2}; ld.shared.v2.u32 {%r3, %r9}, [%r1];", |l| l + 1);
    check(
        "st.shared.v4.f32 [%r1], {%r0, %r0, %r0, %r2}; ld.shared.u64 %d1, [%r1+8]; mov.b64 {%r3, %r9}, %d1;",
        |l| l + 1,
    );
    check("st.shared.u8 [%r1], %r2; ld.shared.u8 %r9, [%r1];", |l| l + 1);
    check("cvt.u16.u32 %h1, %r2; st.shared.b16 [%r1+2], %h1; ld.shared.s16 %r9, [%r1+2];", |l| l + 1);
    check("st.shared::cta.b32 [%r1], %r2; ld.volatile.shared.u32 %r9, [%r1];", |l| l + 1);
    check(
        "cvt.u64.u32 %d1, %r1; cvta.shared.u64 %d1, %d1; st.u32 [%d1], %r2; ld.shared.u32 %r9, [%r1];",
        |l| l + 1,
    );
    check(
        "st.shared.u32 [%r1], %r2; cvt.u64.u32 %d1, %r1; cvta.shared.u64 %d1, %d1; ld.u32 %r9, [%d1];",
        |l| l + 1,
    );
    check(
        "cvt.u64.u32 %d1, %r1; cvta.shared.u64 %d1, %d1; cvta.to.shared.u64 %d2, %d1; cvt.u32.u64 %r3, %d2; sub.u32 %r9, %r3, %r1;",
        |_| 0,
    );
    check("cvta.to.global.u64 %d1, %in; ld.global.u32 %r9, [%d1];", |_| 0x100);
    check(
        ".local .align 4 .b8 mine[8]; mov.u64 %d1, mine; st.local.u32 [%d1+4], %r2; ld.local.u32 %r9, [mine+4];",
        |l| l + 1,
    );
    check(
        ".local .align 4 .b8 mine[8]; mov.u64 %d1, mine; cvta.local.u64 %d1, %d1; st.u32 [%d1], %r2; ld.u32 %r9, [%d1];",
        |l| l + 1,
    );
    check("isspacep.global %p1, %in; selp.u32 %r9, 1, 0, %p1;", |_| 1);
    check("isspacep.shared %p1, %in; selp.u32 %r9, 1, 0, %p1;", |_| 0);
    let shared = "cvt.u64.u32 %d1, %r1; cvta.shared.u64 %d1, %d1;";
    check(&format!("{shared} isspacep.shared %p1, %d1; selp.u32 %r9, 1, 0, %p1;"), |_| 1);
    check(&format!("{shared} isspacep.shared::cta %p1, %d1; selp.u32 %r9, 1, 0, %p1;"), |_| 1);
    check(&format!("{shared} isspacep.global %p1, %d1; selp.u32 %r9, 1, 0, %p1;"), |_| 0);
    check(&format!("{shared} isspacep.local %p1, %d1; selp.u32 %r9, 1, 0, %p1;"), |_| 0);
    let local = ".local .align 4 .b8 mine[8]; cvta.local.u64 %d1, mine;";
    check(&format!("{local} isspacep.local %p1, %d1; selp.u32 %r9, 1, 0, %p1;"), |_| 1);
    check("isspacep.local %p1, %in; selp.u32 %r9, 1, 0, %p1;", |_| 0);
    check("cvta.shared.u64 %d1, tile; st.shared.u32 [%r1], %r2; bar.warp.sync -1; ld.u32 %r9, [%d1];", |_| 1);
    check("st.volatile.shared.u32 [%r1], %r2; ld.shared.u32 %r9, [%r1];", |l| l + 1);
    let constant = ".const .align 8 .b32 fixed[2] = {3, 4};\n----";
    check_warp(&format!("{constant} ld.const.v2.u32 {{%r1, %r9}}, [fixed];"), &[], |_| 4);
    check_warp(&format!("{constant} cvta.const.u64 %d1, fixed; ld.u32 %r9, [%d1+4];"), &[], |_| 4);
    // By the lane: a gather.
    check(
        "sub.u32 %r3, 31, %r0; mul.wide.u32 %d1, %r3, 4; add.u64 %d1, %in, %d1; ld.global.u32 %r9, [%d1+4];",
        |l| 0x120 - l,
    );
}

#[test]
fn asynchronous_copies() {
    let head =
        "mov.u32 %r1, tile; mad.lo.u32 %r1, %r0, 16, %r1; mul.wide.u32 %d1, %r0, 16; add.u64 %d1, %in, %d1;";
    let copy = |text: &str, expect: fn(u32) -> u32| check_warp(&format!("{head} {text}"), &words(), expect);
    copy(
        "cp.async.cg.shared.global [%r1], [%d1], 16; cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %r9, [%r1+12];",
        |l| 0x103 + 4 * l,
    );
    copy("cp.async.ca.shared.global [%r1], [%d1], 4; cp.async.wait_all; ld.shared.u32 %r9, [%r1];", |l| {
        0x100 + 4 * l
    });
    copy("cp.async.ca.shared.global [%r1], [%d1], 8; cp.async.wait_all; ld.shared.u32 %r9, [%r1+4];", |l| {
        0x101 + 4 * l
    });
    copy(
        "cp.async.cg.shared.global.L2::128B [%r1], [%d1], 16; cp.async.wait_all; ld.shared.u32 %r9, [%r1];",
        |l| 0x100 + 4 * l,
    );
    // Fewer source bytes: the rest is zero; none at all: the address need not be good.
    copy(
        "cp.async.cg.shared.global [%r1], [%d1], 16, 8; cp.async.wait_all; ld.shared.v4.u32 {%r2, %r3, %r4, %r5}, [%r1]; add.u32 %r9, %r3, %r4;",
        |l| 0x101 + 4 * l,
    );
    copy(
        "mov.u32 %r2, 0; mov.u64 %d1, 0; cp.async.cg.shared.global [%r1], [%d1], 16, %r2; cp.async.wait_all; ld.shared.u32 %r9, [%r1+4];",
        |_| 0,
    );
    copy(
        "cp.async.ca.shared.global [%r1], [%d1], 8, 4; cp.async.wait_all; ld.shared.u32 %r9, [%r1+4];",
        |_| 0,
    );
    copy(
        "cp.async.cg.shared.global.L2::256B [%r1], [%d1], 16, 16; cp.async.wait_all; ld.shared.u32 %r9, [%r1+12];",
        |l| 0x103 + 4 * l,
    );
    // Half of the lanes ignore the source.
    copy(
        "setp.lt.u32 %p1, %r0, 16; cp.async.cg.shared.global [%r1], [%d1], 16, %p1; cp.async.wait_all; ld.shared.u32 %r9, [%r1+4];",
        |l| if l < 16 { 0 } else { 0x101 + 4 * l },
    );
    // A cache policy comes last.
    let policy = "createpolicy.fractional.L2::evict_last.b64 %d5, 1.0;";
    let wait = "cp.async.wait_all; ld.shared.u32 %r9, [%r1];";
    copy(&format!("{policy} cp.async.cg.shared.global.L2::cache_hint [%r1], [%d1], 16, %d5; {wait}"), |l| {
        0x100 + 4 * l
    });
    copy(
        &format!(
            "{policy} cp.async.ca.shared::cta.global.L2::cache_hint.L2::64B [%r1], [%d1], 4, 4, %d5; {wait}"
        ),
        |l| 0x100 + 4 * l,
    );
    copy(
        &format!(
            "{policy} setp.ne.u32 %p1, %r0, 0; cp.async.cg.shared.global.L2::cache_hint [%r1], [%d1], 16, %p1, %d5; {wait}"
        ),
        |l| if l == 0 { 0x100 } else { 0 },
    );
    // Two groups, the older one waited for.
    copy(
        "cp.async.ca.shared.global [%r1], [%d1], 4; cp.async.commit_group; cp.async.ca.shared.global [%r1+4], [%d1+4], 4;
        cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r9, [%r1];",
        |l| 0x100 + 4 * l,
    );
    let early = "cp.async.ca.shared.global [%r1], [%d1], 4; cp.async.commit_group; ld.shared.u32 %r9, [%r1];";
    assert!(run_block(1, 32, &format!("{head} {early}"), &words()).is_err());
}

#[test]
fn a_load_of_several_registers_fills_them_in_order() {
    let body =
        "mul.wide.u32 %d1, %r0, 16; add.u64 %d1, %in, %d1; ld.global.v4.u32 {%r9, %r10, %r11, %r12}, [%d1];";
    for (at, lanes) in run_registers(body, &words(), 9..13).into_iter().enumerate() {
        assert_eq!(lanes, (0..32).map(|l| 0x100 + 4 * l + at as u32).collect::<Vec<_>>());
    }
}
