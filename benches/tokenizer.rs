//! Text to ids and back, with the demo model's tokenizer and, where `KOMT_FIXTURES` is set, the real one of Mistral v1.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use komt_tokenize::{Message, StreamDecoder, Template, Tokenizer};
use std::path::{Path, PathBuf};

const TEXT: &str = "제주도는 한국에서 가장 큰 섬입니다. 첫째 날에는 아침 일찍 공항에 도착해서 동쪽 바다를 따라 걷고, \
    점심에는 시장에서 따뜻한 국수를 먹습니다. 오후에는 오름에 올라 노을을 보고 작은 숙소에서 쉽니다. \
    둘째 날에는 숲길을 산책한 다음 박물관 한 곳을 들르고, 저녁 비행기로 돌아옵니다. 비가 오면 순서를 바꾸세요.\n";

/// Names and tokenizers.
fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model");
    let fixtures = std::env::var_os("KOMT_FIXTURES").map(PathBuf::from);
    let real = fixtures.map(|dir| dir.join("mistral_v1_tokenizer")).filter(|dir| dir.exists());
    let dirs = [("demo", Some(demo)), ("mistral-v1", real)];
    dirs.into_iter().filter_map(|(name, dir)| Some((name, Tokenizer::from_dir(&dir?).unwrap()))).collect()
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for (name, tokenizer) in tokenizers() {
        for (size, text) in [("line", TEXT.to_owned()), ("64 lines", TEXT.repeat(64))] {
            group.throughput(Throughput::BytesDecimal(text.len() as u64));
            group.bench_function(format!("{name}/{size}"), |b| b.iter(|| tokenizer.encode(&text).unwrap()));
        }
    }
}

/// A stream as a session has it, token by token.
fn stream(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream");
    for (name, tokenizer) in tokenizers() {
        let ids = tokenizer.encode(TEXT).unwrap();
        let decode = || {
            let mut stream = StreamDecoder::new(&tokenizer);
            let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            text += &stream.finish();
            text
        };
        assert_eq!(decode().trim_start(), TEXT);
        group.throughput(Throughput::Elements(ids.len() as u64));
        group.bench_function(name, |b| b.iter(decode));
    }
}

/// A conversation of three messages to ids.
fn prompt_ids(c: &mut Criterion) {
    let mut group = c.benchmark_group("prompt_ids");
    let messages =
        [Message::user(TEXT), Message::assistant(TEXT), Message::user("고마워요. 하루만 있다면요?")];
    let bytes: usize = messages.iter().map(|m| m.content.len()).sum();
    group.throughput(Throughput::BytesDecimal(bytes as u64));
    for (name, tokenizer) in tokenizers() {
        for template in ["komt", "mistral", "jinja"] {
            let form = Template::from_name(template).unwrap();
            if template == "jinja" && tokenizer.chat_template().is_none() {
                continue;
            }
            group.bench_function(format!("{name}/{template}"), |b| {
                b.iter(|| form.prompt_ids(&tokenizer, &messages).unwrap());
            });
        }
    }
}

criterion_group!(benches, encode, stream, prompt_ids);
criterion_main!(benches);
