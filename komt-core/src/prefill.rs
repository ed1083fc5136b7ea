//! [`Prefill`]: whole texts through the model, packed into steps without padding. Embeddings and scores are made of it.

use crate::runner::{Run, Until};
use crate::{Error, Model, Result};
use komt_cache::{Logits, PAGE, PagePool, PageTable, StepPlan};
use komt_kernels::{KvFormat, StepCapacity};
use std::sync::{Mutex, PoisonError};

/// Texts in one step at most: the page tables of a step are made for them.
const MAX_SEQS: usize = 64;

/// Runs texts and shows every row of the result.
pub(crate) struct Prefill {
    model: Model,
    max_context: usize,
    until: Until,
    state: Mutex<State>,
}

struct State {
    run: Box<dyn Run>,
    pool: PagePool,
    plan: StepPlan,
}

/// A part of a text in a step.
struct Part {
    text: usize,
    start: usize,
    len: usize,
}

/// Runs a planned step, and does with the result what is to be done.
type OnStep<'a> = &'a mut dyn FnMut(&mut dyn Run, &mut StepPlan, &[Part]) -> Result<()>;

impl Part {
    /// Text and position of each token.
    fn tokens(&self) -> impl Iterator<Item = (usize, usize)> {
        let text = self.text;
        (self.start..self.start + self.len).map(move |pos| (text, pos))
    }
}

impl Prefill {
    /// For steps of up to `max_step_tokens` and texts of up to `max_context` tokens (`None`: as an engine's).
    pub fn new(
        model: &Model,
        until: Until,
        max_step_tokens: usize,
        max_context: Option<usize>,
        kv_format: Option<KvFormat>,
    ) -> Result<Self> {
        let mut options = crate::EngineOptions::default().max_seqs(MAX_SEQS).max_step_tokens(max_step_tokens);
        (options.max_context, options.kv_format) = (max_context, kv_format);
        options.check(model.config())?;
        let max_context = options.context(model.config());
        let mut capacity = options.capacity(model.config());
        let table_len = capacity.step.table_len;
        // Room for one text that goes on over many steps, and for the short ones behind it.
        capacity.n_pages = table_len + max_step_tokens.div_ceil(PAGE) + MAX_SEQS;
        capacity.step.max_logits = match until {
            Until::Logits | Until::Largest(_) => capacity.step.max_tokens,
            Until::Hidden => 0,
        };
        let run = model.runner(capacity)?;
        let state = State { run, pool: PagePool::new(capacity.n_pages), plan: StepPlan::new(table_len) };
        Ok(Self { model: model.clone(), max_context, until, state: Mutex::new(state) })
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Runs `texts` (ids) and calls `visit(text, position, row)` for every token, in order. A row is `[dim]` or
    /// `[vocab_size]`.
    pub fn each_row(&self, texts: &[Vec<u32>], visit: &mut dyn FnMut(usize, usize, &[f32])) -> Result<()> {
        let width = match self.until {
            Until::Hidden => self.model.config().dim,
            Until::Logits | Until::Largest(_) => self.model.config().vocab_size,
        };
        self.each_step(texts, &mut |run, plan, parts| {
            let rows = run.run(plan, self.until)?;
            for ((text, pos), row) in parts.iter().flat_map(Part::tokens).zip(rows.chunks_exact(width)) {
                visit(text, pos, row);
            }
            Ok(())
        })
    }

    /// Runs `texts` and calls `visit(text, sum)` for each, in order: `sum [dim]` is that of its hidden states, each times
    /// `weight(text, position)`.
    pub fn each_sum(
        &self,
        texts: &[Vec<u32>],
        weight: &dyn Fn(usize, usize) -> f32,
        visit: &mut dyn FnMut(usize, &[f64]),
    ) -> Result<()> {
        let dim = self.model.config().dim;
        let (mut weights, mut sums) = (vec![], vec![]);
        let mut unfinished = vec![0.0; dim]; // the sum of the text that goes on in the next step
        self.each_step(texts, &mut |run, plan, parts| {
            weights.clear();
            weights.extend(parts.iter().flat_map(Part::tokens).map(|(text, pos)| weight(text, pos)));
            sums.clear();
            sums.resize(parts.len() * dim, 0.0);
            if parts[0].start > 0 {
                sums[..dim].copy_from_slice(&unfinished);
            }
            run.run_pooled(plan, &weights, &mut sums)?;
            for (part, sum) in parts.iter().zip(sums.chunks_exact(dim)) {
                match part.start + part.len == texts[part.text].len() {
                    true => visit(part.text, sum),
                    false => unfinished.copy_from_slice(sum),
                }
            }
            Ok(())
        })
    }

    /// Runs `texts`: calls `step` with every step that was planned.
    fn each_step(&self, texts: &[Vec<u32>], step: OnStep<'_>) -> Result<()> {
        for (text, ids) in texts.iter().enumerate() {
            self.model.check_ids(ids).map_err(|error| error.of_text(text))?;
            if ids.len() > self.max_context {
                return Err(Error::TooLong { tokens: ids.len(), max: self.max_context }.of_text(text));
            }
        }
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let table_len = state.plan.table_len();
        // Every call starts with all pages free, whatever became of the last one.
        state.pool = PagePool::new(state.pool.n_pages());
        let (mut text, mut table) = (0, PageTable::new(table_len));
        while text < texts.len() {
            let (parts, mut finished) = state.fill(texts, &mut text, &mut table, self.until);
            step(&mut *state.run, &mut state.plan, &parts)?;
            finished.iter_mut().for_each(|table| table.clear(&mut state.pool));
        }
        Ok(())
    }
}

impl State {
    /// Fills the plan with the rest of the current text and as much as fits of those behind it. Returns the parts, and the
    /// tables of the texts that end in this step.
    fn fill(
        &mut self,
        texts: &[Vec<u32>],
        text: &mut usize,
        table: &mut PageTable,
        until: Until,
    ) -> (Vec<Part>, Vec<PageTable>) {
        let StepCapacity { max_tokens, max_seqs, table_len, .. } = self.run.capacity().step;
        let logits = if until == Until::Logits { Logits::All } else { Logits::None };
        let (mut parts, mut finished) = (vec![], vec![]);
        self.plan.clear();
        while *text < texts.len() && parts.len() < max_seqs && self.plan.n_tokens() < max_tokens {
            let (ids, start) = (&texts[*text], table.len());
            let len = (ids.len() - start).min(max_tokens - self.plan.n_tokens());
            table
                .extend(&mut self.pool, len)
                .expect("there are pages for one long text and a step of short ones");
            self.plan.push(table, start, &ids[start..start + len], logits);
            parts.push(Part { text: *text, start, len });
            if start + len == ids.len() {
                finished.push(std::mem::replace(table, PageTable::new(table_len)));
                *text += 1;
            }
        }
        (parts, finished)
    }
}
