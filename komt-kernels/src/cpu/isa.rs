//! Which instructions this CPU has, found once; and the one place where code is entered that assumes them.

use super::simd::{Portable, Simd};
use crate::{Error, Result};

/// Which kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// The scalar reference: plain loops, one thread, sums in the order they are written. To be trusted, not to be fast.
    Scalar,
    /// Eight lanes in plain Rust, for any target; the compiler makes NEON or SSE of it.
    Portable,
    /// AVX2 with FMA and F16C: 8 lanes.
    Avx2,
    /// AVX-512F: 16 lanes.
    Avx512,
}

impl Isa {
    /// The best that this CPU has.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            use super::x86::{Avx2, Avx512};
            if Avx512::new().is_some() {
                return Isa::Avx512;
            }
            if Avx2::new().is_some() {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// All that this CPU can run, the reference first.
    pub fn available() -> Vec<Isa> {
        let best = Isa::detect();
        [Isa::Scalar, Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|&isa| isa <= best).collect()
    }

    /// `Ok` when this CPU can run it.
    pub(crate) fn check(self) -> Result<()> {
        let best = Isa::detect();
        if self > best { Err(Error::IsaUnavailable { isa: self, best }) } else { Ok(()) }
    }
}

/// Code written once for any vector width.
pub(crate) trait Kernel {
    /// Runs on the given instructions. Implementations are `#[inline(always)]`, so that they are compiled for them.
    fn run<S: Simd>(self, s: S);
}

/// Runs `kernel` on `isa`, which `Isa::check` has let through. `Scalar` has no vectors: its operations never come here.
pub(crate) fn dispatch(isa: Isa, kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::x86::{Avx2, Avx512};
        match isa {
            Isa::Avx512 => {
                let s = Avx512::new().expect("Isa::check found AVX-512");
                // SAFETY: the token `s` exists, so the CPU has AVX-512F.
                return unsafe { run_avx512(s, kernel) };
            }
            Isa::Avx2 => {
                let s = Avx2::new().expect("Isa::check found AVX2");
                // SAFETY: the token `s` exists, so the CPU has AVX2, FMA and F16C.
                return unsafe { run_avx2(s, kernel) };
            }
            _ => {}
        }
    }
    assert!(isa != Isa::Scalar, "dispatch: the scalar reference has no vector kernels");
    kernel.run(Portable);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn run_avx512(s: super::x86::Avx512, kernel: impl Kernel) {
    kernel.run(s);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2(s: super::x86::Avx2, kernel: impl Kernel) {
    kernel.run(s);
}
