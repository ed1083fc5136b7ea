//! Builds kernels around instructions, runs them with every check on.

use komt_softgpu::DeviceSpec;
use komt_softgpu::exec::{Launch, LoadedModule, RunOptions, run};
use komt_softgpu::memory::Memory;
use komt_softgpu::ptx;

/// Instructions, inputs, result.
pub type Row = (&'static str, &'static [u64], u64);

pub const fn f(x: f32) -> u64 {
    x.to_bits() as u64
}

pub const fn d(x: f64) -> u64 {
    x.to_bits()
}

/// -1 and so on as 64 bits.
pub const fn i(x: i64) -> u64 {
    x as u64
}

pub const NAN: u64 = 0x7fff_ffff;
pub const INF: u64 = 0x7f80_0000;
pub const NINF: u64 = 0xff80_0000;

/// What most instructions are run on.
const SM: u32 = 90;

fn head(sm: u32) -> String {
    format!(".version 8.8\n.target sm_{sm}\n.address_size 64\n")
}

const REGISTERS: &str = ".reg .pred %p<10>;\n.reg .b16 %h<10>;\n.reg .b32 %r<20>;\n.reg .b64 %d<10>;
.reg .b64 %in; .reg .b64 %out; .reg .b32 %t; .reg .b64 %u;
ld.param.u64 %in, [a]; ld.param.u64 %out, [b];\n";

fn names(text: &str, class: char, index: usize) -> bool {
    let name = format!("%{class}{index}");
    let mut rest = text;
    while let Some(at) = rest.find(&name) {
        rest = &rest[at + name.len()..];
        if !rest.starts_with(|c: char| c.is_ascii_digit()) {
            return true;
        }
    }
    false
}

fn kernel(index: usize, (text, inputs, _): &Row) -> String {
    let mut body = String::new();
    for i in 0..inputs.len() {
        let at = 8 * i;
        for (class, load) in [('h', "u16"), ('r', "u32"), ('d', "u64")] {
            if names(text, class, i) {
                body += &format!("ld.global.{load} %{class}{i}, [%in+{at}];\n");
            }
        }
        if names(text, 'p', i) {
            body += &format!("ld.global.u32 %t, [%in+{at}]; setp.ne.u32 %p{i}, %t, 0;\n");
        }
    }
    body += text;
    for (class, store) in [('h', "u16"), ('r', "u32"), ('d', "u64")] {
        if names(text, class, 9) {
            body += &format!("\nst.global.{store} [%out], %{class}9;");
        }
    }
    if names(text, 'p', 9) {
        body += "\nselp.u32 %t, 1, 0, %p9; st.global.u32 [%out], %t;";
    }
    format!(".visible .entry k{index}(.param .u64 a, .param .u64 b)\n{{\n{REGISTERS}{body}\nret;\n}}\n")
}

/// Runs every row on one thread; all that differ are named.
pub fn check(rows: &[Row]) {
    check_on(SM, rows);
}

