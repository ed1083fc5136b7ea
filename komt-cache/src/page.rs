//! [`PagePool`], [`PageTable`], the window rule and the ring rule.

use crate::Error;

/// Tokens per page. 16: small enough that a sequence wastes half a page (8 tokens) on average, large enough that
/// attention reads runs of 16 keys and that a table of 32,768 tokens is 2,048 entries.
pub const PAGE: usize = 16;

/// An entry of a table that has no page yet.
const NO_PAGE: u32 = u32::MAX;

/// The first position that the query at `pos` attends to: keys `first_visible(pos, window)..=pos`.
///
/// `window` counts the query itself, as transformers, vLLM and mistral.rs do: query i sees key j iff `j <= i` and
/// `i - j < window`. `None` sees everything. Every backend and every test takes the rule from here.
///
/// ```
/// use komt_cache::first_visible;
/// assert_eq!(first_visible(9, Some(4)), 6); // keys 6, 7, 8, 9
/// assert_eq!(first_visible(2, Some(4)), 0);
/// assert_eq!(first_visible(9, None), 0);
/// ```
pub const fn first_visible(pos: usize, window: Option<usize>) -> usize {
    match window {
        Some(window) => (pos + 1).saturating_sub(window),
        None => 0,
    }
}

/// Pages that the ring of one sequence needs, so that sequences of up to `max_context` tokens can be run in chunks of
/// up to `max_chunk` tokens.
///
/// A step stores the K and V of its whole chunk and attends afterwards, so the chunk must not overwrite a key that its
/// first query still sees: `window + max_chunk - 1` slots. One more page lets whole pages be replaced (a page shared
/// with another sequence is never written) and lets a fork keep the keys of its last full page.
///
/// Without a window the ring never wraps. With one it is never longer than without.
///
/// ```
/// use komt_cache::ring_len;
/// assert_eq!(ring_len(None, 512, 4096), 256);
/// assert_eq!(ring_len(Some(4096), 512, 32768), 289); // (4096 + 511) / 16 = 287.9 -> 288, and one
/// assert_eq!(ring_len(Some(4096), 512, 1024), 64);   // shorter than the window: it never wraps
/// ```
pub const fn ring_len(window: Option<usize>, max_chunk: usize, max_context: usize) -> usize {
    let whole = max_context.div_ceil(PAGE);
    match window {
        Some(window) => {
            let ring = window.saturating_add(max_chunk).saturating_sub(1).div_ceil(PAGE) + 1;
            if ring < whole { ring } else { whole }
        }
        None => whole,
    }
}

/// Pages of [`PAGE`] slots: a free list with reference counts, so that sequences can share a prefix.
#[derive(Debug, Clone)]
pub struct PagePool {
    refs: Vec<u32>, // [n_pages] sequences that use the page
    free: Vec<u32>, // pages with refs == 0; the next one is taken from the end
}

impl PagePool {
    /// A pool of `n_pages` free pages, numbered from 0.
    ///
    /// # Panics
    /// When the slots of `n_pages` do not fit in `u32`.
    pub fn new(n_pages: usize) -> Self {
        assert!(n_pages < u32::MAX as usize / PAGE, "PagePool: {n_pages} pages of {PAGE} slots exceed u32");
        Self { refs: vec![0; n_pages], free: (0..n_pages as u32).rev().collect() }
    }

    /// Pages in all.
    pub fn n_pages(&self) -> usize {
        self.refs.len()
    }

    /// Pages that nobody uses.
    pub fn n_free(&self) -> usize {
        self.free.len()
    }

    /// How many tables use `page`.
    pub fn ref_count(&self, page: u32) -> u32 {
        self.refs[page as usize]
    }

    /// Takes a page with one reference; `None` when all are in use.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.refs[page as usize] = 1;
        Some(page)
    }

    /// Adds a reference to a page in use.
    pub fn retain(&mut self, page: u32) {
        let refs = &mut self.refs[page as usize];
        assert!(*refs > 0, "PagePool: page {page} is free, it cannot be shared");
        *refs += 1;
    }

    /// Drops a reference; the last one frees the page.
    pub fn release(&mut self, page: u32) {
        let refs = &mut self.refs[page as usize];
        assert!(*refs > 0, "PagePool: page {page} released twice");
        *refs -= 1;
        if *refs == 0 {
            self.free.push(page);
        }
    }
}

/// The ring of pages of one sequence.
///
/// Worked example with `table_len = 3` and tokens 0..=50 stored: positions 0..=15 went to `table[0]`, 16..=31 to
/// `table[1]`, 32..=47 to `table[2]`, and 48..=50 to `table[0]` again, over positions 0..=2. `oldest()` is then 16: page
/// by page, what came before 16 counts as lost.
///
/// Pages are taken from the pool as the sequence grows, and go back with [`PageTable::clear`]: a table does not know its
/// pool, so dropping one that still holds pages leaks them until the pool itself goes.
#[derive(Debug)]
pub struct PageTable {
    pages: Vec<u32>, // [table_len], NO_PAGE where none was needed yet
    len: usize,
    oldest: usize,
}

impl PageTable {
    /// An empty table of `table_len` pages (see [`ring_len`]).
    pub fn new(table_len: usize) -> Self {
        assert!(table_len > 0, "PageTable: a table needs a page");
        Self { pages: vec![NO_PAGE; table_len], len: 0, oldest: 0 }
    }

