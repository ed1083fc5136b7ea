//! The tokenizer's files: which are read, how far they are trusted, what is taken from each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// Far above any published tokenizer.json (the largest have about 35 MB).
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// Far above any published tokenizer_config.json (those with hundreds of added tokens have about 200 KB).
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The bytes of a tokenizer's files, as they lie beside the weights.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// `tokenizer.json`
    pub(crate) tokenizer: Vec<u8>,
    /// `tokenizer_config.json`
    pub(crate) config: Option<Vec<u8>>,
    /// `special_tokens_map.json`
    pub(crate) special_tokens_map: Option<Vec<u8>>,
    /// `chat_template.jinja`
    pub(crate) chat_template: Option<Vec<u8>>,
}

impl Files {
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let tokenizer = read(&path, MAX_TOKENIZER_BYTES)?.ok_or_else(|| Error::Io {
            path,
            source: std::io::Error::new(std::io::ErrorKind::NotFound, "no such file"),
        })?;
        Ok(Self {
            tokenizer,
            config: read(&dir.join("tokenizer_config.json"), MAX_CONFIG_BYTES)?,
            special_tokens_map: read(&dir.join("special_tokens_map.json"), MAX_CONFIG_BYTES)?,
            chat_template: read(&dir.join("chat_template.jinja"), MAX_CONFIG_BYTES)?,
        })
    }
}

/// The bytes of a file, `None` where there is none.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let too_large = |found| Error::TooLarge { file: path.display().to_string(), limit, found };
    let found = file.metadata().map_err(io)?.len();
    if found > limit {
        return Err(too_large(found));
    }
    // The size that the file system tells may be wrong (a pipe, a growing file): never read further than the limit.
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes).map_err(io)? as u64;
    if read > limit { Err(too_large(read)) } else { Ok(Some(bytes)) }
}

/// What we read of `tokenizer.json` ourselves. Everything else is the tokenizer crate's business.
#[derive(Debug, Deserialize)]
pub(crate) struct Layout {
    #[serde(default)]
    pub(crate) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(crate) decoder: Option<Value>,
    model: Model,
}

/// An entry of `added_tokens`.
#[derive(Debug, Deserialize)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
}

#[derive(Debug, Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    continuing_subword_prefix: Option<String>,
}

impl Layout {
    pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        let layout: Self = parse_json(file, "a tokenizer.json", bytes)?;
        let prefixed = layout.model.continuing_subword_prefix.as_ref().is_some_and(|p| !p.is_empty());
        // The tokenizer crate cuts the prefix off merges without looking whether it is there.
        if prefixed && layout.model.kind.as_deref() != Some("WordPiece") {
            return Err(Error::Unsupported {
                file: file.to_owned(),
                what: "BPE with a continuing_subword_prefix".to_owned(),
                expected: "none, as in every Mistral-architecture model",
            });
        }
        Ok(layout)
    }
}

/// What `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja` say together.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) bos_token: Option<String>,
    pub(crate) eos_token: Option<String>,
    pub(crate) unk_token: Option<String>,
    pub(crate) pad_token: Option<String>,
    pub(crate) add_bos_token: Option<bool>,
    pub(crate) add_eos_token: Option<bool>,
    /// By name; the one without a name is `default`.
    pub(crate) chat_templates: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct RawConfig {
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    unk_token: Option<TokenName>,
    pad_token: Option<TokenName>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    tokenizer_class: Option<String>,
    chat_template: Option<ChatTemplates>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a token as a string or as {\"content\": string}")]
enum TokenName {
    Text(String),
    Object { content: String },
}

impl TokenName {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a template as a string or a list of {\"name\": string, \"template\": string}")]
enum ChatTemplates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl Config {
    /// tokenizer_config.json comes first, special_tokens_map.json fills what it leaves open; chat_template.jinja
    /// stands above a template in tokenizer_config.json, as in transformers.
    pub(crate) fn parse(files: &Files) -> Result<Self> {
        let parse = |file, bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => parse_json::<RawConfig>(file, "the fields of a tokenizer's configuration", bytes),
            None => Ok(RawConfig::default()),
        };
        let config = parse("tokenizer_config.json", &files.config)?;
        let map = parse("special_tokens_map.json", &files.special_tokens_map)?;
        let name = |a: Option<TokenName>, b: Option<TokenName>| a.or(b).map(TokenName::into_text);
        // transformers' Llama class adds BOS unless it is told not to.
        let llama = config.tokenizer_class.is_some_and(|class| class.starts_with("Llama"));
        let mut chat_templates = BTreeMap::new();
        match config.chat_template {
            None => {}
            Some(ChatTemplates::One(template)) => {
                chat_templates.insert("default".to_owned(), template);
            }
            Some(ChatTemplates::Named(named)) => {
                chat_templates.extend(named.into_iter().map(|t| (t.name, t.template)));
            }
        }
        if let Some(bytes) = &files.chat_template {
            let template = std::str::from_utf8(bytes).map_err(|error| Error::Invalid {
                file: "chat_template.jinja".to_owned(),
                expected: "UTF-8".to_owned(),
                found: error.to_string(),
            })?;
            chat_templates.insert("default".to_owned(), template.to_owned());
        }
        Ok(Self {
            bos_token: name(config.bos_token, map.bos_token),
            eos_token: name(config.eos_token, map.eos_token),
            unk_token: name(config.unk_token, map.unk_token),
            pad_token: name(config.pad_token, map.pad_token),
            add_bos_token: config.add_bos_token.or(llama.then_some(true)),
            add_eos_token: config.add_eos_token,
            chat_templates,
        })
    }
}

fn parse_json<T: DeserializeOwned>(file: &str, expected: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::Invalid {
        file: file.to_owned(),
        expected: expected.to_owned(),
        found: error.to_string(),
    })
}
