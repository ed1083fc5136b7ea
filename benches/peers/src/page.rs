//! docs/performance.md, from the results of the sections.

use crate::pairs::{Pairs, median};
use crate::sections::Section;
use crate::{Result, machine};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = "# Performance

Against llama.cpp and candle, on the same weights, in one process, in alternating pairs: us, the peer, us, the peer. A ratio is the
median of the pairs' ratios, and beside it stand the least and the greatest; above 1 we are faster. Peers run with all cores, a
batch of 512 and the fastest of their settings, found by trying them before: flash attention, rearranged weights or not (each its
own row), one cache for all sequences or one for each. We run with `--no-map`: both have their weights in memory. \"Limit\" is bytes
of weights a token over the best rate at which all cores read a buffer of 1 GiB, before or after that row.

Made by (in `benches/peers`; what is needed stands in its README):
```sh
cargo run --release -- run all
cargo run --release -- page > ../../docs/performance.md
```
";

/// The whole page.
pub fn page(sections: &[Section], results: &Path) -> Result<String> {
    let mut page = format!("{HEAD}\n## The machine\n\n{}\n## Results\n\n", machine::page());
    page += "| | model, weights | peer | ours, tokens/s | peer, tokens/s | ratio (least to greatest) | ours, limit | peer, limit | aim |\n";
    page += "| --- | --- | --- | ---: | ---: | --- | ---: | ---: | --- |\n";
    for section in sections {
        for peer in &section.peers {
            let path = results.join(format!("{}.{peer}.json", section.name));
            match std::fs::read(&path) {
                Ok(text) => page += &row(section, &serde_json::from_slice(&text)?)?,
                Err(_) => eprintln!("{}: not measured", path.display()),
            }
        }
    }
    page += NOTES;
    Ok(page)
}

const NOTES: &str = include_str!("notes.md");

fn row(section: &Section, result: &Value) -> Result<String> {
    let pairs = Pairs::from_json(&result["pairs"]).ok_or("a result without pairs")?;
    let n_tokens = section.work.n_tokens() as f64;
    let [least, middle, greatest] = pairs.ratios();
    let limit = result["limit"].as_f64().unwrap_or(f64::NAN);
    let of_limit = |bytes: &Value, seconds: f64| match (section.work.n_steps(), bytes.as_f64()) {
        (Some(n_steps), Some(bytes)) => {
            let rate = bytes * n_steps as f64 / seconds;
            format!("{:.1} GB/s, {:.0} %", rate / 1e9, 100.0 * rate / limit)
        }
        _ => String::new(),
    };
    let (ours, peer) = (median(&pairs.ours), median(&pairs.peer));
    let alone = ["one sequence", "empty context"].contains(&result["peer"].as_str().unwrap_or_default());
    // One sequence makes fewer tokens in its time.
    let peer_tokens = if alone { section.work.n_steps().unwrap_or(1) as f64 } else { n_tokens };
    let scale = n_tokens / peer_tokens;
    let settings = result["settings"].as_str().unwrap_or_default();
    let mut row = String::new();
    write!(
        row,
        "| {} | {}, {} | {}{} | {:.1} | {:.1} | **{:.2}** ({:.2} to {:.2}) | {} | {} | {} |\n",
        section.work,
        result["model"].as_str().unwrap_or("?"),
        section.weights.name(),
        result["peer"].as_str().unwrap_or("?"),
        if settings.is_empty() { String::new() } else { format!(" ({settings})") },
        n_tokens / ours,
        peer_tokens / peer,
        middle * scale,
        least * scale,
        greatest * scale,
        of_limit(&result["ours_bytes"], ours),
        of_limit(&result["peer_bytes"], peer),
        section.aim
    )?;
    Ok(row)
}
