//! Which kernel, in how many blocks: by the rows of x and the shape of w.

use super::check;
use crate::cuda::{Cuda, CudaAct, CudaWeight, Grid, KernelSpec, MAX_BLOCKS_YZ, Packing, Params, Source};
use crate::{Result, Rows};

pub(crate) use super::Epilogue;

pub(crate) const SOURCES: &[Source] = &[
    Source {
        name: "matmul/gemv.cu",
        text: include_str!("gemv.cu"),
        kernels: &[
            KernelSpec { name: "matmul_gemv_1", max_shared_bytes: 0 },
            KernelSpec { name: "matmul_gemv_2", max_shared_bytes: 0 },
            KernelSpec { name: "matmul_gemv_4", max_shared_bytes: 0 },
            KernelSpec { name: "matmul_gemv_8", max_shared_bytes: 0 },
        ],
    },
    Source {
        name: "matmul/gemv_quant.cu",
        text: concat!(include_str!("../../cuda/quant.cuh"), include_str!("gemv_quant.cu")),
        kernels: &[
            KernelSpec { name: "matmul_gemv_q8", max_shared_bytes: gemv_shared_bytes(Packing::Q8, 8) },
            KernelSpec { name: "matmul_gemv_q4", max_shared_bytes: gemv_shared_bytes(Packing::Q4, 8) },
        ],
    },
    Source {
        name: "matmul/tiles.cu",
        text: concat!(
            include_str!("../../cuda/quant.cuh"),
            include_str!("tiles.cuh"),
            include_str!("tiles.cu")
        ),
        kernels: &[
            ACT_TILES[0].spec(),
            ACT_TILES[1].spec(),
            ACT_TILES[2].spec(),
            ACT_TILES[3].spec(),
            KernelSpec { name: "matmul_reduce", max_shared_bytes: 0 },
        ],
    },
    Source {
        name: "matmul/tiles_quant.cu",
        text: concat!(
            include_str!("../../cuda/quant.cuh"),
            include_str!("tiles.cuh"),
            include_str!("tiles_quant.cu")
        ),
        kernels: &[
            Q8_TILES[0].spec(),
            Q8_TILES[1].spec(),
            Q8_TILES[2].spec(),
            Q8_TILES[3].spec(),
            Q4_TILES[0].spec(),
            Q4_TILES[1].spec(),
            Q4_TILES[2].spec(),
            Q4_TILES[3].spec(),
        ],
    },
];

