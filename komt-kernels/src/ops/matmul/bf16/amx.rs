//! Tiles of AMX, in assembly: Rust has no intrinsics for them yet.

use super::{Left, Next, SUMS, TILE_BYTES};
use std::arch::asm;

/// All eight tiles as 16 rows of 64 bytes, for this thread, as long as it lives. Then the tiles are as they were found: llama.cpp
/// configures a thread once, and counts on nobody else doing so.
pub(super) struct Tiles {
    found: Config,
}

/// What `ldtilecfg` reads (Intel SDM, volume 1, table 18-1).
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}
const _: () = assert!(size_of::<Config>() == 64);

const RELEASED: Config =
    Config { palette: 0, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };

impl Config {
    /// # Safety
    /// The process may use tiles, and the configuration is a valid one.
    unsafe fn load(&self) {
        // SAFETY: as the caller vouches.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(readonly, nostack, preserves_flags)) };
    }
}

impl Tiles {
    /// Called where `Unit` proves that the process may use tiles.
    pub(super) fn configure() -> Self {
        let mut tiles = Self { found: RELEASED };
        // SAFETY: the CPU has AMX, and `found` has room.
        unsafe { asm!("sttilecfg [{}]", in(reg) &mut tiles.found, options(nostack, preserves_flags)) };
        let mut config = Config { palette: 1, ..RELEASED };
        config.row_bytes[..8].fill(64);
        config.rows[..8].fill(16);
        // SAFETY: the CPU has AMX, and the configuration is a valid one.
        unsafe { config.load() };
        tiles
    }
}

impl Drop for Tiles {
    /// Without live tiles the system has less to save: loading a palette of 0 releases them.
    fn drop(&mut self) {
        // SAFETY: the CPU has AMX, and what was found is valid.
        unsafe { self.found.load() };
    }
}

/// Four tiles of sums plus the products of `n` steps of two left and two right tiles: `c` is `[2][2][16][16]`, left before
/// right. A product of tiles adds, for each pair of columns in order, both products, each rounded once.
///
/// # Safety
/// The CPU has AMX and [`Tiles`] are configured; `left` and `right` have `n > 0` steps, `c` has `SUMS` numbers.
pub(super) unsafe fn multiply(left: Left, right: *const u8, c: *mut f32, n: usize, first: bool, next: Next) {
    const { assert!(SUMS * 4 == 4 * TILE_BYTES) };
    // SAFETY: reads and writes what the caller vouches for; a row of a right tile and of sums has 64 bytes.
    unsafe {
        asm!(
            "test {first:e}, {first:e}",
            "jz 2f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 3f",
            "2:",
            "tileloadd tmm0, [{c} + {line}]",
            "tileloadd tmm1, [{c} + {line} + 1024]",
            "tileloadd tmm2, [{c} + {line} + 2048]",
            "tileloadd tmm3, [{c} + {line} + 3072]",
            "3:",
            "tileloadd tmm4, [{a} + {stride}]",
            "tileloadd tmm6, [{b} + {line}]",
            "prefetcht1 [{w}]",
            "prefetcht1 [{w} + {w_stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {line} + 1024]",
            "prefetcht1 [{x}]",
            "prefetcht1 [{x} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a2} + {stride}]",
            "prefetcht1 [{x} + 128]",
            "prefetcht1 [{x} + 192]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, {step}",
            "add {a2}, {step}",
            "add {b}, 2048",
            "add {w}, 64",
            "add {x}, 256",
            "dec {n}",
            "jnz 3b",
            "tilestored [{c} + {line}], tmm0",
            "tilestored [{c} + {line} + 1024], tmm1",
            "tilestored [{c} + {line} + 2048], tmm2",
            "tilestored [{c} + {line} + 3072], tmm3",
            first = in(reg) u32::from(first),
            a = inout(reg) left.first => _,
            a2 = inout(reg) left.second => _,
            stride = in(reg) left.stride,
            step = in(reg) left.step,
            b = inout(reg) right => _,
            c = in(reg) c,
            w = inout(reg) next.w => _,
            w_stride = in(reg) next.stride,
            x = inout(reg) next.x => _,
            line = in(reg) 64usize,
            n = inout(reg) n => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
