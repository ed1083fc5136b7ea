//! [`Vocabulary`]: a tokenizer as lists of tokens, the way GGUF files hold it, and how it becomes a `tokenizer.json`.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::TokenId;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::tokenizer::Tokenizer;

/// What errors name.
const WHERE: &str = "vocabulary";
/// SentencePiece's longest tokens have 16 characters, Llama's runs of blanks 64 bytes; the work goes with the square.
const MAX_PIECE_BYTES: usize = 1024;

/// The text of all merges: vocabularies of 256,000 tokens have a few MiB. Tokens that are all parts of each other would have
/// a thousand times their file.
const MAX_MERGES_BYTES: usize = 64 << 20;

/// What a token is for (the numbers are SentencePiece's, and GGUF's `tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenKind {
    /// 1: text.
    Normal,
    /// 2: stands for what cannot be written.
    Unknown,
    /// 3: BOS, EOS, the borders of turns: special.
    Control,
    /// 4: cut out of the text before anything else, but printed.
    UserDefined,
    /// 5: never made.
    Unused,
    /// 6: `<0xEA>`, one byte.
    Byte,
}

impl TokenKind {
    /// The kind with this number.
    pub fn from_number(number: i64) -> Option<Self> {
        use TokenKind::*;
        let kinds = [Normal, Unknown, Control, UserDefined, Unused, Byte];
        usize::try_from(number).ok()?.checked_sub(1).and_then(|i| kinds.get(i).copied())
    }
}

/// How text becomes tokens.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum VocabularyModel {
    /// SentencePiece's BPE: of two neighbours whose union is a token, those with the best score are joined first.
    SentencePiece {
        /// One for each token.
        scores: Vec<f32>,
        /// Whether a space goes in front of the text, and behind every special token: the layout of 2023, and llama.cpp's.
        space_in_front: bool,
    },
    /// BPE on bytes that are written as visible characters.
    ByteLevel {
        /// How the text is cut first: one of [`PRE_TOKENIZERS`](Self::PRE_TOKENIZERS), llama.cpp's names
        /// (`tokenizer.ggml.pre`).
        pre: String,
        /// Pairs with a space between, the first to be joined first.
        merges: Vec<String>,
    },
}

/// A tokenizer as a GGUF file holds it.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// By id.
    pub tokens: Vec<String>,
    /// By id.
    pub kinds: Vec<TokenKind>,
    /// How text becomes tokens.
    pub model: VocabularyModel,
    /// Beginning of sequence.
    pub bos: Option<TokenId>,
    /// End of sequence.
    pub eos: Option<TokenId>,
    /// The unknown token.
    pub unk: Option<TokenId>,
    /// The padding token.
    pub pad: Option<TokenId>,
    /// What [`Tokenizer::adds_bos`] will say.
    pub adds_bos: bool,
    /// What [`Tokenizer::adds_eos`] will say.
    pub adds_eos: bool,
    /// Jinja templates by name; the one without a name is `default`.
    pub chat_templates: BTreeMap<String, String>,
}

/// Llama 3's pattern, as its tokenizer.json has it.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// That of Mistral's Tekken.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl VocabularyModel {
    /// The ways of cutting text that are known. `default` is what old converters wrote when they did not know; it is read as
    /// GPT-2's.
    pub const PRE_TOKENIZERS: [&str; 8] =
        ["gpt-2", "default", "smollm", "starcoder", "llama-bpe", "llama3", "llama-v3", "tekken"];

    /// Whether files with this pre-tokenizer that say nothing of BOS want one (llama.cpp's rule).
    pub fn adds_bos_by_default(&self) -> bool {
        match self {
            Self::SentencePiece { .. } => true,
            Self::ByteLevel { pre, .. } => is_tiktoken(pre),
        }
    }
}

/// Made from a tiktoken file: whole words that are tokens are not put together from parts.
fn is_tiktoken(pre: &str) -> bool {
    matches!(pre, "llama-bpe" | "llama3" | "llama-v3" | "tekken")
}

impl Tokenizer {
    /// Builds the tokenizer that Hugging Face's converters would make of the same lists.
    ///
    /// # Errors
    /// Lists that do not fit each other, tokens that are there twice, and what [`from_bytes`](Self::from_bytes) refuses.
    pub fn from_vocabulary(vocabulary: &Vocabulary) -> Result<Self> {
        let v = vocabulary;
        v.check()?;
        let (model, normalizer, pre_tokenizer, decoder) = match &v.model {
            VocabularyModel::SentencePiece { scores, space_in_front } => {
                v.sentencepiece(scores, *space_in_front)?
            }
            VocabularyModel::ByteLevel { pre, merges } => v.byte_level(pre, merges)?,
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": v.added_tokens(),
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
            "model": model,
        });
        let name = |id: Option<TokenId>| id.map(|id| v.tokens[id as usize].as_str());
        let template = |(name, template): (&String, &String)| json!({"name": name, "template": template});
        let config = json!({
            "bos_token": name(v.bos), "eos_token": name(v.eos), "unk_token": name(v.unk), "pad_token": name(v.pad),
            "add_bos_token": v.adds_bos, "add_eos_token": v.adds_eos,
            "chat_template": v.chat_templates.iter().map(template).collect::<Vec<_>>(),
        });
        let files =
            Files { tokenizer: bytes(&tokenizer)?, config: Some(bytes(&config)?), ..Files::default() };
        Self::from_files(&files)
    }
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| invalid("what JSON can hold", error.to_string()))
}

fn invalid(expected: &str, found: String) -> Error {
    Error::Invalid { file: WHERE.to_owned(), expected: expected.to_owned(), found }
}

/// The model, normalizer, pre-tokenizer and decoder of a tokenizer.json.
type Layout = (Value, Value, Value, Value);

