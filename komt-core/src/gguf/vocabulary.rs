//! The tokenizer, from the metadata of a GGUF file.

use super::config::{of_tokenizer, wrong_key};
use super::parse::{Array, Header, Value};
use crate::{Error, Result};
use komt_tokenize::{TokenKind, Tokenizer, Vocabulary, VocabularyModel};
use std::collections::BTreeMap;
use std::path::Path;

/// What reading the keys needs.
struct Keys<'a> {
    path: &'a Path,
    header: &'a Header,
    bytes: &'a [u8],
}

/// The tokenizer, if the file has one.
pub(super) fn tokenizer(path: &Path, header: &Header, bytes: &[u8]) -> Result<Option<Tokenizer>> {
    let keys = Keys { path, header, bytes };
    let Some(kind) = keys.text("model")?.filter(|kind| !matches!(*kind, "none" | "no_vocab")) else {
        return Ok(None);
    };
    let tokens = keys.array("tokens")?.texts(path, bytes, "tokenizer.ggml.tokens")?;
    let kinds = keys.kinds(tokens.len(), kind)?;
    let model = match kind {
        "llama" => keys.sentencepiece()?,
        "gpt2" => keys.byte_level()?,
        other => {
            return Err(Error::Unsupported {
                path: path.into(),
                field: "tokenizer.ggml.model".into(),
                found: other.into(),
                supported: "llama (SentencePiece) or gpt2 (byte-level BPE)".into(),
            });
        }
    };
    let vocabulary = Vocabulary {
        tokens,
        kinds,
        bos: keys.id("bos")?,
        eos: keys.id("eos")?,
        unk: keys.id("unknown")?,
        pad: keys.id("padding")?,
        adds_bos: keys.flag("add_bos_token")?.unwrap_or(model.adds_bos_by_default()),
        adds_eos: keys.flag("add_eos_token")?.unwrap_or(false),
        chat_templates: keys.chat_templates(),
        model,
    };
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary).map_err(|error| match error {
        komt_tokenize::Error::Invalid { expected, found, .. } => {
            super::parse::wrong(path, "tokenizer", &expected, found)
        }
        other => other.into(),
    })?;
    Ok(Some(tokenizer))
}

impl<'a> Keys<'a> {
    fn wrong(&self, name: &str, expected: &str) -> Error {
        let found = match of_tokenizer(self.header, name) {
            None => "nothing".into(),
            Some(Value::Array(array)) => format!("an array of {} of type {}", array.len, array.kind),
            Some(value) => format!("{value:?}"),
        };
        wrong_key(self.path, name, expected, found)
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match of_tokenizer(self.header, name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a text")),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match of_tokenizer(self.header, name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// The id of a role. 2^32 - 1 is how llama.cpp writes that there is none.
    fn id(&self, role: &str) -> Result<Option<u32>> {
        let name = format!("{role}_token_id");
        let id = match of_tokenizer(self.header, &name) {
            None | Some(Value::Signed(-1)) => return Ok(None),
            Some(&Value::Unsigned(id)) => u32::try_from(id).ok(),
            Some(&Value::Signed(id)) => u32::try_from(id).ok(),
            Some(_) => None,
        };
        match id {
            Some(u32::MAX) => Ok(None),
            Some(id) => Ok(Some(id)),
            None => Err(self.wrong(&name, "a token id")),
        }
    }

    fn array(&self, name: &str) -> Result<&'a Array> {
        match of_tokenizer(self.header, name) {
            Some(Value::Array(array)) => Ok(array),
            _ => Err(self.wrong(name, "an array")),
        }
    }

    /// SentencePiece's files cannot be read without; others have normal tokens where they do not say.
    fn kinds(&self, n: usize, model: &str) -> Result<Vec<TokenKind>> {
        const NAME: &str = "token_type";
        if of_tokenizer(self.header, NAME).is_none() && model != "llama" {
            return Ok(vec![TokenKind::Normal; n]);
        }
        let numbers = self.array(NAME)?.numbers(self.path, self.bytes, "tokenizer.ggml.token_type")?;
        let kind = |number: f64| {
            TokenKind::from_number(number as i64)
                .ok_or_else(|| wrong_key(self.path, NAME, "types of 1..=6", number))
        };
        numbers.into_iter().map(kind).collect()
    }

    fn sentencepiece(&self) -> Result<VocabularyModel> {
        let scores = self.array("scores")?.numbers(self.path, self.bytes, "tokenizer.ggml.scores")?;
        let refused = [
            ("remove_extra_whitespaces", self.flag("remove_extra_whitespaces")? == Some(true)),
            ("precompiled_charsmap", of_tokenizer(self.header, "precompiled_charsmap").is_some()),
        ];
        if let Some((name, _)) = refused.into_iter().find(|(_, is_there)| *is_there) {
            return Err(Error::Unsupported {
                path: self.path.into(),
                field: format!("tokenizer.ggml.{name}"),
                found: "there".into(),
                supported: "a SentencePiece tokenizer that leaves text as it is".into(),
            });
        }
        let space_in_front = self.flag("add_space_prefix")?.unwrap_or(true);
        let scores = scores.into_iter().map(|score| score as f32).collect();
        Ok(VocabularyModel::SentencePiece { scores, space_in_front })
    }

    fn byte_level(&self) -> Result<VocabularyModel> {
        let known = format!("one of {}", VocabularyModel::PRE_TOKENIZERS.join(", "));
        let pre = self.text("pre")?.filter(|pre| VocabularyModel::PRE_TOKENIZERS.contains(pre));
        let pre = pre.ok_or_else(|| self.wrong("pre", &known))?.to_owned();
        let merges = self.array("merges")?.texts(self.path, self.bytes, "tokenizer.ggml.merges")?;
        Ok(VocabularyModel::ByteLevel { pre, merges })
    }

    /// `tokenizer.chat_template`, and those with a name behind another point.
    fn chat_templates(&self) -> BTreeMap<String, String> {
        let template = |(key, value): (&String, &Value)| {
            let name = key.strip_prefix("tokenizer.chat_template")?;
            let name = if name.is_empty() { "default" } else { name.strip_prefix('.')? };
            match value {
                Value::Text(text) => Some((name.to_owned(), text.clone())),
                _ => None,
            }
        };
        self.header.metadata.iter().filter_map(template).collect()
    }
}
