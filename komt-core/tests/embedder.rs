//! Embeddings: independent of the texts beside them, of order, chunks and threads; instruction, EOS, dimensions.
#![allow(clippy::unwrap_used)]

mod support;

use komt_core::{EmbedOptions, Embedder, Isa, Model, Pooling};
use support::*;

fn model() -> Model {
    load(&demo(), Isa::detect())
}

const TEXTS: [&str; 6] = [
    "제주도",
    "A short text.",
    "바다를 보러 강릉에 갔다가 커피를 마시고 돌아왔습니다. 다음에는 속초에도 가 보고 싶습니다.",
    "x",
    "The quick brown fox jumps over the lazy dog, again and again, until the window has passed it by.",
    "비",
];

#[test]
fn a_vector_does_not_depend_on_the_batch() {
    let model = model();
    for pooling in [Pooling::Last, Pooling::Mean, Pooling::WeightedMean, Pooling::None] {
        let embedder = Embedder::new(&model, EmbedOptions::default().pooling(pooling)).unwrap();
        let together = embedder.embed(&TEXTS).unwrap();
        let reversed: Vec<_> = TEXTS.iter().rev().collect();
        let mut backwards = embedder.embed(&reversed).unwrap();
        backwards.reverse();
        assert_eq!(together, backwards, "{pooling:?}");
        // Steps of 16 tokens cut texts anywhere.
        let small =
            Embedder::new(&model, EmbedOptions::default().pooling(pooling).max_step_tokens(16)).unwrap();
        assert_eq!(together, small.embed(&TEXTS).unwrap(), "{pooling:?}");
        for (text, vector) in TEXTS.iter().zip(&together) {
            assert_eq!(&embedder.embed(&[text]).unwrap()[0], vector, "{pooling:?} {text}");
        }
    }
}

#[test]
fn many_texts_and_many_threads() {
    let model = model();
    let embedder =
        Embedder::new(&model, EmbedOptions::default().pooling(Pooling::Mean).max_step_tokens(100)).unwrap();
    let texts: Vec<String> = (0..300).map(|i| format!("{i} {}", TEXTS[i % 6].repeat(1 + i % 4))).collect();
    let all = embedder.embed(&texts).unwrap();
    std::thread::scope(|scope| {
        for part in texts.chunks(75).zip(all.chunks(75)) {
            let embedder = &embedder;
            scope.spawn(move || assert_eq!(embedder.embed(part.0).unwrap(), part.1));
        }
    });
}

#[test]
fn instruction_eos_dimensions_and_length() {
    let model = model();
    let tokenizer = model.tokenizer().unwrap();
    let make = |options: EmbedOptions| Embedder::new(&model, options).unwrap();
    let plain = EmbedOptions::default().pooling(Pooling::Mean).normalize(false);
    let (instruction, text) = ("Query: ", "바다");
    let ids = tokenizer.encode_with_bos(&format!("{instruction}{text}")).unwrap();
    let prefix = tokenizer.encode_with_bos(instruction).unwrap();
    let n_prefix = ids.iter().zip(&prefix).take_while(|(a, b)| a == b).count();
    assert!(n_prefix > 1);

    let with = make(plain).embed_with(instruction, &[text]).unwrap();
    assert_eq!(with, make(plain).embed_ids(std::slice::from_ref(&ids), &[0]).unwrap());
    let without = make(plain.exclude_instruction(true)).embed_with(instruction, &[text]).unwrap();
    assert_eq!(without, make(plain).embed_ids(std::slice::from_ref(&ids), &[n_prefix]).unwrap());
    assert_ne!(with, without);

    let eos = [ids.clone(), vec![model.eos()[0]]].concat();
    assert_eq!(
        make(plain.eos(true)).embed_with(instruction, &[text]).unwrap(),
        make(plain).embed_ids(&[eos], &[0]).unwrap()
    );
    let no_bos = make(plain.bos(false)).embed_with(instruction, &[text]).unwrap();
    assert_eq!(no_bos, make(plain).embed_ids(&[ids[1..].to_vec()], &[0]).unwrap());

    let short = make(plain.dimensions(10)).embed_with(instruction, &[text]).unwrap();
    assert_eq!(short[0], with[0][..10]);
    let unit = make(plain.dimensions(10).normalize(true)).embed_with(instruction, &[text]).unwrap();
    let length = with[0][..10].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(unit[0].iter().zip(&with[0]).all(|(u, w)| (u - w / length).abs() < 1e-6));

    // What a text says of control tokens is text.
    let said = make(plain.pooling(Pooling::None)).embed(&["</s>"]).unwrap();
    assert!(said[0].len() > 2 * model.config().dim);
}

/// The weights of the mean are 1, 2, 3 ...: held against the token vectors themselves.
#[test]
fn weighted_mean_by_hand() {
    let model = model();
    let ids = vec![1, 300, 400, 500];
    let rows = embed(&model, &ids, Pooling::None, 0, false);
    let dim = model.config().dim;
    for n_excluded in [0, 2] {
        let got = embed(&model, &ids, Pooling::WeightedMean, n_excluded, false);
        let total: usize = (n_excluded + 1..=4).sum();
        for c in 0..dim {
            let expected: f32 =
                (n_excluded..4).map(|r| (r + 1) as f32 * rows[r * dim + c]).sum::<f32>() / total as f32;
            assert!((got[c] - expected).abs() < 1e-5);
        }
    }
}
