//! The document.

use crate::aims::{self, Aim};
use crate::built::{Build, Built};
use crate::counted::{Counted, STEP_ROWS, Seen};
use crate::cuda_cases::Op;
use crate::occupancy::occupancy;
use std::collections::BTreeSet;
use std::fmt::Write;

/// All of it, in Markdown. `builds`: of every architecture in bf16 and in f16; `seen`: bf16.
pub fn page(builds: &[Build], seen: &[Seen], nvrtc: &str) -> String {
    let mut page = HEAD.to_string();
    let aims = aims::aims(builds, seen);
    page += &aims_section(&aims, seen);
    page += "\n### Beside the aims\n\n";
    aims::wishes(builds, seen).iter().for_each(|wish| page += &format!("* {wish}\n"));
    for seen in seen {
        let build = builds.iter().find(|build| build.name() == seen.name());
        page += &operations(seen);
        if let Some(build) = build {
            page += &kernels(build, seen);
            page += &main_loops(build);
        }
    }
    page += &steps(seen);
    page += &compilation(builds, seen, nvrtc);
    page
}

const HEAD: &str = "\
# What the CUDA kernels are made of

This page is made by

```sh
tools/fetch-cuda    # once: NVRTC, ptxas and nvdisasm, from PyPI
cargo run --release -p komt-benches --example kernel-report
```

and no figure of it is written by hand. It needs no GPU, and **none of it is a time on a GPU**: the kernels have been compiled
for real architectures, and run on the software GPU alone. What this says of speed is what bounds it: bytes, instructions,
launches.

* Registers, spills and memory are what `ptxas -v` says. Instructions of loops are read from the machine code by `nvdisasm`:
  every instruction between the target of a backward branch and the branch, whether its predicate holds or not.
* Occupancy is computed from these and the limits of the architecture. It is what fits, not what is reached.
* What operations do is counted by the software GPU (`softgpu/`) while they run there: PTX instructions, which ptxas turns into
  more or fewer of its own; bytes that threads ask for, before any cache; 32-byte sectors of each warp's request, of which 16
  is what 32 lanes of 16 bytes need; passes over the 32 banks of shared memory beyond the fewest possible. Work is split as for
  the number of multiprocessors that the software GPU claims to have.
* Every result that was counted was held against the CPU's from the same numbers, too (NMSE: normalised mean squared error; one
  rounding to bf16 is 2.8e-6). The tests of results, with all checks of the software GPU on, are in `komt-kernels/tests`.

Shapes are those of Mistral-7B: dim 4096, hidden_dim 14336, 32 query and 8 key heads of 128, vocabulary 32000, window 4096;
heads of 64 and 96 in a few small cases, to see what their kernels take.
Activations are bf16, weights and the cache too where nothing else is said; q8 and q4 are the project's own formats
(`komt-kernels/src/quant`; of the cache: `komt-kernels/src/kv.rs`), whose scales count as weights, or as keys and values. Random
weights; what they are does not matter to any count. Of the products only
one is run at 512 rows, for the time that takes: it shows that each tile of rows asks for every weight once. So does in prefill
each tile of queries for the keys and values that it sees; less comes from memory, as far as the L2 cache holds them.
";

fn aims_section(aims: &[Aim], seen: &[Seen]) -> String {
    let mut text = "\n## Aims\n\n| | aim |".to_string();
    seen.iter().for_each(|seen| text += &format!(" sm_{} |", seen.sm()));
    text += &format!(" met |\n| --- | --- |{} --- |\n", " ---: |".repeat(seen.len()));
    for aim in aims {
        let met = if aim.short.is_empty() { "yes" } else { "**no**" };
        let _ = writeln!(text, "| {} | {} | {} | {met} |", aim.what, aim.limit, aim.found.join(" | "));
    }
    text +=
        "\nOf each row the worst case is told, of spills and conflicts the sum.\n\n### What fell short\n\n";
    if aims.iter().all(|aim| aim.short.is_empty()) {
        text += "Nothing of the above.\n";
    }
    for aim in aims.iter().filter(|aim| !aim.short.is_empty()) {
        let _ = writeln!(text, "* {} (aim: {}):", aim.what, aim.limit);
        aim.short.iter().for_each(|one| text += &format!("  * {one}\n"));
    }
    text
}

fn operations(seen: &Seen) -> String {
    let mut text = format!(
        "\n## Operations on sm_{}\n\nSplit for {} multiprocessors.\n\n\
         | operation | shape | launches | weights or K, V: asked for / size | other bytes loaded | bytes stored | \
         instructions for each weight, or number of K and V | sectors a request | bank conflicts | NMSE |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        seen.sm(),
        seen.spec.sm_count
    );
    for one in &seen.counted {
        text += &operation(one);
    }
    text
}

fn operation(one: &Counted) -> String {
    let (case, total) = (&one.case, &one.total);
    let ratio = one.streamed_ratio().map_or("".into(), |ratio| format!("{ratio:.3}"));
    let instructions = one.instructions_per_number().map_or("".into(), |n| format!("{n:.2}"));
    let launches: Vec<String> = one.launches.iter().map(|launch| format!("`{}`", launch.kernel)).collect();
    format!(
        "| {} | {} | {} | {ratio} | {} | {} | {instructions} | {:.2} | {} | {:.1e} |\n",
        case.op_name(),
        case.shape(),
        launches.join(", "),
        bytes(one.other_loaded_bytes()),
        bytes(total.global_store_bytes_requested),
        one.sectors_per_request(),
        total.bank_conflicts(),
        one.nmse,
    )
}

