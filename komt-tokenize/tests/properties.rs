//! What holds for every text and every sequence of ids.

#![allow(clippy::unwrap_used)]

mod data;

use data::{BYTE_LEVEL, LEGACY, METASPACE, stream};
use komt_tokenize::{Message, StreamDecoder, Template, TokenId, Tokenizer};
use proptest::prelude::*;

/// Text as people write it: any characters, and often those that tokenizers trip over.
fn any_text() -> impl Strategy<Value = String> {
    let awkward = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "▁",
        "<s>",
        "</s>",
        "<unk>",
        "<",
        "s>",
        "</s",
        "<0x41>",
        "안녕",
        "뷁",
        "😀",
        "e\u{301}",
        "\u{200d}",
        "a",
        "[INST]",
        "\0",
        "\u{F0000}",
    ]);
    let piece = prop_oneof![awkward.prop_map(str::to_owned), any::<String>(), "[가-힣 ]{1,6}"];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Ids with many runs of byte tokens among them.
fn any_ids() -> impl Strategy<Value = Vec<TokenId>> {
    let bytes = |text: &str| text.bytes().map(|b| 3 + u32::from(b)).collect::<Vec<_>>();
    let piece = prop_oneof![
        (0..32000u32).prop_map(|id| vec![id]),
        (3..259u32).prop_map(|id| vec![id]),
        prop::sample::select(vec![0, 1, 2, 259, 28705, 30325]).prop_map(|id| vec![id]),
        prop::sample::select(vec!["가", "é", "😀", " ", "A"]).prop_map(bytes),
        prop::sample::select(vec![
            vec![0xEA, 0xB0],
            vec![0x80],
            vec![0xF0, 0x9F, 0x98],
            vec![0xFF],
            vec![0xC0]
        ])
        .prop_map(|bytes| bytes.into_iter().map(|b: u32| 3 + b).collect()),
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

/// What [`StreamDecoder`] promises, for a whole sequence at once and the Mistral vocabulary: each run of byte tokens is
/// its good characters and a U+FFFD for each byte after them. True in the second place if that is also what the whole
/// decode gives, which makes a run wholly U+FFFD.
fn promised(tokenizer: &Tokenizer, ids: &[TokenId], skip_special: bool) -> (String, bool) {
    let is_byte = |id: TokenId| (3..259).contains(&id);
    let ids: Vec<_> = ids.iter().copied().filter(|&id| !(skip_special && tokenizer.is_special(id))).collect();
    let (mut text, mut same) = (String::new(), true);
    for run in ids.chunk_by(|&a, &b| is_byte(a) && is_byte(b)) {
        if !is_byte(run[0]) {
            text += &tokenizer.token(run[0]).unwrap().replace('▁', " ");
            continue;
        }
        let bytes: Vec<_> = run.iter().map(|&id| u8::try_from(id - 3).unwrap()).collect();
        let good = std::str::from_utf8(&bytes).map_or_else(|error| error.valid_up_to(), str::len);
        text += std::str::from_utf8(&bytes[..good]).unwrap();
        text += &"\u{FFFD}".repeat(bytes.len() - good);
        same &= good == bytes.len() || good == 0;
    }
    (text.strip_prefix(' ').map(str::to_owned).unwrap_or(text), same)
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn plain_text_comes_back(text in any_text()) {
        let spaces = text.replace('▁', " ");
        // The later layout puts no space in front of one that is there, and decoding takes one away.
        let bare = spaces.strip_prefix(' ').unwrap_or(&spaces);
        for (tokenizer, expected) in [(&*LEGACY, &*spaces), (&*METASPACE, bare), (&*BYTE_LEVEL, &*text)] {
            let ids = tokenizer.encode_plain(&text).unwrap();
            prop_assert!(!ids.iter().any(|&id| tokenizer.is_special(id)), "{ids:?}");
            prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), expected);
            prop_assert_eq!(stream(StreamDecoder::new(tokenizer), &ids).concat(), expected);
        }
    }

    #[test]
    fn plain_is_ordinary_where_nothing_is_special(text in any_text()) {
        let text = text.replace(['<', '>'], "");
        for tokenizer in [&*LEGACY, &*METASPACE, &*BYTE_LEVEL] {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(&tokenizer.encode_plain(&text).unwrap(), &ids);
            prop_assert_eq!(tokenizer.encode_with_bos(&text).unwrap(), [&[tokenizer.bos().unwrap()], &ids[..]].concat());
        }
    }

    #[test]
    fn streaming_is_what_it_promises(ids in any_ids(), print_special: bool) {
        for tokenizer in [&*LEGACY, &*METASPACE] {
            let (expected, same) = promised(tokenizer, &ids, !print_special);
            let decoder = StreamDecoder::new(tokenizer).print_special(print_special);
            let streamed = stream(decoder, &ids).concat();
            prop_assert_eq!(&streamed, &expected);
            if same {
                prop_assert_eq!(streamed, tokenizer.decode(&ids, !print_special).unwrap());
            }
        }
    }

    #[test]
    fn byte_level_streaming_is_decoding(ids in prop::collection::vec(0..260u32, 0..40), print_special: bool) {
        let decoder = StreamDecoder::new(&BYTE_LEVEL).print_special(print_special);
        prop_assert_eq!(stream(decoder, &ids).concat(), BYTE_LEVEL.decode(&ids, !print_special).unwrap());
    }

    #[test]
    fn a_stream_goes_on_anywhere(ids in any_ids(), at: prop::sample::Index) {
        let at = at.index(ids.len() + 1);
        let mut before = StreamDecoder::new(&LEGACY);
        let head: String = ids[..at].iter().map(|&id| before.push(id).unwrap()).collect();
        let after = StreamDecoder::with_context(&LEGACY, &ids[..at]).unwrap();
        prop_assert_eq!(head + &stream(after, &ids[at..]).concat(), promised(&LEGACY, &ids, true).0);
    }

    #[test]
    fn an_answer_is_what_it_adds_to_the_prompt(question in any_text(), answer in any_text()) {
        for tokenizer in [&*LEGACY, &*METASPACE, &*BYTE_LEVEL] {
            let prompt = Template::Komt.prompt_ids(tokenizer, &[Message::user(question.as_str())]).unwrap();
            let answer = tokenizer.encode_plain(&answer).unwrap();
            let said = stream(StreamDecoder::with_context(tokenizer, &prompt).unwrap(), &answer).concat();
            let whole = tokenizer.decode(&[&prompt[..], &answer].concat(), true).unwrap();
            prop_assert_eq!(tokenizer.decode(&prompt, true).unwrap() + &said, whole);
        }
    }

    #[test]
    fn contents_are_text_only(contents in prop::collection::vec(any_text(), 3)) {
        let [a, b, c] = &contents[..] else { unreachable!() };
        let messages = [Message::user(a.as_str()), Message::assistant(b.as_str()), Message::user(c.as_str())];
        let special = |tokenizer: &Tokenizer, ids: &[TokenId]| ids.iter().filter(|&&id| tokenizer.is_special(id)).count();
        for (template, expected) in [(Template::Komt, 2), (Template::MistralInstruct, 2), (Template::KomtHeading, 4)] {
            for tokenizer in [&*LEGACY, &*METASPACE, &*BYTE_LEVEL] {
                let ids = template.prompt_ids(tokenizer, &messages).unwrap();
                prop_assert_eq!(special(tokenizer, &ids), expected);
                prop_assert_eq!(Some(ids[0]), tokenizer.bos());
                prop_assert!(ids.ends_with(&template.next_turn_ids(tokenizer, &messages).unwrap()));
                if !["<s>", "</s>", "<unk>"].iter().any(|s| contents.concat().contains(s)) {
                    let text = template.render(&messages, tokenizer).unwrap();
                    prop_assert_eq!(ids, tokenizer.encode_with_bos(&text).unwrap());
                }
            }
        }
    }
}