impl Vocabulary {
    /// The lists fit each other.
    fn check(&self) -> Result<()> {
        let n = self.tokens.len();
        let lengths = |what: &str, len: usize| match len == n {
            true => Ok(()),
            false => Err(invalid(&format!("{n} {what}, as there are tokens"), len.to_string())),
        };
        lengths("kinds of tokens", self.kinds.len())?;
        if let VocabularyModel::SentencePiece { scores, .. } = &self.model {
            lengths("scores", scores.len())?;
            if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
                return Err(invalid("finite scores", format!("{} of token {i}", scores[i])));
            }
        }
        for (role, id) in [("BOS", self.bos), ("EOS", self.eos), ("unknown", self.unk), ("padding", self.pad)]
        {
            if let Some(id) = id.filter(|&id| id as usize >= n) {
                return Err(invalid(&format!("the {role} token to be one of {n}"), id.to_string()));
            }
        }
        let mut seen = HashMap::with_capacity(n);
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(other) = seen.insert(token.as_str(), id) {
                let found = format!("{} as {other} and as {id}", crate::error::excerpt(token));
                return Err(invalid("each token once", found));
            }
        }
        Ok(())
    }

    fn ids(&self) -> HashMap<&str, usize> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect()
    }

    fn added_tokens(&self) -> Vec<Value> {
        let added = |(id, (token, kind)): (usize, (&String, &TokenKind))| {
            let special = match kind {
                TokenKind::Control | TokenKind::Unknown => true,
                TokenKind::UserDefined => false,
                _ => return None,
            };
            Some(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            }))
        };
        self.tokens.iter().zip(&self.kinds).enumerate().filter_map(added).collect()
    }

    fn has(&self, kind: TokenKind) -> bool {
        self.kinds.contains(&kind)
    }

    fn bpe(&self, merges: &[(&str, &str)], change: Value) -> Value {
        let mut model = json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": self.ids(), "merges": merges,
        });
        if let (Some(model), Value::Object(change)) = (model.as_object_mut(), change) {
            model.extend(change);
        }
        model
    }

    fn sentencepiece(&self, scores: &[f32], space_in_front: bool) -> Result<Layout> {
        let unk = self.unk.map(|id| id as usize);
        let unk = unk.or_else(|| self.kinds.iter().position(|&kind| kind == TokenKind::Unknown));
        let unk = unk.map(|id| self.tokens[id].as_str());
        let has_bytes = self.has(TokenKind::Byte);
        let merges = self.merges_by_score(scores)?;
        let model =
            self.bpe(&merges, json!({"unk_token": unk, "fuse_unk": true, "byte_fallback": has_bytes}));
        let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if space_in_front {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
        Ok((model, normalizer, Value::Null, json!({"type": "Sequence", "decoders": decoders})))
    }

    /// The pairs that make a token, those with the best score first: what transformers' converter makes of SentencePiece's
    /// scores (convert_slow_tokenizer.py, `generate_merges`), pairs of one token in the order of their parts' ids.
    fn merges_by_score(&self, scores: &[f32]) -> Result<Vec<(&str, &str)>> {
        let ids = self.ids();
        let (mut merges, mut merged_bytes) = (vec![], 0);
        for (id, token) in self.tokens.iter().enumerate() {
            if matches!(self.kinds[id], TokenKind::Unknown | TokenKind::Control | TokenKind::Byte) {
                continue;
            }
            if token.len() > MAX_PIECE_BYTES {
                let expected = format!("tokens of {MAX_PIECE_BYTES} bytes at most");
                return Err(invalid(&expected, format!("{} as token {id}", token.len())));
            }
            let first = merges.len();
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                    merged_bytes += token.len();
                    if merged_bytes > MAX_MERGES_BYTES {
                        let expected = format!("merges of {MAX_MERGES_BYTES} bytes at most");
                        return Err(invalid(&expected, format!("more, at token {id}")));
                    }
                    merges.push((scores[id], (l, r), (left, right)));
                }
            }
            merges[first..].sort_by_key(|&(_, ids, _)| ids);
        }
        merges.sort_by(|(a, ..), (b, ..)| b.total_cmp(a)); // stable
        Ok(merges.into_iter().map(|(.., pair)| pair).collect())
    }

    fn byte_level(&self, pre: &str, merges: &[String]) -> Result<Layout> {
        let pair = |merge: &'_ String| -> Option<usize> {
            let after_first = merge.chars().next()?.len_utf8();
            merge[after_first..].find(' ').map(|at| after_first + at)
        };
        let mut pairs = Vec::with_capacity(merges.len());
        for merge in merges {
            let at = pair(merge).ok_or_else(|| {
                invalid("merges of two tokens with a space between", crate::error::excerpt(merge))
            })?;
            pairs.push((&merge[..at], &merge[at + 1..]));
        }
        let level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "pretokenizers": steps});
        let split = |pattern: &str| {
            let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            sequence(vec![split, level(false)])
        };
        let pre_tokenizer = match pre {
            "gpt-2" | "default" => level(true),
            "smollm" | "starcoder" => {
                sequence(vec![json!({"type": "Digits", "individual_digits": true}), level(true)])
            }
            "llama-bpe" | "llama3" | "llama-v3" => split(LLAMA_3),
            "tekken" => split(TEKKEN),
            _ => {
                let expected = format!("one of {}", VocabularyModel::PRE_TOKENIZERS.join(", "));
                return Err(invalid(&expected, format!("{pre:?} as the pre-tokenizer")));
            }
        };
        let model = self.bpe(&pairs, json!({"ignore_merges": is_tiktoken(pre)}));
        let decoder =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        Ok((model, Value::Null, pre_tokenizer, decoder))
    }
}
