//! Text to token ids and back, for Mistral-architecture models.
//!
//! Three things stand between text and a model, and this crate is one type for each:
//!
//! - [`Tokenizer`]: a model's own `tokenizer.json`, with what the files beside it say about special tokens. It encodes
//!   and decodes exactly as Hugging Face's library does with the same files.
//! - [`StreamDecoder`]: ids in, one at a time; text out, never half a character, never a space too few.
//! - [`Template`]: a conversation as the text, and the ids, that the model was trained on.
//!
//! ```
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/tokenizer");
//! use komt_tokenize::{Message, StreamDecoder, Template, Tokenizer};
//!
//! let tokenizer = Tokenizer::from_dir(dir.as_ref())?;
//! let prompt = Template::Komt.prompt_ids(&tokenizer, &[Message::user("안녕하세요")])?;
//! assert_eq!(prompt[0], tokenizer.bos().unwrap());
//! assert_eq!(tokenizer.decode(&prompt, true)?, "[INST]안녕하세요 [/INST]");
//!
//! let sampled = [28705, 30325, 238, 136, 152]; // What a model might answer.
//! let mut stream = StreamDecoder::with_context(&tokenizer, &prompt)?;
//! let mut answer = String::new();
//! for id in sampled {
//!     answer += &stream.push(id)?; // Print it: it is whole.
//! }
//! answer += &stream.finish();
//! assert_eq!(answer, " 안녕");
//! # Ok::<(), komt_tokenize::Error>(())
//! ```
//!
//! # Two layouts
//! The Mistral tokenizer was published twice, and the two tokenise differently. The 2023 `tokenizer.json` puts a space in
//! front of the text *and behind every special token*; the later one, with `Metaspace`, only in front of the text:
//! `<s>[INST]` ends in other ids. Models were trained with one or the other, so the file that lies with the weights
//! decides; nothing is normalised to a favourite.
//!
//! # BOS, once
//! Some templates write `<s>`, some leave it to the tokenizer, and doing both is the classic mistake.
//! [`Tokenizer::encode`] never adds one, [`Tokenizer::encode_with_bos`] and [`Template::prompt_ids`] see to exactly one.
//!
//! # What is special
//! `encode` reads `</s>` in its text as the token, as Hugging Face does. [`Tokenizer::encode_plain`] reads four
//! characters, and templates treat what people say in that way: nobody ends the model's turn by typing. This holds for
//! contents alone; a Jinja template that writes `<` before and `s>` behind a content has itself to blame.
//!
//! # Where decoding loses
//! `decode(encode_plain(text))` is the text, with two exceptions of SentencePiece's making: `▁` (U+2581) comes back as a
//! space, and in the later layout a text that begins with a space comes back without it. Ids that no encoder made may
//! decode to U+FFFD: see [`StreamDecoder`] for what streaming does with them.

#![forbid(unsafe_code)]

mod decoder;
mod error;
mod files;
mod jinja;
mod load;
mod stream;
mod template;
mod tokenizer;
mod vocabulary;

pub use error::{Error, Result};
pub use stream::StreamDecoder;
pub use template::{Message, Role, Template};
pub use tokenizer::Tokenizer;
pub use vocabulary::{TokenKind, Vocabulary, VocabularyModel};

/// A token's number, as models know it.
pub type TokenId = u32;
