//! The twin: plain loops over the same whole numbers.

use super::pack::group_bytes;
use super::{Block, GROUP, Next, Tiles};
use crate::quant::BLOCK_ROWS;

/// Runs anywhere.
#[derive(Clone, Copy)]
pub(super) struct Twin;

impl Tiles for Twin {
    fn tile<const ROWS: usize>(
        self,
        x: &[u8],
        groups: usize,
        w: Block<'_>,
        _: Next,
    ) -> [[f32; BLOCK_ROWS]; ROWS] {
        let parts = if w.q4 { 2 } else { 1 };
        let record = ROWS * group_bytes(parts);
        let mut out = [[0f32; BLOCK_ROWS]; ROWS];
        for (r, out) in out.iter_mut().enumerate() {
            for (o, out) in out.iter_mut().enumerate() {
                for (g, x) in (0..groups).zip(x.chunks_exact(record)) {
                    let mut t = 0.0;
                    for part in 0..parts {
                        let mut sum = word(x, ROWS * (GROUP / 4 + part) + r) as i32;
                        for c in part * GROUP / parts..(part + 1) * GROUP / parts {
                            let q = x[(c / 4 * ROWS + r) * 4 + c % 4] as i8;
                            sum += i32::from(q) * stored(w, o, g * GROUP + c);
                        }
                        let scale = f32::from(w.scales[(g * parts + part) * BLOCK_ROWS + o] as i8);
                        t += sum as f32 * scale; // q4: exact
                    }
                    let xs = f32::from_bits(word(x, ROWS * (GROUP / 4 + parts) + r));
                    *out = t.mul_add(xs, *out);
                }
                *out *= f32::from_bits(word(w.row_scales, o));
            }
        }
        out
    }
}

/// The stored number of row `o` and column `c` of a block (`QuantLayout`).
fn stored(w: Block<'_>, o: usize, c: usize) -> i32 {
    if w.q4 {
        let byte = w.quants[(c / 8 * BLOCK_ROWS + o) * 4 + c % 4];
        i32::from(if c % 8 < 4 { byte & 15 } else { byte >> 4 })
    } else {
        i32::from(w.quants[(c / 4 * BLOCK_ROWS + o) * 4 + c % 4])
    }
}

fn word(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([bytes[i * 4], bytes[i * 4 + 1], bytes[i * 4 + 2], bytes[i * 4 + 3]])
}
