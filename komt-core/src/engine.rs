//! [`Engine`]: many sequences at once, step by step.

use crate::runner::{Run, Until};
use crate::sequence::{FinishReason, Sequence, Token, Turn};
use crate::{EngineOptions, Error, GenerateOptions, Model, Result};
use komt_cache::{Logits, PagePool, PageTable, StepPlan};
use komt_kernels::{Error as DeviceError, StepCapacity};
use std::collections::BTreeMap;

/// The number of a sequence, never used twice by an engine.
pub type SeqId = u64;

/// What happened to a sequence in a step.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// It has one more token.
    Token {
        /// The sequence.
        seq: SeqId,
        /// The token.
        token: Token,
    },
    /// Its answer has ended.
    Done {
        /// The sequence.
        seq: SeqId,
        /// Why.
        reason: FinishReason,
        /// Text that was held back when it was cancelled; empty at every other end.
        tail: String,
    },
    /// An error has ended it; the others go on.
    Failed {
        /// The sequence.
        seq: SeqId,
        /// The error.
        error: Error,
    },
}

impl Event {
    /// The sequence that it happened to.
    pub fn seq(&self) -> SeqId {
        match self {
            Event::Token { seq, .. } | Event::Done { seq, .. } | Event::Failed { seq, .. } => *seq,
        }
    }
}

/// Generates many sequences at once: `submit`, `step` until nothing is left, `cancel` at any time.
///
/// 1. [`Engine::submit`] queues a prompt; [`Engine::open`] and [`Engine::append`] do so for a conversation whose cache
///    stays between turns.
/// 2. [`Engine::step`] runs one forward pass: first one token of each sequence that is decoding, then chunks of prompts,
///    oldest first, up to `max_step_tokens`. It returns what happened.
/// 3. When the cache is full, parked conversations and then the youngest sequences give their pages up, and are computed
///    again when it is their turn. Nobody's result changes: a sequence's tokens depend on its own prompt and options.
///
/// It is `Send`: it can live on a thread of its own, with events leaving over a channel (see the example `frontend`).
///
/// ```
/// use komt_core::{Engine, EngineOptions, Event, GenerateOptions, LoadOptions, Model};
/// # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo-model");
/// let model = Model::load(dir, LoadOptions::default())?;
/// let mut engine = Engine::new(&model, EngineOptions::default())?;
/// let prompt = model.tokenizer()?.encode_with_bos("[INST]Hello [/INST]")?;
/// let seq = engine.submit(&prompt, GenerateOptions::default().max_new_tokens(8))?;
/// let mut n_tokens = 0;
/// while !engine.is_idle() {
///     for event in engine.step()? {
///         assert_eq!(event.seq(), seq);
///         n_tokens += matches!(event, Event::Token { .. }) as usize;
///     }
/// }
/// assert!((1..=8).contains(&n_tokens));
/// # Ok::<(), komt_core::Error>(())
/// ```
pub struct Engine {
    model: Model,
    run: Box<dyn Run>,
    pool: PagePool,
    plan: StepPlan,
    seqs: BTreeMap<SeqId, Sequence>,
    next_seq: SeqId,
    max_context: usize,
    events: Vec<Event>,        // for the next step to return
    in_flight: Vec<Scheduled>, // what the step that is being run stores
}

/// A sequence in the step that is being run.
struct Scheduled {
    seq: SeqId,
    start: usize,
    wants_logits: bool,
}

