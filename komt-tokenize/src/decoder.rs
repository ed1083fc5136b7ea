//! The decoder that a `tokenizer.json` asks for, in a form that works one token at a time.
//!
//! Hugging Face's decoders take the whole list of tokens. [`Plan`] is what is left of them when tokens come singly:
//! what one token contributes, and [`Joiner`] the few words of state that joining needs. Only decoders whose text
//! grows at the end when tokens are added can be streamed at all; the others are refused when the file is read.

use serde_json::Value;

use crate::error::{Error, Result};

/// U+FFFD, which stands for bytes that are no text.
const BROKEN: &str = "\u{FFFD}";

/// What a decoder does with its tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    /// SentencePiece: replace in each token (`▁` by a space), join, strip the front of the whole text.
    Pieces {
        /// Pairs (pattern, content), applied in order to each token.
        replace: Vec<(String, String)>,
        /// Whether `<0xEA>` is the byte EA.
        byte_fallback: bool,
        /// At most so many of this character go from the front of the whole text.
        strip: (char, usize),
    },
    /// The Metaspace decoder: the character becomes a space, or nothing in the first token.
    Metaspace { replacement: char, drop_in_first: bool },
    /// Byte-level BPE: each character of a token is one byte.
    ByteLevel,
    /// No decoder: tokens joined by spaces.
    Words,
}

impl Plan {
    /// Reads the `decoder` field of a `tokenizer.json` named `file`.
    pub(crate) fn parse(file: &str, decoder: Option<&Value>) -> Result<Self> {
        let mut steps = Vec::new();
        match decoder {
            None | Some(Value::Null) => return Ok(Self::Words),
            Some(value) => flatten(file, value, &mut steps)?,
        }
        match steps.as_slice() {
            [step] if kind(step) == "ByteLevel" => Ok(Self::ByteLevel),
            [step] if kind(step) == "Metaspace" => Self::metaspace(file, step),
            steps => Self::pieces(file, steps),
        }
    }

    fn metaspace(file: &str, step: &Value) -> Result<Self> {
        let replacement = char_field(file, step, "replacement")?;
        let never = match step.get("prepend_scheme") {
            Some(scheme) => scheme.as_str() == Some("never"),
            None => step.get("add_prefix_space") == Some(&Value::Bool(false)),
        };
        Ok(Self::Metaspace { replacement, drop_in_first: !never })
    }

    fn pieces(file: &str, steps: &[&Value]) -> Result<Self> {
        let (mut replace, mut byte_fallback, mut fused, mut strip) = (Vec::new(), false, false, (' ', 0));
        for step in steps {
            match kind(step) {
                // Once bytes are text or the pieces are one, a replacement would reach across tokens.
                "Replace" if !byte_fallback && !fused => {
                    let pattern = step.pointer("/pattern/String").and_then(Value::as_str);
                    let content = step.get("content").and_then(Value::as_str);
                    match (pattern, content) {
                        (Some(p), Some(c)) if !p.is_empty() => replace.push((p.to_owned(), c.to_owned())),
                        _ => return Err(unsupported(file, step)),
                    }
                }
                "ByteFallback" if !byte_fallback && !fused => byte_fallback = true,
                "Fuse" => fused = true,
                "Strip" if fused && strip.1 == 0 && step.get("stop").and_then(Value::as_u64) == Some(0) => {
                    let start = step.get("start").and_then(Value::as_u64).unwrap_or(0);
                    strip =
                        (char_field(file, step, "content")?, usize::try_from(start).unwrap_or(usize::MAX));
                }
                _ => return Err(unsupported(file, step)),
            }
        }
        Ok(Self::Pieces { replace, byte_fallback, strip })
    }
}

/// The steps of nested `Sequence`s as one list.
fn flatten<'a>(file: &str, value: &'a Value, steps: &mut Vec<&'a Value>) -> Result<()> {
    if kind(value) != "Sequence" {
        steps.push(value);
        return Ok(());
    }
    let inner = value.get("decoders").and_then(Value::as_array).ok_or_else(|| unsupported(file, value))?;
    inner.iter().try_for_each(|step| flatten(file, step, steps))
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("")
}