/// The same for an architecture.
pub fn check_on(sm: u32, rows: &[Row]) {
    let (memory, spec) = (Memory::new(1 << 20), DeviceSpec::sm(sm));
    let (input, output) = (memory.alloc(64).unwrap(), memory.alloc(8).unwrap());
    let mut wrong = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let text = format!("{}{}", head(sm), kernel(index, row));
        let module = match ptx::parse(&text, &spec).map(|module| LoadedModule::new(module, &memory)) {
            Ok(module) => module.unwrap(),
            Err(error) => {
                wrong.push(format!("{}: {error}", row.0));
                continue;
            }
        };
        memory.write(output, &[0; 8]).unwrap();
        for (at, x) in row.1.iter().enumerate() {
            memory.write(input + 8 * at as u64, &x.to_le_bytes()).unwrap();
        }
        match launch(&module, &memory, &spec, 1, 1, &[input, output]) {
            Err(complaint) => wrong.push(format!("{}: {complaint}", row.0)),
            Ok(()) => {
                let mut bytes = [0; 8];
                memory.read(output, &mut bytes).unwrap();
                let got = u64::from_le_bytes(bytes);
                if got != row.2 {
                    wrong.push(format!("{} of {:x?}: {got:#x}, not {:#x}", row.0, row.1, row.2));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

fn launch(
    module: &LoadedModule,
    memory: &Memory,
    spec: &DeviceSpec,
    blocks: u32,
    threads: u32,
    pointers: &[u64],
) -> Result<(), String> {
    let params: Vec<u8> = pointers.iter().flat_map(|p| p.to_le_bytes()).collect();
    let launch = Launch {
        kernel: module.module.kernels.iter().find(|kernel| kernel.is_entry).unwrap(),
        grid: [blocks, 1, 1],
        block: [threads, 1, 1],
        dynamic_shared_bytes: 0,
        params: &params,
    };
    let options = RunOptions { seed: 1, checks: true, max_instructions: 1_000_000 };
    run(&launch, module, memory, spec, &options).map(|_| ()).map_err(|complaint| complaint.to_string())
}

/// One kernel of `threads` threads a block: `%r0` is the thread's number in the grid, `%in` a global buffer that starts as `input` followed
/// by zeros up to 4096 bytes, `tile` 4096 bytes of shared memory; what stands before a line `----` goes before the kernel. Answers every thread's `%r9` and what became of the buffer.
pub fn run_block(
    blocks: u32,
    threads: u32,
    body: &str,
    input: &[u32],
) -> Result<(Vec<u32>, Vec<u32>), String> {
    run_block_on(SM, blocks, threads, body, input)
}

/// The same for an architecture.
pub fn run_block_on(
    sm: u32,
    blocks: u32,
    threads: u32,
    body: &str,
    input: &[u32],
) -> Result<(Vec<u32>, Vec<u32>), String> {
    let (memory, spec) = (Memory::new(1 << 20), DeviceSpec::sm(sm));
    let (outside, body) = body.split_once("----").unwrap_or(("", body));
    let text = format!(
        "{}{outside}.visible .entry k(.param .u64 a, .param .u64 b)\n{{\n.shared .align 16 .b8 tile[4096];\n{REGISTERS}
mov.u32 %r0, %tid.x; mov.u32 %t, %ctaid.x; mad.lo.u32 %r0, %t, {threads}, %r0;
{body}
mad.wide.u32 %u, %r0, 4, %out; st.global.u32 [%u], %r9;\nret;\n}}\n",
        head(sm)
    );
    let module = ptx::parse(&text, &spec).map_err(|error| error.to_string())?;
    let module = LoadedModule::new(module, &memory).unwrap();
    let total = u64::from(blocks * threads);
    let (buffer, output) = (memory.alloc(4096).unwrap(), memory.alloc(4 * total).unwrap());
    let mut bytes: Vec<u8> = input.iter().flat_map(|x| x.to_le_bytes()).collect();
    bytes.resize(4096, 0);
    memory.write(buffer, &bytes).unwrap();
    launch(&module, &memory, &spec, blocks, threads, &[buffer, output])?;
    let words = |addr, count: u64| -> Result<Vec<u32>, String> {
        let mut bytes = vec![0; 4 * count as usize];
        memory.read(addr, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect())
    };
    Ok((words(output, total)?, words(buffer, 1024)?))
}

/// [`run_block`] of one warp; every lane's result must be `expect(lane)`.
pub fn check_warp(body: &str, input: &[u32], expect: impl Fn(u32) -> u32) {
    match run_block(1, 32, body, input) {
        Err(error) => panic!("{body}\n{error}"),
        Ok((got, _)) => assert_eq!(got, (0..32).map(expect).collect::<Vec<_>>(), "{body}"),
    }
}

/// Every lane's `%r9`, `%r10`, ... in turn: for results of several registers.
pub fn run_registers(body: &str, input: &[u32], registers: std::ops::Range<usize>) -> Vec<Vec<u32>> {
    registers
        .map(|r| {
            run_block(1, 32, &format!("{body}\nmov.b32 %r9, %r{r};"), input)
                .unwrap_or_else(|e| panic!("{body}\n{e}"))
                .0
        })
        .collect()
}
