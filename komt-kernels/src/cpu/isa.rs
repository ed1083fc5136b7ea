//! Which instructions this CPU has, found once; and the one place where code is entered that assumes them.

use super::simd::{Portable, Simd};
use crate::{Error, Result};
use std::sync::OnceLock;

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
    /// AVX-512 F, BW, VL and VNNI: dot products of 8-bit numbers; those of bf16 too, where the CPU has them.
    Avx512Vnni,
    /// All that, and tiles of bf16 (AMX), where the system permits them.
    Amx,
}

/// The variable that caps [`Isa::detect`].
const VARIABLE: &str = "KOMT_ISA";

impl Isa {
    /// All that there are, the reference first.
    pub const ALL: [Isa; 6] = [Isa::Scalar, Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Amx];

    /// As flags and the variable `KOMT_ISA` have it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Amx => "amx",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// The best that this CPU has, and not above what the variable `KOMT_ISA` names.
    pub fn detect() -> Isa {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let cap = std::env::var(VARIABLE).ok().and_then(|name| Isa::from_name(&name));
            cap.map_or_else(Isa::of_cpu, |cap| cap.min(Isa::of_cpu()))
        })
    }

    fn of_cpu() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            use super::amx;
            use super::x86::{Avx2, Avx512, Avx512Vnni};
            if Avx512Vnni::new().is_some() {
                return if amx::is_usable() { Isa::Amx } else { Isa::Avx512Vnni };
            }
            if Avx512::new().is_some() {
                return Isa::Avx512;
            }
            if Avx2::new().is_some() {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// All that can run here, the reference first.
    pub fn available() -> Vec<Isa> {
        let best = Isa::detect();
        Isa::ALL.into_iter().filter(|&isa| isa <= best).collect()
    }

    /// `Ok` when this CPU can run it.
    pub(crate) fn check(self) -> Result<()> {
        let best = Isa::detect();
        if self > best { Err(Error::IsaUnavailable { isa: self, best }) } else { Ok(()) }
    }

    /// `Ok` when the variable is not set, or names an instruction set.
    pub(crate) fn check_cap() -> Result<()> {
        match std::env::var_os(VARIABLE) {
            Some(name) if name.to_str().and_then(Isa::from_name).is_none() => Err(Error::UnknownIsa {
                found: name.to_string_lossy().into_owned(),
                names: Isa::ALL.map(Isa::name).join(", "),
            }),
            _ => Ok(()),
        }
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
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => {
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
