//! What each architecture has: an instruction needs a `.target` that is new enough (PTX ISA, "Target ISA Notes").

use komt_softgpu::DeviceSpec;
use komt_softgpu::ptx;

/// Why a kernel of one instruction does not load; empty if it does.
fn error(target: &str, device: u32, instruction: &str) -> String {
    let text = format!(
        ".version 8.8\n.target {target}\n.address_size 64\n.visible .entry k()\n{{\n.reg .pred %p<4>; .reg .b16 %h<4>;
.reg .b32 %r<10>; .reg .b64 %d<6>; .shared .align 16 .b8 tile[64];\n{instruction}\nret;\n}}\n"
    );
    ptx::parse(&text, &DeviceSpec::sm(device)).err().map(|error| error.to_string()).unwrap_or_default()
}

const F32X4: &str = "{%r1, %r2, %r3, %r4}";

#[test]
fn instructions_need_their_architecture() {
    let mma = |form: &str, a: &str, b: &str| format!("mma.sync.aligned.{form} {F32X4}, {a}, {b}, {F32X4};");
    let products = [
        (mma("m16n8k8.row.col.f32.f16.f16.f32", "{%r5, %r6}", "{%r7}"), 75),
        (
            "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r1, %r2}, {%r3}, {%r4}, {%r1, %r2};".to_owned(),
            75,
        ),
        (mma("m16n8k16.row.col.f32.f16.f16.f32", F32X4, "{%r5, %r6}"), 80),
        (mma("m16n8k8.row.col.f32.bf16.bf16.f32", "{%r5, %r6}", "{%r7}"), 80),
        (mma("m16n8k4.row.col.f32.tf32.tf32.f32", "{%r5, %r6}", "{%r7}"), 80),
        (mma("m16n8k16.row.col.s32.s8.s8.s32", "{%r5, %r6}", "{%r7}"), 80),
    ];
    let others = [
        ("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r2];", 75),
        ("tanh.approx.f32 %r1, %r2;", 75),
        ("ex2.approx.f16 %h1, %h2;", 75),
        ("ld.global.L2::128B.u32 %r1, [%d1];", 75),
        ("cp.async.ca.shared.global [%r1], [%d1], 4;", 80),
        ("cp.async.commit_group;", 80),
        ("redux.sync.add.u32 %r1, %r2, -1;", 80),
        ("createpolicy.fractional.L2::evict_last.b64 %d1;", 80),
        ("ld.global.L2::256B.u32 %r1, [%d1];", 80),
        ("ld.global.L2::cache_hint.u32 %r1, [%d1], %d2;", 80),
        ("prefetch.global.L2::evict_last [%d1];", 80),
        ("fma.rn.bf16 %h1, %h2, %h3, %h1;", 80),
        ("fma.rn.relu.f16 %h1, %h2, %h3, %h1;", 80),
        ("neg.bf16x2 %r1, %r2;", 80),
        ("min.f16 %h1, %h2, %h3;", 80),
        ("max.NaN.f32 %r1, %r2, %r3;", 80),
        ("cvt.rn.bf16.f32 %h1, %r1;", 80),
        ("cvt.f32.bf16 %r1, %h1;", 80),
        ("cvt.rn.f16x2.f32 %r1, %r2, %r3;", 80),
        ("cvt.rn.relu.f16.f32 %h1, %r1;", 80),
        ("cvt.rna.tf32.f32 %r1, %r2;", 80),
        ("min.xorsign.abs.f32 %r1, %r2, %r3;", 86),
        ("add.bf16 %h1, %h2, %h3;", 90),
        ("setp.lt.bf16 %p1, %h1, %h2;", 90),
        ("ex2.approx.ftz.bf16 %h1, %h2;", 90),
        ("tanh.approx.bf16 %h1, %h2;", 90),
        ("cvt.rn.bf16.s32 %h1, %r1;", 90),
        ("cvt.rn.tf32.f32 %r1, %r2;", 90),
        ("atom.global.add.noftz.bf16 %h1, [%d1], %h2;", 90),
        ("min.relu.s32 %r1, %r2, %r3;", 90),
        ("add.u16x2 %r1, %r2, %r3;", 90),
        ("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r2], {%r1};", 90),
        ("griddepcontrol.wait;", 90),
        ("fence.acquire.gpu;", 90),
        ("fence.sc.cluster;", 90),
        ("fence.proxy.async;", 90),
        ("add.f32x2 %d1, %d2, %d3;", 100),
        ("max.f32 %r1, %r2, %r3, %r4;", 100),
        ("cvt.rn.satfinite.tf32.f32 %r1, %r2;", 100),
        ("ld.global.v8.b32 {%r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8}, [%d1];", 100),
        ("st.global.v4.b64 [%d1], {%d2, %d3, %d4, %d5};", 100),
    ];
    let others = others.map(|(text, needed)| (text.to_owned(), needed));
    let mut wrong = Vec::new();
    for (text, needed) in products.iter().chain(&others) {
        // The newest that is older.
        let older = [70, 75, 80, 86, 89, 90].into_iter().rfind(|sm| sm < needed).unwrap();
        let refused = error(&format!("sm_{older}"), 120, text);
        if !refused.contains(&format!("needs .target sm_{needed}")) {
            wrong.push(format!("{text} for sm_{older}: {refused}"));
        }
        let taken = error(&format!("sm_{needed}"), 120, text);
        if !taken.is_empty() {
            wrong.push(format!("{text} for sm_{needed}: {taken}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn targets_run_on_their_devices() {
    for (target, device, runs) in [
        ("sm_75", 120, true),
        ("sm_90", 100, true),
        ("sm_100", 90, false),
        // Of one architecture alone.
        ("sm_90a", 90, true),
        ("sm_90a", 80, false),
        ("sm_90a", 100, false),
        ("sm_100a", 100, true),
        ("sm_100a", 120, false),
        // Of a family.
        ("sm_100f", 100, true),
        ("sm_100f", 120, false),
        ("sm_120f", 120, true),
        // No targets.
        ("sm_80a", 80, false),
        ("sm_90f", 90, false),
        ("sm_90aa", 90, false),
        ("sm_", 90, false),
        ("compute_90", 90, false),
    ] {
        let error = error(target, device, "");
        assert_eq!(error.is_empty(), runs, "{target} on sm_{device}: {error}");
    }
    assert!(error("sm_90a", 100, "").contains(".target sm_90a does not run on software sm_100"));
    // What only such a target has.
    assert_eq!(error("sm_90a", 90, "setmaxnreg.dec.sync.aligned.u32 40;"), "");
}