    /// Tokens stored, those that the ring has overwritten included: the position of the next token.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pages in the ring, taken or not.
    pub fn table_len(&self) -> usize {
        self.pages.len()
    }

    /// Oldest position whose K and V are still there.
    pub fn oldest(&self) -> usize {
        self.oldest
    }

    /// Slot of position `pos`, which must lie in a page that was taken.
    pub fn slot(&self, pos: usize) -> u32 {
        let page = self.pages[(pos / PAGE) % self.pages.len()];
        assert!(
            page != NO_PAGE,
            "PageTable: position {pos} has no page (stored: {}..{})",
            self.oldest,
            self.len
        );
        page * PAGE as u32 + (pos % PAGE) as u32
    }

    /// The table as a step plan wants it: entries without a page are 0 (no query reads them).
    pub fn entries(&self) -> impl Iterator<Item = u32> + '_ {
        self.pages.iter().map(|&page| if page == NO_PAGE { 0 } else { page })
    }

    /// Pages in use.
    pub fn n_pages(&self) -> usize {
        self.pages.iter().filter(|&&page| page != NO_PAGE).count()
    }

    /// Logical pages (`pos / PAGE`) that positions `self.len..self.len + n` open.
    fn opened(&self, n: usize) -> std::ops::Range<usize> {
        self.len.div_ceil(PAGE)..(self.len + n).div_ceil(PAGE)
    }

    /// Free pages that [`PageTable::extend`] by `n` tokens takes.
    pub fn needed(&self, pool: &PagePool, n: usize) -> usize {
        // A ring opens each of its entries once at most: a chunk is shorter than the ring.
        let opened = self.opened(n);
        assert!(
            opened.len() <= self.pages.len(),
            "PageTable: {n} tokens at once in {} pages",
            self.pages.len()
        );
        opened
            .map(|logical| self.pages[logical % self.pages.len()])
            .filter(|&page| must_take(page, pool))
            .count()
    }

    /// Makes room for `n` more tokens: takes pages for new positions, writes again over the oldest page of a full ring,
    /// and replaces such a page when another sequence shares it. All or nothing.
    ///
    /// # Errors
    /// [`Error::NoFreePages`]; the table and the pool are then as before.
    pub fn extend(&mut self, pool: &mut PagePool, n: usize) -> Result<(), Error> {
        let needed = self.needed(pool, n);
        if needed > pool.n_free() {
            return Err(Error::NoFreePages { needed, free: pool.n_free(), total: pool.n_pages() });
        }
        let table_len = self.pages.len();
        for logical in self.opened(n) {
            let entry = &mut self.pages[logical % table_len];
            if must_take(*entry, pool) {
                let fresh = pool.take().expect("enough free pages were counted");
                let shared = std::mem::replace(entry, fresh);
                if shared != NO_PAGE {
                    pool.release(shared);
                }
            }
            self.oldest = self.oldest.max((logical + 1).saturating_sub(table_len) * PAGE);
        }
        self.len += n;
        Ok(())
    }

    /// A second sequence with the same prefix: it shares the full pages and starts at their end, at most `PAGE - 1`
    /// tokens before this one (those are to be run again; nothing is copied). It starts empty when the ring has lost a
    /// key that its first position sees through `window`.
    pub fn fork(&self, pool: &mut PagePool, window: Option<usize>) -> PageTable {
        let mut fork = PageTable::new(self.pages.len());
        let len = self.len / PAGE * PAGE;
        if first_visible(len, window) < self.oldest {
            return fork;
        }
        (fork.len, fork.oldest) = (len, self.oldest);
        for logical in self.oldest / PAGE..len / PAGE {
            let i = logical % self.pages.len();
            pool.retain(self.pages[i]);
            fork.pages[i] = self.pages[i];
        }
        fork
    }

    /// Forgets the positions from `len` on and returns the length that is left: `len`, or less where `len` lies inside a
    /// page shared with another sequence (it must not be written), or 0 when the ring has lost a key that the next
    /// position sees through `window`.
    pub fn truncate(&mut self, pool: &mut PagePool, len: usize, window: Option<usize>) -> usize {
        if len >= self.len {
            return self.len;
        }
        if len == 0 || first_visible(len, window) < self.oldest {
            self.clear(pool);
            return 0;
        }
        let table_len = self.pages.len();
        if !len.is_multiple_of(PAGE) && pool.ref_count(self.pages[len / PAGE % table_len]) > 1 {
            return self.truncate(pool, len / PAGE * PAGE, window);
        }
        for logical in len.div_ceil(PAGE)..self.len.div_ceil(PAGE) {
            pool.release(std::mem::replace(&mut self.pages[logical % table_len], NO_PAGE));
        }
        self.len = len;
        len
    }

    /// Gives every page back.
    pub fn clear(&mut self, pool: &mut PagePool) {
        for page in &mut self.pages {
            if *page != NO_PAGE {
                pool.release(std::mem::replace(page, NO_PAGE));
            }
        }
        (self.len, self.oldest) = (0, 0);
    }
}

/// An entry that is to be written needs a page of its own.
fn must_take(page: u32, pool: &PagePool) -> bool {
    page == NO_PAGE || pool.ref_count(page) > 1
}
