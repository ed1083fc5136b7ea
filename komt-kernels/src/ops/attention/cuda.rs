//! `attention` on CUDA: sequences with one row by `decode.cuh`, the others by `prefill.cuh`.

use super::check;
use crate::cuda::{Cuda, CudaAct, Grid, KernelSpec, Params, Source, seqs_in_grid};
use crate::kv::native;
use crate::{AttnShape, KvFormat, KvLayer, Result, Rows, Step};
use komt_cache::PAGE;

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[
    Source {
        name: "attention/decode.cu",
        text: concat!(include_str!("decode.cuh"), include_str!("decode.cu")),
        kernels: &[
            KernelSpec { name: "attention_decode_64", max_shared_bytes: 0 },
            KernelSpec { name: "attention_decode_96", max_shared_bytes: 0 },
            KernelSpec { name: "attention_decode_128", max_shared_bytes: 0 },
            KernelSpec { name: "attention_combine_64", max_shared_bytes: 0 },
            KernelSpec { name: "attention_combine_96", max_shared_bytes: 0 },
            KernelSpec { name: "attention_combine_128", max_shared_bytes: 0 },
        ],
    },
    Source {
        name: "attention/decode_q8.cu",
        text: concat!(include_str!("decode.cuh"), include_str!("decode_q8.cu")),
        kernels: &[
            KernelSpec { name: "attention_decode_q8_64", max_shared_bytes: 0 },
            KernelSpec { name: "attention_decode_q8_96", max_shared_bytes: 0 },
            KernelSpec { name: "attention_decode_q8_128", max_shared_bytes: 0 },
        ],
    },
    Source {
        name: "attention/prefill.cu",
        text: concat!(include_str!("prefill.cuh"), include_str!("prefill.cu")),
        kernels: &[
            KernelSpec { name: "attention_prefill_64", max_shared_bytes: 0 },
            KernelSpec { name: "attention_prefill_96", max_shared_bytes: 0 },
            KernelSpec { name: "attention_prefill_128", max_shared_bytes: 0 },
        ],
    },
    Source {
        name: "attention/prefill_q8.cu",
        text: concat!(include_str!("prefill.cuh"), include_str!("prefill_q8.cu")),
        kernels: &[
            KernelSpec { name: "attention_prefill_q8_64", max_shared_bytes: 0 },
            KernelSpec { name: "attention_prefill_q8_96", max_shared_bytes: 0 },
            KernelSpec { name: "attention_prefill_q8_128", max_shared_bytes: 0 },
        ],
    },
];

/// Query heads of a decode block, and pages that a split has at least; the same numbers in decode.cuh.
const DECODE_HEADS: usize = 8;
const MIN_PAGES: usize = 8;

