//! atom and red (PTX ISA 9.7.13.5). Word 0 of the buffer starts at 1000; `%r0` is the thread in the grid.

use super::harness::run_block;

/// Word 0 after two blocks of 64 threads have run `text`.
fn after(text: &str) -> u32 {
    let body = format!("mov.u32 %r9, 0; {text}");
    run_block(2, 64, &body, &[1000]).unwrap_or_else(|e| panic!("{text}\n{e}")).1[0]
}

#[test]
fn reductions_in_memory() {
    let sum = 128 * 127 / 2;
    for (text, expect) in [
        ("red.global.add.u32 [%in], %r0;", 1000 + sum),
        ("red.relaxed.gpu.global.add.u32 [%in], %r0;", 1000 + sum),
        ("atom.global.add.u32 %r1, [%in], %r0;", 1000 + sum),
        ("atom.add.u32 %r1, [%in], %r0;", 1000 + sum),
        ("atom.global.gpu.acq_rel.add.u32 %r1, [%in], %r0;", 1000 + sum),
        ("atom.acq_rel.gpu.global.add.s32 %r1, [%in], %r0;", 1000 + sum),
        ("red.global.max.u32 [%in], %r0;", 1000),
        ("atom.global.max.s32 %r1, [%in], 2000;", 2000),
        ("red.global.min.u32 [%in], %r0;", 0),
        ("atom.global.min.s32 %r1, [%in], -5;", 0xffff_fffb),
        ("red.global.or.b32 [%in], %r0;", 1000 | 127),
        ("atom.global.and.b32 %r1, [%in], 0xff;", 1000 & 0xff),
        ("red.global.xor.b32 [%in], %r0;", 1000),
        ("red.global.inc.u32 [%in], 0xffffffff;", 1128),
        ("atom.global.dec.u32 %r1, [%in], 0xffffffff;", 872),
        (
            "cvt.rn.f32.u32 %r1, %r0; mov.b32 %r2, 0f00000000; setp.eq.u32 %p1, %r0, 0; @%p1 atom.global.exch.b32 %r3, [%in+4], %r2;",
            1000,
        ),
    ] {
        assert_eq!(after(text), expect, "{text}");
    }
    // 1000 as f32 bits, plus 128 times 0.5.
    let float = "mov.b32 %r2, 0f3F000000; red.global.add.f32 [%in+4], %r2; mov.u32 %r9, 0;";
    let (_, buffer) = run_block(2, 64, float, &[0, 1000f32.to_bits()]).unwrap();
    assert_eq!(f32::from_bits(buffer[1]), 1064.0);
    let double = "mov.b64 %d2, 0d3FE0000000000000; atom.global.add.f64 %d3, [%in+8], %d2; mov.u32 %r9, 0;";
    let (_, buffer) = run_block(2, 64, double, &[]).unwrap();
    assert_eq!(f64::from_bits(u64::from(buffer[2]) | u64::from(buffer[3]) << 32), 64.0);
    let wide = "mov.u64 %d2, 0x100000001; atom.global.add.u64 %d3, [%in+8], %d2; mov.u32 %r9, 0;";
    let (_, buffer) = run_block(2, 64, wide, &[]).unwrap();
    assert_eq!(buffer[2..4], [128, 128]);
    let pair = "mov.b32 %r2, 0x3c004000; atom.global.add.noftz.f16x2 %r3, [%in+4], %r2; mov.u32 %r9, 0;";
    let (_, buffer) = run_block(1, 64, pair, &[]).unwrap();
    assert_eq!(buffer[1], 0x5400_5800); // 64, 128
    let pair = "mov.b32 %r2, 0x3f804000; red.global.add.noftz.bf16x2 [%in+4], %r2; mov.u32 %r9, 0;";
    let (_, buffer) = run_block(1, 64, pair, &[]).unwrap();
    assert_eq!(buffer[1], 0x4280_4300);
}

#[test]
fn each_thread_sees_its_own_old_value() {
    // Tickets: the old values are a permutation of 0..128.
    let (mut tickets, _) = run_block(2, 64, "atom.global.add.u32 %r9, [%in], 1;", &[]).unwrap();
    tickets.sort_unstable();
    assert_eq!(tickets, (0..128).collect::<Vec<_>>());
    // Compare and swap: one thread alone wins.
    let swap = "add.u32 %r1, %r0, 1; atom.global.cas.b32 %r9, [%in], 0, %r1;";
    let (old, buffer) = run_block(2, 64, swap, &[]).unwrap();
    assert_eq!(old.iter().filter(|x| **x == 0).count(), 1);
    assert!((1..=128).contains(&buffer[0]));
    let wide = "cvt.u64.u32 %d1, %r0; add.u64 %d1, %d1, 1; atom.global.cas.b64 %d2, [%in], 0, %d1; cvt.u32.u64 %r9, %d2;";
    assert_eq!(run_block(1, 32, wide, &[]).unwrap().0.iter().filter(|x| **x == 0).count(), 1);
    // In shared memory.
    let shared = "mov.u32 %r1, tile; setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [%r1], 5; bar.sync 0;
        atom.shared.add.u32 %r2, [%r1], 2; bar.sync 0; ld.shared.u32 %r9, [%r1];";
    assert_eq!(run_block(1, 64, shared, &[]).unwrap().0, vec![133; 64]);
    let shared = "mov.u32 %r1, tile; setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [%r1], 5; bar.sync 0;
        red.shared.max.u32 [%r1], %r0; bar.sync 0; ld.shared.u32 %r9, [%r1];";
    assert_eq!(run_block(1, 64, shared, &[]).unwrap().0, vec![63; 64]);
}
