//! Quantised matrices from the layout of files to that of the kernels, `quant.cuh`.

use super::transfer::threads_for;
use crate::WeightFormat;
use crate::quant::{BLOCK_ROWS, QuantLayout};
use std::ops::Range;
use std::thread;

/// Where the numbers of a quantised matrix lie on the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceLayout {
    host: QuantLayout,
}

impl DeviceLayout {
    /// Columns are a multiple of 32.
    pub(super) fn new(format: WeightFormat, rows: usize, cols: usize) -> Self {
        assert_eq!(cols % 32, 0, "DeviceLayout: {cols} columns");
        Self { host: QuantLayout::new(format, rows, cols) }
    }

    fn bits(&self) -> usize {
        if self.host.format == WeightFormat::Q8 { 8 } else { 4 }
    }

    /// Bytes of a row's quants.
    fn row_bytes(&self) -> usize {
        self.host.cols / 8 * self.bits()
    }

    /// Bytes of a row's scales.
    fn row_scale_bytes(&self) -> usize {
        self.host.cols.next_multiple_of(128) / self.host.group()
    }

    fn scales_at(&self) -> usize {
        self.host.rows * self.row_bytes()
    }

    /// Where the row scales begin.
    pub(super) fn row_scales_at(&self) -> usize {
        (self.scales_at() + self.host.rows * self.row_scale_bytes()).next_multiple_of(16)
    }

    /// Bytes of everything. Row scales are read four at a time.
    pub(super) fn size_bytes(&self) -> usize {
        self.row_scales_at() + self.host.rows.next_multiple_of(4) * 4
    }

    /// All rows, in ranges whose quants take up to `max_bytes`, or in single rows.
    pub(super) fn row_ranges(&self, max_bytes: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, step) = (self.host.rows, (max_bytes / self.row_bytes().max(1)).max(1));
        (0..rows).step_by(step).map(move |first| first..(first + step).min(rows))
    }

    /// Where the quants of some rows begin, and their bytes.
    pub(super) fn quants_of(&self, rows: &Range<usize>) -> (usize, usize) {
        (rows.start * self.row_bytes(), rows.len() * self.row_bytes())
    }

    /// Likewise of scales.
    pub(super) fn scales_of(&self, rows: &Range<usize>) -> (usize, usize) {
        (self.scales_at() + rows.start * self.row_scale_bytes(), rows.len() * self.row_scale_bytes())
    }

    /// The quants of the rows from `first` on, as many as `to` has room for.
    pub(super) fn repack_quants(&self, host: &[u8], first: usize, to: &mut [u8], is_f16: bool) {
        let row_bytes = self.row_bytes();
        in_rows(to, row_bytes, |at, rows| {
            for (i, row) in rows.chunks_exact_mut(row_bytes).enumerate() {
                self.repack_row(host, first + at + i, row, is_f16);
            }
        });
    }

    fn repack_row(&self, host: &[u8], row: usize, to: &mut [u8], is_f16: bool) {
        let at = row / BLOCK_ROWS * self.host.block_bytes() + row % BLOCK_ROWS * 4;
        let chunk = |i: usize| {
            let at = at + i * 4 * BLOCK_ROWS;
            u32::from_le_bytes([host[at], host[at + 1], host[at + 2], host[at + 3]])
        };
        // Of four bytes the first two, or the last two, to the lower ends of two halves.
        let spread = |bytes: u32| (bytes & 0xff) | (bytes & 0xff00) << 8;
        let (units, _) = to.as_chunks_mut::<16>();
        for (u, unit) in units.iter_mut().enumerate() {
            let mut words = [0u32; 4];
            for i in 0..4 {
                let bytes = chunk(u * 4 + i);
                if self.bits() == 4 {
                    let (low, high) = (bytes & 0x0f0f_0f0f, bytes >> 4 & 0x0f0f_0f0f);
                    for (word, pair) in words.iter_mut().zip([low, low >> 16, high, high >> 16]) {
                        *word |= spread(pair) << (4 * i);
                    }
                } else {
                    let bytes = if is_f16 { bytes } else { bytes ^ 0x8080_8080 };
                    let (pair, t) = (i / 2, i % 2 * 2);
                    words[t] |= spread(bytes) << (8 * pair);
                    words[t + 1] |= spread(bytes >> 16) << (8 * pair);
                }
            }
            for (to, word) in unit.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *to = word.to_le_bytes();
            }
        }
    }

    /// The scales of the rows from `first` on, as many as `to` has room for.
    pub(super) fn repack_scales(&self, host: &[u8], first: usize, to: &mut [u8]) {
        let row_bytes = self.row_scale_bytes();
        let n_groups = self.host.cols / self.host.group();
        in_rows(to, row_bytes, |at, rows| {
            for (i, to) in rows.chunks_exact_mut(row_bytes).enumerate() {
                let row = first + at + i;
                let block = self.host.scales_at() + row / BLOCK_ROWS * self.host.block_scales();
                let from = &host[block + row % BLOCK_ROWS..];
                let groups = from.iter().step_by(BLOCK_ROWS).take(n_groups);
                to.fill(0);
                to.iter_mut().zip(groups).for_each(|(to, scale)| *to = *scale);
            }
        });
    }

    /// The rows' scales, with zeros to a multiple of four.
    pub(super) fn row_scales(&self, host: &[u8]) -> Vec<u8> {
        let mut scales = vec![0; self.host.rows.next_multiple_of(4) * 4];
        let from = &host[self.host.quants_bytes()..][..self.host.rows * 4];
        scales[..from.len()].copy_from_slice(from);
        scales
    }
}

