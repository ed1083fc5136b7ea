//! A kernel of a module -> [`Code`]: registers, constants, places of variables, functions that it calls.

mod alu;
mod arch;
mod atomic;
mod copy;
mod float;
mod forms;
mod hints;
mod integer;
mod memory;
mod operands;
mod quiet;
mod sync;
mod types;

use std::collections::HashMap;

use super::code::{Code, Initial, Kind, Op, Slot};
use super::{LOCAL_BASE, SHARED_BASE};
use crate::num::Ty;
use crate::ptx::{Instruction, Kernel, Module, Operand, PtxError, Space};

type Result<T> = std::result::Result<T, String>;

/// Something in the module's text that names a place.
#[derive(Clone, Copy, Debug)]
struct Place {
    space: Space,
    /// Offset in its space; the address for global and const.
    at: u64,
}

struct Decoder<'a> {
    module: &'a Module,
    globals: &'a HashMap<String, (u64, u64)>,
    shared: HashMap<String, u32>,
    /// The kernel, then the functions that it calls: indices into the module.
    functions: Vec<usize>,
    /// First instruction of each.
    starts: Vec<u32>,
    /// Registers of each.
    registers: Vec<Vec<Slot>>,
    /// Parameters and local variables: (function, name) -> place.
    places: HashMap<(usize, String), Place>,
    /// The function being decoded.
    now: usize,
    consts_w: HashMap<Initial, u32>,
    consts_d: HashMap<Initial, u32>,
    classes: HashMap<String, u32>,
    code: Code,
}

/// Decodes a kernel. Globals that have no address get 0: good enough to check instructions.
pub(super) fn decode(
    kernel: &Kernel,
    module: &Module,
    globals: &HashMap<String, (u64, u64)>,
) -> std::result::Result<Code, PtxError> {
    let layout = super::shared_layout(kernel, module);
    let code = Code {
        ops: Vec::new(),
        places: Vec::new(),
        classes: Vec::new(),
        sizes: [0; 3],
        initial_w: Vec::new(),
        initial_d: Vec::new(),
        local_bytes: 0,
        static_shared_bytes: layout.static_bytes,
        dynamic_shared_start: layout.dynamic_start,
    };
    let mut decoder = Decoder {
        module,
        globals,
        shared: layout.places,
        functions: Vec::new(),
        starts: Vec::new(),
        registers: Vec::new(),
        places: HashMap::new(),
        now: 0,
        consts_w: HashMap::new(),
        consts_d: HashMap::new(),
        classes: HashMap::new(),
        code,
    };
    decoder.collect(kernel)?;
    for now in 0..decoder.functions.len() {
        decoder.now = now;
        let index = decoder.functions[now];
        for (at, instruction) in module.kernels[index].body.iter().enumerate() {
            let op = decoder.op(instruction).map_err(|what| syntax(instruction, what))?;
            decoder.code.ops.push(op);
            decoder.code.places.push((index as u32, at as u32));
        }
        // Running off the end returns.
        let end = Op { kind: decoder.end(), guard: None, class: decoder.class("other") };
        decoder.code.ops.push(end);
        decoder.code.places.push((index as u32, module.kernels[index].body.len().saturating_sub(1) as u32));
    }
    Ok(decoder.code)
}

fn syntax(instruction: &Instruction, what: String) -> PtxError {
    PtxError::Syntax { line: instruction.line, what, text: instruction.text.clone() }
}

