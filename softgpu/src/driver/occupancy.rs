//! How many blocks fit on a multiprocessor: by threads, blocks and shared memory. Registers are not known without ptxas.

use crate::spec::DeviceSpec;

/// Shared memory is given out in pieces of this many bytes.
const SHARED_GRANULE: u32 = 128;

/// Blocks of so many threads and bytes of shared memory, static and dynamic.
pub(crate) fn blocks_per_sm(spec: &DeviceSpec, threads: u32, shared_bytes: u32) -> u32 {
    if threads == 0
        || threads > spec.max_threads_per_block
        || shared_bytes > spec.shared_bytes_per_block_optin
    {
        return 0;
    }
    let by_threads = spec.max_threads_per_sm / threads.next_multiple_of(spec.warp_size);
    let taken = (shared_bytes + spec.reserved_shared_bytes_per_block).next_multiple_of(SHARED_GRANULE);
    let by_shared = spec.shared_bytes_per_sm.checked_div(taken).unwrap_or(u32::MAX);
    by_threads.min(by_shared).min(spec.max_blocks_per_sm)
}

/// Dynamic shared memory of each block when so many are to fit.
pub(crate) fn dynamic_bytes(spec: &DeviceSpec, blocks: u32, static_bytes: u32) -> u32 {
    let each = spec.shared_bytes_per_sm.checked_div(blocks).unwrap_or(0) / SHARED_GRANULE * SHARED_GRANULE;
    each.saturating_sub(spec.reserved_shared_bytes_per_block)
        .min(spec.shared_bytes_per_block_optin)
        .saturating_sub(static_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcest_resource_decides() {
        let a100 = DeviceSpec::sm(80);
        assert_eq!(blocks_per_sm(&a100, 128, 0), 16, "threads: 2048 / 128");
        assert_eq!(blocks_per_sm(&a100, 32, 0), 32, "blocks");
        assert_eq!(blocks_per_sm(&a100, 33, 0), 32, "warps are whole");
        assert_eq!(blocks_per_sm(&a100, 128, 48 << 10), 3, "shared memory: 164 / 49");
        assert_eq!(blocks_per_sm(&a100, 128, 163 << 10), 1);
        assert_eq!(blocks_per_sm(&a100, 128, (163 << 10) + 1), 0);
        assert_eq!(blocks_per_sm(&a100, 1025, 0), 0);
        for blocks in 1..=8 {
            let bytes = dynamic_bytes(&a100, blocks, 1024);
            assert!(blocks_per_sm(&a100, 128, 1024 + bytes) >= blocks, "{blocks} x {bytes}");
        }
    }
}