/// Rows (token, head of the group) of a prefill tile; the same number in prefill.cuh.
const PREFILL_ROWS: usize = 64;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct AttentionDecodeParams {
    out: u64,
    qkv: u64,
    k: u64,
    v: u64,
    k_scales: u64,
    v_scales: u64,
    positions: u64,
    slots: u64,
    q_start: u64,
    pages: u64,
    partials: u64,
    table_len: u32,
    window: u32,
    n_seqs: u32,
    n_heads: u32,
    n_kv_heads: u32,
    n_splits: u32,
    scale: f32,
    padding: u32,
}
const _: () = assert!(size_of::<AttentionDecodeParams>() == 120);
// SAFETY: as in decode.cuh; `run` has compared the buffers' shapes, `n_splits` the workspace's size, and a plan's pages are the
// cache's.
unsafe impl Params for AttentionDecodeParams {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct AttentionPrefillParams {
    out: u64,
    qkv: u64,
    k: u64,
    v: u64,
    k_scales: u64,
    v_scales: u64,
    positions: u64,
    q_start: u64,
    pages: u64,
    table_len: u32,
    window: u32,
    n_seqs: u32,
    n_heads: u32,
    n_kv_heads: u32,
    scale: f32,
}
const _: () = assert!(size_of::<AttentionPrefillParams>() == 96);
// SAFETY: as in prefill.cuh; `run` has compared the buffers' shapes, and a plan's pages are the cache's.
unsafe impl Params for AttentionPrefillParams {}

/// The kernels for a width of heads: decode, combine, prefill.
fn kernels(attn: AttnShape, is_q8: bool) -> [&'static str; 3] {
    match attn.head_dim {
        64 if is_q8 => ["attention_decode_q8_64", "attention_combine_64", "attention_prefill_q8_64"],
        96 if is_q8 => ["attention_decode_q8_96", "attention_combine_96", "attention_prefill_q8_96"],
        128 if is_q8 => ["attention_decode_q8_128", "attention_combine_128", "attention_prefill_q8_128"],
        64 => ["attention_decode_64", "attention_combine_64", "attention_prefill_64"],
        96 => ["attention_decode_96", "attention_combine_96", "attention_prefill_96"],
        128 => ["attention_decode_128", "attention_combine_128", "attention_prefill_128"],
        _ => panic!("attention: {attn:?}: heads of 64, 96 or 128"),
    }
}

/// Blocks that share the keys of a sequence: two for every multiprocessor, of at least [`MIN_PAGES`] pages of the longest
/// context that the tables have room for, and as many as the workspace has room for. (Of the step's dimensions and fixed sizes
/// alone: recordings of a step hold for any lengths.)
fn n_splits(
    attn: AttnShape,
    n_seqs: usize,
    table_len: usize,
    sm_count: usize,
    workspace_bytes: usize,
) -> usize {
    let blocks = n_seqs * attn.n_kv_heads * attn.group().div_ceil(DECODE_HEADS);
    let most_pages = attn.window.map_or(table_len, |window| table_len.min(window.div_ceil(PAGE) + 1));
    let split_bytes = n_seqs * attn.n_heads * (attn.head_dim + 2) * 4;
    let wanted = (2 * sm_count).div_ceil(blocks.max(1));
    wanted.min(most_pages.div_ceil(MIN_PAGES)).min(workspace_bytes / split_bytes.max(1)).max(1)
}

/// The most tiles of queries that a step can have: a sequence of n rows has (n - 1) / tokens + 1.
fn most_tiles(n_tokens: usize, n_seqs: usize, tokens_per_tile: usize) -> usize {
    (n_tokens - n_seqs) / tokens_per_tile + n_seqs
}

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    out: &mut Rows<Cuda<A>, A>,
    qkv: &Rows<Cuda<A>, A>,
    kv: &KvLayer<Cuda<A>>,
    step: &Step<Cuda<A>>,
    attn: AttnShape,
) -> Result<()> {
    check(out, qkv, kv, step, attn);
    assert!(attn.window != Some(0) && attn.group() <= PREFILL_ROWS, "attention: {attn:?}");
    let dims = step.dims;
    assert!([native::<A>(), KvFormat::Q8].contains(&kv.format), "attention: a cache in {}", kv.format);
    let [k_scales, v_scales] = kv.scale_ptrs();
    let buffers = [out.buf.ptr(), qkv.buf.ptr(), kv.k.ptr(), kv.v.ptr(), k_scales, v_scales];
    // A step of one sequence with several rows has no sequence with one.
    if dims.n_seqs == dims.n_tokens || dims.n_seqs > 1 {
        decode(cuda, buffers, step, attn)?;
    }
    if dims.n_seqs == dims.n_tokens { Ok(()) } else { prefill(cuda, buffers, step, attn) }
}

/// Keys that a query sees, as the kernels want it.
fn window(attn: AttnShape) -> u32 {
    attn.window.map_or(u32::MAX, |window| u32::try_from(window).unwrap_or(u32::MAX))
}

/// What scores are multiplied by before they are exponents of 2.
fn scale(attn: AttnShape) -> f32 {
    std::f32::consts::LOG2_E / (attn.head_dim as f32).sqrt()
}

