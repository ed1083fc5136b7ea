//! Races after many barriers.

use komt_softgpu::exec::ComplaintKind::Race;

use super::{caught, passes};

/// More than the 1023 that entries of large grids can tell apart.
const BARRIERS: u32 = 1100;

fn after_barriers(rest: &str) -> String {
    format!(
        "mov.u32 %r1, 0; AGAIN: bar.sync 0; add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, {BARRIERS}; @%p1 bra AGAIN;
        xor.b32 %r2, %t, 32; {rest}"
    )
}

#[test]
fn races_are_found_after_a_thousand_barriers() {
    let shared = |barrier: &str| {
        after_barriers(&format!(
            "mad.lo.u32 %r3, %t, 4, %w; st.shared.u32 [%r3], %t; {barrier}
            mad.lo.u32 %r4, %r2, 4, %w; ld.shared.u32 %r9, [%r4];"
        ))
    };
    passes(64, &shared("bar.sync 0;"), |t| t ^ 32);
    caught(64, &shared(""), &[Race], "");
    let global = |barrier: &str| {
        after_barriers(&format!(
            "mad.wide.u32 %d1, %t, 4, %in; st.global.u32 [%d1], %t; {barrier}
            mad.wide.u32 %d2, %r2, 4, %in; ld.global.u32 %r9, [%d2];"
        ))
    };
    passes(64, &global("bar.sync 0;"), |t| t ^ 32);
    caught(64, &global(""), &[Race], "");
}