/// What becomes of a sum; the same numbers in the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Sum {
    Store,
    AddF32,
    StoreF32,
    Swiglu,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct GemvParams {
    x: u64,
    w: u64,
    out: u64,
    rows: u32,
    n: u32,
    k: u32,
    epilogue: u32,
    split_log2: u32,
    unused: u32,
}
const _: () = assert!(size_of::<GemvParams>() == 48);
// SAFETY: as in gemv.cu; `launch`'s callers have compared the buffers' shapes.
unsafe impl Params for GemvParams {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct TileParams {
    x: u64,
    w: u64,
    out: u64,
    partials: u64,
    rows: u32,
    n: u32,
    k: u32,
    epilogue: u32,
}
const _: () = assert!(size_of::<TileParams>() == 48);
// SAFETY: as in tiles.cu; `launch`'s callers have compared the buffers' shapes, and `splits` the workspace's size.
unsafe impl Params for TileParams {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ReduceParams {
    partials: u64,
    out: u64,
    rows: u32,
    n: u32,
    splits: u32,
    epilogue: u32,
}
const _: () = assert!(size_of::<ReduceParams>() == 32);
// SAFETY: as in tiles.cu; its partial sums have just been written by the launch of the tiles.
unsafe impl Params for ReduceParams {}

/// An instance of the tensor-core template in tiles.cuh.
#[derive(Debug, Clone, Copy)]
struct Tile {
    kernel: &'static str,
    packing: Packing,
    bm: usize,
    bn: usize,
    bk: usize,
    stages: usize,
}

/// Those for up to 16, 32 and 64 rows, and for more.
type Tiles = [Tile; 4];

const fn tiles(packing: Packing, kernels: [&'static str; 4]) -> Tiles {
    let [first, second, third, gemm] = kernels;
    [
        Tile { kernel: first, packing, bm: 16, bn: 64, bk: 64, stages: 4 },
        Tile { kernel: second, packing, bm: 32, bn: 64, bk: 64, stages: 4 },
        Tile { kernel: third, packing, bm: 64, bn: 64, bk: 64, stages: 4 },
        Tile { kernel: gemm, packing, bm: 128, bn: 128, bk: 32, stages: 3 },
    ]
}

const ACT_TILES: Tiles =
    tiles(Packing::Act, ["matmul_skinny_16", "matmul_skinny_32", "matmul_skinny_64", "matmul_gemm"]);
const Q8_TILES: Tiles = tiles(
    Packing::Q8,
    ["matmul_skinny_16_q8", "matmul_skinny_32_q8", "matmul_skinny_64_q8", "matmul_gemm_q8"],
);
const Q4_TILES: Tiles = tiles(
    Packing::Q4,
    ["matmul_skinny_16_q4", "matmul_skinny_32_q4", "matmul_skinny_64_q4", "matmul_gemm_q4"],
);

/// Rows of w at most: tiles of the narrowest kernels are blocks in y.
pub(crate) const MAX_W_ROWS: usize = ACT_TILES[0].bn * MAX_BLOCKS_YZ;

impl Tile {
    /// Bytes of w in a stage, and of scales as pairs.
    const fn w_bytes(&self) -> (usize, usize) {
        let weights = self.bn * self.bk;
        match self.packing {
            Packing::Act => (weights * 2, 0),
            Packing::Q8 => (weights, weights / 32 * 4),
            Packing::Q4 => (weights / 2, weights / 16 * 4),
        }
    }

    /// The stages or, later in the same place, the sums: of all four warps, or 32 rows for each warp of gemm.
    const fn shared_bytes(&self) -> u32 {
        let (weights, scales) = self.w_bytes();
        let stages = (self.bm * self.bk * 2 + weights + scales) * self.stages;
        let sums = if self.bm == 128 { 32 * self.bn * 4 } else { 4 * self.bm * self.bn * 4 };
        if stages > sums { stages as u32 } else { sums as u32 }
    }

    const fn spec(&self) -> KernelSpec {
        KernelSpec { name: self.kernel, max_shared_bytes: self.shared_bytes() }
    }

    fn for_rows(packing: Packing, rows: usize) -> &'static Tile {
        let tiles = match packing {
            Packing::Act => &ACT_TILES,
            Packing::Q8 => &Q8_TILES,
            Packing::Q4 => &Q4_TILES,
        };
        match rows {
            0..=16 => &tiles[0],
            17..=32 => &tiles[1],
            33..=64 => &tiles[2],
            _ => &tiles[3],
        }
    }

    /// Blocks that share the columns of a tile: the number with the least work in sequence, for 2 blocks on each
    /// multiprocessor (of `sm_count`), counted in tiles of k. A block spends a pipeline's depth before its first product; the
    /// partial sums are written and read again, 8 bytes each at the speed at which tiles of w (`w_bytes` a block)
    /// come, and cost another launch, as long as about 4 tiles.
    fn splits(&self, rows: usize, n: usize, k: usize, sm_count: usize, workspace_bytes: usize) -> usize {
        let (slots, tiles) = (2 * sm_count.max(1), rows.div_ceil(self.bm) * n.div_ceil(self.bn));
        let (tiles_of_k, partial_bytes) = (k.div_ceil(self.bk), rows * n * 4);
        let cost = |splits: usize| {
            let reduce = if splits == 1 {
                0
            } else {
                4 + (2 * splits * partial_bytes).div_ceil(slots * self.w_bytes().0)
            };
            (tiles * splits).div_ceil(slots) * (tiles_of_k.div_ceil(splits) + self.stages) + reduce
        };
        // 16: beyond that the partial sums of even one row of tiles outweigh what is left of w.
        let most = tiles_of_k.min(16).min(workspace_bytes / partial_bytes.max(1)).max(1);
        (1..=most).min_by_key(|&splits| cost(splits)).unwrap_or(1)
    }
}

/// The kernel that streams the weights by, for up to 8 rows, and the rows of w that a warp has there.
fn gemv(packing: Packing, rows: usize) -> Option<(&'static str, usize)> {
    match (packing, rows) {
        (Packing::Q8, 0..=8) => Some(("matmul_gemv_q8", 16)),
        (Packing::Q4, 0..=8) => Some(("matmul_gemv_q4", 16)),
        (_, 0..=1) => Some(("matmul_gemv_1", 4)),
        (_, 2) => Some(("matmul_gemv_2", 4)),
        (_, 3..=4) => Some(("matmul_gemv_4", 4)),
        (_, 5..=8) => Some(("matmul_gemv_8", 4)),
        _ => None,
    }
}

/// Warps that share `warp_rows` rows of w in a gemv kernel, as a power of two: as few as give every multiprocessor 16 warps,
/// 64 KiB of loads under way (48 in q4), at least 512 columns for each.
fn gemv_split_log2(warp_rows: usize, n: usize, k: usize, sm_count: usize) -> u32 {
    (0..2).find(|&log2| (n.div_ceil(warp_rows) << log2) >= 16 * sm_count || (512 << log2) >= k).unwrap_or(2)
}

/// Dynamic shared memory of a gemv kernel's block: gemv_quant.cu.
const fn gemv_shared_bytes(packing: Packing, rows: u32) -> u32 {
    match packing {
        Packing::Act => 0,
        Packing::Q8 => 4 * 3 * (2048 + rows * 256 + 16 * 4),
        Packing::Q4 => 4 * 4 * (1024 + rows * 256 + 16 * 8),
    }
}

/// `out = x . w^T`.
pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    x: &Rows<Cuda<A>, A>,
    w: &CudaWeight<A>,
) -> Result<()> {
    check(out, x, (w.rows, w.cols));
    launch(cuda, out.buf.ptr(), x, w, Sum::Store)
}

/// `out = x . w^T` in f32, or `out += x . w^T`.
pub(crate) fn run_f32<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, f32>,
    x: &Rows<Cuda<A>, A>,
    w: &CudaWeight<A>,
    epilogue: Epilogue,
) -> Result<()> {
    check(out, x, (w.rows, w.cols));
    let sum = match epilogue {
        Epilogue::Store => Sum::StoreF32,
        Epilogue::Add => Sum::AddF32,
    };
    launch(cuda, out.buf.ptr(), x, w, sum)
}

