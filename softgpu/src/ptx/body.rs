//! Functions: their heads, registers, labels and instructions.

use std::collections::HashMap;

use super::lexer::Token;
use super::parser::{Cursor, layout, parameter, space_of, variables};
use super::{Base, Instruction, Kernel, Operand, PtxError, Register, Space, Variable};

/// What names mean within a pair of braces.
#[derive(Default)]
struct Scope {
    registers: HashMap<String, u32>,
    /// Variables that had to be renamed because their name was taken.
    variables: HashMap<String, String>,
}

struct Body<'a, 'b> {
    cursor: &'a mut Cursor<'b>,
    kernel: Kernel,
    scopes: Vec<Scope>,
    source: Option<(u32, u32)>,
}

/// A function, `.entry` or `.func` already read; `None` for a declaration.
pub(super) fn function(cursor: &mut Cursor<'_>, is_entry: bool) -> Result<Option<Kernel>, PtxError> {
    let mut kernel = Kernel { is_entry, ..Kernel::default() };
    if cursor.is_mark('(') {
        kernel.returns = parameters(cursor)?;
    }
    kernel.name = cursor.word()?;
    if cursor.is_mark('(') {
        let params = parameters(cursor)?;
        layout(&mut kernel, params);
    }
    while !cursor.is_mark('{') {
        if cursor.take(';') {
            return Ok(None);
        }
        directive(cursor, &mut kernel)?;
    }
    let mut body = Body { cursor, kernel, scopes: Vec::new(), source: None };
    body.block()?;
    for param in &body.kernel.returns {
        body.kernel.variables.push(param.clone());
    }
    Ok(Some(body.kernel))
}

fn parameters(cursor: &mut Cursor<'_>) -> Result<Vec<Variable>, PtxError> {
    let mut params = Vec::new();
    cursor.expect('(')?;
    while !cursor.take(')') {
        if !cursor.is_word(".param") {
            return Err(cursor.error("parameters are `.param`"));
        }
        cursor.word()?;
        params.push(parameter(cursor)?);
        if !cursor.is_mark(')') {
            cursor.expect(',')?;
        }
    }
    Ok(params)
}

fn directive(cursor: &mut Cursor<'_>, kernel: &mut Kernel) -> Result<(), PtxError> {
    let triple = |cursor: &mut Cursor<'_>| {
        let mut dims = [cursor.small()?, 1, 1];
        for dim in &mut dims[1..] {
            if cursor.take(',') {
                *dim = cursor.small()?;
            }
        }
        Ok::<_, PtxError>(dims)
    };
    match cursor.word()?.as_str() {
        ".maxntid" => kernel.maxntid = Some(triple(cursor)?),
        ".reqntid" => {
            kernel.reqntid = Some(triple(cursor)?);
            kernel.maxntid = kernel.reqntid;
        }
        ".minnctapersm" => kernel.minnctapersm = Some(cursor.small()?),
        ".maxnreg" => {
            cursor.small()?;
        }
        ".noreturn" => {}
        ".pragma" => {
            cursor.next();
            cursor.expect(';')?;
        }
        _ => return Err(cursor.error("unknown directive of a function")),
    }
    Ok(())
}

impl Body<'_, '_> {
    fn block(&mut self) -> Result<(), PtxError> {
        self.cursor.expect('{')?;
        self.scopes.push(Scope::default());
        while !self.cursor.take('}') {
            self.statement()?;
        }
        self.scopes.pop();
        Ok(())
    }

