//! Tokens -> [`Module`]: directives and variables. Bodies of functions: `body.rs`.

use super::lexer::{Token, tokens};
use super::{Kernel, Module, PtxError, Space, Variable};
use crate::num::Ty;

/// A place in the tokens of a text.
pub(super) struct Cursor<'a> {
    text: &'a str,
    tokens: Vec<(Token, u32, usize)>,
    at: usize,
}

impl Cursor<'_> {
    pub fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|token| &token.0)
    }

    pub fn next(&mut self) -> Option<Token> {
        self.at += 1;
        self.tokens.get(self.at - 1).map(|token| token.0.clone())
    }

    /// Line and place in the text of the next token.
    pub fn place(&self) -> (u32, usize) {
        self.tokens.get(self.at).or(self.tokens.last()).map_or((0, 0), |token| (token.1, token.2))
    }

    /// The text from a place to the next token, blanks as single spaces.
    pub fn since(&self, from: usize) -> String {
        let to = self.place().1.max(from);
        self.text[from..to].split_whitespace().collect::<Vec<_>>().join(" ")
    }

    pub fn error(&self, what: impl Into<String>) -> PtxError {
        let line = self.place().0;
        let text = self.text.lines().nth(line.max(1) as usize - 1).unwrap_or("").trim().to_owned();
        PtxError::Syntax { line, what: what.into(), text }
    }

    pub fn is_mark(&self, mark: char) -> bool {
        self.peek() == Some(&Token::Mark(mark))
    }

    /// Takes the mark if it comes next.
    pub fn take(&mut self, mark: char) -> bool {
        let is = self.is_mark(mark);
        self.at += usize::from(is);
        is
    }

    pub fn expect(&mut self, mark: char) -> Result<(), PtxError> {
        if self.take(mark) { Ok(()) } else { Err(self.error(format!("expected `{mark}`"))) }
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(text)) if text == word)
    }

    pub fn word(&mut self) -> Result<String, PtxError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.error("expected a name")),
        }
    }

    /// An integer, with its sign.
    pub fn int(&mut self) -> Result<i64, PtxError> {
        let negative = self.take('-');
        match self.next() {
            Some(Token::Int(value)) if negative => Ok((value as i64).wrapping_neg()),
            Some(Token::Int(value)) => Ok(value as i64),
            _ => {
                self.at -= 1;
                Err(self.error("expected an integer"))
            }
        }
    }

    pub fn small(&mut self) -> Result<u32, PtxError> {
        let value = self.int()?;
        u32::try_from(value).map_err(|_| self.error("number out of range"))
    }

    /// Skips to behind the brace that closes the next one.
    fn skip_braces(&mut self) -> Result<(), PtxError> {
        let mut depth = 0;
        loop {
            match self.next() {
                Some(Token::Mark('{')) => depth += 1,
                Some(Token::Mark('}')) if depth == 1 => return Ok(()),
                Some(Token::Mark('}')) => depth -= 1,
                None => return Err(self.error("a brace is not closed")),
                _ => {}
            }
        }
    }

    /// The type that comes next: `.u32`.
    pub fn ty(&mut self) -> Result<Ty, PtxError> {
        let word = self.word()?;
        let ty = word.strip_prefix('.').and_then(Ty::from_name);
        ty.ok_or_else(|| {
            self.at -= 1;
            self.error("expected a type")
        })
    }
}

pub(super) fn space_of(word: &str) -> Option<Space> {
    Some(match word {
        ".global" => Space::Global,
        ".const" => Space::Const,
        ".shared" => Space::Shared,
        ".local" => Space::Local,
        ".param" => Space::Param,
        _ => return None,
    })
}

