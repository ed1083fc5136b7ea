//! What `ptxas -v` says of kernels.

use super::{Error, Result, run, temporary, tool};
use std::path::Path;
use std::process::Command;

/// What a kernel takes of a multiprocessor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Its name.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Local memory of a thread, spills included, in bytes.
    pub stack_bytes: u32,
    /// Bytes that a thread spills: stores and loads.
    pub spill_bytes: u32,
    /// Static shared memory of a block; dynamic shared memory is the launch's business.
    pub shared_bytes: u32,
    /// Constant memory, all banks: the parameters and what the compiler put there.
    pub constant_bytes: u32,
}

/// Assembles the PTX `text` for `sm` (80: sm_80); what each kernel takes, in the order of its output.
///
/// # Errors
/// No ptxas, or it refuses the text.
pub fn ptxas(text: &[u8], sm: u32) -> Result<Vec<Resources>> {
    let ptxas = tool("ptxas")?;
    let (source, cubin) = (temporary(text)?, temporary(&[])?);
    let mut command = Command::new(&ptxas);
    command.arg("-v").arg("-lineinfo").arg(format!("--gpu-name=sm_{sm}"));
    let (out, log) = run(&ptxas, sm, command.arg(source.path()).arg("-o").arg(cubin.path()))?;
    parse(&ptxas, &(out + &log))
}

/// ```text
/// ptxas info    : Compiling entry function 'rms_norm_32' for 'sm_80'
/// ptxas info    : Function properties for rms_norm_32
///     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 48 registers, used 1 barriers, 128 bytes smem, 384 bytes cmem[0]
/// ```
fn parse(tool: &Path, log: &str) -> Result<Vec<Resources>> {
    let mut all: Vec<Resources> = vec![];
    let mut seen = 0; // kernels with their last line
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_string();
            all.push(Resources { kernel, ..Resources::default() });
        }
        let Some(last) = all.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            last.stack_bytes = before(line, " bytes stack frame");
            last.spill_bytes = before(line, " bytes spill stores") + before(line, " bytes spill loads");
        } else if line.contains("Used ") && line.contains(" registers") {
            last.registers = before(line, " registers");
            last.shared_bytes = before(line, " bytes smem");
            last.constant_bytes = line.split(',').map(|part| before(part, " bytes cmem")).sum();
            seen += 1;
        }
    }
    if all.is_empty() || seen != all.len() {
        return Err(Error::Output { tool: tool.into(), found: log.chars().take(400).collect() });
    }
    Ok(all)
}

/// The number that stands before `unit`; 0 where there is none.
fn before(line: &str, unit: &str) -> u32 {
    let Some((text, _)) = line.split_once(unit) else { return 0 };
    text.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_says() {
        let log = "\
ptxas info    : 8 bytes gmem
ptxas info    : Compiling entry function 'a_1' for 'sm_80'
ptxas info    : Function properties for a_1
    40 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 40 bytes cumulative stack size, 128 bytes smem, 384 bytes cmem[0], 8 bytes cmem[2]
ptxas info    : Compile time = 21.366 ms
ptxas info    : Compiling entry function 'b' for 'sm_90'
ptxas info    : Function properties for b
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
";
        let all = parse(Path::new("ptxas"), log).unwrap();
        let a = Resources {
            kernel: "a_1".into(),
            registers: 48,
            stack_bytes: 40,
            spill_bytes: 28,
            shared_bytes: 128,
            constant_bytes: 392,
        };
        assert_eq!(all, [a, Resources { kernel: "b".into(), registers: 40, ..Resources::default() }]);
        assert!(parse(Path::new("ptxas"), "").is_err());
    }
}
