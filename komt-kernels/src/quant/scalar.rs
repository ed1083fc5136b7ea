//! The reference.

use super::{BLOCK_ROWS, QuantLayout};
use crate::WeightFormat;

pub(super) fn decode_row(layout: &QuantLayout, bytes: &[u8], row: usize, out: &mut [f32]) {
    let at = layout.row_scale_at(row);
    let row_scale = f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mask = if layout.format == WeightFormat::Q8 { 0xff } else { 0xf };
    for (c, out) in out.iter_mut().enumerate() {
        let (at, shift) = layout.place(row, c);
        let quant = f32::from((bytes[at] >> shift) & mask) - f32::from(layout.offset());
        let scale = f32::from(bytes[layout.scale_at(row, c / layout.group())] as i8);
        // The product of the two whole numbers is exact in f32, so there is one rounding.
        *out = row_scale * (scale * quant);
    }
}

/// Encodes block `block`: `rows [n <= 16][cols]` to its quants, row scales and scales.
pub(crate) fn encode_block(
    layout: &QuantLayout,
    rows: &[f32],
    quants: &mut [u8],
    row_scales: &mut [f32],
    scales: &mut [u8],
) {
    let offset = layout.offset();
    quants.fill(if layout.format == WeightFormat::Q8 { offset } else { offset << 4 | offset });
    let (low, high) = if layout.format == WeightFormat::Q8 { (-127.0, 127.0) } else { (-8.0, 7.0) };
    for (r, row) in rows.chunks_exact(layout.cols).enumerate() {
        let (unit, inverse) = unit(layout, row);
        row_scales[r] = unit;
        for (g, group) in row.chunks(layout.group()).enumerate() {
            let y: Vec<f32> = group.iter().map(|x| x * inverse).collect();
            let scale = best_scale(layout, &y);
            scales[g * BLOCK_ROWS + r] = scale as i8 as u8;
            for (j, &y) in y.iter().enumerate() {
                let (at, shift) =
                    QuantLayout { rows: BLOCK_ROWS, ..*layout }.place(r, g * layout.group() + j);
                let stored = (nearest(y, scale, low, high) + f32::from(offset)) as u8;
                let keep = if layout.format == WeightFormat::Q8 { 0 } else { 0xf0 >> shift };
                quants[at] = (quants[at] & keep) | stored << shift;
            }
        }
    }
}

/// What a scale of 1 stands for in a row, and its inverse; zeros for a row of zeros, or of numbers next to them. There are a hundred
/// steps for the group with the largest weight of the row when nothing is cut off; 127 is the room above.
pub(super) fn unit(layout: &QuantLayout, row: &[f32]) -> (f32, f32) {
    let largest = row.iter().fold(0f32, |m, x| m.max(x.abs()));
    let unit = largest / (steps(layout) * 100.0);
    if unit.is_normal() { (unit, 1.0 / unit) } else { (0.0, 0.0) }
}

/// Steps from zero to the end of the longer side.
fn steps(layout: &QuantLayout) -> f32 {
    if layout.format == WeightFormat::Q8 { 127.0 } else { 8.0 }
}

/// The nearest quant. A scale below zero has the longer side above.
fn nearest(y: f32, scale: f32, low: f32, high: f32) -> f32 {
    let one_over = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    (y * one_over).round_ties_even().clamp(low, high)
}

/// The scale with the least sum of squared errors, the smaller of two with the same.
fn best_scale(layout: &QuantLayout, y: &[f32]) -> f32 {
    let q8 = layout.format == WeightFormat::Q8;
    let largest = y.iter().fold(0f32, |m, y| m.max(y.abs()));
    let whole = largest * (1.0 / steps(layout));
    let (from, to) = if q8 { (0.9, 1.1) } else { (0.75, 1.3) };
    let from = (whole * from - 0.5).round_ties_even().clamp(0.0, 127.0);
    let to = (whole * to + 0.5).round_ties_even().clamp(0.0, 127.0);
    let (low, high) = if q8 { (-127.0, 127.0) } else { (-8.0, 7.0) };
    let signs: &[f32] = if q8 { &[1.0] } else { &[1.0, -1.0] };
    let (mut best, mut least) = (0.0, f32::INFINITY);
    for size in from as i32..=to as i32 {
        for sign in signs {
            let scale = size as f32 * sign;
            let error = y.iter().fold(0f32, |sum, &y| {
                let e = y - scale * nearest(y, scale, low, high);
                sum + e * e
            });
            if error < least {
                (best, least) = (scale, error);
            }
        }
    }
    best
}