fn char_field(file: &str, step: &Value, field: &str) -> Result<char> {
    let mut chars = step.get(field).and_then(Value::as_str).unwrap_or("").chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => Err(unsupported(file, step)),
    }
}

fn unsupported(file: &str, step: &Value) -> Error {
    Error::Unsupported {
        file: file.to_owned(),
        what: format!("decoder step {}", crate::error::excerpt(&step.to_string())),
        expected: "ByteLevel, Metaspace, none, or Replace, ByteFallback, Fuse, Strip in this order",
    }
}

/// Joins tokens into text as they come. What it holds back is at most three bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Joiner {
    /// Bytes of a character that is not complete. Never a complete one, never an impossible one.
    pending: Vec<u8>,
    /// The current run of byte tokens has had an impossible byte: what follows in it is broken too.
    broken_run: bool,
    /// Tokens have been taken.
    started: bool,
    /// Characters that were stripped from the front of the text.
    stripped: usize,
    /// The front of the text is behind us: nothing more is stripped.
    past_front: bool,
}

impl Joiner {
    /// Takes one token and returns the text that is now complete.
    pub(crate) fn push(&mut self, plan: &Plan, token: &str) -> String {
        let first = !std::mem::replace(&mut self.started, true);
        match plan {
            Plan::Words if first => token.to_owned(),
            Plan::Words => format!(" {token}"),
            Plan::Metaspace { replacement, drop_in_first } => {
                token.replace(*replacement, if first && *drop_in_first { "" } else { " " })
            }
            Plan::ByteLevel => self.push_bytes(&byte_level(token)),
            Plan::Pieces { replace, byte_fallback, strip } => {
                let mut piece = token.to_owned();
                for (pattern, content) in replace {
                    piece = piece.replace(pattern, content);
                }
                let text = match byte_token(&piece).filter(|_| *byte_fallback) {
                    Some(byte) => self.push_byte_token(byte),
                    None => self.end_run() + &piece,
                };
                self.strip_front(text, *strip)
            }
        }
    }

    /// What is left when no more tokens come: an incomplete character, as U+FFFD. Ready for a new text then.
    pub(crate) fn finish(&mut self, plan: &Plan) -> String {
        let tail = match plan {
            Plan::Pieces { strip, .. } => {
                let tail = self.end_run();
                self.strip_front(tail, *strip)
            }
            // The bytes of one incomplete character are one U+FFFD here, as in `String::from_utf8_lossy`.
            _ if !self.pending.is_empty() => BROKEN.to_owned(),
            _ => String::new(),
        };
        *self = Self::default();
        tail
    }

    /// One byte of a run of byte tokens: a character as soon as it is complete, U+FFFD for each byte from the first
    /// character that cannot be completed to the end of the run.
    fn push_byte_token(&mut self, byte: u8) -> String {
        if self.broken_run {
            return BROKEN.to_owned();
        }
        self.pending.push(byte);
        match std::str::from_utf8(&self.pending) {
            Ok(char) => {
                let char = char.to_owned();
                self.pending.clear();
                char
            }
            Err(error) if error.error_len().is_none() => String::new(),
            Err(_) => {
                self.broken_run = true;
                self.take_broken()
            }
        }
    }

    /// A token that is no byte ends the run: what is incomplete stays so.
    fn end_run(&mut self) -> String {
        self.broken_run = false;
        self.take_broken()
    }

    fn take_broken(&mut self) -> String {
        let text = BROKEN.repeat(self.pending.len());
        self.pending.clear();
        text
    }

    /// Bytes of byte-level tokens, read as `String::from_utf8_lossy` would read all of them at once.
    fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let (mut text, mut done) = (String::new(), 0);
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            // Only the last chunk can be a character that later bytes may complete.
            let may_complete = done + invalid.len() == self.pending.len()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if !invalid.is_empty() && !may_complete {
                text.push_str(BROKEN);
                done += invalid.len();
            }
        }
        self.pending.drain(..done);
        text
    }

    fn strip_front(&mut self, text: String, (content, max): (char, usize)) -> String {
        if self.past_front || text.is_empty() {
            return text;
        }
        let gone = text.chars().take(max - self.stripped).take_while(|&c| c == content).count();
        self.stripped += gone;
        let rest = &text[gone * content.len_utf8()..];
        self.past_front = !rest.is_empty() || self.stripped == max;
        rest.to_owned()
    }
}

