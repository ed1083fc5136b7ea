//! docs/quality.md, from the results of `quality` and `matrices`.

use crate::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};

const HEAD: &str = include_str!("quality_head.md");

fn results(dir: &Path, kind: &str) -> Result<Vec<Value>> {
    let mut paths: Vec<PathBuf> = vec![];
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(kind) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Ok(serde_json::from_slice(&std::fs::read(path)?)?)).collect()
}

/// The whole page.
pub fn page(dir: &Path) -> Result<String> {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let text = |value: &Value| value.as_str().unwrap_or("?").to_string();
    let mut page = HEAD.to_string();
    page += "\n## Whole models\n";
    for result in results(dir, "quality.")? {
        page += &format!(
            "\n### {}\n\n{} tokens; perplexity of the weights as they are: {:.4}\n\n| format | bits a weight | of the layers alone | mean KL divergence | perplexity | same first choice |\n| --- | ---: | ---: | ---: | ---: | ---: |\n",
            text(&result["name"]),
            result["tokens"],
            number(&result["perplexity"])
        );
        for row in result["rows"].as_array().into_iter().flatten() {
            page += &format!(
                "| {} | {:.3} | {:.3} | {:.3e} | {:.4} | {:.2} % |\n",
                text(&row["format"]),
                number(&row["bits"]),
                number(&row["layer_bits"]),
                number(&row["kl"]),
                number(&row["perplexity"]),
                100.0 * number(&row["same"])
            );
        }
        let check = result["check"].as_object().into_iter().flatten();
        let check: Vec<_> = check.map(|(name, kl)| format!("{name} {:.1e}", number(kl))).collect();
        page +=
            &format!("\nllama.cpp's own logits on its files, from ours on the same: {}.\n", check.join(", "));
    }
    page += "\n## Single products\n";
    for result in results(dir, "matrices.")? {
        page += &format!(
            "\n### {}\n\n{} matrices: {}\n\n| format | bits a weight | error, normal inputs | error, realistic inputs |\n| --- | ---: | ---: | ---: |\n",
            text(&result["name"]),
            result["matrices"],
            text(&result["shapes"])
        );
        for row in result["rows"].as_array().into_iter().flatten() {
            page += &format!(
                "| {} | {:.3} | {:.3e} | {:.3e} |\n",
                text(&row["format"]),
                number(&row["bits"]),
                number(&row["normal"]),
                number(&row["realistic"])
            );
        }
    }
    Ok(page)
}
