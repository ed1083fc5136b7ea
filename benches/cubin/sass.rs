//! Machine code, as `nvdisasm` reads it.

use super::{Error, Result, run, temporary, tool};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The code of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// Its name.
    pub kernel: String,
    /// Its instructions, 16 bytes each.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// With its modifiers: `LDG.E.128`.
    pub opcode: String,
    /// The instruction that a branch goes to, by number.
    pub target: Option<usize>,
}

/// A loop: the instructions from the target of a backward branch to the branch, by number, both included.
pub type Loop = std::ops::RangeInclusive<usize>;

/// Size of an instruction, since sm_70.
const INSTRUCTION_BYTES: u64 = 16;

/// The kernels of a cubin for `sm`.
///
/// # Errors
/// No nvdisasm, or it cannot read the cubin.
pub fn disassemble(cubin: &[u8], sm: u32) -> Result<Vec<Code>> {
    let nvdisasm = tool("nvdisasm")?;
    let file = temporary(cubin)?;
    let (json, _) = run(&nvdisasm, sm, Command::new(&nvdisasm).arg("-json").arg(file.path()))?;
    parse(&nvdisasm, &json)
}

/// `[about the file, [{"function-name": .., "sass-instructions": [{"opcode": "BRA", "operands": "0xb50"}, ..]}, ..]]`
fn parse(tool: &Path, json: &str) -> Result<Vec<Code>> {
    let unexpected = || Error::Output { tool: tool.into(), found: json.chars().take(400).collect() };
    let value: Value = serde_json::from_str(json).map_err(|_| unexpected())?;
    let functions = value.get(1).and_then(Value::as_array).ok_or_else(unexpected)?;
    let code = |function: &Value| {
        let kernel = function.get("function-name")?.as_str()?.to_string();
        let instructions = function.get("sass-instructions")?.as_array()?;
        Some(Code { kernel, instructions: instructions.iter().map(instruction).collect::<Option<_>>()? })
    };
    functions.iter().map(code).collect::<Option<_>>().ok_or_else(unexpected)
}

fn instruction(json: &Value) -> Option<Instruction> {
    let opcode = json.get("opcode")?.as_str()?.to_string();
    let operands = json.get("operands").and_then(Value::as_str).unwrap_or_default();
    // Predicates of the branch itself may stand before its target: `UP0,0x510`.
    let address = operands.rsplit(',').next().and_then(|last| last.trim().strip_prefix("0x"));
    let is_branch = opcode == "BRA" || opcode.starts_with("BRA.");
    let target = address.filter(|_| is_branch).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    Some(Instruction { opcode, target: target.map(|address| (address / INSTRUCTION_BYTES) as usize) })
}

impl Instruction {
    /// Whether it is `name`, with whatever modifiers: `HFMA2.MMA` is no `HMMA`.
    pub fn is(&self, name: &str) -> bool {
        self.opcode.split('.').next() == Some(name)
    }

    /// Bytes that a thread moves, of a load or store.
    pub fn width_bytes(&self) -> usize {
        let width = |modifier: &str| match modifier {
            "128" => Some(16),
            "64" => Some(8),
            "U16" | "S16" => Some(2),
            "U8" | "S8" => Some(1),
            _ => None,
        };
        self.opcode.split('.').skip(1).find_map(width).unwrap_or(4)
    }
}

impl Code {
    /// The instructions called `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Instruction> {
        self.instructions.iter().filter(move |one| one.is(name))
    }

    /// How many of `range` are called `name`.
    pub fn count(&self, range: &Loop, name: &str) -> usize {
        self.instructions[range.clone()].iter().filter(|one| one.is(name)).count()
    }

    /// Every loop. (The branch to itself that ends a kernel is none.)
    pub fn loops(&self) -> Vec<Loop> {
        let backward = |(i, one): (usize, &Instruction)| one.target.filter(|&to| to < i).map(|to| to..=i);
        self.instructions.iter().enumerate().filter_map(backward).collect()
    }

    /// The loop where the `name`s are: of the loops that have one, and no smaller such loop inside, the one with most.
    pub fn main_loop(&self, name: &str) -> Option<Loop> {
        let with: Vec<Loop> = self.loops().into_iter().filter(|one| self.count(one, name) > 0).collect();
        let within = |a: &Loop, b: &Loop| a != b && b.start() <= a.start() && a.end() <= b.end();
        let innermost = with.iter().filter(|&outer| !with.iter().any(|inner| within(inner, outer)));
        innermost.max_by_key(|one| self.count(one, name)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_main_loop() {
        // Two nested loops, and one with fewer HMMA.
        let lines = [
            ("LDG.E.128", "R8,[R2.64]"),
            ("MOV", "R1,R2"),
            ("HMMA.16816.F32.BF16", "R4,R8,R12,R4"),
            ("HMMA.16816.F32.BF16", "R4,R8,R12,R4"),
            ("HFMA2.MMA", "R43,-RZ,RZ,0,0"),
            ("BRA.U", "UP0,0x20"),
            ("BRA", "0x10"),
            ("HMMA.16816.F32.BF16", "R4,R8,R12,R4"),
            ("BRA", "0x70"),
            ("EXIT", ""),
            ("BRA", "0xa0"),
        ];
        let instructions: Vec<Value> =
            lines.iter().map(|(op, args)| serde_json::json!({"opcode": op, "operands": args})).collect();
        let json = serde_json::json!([{}, [{"function-name": "k", "sass-instructions": instructions}]]);
        let code = parse(Path::new("nvdisasm"), &json.to_string()).unwrap();
        let code = &code[0];
        assert_eq!(code.loops(), [2..=5, 1..=6, 7..=8]);
        let main = code.main_loop("HMMA").unwrap();
        assert_eq!((main.clone(), code.count(&main, "HMMA")), (2..=5, 2));
        assert_eq!(code.main_loop("LDSM"), None);
        let widths: Vec<usize> = code.all("LDG").map(Instruction::width_bytes).collect();
        assert_eq!(widths, [16]);
        assert!(parse(Path::new("nvdisasm"), "[]").is_err());
    }
}
