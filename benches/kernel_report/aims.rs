//! What the kernels were meant to reach, and what they reach.

use crate::built::Build;
use crate::counted::{Counted, STEP_ROWS, Seen, step_cases};
use crate::cuda_cases::Op;

/// The share of HMMA that the loop of the large matrix product should have, with weights in 16 bits.
const HMMA_SHARE: f64 = 0.55;
/// Bytes asked for over the size of what is read once.
const STREAMED_RATIO: f64 = 1.02;
/// Launches of a layer in a decode step.
const LAUNCHES: usize = 9;

/// An aim, and what was found on each architecture.
pub struct Aim {
    pub what: &'static str,
    pub limit: String,
    pub found: Vec<String>,
    /// What misses it.
    pub short: Vec<String>,
}

/// Operations of one layer: how often each case of a step occurs in it.
pub fn times_in_layer(op: Op) -> usize {
    match op {
        Op::RmsNorm => 2,
        Op::Matmul(..) | Op::MatmulAdd(..) | Op::MatmulSwiglu(..) | Op::RopeStore | Op::Decode(_) => 1,
        _ => 0,
    }
}

/// Operations before and after the layers.
pub fn times_outside(op: Op) -> usize {
    matches!(op, Op::Embed | Op::RmsNorm | Op::TakeRows | Op::MatmulF32(..)).into()
}

/// The launches of a decode step of `rows` rows: one layer's, and those outside of layers.
pub fn launches(seen: &Seen, rows: usize) -> (usize, usize) {
    launches_of(seen, rows, |_| true)
}

/// Those of some kernels.
fn launches_of(seen: &Seen, rows: usize, takes: impl Fn(&str) -> bool) -> (usize, usize) {
    let step = step_cases(rows);
    let of_step = seen.counted.iter().filter(|one| step.contains(&one.case));
    of_step.fold((0, 0), |(layer, outside), one| {
        let n = one.launches.iter().filter(|launch| takes(&launch.kernel)).count();
        (layer + n * times_in_layer(one.case.op), outside + n * times_outside(one.case.op))
    })
}

pub fn aims(builds: &[Build], seen: &[Seen]) -> Vec<Aim> {
    vec![
        spills(builds),
        hmma(builds, seen),
        streamed("weights asked for over their size, 1 to 8 rows", seen, |one| {
            one.case.matrix().is_some() && one.case.rows <= 8
        }),
        streamed("keys and values asked for over their size, decoding", seen, |one| {
            matches!(one.case.op, Op::Decode(_))
        }),
        conflicts(seen),
        steps(seen),
    ]
}

fn spills(builds: &[Build]) -> Aim {
    let all = || builds.iter().flat_map(|build| build.kernels.iter().map(move |kernel| (build, kernel)));
    let spilled = all().filter(|(_, kernel)| kernel.resources.spill_bytes > 0);
    let short = spilled
        .map(|(build, kernel)| {
            format!("`{}`, {}: {} bytes", kernel.resources.kernel, build.name(), kernel.resources.spill_bytes)
        })
        .collect();
    let found = by_sm(builds.iter().map(|build| build.sm), |sm| {
        let bytes = all().filter(|(build, _)| build.sm == sm).map(|(_, kernel)| kernel.resources.spill_bytes);
        bytes.sum::<u32>().to_string()
    });
    Aim { what: "bytes of registers spilled, all kernels, bf16 and f16", limit: "0".into(), found, short }
}

fn hmma(builds: &[Build], seen: &[Seen]) -> Aim {
    let share = |build: &Build| {
        let kernels = build.kernels.iter().filter(|one| one.resources.kernel == "matmul_gemm");
        let shares = kernels.filter_map(|one| one.machine.main_loop.map(|main| main.hmma_share()));
        shares.fold(f64::INFINITY, f64::min)
    };
    let missed = builds.iter().filter(|build| !(HMMA_SHARE..=1.0).contains(&share(build)));
    let short = missed.map(|build| format!("{}: {:.1} %", build.name(), 100.0 * share(build))).collect();
    let found = by_sm(seen.iter().map(Seen::sm), |sm| {
        let shares = builds.iter().filter(|build| build.sm == sm).map(share);
        format!("{:.1} %", 100.0 * shares.fold(f64::INFINITY, f64::min))
    });
    let limit = format!("{:.0} % or more", 100.0 * HMMA_SHARE);
    Aim { what: "HMMA among the instructions of the GEMM's main loop, 16 bits", limit, found, short }
}

