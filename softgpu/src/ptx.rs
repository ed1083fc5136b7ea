//! PTX text -> [`Module`]: what NVRTC and Triton emit, checked against a device. The reference is "PTX ISA", NVIDIA.

mod body;
mod lexer;
mod parser;

use std::collections::HashMap;

use crate::spec::DeviceSpec;

/// What is wrong with a PTX text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PtxError {
    /// The text is not what we know as PTX.
    #[error("PTX line {line}: {what}: `{text}`")]
    Syntax {
        /// From 1.
        line: u32,
        /// What was expected, or is not known.
        what: String,
        /// The line, or the instruction.
        text: String,
    },
    /// `.version` is newer than the driver knows.
    #[error(".version {}.{} is newer than the driver's {}.{}", found.0, found.1, known.0, known.1)]
    TooNew {
        /// Of the text.
        found: (u32, u32),
        /// Of the driver.
        known: (u32, u32),
    },
    /// `.target` is not one that the device runs.
    #[error(".target {found} does not run on {device}")]
    Target {
        /// Of the text.
        found: String,
        /// Name of the device.
        device: String,
    },
}

/// State spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Space {
    Generic,
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A variable outside of registers.
#[derive(Clone, Debug)]
pub struct Variable {
    /// As in the text.
    pub name: String,
    /// Global, const, shared, local or param.
    pub space: Space,
    /// Alignment in bytes.
    pub align: u32,
    /// Size in bytes; 0 for an extern array without bounds.
    pub bytes: u32,
    /// First bytes, the rest zero; `None` when there is no initialiser.
    pub init: Option<Vec<u8>>,
    /// Addresses in the initialiser: (offset, variable, addend).
    pub relocations: Vec<(u32, String, i64)>,
    /// `.extern`: dynamic shared memory.
    pub is_extern: bool,
}

/// A register of a kernel; its index is its name.
#[derive(Clone, Debug)]
pub struct Register {
    /// As in the text.
    pub name: String,
    /// Width in bits; 1 for predicates.
    pub bits: u32,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register.
    Reg(u32),
    /// A negated predicate.
    NotReg(u32),
    /// A special register, with its component: `%tid.x`.
    Special(String),
    /// An integer, negative ones in two's complement.
    Int(u64),
    /// `0f...`: bits of an f32.
    F32(u32),
    /// `0d...`: bits of an f64.
    F64(u64),
    /// `[base + offset]`.
    Address(Base, i64),
    /// `{a, b, ...}`.
    Vector(Vec<Operand>),
    /// `p|q`: two destinations.
    Pair(u32, u32),
    /// A variable, label or function.
    Symbol(String),
    /// `_`: a result that nobody wants.
    Sink,
    /// `(a, b, ...)` of a call.
    List(Vec<Operand>),
}

/// What an address is counted from.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// A register.
    Reg(u32),
    /// A variable.
    Symbol(String),
    /// Nothing.
    Zero,
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// `ld`.
    pub opcode: String,
    /// `global`, `nc`, `v4`, `u32`.
    pub modifiers: Vec<String>,
    /// In the order of the text.
    pub operands: Vec<Operand>,
    /// `@p`: register, and whether it is negated.
    pub guard: Option<(u32, bool)>,
    /// Line of the PTX text.
    pub line: u32,
    /// Index into [`Module::files`] and line, from `.loc`.
    pub source: Option<(u32, u32)>,
    /// As written, without the guard.
    pub text: String,
}

/// A kernel or a function.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// As in the text.
    pub name: String,
    /// `.entry`, not `.func`.
    pub is_entry: bool,
    /// Parameters with their offset: (offset, variable).
    pub params: Vec<(u32, Variable)>,
    /// Bytes of the parameters.
    pub param_bytes: u32,
    /// Return parameters of a function: their variables.
    pub returns: Vec<Variable>,
    /// Shared and local variables.
    pub variables: Vec<Variable>,
    /// Virtual registers.
    pub registers: Vec<Register>,
    /// Instructions.
    pub body: Vec<Instruction>,
    /// Label -> index of its instruction.
    pub labels: HashMap<String, u32>,
    /// `.branchtargets` tables: label -> labels.
    pub targets: HashMap<String, Vec<String>>,
    /// `.maxntid`, or `.reqntid`.
    pub maxntid: Option<[u32; 3]>,
    /// `.reqntid`.
    pub reqntid: Option<[u32; 3]>,
    /// `.minnctapersm`.
    pub minnctapersm: Option<u32>,
}

impl Kernel {
    /// Bytes of static shared memory, those of the module that the kernel uses included.
    pub fn static_shared_bytes(&self, module: &Module) -> u32 {
        crate::exec::shared_layout(self, module).static_bytes
    }

    /// Bytes of local memory of one thread.
    pub fn local_bytes(&self) -> u32 {
        let local = self.variables.iter().filter(|variable| variable.space == Space::Local);
        local.fold(0, |end, variable| u32::next_multiple_of(end, variable.align) + variable.bytes)
    }

