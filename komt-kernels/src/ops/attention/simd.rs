use super::state::{Partials, State};
use crate::cpu::simd::{Simd, Stored, load_at, prefetch_far};
use crate::cpu::{Kernel, SharedMut};
use crate::{AttnShape, MAX_HEAD_DIM, StepBuf};
use komt_cache::{PAGE, first_visible};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Query heads that pass over the keys together.
pub(super) const MAX_GROUP: usize = 8;

/// Queries (rows times heads) that do: 32 accumulators of 128 floats are 16 KiB, a third of a first-level cache.
pub(super) const MAX_QUERIES: usize = 32;

/// Pages of a part: 512 keys. Their results are merged in order (see `State::merge`).
pub(super) const PART_PAGES: usize = 32;

/// The items `items` of the operation: blocks of rows, with a key head and up to `MAX_GROUP` of the query heads that share it.
///
/// One pass over the keys, page by page, with a running maximum (online softmax, arXiv:1805.02867): nothing is allocated, and
/// each key is read once for all queries of the item. Pages and parts begin at multiples of `PAGE` and `PART_PAGES * PAGE` in
/// absolute positions, and a key has its place in its page whatever the row: so the order of all sums follows from the row's
/// position and window alone, not from the rows that share its block.
pub(super) struct Attention<'a, T> {
    pub out: SharedMut<'a, f32>,
    pub qkv: &'a [f32],
    /// `[n_slots, kv_dim]` each, as they are stored.
    pub k: &'a [T],
    pub v: &'a [T],
    /// Of k and v, `[n_pages, n_kv_heads, PAGE]`: empty unless they are q8.
    pub scales: (&'a [f32], &'a [f32]),
    pub step: &'a StepBuf<Vec<u32>>,
    pub attn: AttnShape,
    pub block_rows: usize,
    pub work: Work<'a>,
}

/// What a task does: these of the items, or of their parts.
pub(super) struct Work<'a> {
    pub what: What,
    pub range: Range<usize>,
    pub partials: Partials<'a>,
}

/// What a task does.
#[derive(Clone, Copy)]
pub(super) enum What {
    /// Whole items.
    Items,
    /// Parts of items, to memory.
    Parts,
    /// Items from their parts.
    Merge,
}

/// Rows of one sequence at positions that follow one another, with heads that read the same keys.
struct Queries {
    row: usize,
    n_rows: usize,
    pos: usize,
    seq: u32,
    kv_head: usize,
    heads: Range<usize>,
}

impl AttnShape {
    /// Items of a block of rows.
    pub(super) fn block_items(&self) -> usize {
        self.n_kv_heads * self.group().div_ceil(MAX_GROUP)
    }
}

impl<T: Stored> Kernel for Attention<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Work { what, partials, .. } = &self.work;
        for i in self.work.range.clone() {
            match what {
                What::Items => self.item(
                    i,
                    #[inline(always)]
                    |queries| self.whole(s, queries),
                ),
                What::Parts => self.item(
                    i / partials.n_parts,
                    #[inline(always)]
                    |queries| {
                        let part = i % partials.n_parts;
                        // SAFETY: each part of an item belongs to one task.
                        unsafe {
                            let state =
                                partials.state(i / partials.n_parts, part, queries.n(), self.stride());
                            self.part(s, queries, self.pages(queries).start / PART_PAGES + part, &state);
                        }
                    },
                ),
                What::Merge => self.item(
                    i,
                    #[inline(always)]
                    |queries| self.merge(s, queries, i, partials),
                ),
            }
        }
    }
}

impl Queries {
    fn n(&self) -> usize {
        self.n_rows * self.heads.len()
    }
}