pub(super) fn parse(text: &str) -> Result<Module, PtxError> {
    let mut cursor = Cursor { text, tokens: tokens(text)?, at: 0 };
    let mut module = Module::default();
    let mut is_extern = false;
    while cursor.peek().is_some() {
        let word = cursor.word()?;
        match word.as_str() {
            ".version" => module.version = version(&mut cursor)?,
            ".target" => {
                (module.target, module.suffix) = target(&mut cursor)?;
                while cursor.take(',') {
                    cursor.word()?;
                }
            }
            ".address_size" => {
                if cursor.small()? != 64 {
                    return Err(cursor.error("only 64-bit addresses are known"));
                }
            }
            ".visible" | ".weak" | ".common" => {}
            ".extern" => is_extern = true,
            ".file" => file(&mut cursor, &mut module)?,
            ".section" => {
                cursor.word()?;
                cursor.skip_braces()?;
            }
            ".entry" | ".func" => {
                let kernel = super::body::function(&mut cursor, word == ".entry")?;
                // A declaration has no body; its definition follows, or is missing, which the call will tell.
                module.kernels.extend(kernel);
                is_extern = false;
            }
            _ => {
                let Some(space) = space_of(&word) else {
                    cursor.at -= 1;
                    return Err(cursor.error("unknown directive"));
                };
                variables(&mut cursor, space, is_extern, &mut module.variables)?;
                is_extern = false;
            }
        }
    }
    Ok(module)
}

fn version(cursor: &mut Cursor<'_>) -> Result<(u32, u32), PtxError> {
    let Some(Token::F64(bits)) = cursor.next() else {
        return Err(cursor.error("expected a version"));
    };
    let text = format!("{:?}", f64::from_bits(bits));
    let (major, minor) = text.split_once('.').unwrap_or(("0", "0"));
    Ok((major.parse().unwrap_or(0), minor.parse().unwrap_or(0)))
}

/// `sm_80`, `sm_90a` (from 90 on), `sm_100f` (from 100 on).
fn target(cursor: &mut Cursor<'_>) -> Result<(u32, Option<char>), PtxError> {
    let word = cursor.word()?;
    let name = word.strip_prefix("sm_").unwrap_or_default();
    let digits = name.strip_suffix(['a', 'f']).unwrap_or(name);
    let suffix = name[digits.len()..].chars().next();
    match (digits.parse::<u32>(), suffix) {
        (Ok(number), None) => Ok((number, None)),
        (Ok(number), Some('a')) if number >= 90 => Ok((number, suffix)),
        (Ok(number), Some(_)) if number >= 100 => Ok((number, suffix)),
        _ => Err(cursor.error("expected `sm_` and a number")),
    }
}

/// `.file 1 "name"` and what may follow.
pub(super) fn file(cursor: &mut Cursor<'_>, module: &mut Module) -> Result<(), PtxError> {
    let number = cursor.small()?;
    let Some(Token::Text(name)) = cursor.next() else {
        return Err(cursor.error("expected a file name"));
    };
    while cursor.take(',') {
        cursor.int()?;
    }
    module.files.insert(number, name);
    Ok(())
}

/// Variables up to the semicolon, the space already read.
pub(super) fn variables(
    cursor: &mut Cursor<'_>,
    space: Space,
    is_extern: bool,
    out: &mut Vec<Variable>,
) -> Result<(), PtxError> {
    let mut align = None;
    while cursor.is_word(".align") {
        cursor.word()?;
        align = Some(cursor.small()?);
    }
    let mut lanes = 1;
    for (name, count) in [(".v2", 2), (".v4", 4)] {
        if cursor.is_word(name) {
            cursor.word()?;
            lanes = count;
        }
    }
    let ty = cursor.ty()?;
    loop {
        let mut variable = declarator(cursor, space, ty, lanes, align)?;
        variable.is_extern = is_extern;
        out.push(variable);
        if !cursor.take(',') {
            return cursor.expect(';');
        }
    }
}

