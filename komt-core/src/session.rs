//! [`Session`]: one conversation.

use crate::{Engine, Event, FinishReason, GenerateOptions, Result, SeqId, Token};
use komt_tokenize::{Message, Template};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// An engine that several sessions share, on one thread or on many. Cloning is cheap.
///
/// Whichever session needs a token runs the next step, for all of them; the others find theirs waiting. So sessions on
/// one thread advance together, and sessions on several threads are batched.
#[derive(Clone)]
pub struct SharedEngine {
    hub: Arc<Mutex<Hub>>,
}

struct Hub {
    engine: Engine,
    sessions: HashMap<SeqId, Sender<Event>>,
}

impl Hub {
    /// One step; every session gets its events.
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

impl SharedEngine {
    /// Shares `engine`.
    pub fn new(engine: Engine) -> Self {
        Self { hub: Arc::new(Mutex::new(Hub { engine, sessions: HashMap::new() })) }
    }

    /// A new conversation, with the model's own generation options and the default template.
    pub fn session(&self) -> Session {
        let mut hub = self.lock();
        let options = hub.engine.model().generate_options();
        let seq = hub.engine.open();
        Session::on(self.clone(), &mut hub, seq, options)
    }

    /// Pages of the KV cache that are free, and all of them.
    pub fn pages(&self) -> (usize, usize) {
        self.lock().engine.pages()
    }

    /// A panic of another thread leaves the engine as consistent as an error does.
    fn lock(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
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
    is_generating: bool,
    finish_reason: Option<FinishReason>,
}

impl Session {
    fn on(shared: SharedEngine, hub: &mut Hub, seq: SeqId, options: GenerateOptions) -> Self {
        let (sender, events) = channel();
        hub.sessions.insert(seq, sender);
        Self {
            shared,
            seq,
            events,
            options,
            template: Template::default(),
            messages: vec![],
            answer: String::new(),
            is_generating: false,
            finish_reason: None,
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

    /// A system message for the first turn, where the template has a place for one.
    pub fn with_system(mut self, text: impl Into<String>) -> Self {
        self.messages.insert(0, Message::system(text));
        self
    }

    /// Starts a turn with the user's text; an answer that is still being generated is stopped first.
    ///
    /// # Errors
    /// As [`Engine::append`] and the template. The conversation is then as before.
    pub fn say(&mut self, text: impl Into<String>) -> Result<&mut Self> {
        self.stop();
        self.messages.push(Message::user(text));
        if let Err(error) = self.start_message() {
            self.messages.pop();
            return Err(error);
        }
        (self.is_generating, self.finish_reason) = (true, None);
        Ok(self)
    }

    /// Starts a turn with token ids, as they are, after everything so far.
    ///
    /// # Errors
    /// As [`Engine::append`].
    pub fn push_ids(&mut self, ids: &[u32]) -> Result<&mut Self> {
        self.stop();
        self.shared.lock().engine.append(self.seq, ids, self.options.clone())?;
        (self.is_generating, self.finish_reason) = (true, None);
        Ok(self)
    }

    /// Stops the answer, if one is being generated, and returns the text that was held back. The conversation stays.
    pub fn stop(&mut self) -> String {
        if !self.is_generating {
            return String::new();
        }
        // Under the lock nobody adds events: what is in the channel now is all, and the next step tells of the end.
        let shared = self.shared.clone();
        let mut hub = shared.lock();
        hub.engine.cancel(self.seq);
        let mut tail = String::new();
        let waiting: Vec<Event> = self.events.try_iter().chain(hub.engine.take_events(self.seq)).collect();
        for event in waiting {
            match event {
                Event::Token { token, .. } => tail += &token.text,
                Event::Done { reason, tail: held, .. } => {
                    tail += &held;
                    self.finish_reason = Some(reason);
                }
                Event::Failed { .. } => self.finish_reason = Some(FinishReason::Failed),
            }
        }
        self.answer += &tail;
        self.end_turn();
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
        let mut hub = self.shared.lock();
        let seq = hub.engine.fork(self.seq)?;
        let mut fork = Session::on(self.shared.clone(), &mut hub, seq, self.options.clone());
        fork.template = self.template.clone();
        fork.messages = self.messages.clone();
        Ok(fork)
    }

    /// Hands the newest message to the engine.
    fn start_message(&mut self) -> Result<()> {
        let mut hub = self.shared.lock();
        let model = hub.engine.model().clone();
        let tokenizer = model.tokenizer()?;
        let tokens = hub.engine.tokens(self.seq)?;
        if tokens.is_empty() {
            let ids = self.template.prompt_ids(tokenizer, &self.messages)?;
            return hub.engine.append(self.seq, &ids, self.options.clone());
        }
        match self.template.next_turn_ids(tokenizer, &self.messages) {
            Ok(mut ids) => {
                // The answer was sampled with its EOS, or was cut off before it.
                if tokens.last() == ids.first() {
                    ids.remove(0);
                }
                hub.engine.append(self.seq, &ids, self.options.clone())
            }
            // The template writes earlier turns otherwise once there are later ones: the cache serves as far as it can.
            Err(komt_tokenize::Error::NotAppendable { .. }) => {
                let ids = self.template.prompt_ids(tokenizer, &self.messages)?;
                let common = tokens.iter().zip(&ids).take_while(|(a, b)| a == b).count().min(ids.len() - 1);
                hub.engine.rewind(self.seq, common)?;
                hub.engine.append(self.seq, &ids[common..], self.options.clone())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn end_turn(&mut self) {
        self.is_generating = false;
        self.messages.push(Message::assistant(std::mem::take(&mut self.answer)));
    }

    /// Takes an event of this session in; the token, if it is one.
    fn take(&mut self, event: Event) -> Option<Result<Token>> {
        match event {
            Event::Token { token, .. } => {
                self.answer += &token.text;
                Some(Ok(token))
            }
            Event::Done { reason, .. } => {
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
            let shared = self.shared.clone();
            let stepped = match shared.hub.try_lock() {
                Ok(mut hub) => hub.step(),
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().step(),
                // Another session runs a step, perhaps with our token: wait for it.
                Err(TryLockError::WouldBlock) => {
                    if let Ok(event) = self.events.recv_timeout(Duration::from_millis(1)) {
                        return self.take(event);
                    }
                    Ok(())
                }
            };
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
        let mut hub = self.shared.lock();
        hub.engine.close(self.seq);
        hub.sessions.remove(&self.seq);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("seq", &self.seq).field("messages", &self.messages.len()).finish()
    }
}
