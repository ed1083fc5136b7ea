//! [`Session`]: one conversation.

use crate::{Engine, Error, Event, FinishReason, GenerateOptions, Result, SeqId, Token};
use komt_tokenize::{Message, Role, Template};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An engine that several sessions share, on one thread or on many. Cloning is cheap.
///
/// Whichever session needs a token runs the next step, for all of them; the others find theirs waiting. So sessions on
/// one thread advance together, and sessions on several threads are batched.
#[derive(Clone)]
pub struct SharedEngine {
    state: Arc<Mutex<State>>,
    n_waiting: Arc<AtomicUsize>, // threads that want the engine for something else than a step: they go first
}

struct State {
    engine: Engine,
    sessions: HashMap<SeqId, Sender<Event>>,
}

impl State {
    /// One step; every session gets its events. Those of sequences that are no session's are dropped.
    fn step(&mut self) -> Result<()> {
        for event in self.engine.step()? {
            if let Some(session) = self.sessions.get(&event.seq()) {
                // A session that is just being dropped does not listen any more.
                let _ = session.send(event);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for SharedEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedEngine").finish_non_exhaustive()
    }
}

impl SharedEngine {
    /// Shares `engine`. Sequences that were submitted to it before go on, but nobody hears of them.
    pub fn new(engine: Engine) -> Self {
        let state = State { engine, sessions: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)), n_waiting: Arc::default() }
    }

    /// A new conversation, with the model's own generation options and the default template.
    pub fn session(&self) -> Session {
        let mut state = self.lock();
        let options = state.engine.model().generate_options();
        let seq = state.engine.open();
        Session::on(self.clone(), &mut state, seq, options)
    }

    /// Pages of the KV cache that are free, and all of them.
    pub fn pages(&self) -> (usize, usize) {
        self.lock().engine.pages()
    }

    /// Between two steps at the latest. A panic in another thread's step is as good as an error: the engine forgets the
    /// step before it does anything else.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.n_waiting.fetch_add(1, Ordering::SeqCst);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.n_waiting.fetch_sub(1, Ordering::SeqCst);
        state
    }

    /// For a step: only when nobody has the engine or waits for it.
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        use std::sync::TryLockError::{Poisoned, WouldBlock};
        if self.n_waiting.load(Ordering::SeqCst) > 0 {
            return None;
        }
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(WouldBlock) => None,
        }
    }
}

/// Stops the answers of one session, from anywhere: the iterator ends before its next step. Tokens that are there still
/// come; text that was held back (a piece of a character, or of a stop string) is at the end of the answer in
/// [`Session::messages`].
#[derive(Debug, Clone, Default)]
pub struct Canceller {
    is_cancelled: Arc<AtomicBool>,
}

impl Canceller {
    /// Stops the answer that is being generated. Does nothing when none is.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
    }
}

/// One conversation: an iterator over the tokens of the current answer.
///
/// [`Session::say`] starts a turn; iterating generates it, until `None`. The next turn uses the cache of all earlier ones.
/// Dropping a session cancels what it generates and frees its pages.
///
/// ```
/// use komt_core::{Engine, EngineOptions, LoadOptions, Model, SharedEngine};
/// # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo-model");
/// let model = Model::load(dir, LoadOptions::default())?;
/// let engine = SharedEngine::new(Engine::new(&model, EngineOptions::default())?);
/// let mut session = engine.session();
/// for token in session.say("안녕하세요")? {
///     print!("{}", token?.text);
/// }
/// assert!(session.finish_reason().is_some());
/// assert_eq!(session.messages().len(), 2); // what was said, and the answer
/// # Ok::<(), komt_core::Error>(())
/// ```
pub struct Session {
    shared: SharedEngine,
    seq: SeqId,
    events: Receiver<Event>,
    /// How the next turns are generated.
    pub options: GenerateOptions,
    /// How the next turns are written for the model.
    pub template: Template,
    messages: Vec<Message>,
    answer: String,
    is_raw: bool,         // turns are token ids, not messages
    last_id: Option<u32>, // of the answer
    is_generating: bool,
    finish_reason: Option<FinishReason>,
    canceller: Canceller,
}