    fn statement(&mut self) -> Result<(), PtxError> {
        match self.cursor.peek() {
            Some(Token::Mark('{')) => return self.block(),
            Some(Token::Mark(';')) => return self.cursor.expect(';'),
            Some(Token::Mark('@')) => return self.instruction(),
            Some(Token::Word(word)) if word == ".reg" => {
                self.cursor.word()?;
                return self.registers();
            }
            Some(Token::Word(word)) if word == ".loc" => {
                self.cursor.word()?;
                return self.loc();
            }
            Some(Token::Word(word)) if word == ".pragma" => {
                self.cursor.word()?;
                self.cursor.next();
                return self.cursor.expect(';');
            }
            Some(Token::Word(word)) if space_of(word).is_some() => {
                let space = space_of(&self.cursor.word()?).unwrap_or(Space::Local);
                return self.variables(space);
            }
            Some(Token::Word(word)) if !word.starts_with('.') => {}
            _ => return Err(self.cursor.error("expected an instruction")),
        }
        let place = self.cursor.place();
        let word = self.cursor.word()?;
        if self.cursor.take(':') {
            return self.label(word);
        }
        self.operation(&word, None, place)
    }

    fn label(&mut self, name: String) -> Result<(), PtxError> {
        if self.cursor.is_word(".branchtargets") {
            self.cursor.word()?;
            let mut labels = vec![self.cursor.word()?];
            while self.cursor.take(',') {
                labels.push(self.cursor.word()?);
            }
            self.kernel.targets.insert(name, labels);
            return self.cursor.expect(';');
        }
        // Inlined assembly may bring the same label again: its own braces keep them apart in PTX, which we do not model.
        if self.kernel.labels.insert(name, self.kernel.body.len() as u32).is_some() {
            return Err(self.cursor.error("a label that is there already"));
        }
        Ok(())
    }

    fn variables(&mut self, space: Space) -> Result<(), PtxError> {
        let first = self.kernel.variables.len();
        variables(self.cursor, space, false, &mut self.kernel.variables)?;
        for index in first..self.kernel.variables.len() {
            let name = self.kernel.variables[index].name.clone();
            if self.kernel.variables[..index].iter().any(|variable| variable.name == name) {
                let unique = format!("{name}~{index}");
                self.kernel.variables[index].name.clone_from(&unique);
                self.scope().variables.insert(name, unique);
            } else {
                self.scope().variables.insert(name.clone(), name);
            }
        }
        Ok(())
    }

    fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    fn registers(&mut self) -> Result<(), PtxError> {
        let ty = self.cursor.ty()?;
        let bits = ty.bits();
        if bits > 64 {
            return Err(self.cursor.error("registers of 128 bits are not known"));
        }
        loop {
            let name = self.cursor.word()?;
            if self.cursor.take('<') {
                let count = self.cursor.small()?;
                self.cursor.expect('>')?;
                for index in 0..count {
                    self.register(format!("{name}{index}"), bits);
                }
            } else {
                self.register(name, bits);
            }
            if !self.cursor.take(',') {
                return self.cursor.expect(';');
            }
        }
    }

    fn register(&mut self, name: String, bits: u32) {
        let index = self.kernel.registers.len() as u32;
        self.scope().registers.insert(name.clone(), index);
        self.kernel.registers.push(Register { name, bits });
    }

    /// `.loc file line column` and perhaps `, function_name ..., inlined_at ...`.
    fn loc(&mut self) -> Result<(), PtxError> {
        let (file, line) = (self.cursor.small()?, self.cursor.small()?);
        self.cursor.small()?;
        // Line 0 is the compiler's own.
        if line > 0 {
            self.source = Some((file, line));
        }
        while self.cursor.take(',') {
            match self.cursor.word()?.as_str() {
                "function_name" => {
                    self.cursor.word()?;
                    if self.cursor.take('+') {
                        self.cursor.int()?;
                    }
                }
                "inlined_at" => {
                    for _ in 0..3 {
                        self.cursor.small()?;
                    }
                }
                _ => return Err(self.cursor.error("unknown part of .loc")),
            }
        }
        Ok(())
    }

    fn instruction(&mut self) -> Result<(), PtxError> {
        self.cursor.expect('@')?;
        let negated = self.cursor.take('!');
        let name = self.cursor.word()?;
        let register = self.find(&name).ok_or_else(|| self.cursor.error("unknown predicate"))?;
        let place = self.cursor.place();
        let word = self.cursor.word()?;
        self.operation(&word, Some((register, negated)), place)
    }

