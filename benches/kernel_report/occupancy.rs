//! How many blocks of a kernel one multiprocessor holds.

use komt_softgpu::DeviceSpec;

/// Blocks that are resident together, and what keeps more away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    pub blocks: u32,
    /// Warps of these blocks, in percent of what the multiprocessor holds.
    pub percent: u32,
    pub limit: &'static str,
}

/// Registers are given out to warps, 256 at a time, in four equal parts of the register file; shared memory to blocks, 128
/// bytes at a time, with what the driver keeps for itself. (CUDA C++ Programming Guide, "Hardware Multithreading".)
pub fn occupancy(spec: &DeviceSpec, registers: u32, threads: u32, shared_bytes: u32) -> Occupancy {
    const PARTS: u32 = 4;
    let warps = threads.div_ceil(spec.warp_size);
    let of_a_warp = (registers * spec.warp_size).next_multiple_of(256).max(256);
    let by_registers = spec.registers_per_sm / PARTS / of_a_warp * PARTS / warps;
    let of_a_block = (shared_bytes + spec.reserved_shared_bytes_per_block).next_multiple_of(128).max(128);
    let by_shared = spec.shared_bytes_per_sm / of_a_block;
    let by_threads = spec.max_threads_per_sm / (warps * spec.warp_size);
    let limits = [
        (by_threads, "threads"),
        (spec.max_blocks_per_sm, "blocks"),
        (by_registers, "registers"),
        (by_shared, "shared memory"),
    ];
    let (blocks, limit) = limits.into_iter().min_by_key(|limit| limit.0).unwrap_or((0, "threads"));
    Occupancy { blocks, percent: 100 * blocks * warps * spec.warp_size / spec.max_threads_per_sm, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of the toolkit's occupancy calculator.
    #[test]
    fn as_the_toolkit_says() {
        let at = |sm, registers, threads, shared| {
            let it = occupancy(&DeviceSpec::sm(sm), registers, threads, shared);
            (it.blocks, it.percent, it.limit)
        };
        assert_eq!(at(80, 32, 256, 0), (8, 100, "threads"));
        assert_eq!(at(80, 128, 128, 49152), (3, 18, "shared memory"));
        assert_eq!(at(80, 168, 256, 0), (1, 12, "registers"));
        assert_eq!(at(86, 40, 32, 0), (16, 33, "blocks"));
    }
}
