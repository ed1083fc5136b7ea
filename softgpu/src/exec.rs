//! Executes kernels, one warp at a time in 32-lane vectors, and checks what hardware would let pass.
//!
//! 1. At load, `decode` turns each PTX instruction into one operation: registers numbered by file, constants and special registers in
//!    registers of their own, the arithmetic a function pointer. What it does not know is an error that names the instruction.
//! 2. A launch runs its blocks on all cores. A block runs its warps in turn, in an order that the seed chooses, each until it waits
//!    at a barrier, ends, or has had its turn.
//! 3. Lanes of a warp run together while they are at one place. Where they part, those at the lowest place go first, so that they
//!    meet again where paths join. At an instruction that needs several lanes, those that are there wait for the others; a complaint
//!    follows when these have ended, skip the instruction, or wait elsewhere.
//!
//! Checked always: bounds, freed memory, alignment, limits of the launch, missing lanes, deadlock. With [`RunOptions::checks`] also:
//! - Undefined values. A mask of lanes goes with each register, and a mark with each byte of memory. They pass through arithmetic,
//!   stores and shuffles, and are a fault where they decide something: as an address, a predicate, a size, a lane. An allocation
//!   remembers who stored the first, and whoever downloads it is told.
//! - Races: see `memory/shadow.rs`; between lanes of one warp, in shared memory: `exec/lane_races.rs`. Order comes from barriers
//!   alone; flags and fences order nothing here. In global memory, what a block does after its last tick (1023 barriers in a grid
//!   of more than 32768 blocks, more in smaller ones) counts as ordered.
//! - Asynchronous copies: before the thread has waited for its group, nobody may touch the destination or write the source; other
//!   warps need a barrier too.
//!
//! Not modelled: weak memory beyond races; order between lanes of one warp in global memory; caches and time;
//! textures, clusters, mbarriers, bulk copies, tensor memory, wgmma, cooperative launches.

mod alu;
mod atomic;
mod barrier;
mod block;
mod code;
mod collective;
mod complaint;
mod copies;
mod counters;
mod decode;
mod flow;
mod global;
mod lane_races;
mod run;
mod shared;
mod transfer;
mod vector;
mod warp;

use std::collections::{HashMap, HashSet};

use crate::memory::{Memory, MemoryError};
use crate::ptx::{Base, Kernel, Module, Operand, PtxError, Space};
use block::Block;
use run::Running;

pub use complaint::{Complaint, ComplaintKind};
pub use counters::{AllocationUse, ClassCount, Counters};
pub use run::run;

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunOptions {
    /// Chooses the order of the warps of a block, and how long each runs before the next.
    pub seed: u64,
    /// Looks for races, undefined values and the like; bounds are always checked.
    pub checks: bool,
    /// Warp instructions of one block after which it is taken to be hanging.
    pub max_instructions: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { seed: 0, checks: true, max_instructions: 200_000_000 }
    }
}

/// One launch.
pub struct Launch<'a> {
    /// A kernel of the module.
    pub kernel: &'a Kernel,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub dynamic_shared_bytes: u32,
    /// The parameters, laid out as [`Kernel::params`] says.
    pub params: &'a [u8],
}

/// A module whose variables have their places in a device's memory.
pub struct LoadedModule {
    /// What was loaded.
    pub module: Module,
    /// Global and const variables: (address, bytes).
    globals: HashMap<String, (u64, u64)>,
    /// By name of the kernel.
    codes: HashMap<String, code::Code>,
}

impl LoadedModule {
    /// Allocates and initialises the module's variables. `None`-like failures are out of memory.
    pub fn new(module: Module, memory: &Memory) -> Result<Self, LoadError> {
        Self::with(module, memory, |bytes| memory.alloc(bytes))
    }

    /// The same with an allocator of that memory. Of a module that does not load, nothing stays allocated.
    pub(crate) fn with(
        module: Module,
        memory: &Memory,
        alloc: impl FnMut(u64) -> Option<u64>,
    ) -> Result<Self, LoadError> {
        let mut globals = HashMap::new();
        match Self::place(&module, memory, alloc, &mut globals) {
            Ok(codes) => Ok(Self { module, globals, codes }),
            Err(error) => {
                for (addr, _) in globals.into_values() {
                    memory.free(addr)?;
                }
                Err(error)
            }
        }
    }

