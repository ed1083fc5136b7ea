//! Nothing inside `forward` allocates, shown with a counting allocator.
#![allow(clippy::unwrap_used)]

mod support;

use komt_core::kernels::Tap;
use komt_core::{Engine, EngineOptions, GenerateOptions, Isa, LoadOptions, Model};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::*;

struct Counting;

static IN_FORWARD: AtomicBool = AtomicBool::new(false);
static N_FORWARDS: AtomicUsize = AtomicUsize::new(0);
static N_ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IN_FORWARD.load(Ordering::Relaxed) {
            N_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Prompts in chunks, then decoding with a growing context, batched: from `embed`, the first operation of a forward pass,
/// to `download`, what follows the last.
#[test]
fn forward_does_not_allocate() {
    let tap = Tap::new(cpu(Isa::detect()), |event| {
        match event.op {
            "embed" => {
                IN_FORWARD.store(true, Ordering::Relaxed);
                N_FORWARDS.fetch_add(1, Ordering::Relaxed);
            }
            "download" => IN_FORWARD.store(false, Ordering::Relaxed),
            _ => {}
        }
        Ok(())
    });
    let model = Model::load_on(tap, demo(), LoadOptions::default()).unwrap();
    let options = EngineOptions::default().max_context(400).max_step_tokens(64);
    let mut engine = Engine::new(&model, options).unwrap();
    let mut run = || {
        for seed in 0..3u32 {
            let prompt: Vec<u32> = (0..150).map(|i| 3 + (seed * 31 + i * 7) % 3000).collect();
            let generate = GenerateOptions::default().ignore_eos(true).max_new_tokens(80);
            engine.submit(&prompt, generate).unwrap();
        }
        while !engine.is_idle() {
            engine.step().unwrap();
        }
    };
    run(); // warm-up: the first of all
    N_ALLOCATIONS.store(0, Ordering::Relaxed);
    N_FORWARDS.store(0, Ordering::Relaxed);
    run();
    let n_forwards = N_FORWARDS.load(Ordering::Relaxed);
    assert!(n_forwards > 80, "{n_forwards} forward passes");
    assert_eq!(N_ALLOCATIONS.load(Ordering::Relaxed), 0, "allocations in {n_forwards} forward passes");
}
