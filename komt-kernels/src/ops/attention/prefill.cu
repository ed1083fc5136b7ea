// Attention of sequences with several rows: of a cache of A. (prefill.cuh)
//
// K of the next tile is copied while this one's softmax and P . V run, V of the next during its S.

// Starts the copies of keys `tile * KEYS ..` of K or V. `page` of lane l: page l % 4 of the tile.
template <u32 HEAD_DIM> DEVICE void copy_tile(u32 to, const A *from, u32 kv_dim, const Queries &queries, u32 tile, u32 page) {
    using L = Layout<HEAD_DIM>;
    const u32 first = queries.first_key - tile * KEYS, span = queries.last_key - queries.first_key;
    auto seen = [&](u32 key) { return key - first <= span; }; // first <= key <= last, modulo 2^32
    if constexpr (THREADS % L::UNITS == 0) { // a thread has one unit of every (THREADS / UNITS)-th row
        constexpr u32 STEP = THREADS / L::UNITS;
        const u32 row = threadIdx.x / L::UNITS, unit = threadIdx.x % L::UNITS;
        from += row * kv_dim + unit * 8;
        to += L::at(row, unit); // STEP is a multiple of 8: the swizzle of all its rows
#pragma unroll
        for (u32 i = 0; i < KEYS / PAGE; i++) {
            const A *of_page = from + u64(__shfl_sync(~0u, page, i)) * (PAGE * kv_dim);
#pragma unroll
            for (u32 r = 0; r < PAGE; r += STEP) {
                cp_async16(to + (i * PAGE + r) * L::ROW_BYTES, of_page + r * kv_dim, seen(i * PAGE + r + row));
            }
        }
    } else {
#pragma unroll
        for (u32 turn = 0; turn < KEYS * L::UNITS / THREADS; turn++) {
            const u32 e = turn * THREADS + threadIdx.x, key = e / L::UNITS, unit = e % L::UNITS;
            const u32 slot = __shfl_sync(~0u, page, key / PAGE) * PAGE + key % PAGE;
            cp_async16(to + L::at(key, unit), from + u64(slot) * kv_dim + unit * 8, seen(key));
        }
    }
}

template <u32 HEAD_DIM> DEVICE void attention_prefill(const AttentionPrefillParams &p) {
    using L = Layout<HEAD_DIM>;
    __shared__ __align__(128) u8 k_tile[L::BYTES], v_tile[L::BYTES];
    const u32 k_shared = shared_address(k_tile), v_shared = shared_address(v_tile);
    const Queries queries(p, ROWS / (p.n_heads / p.n_kv_heads));
    if (queries.none) return;
    const u32 kv_dim = p.n_kv_heads * HEAD_DIM;
    const A *k = static_cast<const A *>(p.k) + blockIdx.y * HEAD_DIM, *v = static_cast<const A *>(p.v) + blockIdx.y * HEAD_DIM;
    const u32 first = queries.first_key / KEYS, last = queries.last_key / KEYS;
    u32 page = page_of(p, queries, first);
    copy_tile<HEAD_DIM>(k_shared, k, kv_dim, queries, first, page);
    cp_async_commit();
    copy_tile<HEAD_DIM>(v_shared, v, kv_dim, queries, first, page);
    cp_async_commit();

    auto same = [](uint4 numbers) { return numbers; };
    Rows<HEAD_DIM> rows;
    rows.begin(p, queries, same);
    for (u32 tile = first; tile <= last; tile++) {
        float s[KEYS / 8][4];
        cp_async_wait<1>(); // K; V may be under way
        __syncthreads();
        rows.scores(s, k_tile);
        __syncthreads(); // nobody reads K any more
        if (tile < last) {
            page = page_of(p, queries, tile + 1);
            copy_tile<HEAD_DIM>(k_shared, k, kv_dim, queries, tile + 1, page);
        }
        cp_async_commit();
        if (needs_mask(p, queries, tile)) rows.mask(s, tile * KEYS, p.window);
        rows.softmax(s, p.scale);
        cp_async_wait<1>(); // V; the next K may be under way
        __syncthreads();
        rows.add_values(s, v_shared);
        __syncthreads(); // nobody reads V any more
        if (tile < last) copy_tile<HEAD_DIM>(v_shared, v, kv_dim, queries, tile + 1, page);
        cp_async_commit();
    }
    rows.finish(p, queries, k_tile, 1.0f, same);
}

#define INSTANCE(HEAD_DIM)                                                                                             \
    extern "C" __global__ void PREFILL_BOUNDS(HEAD_DIM) attention_prefill_##HEAD_DIM(const AttentionPrefillParams p) { \
        attention_prefill<HEAD_DIM>(p);                                                                                \
    }
INSTANCE(64)
INSTANCE(96)
INSTANCE(128)
