//! PTX text -> tokens with their lines.

use super::PtxError;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name, register or opcode with its modifiers up to the first blank: `%r1`, `ld.global.u32`, `.reg`, `$L__BB0_1`.
    Word(String),
    /// A decimal, hexadecimal, octal or binary integer.
    Int(u64),
    /// `0f3f800000`.
    F32(u32),
    /// `0d3ff0000000000000`, and decimals with a point.
    F64(u64),
    /// `"..."`.
    Text(String),
    /// One character: `, ; { } ( ) [ ] : @ ! + - = | < > *`.
    Mark(char),
}

/// Tokens, each with its line (from 1) and its place in the text.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, u32, usize)>, PtxError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let byte = bytes[at];
        let length = match byte {
            b'\n' => {
                line += 1;
                1
            }
            _ if byte.is_ascii_whitespace() || byte == 0 => 1,
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => {
                let length = rest.find("*/").map_or(rest.len(), |end| end + 2);
                line += rest[..length].matches('\n').count() as u32;
                length
            }
            b'"' => {
                let length = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
                tokens.push((Token::Text(rest[1..].split('"').next().unwrap_or("").to_owned()), line, at));
                length
            }
            b'0'..=b'9' => {
                let length =
                    rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
                let token = number(&rest[..length]).ok_or_else(|| PtxError::Syntax {
                    line,
                    what: "not a number".to_owned(),
                    text: rest[..length].to_owned(),
                })?;
                tokens.push((token, line, at));
                length
            }
            _ if is_word(byte) => {
                let length = word_len(rest);
                tokens.push((Token::Word(rest[..length].to_owned()), line, at));
                length
            }
            _ if b",;{}()[]:@!+-=|<>*".contains(&byte) => {
                tokens.push((Token::Mark(byte as char), line, at));
                1
            }
            _ => {
                let what = "unknown character".to_owned();
                return Err(PtxError::Syntax {
                    line,
                    what,
                    text: text.lines().nth(line as usize - 1).unwrap_or("").to_owned(),
                });
            }
        };
        at += length;
    }
    Ok(tokens)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_$%.".contains(&byte)
}

/// A word reaches over `::` (`L1::no_allocate`).
fn word_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if is_word(bytes[at]) {
            at += 1;
        } else if rest[at..].starts_with("::") {
            at += 2;
        } else {
            break;
        }
    }
    at
}

fn number(text: &str) -> Option<Token> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let lower = text.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0f") {
        return Some(Token::F32(u32::try_from(hex(digits)?).ok()?));
    }
    if let Some(digits) = lower.strip_prefix("0d") {
        return Some(Token::F64(hex(digits)?));
    }
    if lower.contains('.') {
        return Some(Token::F64(lower.parse::<f64>().ok()?.to_bits()));
    }
    let digits = lower.trim_end_matches('u');
    let value = if let Some(digits) = digits.strip_prefix("0x") {
        hex(digits)?
    } else if let Some(digits) = digits.strip_prefix("0b") {
        u64::from_str_radix(digits, 2).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(Token::Int(value))
}
