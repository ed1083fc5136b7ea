//! [`Tokenizer`]: a model's own `tokenizer.json`, text to ids and back.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use tokenizers::{Model, OffsetType, PreTokenizer, Token};

use crate::TokenId;
use crate::decoder::Plan;
use crate::error::{Error, Result, excerpt};
use crate::files::{Config, Files, Layout};

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
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    unk: Option<TokenId>,
    pad: Option<TokenId>,
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
        let Inner { vocab_size, bos, eos, .. } = &*self.inner;
        write!(f, "Tokenizer {{ vocab_size: {vocab_size}, bos: {bos:?}, eos: {eos:?} }}")
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

    fn from_files(files: &Files) -> Result<Self> {
        let file = "tokenizer.json";
        let layout = Layout::parse(file, &files.tokenizer)?;
        let plan = Plan::parse(file, layout.decoder.as_ref())?;
        let config = Config::parse(files)?;
        let mut hf = load(file, &files.tokenizer)?;
        check_added_tokens(file, &layout, &hf)?;
        let roles = Roles::find(&config, &hf)?;
        roles.make_special(&mut hf).map_err(|reason| Error::Refused { what: file.to_owned(), reason })?;
        let added = hf.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, t)| t.special).map(|(id, t)| (id, t.content)).collect();
        let vocab_size = hf.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        // What the file's own post-processor puts around an empty text.
        let around = hf.encode("", true).map_err(refused(""))?;
        let adds = |token: Option<TokenId>, wanted: Option<bool>| {
            token.is_some_and(|token| wanted.unwrap_or_else(|| around.get_ids().contains(&token)))
        };
        let inner = Inner {
            plan,
            vocab_size,
            special,
            adds_bos: adds(roles.bos, config.add_bos_token),
            adds_eos: adds(roles.eos, config.add_eos_token),
            bos: roles.bos,
            eos: roles.eos,
            unk: roles.unk,
            pad: roles.pad,
            chat_templates: config.chat_templates,
            hf,
        };
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
        self.inner.bos
    }

    /// End of sequence. Named by the tokenizer's files, or `</s>` where they name none and it is a special token.
    pub fn eos(&self) -> Option<TokenId> {
        self.inner.eos
    }

    /// The unknown token. Named by the tokenizer's files, or `<unk>` where they name none and it is a special token.
    pub fn unk(&self) -> Option<TokenId> {
        self.inner.unk
    }

    /// The padding token, if the tokenizer's files name one. Nothing in komt pads; it is here to be recognised.
    pub fn pad(&self) -> Option<TokenId> {
        self.inner.pad
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

    /// Puts `mark` behind the first character of every special spelling in the text, so that none is left.
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
    let private = ('\u{F0000}'..='\u{FFFFD}').chain('\u{100000}'..='\u{10FFFD}');
    private.filter(|&c| !texts.iter().any(|text| text.contains(c)))
}

pub(crate) fn too_many_private_chars(text: &str) -> Error {
    refused(text)("the text uses every private-use character".into())
}

fn refused(what: &str) -> impl FnOnce(tokenizers::Error) -> Error {
    let what = excerpt(what);
    move |error| Error::Refused { what, reason: error.to_string() }
}

/// The tokenizer crate's own reading of the file. It panics on some malformed files; that ends here.
fn load(file: &str, bytes: &[u8]) -> Result<tokenizers::Tokenizer> {
    let invalid = |found: String| Error::Invalid {
        file: file.to_owned(),
        expected: "a tokenizer.json of version 1.0".to_owned(),
        found,
    };
    // Nothing outlives a panic but the error, so there is no state that it could leave broken.
    let loaded = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(bytes)));
    let mut hf = loaded
        .map_err(|_| invalid("a file on which the tokenizer crate panics".to_owned()))?
        .map_err(|error| invalid(error.to_string()))?;
    hf.with_padding(None);
    hf.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
    Ok(hf)
}

/// The tokenizer crate numbers added tokens itself and only warns when the file says otherwise. To the model it would be
/// another token.
fn check_added_tokens(file: &str, layout: &Layout, hf: &tokenizers::Tokenizer) -> Result<()> {
    for token in layout.added_tokens.iter().filter(|token| !token.content.is_empty()) {
        let id = hf.token_to_id(&token.content);
        if id != Some(token.id) {
            return Err(Error::Invalid {
                file: file.to_owned(),
                expected: format!("added token {:?} to have id {}", token.content, token.id),
                found: format!("{id:?} in the vocabulary"),
            });
        }
    }
    Ok(())
}

/// The ids of the tokens that play a part.
struct Roles {
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    unk: Option<TokenId>,
    pad: Option<TokenId>,
}

impl Roles {
    fn find(config: &Config, hf: &tokenizers::Tokenizer) -> Result<Self> {
        // Without BOS or EOS a model works wrongly or does not stop, so a name without a token is an error there.
        let needed = |role: &str, name: &Option<String>| match name {
            None => Ok(None),
            Some(name) => hf.token_to_id(name).map(Some).ok_or_else(|| Error::Invalid {
                file: "tokenizer_config.json".to_owned(),
                expected: format!("{role} to be a token of tokenizer.json"),
                found: format!("{name:?}, which is none"),
            }),
        };
        let usual = |spelling: &str| {
            hf.token_to_id(spelling).filter(|_| hf.get_added_vocabulary().is_special_token(spelling))
        };
        let named = |name: &Option<String>| name.as_ref().and_then(|name| hf.token_to_id(name));
        Ok(Self {
            bos: needed("bos_token", &config.bos_token)?.or_else(|| usual("<s>")),
            eos: needed("eos_token", &config.eos_token)?.or_else(|| usual("</s>")),
            unk: named(&config.unk_token).or_else(|| usual("<unk>")),
            pad: named(&config.pad_token),
        })
    }

    /// A token that plays a part is special, whether or not tokenizer.json says so: as in transformers.
    fn make_special(&self, hf: &mut tokenizers::Tokenizer) -> std::result::Result<(), String> {
        let added = hf.get_added_tokens_decoder();
        let missing: Vec<_> = [self.bos, self.eos, self.unk, self.pad]
            .into_iter()
            .flatten()
            .filter(|id| added.get(id).is_none_or(|token| !token.special))
            .filter_map(|id| hf.id_to_token(id))
            .map(|token| tokenizers::AddedToken::from(token, true))
            .collect();
        hf.add_special_tokens(missing).map(|_| ()).map_err(|error| error.to_string())
    }
}