fn streamed(what: &'static str, seen: &[Seen], takes: impl Fn(&Counted) -> bool) -> Aim {
    let ratio = |one: &Counted| one.streamed_ratio().unwrap_or(0.0);
    let found = seen
        .iter()
        .map(|seen| seen.counted.iter().filter(|one| takes(one)).map(ratio).fold(0.0, f64::max))
        .map(|most| format!("{most:.3}"))
        .collect();
    let missed = |one: &&Counted| takes(one) && !(1.0..=STREAMED_RATIO).contains(&ratio(one));
    let short = each(seen, missed, |one| format!("{:.3}", ratio(one)));
    Aim { what, limit: format!("{STREAMED_RATIO} or less"), found, short }
}

fn conflicts(seen: &[Seen]) -> Aim {
    let sum =
        |seen: &Seen| seen.counted.iter().map(|one| one.total.bank_conflicts()).sum::<u64>().to_string();
    let short = each(
        seen,
        |one| one.total.bank_conflicts() > 0,
        |one| {
            let (conflicts, passes) = (one.total.bank_conflicts(), one.total.shared_wavefronts);
            format!("{conflicts} of {passes} passes, {:.2} %", 100.0 * conflicts as f64 / passes as f64)
        },
    );
    let what = "shared-memory passes lost to bank conflicts, all cases";
    Aim { what, limit: "0".into(), found: seen.iter().map(sum).collect(), short }
}

fn steps(seen: &[Seen]) -> Aim {
    let mut short = vec![];
    for seen in seen {
        for (rows, n) in STEP_ROWS.map(|rows| (rows, launches(seen, rows).0)) {
            if n > LAUNCHES {
                let (reduce, _) = launches_of(seen, rows, |kernel| kernel == "matmul_reduce");
                short.push(format!("{rows} rows, {}: {n}, {reduce} of them `matmul_reduce`", seen.name()));
            }
        }
    }
    let most = |seen: &Seen| STEP_ROWS.into_iter().map(|rows| launches(seen, rows).0).max();
    let found = seen.iter().map(|seen| most(seen).unwrap_or(0).to_string()).collect();
    Aim {
        what: "launches of a layer, decoding 1, 8 or 16 rows",
        limit: format!("{LAUNCHES} or fewer"),
        found,
        short,
    }
}

/// What is below what one could wish, though no aim says so.
pub fn wishes(builds: &[Build], seen: &[Seen]) -> Vec<String> {
    let mut wishes = vec![];
    let shares = builds.iter().flat_map(|build| build.kernels.iter().map(move |one| (build, one)));
    let main = shares.filter_map(|(build, one)| Some((build, one, one.machine.main_loop?.hmma_share())));
    for name in [
        "attention_prefill_128",
        "attention_prefill_q8_128",
        "matmul_skinny_64",
        "matmul_gemm_q8",
        "matmul_gemm_q4",
    ] {
        let of = main.clone().filter(|(build, one, _)| one.resources.kernel == name && !build.is_f16);
        let of: Vec<String> =
            of.map(|(build, _, share)| format!("{:.1} % on sm_{}", 100.0 * share, build.sm)).collect();
        wishes.push(format!("HMMA is {} of the main loop of `{name}`.", of.join(", ")));
    }
    let prefill = |one: &&Counted| matches!(one.case.op, Op::Prefill(_));
    for seen in seen {
        let ratios = seen.counted.iter().filter(prefill).filter_map(Counted::streamed_ratio);
        let most = ratios.fold(0.0, f64::max);
        wishes.push(format!("Prefill asks for keys and values up to {most:.1} times on sm_{}.", seen.sm()));
    }
    let narrow = builds.first().map(|build| build.kernels.iter()).into_iter().flatten();
    let narrow = narrow.filter(|one| one.machine.loads_16 == 0 && one.machine.loads > 0);
    let narrow: Vec<String> = narrow.map(|one| format!("`{}`", one.resources.kernel)).collect();
    wishes.push(format!("No load of {} is 16 bytes wide.", narrow.join(", ")));
    wishes
}

/// `what` of every architecture, in order, each once.
fn by_sm(sms: impl Iterator<Item = u32>, what: impl Fn(u32) -> String) -> Vec<String> {
    let mut sms: Vec<u32> = sms.collect();
    sms.sort_unstable();
    sms.dedup();
    sms.into_iter().map(what).collect()
}

/// The cases that miss an aim, and by what.
fn each(seen: &[Seen], missed: impl Fn(&&Counted) -> bool, by: impl Fn(&Counted) -> String) -> Vec<String> {
    let mut short = vec![];
    for seen in seen {
        let cases = seen.counted.iter().filter(|one| missed(one));
        short.extend(cases.map(|one| {
            format!("`{}` {}, {}: {}", one.case.op_name(), one.case.shape(), seen.name(), by(one))
        }));
    }
    short
}