impl Engine {
    /// An engine on `model`, with all its memory.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::NotEnoughMemory`].
    pub fn new(model: &Model, options: EngineOptions) -> Result<Self> {
        options.check(model.config())?;
        let capacity = options.capacity(model.config());
        Ok(Self {
            run: model.runner(capacity)?,
            pool: PagePool::new(capacity.n_pages),
            plan: StepPlan::new(capacity.step.table_len),
            seqs: BTreeMap::new(),
            next_seq: 1,
            max_context: options.context(model.config()),
            events: vec![],
            in_flight: vec![],
            model: model.clone(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The longest sequence, in tokens.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    /// Pages of the KV cache that are free, and all of them.
    pub fn pages(&self) -> (usize, usize) {
        (self.pool.n_free(), self.pool.n_pages())
    }

    /// Queues a prompt of token ids, BOS included where the model wants one. The sequence closes when its answer ends.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::TokenId`], [`Error::TooLong`], and for wrong options [`Error::Option`] or
    /// [`Error::Sample`].
    pub fn submit(&mut self, prompt: &[u32], options: GenerateOptions) -> Result<SeqId> {
        let seq = self.open();
        let appended = self.append(seq, prompt, options);
        match appended {
            Ok(()) => self.sequence(seq)?.stays = false,
            Err(_) => self.close(seq),
        }
        appended.map(|()| seq)
    }

    /// Opens an empty sequence that stays, with its cache, until it is closed.
    pub fn open(&mut self) -> SeqId {
        let seq = self.next_seq;
        self.next_seq += 1;
        let table = PageTable::new(self.plan.table_len());
        self.seqs.insert(seq, Sequence { tokens: vec![], table, turn: None, stays: true });
        seq
    }

    /// Starts a turn: `ids` follow what the sequence holds, and are answered.
    ///
    /// # Errors
    /// As [`Engine::submit`]; [`Error::UnknownSequence`], [`Error::Busy`]. The sequence is then as before.
    pub fn append(&mut self, seq: SeqId, ids: &[u32], options: GenerateOptions) -> Result<()> {
        let (model, max) = (self.model.clone(), self.max_context - 1);
        model.check_ids(ids)?;
        options.check(model.config().vocab_size)?;
        let tokenizer = model.tokenizer();
        if !options.stop.is_empty() {
            model.tokenizer()?;
        }
        let sequence = self.sequence(seq)?;
        if sequence.turn.is_some() {
            return Err(Error::Busy { seq });
        }
        let tokens = [&sequence.tokens, ids].concat();
        if tokens.len() > max {
            return Err(Error::TooLong { tokens: tokens.len(), max });
        }
        sequence.turn = Some(Turn::new(options, &tokens, model.config().vocab_size, tokenizer.ok())?);
        sequence.tokens = tokens;
        Ok(())
    }

    /// Forgets the tokens of a parked sequence from `len` on: to edit a prompt, or to answer it again. Their cache goes with
    /// them; what the ring of a window has lost is computed again.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`], [`Error::Busy`].
    pub fn rewind(&mut self, seq: SeqId, len: usize) -> Result<()> {
        self.forget_unfinished();
        let window = self.model.config().window;
        let sequence = self.seqs.get_mut(&seq).ok_or(Error::UnknownSequence { seq })?;
        if sequence.turn.is_some() {
            return Err(Error::Busy { seq });
        }
        sequence.tokens.truncate(len);
        sequence.table.truncate(&mut self.pool, len, window);
        Ok(())
    }

    /// A new sequence with the tokens of a parked one, sharing the full pages of its cache.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`], [`Error::Busy`].
    pub fn fork(&mut self, seq: SeqId) -> Result<SeqId> {
        self.forget_unfinished();
        let window = self.model.config().window;
        let parent = self.seqs.get(&seq).ok_or(Error::UnknownSequence { seq })?;
        if parent.turn.is_some() {
            return Err(Error::Busy { seq });
        }
        let (tokens, table) = (parent.tokens.clone(), parent.table.fork(&mut self.pool, window));
        let fork = self.open();
        self.seqs.insert(fork, Sequence { tokens, table, turn: None, stays: true });
        Ok(fork)
    }

    /// Tokens of a sequence: prompts and answers, with the EOS that ended them.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn tokens(&self, seq: SeqId) -> Result<&[u32]> {
        self.seqs.get(&seq).map(|s| s.tokens.as_slice()).ok_or(Error::UnknownSequence { seq })
    }

    /// Ends the answer of a sequence; the next step tells with [`Event::Done`]. A sequence that was submitted frees its
    /// pages, one that was opened stays with what it has. Unknown and parked sequences are left alone.
    pub fn cancel(&mut self, seq: SeqId) {
        if let Some(mut turn) = self.seqs.get_mut(&seq).and_then(|s| s.turn.take()) {
            self.events.push(Event::Done { seq, reason: FinishReason::Cancelled, tail: turn.flush() });
            self.ended(seq);
        }
    }

    /// Ends a sequence and frees its pages. No event tells.
    pub fn close(&mut self, seq: SeqId) {
        if let Some(mut sequence) = self.seqs.remove(&seq) {
            sequence.table.clear(&mut self.pool);
            self.events.retain(|event| event.seq() != seq);
        }
    }

    /// Nothing is being generated and no event waits.
    pub fn is_idle(&self) -> bool {
        self.events.is_empty() && self.seqs.values().all(|s| s.turn.is_none())
    }

    /// Runs one forward pass and returns what happened. With nothing to run, only what cancelling left to tell.
    ///
    /// # Errors
    /// The device's. No sequence has advanced then; the step can be tried again. A device that is lost for good is no error of the
    /// step: every answer ends with [`Event::Failed`].
    pub fn step(&mut self) -> Result<Vec<Event>> {
        self.forget_unfinished();
        self.schedule();
        if self.in_flight.is_empty() {
            return Ok(std::mem::take(&mut self.events));
        }
        let Self { model, run, plan, seqs, max_context, .. } = self;
        // As many as the most demanding of them wants.
        let wanting = self.in_flight.iter().filter(|s| s.wants_logits);
        let n_decisive = wanting.map(|s| seqs[&s.seq].turn.as_ref()?.n_decisive());
        let until = match n_decisive.max_by_key(|n| n.unwrap_or(usize::MAX)) {
            Some(Some(n)) => Until::Largest(n),
            _ => Until::Logits,
        };
        let logits = match run.run(plan, until) {
            Ok(logits) => logits,
            Err(error) => {
                self.forget_unfinished();
                return self.failed(error);
            }
        };
        let mut ended = vec![];
        let mut rows = logits.chunks_exact_mut(model.config().vocab_size);
        for seq in std::mem::take(&mut self.in_flight).into_iter().filter(|s| s.wants_logits).map(|s| s.seq) {
            let sequence = seqs.get_mut(&seq).expect("what is scheduled is there");
            let row = rows.next().expect("a row for each sequence that wants logits");
            match sequence.accept(row, model.eos(), *max_context) {
                Ok((token, reason)) => {
                    self.events.push(Event::Token { seq, token });
                    if let Some(reason) = reason {
                        self.events.push(Event::Done { seq, reason, tail: String::new() });
                        ended.push(seq);
                    }
                }
                Err(error) => {
                    self.events.push(Event::Failed { seq, error });
                    ended.push(seq);
                }
            }
        }
        ended.into_iter().for_each(|seq| self.ended(seq));
        Ok(std::mem::take(&mut self.events))
    }

    /// What becomes of a step's error: a device that is lost ends every answer; any other is for the caller, who may try again.
    fn failed(&mut self, error: Error) -> Result<Vec<Event>> {
        let Error::Device(DeviceError::DeviceLost { device, step, reason }) = error else {
            return Err(error);
        };
        let seqs: Vec<SeqId> =
            self.seqs.iter().filter(|(_, s)| s.turn.is_some()).map(|(&seq, _)| seq).collect();
        for seq in seqs {
            let (device, step, reason) = (device.clone(), step.clone(), reason.clone());
            let error = Error::Device(DeviceError::DeviceLost { device, step, reason });
            self.events.push(Event::Failed { seq, error });
            self.ended(seq);
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// Takes the events of one sequence out of those that wait.
    pub(crate) fn take_events(&mut self, seq: SeqId) -> Vec<Event> {
        self.events.extract_if(.., |event| event.seq() == seq).collect()
    }

    /// A step that failed, or that a panic left, may have stored its K and V in part: forget them.
    fn forget_unfinished(&mut self) {
        for Scheduled { seq, start, .. } in std::mem::take(&mut self.in_flight) {
            if let Some(sequence) = self.seqs.get_mut(&seq) {
                sequence.table.truncate(&mut self.pool, start, self.model.config().window);
            }
        }
    }

    fn sequence(&mut self, seq: SeqId) -> Result<&mut Sequence> {
        self.seqs.get_mut(&seq).ok_or(Error::UnknownSequence { seq })
    }

    /// Parks a sequence whose turn has ended, or removes it. Events that wait stay.
    fn ended(&mut self, seq: SeqId) {
        if let Some(sequence) = self.seqs.get_mut(&seq) {
            sequence.turn = None;
            if !sequence.stays {
                sequence.table.clear(&mut self.pool);
                self.seqs.remove(&seq);
            }
        }
    }

    /// Fills the plan: decoding sequences first, then prompts, each oldest first. A prompt that finds no pages lets no
    /// younger one pass: the cache empties as decoding sequences end, and it goes on.
    fn schedule(&mut self) {
        self.plan.clear();
        let StepCapacity { max_tokens, max_seqs, .. } = self.run.capacity().step;
        for is_decode in [true, false] {
            let ready =
                self.seqs.iter().filter(|(_, s)| s.turn.is_some() && (s.n_pending() == 1) == is_decode);
            let ready: Vec<SeqId> = ready.map(|(&seq, _)| seq).collect();
            for seq in ready {
                let room = max_tokens - self.plan.n_tokens();
                // Making room for others may have taken this one's pages: it is then a prompt again, for a later step.
                let n_pending = self.seqs[&seq].n_pending();
                let n = n_pending.min(room);
                if (n_pending == 1) != is_decode || n == 0 || self.in_flight.len() == max_seqs {
                    continue;
                }
                if !self.make_room(seq, n) {
                    if is_decode { continue } else { break }
                }
                let sequence = self.seqs.get_mut(&seq).expect("it was just listed");
                let start = sequence.table.len();
                sequence.table.extend(&mut self.pool, n).expect("make_room found the pages");
                let wants_logits = start + n == sequence.tokens.len();
                let logits = if wants_logits { Logits::Last } else { Logits::None };
                self.plan.push(&sequence.table, start, &sequence.tokens[start..start + n], logits);
                self.in_flight.push(Scheduled { seq, start, wants_logits });
            }
        }
    }

    /// Sees to the pages that `n` more tokens of `seq` need: takes them from parked sequences, then from the youngest, but
    /// only from those younger than `seq` and not in this step. False, with nothing taken, when that is not enough: `seq`
    /// waits. The oldest never waits long: the cache holds one of the longest sequences, and everybody else's pages are
    /// its own to take.
    fn make_room(&mut self, seq: SeqId, n: usize) -> bool {
        let needed = self.seqs[&seq].table.needed(&self.pool, n);
        if needed <= self.pool.n_free() {
            return true;
        }
        let is_victim = |(id, s): &(&SeqId, &Sequence)| {
            let is_in_step = self.in_flight.iter().any(|scheduled| scheduled.seq == **id);
            **id != seq && !is_in_step && (s.turn.is_none() || **id > seq) && s.table.n_pages() > 0
        };
        // Parked ones first, from the oldest; then from the youngest.
        let parked = self.seqs.iter().filter(is_victim).filter(|(_, s)| s.turn.is_none());
        let young = self.seqs.iter().rev().filter(is_victim).filter(|(_, s)| s.turn.is_some());
        let victims: Vec<SeqId> = parked.chain(young).map(|(&id, _)| id).collect();
        // Shared pages come free with their last user only: this is the most that there can be.
        let n_pages: usize = victims.iter().map(|id| self.seqs[id].table.n_pages()).sum();
        if self.pool.n_free() + n_pages < needed {
            return false;
        }
        for victim in victims {
            if needed <= self.pool.n_free() {
                break;
            }
            self.seqs.get_mut(&victim).expect("it was just found").table.clear(&mut self.pool);
        }
        needed <= self.pool.n_free()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("model", &self.model).field("sequences", &self.seqs.len()).finish()
    }
}
