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

#[test]
fn reductions_of_64_bits() {
    // Words 2 and 3 before and after; `%d1` is the thread.
    for (text, before, expect) in [
        ("atom.global.max.u64 %d3, [%in+8], %d1;", 5, 127),
        ("red.global.min.u64 [%in+8], %d1;", u64::MAX, 0),
        ("atom.global.min.s64 %d3, [%in+8], -7;", 5, 7u64.wrapping_neg()),
        ("red.global.max.s64 [%in+8], %d1;", 9u64.wrapping_neg(), 127),
        ("atom.global.and.b64 %d3, [%in+8], 0xff000000ff;", 0x12_3456_789a, 0x12_0000_009a),
        ("red.global.or.b64 [%in+8], %d1;", 1 << 40, 1 << 40 | 127),
        ("red.global.xor.b64 [%in+8], %d1;", 1 << 40, 1 << 40),
        ("red.global.add.u64 [%in+8], 0x100000000;", 3, 128 << 32 | 3),
        ("mov.b64 %d2, 0d3FE0000000000000; red.global.add.f64 [%in+8], %d2;", 0, 64f64.to_bits()),
    ] {
        let body = format!("mov.u32 %r9, 0; cvt.u64.u32 %d1, %r0; {text}");
        let input = [0, 0, before as u32, (before >> 32) as u32];
        let (_, buffer) = run_block(2, 64, &body, &input).unwrap_or_else(|e| panic!("{text}\n{e}"));
        assert_eq!(u64::from(buffer[3]) << 32 | u64::from(buffer[2]), expect, "{text}");
    }
    let swap = "mov.u32 %r9, 0; mov.u64 %d3, 0; mov.u64 %d1, 0x1122334455667788; setp.eq.u32 %p1, %r0, 0;
        @%p1 atom.global.exch.b64 %d3, [%in+8], %d1; shr.u64 %d3, %d3, 32; cvt.u32.u64 %r9, %d3;";
    let (old, buffer) = run_block(1, 32, swap, &[0, 0, 8, 9]).unwrap();
    assert_eq!((old[0], buffer[2], buffer[3]), (9, 0x5566_7788, 0x1122_3344));
}

#[test]
fn atomics_of_16_bits() {
    // 64 times 0.5 in the upper half of word 0, 1000 below: 32 is 0x5000 in f16, 0x4200 in bf16.
    let sum = "mov.b16 %h1, 0x3800; atom.global.add.noftz.f16 %h2, [%in+2], %h1;";
    assert_eq!(run_block(1, 64, &format!("mov.u32 %r9, 0; {sum}"), &[1000]).unwrap().1[0], 0x5000_03e8);
    let sum = "mov.b16 %h1, 0x3f00; red.global.add.noftz.bf16 [%in+2], %h1;";
    assert_eq!(run_block(1, 64, &format!("mov.u32 %r9, 0; {sum}"), &[1000]).unwrap().1[0], 0x4200_03e8);
    // One thread alone wins.
    let swap = "cvt.u16.u32 %h2, %r0; add.u16 %h2, %h2, 1; atom.global.cas.b16 %h3, [%in+2], 0, %h2; cvt.u32.u16 %r9, %h3;";
    let (old, buffer) = run_block(1, 32, swap, &[1000]).unwrap();
    assert_eq!(old.iter().filter(|x| **x == 0).count(), 1);
    assert!((1..=32).contains(&(buffer[0] >> 16)) && buffer[0] & 0xffff == 1000, "{:#x}", buffer[0]);
    // A number that was extended with its sign.
    let negative = "mov.u32 %r9, 0; mov.u32 %r1, 0x80; cvt.s16.s8 %h1, %r1; setp.eq.u32 %p1, %r0, 0;
        @%p1 atom.global.cas.b16 %h3, [%in], %h1, 7;";
    assert_eq!(run_block(1, 32, negative, &[0xff80]).unwrap().1[0], 7);
}

/// Word 0 of shared memory, as all of 64 threads see it behind a barrier: it starts as `before`.
fn shared_after(before: u32, text: &str) -> u32 {
    let body = format!(
        "mov.u32 %r1, tile; setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [%r1], {before}; bar.sync 0; {text}
        bar.sync 0; ld.shared.u32 %r9, [%r1];"
    );
    let (words, _) = run_block(1, 64, &body, &[]).unwrap_or_else(|e| panic!("{text}\n{e}"));
    assert!(words.iter().all(|word| *word == words[0]), "{text}: {words:?}");
    words[0]
}

#[test]
fn atomics_in_shared_memory() {
    for (before, text, expect) in [
        (5, "atom.shared.and.b32 %r2, [%r1], 12;", 4),
        (64, "red.shared.or.b32 [%r1], %r0;", 127),
        (5, "atom.shared.xor.b32 %r2, [%r1], %r0;", 5),
        (5, "red.shared.min.s32 [%r1], -3;", 0xffff_fffd),
        (5, "atom.shared::cta.min.u32 %r2, [%r1], %r0;", 0),
        (5, "red.relaxed.cta.shared.max.s32 [%r1], %r0;", 63),
        // 64 steps on a circle of ten.
        (5, "atom.shared.inc.u32 %r2, [%r1], 9;", 9),
        (5, "red.shared.dec.u32 [%r1], 9;", 1),
        (1f32.to_bits(), "mov.b32 %r2, 0f3F000000; red.shared.add.f32 [%r1], %r2;", 33f32.to_bits()),
        (0x3c00, "mov.b32 %r2, 0x38003800; atom.shared.add.noftz.f16x2 %r3, [%r1], %r2;", 0x5000_5020),
        (5, "cvt.u64.u32 %d1, %r1; cvta.shared.u64 %d1, %d1; atom.add.u32 %r2, [%d1], 2;", 133),
    ] {
        assert_eq!(shared_after(before, text), expect, "{text}");
    }
    let swap = "add.u32 %r2, %r0, 100; atom.shared.cas.b32 %r3, [%r1], 5, %r2;";
    assert!((100..164).contains(&shared_after(5, swap)));
    assert!((0..64).contains(&shared_after(99, "atom.shared.exch.b32 %r2, [%r1], %r0;")));
    let wide = "cvt.u64.u32 %d1, %r0; add.u64 %d1, %d1, 100; atom.shared.exch.b64 %d2, [%r1+8], %d1;
        bar.sync 0; setp.eq.u32 %p2, %r0, 63; ld.shared.u64 %d3, [%r1+8]; cvt.u32.u64 %r4, %d3; @%p2 st.shared.u32 [%r1], %r4;";
    assert!((100..164).contains(&shared_after(5, wide)));
}

#[test]
fn a_cache_policy_may_follow() {
    let policy = "mov.u32 %r9, 0; createpolicy.fractional.L2::evict_last.b64 %d5, 0.5;";
    for text in [
        "red.global.add.L2::cache_hint.u32 [%in], %r0, %d5;",
        "atom.relaxed.gpu.global.add.L2::cache_hint.u32 %r1, [%in], %r0, %d5;",
    ] {
        assert_eq!(after(&format!("{policy} {text}")), 1000 + 128 * 127 / 2, "{text}");
    }
}