impl<T: Stored> Attention<'_, T> {
    /// Width of an accumulator: whole vectors of any instruction set.
    fn stride(&self) -> usize {
        self.attn.head_dim.next_multiple_of(16)
    }

    /// Calls `f` with the queries of an item, sequence by sequence.
    #[inline(always)]
    fn item(&self, item: usize, f: impl Fn(&Queries)) {
        let (block, rest) = (item / self.attn.block_items(), item % self.attn.block_items());
        let (kv_head, first_head) = (rest % self.attn.n_kv_heads, rest / self.attn.n_kv_heads * MAX_GROUP);
        let group = self.attn.group();
        let heads = kv_head * group + first_head..kv_head * group + group.min(first_head + MAX_GROUP);
        let (positions, seq_of) = (self.step.positions(), self.step.seq_of());
        let end = positions.len().min((block + 1) * self.block_rows);
        let mut row = block * self.block_rows;
        while row < end {
            let (pos, seq) = (positions[row], seq_of[row]);
            let follows =
                |n: &usize| seq_of[row + n] == seq && positions[row + n] as usize == pos as usize + n;
            let n_rows = 1 + (1..end - row).take_while(follows).count();
            f(&Queries { row, n_rows, pos: pos as usize, seq, kv_head, heads: heads.clone() });
            row += n_rows;
        }
    }

    /// The pages with keys that the queries see.
    fn pages(&self, queries: &Queries) -> Range<usize> {
        let first = first_visible(queries.pos, self.attn.window);
        first / PAGE..(queries.pos + queries.n_rows - 1) / PAGE + 1
    }

    fn n_parts(&self, queries: &Queries) -> usize {
        let pages = self.pages(queries);
        (pages.end - 1) / PART_PAGES - pages.start / PART_PAGES + 1
    }

    /// All of the queries' work, on the stack: few queries take a small part of it.
    #[inline(always)]
    fn whole<S: Simd>(&self, s: S, queries: &Queries) {
        let n = queries.n();
        let mut buffers: [MaybeUninit<[f32; MAX_QUERIES * (2 + MAX_HEAD_DIM)]>; 2] =
            [MaybeUninit::uninit(); 2];
        let [total, part] = &mut buffers;
        // SAFETY: room for MAX_QUERIES states of any width; `reset` writes what is read later.
        let (total, part) = unsafe {
            (
                State::new(total.as_mut_ptr().cast(), n, self.stride()),
                State::new(part.as_mut_ptr().cast(), n, self.stride()),
            )
        };
        let first = self.pages(queries).start / PART_PAGES;
        // SAFETY: the states are ours.
        unsafe {
            self.part(s, queries, first, &total);
            for i in 1..self.n_parts(queries) {
                self.part(s, queries, first + i, &part);
                total.merge(s, &part);
            }
            self.write(s, queries, &total);
        }
    }

    /// The queries' output from the states of their item's parts.
    #[inline(always)]
    fn merge<S: Simd>(&self, s: S, queries: &Queries, item: usize, partials: &Partials) {
        // SAFETY: each item belongs to one task, and its parts are done.
        unsafe {
            let total = partials.state(item, 0, queries.n(), self.stride());
            for part in 1..self.n_parts(queries) {
                total.merge(s, &partials.state(item, part, queries.n(), self.stride()));
            }
            self.write(s, queries, &total);
        }
    }

    /// What the queries find in the pages of a part.
    ///
    /// # Safety
    /// The state is the caller's alone.
    #[inline(always)]
    unsafe fn part<S: Simd>(&self, s: S, queries: &Queries, part: usize, state: &State) {
        // SAFETY: the caller's promise.
        unsafe { state.reset() };
        let pages = self.pages(queries);
        for page in pages.start.max(part * PART_PAGES)..pages.end.min((part + 1) * PART_PAGES) {
            // SAFETY: the caller's promise.
            unsafe { self.page(s, queries, page, state) };
        }
    }

    /// The keys of a page: scores, weights, weighted values.
    ///
    /// # Safety
    /// The state is the caller's alone.
    #[inline(always)]
    unsafe fn page<S: Simd>(&self, s: S, queries: &Queries, page: usize, state: &State) {
        let AttnShape { head_dim, window, n_kv_heads, .. } = self.attn;
        let kv_dim = self.attn.kv_dim();
        // Keys `seen` of the page, of which row r sees those between its own first and itself.
        let in_page = |from: usize, to: usize| {
            let page_at = page * PAGE;
            from.clamp(page_at, page_at + PAGE) - page_at..to.clamp(page_at, page_at + PAGE) - page_at
        };
        let seen = in_page(first_visible(queries.pos, window), queries.pos + queries.n_rows);
        let table = self.step.table(queries.seq);
        let at = table[page % table.len()] as usize;
        let numbers = at * PAGE * kv_dim + queries.kv_head * head_dim..;
        let (k, v) = (&self.k[numbers.clone()], &self.v[numbers]);
        // The last row seen ends within the cache.
        let len = if seen.is_empty() { 0 } else { (seen.end - 1) * kv_dim + head_dim };
        let (k, v) = (k[..len].as_ptr(), v[..len].as_ptr());
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut k_scales = [scale; PAGE];
        let mut v_scales = None;
        if !self.scales.0.is_empty() {
            let at = (at * n_kv_heads + queries.kv_head) * PAGE;
            for (k, scale) in k_scales.iter_mut().zip(&self.scales.0[at..][..PAGE]) {
                *k *= scale;
            }
            v_scales = Some(&self.scales.1[at..][..PAGE]);
        }

        let has_next = page + 1 < self.pages(queries).end;
        let next = table[(page + 1) % table.len()] as usize * PAGE * kv_dim + queries.kv_head * head_dim;
        if has_next {
            self.ask(self.k, next);
        }
        let mut weights = MaybeUninit::<[[f32; PAGE]; MAX_QUERIES]>::uninit();
        let weights = weights.as_mut_ptr().cast::<[f32; PAGE]>();
        // SAFETY: `seen` rows of k and v from the slices above; n <= MAX_QUERIES rows of weights, zeroed here; the state as the
        // caller vouches.
        unsafe {
            for q in 0..queries.n() {
                weights.add(q).write([0.0; PAGE]);
            }
            self.scores(s, queries, k, &seen, weights);
            for q in 0..queries.n() {
                let pos = queries.pos + q / queries.heads.len();
                let seen = in_page(first_visible(pos, window), pos + 1);
                state.add_scores(s, q, &mut *weights.add(q), &seen, &k_scales, v_scales);
            }
            if has_next {
                self.ask(self.v, next);
            }
            self.values(s, queries, v, &seen, weights, state);
        }
    }

    /// Asks for a head's rows of a page, which begin at number `at`: each is a few lines, and far from the one before, so that the
    /// CPU does not see the next one coming.
    #[inline(always)]
    fn ask(&self, from: &[T], at: usize) {
        let (kv_dim, row_bytes) = (self.attn.kv_dim(), self.attn.head_dim * size_of::<T>());
        for slot in 0..PAGE {
            let row = from.as_ptr().wrapping_add(at + slot * kv_dim).cast::<u8>();
            for line in (0..row_bytes).step_by(64) {
                prefetch_far(row.wrapping_add(line));
            }
        }
    }

    /// `weights[q][j] = q . k[j]` for the keys `seen`.
    ///
    /// # Safety
    /// Rows `seen` of k can be read, and n rows of weights written.
    #[inline(always)]
    unsafe fn scores<S: Simd>(
        &self,
        s: S,
        queries: &Queries,
        k: *const T,
        seen: &Range<usize>,
        weights: *mut [f32; PAGE],
    ) {
        let n_tile = if S::LANES == 16 { 4 } else { 2 };
        for first in (0..queries.n()).step_by(n_tile) {
            for key in seen.clone().step_by(4) {
                // SAFETY: the caller's promise.
                unsafe {
                    match n_tile.min(queries.n() - first) {
                        4 => self.score_tile::<S, 4>(s, queries, first, k, key, seen.end, weights),
                        3 => self.score_tile::<S, 3>(s, queries, first, k, key, seen.end, weights),
                        2 => self.score_tile::<S, 2>(s, queries, first, k, key, seen.end, weights),
                        _ => self.score_tile::<S, 1>(s, queries, first, k, key, seen.end, weights),
                    }
                }
            }
        }
    }

    /// Queries `first..first + N` with up to four keys from `key` on: each sum has one accumulator a lane, columns in order.
    ///
    /// # Safety
    /// As of `scores`; `key < end`.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "a tile's place in both matrices")]
    unsafe fn score_tile<S: Simd, const N: usize>(
        &self,
        s: S,
        queries: &Queries,
        first: usize,
        k: *const T,
        key: usize,
        end: usize,
        weights: *mut [f32; PAGE],
    ) {
        let (head_dim, kv_dim) = (self.attn.head_dim, self.attn.kv_dim());
        let row_len = self.attn.q_dim() + 2 * kv_dim;
        let mut q = [self.qkv.as_ptr(); N];
        for (i, q) in q.iter_mut().enumerate() {
            let (row, head) = ((first + i) / queries.heads.len(), (first + i) % queries.heads.len());
            let at = (queries.row + row) * row_len + (queries.heads.start + head) * head_dim;
            *q = self.qkv[at..at + head_dim].as_ptr();
        }
        let mut keys = [k; 4];
        for (j, key_at) in keys.iter_mut().enumerate() {
            // Beyond the end the last key stands in.
            // SAFETY: rows before `end`, as the caller vouches.
            *key_at = unsafe { k.add((key + j).min(end - 1) * kv_dim) };
        }
        let mut acc = [[s.splat(0.0); 4]; N];
        let n_full = head_dim - head_dim % S::LANES;
        // SAFETY: `head_dim` columns of each row.
        unsafe {
            for c in (0..n_full).step_by(S::LANES) {
                score_columns(s, &mut acc, &q, &keys, c, S::LANES);
            }
            if n_full < head_dim {
                score_columns(s, &mut acc, &q, &keys, n_full, head_dim - n_full);
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            let sums = s.sum4(acc);
            let n = 4.min(end - key);
            // SAFETY: places key..end <= PAGE of the query's row.
            unsafe {
                let to = weights.add(first + i).cast::<f32>().add(key);
                std::ptr::copy_nonoverlapping(sums.as_ptr(), to, n);
            }
        }
    }

    /// `acc[q] += weights[q][j] v[j]` over the keys `seen`, in order.
    ///
    /// # Safety
    /// Rows `seen` of v and n rows of weights can be read; the state is the caller's alone.
    #[inline(always)]
    unsafe fn values<S: Simd>(
        &self,
        s: S,
        queries: &Queries,
        v: *const T,
        seen: &Range<usize>,
        weights: *const [f32; PAGE],
        state: &State,
    ) {
        let n_tile = if S::LANES == 16 { 4 } else { 2 };
        let (head_dim, kv_dim) = (self.attn.head_dim, self.attn.kv_dim());
        for first in (0..queries.n()).step_by(n_tile) {
            let n = n_tile.min(queries.n() - first);
            let mut c = 0;
            while c < head_dim {
                let left = head_dim - c;
                let wide = left >= 4 * S::LANES;
                // SAFETY: `left` columns of rows `seen`, and accumulators of the queries from column `c` on.
                unsafe {
                    let (acc, v, weights) = (state.acc(first).add(c), v.add(c), weights.add(first));
                    let tile =
                        ValueTile { acc, stride: state.stride, v, kv_dim, left, weights, seen: seen.clone() };
                    match (n, wide) {
                        (4, true) => tile.run::<S, 4, 4>(s),
                        (3, true) => tile.run::<S, 3, 4>(s),
                        (2, true) => tile.run::<S, 2, 4>(s),
                        (_, true) => tile.run::<S, 1, 4>(s),
                        (4, false) => tile.run::<S, 4, 1>(s),
                        (3, false) => tile.run::<S, 3, 1>(s),
                        (2, false) => tile.run::<S, 2, 1>(s),
                        (_, false) => tile.run::<S, 1, 1>(s),
                    }
                }
                c += if wide { 4 * S::LANES } else { S::LANES };
            }
        }
    }

    /// The output: accumulators divided by the sum of the weights.
    ///
    /// # Safety
    /// The state is the caller's alone, and so are the queries' outputs.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, s: S, queries: &Queries, state: &State) {
        let (head_dim, q_dim) = (self.attn.head_dim, self.attn.q_dim());
        for q in 0..queries.n() {
            let (row, head) =
                (queries.row + q / queries.heads.len(), queries.heads.start + q % queries.heads.len());
            // SAFETY: these columns of the row belong to this item alone; `stride` numbers of the accumulator, whole vectors.
            unsafe {
                let out = self.out.slice(row * q_dim + head * head_dim, head_dim);
                let acc = state.acc(q);
                let scale = s.splat(1.0 / state.sum(q));
                for c in (0..state.stride).step_by(S::LANES) {
                    s.store(acc.add(c), s.mul(s.load(acc.add(c)), scale));
                }
                out.copy_from_slice(std::slice::from_raw_parts(acc, head_dim));
            }
        }
    }
}