/// `out = swiglu(x . w^T)`: gates and ups meet in f32.
pub(crate) fn run_swiglu<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    x: &Rows<Cuda<A>, A>,
    w: &CudaWeight<A>,
) -> Result<()> {
    assert_eq!(
        (out.rows, 2 * out.cols, x.cols, out.cols % 8),
        (x.rows, w.rows, w.cols, 0),
        "matmul_swiglu: out [{}, {}], x [{}, {}], w [{}, {}]",
        out.rows,
        out.cols,
        x.rows,
        x.cols,
        w.rows,
        w.cols
    );
    launch(cuda, out.buf.ptr(), x, w, Sum::Swiglu)
}

fn launch<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: u64,
    x: &Rows<Cuda<A>, A>,
    w: &CudaWeight<A>,
    sum: Sum,
) -> Result<()> {
    let (n_rows, sm_count) = (x.rows, cuda.sm_count() as usize);
    assert_eq!(w.cols % 32, 0, "matmul: {} columns", w.cols);
    let (rows, n, k, epilogue) = (n_rows as u32, w.rows as u32, w.cols as u32, sum as u32);
    let (x, weight) = (x.buf.ptr(), w.data.ptr());
    if let Some((kernel, warp_rows)) = gemv(w.packing, n_rows) {
        let split_log2 = gemv_split_log2(warp_rows, w.rows, w.cols, sm_count);
        let blocks = (n.div_ceil(warp_rows as u32) << split_log2).div_ceil(4);
        let shared_bytes = gemv_shared_bytes(w.packing, rows);
        let grid = Grid { blocks: [blocks, 1, rows.min(1)], threads: 128, shared_bytes };
        let params = GemvParams { x, w: weight, out, rows, n, k, epilogue, split_log2, unused: 0 };
        return cuda.launch(kernel, grid, params);
    }
    let (partials, workspace_bytes) = cuda.workspace();
    let tile = Tile::for_rows(w.packing, n_rows);
    let splits = tile.splits(n_rows, w.rows, w.cols, sm_count, workspace_bytes) as u32;
    let blocks = [n_rows.div_ceil(tile.bm) as u32, w.rows.div_ceil(tile.bn) as u32, splits];
    let grid = Grid { blocks, threads: 128, shared_bytes: tile.shared_bytes() };
    cuda.launch(tile.kernel, grid, TileParams { x, w: weight, out, partials, rows, n, k, epilogue })?;
    if splits == 1 {
        return Ok(());
    }
    let width = if sum == Sum::Swiglu { n / 2 } else { n };
    let grid = Grid { blocks: [width.div_ceil(256), rows, 1], threads: 256, shared_bytes: 0 };
    cuda.launch("matmul_reduce", grid, ReduceParams { partials, out, rows, n, splits, epilogue })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiprocessors of an H100.
    const SMS: usize = 132;
    const PACKINGS: [Packing; 3] = [Packing::Act, Packing::Q8, Packing::Q4];

    #[test]
    fn every_multiprocessor_has_work_at_the_shapes_of_mistral_7b() {
        for (n, k) in [(6144usize, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (32000, 4096)] {
            for (packing, rows) in
                PACKINGS.into_iter().flat_map(|p| [1, 16, 32, 64, 128, 512].map(|r| (p, r)))
            {
                if let Some((_, warp_rows)) = gemv(packing, rows) {
                    let warps = n.div_ceil(warp_rows) << gemv_split_log2(warp_rows, n, k, SMS);
                    // Quantised, 7 at least: 20 KiB of the smallest matrix are under way on each multiprocessor.
                    let least = if packing == Packing::Act { 16 } else { 7 };
                    assert!(warps >= least * SMS, "{packing:?} {n} x {k}: {warps} warps");
                    continue;
                }
                let tile = Tile::for_rows(packing, rows);
                let splits = tile.splits(rows, n, k, SMS, 32 << 20);
                let blocks = rows.div_ceil(tile.bm) * n.div_ceil(tile.bn) * splits;
                eprintln!("{packing:?} {rows} rows, {n} x {k}: {} blocks x {splits}", blocks / splits);
                // Partial sums weigh more beside fewer bytes of w: one shape in q4 leaves four without.
                let least = if packing == Packing::Act { SMS } else { SMS - 4 };
                assert!(blocks >= least, "{packing:?} {rows} rows, {n} x {k}: {blocks} blocks of {splits}");
            }
        }
    }

    #[test]
    fn partial_sums_fit_the_workspace() {
        for rows in [9, 64, 65, 512, 4096] {
            for (n, k, workspace) in [(4096, 14336, 32 << 20), (32000, 4096, 32 << 20), (8, 4096, 1 << 10)] {
                for packing in PACKINGS {
                    let splits = Tile::for_rows(packing, rows).splits(rows, n, k, SMS, workspace);
                    let fits = splits == 1 || splits * rows * n * 4 <= workspace;
                    assert!(fits, "{packing:?} {rows} rows, {n} x {k}: {splits}");
                }
            }
        }
    }
}
