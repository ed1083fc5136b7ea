//! What the checks find in kernels written by hand: a kernel that is right passes, the same with one edit is caught at the line
//! that the edit made wrong. What a compiler makes of such edits is in `one_edit.rs`.
#![allow(clippy::unwrap_used)]

mod barriers;
mod copies;
mod lanes;
mod modules;
mod undefined;

use komt_softgpu::DeviceSpec;
use komt_softgpu::exec::{self, Complaint, ComplaintKind, Counters, Launch, LoadedModule, RunOptions};
use komt_softgpu::memory::Memory;
use komt_softgpu::ptx;

/// Orders of the warps that are tried.
const SEEDS: u64 = 4;

/// Bytes at `%in`. The first half of them holds the words 0, 1, 2, ...; the second nobody has written.
const INPUT_BYTES: u64 = 4096;

/// What a kernel did, and to which memory.
struct Ran {
    memory: Memory,
    input: u64,
    output: u64,
    threads: u32,
    counters: Counters,
}

impl Ran {
    /// The results of the threads.
    fn results(&self) -> Vec<u32> {
        let mut bytes = vec![0; self.threads as usize * 4];
        self.memory.read(self.output, &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

/// Runs the kernel `k` on one block: `%t` is the thread, `%w` the address of 4096 bytes of shared memory, `%in` that of
/// `INPUT_BYTES`, `%r9`, at first 0, the thread's result, which line 99 of `hand.cu` stores. All the rest is of line 7.
fn run(threads: u32, body: &str, options: &RunOptions) -> Result<Ran, Box<Complaint>> {
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.file 1 \"hand.cu\"
.visible .entry k(.param .u64 a, .param .u64 b)
{{
.reg .pred %p<10>; .reg .b16 %h<10>; .reg .b32 %r<20>; .reg .b64 %d<10>;
.reg .b32 %t, %w; .reg .b64 %in, %out;
.shared .align 128 .b8 tile[4096];
.loc 1 7 1
ld.param.u64 %in, [a]; ld.param.u64 %out, [b];
mov.u32 %t, %tid.x; mov.u32 %w, tile; mov.u32 %r9, 0;
{body}
.loc 1 99 1
mad.wide.u32 %out, %t, 4, %out; st.global.u32 [%out], %r9;
ret;
}}
"
    );
    let (memory, spec) = (Memory::new(1 << 20), DeviceSpec::sm(80));
    let module = LoadedModule::new(ptx::parse(&text, &spec).unwrap(), &memory).unwrap();
    let (input, output) = (memory.alloc(INPUT_BYTES).unwrap(), memory.alloc(u64::from(threads) * 4).unwrap());
    let words: Vec<u8> = (0..INPUT_BYTES as u32 / 8).flat_map(u32::to_le_bytes).collect();
    memory.write(input, &words).unwrap();
    let params: Vec<u8> = [input, output].into_iter().flat_map(u64::to_le_bytes).collect();
    let launch = Launch {
        kernel: module.module.kernel("k").unwrap(),
        grid: [1; 3],
        block: [threads, 1, 1],
        dynamic_shared_bytes: 0,
        params: &params,
    };
    let counters = exec::run(&launch, &module, &memory, &spec, options).map_err(Box::new)?;
    Ok(Ran { memory, input, output, threads, counters })
}

fn options(seed: u64) -> RunOptions {
    RunOptions { seed, max_instructions: 1_000_000, ..RunOptions::default() }
}

/// Under every seed: the body passes and gives what `expect` says of each thread.
#[track_caller]
fn passes(threads: u32, body: &str, expect: impl Fn(u32) -> u32) {
    for seed in 0..SEEDS {
        let ran =
            run(threads, body, &options(seed)).unwrap_or_else(|complaint| panic!("{body}\n{complaint}"));
        assert_eq!(ran.results(), (0..threads).map(&expect).collect::<Vec<_>>(), "seed {seed}\n{body}");
    }
}

/// Under every seed: the body is stopped with one of these kinds at an instruction that begins so.
#[track_caller]
fn caught(threads: u32, body: &str, kinds: &[ComplaintKind], instruction: &str) {
    for seed in 0..SEEDS {
        let Err(complaint) = run(threads, body, &options(seed)) else {
            panic!("seed {seed}: not caught\n{body}");
        };
        let is_it = kinds.contains(&complaint.kind) && complaint.instruction.starts_with(instruction);
        assert!(is_it, "seed {seed}: {complaint}\n{body}");
        assert_eq!(complaint.source, Some(("hand.cu".to_owned(), 7)), "{complaint}");
    }
}