/// The byte that a token like `<0xEA>` stands for.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The bytes of a byte-level token. A token with a character that stands for no byte is its own UTF-8.
fn byte_level(token: &str) -> Vec<u8> {
    token.chars().map(byte_of_char).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Byte-level BPE writes a byte as the Latin-1 character of that number where that one is visible. The 68 others, in
/// ascending order, are the characters from U+0100 on: byte 0 is U+0100, byte 32 (space) U+0120 `Ġ`.
fn byte_of_char(c: char) -> Option<u8> {
    let visible = |b: &u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c).checked_sub(0x100) {
        None => u8::try_from(c).ok().filter(visible),
        Some(n) => (0..=255u8).filter(|b| !visible(b)).nth(usize::try_from(n).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes tokens; each piece of text, and the tail.
    fn run(plan: &Plan, tokens: &[&str]) -> (Vec<String>, String) {
        let mut joiner = Joiner::default();
        let pieces = tokens.iter().map(|token| joiner.push(plan, token)).collect();
        (pieces, joiner.finish(plan))
    }

    fn sentencepiece() -> Plan {
        Plan::Pieces { replace: vec![("▁".into(), " ".into())], byte_fallback: true, strip: (' ', 1) }
    }

    #[test]
    fn pieces_wait_for_whole_characters() {
        let (pieces, tail) = run(&sentencepiece(), &["▁", "▁a", "<0xEA>", "<0xB0>", "<0x80>", "b", "<0xEA>"]);
        assert_eq!(pieces, ["", " a", "", "", "가", "b", ""]);
        assert_eq!(tail, BROKEN);
    }

    #[test]
    fn a_broken_run_stays_broken_until_it_ends() {
        let (pieces, _) = run(&sentencepiece(), &["<0x41>", "<0xFF>", "<0x42>", "c", "<0x42>"]);
        assert_eq!(pieces, ["A", BROKEN, BROKEN, "c", "B"]);
    }

    #[test]
    fn byte_level_is_lossy_utf8_of_the_bytes() {
        assert_eq!(byte_level("Ġa"), b" a");
        assert_eq!(byte_level("a b"), b"a b"); // A space stands for no byte.
        let table: Vec<_> = (0..=0x143).filter_map(char::from_u32).filter_map(byte_of_char).collect();
        assert_eq!(table.len(), 256);
        let (pieces, tail) = run(&Plan::ByteLevel, &["ê", "°", "Ģ", "ê", "a", "ê°"]);
        assert_eq!(pieces, ["", "", "가", "", "\u{FFFD}a", ""]);
        assert_eq!(tail, BROKEN);
    }

    #[test]
    fn metaspace_and_words() {
        let metaspace = Plan::Metaspace { replacement: '▁', drop_in_first: true };
        assert_eq!(run(&metaspace, &["▁a", "▁b"]).0, ["a", " b"]);
        assert_eq!(run(&Plan::Words, &["a", "b"]).0, ["a", " b"]);
    }

    #[test]
    fn decoders_that_cannot_be_streamed_are_refused() {
        for decoder in [
            r###"{"type":"WordPiece","prefix":"##","cleanup":true}"###.to_owned(),
            r#"{"type":"Strip","content":" ","start":1,"stop":0}"#.to_owned(),
            r#"{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":2}]}"#.to_owned(),
            r#"{"type":"Sequence","decoders":7}"#.to_owned(),
            r#"{"type":"Replace","pattern":{"Regex":"a*"},"content":""}"#.to_owned(),
            r#""ByteLevel""#.to_owned(),
        ] {
            let value: Value = serde_json::from_str(&decoder).unwrap();
            let error = Plan::parse("tokenizer.json", Some(&value)).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{decoder}: {error}");
        }
    }
}
