//! Products in bf16 for several rows of x: tiles of AMX, or dot products of pairs (AVX-512-BF16).
//!
//! ```text
//! out[r, o] = row_scale[o] * sum_c bf16(x[r, c]) * bf16(w[o, c])       summed in f32
//! ```
//! x is rounded once (to nearest, ties to even); weights in bf16 are taken as they are, f16 is rounded likewise, and of q8 and
//! q4 the whole number `scale * (stored - offset)`, ties away from zero. Both instructions take numbers below 2^-126 as zeros.
//! A sum runs over the columns in order, whichever task and tile computes it: bits depend on the rounded row and on w alone.
//!
//! Operands are brought into tiles of 16 x 32 numbers, 1 KiB, two of which (32 rows) are a step of a panel:
//! ```text
//! left   [16 rows][32 columns]            as in the matrix
//! right  [16 pairs of columns][16 rows][2]
//! ```
//! Matrices as they are stored go left and x right, so that few rows need no copy of w at all: sums are [outs][rows]. The blocks
//! of quantised matrices are interleaved like right tiles; there x goes left, and sums are [rows][outs].
//!
//! A task has up to 512 rows and `GROUP_PANELS` panels of w. A block of columns at a time, a panel of w is packed (up to 36 KiB,
//! in the first-level cache), and all panels of x pass by it from the second level, each adding to its block of sums there.

mod amx;
mod dot;
pub(super) mod lines;
mod pack;
mod store;
#[cfg(test)]
mod tests;

use super::Epilogue;
use crate::cpu::simd::prefetch_far;
use crate::cpu::{Cpu, Isa, SharedMut, WeightData};
use crate::quant::QuantLayout;
use crate::{Result, RowBuf, WeightFormat};
use half::{bf16, f16};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of a tile.
const TILE: usize = 16;

/// Columns of a tile.
const TILE_COLS: usize = 32;

/// Bytes of a tile.
const TILE_BYTES: usize = 1024;

/// Rows of a panel: two tiles of each side make four sums, and fill the eight tile registers.
const PANEL: usize = 32;

/// Tiles of columns that are packed at once, at most: 576 columns of a panel are 36 KiB.
const BLOCK_TILES: usize = 18;

/// Panels of x in a task: 512 rows.
const BLOCK_PANELS: usize = 16;

/// Panels of w in a task, at most: the sums of 512 rows take 512 KiB then, as much as the x that passes by.
const GROUP_PANELS: usize = 8;

/// Sums of a panel of w and one of x.
const SUMS: usize = PANEL * PANEL;

/// Up to this number of rows, tiles of w come straight from the matrix.
const MAX_DIRECT_ROWS: usize = PANEL;

/// The instructions that multiply; a value is the proof that the CPU has them, and AVX-512 F and BW with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Amx,
    Dot,
}

impl Unit {
    /// What `isa`, which `Isa::check` has let through, has for bf16.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Amx => Some(Self(Kind::Amx)),
            Isa::Avx512Vnni => is_x86_feature_detected!("avx512bf16").then_some(Self(Kind::Dot)),
            _ => None,
        }
    }

    /// Rows of x from which this was faster than vectors of f32, which take the rest of f16, with 4096 x 4096 and two threads. Fewer
    /// rows with matrices in bf16 are for `lines`.
    pub(super) fn min_rows(self, format: WeightFormat) -> usize {
        match (self.0, format) {
            (_, WeightFormat::F32) => usize::MAX,
            (Kind::Amx, WeightFormat::Bf16) => 4,
            (Kind::Amx, WeightFormat::F16) => 12,
            (Kind::Amx, WeightFormat::Q8 | WeightFormat::Q4) => 32,
            (Kind::Dot, WeightFormat::Bf16 | WeightFormat::F16) => 32,
            (Kind::Dot, WeightFormat::Q8 | WeightFormat::Q4) => usize::MAX,
        }
    }

    fn is_amx(self) -> bool {
        self.0 == Kind::Amx
    }

    /// Adds the products of `n` steps to the sums at `c` (which it makes, when this is the `first` time).
    ///
    /// # Safety
    /// `left` and `right` have `n` steps, `c` has `SUMS` numbers that nobody else touches; for AMX, tiles are configured.
    #[inline(always)]
    unsafe fn multiply(self, left: Left, right: *const u8, c: *mut f32, n: usize, first: bool, next: Next) {
        match self.0 {
            // SAFETY: as the caller vouches, and the CPU has it.
            Kind::Amx => unsafe { amx::multiply(left, right, c, n, first, next) },
            // SAFETY: as the caller vouches, and the CPU has it.
            Kind::Dot => unsafe { dot::multiply(left, right, c, n, first) },
        }
    }
}