    /// Gives the variables their places, kept in `globals` also when a later one fails; decodes the kernels.
    fn place(
        module: &Module,
        memory: &Memory,
        mut alloc: impl FnMut(u64) -> Option<u64>,
        globals: &mut HashMap<String, (u64, u64)>,
    ) -> Result<HashMap<String, code::Code>, LoadError> {
        for variable in module.globals() {
            let addr = alloc(u64::from(variable.bytes.max(1))).ok_or(LoadError::OutOfMemory)?;
            globals.insert(variable.name.clone(), (addr, u64::from(variable.bytes)));
            if variable.space == Space::Const {
                memory.make_constant(addr);
            }
        }
        for variable in module.globals() {
            let mut bytes = variable.init.clone().unwrap_or_default();
            bytes.resize(variable.bytes as usize, 0);
            for (offset, name, addend) in &variable.relocations {
                let target = globals.get(name).map_or(0, |global| global.0).wrapping_add_signed(*addend);
                if let Some(slot) = bytes.get_mut(*offset as usize..*offset as usize + 8) {
                    slot.copy_from_slice(&target.to_le_bytes());
                }
            }
            memory.write(globals[&variable.name].0, &bytes)?;
        }
        let mut codes = HashMap::new();
        for kernel in module.kernels.iter().filter(|kernel| kernel.is_entry) {
            codes.insert(kernel.name.clone(), decode::decode(kernel, module, globals)?);
        }
        Ok(codes)
    }

    /// Address and size of a global or const variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.globals.get(name).copied()
    }

    /// Frees the variables.
    pub fn unload(self, memory: &Memory) -> Result<(), MemoryError> {
        self.globals.values().try_for_each(|global| memory.free(global.0))
    }
}

/// Why a module cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No memory for its variables.
    #[error("out of device memory for the module's variables")]
    OutOfMemory,
    /// Writing them failed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// An instruction is not known.
    #[error(transparent)]
    Ptx(#[from] PtxError),
}

/// Checks that every instruction is known.
pub(crate) fn check(module: &Module) -> Result<(), PtxError> {
    let mut entries = module.kernels.iter().filter(|kernel| kernel.is_entry);
    entries.try_for_each(|kernel| decode::decode(kernel, module, &HashMap::new()).map(drop))
}

/// What the generic addresses of shared memory begin with. Their low 32 bits are the address in shared memory.
const SHARED_BASE: u64 = 1 << 40;
/// The same for local memory.
const LOCAL_BASE: u64 = 2 << 40;

/// The space of a generic address.
fn space_of(addr: u64) -> Space {
    match addr >> 40 {
        1 => Space::Shared,
        2 => Space::Local,
        _ => Space::Global,
    }
}

/// Names in the operands of a kernel, or of any function of the module (which it may call).
fn shared_names<'a>(kernel: &'a Kernel, module: &'a Module) -> HashSet<&'a str> {
    let functions = module.kernels.iter().filter(|one| !one.is_entry);
    let operands = functions.chain([kernel]).flat_map(|one| &one.body).flat_map(|one| &one.operands);
    let name = |operand: &'a Operand| match operand {
        Operand::Symbol(name) | Operand::Address(Base::Symbol(name), _) => Some(name.as_str()),
        _ => None,
    };
    operands.filter_map(name).collect()
}

/// Shared memory of a kernel.
pub(crate) struct SharedLayout {
    /// Of each variable that the kernel can name.
    places: HashMap<String, u32>,
    /// Bytes of those with a size.
    pub static_bytes: u32,
    /// Where dynamic shared memory begins.
    dynamic_start: u32,
}

pub(crate) fn shared_layout(kernel: &Kernel, module: &Module) -> SharedLayout {
    let mut places = HashMap::new();
    let mut end: u32 = 0;
    let used = shared_names(kernel, module);
    let outer = module.variables.iter().filter(|one| used.contains(one.name.as_str()));
    let functions = module.kernels.iter().filter(|one| !one.is_entry);
    let inner = kernel.variables.iter().chain(functions.flat_map(|one| &one.variables));
    let all = outer.chain(inner).filter(|one| one.space == Space::Shared);
    for variable in all.clone().filter(|one| !one.is_extern) {
        end = end.next_multiple_of(variable.align.max(1));
        places.insert(variable.name.clone(), end);
        end += variable.bytes;
    }
    // A multiple of 16, or of the alignment of the array that names it.
    let dynamic = all.clone().filter(|one| one.is_extern);
    let start = end.next_multiple_of(dynamic.clone().map(|one| one.align).max().unwrap_or(1).max(16));
    for variable in dynamic {
        places.insert(variable.name.clone(), start);
    }
    SharedLayout { places, static_bytes: end, dynamic_start: start }
}

#[cfg(test)]
mod tests;