impl Decoder<'_> {
    /// Finds the functions called, and gives registers and variables their places.
    fn collect(&mut self, kernel: &Kernel) -> std::result::Result<(), PtxError> {
        let find = |name: &str| self.module.kernels.iter().position(|one| one.name == name);
        let mut functions: Vec<usize> = find(&kernel.name).into_iter().collect();
        let mut at = 0;
        let mut calls: Vec<Call> = Vec::new();
        while at < functions.len() {
            for instruction in
                self.module.kernels[functions[at]].body.iter().filter(|one| one.opcode == "call")
            {
                let (returns, name, args) =
                    call_parts(instruction).map_err(|what| syntax(instruction, what))?;
                let callee =
                    find(&name).ok_or_else(|| syntax(instruction, format!("no function `{name}`")))?;
                let one = &self.module.kernels[callee];
                if one.is_entry {
                    return Err(syntax(instruction, "a kernel cannot be called".to_owned()));
                }
                if (returns.len(), args.len()) != (one.returns.len(), one.params.len()) {
                    return Err(syntax(instruction, "number of arguments".to_owned()));
                }
                let index = functions.iter().position(|&one| one == callee).unwrap_or_else(|| {
                    functions.push(callee);
                    functions.len() - 1
                });
                // A function has one place to return to, and one set of registers.
                if leads(&calls, index, at) {
                    return Err(syntax(instruction, "recursion is not known".to_owned()));
                }
                calls.push((at, index, returns, args));
            }
            at += 1;
        }
        self.functions = functions;
        let mut start = 0;
        for now in 0..self.functions.len() {
            let one = &self.module.kernels[self.functions[now]];
            self.starts.push(start);
            start += one.body.len() as u32 + 1;
            let mut slots = Vec::new();
            for register in &one.registers {
                slots.push(self.register(register.bits));
            }
            self.registers.push(slots);
            self.locals(now, one);
        }
        // A call's own parameter variables are those of the function: nothing is copied.
        for (caller, callee, returns, args) in calls {
            let one = &self.module.kernels[self.functions[callee]];
            let names = one.returns.iter().chain(one.params.iter().map(|param| &param.1));
            for (theirs, ours) in names.zip(returns.iter().chain(&args)) {
                let place = self.places[&(callee, theirs.name.clone())];
                self.places.insert((caller, ours.clone()), place);
            }
        }
        Ok(())
    }

    fn locals(&mut self, now: usize, one: &Kernel) {
        for (offset, param) in one.params.iter().filter(|_| one.is_entry) {
            let place = Place { space: Space::Param, at: u64::from(*offset) };
            self.places.insert((now, param.name.clone()), place);
        }
        let own = one.variables.iter().filter(|one| matches!(one.space, Space::Local | Space::Param));
        let params = one.params.iter().map(|param| &param.1).filter(|_| !one.is_entry);
        for variable in own.chain(params) {
            let at = self.code.local_bytes.next_multiple_of(variable.align.max(1) as usize);
            self.code.local_bytes = at + variable.bytes as usize;
            let place = Place { space: Space::Local, at: at as u64 };
            self.places.insert((now, variable.name.clone()), place);
        }
        // The link register: where a function returns to.
        if !one.is_entry {
            let link = self.register(64);
            if let Some(slots) = self.registers.get_mut(now) {
                slots.push(link);
            }
        }
    }

    fn register(&mut self, bits: u32) -> Slot {
        let (file, make): (usize, fn(u32) -> Slot) = match bits {
            1 => (2, Slot::P),
            64 => (1, Slot::D),
            _ => (0, Slot::W),
        };
        self.code.sizes[file] += 1;
        make(self.code.sizes[file] as u32 - 1)
    }

    fn link(&self, function: usize) -> Result<u32> {
        match self.registers[function].last() {
            Some(Slot::D(link)) => Ok(*link),
            _ => Err("a kernel cannot be called".to_owned()),
        }
    }

    fn end(&self) -> Kind {
        match self.link(self.now) {
            Ok(link) if self.now > 0 => Kind::Return { link },
            _ => Kind::Exit,
        }
    }

    fn class(&mut self, name: &str) -> u32 {
        if let Some(&class) = self.classes.get(name) {
            return class;
        }
        self.code.classes.push(name.to_owned());
        self.classes.insert(name.to_owned(), self.code.classes.len() as u32 - 1);
        self.code.classes.len() as u32 - 1
    }

    fn op(&mut self, instruction: &Instruction) -> Result<Op> {
        let guard = match instruction.guard {
            Some((register, negated)) => Some(self.predicate(register, negated)?),
            None => None,
        };
        self.check_form(instruction)?;
        let (kind, class) = self.kind(instruction)?;
        arch::check(instruction, self.module.target)?;
        let class = self.class(&class);
        Ok(Op { kind, guard, class })
    }

    /// The instruction and its class.
    fn kind(&mut self, one: &Instruction) -> Result<(Kind, String)> {
        let modifiers: Vec<&str> = one.modifiers.iter().map(String::as_str).collect();
        match one.opcode.as_str() {
            "ld" | "ldu" | "st" => self.transfer(one, modifiers),
            "atom" | "red" => self.atomic(one, modifiers),
            "cp" => self.copy(one, modifiers),
            "ldmatrix" | "stmatrix" => self.matrix(one, modifiers),
            "cvta" | "isspacep" => self.generic(one, modifiers),
            "createpolicy" => self.policy(one, &modifiers),
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" | "bar" | "barrier" | "shfl"
            | "vote" | "match" | "redux" | "activemask" | "mma" => self.sync(one, &modifiers),
            "membar" | "fence" | "griddepcontrol" | "prefetch" | "prefetchu" | "applypriority"
            | "discard" | "nanosleep" | "pmevent" | "setmaxnreg" => self.quiet(one, &modifiers),
            "cvt" => self.convert(one, &modifiers),
            _ => self.alu(one, &modifiers),
        }
    }
}