fn kernels(build: &Build, seen: &Seen) -> String {
    let mut text = format!(
        "\n## Kernels on sm_{}\n\nThreads and dynamic shared memory are those of the launches above; kernels without any are \
         for other shapes, or of operations that not every step has. Loads: instructions in the code that load from global memory.\n\n\
         | kernel | registers | spilled | shared memory | threads | blocks a multiprocessor | warps of its most | \
         held by | instructions | of 16 bytes / loads |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |\n",
        build.sm
    );
    build.kernels.iter().for_each(|kernel| text += &kernel_row(kernel, seen));
    text
}

fn kernel_row(kernel: &Built, seen: &Seen) -> String {
    let (resources, machine) = (&kernel.resources, &kernel.machine);
    let launches = seen.counted.iter().flat_map(|one| &one.launches);
    let launches = launches.filter(|launch| launch.kernel == resources.kernel);
    let launch = launches.max_by_key(|launch| launch.dynamic_shared_bytes);
    let shared_bytes = resources.shared_bytes + launch.map_or(0, |launch| launch.dynamic_shared_bytes);
    let resident = launch.map_or(" | | | ".into(), |launch| {
        let threads = launch.block.iter().product();
        let fits = occupancy(&seen.spec, resources.registers, threads, shared_bytes);
        format!("{threads} | {} | {} % | {}", fits.blocks, fits.percent, fits.limit)
    });
    format!(
        "| `{}` | {} | {} | {shared_bytes} | {resident} | {} | {} / {} |\n",
        resources.kernel,
        resources.registers,
        resources.spill_bytes,
        machine.n_instructions,
        machine.loads_16,
        machine.loads,
    )
}

fn main_loops(build: &Build) -> String {
    let mut text = format!(
        "\n### Loops of the tensor cores on sm_{}\n\nOf each kernel the innermost loop with most HMMA.\n\n\
         | kernel | instructions | HMMA | share | LDSM | LDGSTS | BAR |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        build.sm
    );
    for kernel in &build.kernels {
        let Some(main) = kernel.machine.main_loop else { continue };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {:.1} % | {} | {} | {} |",
            kernel.resources.kernel,
            main.n_instructions,
            main.hmma,
            100.0 * main.hmma_share(),
            main.ldsm,
            main.ldgsts,
            main.barriers,
        );
    }
    text
}

fn steps(seen: &[Seen]) -> String {
    const N_LAYERS: usize = 32;
    let mut text =
        "\n## A decode step\n\nLaunches, from those of the operations above as the forward pass calls them \
        (`komt-core/src/model.rs`); recorded as one CUDA graph. 16 rows are what an \
        engine runs by default.\n\n\
        | | rows | of a layer | before and after | of 32 layers |\n\
        | --- | ---: | ---: | ---: | ---: |\n"
            .to_string();
    for seen in seen {
        for rows in STEP_ROWS {
            let (layer, outside) = aims::launches(seen, rows);
            let total = N_LAYERS * layer + outside;
            let _ = writeln!(text, "| sm_{} | {rows} | {layer} | {outside} | {total} |", seen.sm());
        }
    }
    let is_draw = |one: &&Counted| matches!(one.case.op, Op::Argmax | Op::TopCandidates(_));
    let draws = seen.iter().flat_map(|seen| &seen.counted).filter(is_draw);
    let kernels: BTreeSet<&str> =
        draws.flat_map(|one| &one.launches).map(|launch| launch.kernel.as_str()).collect();
    let kernels: Vec<String> = kernels.into_iter().map(|kernel| format!("`{kernel}`")).collect();
    let _ = writeln!(
        text,
        "\nBefore: embed. After: rms_norm, take_rows, matmul_f32. Behind the graph, where draws need the largest logits alone, \
         one more: {}.",
        kernels.join(" or ")
    );
    text
}

fn compilation(builds: &[Build], seen: &[Seen], nvrtc: &str) -> String {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut text = format!(
        "\n## Compiling\n\nThe only times of this page, and of the machine that made it: {threads} threads, {nvrtc}. All kernels \
         are compiled when a device is opened the first time, and read from the cache on disk later. Both openings are of the \
         software GPU, which reads PTX where a card would load machine code.\n\n\
         | | sources to machine code | longest file | machine code | opened, cache empty | opened, cache full |\n\
         | --- | ---: | --- | ---: | ---: | ---: |\n"
    );
    for build in builds {
        let longest = build.files.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let longest = longest.map_or(String::new(), |(name, s)| format!("`{name}`, {s:.2} s"));
        let opened = seen.iter().find(|seen| seen.name() == build.name());
        let opened =
            opened.map_or(" | ".into(), |seen| format!("{:.2} s | {:.2} s", seen.cold_s, seen.warm_s));
        let (name, wall_s, code) = (build.name(), build.wall_s, bytes(build.code_bytes as u64));
        let _ = writeln!(text, "| {name} | {wall_s:.2} s | {longest} | {code} | {opened} |");
    }
    text
}

/// With a unit, three digits.
fn bytes(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}