impl Session {
    fn on(shared: SharedEngine, state: &mut State, seq: SeqId, options: GenerateOptions) -> Self {
        let (sender, events) = channel();
        state.sessions.insert(seq, sender);
        Self {
            shared,
            seq,
            events,
            options,
            template: Template::default(),
            messages: vec![],
            answer: String::new(),
            is_raw: false,
            last_id: None,
            is_generating: false,
            finish_reason: None,
            canceller: Canceller::default(),
        }
    }

    /// With these options for the next turns.
    pub fn with_options(mut self, options: GenerateOptions) -> Self {
        self.options = options;
        self
    }

    /// With this template for the next turns.
    pub fn with_template(mut self, template: Template) -> Self {
        self.template = template;
        self
    }

    /// With a system message, for templates that have a place for one.
    ///
    /// # Errors
    /// [`Error::Option`] once something was said: the model has read the beginning.
    pub fn with_system(mut self, text: impl Into<String>) -> Result<Self> {
        if self.messages.iter().any(|message| message.role != Role::System) {
            let (expected, found) = ("before the first turn", format!("{} messages", self.messages.len()));
            return Err(Error::Option { name: "system", expected: expected.into(), found });
        }
        self.messages = vec![Message::system(text)];
        Ok(self)
    }

    /// A handle that stops this session's answers from other threads, or from a signal handler.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Starts a turn with the user's text; an answer that is still being generated is stopped first.
    ///
    /// # Errors
    /// As [`Engine::append`] and the template. The conversation is then as before.
    pub fn say(&mut self, text: impl Into<String>) -> Result<&mut Self> {
        self.stop();
        self.check_kind(false)?;
        self.messages.push(Message::user(text));
        if let Err(error) = self.start_message() {
            self.messages.pop();
            return Err(error);
        }
        self.begin_turn();
        Ok(self)
    }

    /// Starts a turn with token ids, as they are, after everything so far: for text that no template writes. A session takes
    /// either these or messages.
    ///
    /// # Errors
    /// As [`Engine::append`]; [`Error::Option`] when something was said.
    pub fn push_ids(&mut self, ids: &[u32]) -> Result<&mut Self> {
        self.stop();
        self.check_kind(true)?;
        self.shared.lock().engine.append(self.seq, ids, self.options.clone())?;
        self.is_raw = true;
        self.begin_turn();
        Ok(self)
    }

    /// Messages or token ids, not both: a template could not tell what stands between.
    fn check_kind(&self, is_raw: bool) -> Result<()> {
        let (raw, said) = ("a session of token ids", "a session of messages");
        let (expected, found) = match is_raw {
            true if !self.messages.is_empty() => (raw, said),
            false if self.is_raw => (said, raw),
            _ => return Ok(()),
        };
        Err(Error::Option { name: "turn", expected: expected.into(), found: found.into() })
    }

    /// Stops the answer, if one is being generated, and returns the text that was held back. The conversation stays.
    pub fn stop(&mut self) -> String {
        if !self.is_generating {
            return String::new();
        }
        // Under the lock nobody adds events: what is in the channel now is all, and the end is there or with the engine.
        let shared = self.shared.clone();
        let mut state = shared.lock();
        state.engine.cancel(self.seq);
        let mut tail = String::new();
        let waiting: Vec<Event> = self.events.try_iter().chain(state.engine.take_events(self.seq)).collect();
        drop(state);
        for event in waiting {
            if let Event::Done { tail: held, .. } = &event {
                tail += held;
            }
            if let Some(Ok(token)) = self.take(event) {
                tail += &token.text;
            }
        }
        tail
    }

