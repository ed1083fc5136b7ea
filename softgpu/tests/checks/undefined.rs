//! What nobody wrote: who stored it on, and what it reads as.

use komt_softgpu::exec::RunOptions;
use komt_softgpu::memory::MemoryError;

use super::{INPUT_BYTES, Ran, options, run};

/// Who stored the first undefined value, as the download of some bytes tells it; which byte is refused.
fn first(ran: &Ran, addr: u64, bytes: usize) -> (u64, String) {
    match ran.memory.read(addr, &mut vec![0; bytes]) {
        Err(MemoryError::Undefined { addr, first, .. }) => (addr, first),
        other => panic!("the download gives {other:?}"),
    }
}

#[test]
fn a_download_names_who_stored_what_nobody_wrote() {
    let body = "mad.lo.u32 %r1, %t, 4, %w; setp.ne.u32 %p1, %t, 5; @%p1 st.shared.u32 [%r1], %t; ld.shared.u32 %r9, [%r1];";
    let ran = run(32, body, &options(0)).unwrap();
    let (addr, text) = first(&ran, ran.output, 128);
    assert_eq!(addr, ran.output + 20);
    let begins =
        "kernel `k`: undefined value: stored in byte 20; block (0, 0, 0), thread (5, 0, 0), `st.global.u32";
    assert!(text.starts_with(begins) && text.ends_with("hand.cu:99)"), "{text}");
    let error = ran.memory.read(ran.output, &mut [0; 128]).unwrap_err().to_string();
    assert!(error.contains(&text) && error.contains("holds an undefined value"), "{error}");
    // Others of the same allocation come down.
    ran.memory.read(ran.output + 24, &mut [0; 104]).unwrap();
    // It goes with a copy, and ends when all is written anew.
    let copy = ran.memory.alloc(128).unwrap();
    ran.memory.copy(copy, ran.output, 128).unwrap();
    assert_eq!(first(&ran, copy, 128), (copy + 20, text));
    ran.memory.set(copy, 0, 128).unwrap();
    ran.memory.read(copy, &mut [0; 128]).unwrap();
}

#[test]
fn what_is_stored_and_what_is_left_alone_are_told_apart() {
    let ran = run(32, "ld.global.u32 %r9, [%in+2048];", &options(0)).unwrap();
    assert_eq!(first(&ran, ran.output, 128).0, ran.output);
    let unwritten = ran.memory.read(ran.input + INPUT_BYTES / 2 - 4, &mut [0; 8]).unwrap_err();
    assert!(
        matches!(unwritten, MemoryError::NotWritten { addr, .. } if addr == ran.input + INPUT_BYTES / 2),
        "{unwritten}"
    );
}

#[test]
fn an_atomic_on_what_nobody_wrote_is_named() {
    let body = "setp.eq.u32 %p1, %t, 3; @%p1 red.global.add.u32 [%in+2052], %t;";
    let ran = run(32, body, &options(0)).unwrap();
    let (addr, text) = first(&ran, ran.input + 2052, 4);
    assert_eq!(addr, ran.input + 2052);
    assert!(text.contains("`red.global.add.u32") && text.contains("thread (3, 0, 0)"), "{text}");
    assert!(text.ends_with("hand.cu:7)"), "{text}");
    // An exchange needs nothing that was there.
    let body = "setp.eq.u32 %p1, %t, 3; @%p1 atom.global.exch.b32 %r1, [%in+2052], %t;";
    let ran = run(32, body, &options(0)).unwrap();
    let mut word = [0; 4];
    ran.memory.read(ran.input + 2052, &mut word).unwrap();
    assert_eq!(word, [3, 0, 0, 0]);
}

#[test]
fn without_checks_it_is_poison() {
    let unchecked = RunOptions { checks: false, ..options(0) };
    for (body, expect) in [
        ("ld.global.u32 %r9, [%in+2048];", u32::MAX),
        ("ld.global.u16 %r9, [%in+2050];", 0xffff),
        ("ld.global.u32 %r1, [%in+2048]; setp.nan.f32 %p1, %r1, %r1; selp.u32 %r9, 1, 0, %p1;", 1),
        ("atom.global.or.b32 %r9, [%in+2048], 0;", u32::MAX),
        ("ld.shared.u32 %r9, [%w];", u32::MAX),
        (
            "cp.async.ca.shared.global [%w], [%in+2048], 4; cp.async.wait_all; ld.shared.u32 %r9, [%w];",
            u32::MAX,
        ),
    ] {
        let ran = run(32, body, &unchecked).unwrap();
        assert_eq!(ran.results(), [expect; 32], "{body}");
    }
}
