//! What a launch did, counted: facts about the program, not times.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Instructions of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// Of threads: an instruction counts once for each thread that executes it.
    pub threads: u64,
    /// Of warps.
    pub warps: u64,
}

/// Traffic of one allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationUse {
    /// Size of the allocation.
    pub bytes: u64,
    /// Bytes that threads asked for.
    pub loaded_requested: u64,
    /// Different bytes among them. Counted only with checks.
    pub loaded_distinct: u64,
    /// Bytes that threads stored.
    pub stored_requested: u64,
    /// Different bytes among them. Counted only with checks.
    pub stored_distinct: u64,
}

/// Counters of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// By class: `fma`, `int`, `mma`, `ldmatrix`, `ld.global.16` (bytes of a thread), `st.shared.4`, `cp.async`, `bar`, ...
    pub classes: BTreeMap<String, ClassCount>,
    /// By address of the allocation.
    pub allocations: BTreeMap<u64, AllocationUse>,
    /// Bytes that threads loaded from global memory, cp.async included.
    pub global_load_bytes_requested: u64,
    /// Bytes that threads stored to global memory.
    pub global_store_bytes_requested: u64,
    /// Warp instructions that accessed global memory.
    pub global_requests: u64,
    /// 32-byte sectors that they touched.
    pub global_sectors: u64,
    /// Warp instructions that accessed shared memory.
    pub shared_requests: u64,
    /// Passes over the 32 banks that they took.
    pub shared_wavefronts: u64,
    /// Passes that they would take without bank conflicts.
    pub shared_wavefronts_ideal: u64,
}

impl Counters {
    /// Instructions of all threads.
    pub fn thread_instructions(&self) -> u64 {
        self.classes.values().map(|class| class.threads).sum()
    }

    /// Instructions of all warps.
    pub fn warp_instructions(&self) -> u64 {
        self.classes.values().map(|class| class.warps).sum()
    }

    /// Passes that bank conflicts cost.
    pub fn bank_conflicts(&self) -> u64 {
        self.shared_wavefronts - self.shared_wavefronts_ideal
    }

    /// Adds the counters of another launch or block.
    pub fn add(&mut self, other: &Self) {
        for (class, count) in &other.classes {
            let sum = self.classes.entry(class.clone()).or_default();
            sum.threads += count.threads;
            sum.warps += count.warps;
        }
        for (&addr, used) in &other.allocations {
            let sum = self.allocations.entry(addr).or_default();
            sum.bytes = used.bytes;
            sum.loaded_requested += used.loaded_requested;
            sum.loaded_distinct += used.loaded_distinct;
            sum.stored_requested += used.stored_requested;
            sum.stored_distinct += used.stored_distinct;
        }
        self.global_load_bytes_requested += other.global_load_bytes_requested;
        self.global_store_bytes_requested += other.global_store_bytes_requested;
        self.global_requests += other.global_requests;
        self.global_sectors += other.global_sectors;
        self.shared_requests += other.shared_requests;
        self.shared_wavefronts += other.shared_wavefronts;
        self.shared_wavefronts_ideal += other.shared_wavefronts_ideal;
    }
}
