//! A launch: its limits, its blocks in parallel, its counters.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::block::{Block, Counts, Located};
use super::code::Code;
use super::{
    AllocationUse, ClassCount, Complaint, ComplaintKind, Counters, Launch, LoadedModule, RunOptions,
};
use crate::memory::{Access, Memory, View};
use crate::ptx::Module;
use crate::spec::DeviceSpec;

/// A launch as its blocks see it.
pub(super) struct Running<'a> {
    /// Name of the kernel.
    pub kernel: &'a str,
    pub code: &'a Code,
    pub module: &'a Module,
    pub view: View,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    /// Static and dynamic.
    pub shared_bytes: u32,
    pub params: &'a [u8],
    pub checks: bool,
    pub seed: u64,
    pub max_instructions: u64,
    /// Of this launch, never 0.
    pub number: u32,
    /// Where the block begins in entries of the race shadow.
    pub block_at: u32,
}

impl Running<'_> {
    /// Text and PTX line of an instruction.
    pub fn instruction(&self, pc: u32) -> (&str, u32) {
        let one = self.at(pc);
        one.map_or(("", 0), |one| (one.text.as_str(), one.line))
    }

    fn at(&self, pc: u32) -> Option<&crate::ptx::Instruction> {
        let (function, at) = *self.code.places.get(pc as usize)?;
        self.module.kernels[function as usize].body.get(at as usize)
    }

    /// What is told of a fault.
    pub fn complaint(&self, located: Located) -> Complaint {
        let instruction = self.at(located.pc);
        let source = instruction.and_then(|one| one.source).map(|(file, line)| {
            let name = self.module.files.get(&file).cloned();
            (name.unwrap_or_else(|| format!("file {file}")), line)
        });
        Complaint {
            kind: located.fault.kind,
            kernel: self.kernel.to_owned(),
            block: located.block,
            thread: located.thread,
            instruction: instruction.map_or_else(String::new, |one| one.text.clone()),
            ptx_line: instruction.map_or(0, |one| one.line),
            source,
            detail: located.fault.detail,
        }
    }
}

static LAUNCHES: AtomicU32 = AtomicU32::new(0);

/// What the device refuses before it runs anything.
fn refuse(launch: &Launch<'_>, shared_bytes: u32, spec: &DeviceSpec) -> Option<String> {
    let threads = launch.block.iter().map(|&dim| u64::from(dim)).product::<u64>();
    let kernel = launch.kernel;
    if launch.grid.contains(&0) || launch.block.contains(&0) {
        return Some(format!("grid {:?}, block {:?}: an empty dimension", launch.grid, launch.block));
    }
    if threads > u64::from(spec.max_threads_per_block) {
        return Some(format!("{threads} threads of {} in a block", spec.max_threads_per_block));
    }
    if (0..3).any(|dim| launch.grid[dim] > spec.max_grid[dim] || launch.block[dim] > spec.max_block[dim]) {
        return Some(format!("grid {:?}, block {:?}: too large", launch.grid, launch.block));
    }
    if let Some(most) = kernel.maxntid
        && threads > most.iter().map(|&dim| u64::from(dim)).product()
    {
        return Some(format!("{threads} threads, compiled for at most {most:?}"));
    }
    if let Some(exact) = kernel.reqntid
        && launch.block != exact
    {
        return Some(format!("block {:?}, compiled for {exact:?}", launch.block));
    }
    if shared_bytes > spec.shared_bytes_per_block_optin {
        let most = spec.shared_bytes_per_block_optin;
        return Some(format!("{shared_bytes} bytes of shared memory of {most} in a block"));
    }
    if launch.params.len() < kernel.param_bytes as usize {
        return Some(format!("{} bytes of parameters of {}", launch.params.len(), kernel.param_bytes));
    }
    None
}

