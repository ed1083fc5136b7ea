//! What compiling, assembling and disassembling tell of every kernel.

use komt_benches::cubin::{self, Code, Resources};
use komt_kernels::cuda::{Compiled, CudaAct, compile_all};
use std::error::Error;
use std::time::Instant;

/// A kernel as the compiler left it.
pub struct Built {
    pub resources: Resources,
    /// What its machine code does.
    pub machine: Machine,
}

/// What a kernel's machine code is made of.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub n_instructions: usize,
    /// Loads from global memory: of 16 bytes, and all. Those that go to shared memory by themselves included.
    pub loads_16: usize,
    pub loads: usize,
    /// The loop of the tensor cores, where there is one.
    pub main_loop: Option<MainLoop>,
}

/// The innermost loop with most HMMA.
#[derive(Debug, Clone, Copy)]
pub struct MainLoop {
    pub n_instructions: usize,
    pub hmma: usize,
    /// Matrices from shared memory.
    pub ldsm: usize,
    /// Copies from global to shared memory.
    pub ldgsts: usize,
    pub barriers: usize,
}

impl MainLoop {
    pub fn hmma_share(&self) -> f64 {
        self.hmma as f64 / self.n_instructions as f64
    }
}

/// All kernels for one architecture and type.
pub struct Build {
    pub sm: u32,
    pub is_f16: bool,
    pub kernels: Vec<Built>,
    /// From sources to machine code, all threads.
    pub wall_s: f64,
    /// The files and the seconds of each.
    pub files: Vec<(&'static str, f64)>,
    pub code_bytes: usize,
}

impl Build {
    pub fn new<A: CudaAct>(sm: u32) -> Result<Self, Box<dyn Error>> {
        let start = Instant::now();
        let compiled = compile_all::<A>(sm, cubin::fetched_nvrtc().as_deref())?;
        let wall_s = start.elapsed().as_secs_f64();
        let mut kernels = vec![];
        for file in &compiled {
            kernels.extend(assemble(file, sm)?);
        }
        let files = compiled.iter().map(|file| (file.name, file.seconds)).collect();
        let code_bytes = compiled.iter().map(|file| file.cubin.len()).sum();
        Ok(Self { sm, is_f16: A::IS_F16, kernels, wall_s, files, code_bytes })
    }

    /// `sm_80, bf16`
    pub fn name(&self) -> String {
        format!("sm_{}, {}", self.sm, if self.is_f16 { "f16" } else { "bf16" })
    }
}

/// The kernels of a file, in the order in which it declares them.
fn assemble(file: &Compiled, sm: u32) -> Result<Vec<Built>, Box<dyn Error>> {
    let resources = cubin::ptxas(file.ptx.as_bytes(), sm)?;
    let codes = cubin::disassemble(&file.cubin, sm)?;
    let built = |&kernel: &&'static str| {
        let missing = |of| format!("{}: {of} does not tell of {kernel}", file.name);
        let resources = resources.iter().find(|one| one.kernel == kernel).ok_or_else(|| missing("ptxas"))?;
        let code = codes.iter().find(|one| one.kernel == kernel).ok_or_else(|| missing("nvdisasm"))?;
        Ok(Built { resources: resources.clone(), machine: Machine::of(code) })
    };
    file.kernels.iter().map(built).collect()
}

impl Machine {
    fn of(code: &Code) -> Self {
        let loads = || code.all("LDG").chain(code.all("LDGSTS"));
        let main_loop = code.main_loop("HMMA").map(|range| MainLoop {
            n_instructions: range.clone().count(),
            hmma: code.count(&range, "HMMA"),
            ldsm: code.count(&range, "LDSM"),
            ldgsts: code.count(&range, "LDGSTS"),
            barriers: code.count(&range, "BAR"),
        });
        Self {
            n_instructions: code.instructions.len(),
            loads_16: loads().filter(|load| load.width_bytes() == 16).count(),
            loads: loads().count(),
            main_loop,
        }
    }
}
