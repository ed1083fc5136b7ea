//! Files that are truncated, malformed, oversized or contradict each other: a typed error, never a panic.

#![allow(clippy::unwrap_used)]

mod data;

use std::fs;

use data::{byte_level_json, path, read_json};
use komt_tokenize::{Error, Message, StreamDecoder, Template, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

fn error_of(tokenizer: &Value, config: Option<&Value>) -> Error {
    let config = config.map(ToString::to_string);
    Tokenizer::from_bytes(tokenizer.to_string().as_bytes(), config.as_ref().map(String::as_bytes))
        .unwrap_err()
}

/// Loads and, if that works, uses everything once.
fn load_and_use(json: &[u8], config: Option<&[u8]>) -> Result<(), Error> {
    let tokenizer = Tokenizer::from_bytes(json, config)?;
    let text = "Hello 가나 </s><s> 😀\n";
    for ids in [tokenizer.encode(text), tokenizer.encode_with_bos(text), tokenizer.encode_plain(text)] {
        let mut stream = StreamDecoder::new(&tokenizer);
        for id in ids? {
            stream.push(id)?;
            tokenizer.decode(&[id], false)?;
        }
        stream.finish();
    }
    Template::MistralInstruct.prompt_ids(&tokenizer, &[Message::user(text)]).map(|_| ())
}

#[test]
fn truncated_tokenizer_json() {
    let whole = fs::read(path("tokenizer.json")).unwrap();
    let offsets = (0..2500).step_by(23).chain((2500..whole.len()).step_by(60_013)).chain([whole.len() - 1]);
    for offset in offsets {
        let error = Tokenizer::from_bytes(&whole[..offset], None).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{offset}: {error}");
        assert!(error.to_string().starts_with("tokenizer.json: expected"), "{error}");
    }
    let small = byte_level_json().to_string();
    for offset in (0..small.len()).filter(|&i| small.is_char_boundary(i)) {
        assert!(Tokenizer::from_bytes(&small.as_bytes()[..offset], None).is_err());
    }
}

#[test]
fn truncated_config() {
    let tokenizer = byte_level_json().to_string();
    let config = fs::read(path("smollm2_tokenizer_config.json")).unwrap();
    for offset in 0..config.len() - 2 {
        let error = Tokenizer::from_bytes(tokenizer.as_bytes(), Some(&config[..offset])).unwrap_err();
        assert!(error.to_string().starts_with("tokenizer_config.json: expected"), "{offset}: {error}");
    }
}

/// Every path in a JSON value, but at most three entries of an array or a map.
fn paths(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            let few = if map.len() > 20 { 3 } else { map.len() };
            map.iter().take(few).for_each(|(key, value)| paths(value, &format!("{at}/{}", escape(key)), all));
        }
        Value::Array(list) => {
            list.iter().take(3).enumerate().for_each(|(i, value)| paths(value, &format!("{at}/{i}"), all));
        }
        _ => {}
    }
}

/// Something of another type in every place.
fn every_wrong_type(good: &Value, mut check: impl FnMut(&Value, &str)) {
    let mut all = Vec::new();
    paths(good, "", &mut all);
    let long = "x".repeat(300);
    for at in all {
        for wrong in [
            Value::Null,
            json!(true),
            json!(-1),
            json!(7),
            json!(1e300),
            json!(u64::MAX),
            json!(u32::MAX),
            json!(""),
            json!("\u{0}"),
            json!(long),
            json!([]),
            json!({}),
            json!([[["a"]]]),
            json!({"type": "Sequence"}),
            json!({"type": "Strip", "content": " ", "start": 1, "stop": 9}),
            json!({"String": ""}),
            json!(["a", "b", "c"]),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(&at).unwrap() = wrong;
            check(&bad, &at);
        }
    }
}

