//! What it was measured on.

use std::fmt::Write;

fn first_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':').map(|(_, value)| value.trim()))
}

/// Version of a package in our lock file.
fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")));
    entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next()).unwrap_or("?")
}

/// Machine and versions, as lines of markdown.
pub fn page() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let flags: Vec<&str> = first_of(&cpu, "flags").unwrap_or_default().split(' ').collect();
    let told = [
        "avx2",
        "fma",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512vbmi",
        "avx512_fp16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
    ];
    let has: Vec<_> = told.into_iter().filter(|flag| flags.contains(flag)).collect();
    let gib = first_of(&memory, "MemTotal")
        .and_then(|kib| kib.split(' ').next()?.parse::<f64>().ok())
        .map_or("?".into(), |kib| format!("{:.1}", kib / (1 << 20) as f64));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut page = String::new();
    let _ = writeln!(
        page,
        "* {} (family {}, model {}), {cores} cores, {gib} GiB of memory",
        first_of(&cpu, "model name").unwrap_or("an unknown CPU"),
        first_of(&cpu, "cpu family").unwrap_or("?"),
        first_of(&cpu, "model").unwrap_or("?")
    );
    let _ = writeln!(page, "* {}", has.join(", "));
    let _ = writeln!(
        page,
        "* llama-cpp-2 {} (llama-cpp-sys-2 {}), candle {}, all with {cores} threads",
        version("llama-cpp-2"),
        version("llama-cpp-sys-2"),
        version("candle-core")
    );
    match crate::llama::system_info() {
        Ok(info) => drop(writeln!(page, "* llama.cpp: `{}`", info.trim())),
        Err(error) => drop(writeln!(page, "* llama.cpp: {error}")),
    }
    page
}