/// A call: the caller and the function called, by their places in [`Decoder::functions`]; results and arguments.
type Call = (usize, usize, Vec<String>, Vec<String>);

/// Whether calls lead from a function to another one, or they are the same. Of calls that lead nowhere in a circle.
fn leads(calls: &[Call], from: usize, to: usize) -> bool {
    from == to || calls.iter().any(|call| call.0 == from && leads(calls, call.1, to))
}

/// Results, name and arguments of a call.
fn call_parts(one: &Instruction) -> Result<(Vec<String>, String, Vec<String>)> {
    let names = |list: &[Operand]| -> Result<Vec<String>> {
        let name = |operand: &Operand| match operand {
            Operand::Symbol(name) => Ok(name.clone()),
            _ => Err("arguments of calls are `.param` variables".to_owned()),
        };
        list.iter().map(name).collect()
    };
    match &one.operands[..] {
        [Operand::Symbol(name)] => Ok((Vec::new(), name.clone(), Vec::new())),
        [Operand::Symbol(name), Operand::List(args)] => Ok((Vec::new(), name.clone(), names(args)?)),
        [Operand::List(returns), Operand::Symbol(name)] => Ok((names(returns)?, name.clone(), Vec::new())),
        [Operand::List(returns), Operand::Symbol(name), Operand::List(args)] => {
            Ok((names(returns)?, name.clone(), names(args)?))
        }
        _ => Err("only direct calls are known".to_owned()),
    }
}

/// What has to be added to an address of a space to make it generic.
fn window(space: Space) -> Result<u64> {
    match space {
        Space::Shared => Ok(SHARED_BASE),
        Space::Local => Ok(LOCAL_BASE),
        Space::Global | Space::Const | Space::Generic => Ok(0),
        Space::Param => Err("generic addresses of parameters are not known".to_owned()),
    }
}

/// Takes the modifier off the list if it is there.
fn take(modifiers: &mut Vec<&str>, name: &str) -> bool {
    let at = modifiers.iter().position(|one| *one == name);
    if let Some(at) = at {
        modifiers.remove(at);
    }
    at.is_some()
}

/// All modifiers must have been understood.
fn none_left(modifiers: &[&str]) -> Result<()> {
    match modifiers {
        [] => Ok(()),
        [first, ..] => Err(format!("unknown modifier `.{first}`")),
    }
}

/// The type that ends the modifiers, taken off.
fn last_type(modifiers: &mut Vec<&str>) -> Result<Ty> {
    let ty = modifiers.last().and_then(|name| Ty::from_name(name)).ok_or("expected a type at the end")?;
    modifiers.pop();
    Ok(ty)
}
