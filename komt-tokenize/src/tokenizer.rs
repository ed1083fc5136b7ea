//! [`Tokenizer`]: a model's own `tokenizer.json`, text to ids and back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tokenizers::{Model, OffsetType, PreTokenizer, Token};

use crate::TokenId;
use crate::decoder::Plan;
use crate::error::{Error, Result, excerpt};
use crate::files::Files;
use crate::load::{Parts, Roles};

/// A model's tokenizer. Cheap to clone and to share between threads: the tables exist once.
///
/// The file decides everything: both published layouts of the Mistral tokenizer (the 2023 one with `Prepend`, the later
/// one with `Metaspace`) tokenise as they do in Hugging Face's library, and so does byte-level BPE.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    hf: tokenizers::Tokenizer,
    plan: Plan,
    vocab_size: usize,
    /// Special tokens: never printed when special tokens are skipped, never made from plain text.
    special: BTreeMap<TokenId, String>,
    roles: Roles,
    adds_bos: bool,
    adds_eos: bool,
    chat_templates: BTreeMap<String, String>,
}

// Users share tokenizers between threads; a change that forbids it should fail here and not in their crates.
const _: () = {
    const fn shared<T: Send + Sync + Clone>() {}
    shared::<Tokenizer>();
};

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { vocab_size, roles, .. } = &*self.inner;
        f.debug_struct("Tokenizer")
            .field("vocab_size", vocab_size)
            .field("roles", roles)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a Hugging Face model directory: `tokenizer.json` and, where they are there, `tokenizer_config.json`,
    /// `special_tokens_map.json` (for roles that the former leaves open) and `chat_template.jinja` (which stands above
    /// the former's `chat_template`).
    ///
    /// Padding and truncation that `tokenizer.json` may ask for are left off, as in transformers.
    ///
    /// # Errors
    /// Files that are missing, too large, malformed, contradict each other or need what this crate does not have.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        Self::from_files(&Files::read(dir)?)
    }

    /// The same from bytes: a `tokenizer.json` and perhaps a `tokenizer_config.json`.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir).
    pub fn from_bytes(tokenizer_json: &[u8], tokenizer_config_json: Option<&[u8]>) -> Result<Self> {
        Self::from_files(&Files {
            tokenizer: tokenizer_json.to_owned(),
            config: tokenizer_config_json.map(<[u8]>::to_owned),
            ..Files::default()
        })
    }

    pub(crate) fn from_files(files: &Files) -> Result<Self> {
        let Parts { hf, plan, roles, adds_bos, adds_eos, chat_templates } = Parts::load(files)?;
        let added = hf.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, t)| t.special).map(|(id, t)| (id, t.content)).collect();
        let vocab_size = hf.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let inner = Inner { hf, plan, vocab_size, special, roles, adds_bos, adds_eos, chat_templates };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The ids of a text: no BOS in front, no EOS behind. The spellings of special tokens in the text *are* those tokens,
    /// as in Hugging Face's library with `add_special_tokens=False`; so this is for text that you wrote or trust.
    ///
    /// # Errors
    /// [`Error::Refused`] when the tokenizer's model cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let encoding = self.inner.hf.encode_fast(text, false).map_err(refused(text))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// [`encode`](Self::encode) with exactly one BOS in front, if the tokenizer has one. Where the text begins with the
    /// spelling of BOS, that one counts; Hugging Face's `add_special_tokens=True` would double it.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_with_bos(&self, text: &str) -> Result<Vec<TokenId>> {
        let mut ids = self.encode(text)?;
        self.put_bos_in_front(&mut ids);
        Ok(ids)
    }

    /// The ids of a text in which nothing is special: `</s>` is four characters. For text from outside.
    ///
    /// Where the text spells no special token the ids are those of [`encode`](Self::encode). No id of a special token
    /// ever comes out, but that of the unknown token where the tokenizer has no other way to write a character.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_plain(&self, text: &str) -> Result<Vec<TokenId>> {
        let mark = unused_chars(&[text]).next().ok_or_else(|| too_many_private_chars(text))?;
        self.encode_marked(&self.mark_spellings(text, mark), mark)
    }

    /// The text of ids, as Hugging Face's library decodes it: the space that SentencePiece puts in front of a text is
    /// gone, a run of byte tokens that is not UTF-8 is one U+FFFD per byte. With `skip_special`, special tokens print
    /// nothing.
    ///
    /// # Errors
    /// [`Error::UnknownId`] for an id without a token. (Hugging Face passes over it in silence.)
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> Result<String> {
        if let Some(&id) = ids.iter().find(|&&id| self.token(id).is_none()) {
            return Err(self.unknown_id(id));
        }
        let ids: Vec<_> = ids.iter().copied().filter(|&id| !(skip_special && self.is_special(id))).collect();
        self.inner.hf.decode(&ids, false).map_err(refused(&format!("{} ids", ids.len())))
    }

    /// The token of an id as it stands in the vocabulary: `▁the`, `<0xEA>`, `</s>`.
    pub fn token(&self, id: TokenId) -> Option<String> {
        self.inner.special.get(&id).cloned().or_else(|| self.inner.hf.id_to_token(id))
    }

    /// The id of a token as it stands in the vocabulary. Not for text: see [`encode`](Self::encode).
    pub fn id_of(&self, token: &str) -> Option<TokenId> {
        self.inner.hf.token_to_id(token)
    }

    /// One more than the largest id: the rows that the model's embedding must have at least.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// Beginning of sequence. Named by the tokenizer's files, or `<s>` where they name none and it is a special token.
    pub fn bos(&self) -> Option<TokenId> {
        self.inner.roles.bos
    }

    /// End of sequence. Named by the tokenizer's files, or `</s>` where they name none and it is a special token.
    pub fn eos(&self) -> Option<TokenId> {
        self.inner.roles.eos
    }

    /// The unknown token. Named by the tokenizer's files, or `<unk>` where they name none and it is a special token.
    pub fn unk(&self) -> Option<TokenId> {
        self.inner.roles.unk
    }

    /// The padding token, if the tokenizer's files name one. Nothing in komt pads; it is here to be recognised.
    pub fn pad(&self) -> Option<TokenId> {
        self.inner.roles.pad
    }

    /// Whether this id is that of a special token.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.inner.special.contains_key(&id)
    }

    /// Whether the model's files want BOS in front of a text: `add_bos_token`, else what the post-processor does. Use
    /// [`encode_with_bos`](Self::encode_with_bos) when they do, [`encode`](Self::encode) when not, to have what
    /// transformers would give the model.
    pub fn adds_bos(&self) -> bool {
        self.inner.adds_bos
    }

    /// Whether the model's files want EOS behind a text: `add_eos_token`, else what the post-processor does. Nothing
    /// here adds it.
    pub fn adds_eos(&self) -> bool {
        self.inner.adds_eos
    }

    /// The Jinja chat template that lies with the tokenizer: the one without a name, or named `default`.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template_named("default")
    }

    /// A chat template of a tokenizer that has several: `tool_use`, `rag`.
    pub fn chat_template_named(&self, name: &str) -> Option<&str> {
        self.inner.chat_templates.get(name).map(String::as_str)
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.inner.plan
    }

    /// The string that the decoder gets for an id. (Differs from [`token`](Self::token) for added tokens that the
    /// file marks as normalised.)
    pub(crate) fn decoder_token(&self, id: TokenId) -> Result<String> {
        self.inner.hf.id_to_token(id).ok_or_else(|| self.unknown_id(id))
    }

    pub(crate) fn put_bos_in_front(&self, ids: &mut Vec<TokenId>) {
        if let Some(bos) = self.bos().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
    }

    /// The special token whose spelling stands at the start of a text.
    pub(crate) fn special_at_start(&self, text: &str) -> Option<&str> {
        self.inner.special.values().map(String::as_str).find(|spelling| text.starts_with(spelling))
    }

    /// Whether a text spells a special token somewhere.
    pub(crate) fn spells_special(&self, text: &str) -> bool {
        self.inner.special.values().any(|spelling| text.contains(spelling))
    }

    /// Puts `mark` behind the first character of every special spelling in the text, so that none is left. (A special
    /// token of a single character could not be broken so; no Mistral-family tokenizer has one.)
    pub(crate) fn mark_spellings(&self, text: &str, mark: char) -> String {
        if !self.spells_special(text) {
            return text.to_owned();
        }
        let mut marked = String::with_capacity(text.len() + 16);
        for (i, c) in text.char_indices() {
            marked.push(c);
            if self.special_at_start(&text[i..]).is_some() {
                marked.push(mark);
            }
        }
        marked
    }

    /// The ids of a text whose marked spellings are plain text and whose other spellings are special tokens.
    ///
    /// Hugging Face's pipeline in its own order - special tokens are cut out, the rest is normalised, pre-tokenised,
    /// encoded - with the marks taken out once the special tokens are found. So pieces begin and end exactly where they
    /// would, in every layout.
    pub(crate) fn encode_marked(&self, text: &str, mark: char) -> Result<Vec<TokenId>> {
        let hf = &self.inner.hf;
        let mut pieces = hf.get_added_vocabulary().extract_and_normalize(hf.get_normalizer(), text);
        pieces
            .normalize(|piece| piece.replace(mark, ""))
            .and_then(|()| hf.get_pre_tokenizer().map_or(Ok(()), |p| p.pre_tokenize(&mut pieces)))
            .and_then(|()| pieces.tokenize(|piece| self.plain_tokens(piece.get())))
            .and_then(|()| pieces.into_encoding(None, 0, OffsetType::None))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(refused(text))
    }

    /// The model's tokens of a piece of plain text, none of them special. (Models that look up whole words before they
    /// merge could make one out of its spelling: it is written character by character then.)
    fn plain_tokens(&self, piece: &str) -> tokenizers::Result<Vec<Token>> {
        let control = |token: &Token| self.is_special(token.id) && Some(token.id) != self.unk();
        let model = self.inner.hf.get_model();
        let tokens = model.tokenize(piece)?;
        if !tokens.iter().any(control) {
            return Ok(tokens);
        }
        let mut plain = Vec::with_capacity(tokens.len() + 8);
        for token in tokens {
            if !control(&token) {
                plain.push(token);
                continue;
            }
            for c in token.value.chars() {
                plain.extend(model.tokenize(c.encode_utf8(&mut [0; 4]))?);
            }
        }
        match plain.iter().find(|token| control(token)) {
            None => Ok(plain),
            Some(token) => Err(format!("{:?} has no ids but that of a special token", token.value).into()),
        }
    }

    fn unknown_id(&self, id: TokenId) -> Error {
        Error::UnknownId { id, vocab_size: self.vocab_size() }
    }
}

/// Private-use characters that none of the texts contains.
pub(crate) fn unused_chars(texts: &[&str]) -> impl Iterator<Item = char> {
    let private = |c: &char| matches!(c, '\u{F0000}'..='\u{FFFFD}' | '\u{100000}'..='\u{10FFFD}');
    let used: BTreeSet<_> = texts.iter().flat_map(|text| text.chars()).filter(private).collect();
    ('\u{F0000}'..='\u{10FFFD}').filter(move |c| private(c) && !used.contains(c))
}

pub(crate) fn too_many_private_chars(text: &str) -> Error {
    refused(text)("the text uses every private-use character".into())
}

fn refused(what: &str) -> impl FnOnce(tokenizers::Error) -> Error {
    let what = excerpt(what);
    move |error| Error::Refused { what, reason: error.to_string() }
}
