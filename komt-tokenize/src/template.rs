//! [`Template`]: a conversation as the text, and the ids, that the model was trained on.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::tokenizer::{too_many_private_chars, unused_chars};
use crate::{TokenId, Tokenizer, jinja};

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions in front of the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said: text only. Spellings of special tokens in it are ordinary characters to the model.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }

    /// What the person says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// Instructions in front of the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }
}

/// How a conversation is written for a model.
///
/// `<s>` and `</s>` stand for the tokenizer's own BOS and EOS. In all of the templates but the Jinja ones:
/// - user and assistant alternate and the user begins; anything else is an error in the words of the 2023 template;
/// - contents are taken as they are, nothing is trimmed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Template {
    /// `[INST]{x} [/INST]`, the code of komt's model card. The default. Further turns follow as in the base model:
    /// `[INST]a [/INST]answer</s>[INST]b [/INST]`.
    #[default]
    Komt,
    /// `<s>[INST] {x} [/INST]</s>`, the heading of komt's model card: EOS comes before the answer.
    /// Further turns: `...</s>answer</s>[INST] b [/INST]</s>`.
    KomtHeading,
    /// `<s>[INST] a [/INST]answer</s> [INST] b [/INST]`: the template that Mistral-7B-Instruct-v0.1 came with in 2023,
    /// space for space. System messages are an error, as there. (Mistral's own library writes single turns with the same
    /// ids and further turns with other spaces.)
    MistralInstruct,
    /// `### instruction: {x}\n\n### Response: `, the form of the komt models on Llama 2. Further turns follow an EOS.
    KomtLlama2,
    /// The `chat_template` that lies with the tokenizer.
    Jinja,
    /// A Jinja template of your own.
    JinjaSource(String),
}

/// The fixed parts of a template that is not Jinja.
struct Form {
    /// The text itself begins with BOS.
    bos: bool,
    before_user: &'static str,
    after_user: &'static str,
    /// EOS stands between `after_user` and the answer.
    eos_before_answer: bool,
    /// Stands behind the EOS that closes an answer.
    after_answer: &'static str,
    /// System text goes in front of the first user message, with a blank line between; else it is an error.
    system: bool,
}

const KOMT: Form = Form {
    bos: false,
    before_user: "[INST]",
    after_user: " [/INST]",
    eos_before_answer: false,
    after_answer: "",
    system: true,
};
const KOMT_HEADING: Form = Form { bos: true, before_user: "[INST] ", eos_before_answer: true, ..KOMT };
const MISTRAL: Form = Form { bos: true, before_user: "[INST] ", after_answer: " ", system: false, ..KOMT };
const KOMT_LLAMA2: Form = Form { before_user: "### instruction: ", after_user: "\n\n### Response: ", ..KOMT };

const MUST_ALTERNATE: &str = "Conversation roles must alternate user/assistant/user/assistant/...";
const ONLY_TWO_ROLES: &str = "Only user and assistant roles are supported!";

impl Template {
    /// The names that [`from_name`](Self::from_name) knows.
    pub const NAMES: [&str; 5] = ["komt", "komt-heading", "mistral", "komt-llama2", "jinja"];

