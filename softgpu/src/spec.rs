//! What the device claims to be.

use serde::{Deserialize, Serialize};

/// A device that the software GPU can be. The figures of [`DeviceSpec::sm`] are those of one card of each architecture, except
/// the memory, which is small enough for a test machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Contains "software", so that nobody takes it for a card.
    pub name: String,
    /// Compute capability, (major, minor).
    pub arch: (u32, u32),
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// Device memory. Only what is allocated takes memory of the host.
    pub memory_bytes: u64,
    /// As `cuDriverGetVersion` tells it: 12090 is 12.9.
    pub driver_version: i32,
    /// The newest PTX ISA that the driver compiles, (major, minor).
    pub ptx_version: (u32, u32),
    /// Shared memory of one block without opting in; also the limit of static shared memory.
    pub shared_bytes_per_block: u32,
    /// Shared memory of one block, opted in, static and dynamic together.
    pub shared_bytes_per_block_optin: u32,
    /// Shared memory of one multiprocessor.
    pub shared_bytes_per_sm: u32,
    /// Of that, what the driver keeps for itself for each block.
    pub reserved_shared_bytes_per_block: u32,
    /// Threads of one block.
    pub max_threads_per_block: u32,
    /// Threads of a block in x, y and z.
    pub max_block: [u32; 3],
    /// Blocks of a grid in x, y and z.
    pub max_grid: [u32; 3],
    /// Threads resident on one multiprocessor.
    pub max_threads_per_sm: u32,
    /// Blocks resident on one multiprocessor.
    pub max_blocks_per_sm: u32,
    /// Threads of a warp. The interpreter knows 32.
    pub warp_size: u32,
    /// 32-bit registers of one multiprocessor, and of one block.
    pub registers_per_sm: u32,
    /// 32-bit registers of one thread.
    pub max_registers_per_thread: u32,
    /// Constant memory.
    pub constant_bytes: u32,
    /// Bytes of parameters of one kernel: 4096 before sm_70 or PTX 8.1.
    pub max_param_bytes: u32,
    /// Level 2 cache.
    pub l2_bytes: u32,
    /// Clock of the multiprocessors.
    pub clock_khz: u32,
    /// Clock of the memory; the data rate is twice that.
    pub memory_clock_khz: u32,
    /// Width of the memory's bus.
    pub memory_bus_bits: u32,
    /// Whether the stream-ordered allocator (`cuMemAllocAsync`) is there.
    pub memory_pools: bool,
}

/// The driver of CUDA 12.9.
const DRIVER_VERSION: i32 = 12090;
/// The newest PTX that it knows.
const PTX_VERSION: (u32, u32) = (8, 8);
/// Enough for our tests, and no more than a test machine has.
const MEMORY_BYTES: u64 = 8 << 30;

/// What differs between the architectures, in the units of [`DeviceSpec`]; shared memory in KiB, clocks in MHz.
struct Arch {
    arch: (u32, u32),
    sm_count: u32,
    shared_optin_kib: u32,
    max_threads_per_sm: u32,
    max_blocks_per_sm: u32,
    l2_mib: u32,
    clock_mhz: u32,
    memory_clock_mhz: u32,
    memory_bus_bits: u32,
}

