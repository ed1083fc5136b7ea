//! From files to the parts of a [`Tokenizer`](crate::Tokenizer), checked against each other.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::{AddedToken, Tokenizer};

use crate::TokenId;
use crate::decoder::Plan;
use crate::error::{Error, Result};
use crate::files::{Config, Files, Layout};

const FILE: &str = "tokenizer.json";

/// What a tokenizer is made of.
pub(crate) struct Parts {
    /// Without padding, truncation and post-processor: it gives the ids of the text and nothing else.
    pub(crate) hf: Tokenizer,
    pub(crate) plan: Plan,
    pub(crate) roles: Roles,
    pub(crate) adds_bos: bool,
    pub(crate) adds_eos: bool,
    pub(crate) chat_templates: BTreeMap<String, String>,
}

impl Parts {
    pub(crate) fn load(files: &Files) -> Result<Self> {
        let layout = Layout::parse(FILE, &files.tokenizer)?;
        let plan = Plan::parse(FILE, layout.decoder.as_ref())?;
        let config = Config::parse(files)?;
        // The tokenizer crate panics on some malformed files; that ends here. Nothing outlives a panic but the error, so
        // there is no state that it could leave broken.
        let (mut hf, around) = catch_unwind(AssertUnwindSafe(|| load_hf(&files.tokenizer)))
            .unwrap_or_else(|_| Err("a file on which the tokenizer crate panics".into()))
            .map_err(|error| invalid("a tokenizer.json of version 1.0", error.to_string()))?;
        check_added_tokens(&layout, &hf)?;
        let roles = Roles::find(&config, &hf)?;
        roles.make_special(&mut hf)?;
        let adds = |token: Option<TokenId>, wanted: Option<bool>| {
            token.is_some_and(|token| wanted.unwrap_or_else(|| around.contains(&token)))
        };
        Ok(Self {
            plan,
            adds_bos: adds(roles.bos, config.add_bos_token),
            adds_eos: adds(roles.eos, config.add_eos_token),
            roles,
            chat_templates: config.chat_templates,
            hf,
        })
    }
}

/// The tokenizer crate's own reading of the file, and what the file's post-processor puts around an empty text.
fn load_hf(bytes: &[u8]) -> tokenizers::Result<(Tokenizer, Vec<TokenId>)> {
    let mut hf = Tokenizer::from_bytes(bytes)?;
    hf.with_padding(None);
    hf.with_truncation(None)?;
    let around = hf.encode("", true)?.get_ids().to_vec();
    hf.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
    Ok((hf, around))
}

/// The tokenizer crate numbers added tokens itself and only warns when the file says otherwise. To the model it would be
/// another token.
fn check_added_tokens(layout: &Layout, hf: &Tokenizer) -> Result<()> {
    for token in layout.added_tokens.iter().filter(|token| !token.content.is_empty()) {
        match hf.token_to_id(&token.content) {
            Some(id) if id == token.id => {}
            other => {
                let expected = format!("added token {:?} to have id {}", token.content, token.id);
                return Err(invalid(&expected, format!("{other:?} in the vocabulary")));
            }
        }
    }
    Ok(())
}

/// The ids of the tokens that play a part.
#[derive(Debug)]
pub(crate) struct Roles {
    pub(crate) bos: Option<TokenId>,
    pub(crate) eos: Option<TokenId>,
    pub(crate) unk: Option<TokenId>,
    pub(crate) pad: Option<TokenId>,
}

impl Roles {
    fn find(config: &Config, hf: &Tokenizer) -> Result<Self> {
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
    fn make_special(&self, hf: &mut Tokenizer) -> Result<()> {
        let added = hf.get_added_tokens_decoder();
        let missing: Vec<_> = [self.bos, self.eos, self.unk, self.pad]
            .into_iter()
            .flatten()
            .filter(|id| added.get(id).is_none_or(|token| !token.special))
            .filter_map(|id| hf.id_to_token(id))
            .map(|token| AddedToken::from(token, true))
            .collect();
        let expected = "special tokens that the tokenizer crate takes";
        hf.add_special_tokens(missing).map(|_| ()).map_err(|error| invalid(expected, error.to_string()))
    }
}

fn invalid(expected: &str, found: String) -> Error {
    Error::Invalid { file: FILE.to_owned(), expected: expected.to_owned(), found }
}
