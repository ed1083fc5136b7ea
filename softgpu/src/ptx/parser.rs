//! Tokens -> [`Module`].

use super::{Module, PtxError};

pub(super) fn parse(text: &str) -> Result<Module, PtxError> {
    let _ = super::lexer::tokens(text)?;
    Ok(Module::default())
}