    /// 32-bit registers that the text names: an upper bound of what a thread needs, far above what ptxas would take.
    pub fn virtual_registers(&self) -> u32 {
        self.registers.iter().map(|register| register.bits.div_ceil(32)).sum()
    }
}

/// A module.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// `.version`.
    pub version: (u32, u32),
    /// `.target`: 80 for `sm_80`.
    pub target: u32,
    /// `a` of `sm_90a`, `f` of `sm_100f`.
    pub suffix: Option<char>,
    /// Multiprocessors of the device that the text was checked against.
    pub sm_count: u32,
    /// Kernels and functions.
    pub kernels: Vec<Kernel>,
    /// Variables of the module: global, const and shared.
    pub variables: Vec<Variable>,
    /// `.file`: number -> path.
    pub files: HashMap<u32, String>,
}

impl Module {
    /// The kernel of this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.is_entry && kernel.name == name)
    }

    /// The global and const variables.
    pub fn globals(&self) -> impl Iterator<Item = &Variable> {
        self.variables.iter().filter(|variable| matches!(variable.space, Space::Global | Space::Const))
    }
}

/// Parses a text and checks that the device runs it and that each of its instructions is known.
pub fn parse(text: &str, spec: &DeviceSpec) -> Result<Module, PtxError> {
    let mut module = parser::parse(text)?;
    if module.version > spec.ptx_version {
        return Err(PtxError::TooNew { found: module.version, known: spec.ptx_version });
    }
    if !runs(&module, spec.arch) {
        let suffix = module.suffix.map(String::from).unwrap_or_default();
        let found = format!("sm_{}{suffix}", module.target);
        return Err(PtxError::Target { found, device: spec.name.clone() });
    }
    module.sm_count = spec.sm_count;
    crate::exec::check(&module)?;
    Ok(module)
}

/// Whether a device of this compute capability runs the module's target: that and all newer ones do, but only that itself if an `a`
/// follows, only those of its major version if an `f` does (PTX ISA 11.1.2).
fn runs(module: &Module, (major, minor): (u32, u32)) -> bool {
    let device = major * 10 + minor;
    match module.suffix {
        Some('a') => module.target == device,
        Some(_) => module.target <= device && module.target / 10 == major,
        None => module.target <= device,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str = ".version 8.8
.target sm_80
.address_size 64
.global .align 4 .b8 table[8] = {1, 2, 0xff};
.extern .shared .align 128 .b8 dynamic[];
.visible .entry scale(.param .u64 .ptr .align 1 a, .param .align 8 .b8 b[20])
.maxntid 256, 1, 1
{
  .reg .pred %p<2>;
  .reg .b32 %r<3>;
  .shared .align 16 .b8 tile[64];
  .loc 1 7 0
  @!%p1 bra $done;
  { .reg .b32 %r1; mov.b32 %r1, -1; }
  ld.global.v2.u32 {%r1, %r2}, [%r0+8];
$done:
  ret;
}
.file 1 \"scale.cu\"
";

    #[test]
    fn a_kernel_is_read_with_its_places() {
        let module = parse(TEXT, &DeviceSpec::sm(80));
        // `ld` takes a 64-bit address: only the parser's work is looked at here.
        let module = module.or_else(|_| parser::parse(TEXT)).unwrap();
        let kernel = module.kernel("scale").unwrap();
        assert_eq!((kernel.param_bytes, kernel.params[1].0, kernel.maxntid), (28, 8, Some([256, 1, 1])));
        assert_eq!(kernel.static_shared_bytes(&module), 64);
        assert_eq!(module.globals().next().unwrap().init, Some(vec![1, 2, 255]));
        let [branch, mov, load, ret] = &kernel.body[..] else { panic!("{:?}", kernel.body) };
        assert_eq!((branch.guard, kernel.labels["$done"]), (Some((1, true)), 3));
        assert_eq!(mov.operands, [Operand::Reg(5), Operand::Int(u64::MAX)]);
        assert_eq!(load.operands[1], Operand::Address(Base::Reg(2), 8));
        assert_eq!((load.line, load.source), (15, Some((1, 7))));
        assert_eq!((ret.text.as_str(), module.files[&1].as_str()), ("ret", "scale.cu"));
    }

    #[test]
    fn too_new_texts_and_targets_are_told() {
        let error = parse(".version 9.1\n.target sm_80\n", &DeviceSpec::sm(80)).unwrap_err();
        assert_eq!(error.to_string(), ".version 9.1 is newer than the driver's 8.8");
        let error = parse(".version 8.0\n.target sm_90a\n", &DeviceSpec::sm(80)).unwrap_err();
        assert_eq!(error.to_string(), ".target sm_90a does not run on software sm_80");
        let error = parse(".version 8.0\n.target sm_80\n.what\n", &DeviceSpec::sm(80)).unwrap_err();
        assert_eq!(error.to_string(), "PTX line 3: unknown directive: `.what`");
    }
}