/// Left tiles of a panel: 16 rows at `first` and 16 at `second`, `stride` bytes apart; a step further, `step` bytes.
#[derive(Clone, Copy)]
struct Left {
    first: *const u8,
    second: *const u8,
    stride: usize,
    step: usize,
}

impl Left {
    fn packed(panel: *const u8) -> Self {
        let second = panel.wrapping_add(TILE_BYTES);
        Self { first: panel, second, stride: TILE_COLS * 2, step: 2 * TILE_BYTES }
    }
}

/// What is to come into the second-level cache meanwhile, at each step: a line of each of two rows of w, and four of x. Any
/// addresses will do: a prefetch does not fault.
#[derive(Clone, Copy)]
struct Next {
    w: *const u8,
    stride: usize,
    x: *const u8,
}

impl Next {
    fn none(at: *const u8) -> Self {
        Self { w: at, stride: 0, x: at }
    }
}

/// What the next panel needs, to be shared out among the `passes` of this one, of `steps` each.
struct Ahead {
    steps: usize,
    w: *const u8,
    row_bytes: usize,
    row_lines: usize,
    n_rows: usize,
    passes: usize,
    x: *const u8,
    x_bytes: usize,
}

impl Ahead {
    /// The part of pass `pass`: pieces of a line a step, two at each pass; what is more, at once.
    #[inline(always)]
    fn next(&self, pass: usize) -> Next {
        let per_row = self.row_lines.div_ceil(self.steps).max(1);
        let pieces = self.n_rows * per_row;
        let (start, end) = (pass * pieces / self.passes, (pass + 1) * pieces / self.passes);
        let piece =
            |i: usize| self.w.wrapping_add(i / per_row * self.row_bytes + i % per_row * self.steps * 64);
        for i in start + 2..end {
            for line in 0..self.steps {
                prefetch_far(piece(i).wrapping_add(line * 64));
            }
        }
        let w = piece(start);
        Next {
            w,
            stride: if start + 1 < end { piece(start + 1) as usize - w as usize } else { 0 },
            x: self.x.wrapping_add(pass * self.x_bytes),
        }
    }
}

/// A matrix `[n_outs, cols]`.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    Quant(&'a QuantLayout, &'a [u8]),
}

impl<'a> Weights<'a> {
    pub(super) fn new(data: &'a WeightData) -> Self {
        match data {
            WeightData::F32(_) => unreachable!("matrices in f32 stay exact"),
            WeightData::F16(w) => Self::F16(w),
            WeightData::Bf16(w) => Self::Bf16(w),
            WeightData::Quant(layout, bytes) => Self::Quant(layout, bytes.as_slice()),
        }
    }
}

/// The shape of x in panels: `[row block][column block][panel][step]`, two tiles a step.
#[derive(Debug, Clone, Copy)]
struct Packing {
    rows: usize,
    cols: usize,
    panels: usize,
    tiles: usize, // of columns
}

impl Packing {
    fn new(rows: usize, cols: usize) -> Self {
        Self { rows, cols, panels: rows.div_ceil(PANEL), tiles: cols.div_ceil(TILE_COLS) }
    }