/// One card of each: T4, A100, RTX 3090, RTX 4090, H100, B200, RTX 5090. Limits: CUDA C++ Programming Guide, table "Technical
/// Specifications per Compute Capability".
#[rustfmt::skip]
const ARCHS: [Arch; 7] = [
    Arch { arch: (7, 5), sm_count: 40, shared_optin_kib: 64, max_threads_per_sm: 1024, max_blocks_per_sm: 16, l2_mib: 4,
        clock_mhz: 1590, memory_clock_mhz: 5001, memory_bus_bits: 256 },
    Arch { arch: (8, 0), sm_count: 108, shared_optin_kib: 163, max_threads_per_sm: 2048, max_blocks_per_sm: 32, l2_mib: 40,
        clock_mhz: 1410, memory_clock_mhz: 1593, memory_bus_bits: 5120 },
    Arch { arch: (8, 6), sm_count: 82, shared_optin_kib: 99, max_threads_per_sm: 1536, max_blocks_per_sm: 16, l2_mib: 6,
        clock_mhz: 1695, memory_clock_mhz: 9751, memory_bus_bits: 384 },
    Arch { arch: (8, 9), sm_count: 128, shared_optin_kib: 99, max_threads_per_sm: 1536, max_blocks_per_sm: 24, l2_mib: 72,
        clock_mhz: 2520, memory_clock_mhz: 10501, memory_bus_bits: 384 },
    Arch { arch: (9, 0), sm_count: 132, shared_optin_kib: 227, max_threads_per_sm: 2048, max_blocks_per_sm: 32, l2_mib: 50,
        clock_mhz: 1980, memory_clock_mhz: 2619, memory_bus_bits: 5120 },
    Arch { arch: (10, 0), sm_count: 148, shared_optin_kib: 227, max_threads_per_sm: 2048, max_blocks_per_sm: 32, l2_mib: 126,
        clock_mhz: 1965, memory_clock_mhz: 3996, memory_bus_bits: 8192 },
    Arch { arch: (12, 0), sm_count: 170, shared_optin_kib: 99, max_threads_per_sm: 1536, max_blocks_per_sm: 24, l2_mib: 96,
        clock_mhz: 2407, memory_clock_mhz: 14001, memory_bus_bits: 512 },
];

impl DeviceSpec {
    /// A device of compute capability `sm` (75 is 7.5).
    ///
    /// # Panics
    /// `sm` is none of 75, 80, 86, 89, 90, 100, 120.
    pub fn sm(sm: u32) -> Self {
        let arch = ARCHS.iter().find(|arch| arch.arch == (sm / 10, sm % 10));
        let arch = arch.unwrap_or_else(|| panic!("sm_{sm}: not one of sm_75, 80, 86, 89, 90, 100, 120"));
        // sm_75 has all of its 64 KiB for blocks; from sm_80 on the driver keeps 1 KiB of each block's.
        let reserved_kib = if arch.arch < (8, 0) { 0 } else { 1 };
        Self {
            name: format!("software sm_{sm}"),
            arch: arch.arch,
            sm_count: arch.sm_count,
            memory_bytes: MEMORY_BYTES,
            driver_version: DRIVER_VERSION,
            ptx_version: PTX_VERSION,
            shared_bytes_per_block: 48 << 10,
            shared_bytes_per_block_optin: arch.shared_optin_kib << 10,
            shared_bytes_per_sm: (arch.shared_optin_kib + reserved_kib) << 10,
            reserved_shared_bytes_per_block: reserved_kib << 10,
            max_threads_per_block: 1024,
            max_block: [1024, 1024, 64],
            max_grid: [i32::MAX as u32, 65535, 65535],
            max_threads_per_sm: arch.max_threads_per_sm,
            max_blocks_per_sm: arch.max_blocks_per_sm,
            warp_size: 32,
            registers_per_sm: 65536,
            max_registers_per_thread: 255,
            constant_bytes: 64 << 10,
            max_param_bytes: 32764,
            l2_bytes: arch.l2_mib << 20,
            clock_khz: arch.clock_mhz * 1000,
            memory_clock_khz: arch.memory_clock_mhz * 1000,
            memory_bus_bits: arch.memory_bus_bits,
            memory_pools: true,
        }
    }

    /// Every architecture that [`DeviceSpec::sm`] takes.
    pub fn all_sm() -> [u32; 7] {
        ARCHS.map(|arch| arch.arch.0 * 10 + arch.arch.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arch_is_software_and_has_its_limits() {
        for sm in DeviceSpec::all_sm() {
            let spec = DeviceSpec::sm(sm);
            assert!(spec.name.contains("software"), "{}", spec.name);
            assert_eq!(spec.arch.0 * 10 + spec.arch.1, sm);
            assert!(
                spec.shared_bytes_per_block_optin + spec.reserved_shared_bytes_per_block
                    <= spec.shared_bytes_per_sm
            );
        }
        assert_eq!(DeviceSpec::sm(75).shared_bytes_per_block_optin, 65536);
        assert_eq!(DeviceSpec::sm(80).shared_bytes_per_block_optin, 166_912);
        assert_eq!(DeviceSpec::sm(90).shared_bytes_per_block_optin, 232_448);
    }
}