/// Runs `task` on pieces of `to`, whole rows with the number of the first, in threads of its own (see `transfer::in_pieces`).
fn in_rows(to: &mut [u8], row_bytes: usize, task: impl Fn(usize, &mut [u8]) + Sync) {
    let threads = threads_for(to.len());
    if threads <= 1 {
        return task(0, to);
    }
    let rows = (to.len() / row_bytes).div_ceil(threads);
    thread::scope(|scope| {
        for (i, piece) in to.chunks_mut(rows * row_bytes).enumerate() {
            let task = &task;
            scope.spawn(move || task(i * rows, piece));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number as the kernels read it: `quant.cuh`.
    fn device_value(layout: &DeviceLayout, bytes: &[u8], row: usize, col: usize, is_f16: bool) -> f32 {
        let bits = layout.bits();
        let unit_cols = 128 / bits;
        let in_unit = col % unit_cols;
        let (pair, t, half) = (in_unit / 8, in_unit % 8 / 2, in_unit % 2);
        let at = row * layout.row_bytes() + col / unit_cols * 16 + t * 4;
        let word = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let stored = word >> (16 * half + bits * pair) & ((1 << bits) - 1);
        let whole = match (bits, is_f16) {
            (4, _) => stored as i32 - 8,
            (_, true) => stored as i32 - 128,
            (_, false) => i32::from(stored as u8 as i8),
        };
        let at = layout.scales_at() + row * layout.row_scale_bytes() + col / layout.host.group();
        let scale = f32::from(bytes[at] as i8);
        let at = layout.row_scales_at() + row * 4;
        let row_scale = f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        row_scale * (scale * whole as f32)
    }

    #[test]
    fn every_number_is_where_the_kernels_read_it() {
        for (format, rows, cols) in [
            (WeightFormat::Q8, 1, 32),
            (WeightFormat::Q8, 37, 160),
            (WeightFormat::Q4, 1, 32),
            (WeightFormat::Q4, 37, 160),
            (WeightFormat::Q4, 1025, 4096), // by several threads
        ] {
            let host = QuantLayout::new(format, rows, cols);
            let mut bytes: Vec<u8> = (0..host.size_bytes())
                .map(|i| (i as u32).wrapping_mul(0x9e37_79b9).to_le_bytes()[3])
                .collect();
            let row_scales = host.quants_bytes()..host.scales_at();
            for (i, scale) in bytes[row_scales].as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *scale = (1.0 + i as f32).to_le_bytes();
            }
            for is_f16 in [false, true] {
                let layout = DeviceLayout::new(format, rows, cols);
                let mut device = vec![0xaa; layout.size_bytes()];
                for range in layout.row_ranges(3 << 20) {
                    let (at, n) = layout.quants_of(&range);
                    layout.repack_quants(&bytes, range.start, &mut device[at..at + n], is_f16);
                    let (at, n) = layout.scales_of(&range);
                    layout.repack_scales(&bytes, range.start, &mut device[at..at + n]);
                }
                device[layout.row_scales_at()..].copy_from_slice(&layout.row_scales(&bytes));
                let mut row = vec![0.0; cols];
                for r in (0..rows).step_by(if rows > 100 { 97 } else { 1 }) {
                    host.decode_row(&bytes, r, &mut row);
                    for (c, &expected) in row.iter().enumerate() {
                        let found = device_value(&layout, &device, r, c, is_f16);
                        assert_eq!(found, expected, "{format:?} [{rows}, {cols}] at [{r}, {c}]");
                    }
                }
            }
        }
    }

    /// 4.5 and 8.25 bits a weight, and 4 bytes a row.
    #[test]
    fn sizes() {
        let size = |format| DeviceLayout::new(format, 4096, 4096).size_bytes();
        assert_eq!(size(WeightFormat::Q8), 4096 * 4096 * 33 / 32 + 4 * 4096);
        assert_eq!(size(WeightFormat::Q4), 4096 * 4096 * 9 / 16 + 4 * 4096);
    }
}
