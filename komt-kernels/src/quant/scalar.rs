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
    for (r, row) in rows.chunks_exact(layout.cols).enumerate() {
        let largest = row.iter().fold(0f32, |m, x| m.max(x.abs()));
        // A hundred steps for the group with the largest weight of the row when nothing is cut off; 127 is the room above.
        let unit = largest / (f32::from(steps(layout)) * 100.0);
        if !unit.is_normal() {
            continue;
        }
        row_scales[r] = unit;
        for (g, group) in row.chunks(layout.group()).enumerate() {
            let scale = best_scale(layout, group, unit);
            scales[g * BLOCK_ROWS + r] = scale as u8;
            for (j, &x) in group.iter().enumerate() {
                let (at, shift) =
                    QuantLayout { rows: BLOCK_ROWS, ..*layout }.place(r, g * layout.group() + j);
                let stored = (quantise(layout, x, scale, unit) + f32::from(offset)) as u8;
                let keep = if layout.format == WeightFormat::Q8 { 0 } else { 0xf0 >> shift };
                quants[at] = (quants[at] & keep) | stored << shift;
            }
        }
    }
}

/// Steps from zero to the end of the longer side.
fn steps(layout: &QuantLayout) -> u8 {
    if layout.format == WeightFormat::Q8 { 127 } else { 8 }
}

fn quantise(layout: &QuantLayout, x: f32, scale: i8, unit: f32) -> f32 {
    let step = f32::from(scale) * unit;
    let (low, high) = if layout.format == WeightFormat::Q8 { (-127.0, 127.0) } else { (-8.0, 7.0) };
    if step == 0.0 { 0.0 } else { (x / step).round_ties_even().clamp(low, high) }
}

/// The scale with the least sum of squared errors, the smaller of two with the same.
fn best_scale(layout: &QuantLayout, group: &[f32], unit: f32) -> i8 {
    let largest = group.iter().fold(0f32, |m, x| m.max(x.abs()));
    let whole = largest / (f32::from(steps(layout)) * unit);
    let (from, to) = if layout.format == WeightFormat::Q8 { (0.9, 1.1) } else { (0.75, 1.3) };
    let (from, to) = (((whole * from) as i32).max(0), ((whole * to).ceil() as i32).min(127));
    let signs: &[i32] = if layout.format == WeightFormat::Q8 { &[1] } else { &[1, -1] };
    let (mut best, mut least) = (0, f32::INFINITY);
    for scale in (from..=to).flat_map(|s| signs.iter().map(move |sign| (s * sign) as i8)) {
        let error: f32 = group
            .iter()
            .map(|&x| (x - f32::from(scale) * unit * quantise(layout, x, scale, unit)).powi(2))
            .sum();
        if error < least {
            (best, least) = (scale, error);
        }
    }
    best
}
