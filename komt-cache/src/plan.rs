//! [`StepPlan`]: one forward step as flat arrays.

use crate::{PAGE, PageTable, TokenId};

/// The slot of a padding row: K and V are written nowhere.
pub const PAD_SLOT: u32 = u32::MAX;

/// Which rows of a sequence's chunk somebody wants logits of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: a prefill chunk that is not the last, or an embedding.
    None,
    /// The chunk's last row: what sampling needs.
    Last,
    /// Every row: what scoring needs.
    All,
}

/// The sizes of a step: the key under which a backend may record it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StepDims {
    /// Rows of the step: tokens of all sequences, padding included.
    pub n_tokens: usize,
    /// Sequences of the step.
    pub n_seqs: usize,
    /// Rows whose logits are computed.
    pub n_logits: usize,
}

/// One forward step: the tokens of all its sequences back to back, and where their K and V are.
///
/// Worked example: sequence A decodes its token 20 (pages 7 and 2), sequence B prefills 3 tokens from position 0
/// (page 5) and wants no logits yet; tables are two pages long:
///
/// ```
/// use komt_cache::{Logits, PagePool, PageTable, StepPlan};
/// # let mut pool = PagePool::new(8);
/// # let mut pages = [7, 2, 5].into_iter();
/// # let mut table = |n: usize, pool: &mut PagePool| { let mut t = PageTable::new(2); t.extend(pool, n).unwrap(); t };
/// let a = table(21, &mut pool); // pages 0, 1
/// let b = table(3, &mut pool);  // page 2
/// let mut plan = StepPlan::new(2);
/// plan.push(&a, 20, &[9], Logits::Last);
/// plan.push(&b, 0, &[4, 5, 6], Logits::None);
///
/// assert_eq!(plan.ids,        [9,           4,  5,  6]);
/// assert_eq!(plan.positions,  [20,          0,  1,  2]);
/// assert_eq!(plan.slots,      [1 * 16 + 4, 32, 33, 34]);
/// assert_eq!(plan.seq_of,     [0,           1,  1,  1]);
/// assert_eq!(plan.q_start,    [0,           1,         4]);
/// assert_eq!(plan.pages,      [0, 1,        2, 0]); // B's second page is not there yet: 0, read by nobody
/// assert_eq!(plan.logit_rows, [0]);
/// ```
#[derive(Debug, Clone)]
pub struct StepPlan {
    /// Token ids, `[n_tokens]`.
    pub ids: Vec<TokenId>,
    /// Absolute positions, `[n_tokens]`.
    pub positions: Vec<u32>,
    /// Where each token's K and V go, `[n_tokens]`; [`PAD_SLOT`] writes nothing.
    pub slots: Vec<u32>,
    /// Sequence of each row, `[n_tokens]`.
    pub seq_of: Vec<u32>,
    /// First row of each sequence and the end of the last, `[n_seqs + 1]`.
    pub q_start: Vec<u32>,
    /// Page tables, `[n_seqs, table_len]`.
    pub pages: Vec<u32>,
    /// Rows whose logits are wanted, `[n_logits]`.
    pub logit_rows: Vec<u32>,
    table_len: usize,
}

impl StepPlan {
    /// An empty plan for sequences whose tables are `table_len` pages long.
    pub fn new(table_len: usize) -> Self {
        Self {
            ids: vec![],
            positions: vec![],
            slots: vec![],
            seq_of: vec![],
            q_start: vec![0],
            pages: vec![],
            logit_rows: vec![],
            table_len,
        }
    }

    /// Empties the plan and keeps its memory.
    pub fn clear(&mut self) {
        for array in [
            &mut self.ids,
            &mut self.positions,
            &mut self.slots,
            &mut self.seq_of,
            &mut self.pages,
            &mut self.logit_rows,
        ] {
            array.clear();
        }
        self.q_start.truncate(1);
    }

    /// Adds a sequence: `ids` at positions `start..start + ids.len()`, which `table` has already been extended by.
    ///
    /// # Panics
    /// When `table` has another length than the plan's, does not reach the last position, or `ids` is empty.
    pub fn push(&mut self, table: &PageTable, start: usize, ids: &[TokenId], logits: Logits) {
        let end = start + ids.len();
        assert_eq!(table.table_len(), self.table_len, "StepPlan: length of the page table");
        assert!(
            !ids.is_empty() && end <= table.len(),
            "StepPlan: tokens {start}..{end}, table holds {}",
            table.len()
        );
        let (seq, first_row) = (self.n_seqs() as u32, self.ids.len() as u32);
        for (pos, &id) in (start..end).zip(ids) {
            self.ids.push(id);
            self.positions.push(pos as u32);
            self.slots.push(table.slot(pos));
            self.seq_of.push(seq);
        }
        let n_rows = self.ids.len() as u32;
        self.q_start.push(n_rows);
        self.pages.extend(table.entries());
        match logits {
            Logits::None => {}
            Logits::Last => self.logit_rows.push(n_rows - 1),
            Logits::All => self.logit_rows.extend(first_row..n_rows),
        }
    }

    /// Adds one-token sequences that write nothing and that nobody reads, until there are `n` rows.
    pub fn pad_to(&mut self, n: usize) {
        while self.ids.len() < n {
            self.seq_of.push(self.n_seqs() as u32);
            self.logit_rows.push(self.ids.len() as u32);
            self.ids.push(0);
            self.positions.push(0);
            self.slots.push(PAD_SLOT);
            self.pages.extend(std::iter::repeat_n(0, self.table_len));
            self.q_start.push(self.ids.len() as u32);
        }
    }

    /// Rows so far.
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Sequences so far.
    pub fn n_seqs(&self) -> usize {
        self.q_start.len() - 1
    }

    /// Pages in each sequence's table.
    pub fn table_len(&self) -> usize {
        self.table_len
    }

    /// The sizes of the step.
    pub fn dims(&self) -> StepDims {
        StepDims { n_tokens: self.ids.len(), n_seqs: self.n_seqs(), n_logits: self.logit_rows.len() }
    }

    /// One token a sequence, each with logits: such steps come in few shapes and can be recorded.
    pub fn is_decode(&self) -> bool {
        self.ids.len() == self.n_seqs() && self.logit_rows.len() == self.ids.len()
    }

    /// Slots that the plan's tables can address: what a KV buffer must have at least.
    pub fn n_slots(&self) -> usize {
        self.pages.iter().max().map_or(0, |&page| (page as usize + 1) * PAGE)
    }
}
