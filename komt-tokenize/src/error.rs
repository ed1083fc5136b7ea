//! What can go wrong: files, ids, text, templates.

use std::path::PathBuf;

/// Short for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Every error of this crate. Each message names the thing, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: expected a readable file, found: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is larger than any tokenizer needs.
    #[error("{file}: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// The file.
        file: String,
        /// The most bytes that are read.
        limit: u64,
        /// The bytes it has.
        found: u64,
    },
    /// A file is not the JSON, or not the shape, that it should be.
    #[error("{file}: expected {expected}, found: {found}")]
    Invalid {
        /// The file, or the part of it.
        file: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The file asks for something that this crate does not do.
    #[error("{file}: {what} is not supported; expected {expected}")]
    Unsupported {
        /// The file.
        file: String,
        /// What it asks for.
        what: String,
        /// What would have worked.
        expected: &'static str,
    },
    /// An id that the tokenizer has no token for.
    #[error("token id {id}: expected an id that the tokenizer has a token for, all below {vocab_size}")]
    UnknownId {
        /// The id.
        id: u32,
        /// [`Tokenizer::vocab_size`](crate::Tokenizer::vocab_size).
        vocab_size: usize,
    },
    /// Text that the tokenizer's model could not encode, or ids that it could not decode.
    #[error("{what}: expected the tokenizer to take it, found: {reason}")]
    Refused {
        /// What was given, shortened.
        what: String,
        /// What the tokenizer said.
        reason: String,
    },
    /// The tokenizer lacks a special token that is needed.
    #[error("{needed_by}: expected the tokenizer's files to name {token}, found none")]
    MissingToken {
        /// Who needs it.
        needed_by: String,
        /// The role: `bos_token` or `eos_token`.
        token: &'static str,
    },
    /// No template has this name.
    #[error("template {name:?}: expected one of {}", crate::Template::NAMES.join(", "))]
    UnknownTemplate {
        /// The name given.
        name: String,
    },
    /// The tokenizer's files hold no chat template.
    #[error(
        "template jinja: expected a chat_template in tokenizer_config.json or chat_template.jinja, found none"
    )]
    NoChatTemplate,
    /// The template refuses the conversation. `message` is the template's own.
    #[error("template {template}: {message}")]
    Conversation {
        /// The template's name.
        template: &'static str,
        /// Why, in the words of the template.
        message: String,
    },
    /// A Jinja template that is not valid or failed while it ran.
    #[error("template jinja: expected a template that renders, found: {reason}")]
    Jinja {
        /// What the template engine said.
        reason: String,
    },
    /// The next turn cannot be appended to the ids of the earlier ones; encode the whole conversation instead.
    #[error("template {template}: the next turn cannot be appended: expected {expected}, found {found}")]
    NotAppendable {
        /// The template's name.
        template: &'static str,
        /// What would have made it possible.
        expected: &'static str,
        /// What is the case.
        found: String,
    },
}

/// The first characters of a text, for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