    /// Why the last answer ended; `None` before the first and while one is being generated.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// What was said so far, answers included.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// A second conversation with the same past, sharing its cache. An answer that is being generated is stopped first.
    ///
    /// # Errors
    /// None of today's: a session's sequence is always there.
    pub fn fork(&mut self) -> Result<Session> {
        self.stop();
        let mut state = self.shared.lock();
        let seq = state.engine.fork(self.seq)?;
        let mut fork = Session::on(self.shared.clone(), &mut state, seq, self.options.clone());
        fork.template = self.template.clone();
        (fork.messages, fork.is_raw, fork.last_id) = (self.messages.clone(), self.is_raw, self.last_id);
        Ok(fork)
    }

    /// Hands the newest message to the engine. Templates and tokenizer work without its lock.
    fn start_message(&mut self) -> Result<()> {
        let (model, tokens) = {
            let state = self.shared.lock();
            (state.engine.model().clone(), state.engine.tokens(self.seq)?.to_vec())
        };
        let (tokenizer, messages) = (model.tokenizer()?, &self.messages);
        let (keep, ids) = if tokens.is_empty() {
            (0, self.template.prompt_ids(tokenizer, messages)?)
        } else {
            match self.template.next_turn_ids(tokenizer, messages) {
                // The answer was sampled with its EOS, or was cut off before it.
                Ok(ids) if self.last_id.as_ref() == ids.first() => (tokens.len(), ids[1..].to_vec()),
                Ok(ids) => (tokens.len(), ids),
                // The template writes earlier turns otherwise once there are later ones: the cache serves as far as it can.
                Err(komt_tokenize::Error::NotAppendable { .. }) => {
                    let ids = self.template.prompt_ids(tokenizer, messages)?;
                    let n_common = tokens.iter().zip(&ids).take_while(|(a, b)| a == b).count();
                    let keep = n_common.min(ids.len().saturating_sub(1));
                    (keep, ids[keep..].to_vec())
                }
                Err(error) => return Err(error.into()),
            }
        };
        let mut state = self.shared.lock();
        state.engine.rewind(self.seq, keep)?;
        state.engine.append(self.seq, &ids, self.options.clone())
    }

    fn begin_turn(&mut self) {
        self.canceller.is_cancelled.store(false, Ordering::SeqCst);
        self.last_id = None;
        (self.is_generating, self.finish_reason) = (true, None);
    }

    fn end_turn(&mut self) {
        self.is_generating = false;
        let answer = std::mem::take(&mut self.answer);
        if !self.is_raw {
            self.messages.push(Message::assistant(answer));
        }
    }

    /// Takes an event of this session in; the token, if it is one.
    fn take(&mut self, event: Event) -> Option<Result<Token>> {
        match event {
            Event::Token { token, .. } => {
                self.answer += &token.text;
                self.last_id = Some(token.id);
                Some(Ok(token))
            }
            Event::Done { reason, tail, .. } => {
                self.answer += &tail;
                self.finish_reason = Some(reason);
                self.end_turn();
                None
            }
            Event::Failed { error, .. } => {
                self.finish_reason = Some(FinishReason::Failed);
                self.end_turn();
                Some(Err(error))
            }
        }
    }
}

impl Iterator for Session {
    type Item = Result<Token>;

    /// The next token of the answer; `None` at its end. After an error the answer has ended.
    fn next(&mut self) -> Option<Result<Token>> {
        while self.is_generating {
            if let Ok(event) = self.events.try_recv() {
                return self.take(event);
            }
            if self.canceller.is_cancelled.load(Ordering::SeqCst) {
                self.stop();
                return None;
            }
            let shared = self.shared.clone();
            let Some(mut state) = shared.try_lock() else {
                // Another session runs a step, perhaps with our token.
                if let Ok(event) = self.events.recv_timeout(Duration::from_millis(1)) {
                    return self.take(event);
                }
                continue;
            };
            // What came between the look into the channel and the lock.
            if let Ok(event) = self.events.try_recv() {
                return self.take(event);
            }
            let stepped = state.step();
            drop(state);
            if let Err(error) = stepped {
                self.stop();
                self.finish_reason = Some(FinishReason::Failed);
                return Some(Err(error));
            }
        }
        None
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.engine.close(self.seq);
        state.sessions.remove(&self.seq);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("seq", &self.seq).field("messages", &self.messages.len()).finish()
    }
}