#[test]
fn wrong_types_in_tokenizer_json() {
    let (mut refused, mut taken) = (0, 0);
    // The layout of 2023, with a vocabulary of five.
    let mut sentencepiece = read_json(&path("tokenizer.json"));
    sentencepiece["model"]["vocab"] = json!({"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "▁a": 5});
    sentencepiece["model"]["merges"] = json!(["▁ a"]);
    let mut metaspace = sentencepiece.clone();
    metaspace["normalizer"] = Value::Null;
    metaspace["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    for good in [byte_level_json(), sentencepiece, metaspace] {
        load_and_use(good.to_string().as_bytes(), None).unwrap();
        every_wrong_type(&good, |bad, _| match load_and_use(bad.to_string().as_bytes(), None) {
            Ok(()) => taken += 1,
            Err(_) => refused += 1,
        });
    }
    println!("{refused} refused, {taken} harmless");
    assert!(refused > 1000);
}

#[test]
fn wrong_types_in_config() {
    let tokenizer = byte_level_json().to_string();
    let good = json!({
        "bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": null, "pad_token": "</s>", "add_bos_token": true,
        "add_eos_token": false, "tokenizer_class": "LlamaTokenizer",
        "chat_template": [{"name": "default", "template": "{{ bos_token }}"}]
    });
    load_and_use(tokenizer.as_bytes(), Some(good.to_string().as_bytes())).unwrap();
    every_wrong_type(&good, |bad, at| {
        let result = load_and_use(tokenizer.as_bytes(), Some(bad.to_string().as_bytes()));
        if bad.pointer(at) == Some(&json!(true)) && !at.starts_with("/add_") {
            assert!(matches!(result, Err(Error::Invalid { .. })), "{at}");
        }
    });
}

#[test]
fn files_that_contradict_each_other() {
    let good = byte_level_json();
    let named = error_of(&good, Some(&json!({"eos_token": "<end>"}))).to_string();
    assert!(named.contains("eos_token") && named.contains("<end>"), "{named}");
    // Padding and the unknown token are not needed: a name without a token is none.
    let config = json!({"pad_token": "<pad>", "unk_token": "?!"}).to_string();
    let tokenizer = Tokenizer::from_bytes(good.to_string().as_bytes(), Some(config.as_bytes())).unwrap();
    assert_eq!((tokenizer.pad(), tokenizer.unk()), (None, None));

    let mut renumbered = good.clone();
    renumbered["added_tokens"][1]["id"] = json!(9);
    let error = error_of(&renumbered, None).to_string();
    assert!(error.contains("</s>") && error.contains('9') && error.contains('1'), "{error}");

    let mut prefixed = good.clone();
    prefixed["model"]["continuing_subword_prefix"] = json!("##");
    assert!(matches!(error_of(&prefixed, None), Error::Unsupported { .. }));

    let mut wordpiece = good;
    wordpiece["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    assert!(matches!(error_of(&wordpiece, None), Error::Unsupported { .. }));
}

#[test]
fn directories() {
    let dir = tempfile::tempdir().unwrap();
    let load = || Tokenizer::from_dir(dir.path());
    let error = load().unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("tokenizer.json"), "{error}");

    let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
    write("tokenizer.json", byte_level_json().to_string().as_bytes());
    assert_eq!(load().unwrap().chat_template(), None);

    write(
        "tokenizer_config.json",
        br#"{"bos_token": null, "chat_template": [{"name": "rag", "template": "r"}]}"#,
    );
    write("special_tokens_map.json", br#"{"bos_token": {"content": "</s>"}, "eos_token": "<s>"}"#);
    let tokenizer = load().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(0)));
    assert_eq!((tokenizer.chat_template(), tokenizer.chat_template_named("rag")), (None, Some("r")));

    write("chat_template.jinja", "{{ messages[0].content }}".as_bytes());
    let text = Template::Jinja.render(&[Message::user("안녕")], &load().unwrap()).unwrap();
    assert_eq!(text, "안녕");
    write("chat_template.jinja", &[0xFF]);
    assert!(load().unwrap_err().to_string().contains("chat_template.jinja: expected UTF-8"));
    fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();

    // Sparse: no space is used and nothing is read.
    fs::File::create(dir.path().join("tokenizer.json")).unwrap().set_len(1 << 40).unwrap();
    let error = load().unwrap_err();
    assert!(matches!(error, Error::TooLarge { found: 0x100_0000_0000, .. }), "{error}");

    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    fs::create_dir(dir.path().join("tokenizer.json")).unwrap();
    assert!(matches!(load().unwrap_err(), Error::Io { .. }));
}

#[test]
fn deep_nesting() {
    for open in ["[", "{\"a\":", "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":["] {
        assert!(Tokenizer::from_bytes(open.repeat(100_000).as_bytes(), None).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_anywhere(at: prop::sample::Index, bytes in prop::collection::vec(any::<u8>(), 0..6), cut in 0usize..40) {
        let mut json = byte_level_json().to_string().into_bytes();
        let at = at.index(json.len());
        let end = (at + cut).min(json.len());
        json.splice(at..end, bytes);
        let _ = load_and_use(&json, None);
    }
}
