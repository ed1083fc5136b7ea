//! [`CpuOptions`].

use super::Isa;

/// How a [`Cpu`](super::Cpu) is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CpuOptions {
    /// Threads; `None`: one for each core that this process may use.
    pub threads: Option<usize>,
    /// Kernels; `None`: the best that the CPU has.
    pub isa: Option<Isa>,
    /// How exactly a matmul takes its input.
    pub precision: Precision,
}

impl CpuOptions {
    /// With this number of threads.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// With these kernels.
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// With this precision.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }
}

/// How exactly a matmul takes its input. The results never depend on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Precision {
    /// As it is, in f32: a row's results do not depend on what else is in the step, bit for bit.
    Exact,
    /// It may be rounded to 8 bits in groups of 32 columns, or to bf16, whatever is fast on this CPU with these weights and
    /// this number of rows; results may depend on the latter within the rounding. Weights in f32, and CPUs without such
    /// instructions, stay exact.
    #[default]
    Fast,
}
