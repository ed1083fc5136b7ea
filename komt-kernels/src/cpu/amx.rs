//! Whether AMX, tiles of bf16, may be used: the CPU has it, the system saves its registers, and has given this process leave.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Whether this process may use tiles of bf16. The first call asks the system for leave.
pub(crate) fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| is_there() && is_permitted())
}

/// Leaf 7 of CPUID: bit 22 of EDX is AMX-BF16, bit 24 AMX-TILE. XCR0: bits 17 and 18 are the tiles' configuration and data.
fn is_there() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const SAVED: u64 = 3 << 17;
    let has_leaf_7 = __cpuid_count(0, 0).eax >= 7;
    // XGETBV is there when the system uses XSAVE: AVX is not found otherwise.
    if !has_leaf_7 || !is_x86_feature_detected!("avx") || !is_x86_feature_detected!("xsave") {
        return false;
    }
    let edx = __cpuid_count(7, 0).edx;
    // SAFETY: the CPU has XSAVE, and the system has turned it on.
    let saved = unsafe { _xgetbv(0) };
    edx & BF16 != 0 && edx & TILE != 0 && saved & SAVED == SAVED
}

/// Linux gives each process the room for the tiles' registers when it asks: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`,
/// valid for all threads from then on (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const REQUEST: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call that touches no memory of ours; it overwrites rax, rcx and r11 only.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL as i64 => result,
            in("rdi") REQUEST,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems are not known to us.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}