    fn size_bytes(&self) -> usize {
        self.panels * self.tiles * 2 * TILE_BYTES
    }

    fn blocks(&self) -> usize {
        self.tiles.div_ceil(BLOCK_TILES)
    }

    /// Tiles of columns in column block `block`: the blocks are of a size; none behind the last.
    fn tiles_of(&self, block: usize) -> Range<usize> {
        let start = |block: usize| block.min(self.blocks()) * self.tiles / self.blocks();
        start(block)..start(block + 1)
    }

    /// Panels of row block `block`.
    fn panels_of(&self, block: usize) -> Range<usize> {
        block * BLOCK_PANELS..self.panels.min((block + 1) * BLOCK_PANELS)
    }

    /// Where the column block `block` of `panel` begins, in bytes.
    fn at(&self, panel: usize, block: usize) -> usize {
        let panels = self.panels_of(panel / BLOCK_PANELS);
        let tiles = self.tiles_of(block);
        let steps =
            panels.start * self.tiles + tiles.start * panels.len() + (panel - panels.start) * tiles.len();
        steps * 2 * TILE_BYTES
    }
}

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Sums(Epilogue),
    /// `silu(first half) * second half`: the sums themselves stay in the second-level cache.
    Swiglu,
}

impl Output {
    /// Parts of w that an output needs one row each of.
    fn halves(self) -> usize {
        if self == Output::Swiglu { 2 } else { 1 }
    }
}

/// Panels of w of a task: `n` from `start` on, and of a second half as many, `apart` behind.
#[derive(Debug, Clone, Copy)]
struct Outs {
    start: usize,
    n: usize,
    halves: usize,
    apart: usize,
}

impl Outs {
    fn len(&self) -> usize {
        self.halves * self.n
    }

    fn panel(&self, o: usize) -> usize {
        self.start + o % self.n + o / self.n * self.apart
    }
}

/// The operation.
struct Job<'a> {
    unit: Unit,
    out: SharedMut<'a, f32>, // [packing.rows, out_cols]
    out_cols: usize,
    n_outs: usize, // rows of w
    x: &'a [u8],
    packing: Packing,
    w: Weights<'a>,
    output: Output,
}

/// Whether [`Output::Swiglu`] can be had of a matrix of so many rows: its halves are whole panels.
pub(super) fn has_swiglu(rows: usize) -> bool {
    rows > 0 && rows.is_multiple_of(2 * PANEL)
}

pub(super) fn run(
    cpu: &mut Cpu,
    unit: Unit,
    out: &mut RowBuf<Vec<f32>>,
    x: &RowBuf<Vec<f32>>,
    w: Weights<'_>,
    output: Output,
) -> Result<()> {
    let packing = Packing::new(x.rows, x.cols);
    let groups = Groups::new(&packing, out.cols, output.halves(), cpu.threads());
    let mut scratch = std::mem::take(&mut cpu.scratch);
    let (packed, room) = scratch
        .get(packing.size_bytes() + cpu.threads() * groups.work_bytes())?
        .split_at_mut(packing.size_bytes());
    let to = SharedMut::new(&mut *packed);
    let right = !matches!(w, Weights::Quant(..));
    cpu.for_ranges(packing.panels * packing.blocks(), 1, |parts| {
        for part in parts {
            let (panel, block) = (part / packing.blocks(), part % packing.blocks());
            let len = packing.tiles_of(block).len() * 2 * TILE_BYTES;
            // SAFETY: each part is packed once; `unit` is the proof of AVX-512 F and BW.
            unsafe {
                pack::x(&packing, &x.buf, panel, block, right, to.slice(packing.at(panel, block), len))
            };
        }
    });
    let job = Job {
        unit,
        out: SharedMut::new(&mut out.buf),
        out_cols: out.cols,
        n_outs: out.cols * output.halves(),
        x: packed,
        packing,
        w,
        output,
    };
    job.run(cpu, &groups, SharedMut::new(room));
    cpu.scratch = scratch;
    Ok(())
}

