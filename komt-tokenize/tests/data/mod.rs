//! The tokenizers and golden files that the tests share.
#![allow(dead_code)] // Each test file uses some of it.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use komt_tokenize::{StreamDecoder, TokenId, Tokenizer};
use serde_json::{Value, json};

pub fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/tokenizer")).join(name)
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Mistral v1 as published in 2023.
pub static LEGACY: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_dir(&path("")).unwrap());

/// The same vocabulary in the later layout, which we derive from the first.
pub static METASPACE: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut json = read_json(&path("tokenizer.json"));
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    let config = std::fs::read(path("tokenizer_config.json")).unwrap();
    Tokenizer::from_bytes(json.to_string().as_bytes(), Some(&config)).unwrap()
});

/// A byte-level tokenizer of ours: 256 bytes, three merges that join bytes of `가` and of a space with it, two special
/// tokens. Ids 0 and 1 are special, byte b is 2 + b.
pub static BYTE_LEVEL: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_bytes(byte_level_json().to_string().as_bytes(), None).unwrap());

pub fn byte_level_json() -> Value {
    let char_of = |b: u8| match b {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(b),
        0..=0x20 => char::from_u32(0x100 + u32::from(b)).unwrap(),
        0x7F..=0xA0 => char::from_u32(0x121 + u32::from(b) - 0x7F).unwrap(),
        0xAD => '\u{143}',
    };
    let mut vocab = serde_json::Map::new();
    for b in 0..=255u8 {
        vocab.insert(char_of(b).to_string(), json!(2 + u32::from(b)));
    }
    // 가 is EA B0 80.
    let [space, ea, b0] = [0x20, 0xEA, 0xB0].map(char_of);
    let pairs = [[format!("{ea}"), format!("{b0}")], [format!("{space}"), format!("{ea}{b0}")]];
    for (i, [a, b]) in pairs.iter().enumerate() {
        vocab.insert(format!("{a}{b}"), json!(258 + i));
    }
    let special = |id, content| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    vocab.insert("<s>".into(), json!(0));
    vocab.insert("</s>".into(), json!(1));
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "vocab": vocab, "merges": pairs}
    })
}

/// A file of the fixtures that may not be in this repository. Says so loudly where they are not there.
pub fn fixture(name: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("KOMT_FIXTURES") {
        return Some(Path::new(&dir).join(name));
    }
    assert!(
        std::env::var_os("KOMT_REQUIRE_FIXTURES").is_none_or(|v| v != "1"),
        "KOMT_REQUIRE_FIXTURES=1, but KOMT_FIXTURES is not set: {name} is missing"
    );
    // Not eprintln: the test harness would hide it.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "SKIPPED: {name}: set KOMT_FIXTURES to the directory that has it").unwrap();
    None
}

/// Every tokenizer in the later layout: ours, and the published one where the fixtures are there.
pub fn metaspaces() -> Vec<Tokenizer> {
    static PUBLISHED: LazyLock<Option<Tokenizer>> = LazyLock::new(|| {
        let json = std::fs::read(fixture("mistral_v1_tokenizer/tokenizer_metaspace.json")?).unwrap();
        let config = std::fs::read(fixture("mistral_v1_tokenizer/tokenizer_config_metaspace.json")?).unwrap();
        Some(Tokenizer::from_bytes(&json, Some(&config)).unwrap())
    });
    std::iter::once(METASPACE.clone()).chain(PUBLISHED.clone()).collect()
}

pub fn smollm2() -> Option<Tokenizer> {
    Some(Tokenizer::from_dir(&fixture("smollm2_meta")?).unwrap())
}

pub fn ids(value: &Value) -> Vec<TokenId> {
    serde_json::from_value(value.clone()).unwrap_or_else(|_| panic!("not a list of ids: {value}"))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// Every piece of a stream, the last one from `finish`.
pub fn stream(mut decoder: StreamDecoder, ids: &[TokenId]) -> Vec<String> {
    let mut pieces: Vec<_> = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
    pieces.push(decoder.finish());
    pieces
}