/// Attention of the sequences with one row. `buffers`: out, qkv, k, v, and the scales of q8.
fn decode<A: CudaAct>(
    cuda: &mut Cuda<A>,
    [out, qkv, k, v, k_scales, v_scales]: [u64; 6],
    step: &Step<Cuda<A>>,
    attn: AttnShape,
) -> Result<()> {
    let [decode, combine, _] = kernels(attn, k_scales != 0);
    let (n_seqs, table_len) = (step.dims.n_seqs, step.capacity.table_len);
    let (partials, workspace_bytes) = cuda.workspace();
    let n_splits = n_splits(attn, n_seqs, table_len, cuda.sm_count() as usize, workspace_bytes) as u32;
    let params = AttentionDecodeParams {
        out,
        qkv,
        k,
        v,
        k_scales,
        v_scales,
        positions: step.positions_ptr(),
        slots: step.slots_ptr(),
        q_start: step.q_start_ptr(),
        pages: step.pages_ptr(),
        partials,
        table_len: table_len as u32,
        window: window(attn),
        n_seqs: seqs_in_grid(n_seqs)?,
        n_heads: attn.n_heads as u32,
        n_kv_heads: attn.n_kv_heads as u32,
        n_splits,
        scale: scale(attn),
        padding: 0,
    };
    let heads = params.n_kv_heads * attn.group().div_ceil(DECODE_HEADS) as u32;
    let grid = Grid { blocks: [heads, params.n_seqs, n_splits], threads: 128, shared_bytes: 0 };
    cuda.launch(decode, grid, params)?;
    if n_splits == 1 {
        return Ok(());
    }
    let blocks = [params.n_heads.div_ceil(4), params.n_seqs, 1]; // a warp for each head
    cuda.launch(combine, Grid { blocks, threads: 128, shared_bytes: 0 }, params)
}

/// Attention of the sequences with several rows. `buffers` as above.
fn prefill<A: CudaAct>(
    cuda: &mut Cuda<A>,
    [out, qkv, k, v, k_scales, v_scales]: [u64; 6],
    step: &Step<Cuda<A>>,
    attn: AttnShape,
) -> Result<()> {
    let [_, _, prefill] = kernels(attn, k_scales != 0);
    let params = AttentionPrefillParams {
        out,
        qkv,
        k,
        v,
        k_scales,
        v_scales,
        positions: step.positions_ptr(),
        q_start: step.q_start_ptr(),
        pages: step.pages_ptr(),
        table_len: step.capacity.table_len as u32,
        window: window(attn),
        n_seqs: step.dims.n_seqs as u32,
        n_heads: attn.n_heads as u32,
        n_kv_heads: attn.n_kv_heads as u32,
        scale: scale(attn),
    };
    let tiles = most_tiles(step.dims.n_tokens, step.dims.n_seqs, PREFILL_ROWS / attn.group()) as u32;
    let grid = Grid { blocks: [tiles, params.n_kv_heads, 1], threads: 128, shared_bytes: 0 };
    cuda.launch(prefill, grid, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISTRAL_7B: AttnShape = AttnShape { n_heads: 32, n_kv_heads: 8, head_dim: 128, window: Some(4096) };

    #[test]
    fn splits_fill_the_device_and_fit_the_workspace() {
        assert_eq!(n_splits(MISTRAL_7B, 1, 289, 132, 32 << 20), 33); // 264 blocks
        assert_eq!(n_splits(MISTRAL_7B, 1, 4, 132, 32 << 20), 1); // contexts of up to 64 tokens
        assert_eq!(n_splits(MISTRAL_7B, 64, 289, 132, 32 << 20), 1); // 512 blocks without
        assert_eq!(n_splits(MISTRAL_7B, 1, 289, 132, 100_000), 6);
        for n_seqs in 1..300 {
            let splits = n_splits(MISTRAL_7B, n_seqs, 289, 132, 32 << 20);
            assert!(splits == 1 || n_seqs * 32 * splits * 130 * 4 <= 32 << 20, "{n_seqs}: {splits}");
        }
    }

    #[test]
    fn no_step_has_more_tiles_than_are_launched() {
        for tokens_per_tile in [1, 3, 16, 64] {
            for lens in [&[2, 2, 2][..], &[1, 1, 17], &[16, 16, 16], &[17, 33, 1, 1, 1], &[64], &[65, 2]] {
                let tiles: usize = lens
                    .iter()
                    .map(|&len: &usize| if len > 1 { len.div_ceil(tokens_per_tile) } else { 0 })
                    .sum();
                let most = most_tiles(lens.iter().sum(), lens.len(), tokens_per_tile);
                assert!(tiles <= most, "{lens:?} by {tokens_per_tile}: {tiles}, {most}");
            }
        }
    }
}
