//! Races between lanes of one warp in shared memory.

use komt_softgpu::exec::ComplaintKind::Race;

use super::{caught, passes};

/// Each lane stores its number at `%r1`, then does `rest`; of `bytes` each, `%r2` is the neighbour's place.
fn exchange(bytes: u32, rest: &str) -> String {
    format!(
        "mad.lo.u32 %r1, %t, {bytes}, %w; xor.b32 %r2, %r1, {bytes}; cvt.u16.u32 %h1, %t;
        st.shared.u{} [%r1], %h1; {rest}",
        8 * bytes
    )
}

#[test]
fn bytes_and_halves_of_words_are_noted() {
    for bytes in [1, 2] {
        let load = format!("ld.shared.u{} %r9, [%r2];", 8 * bytes);
        passes(32, &exchange(bytes, &format!("bar.warp.sync -1; {load}")), |t| t ^ 1);
        caught(32, &exchange(bytes, &load), &[Race], "ld.shared");
        // One's own is nobody else's, though it is of the same word.
        passes(32, &exchange(bytes, &format!("ld.shared.u{} %r9, [%r1];", 8 * bytes)), |t| t);
        // The other way round: read, then written by the neighbour.
        let swap = |barrier: &str| {
            exchange(
                bytes,
                &format!("bar.warp.sync -1; {load} {barrier} st.shared.u{} [%r1], %h1;", 8 * bytes),
            )
        };
        passes(32, &swap("bar.warp.sync -1;"), |t| t ^ 1);
        caught(32, &swap(""), &[Race], "st.shared");
        // Two stores to one place.
        let twice = |barrier: &str| {
            exchange(
                bytes,
                &format!("{barrier} setp.eq.u32 %p1, %t, 5; @%p1 st.shared.u{} [%r2], %h1;", 8 * bytes),
            )
        };
        passes(32, &twice("bar.warp.sync -1;"), |_| 0);
        caught(32, &twice(""), &[Race], "st.shared");
    }
}

#[test]
fn words_and_their_parts_are_the_same_memory() {
    // A part is stored, the word is read.
    let read = |barrier: &str| {
        exchange(
            2,
            &format!("{barrier} and.b32 %r3, %t, 30; mad.lo.u32 %r3, %r3, 2, %w; ld.shared.u32 %r9, [%r3];"),
        )
    };
    passes(32, &read("bar.warp.sync -1;"), |t| (t | 1) << 16 | t & 30);
    caught(32, &read(""), &[Race], "ld.shared.u32");
    // A word is stored, a part of it is read.
    let read = |barrier: &str| {
        format!(
            "mad.lo.u32 %r1, %t, 4, %w; xor.b32 %r2, %r1, 4; st.shared.u32 [%r1], %t; {barrier} ld.shared.u8 %r9, [%r2];"
        )
    };
    passes(32, &read("bar.warp.sync -1;"), |t| t ^ 1);
    caught(32, &read(""), &[Race], "ld.shared.u8");
}

/// Each lane stores its number at `%r1`, and after the barriers loads the word `distance` bytes away.
fn fetch(barriers: &str, distance: u32) -> String {
    format!(
        "mad.lo.u32 %r1, %t, 4, %w; st.shared.u32 [%r1], %t; setp.lt.u32 %p1, %t, 16;
        {barriers} xor.b32 %r2, %r1, {distance}; ld.shared.u32 %r9, [%r2];"
    )
}

#[test]
fn a_barrier_of_some_lanes_orders_those() {
    let halves = "@%p1 bra LOW; bar.warp.sync 0xffff0000; bra MEET; LOW: bar.warp.sync 0x0000ffff; MEET:";
    let at_once = "selp.b32 %r3, 0x0000ffff, 0xffff0000, %p1; bar.warp.sync %r3;";
    for barriers in [halves, at_once] {
        passes(32, &fetch(barriers, 4), |t| t ^ 1);
        caught(32, &fetch(barriers, 64), &[Race], "ld.shared");
        // Another epoch does not hide what nobody has ordered.
        caught(
            32,
            &fetch(&format!("{barriers} {}", barriers.replace(['L', 'M'], "X")), 64),
            &[Race],
            "ld.shared",
        );
        passes(32, &fetch(&format!("{barriers} bar.warp.sync -1;"), 64), |t| t ^ 16);
        // Stores wait for the loads of others, too.
        let back =
            |after: &str| format!("{} {after} st.shared.u32 [%r1], %r9;", fetch("bar.warp.sync -1;", 64));
        passes(32, &back("bar.warp.sync -1;"), |t| t ^ 16);
        caught(32, &back(&barriers.replace(['L', 'M'], "Y")), &[Race], "st.shared");
    }
}

#[test]
fn barriers_of_some_lanes_follow_from_each_other() {
    // Lane 20 reads what lane 0 stored; lanes 8 to 15 are at both barriers.
    let chain = |first: &str, second: &str| {
        format!(
            "mad.lo.u32 %r1, %t, 4, %w; add.u32 %r2, %t, 1; st.shared.u32 [%r1], %r2;
            setp.lt.u32 %p1, %t, 16; sub.u32 %r3, %t, 8; setp.lt.u32 %p2, %r3, 16; setp.eq.u32 %p3, %t, 20;
            {first} {second} @%p3 ld.shared.u32 %r9, [%w];"
        )
    };
    let (low, middle) = ("@%p1 bar.warp.sync 0x0000ffff;", "@%p2 bar.warp.sync 0x00ffff00;");
    passes(32, &chain(low, middle), |t| u32::from(t == 20));
    caught(32, &chain(middle, low), &[Race], "ld.shared");
    caught(32, &chain(low, ""), &[Race], "ld.shared");
    caught(32, &chain("", middle), &[Race], "ld.shared");
}