    fn operation(
        &mut self,
        word: &str,
        guard: Option<(u32, bool)>,
        (line, from): (u32, usize),
    ) -> Result<(), PtxError> {
        let mut parts = word.split('.').map(str::to_owned);
        let opcode = parts.next().unwrap_or_default();
        let modifiers = parts.collect();
        let mut operands = Vec::new();
        while !self.cursor.is_mark(';') {
            operands.push(self.operand()?);
            if !self.cursor.is_mark(';') {
                self.cursor.expect(',')?;
            }
        }
        let text = self.cursor.since(from);
        self.cursor.expect(';')?;
        let source = self.source;
        self.kernel.body.push(Instruction { opcode, modifiers, operands, guard, line, source, text });
        Ok(())
    }

    fn find(&self, name: &str) -> Option<u32> {
        self.scopes.iter().rev().find_map(|scope| scope.registers.get(name)).copied()
    }

    fn symbol(&self, name: &str) -> String {
        let renamed = self.scopes.iter().rev().find_map(|scope| scope.variables.get(name));
        renamed.map_or_else(|| name.to_owned(), String::clone)
    }

    fn operand(&mut self) -> Result<Operand, PtxError> {
        let cursor = &mut *self.cursor;
        if cursor.take('[') {
            let address = self.address()?;
            self.cursor.expect(']')?;
            return Ok(address);
        }
        if cursor.take('{') {
            return Ok(Operand::Vector(self.list('}')?));
        }
        if cursor.take('(') {
            return Ok(Operand::List(self.list(')')?));
        }
        if cursor.take('!') {
            let name = cursor.word()?;
            let register = self.find(&name).ok_or_else(|| self.cursor.error("unknown predicate"))?;
            return Ok(Operand::NotReg(register));
        }
        match cursor.peek().cloned() {
            Some(Token::F32(bits)) => {
                cursor.next();
                Ok(Operand::F32(bits))
            }
            Some(Token::F64(bits)) => {
                cursor.next();
                Ok(Operand::F64(bits))
            }
            Some(Token::Int(_) | Token::Mark('-')) => Ok(Operand::Int(cursor.int()? as u64)),
            Some(Token::Word(_)) => self.named(),
            _ => Err(cursor.error("expected an operand")),
        }
    }

    fn list(&mut self, end: char) -> Result<Vec<Operand>, PtxError> {
        let mut list = Vec::new();
        while !self.cursor.take(end) {
            list.push(self.operand()?);
            if !self.cursor.is_mark(end) {
                self.cursor.expect(',')?;
            }
        }
        Ok(list)
    }

    fn named(&mut self) -> Result<Operand, PtxError> {
        let name = self.cursor.word()?;
        if name == "_" {
            return Ok(Operand::Sink);
        }
        if name == "WARP_SZ" {
            return Ok(Operand::Int(32));
        }
        if let Some(first) = self.find(&name) {
            if !self.cursor.take('|') {
                return Ok(Operand::Reg(first));
            }
            let second = self.cursor.word()?;
            let second = self.find(&second).ok_or_else(|| self.cursor.error("unknown register"))?;
            return Ok(Operand::Pair(first, second));
        }
        if name.starts_with('%') {
            return Ok(Operand::Special(name));
        }
        let name = self.symbol(&name);
        if self.cursor.take('+') {
            return Ok(Operand::Address(Base::Symbol(name), self.cursor.int()?));
        }
        Ok(Operand::Symbol(name))
    }

    fn address(&mut self) -> Result<Operand, PtxError> {
        let base = match self.cursor.peek().cloned() {
            Some(Token::Word(name)) => {
                self.cursor.next();
                match self.find(&name) {
                    Some(register) => Base::Reg(register),
                    None => Base::Symbol(self.symbol(&name)),
                }
            }
            _ => return Ok(Operand::Address(Base::Zero, self.cursor.int()?)),
        };
        let offset = if self.cursor.take('+') || self.cursor.is_mark('-') { self.cursor.int()? } else { 0 };
        Ok(Operand::Address(base, offset))
    }
}