/// Adds the products of `left` columns (a vector of them, or the tail) from `c` on.
///
/// # Safety
/// These columns of all rows can be read.
#[inline(always)]
unsafe fn score_columns<S: Simd, T: Stored, const N: usize>(
    s: S,
    acc: &mut [[S::V; 4]; N],
    q: &[*const f32; N],
    k: &[*const T; 4],
    c: usize,
    left: usize,
) {
    let mut keys = [s.splat(0.0); 4];
    for (key, k) in keys.iter_mut().zip(k) {
        // SAFETY: as the caller vouches.
        *key = unsafe { load_at(s, k.add(c), left) };
    }
    for (acc, q) in acc.iter_mut().zip(q) {
        // SAFETY: likewise.
        let q = unsafe { load_at(s, q.add(c), left) };
        for j in 0..4 {
            acc[j] = s.mul_add(q, keys[j], acc[j]);
        }
    }
}

/// Columns of a few accumulators, and of the values that are added to them.
struct ValueTile<T> {
    acc: *mut f32,
    stride: usize,
    v: *const T,
    kv_dim: usize,
    left: usize,
    weights: *const [f32; PAGE],
    seen: Range<usize>,
}

impl<T: Stored> ValueTile<T> {
    /// `N` queries, `C` vectors of columns; of one vector it may be the tail.
    ///
    /// # Safety
    /// As of `Attention::values`.
    #[inline(always)]
    unsafe fn run<S: Simd, const N: usize, const C: usize>(self, s: S) {
        let is_full = self.left >= C * S::LANES;
        let mut acc = [[s.splat(0.0); C]; N];
        // SAFETY: accumulators have whole vectors; rows and weights as the caller vouches.
        unsafe {
            for (i, acc) in acc.iter_mut().enumerate() {
                for (c, acc) in acc.iter_mut().enumerate() {
                    *acc = s.load(self.acc.add(i * self.stride + c * S::LANES));
                }
            }
            if is_full {
                for j in self.seen.clone() {
                    let v = self.v.add(j * self.kv_dim);
                    let mut values = [s.splat(0.0); C];
                    for (c, value) in values.iter_mut().enumerate() {
                        *value = T::load(s, v.add(c * S::LANES));
                    }
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let weight = s.splat((*self.weights.add(i))[j]);
                        for c in 0..C {
                            acc[c] = s.mul_add(weight, values[c], acc[c]);
                        }
                    }
                }
            } else {
                for j in self.seen.clone() {
                    let v = T::load_tail(s, self.v.add(j * self.kv_dim), self.left);
                    for (i, acc) in acc.iter_mut().enumerate() {
                        acc[0] = s.mul_add(s.splat((*self.weights.add(i))[j]), v, acc[0]);
                    }
                }
            }
            for (i, acc) in acc.iter().enumerate() {
                for (c, acc) in acc.iter().enumerate() {
                    s.store(self.acc.add(i * self.stride + c * S::LANES), *acc);
                }
            }
        }
    }
}