    /// The template of this name, as on a command line.
    ///
    /// # Errors
    /// [`Error::UnknownTemplate`], which lists the names.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "komt" => Ok(Self::Komt),
            "komt-heading" => Ok(Self::KomtHeading),
            "mistral" => Ok(Self::MistralInstruct),
            "komt-llama2" => Ok(Self::KomtLlama2),
            "jinja" => Ok(Self::Jinja),
            _ => Err(Error::UnknownTemplate { name: name.to_owned() }),
        }
    }

    /// Its name, one of [`NAMES`](Self::NAMES).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Komt => "komt",
            Self::KomtHeading => "komt-heading",
            Self::MistralInstruct => "mistral",
            Self::KomtLlama2 => "komt-llama2",
            Self::Jinja | Self::JinjaSource(_) => "jinja",
        }
    }

    /// The conversation as text, up to where the answer begins. For reading and for comparing with other libraries: ids
    /// come from [`prompt_ids`](Self::prompt_ids), which knows whether BOS is in the text and what is special in it.
    ///
    /// # Errors
    /// A conversation that the template refuses, a template that is missing or does not render.
    pub fn render(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<String> {
        match self.source(tokenizer)? {
            Source::Form(form) => self.render_form(form, messages, tokenizer),
            Source::Jinja(source) => jinja::render(source, messages, tokenizer, true),
        }
    }

    /// The ids to give to the model for a conversation.
    ///
    /// There is exactly one BOS, in front, whether the template's text has it or not. (A Jinja template without it gets
    /// one only if [`Tokenizer::adds_bos`].) Special tokens that the template writes are those tokens; in the contents
    /// of messages their spellings are plain text, whoever says it: a user who types `</s>` types four characters.
    /// Where no content spells a special token the ids are Hugging Face's for the rendered text.
    ///
    /// A Jinja template that looks into contents for such a spelling will not find it: a character that is never used is
    /// put in while it renders.
    ///
    /// # Errors
    /// As [`render`](Self::render) and [`Tokenizer::encode`].
    pub fn prompt_ids(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<TokenId>> {
        let mut ids = if messages.iter().any(|m| tokenizer.spells_special(&m.content)) {
            let [mark, _] = self.unused_chars(tokenizer, messages)?;
            let text = self.render(&marked(messages, tokenizer, mark), tokenizer)?;
            tokenizer.encode_marked(&text, mark)?
        } else {
            tokenizer.encode(&self.render(messages, tokenizer)?)?
        };
        let jinja = matches!(self, Self::Jinja | Self::JinjaSource(_));
        if !jinja || tokenizer.adds_bos() {
            tokenizer.put_bos_in_front(&mut ids);
        }
        Ok(ids)
    }

    /// The ids to append for the next turn, when the earlier ones are in the model's cache already.
    ///
    /// `messages` is the whole conversation; it ends with the last answer and the new user message. The model has seen
    /// the prompt up to that answer and the ids that it sampled for it, *without* the EOS that ended it. What comes back
    /// begins with the token that closes an answer (EOS, in all but some Jinja templates): if you appended a sampled EOS
    /// already, drop the first id.
    ///
    /// The answer's own text is not looked at and not encoded again.
    ///
    /// # Errors
    /// [`Error::NotAppendable`] when the template writes earlier turns otherwise once there are later ones, or closes an
    /// answer with no special token; then encode the whole conversation with [`prompt_ids`](Self::prompt_ids). And all
    /// errors of that.
    pub fn next_turn_ids(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<TokenId>> {
        let roles: Vec<_> = messages.iter().map(|m| m.role).collect();
        let [.., Role::Assistant, Role::User] = roles[..] else {
            return Err(self.not_appendable("an answer and a user message at the end", format!("{roles:?}")));
        };
        let [mark, answer_mark] = self.unused_chars(tokenizer, messages)?;
        let mut messages = marked(messages, tokenizer, mark);
        let answer = messages.len() - 2;
        messages[answer].content = answer_mark.to_string();
        let text = self.render(&messages, tokenizer)?;
        let [earlier, after] = text.split(answer_mark).collect::<Vec<_>>()[..] else {
            return Err(self.not_appendable("the answer once in the text", "it is not there once".to_owned()));
        };
        let prompt = self.render(&messages[..answer], tokenizer)?;
        // White space before an answer is the answer's: models sample it.
        if !earlier.strip_prefix(&prompt).is_some_and(|rest| rest.trim().is_empty()) {
            let found = "earlier turns that are written otherwise when another follows".to_owned();
            return Err(self.not_appendable("earlier turns to stay as they are", found));
        }
        if tokenizer.special_at_start(after).is_none() {
            let found = crate::error::excerpt(after);
            return Err(self.not_appendable("a special token to close the answer", found));
        }
        tokenizer.encode_marked(after, mark)
    }

    fn source<'a>(&'a self, tokenizer: &'a Tokenizer) -> Result<Source<'a>> {
        match self {
            Self::Komt => Ok(Source::Form(&KOMT)),
            Self::KomtHeading => Ok(Source::Form(&KOMT_HEADING)),
            Self::MistralInstruct => Ok(Source::Form(&MISTRAL)),
            Self::KomtLlama2 => Ok(Source::Form(&KOMT_LLAMA2)),
            Self::Jinja => tokenizer.chat_template().map(Source::Jinja).ok_or(Error::NoChatTemplate),
            Self::JinjaSource(source) => Ok(Source::Jinja(source)),
        }
    }

    fn render_form(&self, form: &Form, messages: &[Message], tokenizer: &Tokenizer) -> Result<String> {
        let (system, turns) = match messages.split_first() {
            None => return Err(self.refuses("a conversation needs a message")),
            Some((first, rest)) if form.system && first.role == Role::System => (Some(&first.content), rest),
            Some(_) => (None, messages),
        };
        let eos = || {
            let missing =
                || Error::MissingToken { needed_by: format!("template {self}"), token: "eos_token" };
            tokenizer.eos().and_then(|id| tokenizer.token(id)).ok_or_else(missing)
        };
        let mut text = String::new();
        if form.bos {
            text.extend(tokenizer.bos().and_then(|id| tokenizer.token(id)));
        }
        if turns.is_empty() {
            return Err(self.refuses(MUST_ALTERNATE));
        }
        for (i, Message { role, content }) in turns.iter().enumerate() {
            match (role, i % 2) {
                (Role::User, 0) => {
                    text.push_str(form.before_user);
                    if let Some(system) = system.filter(|_| i == 0) {
                        text.extend([system, "\n\n"]);
                    }
                    text.extend([content, form.after_user]);
                    if form.eos_before_answer {
                        text.push_str(&eos()?);
                    }
                }
                (Role::Assistant, 1) => text.extend([content, eos()?.as_str(), form.after_answer]),
                (Role::System, 1) => return Err(self.refuses(ONLY_TWO_ROLES)),
                _ => return Err(self.refuses(MUST_ALTERNATE)),
            }
        }
        Ok(text)
    }

    /// Two characters that occur neither in the conversation nor in the template.
    fn unused_chars(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<[char; 2]> {
        let mut texts: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
        if let Source::Jinja(source) = self.source(tokenizer)? {
            texts.push(source);
        }
        let mut unused = unused_chars(&texts);
        match (unused.next(), unused.next()) {
            (Some(a), Some(b)) => Ok([a, b]),
            _ => Err(too_many_private_chars("a conversation")),
        }
    }

    fn refuses(&self, message: &str) -> Error {
        Error::Conversation { template: self.name(), message: message.to_owned() }
    }

    fn not_appendable(&self, expected: &'static str, found: String) -> Error {
        Error::NotAppendable { template: self.name(), expected, found }
    }
}

enum Source<'a> {
    Form(&'static Form),
    Jinja(&'a str),
}

/// The messages with `mark` in every special spelling of their contents.
fn marked(messages: &[Message], tokenizer: &Tokenizer, mark: char) -> Vec<Message> {
    let marked = |m: &Message| Message::new(m.role, tokenizer.mark_spellings(&m.content, mark));
    messages.iter().map(marked).collect()
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::from_name(name)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
