//! [`StreamDecoder`]: ids in, complete text out.

use crate::decoder::Joiner;
use crate::error::Result;
use crate::{TokenId, Tokenizer};

/// Turns ids into text as they come, at a constant cost per id.
///
/// What [`push`](Self::push) and at last [`finish`](Self::finish) return is, joined, [`Tokenizer::decode`] of all the
/// ids. No piece ever ends inside a character: up to three bytes are held back until the character is complete. The
/// space that SentencePiece puts in front of a text goes, every other space stays.
///
/// One case differs from `decode`, because text that was printed cannot be taken back. In a run of byte tokens (`<0xEA>`,
/// `<0xB0>`, ...) that begins with good characters and goes wrong after them, `decode` makes every byte of the run U+FFFD.
/// Here the good characters stay, and from the first bad one on each byte of the run is U+FFFD.
///
/// ```
/// # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/tokenizer");
/// use komt_tokenize::{StreamDecoder, Tokenizer};
///
/// let tokenizer = Tokenizer::from_dir(dir.as_ref())?;
/// let mut stream = StreamDecoder::new(&tokenizer);
/// let pieces: Vec<_> = [28705, 30325, 238, 136, 152].map(|id| stream.push(id)).into_iter().collect::<Result<_, _>>()?;
/// assert_eq!(pieces, ["", "안", "", "", "녕"]);
/// assert_eq!(stream.finish(), "");
/// # Ok::<(), komt_tokenize::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    joiner: Joiner,
    skip_special: bool,
}

impl StreamDecoder {
    /// A decoder at the start of a text. Special tokens print nothing.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { tokenizer: tokenizer.clone(), joiner: Joiner::default(), skip_special: true }
    }

    /// A decoder that goes on after `previous`, the ids of the prompt and of earlier turns: it returns what the ids that
    /// follow add to the text, that is `decode(previous + ids)` without `decode(previous)` in front. So an answer keeps
    /// the space that it begins with. If `previous` ends inside a character, the first piece completes it.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn with_context(tokenizer: &Tokenizer, previous: &[TokenId]) -> Result<Self> {
        let mut stream = Self::new(tokenizer);
        for &id in previous {
            stream.push(id)?;
        }
        Ok(stream)
    }

    /// Whether special tokens are printed, as `<s>` and the like. Off unless set.
    #[must_use]
    pub fn print_special(mut self, print: bool) -> Self {
        self.skip_special = !print;
        self
    }

    /// Takes an id and returns the text that is now complete, often empty.
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) for an id without a token. It changes nothing: go on or stop, as
    /// you like.
    pub fn push(&mut self, id: TokenId) -> Result<String> {
        let token = self.tokenizer.decoder_token(id)?;
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        Ok(self.joiner.push(self.tokenizer.plan(), &token))
    }

    /// The rest when no more ids come: the bytes of an incomplete character, as U+FFFD. The decoder is then at the start
    /// of a new text.
    pub fn finish(&mut self) -> String {
        self.joiner.finish(self.tokenizer.plan())
    }
}
