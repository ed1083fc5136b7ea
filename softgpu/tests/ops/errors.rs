//! What is not known is an error with its text and line, never a guess.

use komt_softgpu::DeviceSpec;
use komt_softgpu::ptx;

fn error(instruction: &str) -> Option<String> {
    let text = format!(
        ".version 8.8\n.target sm_90\n.address_size 64\n.visible .entry k()\n{{\n.reg .pred %p<4>; .reg .b16 %h<4>;
.reg .b32 %r<10>; .reg .b64 %d<4>; .shared .align 16 .b8 tile[64];\n{instruction}\nret;\n}}\n"
    );
    ptx::parse(&text, &DeviceSpec::sm(90)).err().map(|error| error.to_string())
}

#[test]
fn unknown_instructions_are_named_with_their_line() {
    let mut wrong = Vec::new();
    for instruction in [
        // PTX that we do not execute.
        "rcp.approx.ftz.f64 %d1, %d2;",
        "mad.lo.cc.u32 %r1, %r2, %r3, %r4;",
        "bfi.b32 %r1, %r2, %r3, %r4, %r5;",
        "setp.gt.f16x2 %p1|%p2, %r1, %r2;",
        "set.lt.u32.f16x2 %r1, %r2, %r3;",
        "cvt.rn.e4m3x2.f32 %h1, %r1, %r2;",
        "mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%r1,%r2,%r3,%r4}, {%r1,%r2,%r3,%r4}, {%r5,%r6}, {%r1,%r2,%r3,%r4};",
        "lop3.b32 %r1, %r2, %r3, %r4, 256;",
        "elect.sync %r1|%p1, -1;",
        "wgmma.fence.sync.aligned;",
        "tex.2d.v4.f32.f32 {%r1,%r2,%r3,%r4}, [tile, {%r5,%r6}];",
        "rsqrt.approx.ftz.f64 %d1, %d2;",
        "mov.f16 %h1, %h2;",
        "selp.f16 %h1, %h2, %h3, %p1;",
        "ld.global.b128 %d1, [%d2];",
        "ld.global.f32 %d1, [%d2];",
        "cvt.f32.f16 %d1, %h1;",
        "{ .reg .b128 %q; }",
        "isspacep.const %p1, %d1;",
        "discard.global.L2 [%d1], 128;",
        "fence.mbarrier_init.release.cluster;",
        "red.global.add.v2.f32 [%d1], {%r1, %r2};",
        // PTX of other architectures.
        "min.f32 %r1, %r2, %r3, %r4;",
        "add.f32x2 %d1, %d2, %d3;",
        "ld.global.v8.b32 {%r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8}, [%d1];",
        "setmaxnreg.inc.sync.aligned.u32 40;",
        // No PTX.
        "frobnicate.u32 %r1, %r2;",
        "add.f128 %r1, %r2, %r3;",
        "add.rn.u32 %r1, %r2, %r3;",
        "add.rna.f32 %r1, %r2, %r3;",
        "mul.s32 %r1, %r2, %r3;",
        "mul.middle.s32 %r1, %r2, %r3;",
        "fma.f32 %r1, %r2, %r3, %r4;",
        "fma.rn.f32 %r1, %r2, %r3;",
        "fma.rn.bf16 %h1, %h2, %h3;",
        "fma.rz.f16 %h1, %h2, %h3, %h1;",
        "add.rn.rz.f32 %r1, %r2, %r3;",
        "add.relu.f32 %r1, %r2, %r3;",
        "add.sat.f64 %d1, %d2, %d3;",
        "add.f32 %r1, %r2, %r3, %r4;",
        "neg.rn.f32 %r1, %r2;",
        "neg.f32 %r1, %r2, %r3;",
        "max.rn.f32 %r1, %r2, %r3;",
        "div.f32 %r1, %r2, %r3;",
        "div.approx.full.f32 %r1, %r2, %r3;",
        "ex2.f32 %r1, %r2;",
        "ex2.rn.f32 %r1, %r2;",
        "ex2.approx.bf16 %h1, %h2;",
        "sqrt.approx.f16 %h1, %h2;",
        "cvt.f16.f32 %h1, %r1;",
        "cvt.f32.s32 %r1, %r2;",
        "cvt.s32.f32 %r1, %r2;",
        "cvt.rn.s32.f32 %r1, %r2;",
        "cvt.rni.f16.f32 %h1, %r2;",
        "cvt.rn.f32.f16 %r1, %h2;",
        "cvt.rn.u32.u64 %r1, %d2;",
        "cvt.rna.f16.f32 %h1, %r2;",
        "cvt.rn.relu.s32.f32 %r1, %r2;",
        "cvt.rn.bf16x2.f32 %r1, %r2;",
        "shl.sat.b32 %r1, %r2, %r3;",
        "and.lo.b32 %r1, %r2, %r3;",
        "popc.hi.b32 %r1, %r2;",
        "not.b32 %r1, %r2, %r3;",
        "mad.lo.s32 %r1, %r2, %r3;",
        "bfe.u32 %r1, %r2, %r3;",
        "setp.lt.s32 %p1, %r1;",
        "selp.b32 %r1, %r2, %r3;",
        "mov.b32 %r1, %d1;",
        "add.s64 %d1, %r1, %d2;",
        "add.s32 %r1, %h1, %r2;",
        "add.s32 %d1, %r1, %r2;",
        "mov.b64 {%r1, %r2, %r3}, %d1;",
        "shfl.sync.bfly.b64 %d1, %d2, 1, 31, -1;",
        "cvt.rn.f9.f32 %h1, %r1;",
        "setp.lower.u32 %p1, %r1, %r2;",
        "ld.global.u128 %r1, [%d1];",
        "ld.elsewhere.u32 %r1, [%d1];",
        "ld.global.v3.u32 {%r1, %r2, %r3}, [%d1];",
        "shfl.sync.twist.b32 %r1, %r2, 1, 31, -1;",
        "shfl.bfly.b32 %r1, %r2, 1, 31;",
        "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {%r1,%r2,%r3,%r4}, {%r1,%r2,%r3,%r4}, {%r5,%r6}, {%r1,%r2,%r3,%r4};",
        "mma.sync.aligned.m16n8k16.row.col.f16.bf16.bf16.f16 {%r1,%r2}, {%r1,%r2,%r3,%r4}, {%r5,%r6}, {%r1,%r2};",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r1,%r2,%r3,%r4}, {%r1,%r2}, {%r5,%r6}, {%r1,%r2,%r3,%r4};",
        "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r1,%r2,%r3}, [%r4];",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1,%r2,%r3}, [%r4];",
        "cp.async.cg.shared.global [%r1], [%d1], 8;",
        "cp.async.ca.shared.global [%r1], [%d1], 5;",
        "prmt.b32.upside %r1, %r2, %r3, %r4;",
        "atom.global.mul.u32 %r1, [%d1], %r2;",
        "add.u32 %r1, %r2;",
        "add.u32 %r1, %r2, %r99;",
        "bra NOWHERE;",
        // Operands that would be dropped, or are missing.
        "min.s32 %r1, %r2, %r3, %r4;",
        "max.u32 %r1, %r2, %r3, %r4;",
        "min.f64 %d1, %d2, %d3, %d1;",
        "max.f16 %h1, %h2, %h3, %h1;",
        "mov.b64 {}, %d1;",
        "mov.b64 %d1, {};",
        "atom.global.add.u32 %r1, [%d1], %r2, %r3;",
        "atom.global.cas.b32 %r1, [%d1], %r2;",
        "atom.global.cas.b32 %r1, [%d1], %r2, %r3, %r4;",
        "red.global.add.u32 [%d1], %r1, %r2;",
        "atom.global.add.L2::cache_hint.u32 %r1, [%d1], %r2;",
        "cp.async.cg.shared.global [%r1], [%d1], 16, %r2, %r3;",
        "cp.async.cg.shared.global [%r1], [%d1], 16, %d2;",
        "cp.async.cg.shared.global.L2::cache_hint [%r1], [%d1], 16;",
        "cp.async.wait_all 0;",
        "cp.async.commit_group 1;",
        "ld.global.u32 %r1, [%d1], %d2;",
        "ld.global.L2::cache_hint.u32 %r1, [%d1];",
        "bar.sync 0, 32, 1;",
        "activemask.b32 %r1, %r2;",
        "match.any.sync.b32 %r1|%p1, %r2, -1;",
        // Registers of another width.
        "ld.global.u64 %r1, [%d1];",
        "ld.global.v2.u32 {%h1, %r2}, [%d1];",
        "ld.global.u32 %p1, [%d1];",
        "ld.global.u32 %r1, [%h1];",
        "st.global.u32 [%d1], %h1;",
        "st.shared.u64 [tile], %r1;",
        "cvt.u32.u64 %h1, %d1;",
        "cvt.u64.u32 %d1, %h1;",
        "atom.global.add.u32 %d1, [%d2], %r1;",
        "atom.global.add.u32 %r1, [%d1], %d2;",
        "cp.async.ca.shared.global [%r1], [%d1], 8, %h1;",
        "shfl.sync.bfly.b32 %d1, %d2, 1, 31, -1;",
        "redux.sync.add.u32 %d1, %r1, -1;",
        "vote.sync.any.pred %r1, %p1, -1;",
        "match.any.sync.b64 %r1, %r2, -1;",
        "bar.red.and.pred %r1, 0, %p1;",
        "mov.b64 {%h1, %r1}, %d1;",
        "mov.b32 {%h1, %h2}, %d1;",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%h1}, [%r1];",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {1}, [%r1];",
        // Types that the instruction does not have.
        "redux.sync.add.f32 %r1, %r2, -1;",
        "redux.sync.add.b32 %r1, %r2, -1;",
        "redux.sync.and.u32 %r1, %r2, -1;",
        "add.b32 %r1, %r2, %r3;",
        "and.u32 %r1, %r2, %r3;",
        "min.b32 %r1, %r2, %r3;",
        "sub.u16x2 %r1, %r2, %r3;",
        "neg.u32 %r1, %r2;",
        "shl.u32 %r1, %r2, %r3;",
        "popc.u32 %r1, %r2;",
        "bfe.b32 %r1, %r2, 1, 1;",
        "mul24.lo.u64 %d1, %d2, %d3;",
        "dp4a.u8.s32 %r1, %r2, %r3, %r4;",
        "add.cc.u16 %h1, %h2, %h3;",
        "mad.rn.f16 %h1, %h2, %h3, %h1;",
        "div.rn.f32x2 %d1, %d2, %d3;",
        "neg.f32x2 %d1, %d2;",
        "min.f32x2 %d1, %d2, %d3;",
        "slct.s32.u32 %r1, %r2, %r3, %r4;",
        "testp.finite.f16 %p1, %h1;",
        "setp.lt.b32 %p1, %r1, %r2;",
        "setp.lo.s32 %p1, %r1, %r2;",
        "setp.equ.u32 %p1, %r1, %r2;",
        "mov.u32 %r1, {%h1, %h2};",
        "cvt.b32.u16 %r1, %h1;",
        "cvt.f32.tf32 %r1, %r2;",
        "cvt.rn.f32.f16x2 %r1, %r2;",
        "cvt.rn.relu.f16.f64 %h1, %d1;",
        "match.any.sync.f32 %r1, %r2, -1;",
        "atom.global.exch.b8 %h1, [%d1], %h2;",
        "atom.global.add.s64 %d1, [%d2], %d3;",
        "atom.global.min.f32 %r1, [%d1], %r2;",
        "atom.global.and.u32 %r1, [%d1], %r2;",
        "atom.global.inc.s32 %r1, [%d1], %r2;",
        "red.global.exch.b32 [%d1], %r1;",
        "nanosleep.u64 %d1;",
        "createpolicy.fractional.L2::evict_last.b32 %r1;",
        // Modifiers that it does not have, or that are missing.
        "min.xorsign.f32 %r1, %r2, %r3;",
        "add.sat.f32x2 %d1, %d2, %d3;",
        "fma.rn.sat.relu.f16 %h1, %h2, %h3, %h1;",
        "mul24.wide.u32 %r1, %r2, %r3;",
        "shf.l.b32 %r1, %r2, %r3, 4;",
        "setp.eq.ftz.s32 %p1, %r1, %r2;",
        "cvt.rn.sat.f16x2.f32 %r1, %r2, %r3;",
        "cvt.rp.bf16x2.f32 %r1, %r2, %r3;",
        "cvt.rna.relu.tf32.f32 %r1, %r2;",
        "atom.global.add.f16 %h1, [%d1], %h2;",
        "atom.global.add.noftz.f32 %r1, [%d1], %r2;",
        "atom.ca.global.add.u32 %r1, [%d1], %r2;",
        "atom.local.add.u32 %r1, [%d1], %r2;",
        "cp.async.shared.global [%r1], [%d1], 16;",
        "ld.global.wb.u32 %r1, [%d1];",
        "ld.shared.nc.u32 %r1, [%r2];",
        "ld.relaxed.global.u32 %r1, [%d1];",
        "ld.gpu.global.u32 %r1, [%d1];",
        "ld.acq_rel.gpu.global.u32 %r1, [%d1];",
        "st.acquire.gpu.global.u32 [%d1], %r1;",
        "st.const.u32 [%d1], %r1;",
        "ldu.shared.u32 %r1, [%r2];",
        "ld.global.L1::no_matter.u32 %r1, [%d1];",
        "ld.global.L2::evict_last.u32 %r1, [%d1];",
        "ld.shared.v4.u64 {%d1, %d2, %d3, %d1}, [%r1];",
        "ld.global.u32 %r1, [tile];",
        "cvta.u64 %d1, %d2;",
        "cvta.global.u64 %d1, tile;",
        "isspacep %p1, %d1;",
        "fence.acq_rel;",
        "fence.sc.gpu.cta;",
        "membar.gpu;",
        "prefetch.global.L3 [%d1];",
        "prefetch.shared.L1 [%r1];",
        "applypriority.global.L2::evict_first [%d1], 128;",
        "griddepcontrol.stop;",
        "createpolicy.fractional.L1::evict_last.b64 %d1;",
        "ret.idx;",
        "exit.uni;",
        "bar.warp.arrive -1;",
        "activemask.b64 %d1;",
        "mma.sync.m16n8k8.row.col.f32.f16.f16.f32 {%r1,%r2,%r3,%r4}, {%r1,%r2}, {%r5}, {%r1,%r2,%r3,%r4};",
        "mov.u32 %r1, %tid;",
        "mov.u32 %r1, %tid.w;",
        "mov.u32 %r1, %laneid.x;",
    ] {
        let opcode = instruction.split_whitespace().next().unwrap().trim_end_matches(';');
        match error(instruction) {
            None => wrong.push(format!("accepted: {instruction}")),
            Some(error) if error.contains("line 8") && error.contains(opcode) => {}
            Some(error) => wrong.push(format!("{instruction}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with a kernel of this body behind these functions.
fn error_of(functions: &str, body: &str) -> String {
    let text = format!(
        ".version 8.8\n.target sm_90\n.address_size 64\n{functions}\n.visible .entry k()\n{{\n{body}\nret;\n}}\n"
    );
    ptx::parse(&text, &DeviceSpec::sm(90)).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn what_calls_itself_is_refused() {
    let circle = ".func b();\n.func a() { call b; ret; }\n.func b() { call a; ret; }";
    for (functions, body, why) in [
        (".func a() { call a; ret; }", "call a;", "recursion"),
        (circle, "call a;", "recursion"),
        (circle, "call b;", "recursion"),
        (".visible .entry a() { ret; }", "call a;", "a kernel cannot be called"),
        ("", "call k;", "a kernel cannot be called"),
        ("", "call a;", "no function `a`"),
        (".func a(.param .b32 x) { ret; }", "call a;", "number of arguments"),
        (".func (.param .b32 r) a() { ret; }", "call a;", "number of arguments"),
    ] {
        let error = error_of(functions, body);
        assert!(error.contains(why) && error.contains("call"), "{functions} {body}: {error}");
    }
    // Two ways to one function are no circle.
    let diamond = ".func d() { ret; }\n.func b() { call d; ret; }\n.func c() { call d; ret; }\n.func a() { call b; call c; ret; }";
    assert_eq!(error_of(diamond, "call a; call d;"), "");
}

#[test]
fn versions_and_targets_beyond_the_device_are_refused() {
    let text =
        |version: &str, target: &str| format!(".version {version}\n.target {target}\n.address_size 64\n");
    let spec = DeviceSpec::sm(80);
    assert!(ptx::parse(&text("8.0", "sm_80"), &spec).is_ok());
    let error = ptx::parse(&text("99.0", "sm_80"), &spec).unwrap_err().to_string();
    assert!(error.contains("99.0"), "{error}");
    let error = ptx::parse(&text("8.0", "sm_90"), &spec).unwrap_err().to_string();
    assert!(error.contains("sm_90"), "{error}");
}
