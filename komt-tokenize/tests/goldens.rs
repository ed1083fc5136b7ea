//! Every case of tokenizer_goldens.json that is about text and ids, in both layouts.

#![allow(clippy::unwrap_used)]

mod data;

use data::{LEGACY, ids, metaspaces, path, read_json, stream, text};
use komt_tokenize::StreamDecoder;
use serde_json::Value;

fn cases(kind: &str) -> Vec<Value> {
    let goldens = read_json(&path("tokenizer_goldens.json"));
    let cases = goldens[kind].as_array().unwrap().clone();
    println!("{kind}: {} cases", cases.len());
    cases
}

#[test]
fn encode() {
    let cases = cases("encode");
    assert_eq!(cases.len(), 311);
    for case in &cases {
        let (text, expected) = (text(&case["text"]), ids(&case["ids"]));
        assert_eq!(LEGACY.encode(text).unwrap(), expected, "{text:?}");
        assert_eq!(LEGACY.encode_plain(text).unwrap(), expected, "{text:?}");
        assert_eq!(LEGACY.encode_with_bos(text).unwrap(), [&[1], &expected[..]].concat(), "{text:?}");
        assert_eq!(LEGACY.decode(&expected, true).unwrap(), case["decoded"].as_str().unwrap_or(text));
        assert_eq!(
            stream(StreamDecoder::new(&LEGACY), &expected).concat(),
            LEGACY.decode(&expected, true).unwrap()
        );
    }
    for metaspace in metaspaces() {
        for case in &cases {
            let text = text(&case["text"]);
            let expected = ids(case.get("metaspace_ids").unwrap_or(&case["ids"]));
            assert_eq!(metaspace.encode(text).unwrap(), expected, "{text:?}");
            assert_eq!(metaspace.encode_plain(text).unwrap(), expected, "{text:?}");
            assert_eq!(metaspace.encode_with_bos(text).unwrap(), [&[1], &expected[..]].concat(), "{text:?}");
        }
    }
}

/// In `encode` a spelling is the token, as in Hugging Face's library; in `encode_plain` it is text, as in SentencePiece.
/// Only where Hugging Face puts a second BOS (`ids_hf_with_bos`) do we differ on purpose.
#[test]
fn special_spellings() {
    let cases = cases("special_strings");
    for case in &cases {
        let text = text(&case["text"]);
        let expected = ids(&case["ids_hf"]);
        assert_eq!(LEGACY.encode(text).unwrap(), expected, "{text:?}");
        let doubled = ids(&case["ids_hf_with_bos"]);
        let with_bos = if doubled.starts_with(&[1, 1]) { &doubled[1..] } else { &doubled[..] };
        assert_eq!(LEGACY.encode_with_bos(text).unwrap(), with_bos, "{text:?}");
        let plain = LEGACY.encode_plain(text).unwrap();
        assert_eq!(plain, ids(&case["ids_sentencepiece_plain_text"]), "{text:?}");
        assert_eq!(LEGACY.decode(&plain, true).unwrap(), text);
    }
    for metaspace in metaspaces() {
        for case in &cases {
            let text = text(&case["text"]);
            assert_eq!(metaspace.encode(text).unwrap(), ids(&case["ids_hf_metaspace"]), "{text:?}");
            let plain = metaspace.encode_plain(text).unwrap();
            assert!(plain.iter().all(|&id| !metaspace.is_special(id)), "{text:?}: {plain:?}");
            assert_eq!(metaspace.decode(&plain, false).unwrap(), text);
        }
    }
}

#[test]
fn decode() {
    for case in cases("decode") {
        let ids = ids(&case["ids"]);
        let (skipped, kept) = (text(&case["hf_skip_special"]), text(&case["hf_keep_special"]));
        for tokenizer in metaspaces().iter().chain([&*LEGACY]) {
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), skipped, "{ids:?}");
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), kept, "{ids:?}");
            assert_eq!(stream(StreamDecoder::new(tokenizer), &ids).concat(), skipped, "{ids:?}");
            let printing = StreamDecoder::new(tokenizer).print_special(true);
            assert_eq!(stream(printing, &ids).concat(), kept, "{ids:?}");
        }
    }
}

/// Piece by piece what Hugging Face's `DecodeStream` gives, and the tail that it forgets.
#[test]
fn streams() {
    for case in cases("stream") {
        let ids = ids(&case["ids"]);
        let expected: Vec<_> =
            case["chunks"].as_array().unwrap().iter().map(|chunk| chunk.as_str().unwrap_or("")).collect();
        let pieces = stream(StreamDecoder::new(&LEGACY), &ids);
        assert_eq!(pieces[..ids.len()], expected);
        assert_eq!(pieces[..ids.len()].concat(), text(&case["joined"]));
        assert_eq!(pieces.concat(), text(&case["full_decode"]));
    }
}

/// Byte-level BPE: SmolLM2's texts. A token may end inside a character and carry whole ones in front of it; we give
/// those at once, Hugging Face's stream waits, so ours is never behind.
#[test]
fn smollm2() {
    let Some(tokenizer) = data::smollm2() else { return };
    let goldens = read_json(&path("template_goldens.json"));
    let cases: Vec<_> =
        goldens["smollm2"].as_array().unwrap().iter().filter(|c| c["chunks"].is_array()).collect();
    println!("smollm2: {} cases", cases.len());
    assert!(!cases.is_empty());
    for case in cases {
        let expected = ids(&case["ids"]);
        assert_eq!(tokenizer.encode(text(&case["text"])).unwrap(), expected);
        assert_eq!(tokenizer.decode(&expected, true).unwrap(), text(&case["decoded"]));
        let pieces = stream(StreamDecoder::new(&tokenizer), &expected);
        assert_eq!(pieces.concat(), text(&case["decoded"]));
        for n in 1..=expected.len() {
            let chunks = case["chunks"].as_array().unwrap()[..n].iter();
            let theirs: String = chunks.map(|chunk| chunk.as_str().unwrap_or("")).collect();
            assert!(pieces[..n].concat().starts_with(&theirs));
        }
    }
    assert!(!tokenizer.adds_bos());
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert_eq!(
        [tokenizer.bos(), tokenizer.eos(), tokenizer.unk(), tokenizer.pad()],
        [Some(1), Some(2), Some(0), Some(2)]
    );
}

#[test]
fn what_the_files_say() {
    for tokenizer in metaspaces().iter().chain([&*LEGACY]) {
        assert_eq!(tokenizer.vocab_size(), 32000);
        assert_eq!(
            [tokenizer.bos(), tokenizer.eos(), tokenizer.unk(), tokenizer.pad()],
            [Some(1), Some(2), Some(0), None]
        );
        assert!(tokenizer.adds_bos() && !tokenizer.adds_eos());
        assert_eq!(tokenizer.token(2).as_deref(), Some("</s>"));
        assert_eq!(tokenizer.id_of("<0xEA>"), Some(237));
        assert_eq!(tokenizer.token(32000), None);
        assert!(tokenizer.is_special(0) && !tokenizer.is_special(3));
    }
}