/// How the panels of w are shared out.
struct Groups {
    panels: usize, // of a half
    halves: usize,
    count: usize,
    row_blocks: usize,
    block_panels: usize,
}

impl Groups {
    /// At least two groups a thread, where there are as many panels, so that a thread that comes late finds something left.
    fn new(packing: &Packing, out_cols: usize, halves: usize, threads: usize) -> Self {
        let panels = out_cols.div_ceil(PANEL);
        let count = threads * panels.div_ceil(threads * GROUP_PANELS / halves).max(2);
        Self {
            panels,
            halves,
            count: count.min(panels),
            row_blocks: packing.panels.div_ceil(BLOCK_PANELS),
            block_panels: packing.panels.min(BLOCK_PANELS),
        }
    }

    fn outs(&self, group: usize) -> Outs {
        let start = |group: usize| group * self.panels / self.count;
        Outs {
            start: start(group),
            n: start(group + 1) - start(group),
            halves: self.halves,
            apart: self.panels,
        }
    }

    /// Bytes that a thread needs: a packed panel of w, and sums.
    fn work_bytes(&self) -> usize {
        let sums = self.halves * self.panels.div_ceil(self.count) * self.block_panels * SUMS * 4;
        BLOCK_TILES * 2 * TILE_BYTES + sums
    }
}

