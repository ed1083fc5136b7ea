//! Tokenizers from lists of tokens: the ids of the `tokenizer.json` that the lists were taken from.
#![allow(clippy::unwrap_used)]

mod data;

use data::{LEGACY, ids, path, read_json, text};
use komt_tokenize::{TokenKind, Tokenizer, Vocabulary, VocabularyModel};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// The lists of a tokenizer.json whose merges make SentencePiece's scores.
fn sentencepiece(json: &Value) -> Vocabulary {
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    let mut places = HashMap::new();
    for merge in json["model"]["merges"].as_array().unwrap() {
        let token = match merge {
            Value::Array(pair) => pair.iter().map(|part| part.as_str().unwrap()).collect(),
            pair => pair.as_str().unwrap().replace(' ', ""),
        };
        let n = places.len();
        places.entry(token).or_insert(n);
    }
    let score =
        |(id, token): (usize, &String)| -(places.get(token).copied().unwrap_or(places.len() + id) as f32);
    let scores = tokens.iter().enumerate().map(score).collect();
    let kind = |(id, token): (usize, &String)| match id {
        0 => TokenKind::Unknown,
        1 | 2 => TokenKind::Control,
        _ if token.len() == 6 && token.starts_with("<0x") => TokenKind::Byte,
        _ => TokenKind::Normal,
    };
    Vocabulary {
        kinds: tokens.iter().enumerate().map(kind).collect(),
        tokens,
        model: VocabularyModel::SentencePiece { scores, space_in_front: true },
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        pad: None,
        adds_bos: true,
        adds_eos: false,
        chat_templates: BTreeMap::new(),
    }
}

fn mistral() -> Vocabulary {
    sentencepiece(&read_json(&path("tokenizer.json")))
}

#[test]
fn sentencepiece_scores_give_the_ids_of_the_file() {
    let tokenizer = Tokenizer::from_vocabulary(&mistral()).unwrap();
    let goldens = read_json(&path("tokenizer_goldens.json"));
    for case in goldens["encode"].as_array().unwrap() {
        let (text, expected) = (text(&case["text"]), ids(&case["ids"]));
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
        assert_eq!(tokenizer.encode_plain(text).unwrap(), expected, "{text:?}");
        assert_eq!(tokenizer.decode(&expected, true).unwrap(), LEGACY.decode(&expected, true).unwrap());
    }
    for case in goldens["special_strings"].as_array().unwrap() {
        assert_eq!(tokenizer.encode(text(&case["text"])).unwrap(), ids(&case["ids_hf"]));
    }
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.unk()),
        (LEGACY.bos(), LEGACY.eos(), LEGACY.unk())
    );
    assert_eq!(tokenizer.vocab_size(), LEGACY.vocab_size());
    assert!(tokenizer.adds_bos() && !tokenizer.adds_eos());
}

#[test]
fn without_a_space_in_front() {
    let mut vocabulary = mistral();
    let VocabularyModel::SentencePiece { space_in_front, .. } = &mut vocabulary.model else { unreachable!() };
    *space_in_front = false;
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary).unwrap();
    let ids = tokenizer.encode("sea sea").unwrap();
    assert_eq!(tokenizer.token(ids[0]).unwrap(), "sea");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "sea sea");
}

fn byte_level(pre: &str, tokens: &[&str], merges: &[&str]) -> Vocabulary {
    Vocabulary {
        tokens: tokens.iter().map(ToString::to_string).collect(),
        kinds: vec![TokenKind::Normal; tokens.len()],
        model: VocabularyModel::ByteLevel {
            pre: pre.into(),
            merges: merges.iter().map(ToString::to_string).collect(),
        },
        bos: None,
        ..mistral_roles()
    }
}

fn mistral_roles() -> Vocabulary {
    Vocabulary {
        tokens: vec![],
        kinds: vec![],
        model: VocabularyModel::ByteLevel { pre: String::new(), merges: vec![] },
        bos: None,
        eos: None,
        unk: None,
        pad: None,
        adds_bos: false,
        adds_eos: false,
        chat_templates: BTreeMap::new(),
    }
}

/// Digits, by twos and threes, show how the text was cut.
#[test]
fn byte_level_pre_tokenizers_cut_as_they_are_named() {
    let tokens = ["1", "2", "12", "121", "1212", "a", "Ġ", "Ġa"];
    let merges = ["1 2", "12 1", "12 12", "Ġ a"];
    for (pre, expected) in [
        ("gpt-2", vec!["1212", "Ġa"]),
        ("default", vec!["1212", "Ġa"]),
        ("smollm", vec!["1", "2", "1", "2", "Ġa"]),
        ("starcoder", vec!["1", "2", "1", "2", "Ġa"]),
        ("llama-bpe", vec!["121", "2", "Ġa"]),
        ("llama3", vec!["121", "2", "Ġa"]),
        ("llama-v3", vec!["121", "2", "Ġa"]),
        ("tekken", vec!["1", "2", "1", "2", "Ġa"]),
    ] {
        let tokenizer = Tokenizer::from_vocabulary(&byte_level(pre, &tokens, &merges)).unwrap();
        let ids = tokenizer.encode("1212 a").unwrap();
        assert_eq!(ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect::<Vec<_>>(), expected, "{pre}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "1212 a");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let wrong = |vocabulary: &Vocabulary, expected: &str| {
        let error = Tokenizer::from_vocabulary(vocabulary).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let change = |f: &dyn Fn(&mut Vocabulary)| {
        let mut vocabulary = byte_level("gpt-2", &["a", "b", "ab"], &["a b"]);
        f(&mut vocabulary);
        vocabulary
    };
    wrong(&change(&|v| v.kinds.truncate(1)), "3 kinds of tokens");
    wrong(&change(&|v| v.tokens[1] = "a".into()), "each token once");
    wrong(&change(&|v| v.eos = Some(3)), "the EOS token");
    wrong(&byte_level("qwen2", &["a"], &[]), "expected one of gpt-2");
    wrong(&byte_level("gpt-2", &["a"], &["aa"]), "merges of two tokens");
    wrong(&byte_level("gpt-2", &["a", "b"], &["a b"]), "expected");
    wrong(&byte_level("gpt-2", &["a", ""], &[" "]), "merges of two tokens");
    let scores = |scores: Vec<f32>| VocabularyModel::SentencePiece { scores, space_in_front: true };
    wrong(&change(&|v| v.model = scores(vec![0.0])), "3 scores");
    wrong(&change(&|v| v.model = scores(vec![0.0, f32::NAN, 0.0])), "finite scores");
    wrong(
        &change(&|v| (v.tokens[0], v.model) = ("a".repeat(2000), scores(vec![0.0; 3]))),
        "1024 bytes at most",
    );
}