/// A parameter, `.param` already read.
pub(super) fn parameter(cursor: &mut Cursor<'_>) -> Result<Variable, PtxError> {
    let mut align = None;
    let mut ty = None;
    loop {
        if cursor.is_word(".align") {
            cursor.word()?;
            // After `.ptr` it tells what the pointer points to.
            let value = cursor.small()?;
            align = align.or(ty.is_none().then_some(value));
        } else if [".ptr", ".global", ".shared", ".const", ".local", ".noalias", ".param"]
            .iter()
            .any(|word| cursor.is_word(word))
        {
            cursor.word()?;
        } else if ty.is_none() {
            ty = Some(cursor.ty()?);
        } else {
            break;
        }
    }
    let ty = ty.ok_or_else(|| cursor.error("expected a type"))?;
    declarator(cursor, Space::Param, ty, 1, align)
}

fn declarator(
    cursor: &mut Cursor<'_>,
    space: Space,
    ty: Ty,
    lanes: u32,
    align: Option<u32>,
) -> Result<Variable, PtxError> {
    let name = cursor.word()?;
    let mut count: u64 = 1;
    let mut unbounded = false;
    while cursor.take('[') {
        if cursor.take(']') {
            unbounded = true;
        } else {
            count = count.saturating_mul(u64::from(cursor.small()?));
            cursor.expect(']')?;
        }
    }
    let (mut init, mut relocations) = (None, Vec::new());
    if cursor.take('=') {
        let mut bytes = Vec::new();
        initialiser(cursor, ty, &mut bytes, &mut relocations)?;
        if unbounded {
            count = (bytes.len() / ty.bytes() as usize) as u64;
        }
        init = Some(bytes);
    } else if unbounded {
        count = 0;
    }
    let element = ty.bytes() * lanes;
    let bytes = u32::try_from(count * u64::from(element)).map_err(|_| cursor.error("too large"))?;
    if init.as_ref().is_some_and(|init| init.len() > bytes as usize) {
        return Err(cursor.error("more values than elements"));
    }
    let align = align.unwrap_or(element);
    Ok(Variable { name, space, align, bytes, init, relocations, is_extern: false })
}

fn initialiser(
    cursor: &mut Cursor<'_>,
    ty: Ty,
    bytes: &mut Vec<u8>,
    relocations: &mut Vec<(u32, String, i64)>,
) -> Result<(), PtxError> {
    if cursor.take('{') {
        while !cursor.take('}') {
            initialiser(cursor, ty, bytes, relocations)?;
            if !cursor.is_mark('}') {
                cursor.expect(',')?;
            }
        }
        return Ok(());
    }
    let value = match cursor.peek().cloned() {
        Some(Token::F32(bits)) => {
            cursor.next();
            u64::from(bits)
        }
        Some(Token::F64(bits)) => {
            cursor.next();
            if ty == Ty::F32 { u64::from((f64::from_bits(bits) as f32).to_bits()) } else { bits }
        }
        Some(Token::Word(name)) => {
            cursor.next();
            let is_generic = name == "generic" && cursor.take('(');
            let name = if is_generic { cursor.word()? } else { name };
            if is_generic {
                cursor.expect(')')?;
            }
            let addend = if cursor.take('+') { cursor.int()? } else { 0 };
            if ty.bytes() != 8 {
                return Err(cursor.error("an address takes 64 bits"));
            }
            relocations.push((bytes.len() as u32, name, addend));
            0
        }
        _ => cursor.int()? as u64,
    };
    bytes.extend_from_slice(&value.to_le_bytes()[..ty.bytes() as usize]);
    Ok(())
}

/// Offsets of parameters: each at a multiple of its alignment.
pub(super) fn layout(kernel: &mut Kernel, params: Vec<Variable>) {
    let mut end: u32 = 0;
    for param in params {
        end = end.next_multiple_of(param.align.max(1));
        let bytes = param.bytes;
        kernel.params.push((end, param));
        end += bytes;
    }
    kernel.param_bytes = end;
}