/// Some models look whole words up before they merge. Special tokens that lie in their vocabulary must not be found so.
#[test]
fn plain_text_of_a_model_that_looks_words_up() {
    let mut json = data::byte_level_json();
    json["model"]["ignore_merges"] = true.into();
    json["pre_tokenizer"]["use_regex"] = false.into();
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes(), None).unwrap();
    assert_eq!(tokenizer.encode("</s>").unwrap(), [1]);
    assert_eq!(tokenizer.encode_plain("</s>").unwrap(), b"</s>".map(|b| 2 + u32::from(b)));
}

/// The cost of an id does not grow with the text: no more is held back than one character.
#[test]
fn nothing_waits_longer_than_a_character() {
    let mut decoder = StreamDecoder::new(&LEGACY);
    let mut printed = 0;
    for (i, byte) in "뷁".repeat(20_000).bytes().enumerate() {
        printed += decoder.push(3 + u32::from(byte)).unwrap().len();
        assert_eq!(printed, (i + 1) / 3 * 3);
    }
}

#[test]
fn an_unknown_id_changes_nothing() {
    let mut decoder = StreamDecoder::new(&LEGACY);
    assert_eq!(decoder.push(3 + 0xEA).unwrap(), "");
    let error = decoder.push(32000).unwrap_err().to_string();
    assert!(error.contains("32000") && error.contains("below 32000"), "{error}");
    assert_eq!(decoder.push(3 + 0xB0).unwrap() + &decoder.push(3 + 0x80).unwrap(), "가");
    assert!(LEGACY.decode(&[1, u32::MAX], true).is_err());
}

#[test]
fn threads_share_a_tokenizer() {
    let text = "안녕하세요 </s> 뷁";
    let expected = (LEGACY.encode(text).unwrap(), LEGACY.encode_plain(text).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!((LEGACY.encode(text).unwrap(), LEGACY.encode_plain(text).unwrap()), expected);
                }
            });
        }
    });
}
