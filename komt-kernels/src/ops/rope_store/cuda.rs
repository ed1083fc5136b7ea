//! `rope_store` on CUDA.

use super::check;
use crate::cuda::{Cuda, CudaAct, CudaBuf, Grid, KernelSpec, Params, Source};
use crate::kv::native;
use crate::{AttnShape, KvFormat, KvLayer, Result, Rows, Step};

/// The kernels.
pub(crate) const SOURCES: &[Source] = &[Source {
    name: "rope_store/rope_store.cu",
    text: include_str!("rope_store.cu"),
    kernels: &[
        KernelSpec { name: "rope_store", max_shared_bytes: 0 },
        KernelSpec { name: "rope_store_q8", max_shared_bytes: 0 },
    ],
}];

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RopeStoreParams {
    qkv: u64,
    k: u64,
    v: u64,
    inv_freq: u64,
    positions: u64,
    slots: u64,
    k_scales: u64,
    v_scales: u64,
    n_heads: u32,
    n_kv_heads: u32,
    head_dim: u32,
    padding: u32,
}
const _: () = assert!(size_of::<RopeStoreParams>() == 80);
// SAFETY: as in rope_store.cu; `run` has compared the buffers' shapes, and a plan's slots are the cache's.
unsafe impl Params for RopeStoreParams {}

pub(crate) fn run<A: CudaAct>(
    cuda: &mut Cuda<A>,
    qkv: &mut Rows<Cuda<A>, A>,
    kv: &mut KvLayer<Cuda<A>>,
    step: &Step<Cuda<A>>,
    inv_freq: &CudaBuf<f32>,
    attn: AttnShape,
) -> Result<()> {
    check(qkv, kv, step, inv_freq.len(), attn);
    assert!(attn.head_dim.is_multiple_of(16) && attn.head_dim <= 128, "rope_store: {attn:?}");
    // Few rows are spread over several blocks each, an item a thread; with many rows, one block makes the sines once.
    let items = (attn.n_heads + attn.n_kv_heads) * attn.head_dim / 16 + attn.kv_dim() / 8;
    let per_row = if qkv.rows <= 64 { items.div_ceil(128) } else { 1 };
    let [k_scales, v_scales] = kv.scale_ptrs();
    let params = RopeStoreParams {
        qkv: qkv.buf.ptr(),
        k: kv.k.ptr(),
        v: kv.v.ptr(),
        inv_freq: inv_freq.ptr(),
        positions: step.positions_ptr(),
        slots: step.slots_ptr(),
        k_scales,
        v_scales,
        n_heads: attn.n_heads as u32,
        n_kv_heads: attn.n_kv_heads as u32,
        head_dim: attn.head_dim as u32,
        padding: 0,
    };
    let grid = Grid { blocks: [qkv.rows as u32, per_row as u32, 1], threads: 128, shared_bytes: 0 };
    let is_q8 = kv.format == KvFormat::Q8;
    assert!(is_q8 || kv.format == native::<A>(), "rope_store: a cache in {}", kv.format);
    cuda.launch(if is_q8 { "rope_store_q8" } else { "rope_store" }, grid, params)
}
