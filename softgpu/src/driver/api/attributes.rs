//! Device attributes, `CUdevice_attribute` of `cuda.h`.

use crate::driver::Error;
use crate::spec::DeviceSpec;

/// One more than the last attribute of CUDA 12.9.
const END: i32 = 146;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_MODE` default: many contexts.
const COMPUTE_MODE_DEFAULT: i32 = 0;
const MAX_PITCH: i32 = i32::MAX;
const TEXTURE_ALIGNMENT: i32 = 512;

/// The value of an attribute; those of textures, surfaces, peers and other things that are not here are 0.
pub(super) fn attribute(spec: &DeviceSpec, number: i32) -> Result<i32, Error> {
    let is_from = |arch: (u32, u32)| i32::from(spec.arch >= arch);
    let value = match number {
        1 => spec.max_threads_per_block as i32,
        2 => spec.max_block[0] as i32,
        3 => spec.max_block[1] as i32,
        4 => spec.max_block[2] as i32,
        5 => spec.max_grid[0] as i32,
        6 => spec.max_grid[1] as i32,
        7 => spec.max_grid[2] as i32,
        8 => spec.shared_bytes_per_block as i32,
        9 => spec.constant_bytes as i32,
        10 => spec.warp_size as i32,
        11 => MAX_PITCH,
        // Registers of a block: those of the multiprocessor.
        12 => spec.registers_per_sm as i32,
        13 => spec.clock_khz as i32,
        14 => TEXTURE_ALIGNMENT,
        15 => 1, // copies overlap with kernels
        16 => spec.sm_count as i32,
        17 => 0, // no limit of a kernel's time
        18 => 0, // not integrated
        19 => 0, // host memory cannot be mapped
        20 => COMPUTE_MODE_DEFAULT,
        31 => 1, // concurrent kernels
        36 => spec.memory_clock_khz as i32,
        37 => spec.memory_bus_bits as i32,
        38 => spec.l2_bytes as i32,
        39 => spec.max_threads_per_sm as i32,
        40 => 2, // copy engines
        41 => 1, // unified addressing: an address tells whose it is
        75 => spec.arch.0 as i32,
        76 => spec.arch.1 as i32,
        78 => 1,      // stream priorities
        79 | 80 => 1, // global and local memory cached in L1
        81 => spec.shared_bytes_per_sm as i32,
        82 => spec.registers_per_sm as i32,
        87 => {
            if matches!(spec.arch, (8, 0) | (9, 0) | (10, 0)) {
                2
            } else {
                32
            }
        }
        90 => 1, // compute preemption
        95 => 1, // cooperative launch
        97 => spec.shared_bytes_per_block_optin as i32,
        99 => 1, // host memory can be registered
        106 => spec.max_blocks_per_sm as i32,
        // L2 that can be set aside for persisting accesses, and the largest window of them.
        108 => is_from((8, 0)) * (spec.l2_bytes / 4 * 3) as i32,
        109 => is_from((8, 0)) * (128 << 20),
        111 => spec.reserved_shared_bytes_per_block as i32,
        115 => i32::from(spec.memory_pools),
        0 | END.. | i32::MIN..0 => return Err(Error::INVALID_VALUE),
        _ => 0,
    };
    Ok(value)
}
