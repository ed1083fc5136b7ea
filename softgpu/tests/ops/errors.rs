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