/// Runs all blocks of a launch. On a complaint, what has been written stays written; of several complaints, that of the lowest
/// block is told.
// A launch has one result: its size matters to nobody.
#[allow(clippy::result_large_err)]
pub fn run(
    launch: &Launch<'_>,
    module: &LoadedModule,
    memory: &Memory,
    spec: &DeviceSpec,
    options: &RunOptions,
) -> Result<Counters, Complaint> {
    let complain = |what| Complaint::of_launch(launch.kernel, ComplaintKind::Launch, what);
    let code = module
        .codes
        .get(&launch.kernel.name)
        .ok_or_else(|| complain("the kernel is not of this module".to_owned()))?;
    let shared_bytes = match launch.dynamic_shared_bytes {
        0 => code.static_shared_bytes,
        bytes => code.dynamic_shared_start.saturating_add(bytes),
    };
    if let Some(what) = refuse(launch, shared_bytes, spec) {
        return Err(complain(what));
    }
    let running = Running {
        kernel: &launch.kernel.name,
        code,
        module: &module.module,
        view: memory.view(),
        grid: launch.grid,
        block: launch.block,
        dynamic_shared: launch.dynamic_shared_bytes,
        shared_bytes,
        params: launch.params,
        checks: options.checks,
        seed: options.seed,
        max_instructions: options.max_instructions,
        number: LAUNCHES.fetch_add(1, Relaxed) % (u32::MAX / 2 - 1) + 1,
        block_at: Access::block_at(launch.grid.iter().map(|&dim| u64::from(dim)).product()),
    };
    let counts = all_blocks(&running).map_err(|located| running.complaint(located))?;
    Ok(counters(&running, &counts))
}

fn all_blocks(running: &Running<'_>) -> Result<Vec<Counts>, Located> {
    let blocks = running.grid.iter().map(|&dim| u64::from(dim)).product::<u64>();
    let next = AtomicU64::new(0);
    let lowest = AtomicU64::new(u64::MAX);
    let found: Mutex<Option<(u64, Located)>> = Mutex::new(None);
    let workers = rayon::current_num_threads().min(usize::try_from(blocks).unwrap_or(usize::MAX)).max(1);
    let counts = (0..workers)
        .into_par_iter()
        .map(|_| {
            let mut block = Block::new(running);
            loop {
                let linear = next.fetch_add(1, Relaxed);
                if linear >= blocks || linear > lowest.load(Relaxed) {
                    return block.counts;
                }
                if let Err(located) = block.run(linear) {
                    lowest.fetch_min(linear, Relaxed);
                    let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if found.as_ref().is_none_or(|(other, _)| linear < *other) {
                        *found = Some((linear, located));
                    }
                    return block.counts;
                }
            }
        })
        .collect();
    match found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some((_, located)) => Err(located),
        None => Ok(counts),
    }
}

fn counters(running: &Running<'_>, all: &[Counts]) -> Counters {
    let mut counters = Counters::default();
    let mut allocations: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for counts in all {
        for (class, &(threads, warps)) in counts.classes.iter().enumerate().filter(|(_, count)| count.1 > 0) {
            let sum: &mut ClassCount =
                counters.classes.entry(running.code.classes[class].clone()).or_default();
            sum.threads += threads;
            sum.warps += warps;
        }
        for (index, &(loaded, stored)) in
            counts.allocations.iter().enumerate().filter(|(_, used)| used.0 + used.1 > 0)
        {
            let sum = allocations.entry(index).or_default();
            sum.0 += loaded;
            sum.1 += stored;
        }
        counters.global_load_bytes_requested += counts.load_bytes;
        counters.global_store_bytes_requested += counts.store_bytes;
        counters.global_requests += counts.global_requests;
        counters.global_sectors += counts.global_sectors;
        counters.shared_requests += counts.shared_requests;
        counters.shared_wavefronts += counts.shared_wavefronts;
        counters.shared_wavefronts_ideal += counts.shared_wavefronts_ideal;
    }
    for (index, (loaded, stored)) in allocations {
        let allocation = &running.view.live[index];
        let distinct = allocation.shadow_if_used().map_or((0, 0), |shadow| shadow.distinct(running.number));
        let used = AllocationUse {
            bytes: allocation.bytes,
            loaded_requested: loaded,
            loaded_distinct: distinct.0,
            stored_requested: stored,
            stored_distinct: distinct.1,
        };
        counters.allocations.insert(allocation.addr, used);
    }
    counters
}
