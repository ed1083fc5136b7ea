//! Where each token's K and V live.
//!
//! Plain host arithmetic: no device memory, no unsafe code. Three types carry it:
//!
//! * [`PagePool`] hands out pages of [`PAGE`] slots and counts who uses them;
//! * [`PageTable`] maps the absolute positions of one sequence to slots;
//! * [`StepPlan`] is one forward step of many sequences as flat arrays, ready to be copied to a device.
//!
//! One address formula serves contiguous, paged and rolling caches alike (`table_len` counts pages):
//!
//! ```text
//! page = table[(pos / PAGE) % table_len]        slot = page * PAGE + pos % PAGE
//! ```
//!
//! A contiguous cache is a table of consecutive pages; full attention is a ring that never wraps; a sliding window
//! is a ring of [`ring_len`] pages whose oldest page is written again.
//!
//! ```
//! use komt_cache::{Logits, PagePool, PageTable, StepPlan, ring_len};
//!
//! let mut pool = PagePool::new(64);
//! let table_len = ring_len(None, 32, 256); // no window, chunks of 32 at most, 256 tokens at most
//! let mut table = PageTable::new(table_len);
//! table.extend(&mut pool, 3)?; // room for three tokens
//!
//! let mut plan = StepPlan::new(table_len);
//! plan.push(&table, 0, &[1, 733, 16289], Logits::Last);
//! assert_eq!(plan.positions, [0, 1, 2]);
//! assert_eq!(plan.logit_rows, [2]);
//! table.clear(&mut pool);
//! assert_eq!(pool.n_free(), 64);
//! # Ok::<(), komt_cache::Error>(())
//! ```
#![forbid(unsafe_code)]

mod page;
mod plan;

pub use page::{PAGE, PagePool, PageTable, first_visible, ring_len};
pub use plan::{Logits, PAD_SLOT, StepDims, StepPlan};

/// A token id: an index into the vocabulary.
pub type TokenId = u32;

/// What can go wrong from outside. Broken invariants of ours are assertions instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pool has fewer free pages than an extension needs. Nothing was taken.
    #[error("KV cache: {needed} more pages of {PAGE} tokens needed, {free} of {total} free")]
    NoFreePages {
        /// Pages the extension needs.
        needed: usize,
        /// Pages that are free.
        free: usize,
        /// Pages of the pool.
        total: usize,
    },
}