impl Job<'_> {
    fn run(&self, cpu: &Cpu, groups: &Groups, room: SharedMut<'_, u8>) {
        let next = AtomicUsize::new(0);
        let n_tasks = groups.row_blocks * groups.count;
        cpu.for_ranges(cpu.threads().min(n_tasks), 1, |workers| {
            for worker in workers {
                // SAFETY: each worker is one task, and has its own part.
                let room = unsafe { room.slice(worker * groups.work_bytes(), groups.work_bytes()) };
                let _tiles = self.unit.is_amx().then(amx::Tiles::configure);
                loop {
                    let task = next.fetch_add(1, Ordering::Relaxed);
                    if task >= n_tasks {
                        break;
                    }
                    let rows = self.packing.panels_of(task / groups.count);
                    self.task(rows, groups.outs(task % groups.count), room);
                }
            }
        });
    }

    /// The outputs of panels `rows` of x and `outs` of w.
    fn task(&self, rows: Range<usize>, outs: Outs, room: &mut [u8]) {
        if let Some(w) = self.direct() {
            return self.direct_task(w, outs, room);
        }
        let (packed, sums) = room.split_at_mut(BLOCK_TILES * 2 * TILE_BYTES);
        let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
        for block in 0..self.packing.blocks() {
            let n = self.packing.tiles_of(block).len();
            for o in 0..outs.len() {
                // SAFETY: `unit` is the proof of AVX-512 F and BW.
                unsafe { self.pack_weights(outs.panel(o), block, packed) };
                let ahead = self.ahead(&rows, &outs, block, o);
                for (r, row_panel) in rows.clone().enumerate() {
                    let x = self.x[self.packing.at(row_panel, block)..][..n * 2 * TILE_BYTES].as_ptr();
                    let w = packed[..n * 2 * TILE_BYTES].as_ptr();
                    let (left, right) = if self.outs_left() { (w, x) } else { (x, w) };
                    let c = sums[(o * rows.len() + r) * SUMS..][..SUMS].as_mut_ptr();
                    // SAFETY: `n` steps of both sides, and SUMS numbers of ours; `run` has configured the tiles.
                    unsafe { self.unit.multiply(Left::packed(left), right, c, n, block == 0, ahead.next(r)) };
                }
            }
        }
        // SAFETY: `unit` is the proof of AVX-512 F; these outputs belong to this task alone.
        unsafe { self.store(&rows, &outs, sums) };
    }

    /// What follows panel `o` of `outs` and column block `block`.
    fn ahead(&self, rows: &Range<usize>, outs: &Outs, block: usize, o: usize) -> Ahead {
        let (panel, block_of_w) = match o + 1 < outs.len() {
            true => (outs.panel(o + 1), block),
            false => (outs.start, block + 1),
        };
        let tiles = self.packing.tiles_of(block_of_w);
        let (first, row_bytes, row_lines, n_rows) = match self.w {
            Weights::Quant(layout, bytes) => {
                let chunk = TILE_COLS / layout.chunk_cols() * 64;
                let at = panel * 2 * layout.block_bytes() + tiles.start * chunk;
                (bytes.as_ptr().wrapping_add(at), layout.block_bytes(), tiles.len() * chunk / 64, 2)
            }
            Weights::Bf16(w) => self.plain(w.as_ptr().cast(), panel, tiles.clone()),
            Weights::F16(w) => self.plain(w.as_ptr().cast(), panel, tiles.clone()),
        };
        let mut x: *const u8 = self.x.as_ptr();
        let mut x_bytes = 0;
        if block + 1 < self.packing.blocks() {
            let all = rows.len() * self.packing.tiles_of(block + 1).len() * 2 * TILE_BYTES;
            x_bytes = all / (outs.len() * rows.len());
            x = x.wrapping_add(self.packing.at(rows.start, block + 1) + o * rows.len() * x_bytes);
        }
        Ahead {
            steps: self.packing.tiles_of(block).len(),
            w: first,
            row_bytes,
            row_lines,
            n_rows: if tiles.is_empty() { 0 } else { n_rows },
            passes: rows.len(),
            x,
            x_bytes,
        }
    }

    fn plain(&self, w: *const u8, panel: usize, tiles: Range<usize>) -> (*const u8, usize, usize, usize) {
        let at = panel * PANEL * self.packing.cols + tiles.start * TILE_COLS;
        (w.wrapping_add(at * 2), self.packing.cols * 2, tiles.len(), PANEL.min(self.n_outs - panel * PANEL))
    }

    /// Whether w is the left side.
    fn outs_left(&self) -> bool {
        !matches!(self.w, Weights::Quant(..))
    }

    /// The matrix, when its tiles need no packing.
    fn direct(&self) -> Option<*const u8> {
        match self.w {
            Weights::Bf16(w)
                if self.unit.is_amx()
                    && self.packing.rows <= MAX_DIRECT_ROWS
                    && self.packing.cols.is_multiple_of(TILE_COLS)
                    && self.n_outs.is_multiple_of(PANEL) =>
            {
                Some(w.as_ptr().cast())
            }
            _ => None,
        }
    }

    /// The same where x is one panel: its blocks of columns lie one behind the other.
    fn direct_task(&self, w: *const u8, outs: Outs, room: &mut [u8]) {
        let stride = self.packing.cols * 2;
        let sums: &mut [f32] = bytemuck::cast_slice_mut(&mut room[BLOCK_TILES * 2 * TILE_BYTES..]);
        let x = self.x[..self.packing.size_bytes()].as_ptr();
        for o in 0..outs.len() {
            let first = w.wrapping_add(outs.panel(o) * PANEL * stride);
            let left = Left { first, second: first.wrapping_add(TILE * stride), stride, step: TILE_COLS * 2 };
            let c = sums[o * SUMS..][..SUMS].as_mut_ptr();
            // SAFETY: the panel is within the matrix, whose width is whole tiles; `run` has configured the tiles.
            unsafe { self.unit.multiply(left, x, c, self.packing.tiles, true, Next::none(x)) };
        }
        // SAFETY: `unit` is the proof of AVX-512 F; these outputs belong to this task alone.
        unsafe { self.store(&(0..1), &outs, sums) };
    }
}
