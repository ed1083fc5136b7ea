//! The model of a directory from a file made of it; hostile files.

mod block_types;
mod writer;

use super::*;
use crate::{LoadOptions, Model, Scorer};
use komt_kernels::{Cpu, CpuOptions};
use proptest::prelude::*;
use writer::{File, array, f32, flag, text, texts, u32};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn load(path: &Path) -> Result<Model> {
    Model::load_on(Cpu::with(CpuOptions::default().threads(1))?, path, LoadOptions::default())
}

fn logits(model: &Model, ids: &[u32]) -> Vec<u32> {
    let mut logits = vec![];
    let scorer = Scorer::new(model, Some(ids.len())).unwrap();
    scorer.each_logits(ids.to_vec(), |_, row| logits.extend(row.iter().map(|x| x.to_bits()))).unwrap();
    logits
}

fn written(file: &File) -> tempfile::NamedTempFile {
    let out = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(out.path(), file.bytes()).unwrap();
    out
}

#[test]
fn logits_are_those_of_the_directory() {
    for name in
        ["demo-model", "testdata/models/head64", "testdata/models/head64_f16", "testdata/models/llama_tiny"]
    {
        let dir = root().join(name);
        let file = written(&File::of_directory(&dir));
        let (a, b) = (load(&dir).unwrap(), load(file.path()).unwrap());
        let without_eos = |model: &Model| {
            let mut config = model.config().clone();
            config.eos.clear();
            config
        };
        assert_eq!(without_eos(&a), without_eos(&b), "{name}");
        let ids: Vec<u32> = (0..150).map(|i| 3 + i * 7 % (a.config().vocab_size as u32 - 3)).collect();
        let ids = &ids[..150.min(a.config().max_context)];
        assert!(logits(&a, ids) == logits(&b, ids), "{name}: logits");
    }
}

#[test]
fn text_is_that_of_the_directory() {
    let dir = root().join("demo-model");
    let file = written(&File::of_directory(&dir));
    let (a, b) = (load(&dir).unwrap(), load(file.path()).unwrap());
    let (a, b) = (a.tokenizer().unwrap(), b.tokenizer().unwrap());
    for text in ["바다는 무엇인가요?", "[INST]산이 높아요 [/INST]</s>", " two  spaces\n\t한글 é 🌊 <s>x", ""]
    {
        let ids = a.encode(text).unwrap();
        assert_eq!(b.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(b.decode(&ids, false).unwrap(), a.decode(&ids, false).unwrap());
    }
    assert_eq!((a.bos(), a.eos(), a.unk(), a.adds_bos()), (b.bos(), b.eos(), b.unk(), b.adds_bos()));
}

/// The whole way: mapped from a file, with its tokenizer, and every matrix read.
fn load_bytes(bytes: &[u8]) -> Result<Model> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    load(file.path())
}

/// What opening a file with these bytes says, all but the weights.
fn open_bytes(bytes: &[u8]) -> Result<()> {
    let path = Path::new("x.gguf");
    let header = Header::parse(path, bytes)?;
    config::config(path, &header)?;
    vocabulary::tokenizer(path, &header, bytes)?;
    Ok(())
}

/// The message for the tiny file with a change.
fn message(change: impl FnOnce(&mut File)) -> String {
    let mut file = File::tiny();
    change(&mut file);
    open_bytes(&file.bytes()).map_or_else(|error| error.to_string(), |()| "nothing is wrong".into())
}

#[test]
fn the_tiny_file_is_right_in_both_versions() {
    assert_eq!(message(|_| ()), "nothing is wrong");
    assert_eq!(message(|file| file.version = 2), "nothing is wrong");
    assert_eq!(message(|file| file.set("tokenizer.ggml.model", text("no_vocab"))), "nothing is wrong");
    let file = written(&File::tiny());
    assert_eq!(load(file.path()).unwrap().config().vocab_size, 4);
}

#[test]
fn the_byte_level_file_is_right() {
    let model = load_bytes(&File::byte_level().bytes()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.encode("abb<|end|>").unwrap(), [3, 2, 0]);
    assert_eq!((model.eos(), tokenizer.bos()), (&[0][..], None));
    let wrong = |change: &dyn Fn(&mut File)| {
        let mut file = File::byte_level();
        change(&mut file);
        load_bytes(&file.bytes()).unwrap_err().to_string()
    };
    let (merges, gate) = ("tokenizer.ggml.merges", "blk.0.ffn_gate.weight");
    for (message, expected) in [
        (wrong(&|file| file.set(merges, u32(1))), "tokenizer.ggml.merges: expected an array"),
        (wrong(&|file| file.set(merges, array(4, 1, &[0; 4]))), "expected an array of texts"),
        (wrong(&|file| file.set(merges, texts(&["ab"]))), "merges of two tokens"),
        (wrong(&|file| file.set(merges, texts(&["a c"]))), "tokenizer: expected"),
        (wrong(&|file| file.set("tokenizer.ggml.eos_token_id", u32(4))), "the EOS token"),
        // A scale that is infinite.
        (wrong(&|file| file.tensor(gate).bytes[1] = 0x7c), "gate_proj.weight`: weight [0, 0] is inf"),
    ] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

type Damage = Box<dyn FnOnce(&mut File)>;

#[test]
fn damaged_containers_are_named() {
    let second = "blk.0.attn_norm.weight";
    let cases: Vec<(Damage, &str)> = vec![
        (Box::new(|f| f.version = 1), "version: expected 2 or 3, found 1"),
        (Box::new(|f| f.version = 3 << 24), "a big-endian file"),
        (Box::new(|f| f.n_tensors = Some(u64::MAX)), "number of tensors: expected"),
        (Box::new(|f| f.n_keys = Some(1 << 40)), "number of keys: expected"),
        (Box::new(|f| f.n_keys = Some(500)), "expected"),
        (Box::new(|f| f.keys.push(f.keys[0].clone())), "each key once"),
        (Box::new(|f| f.keys.push((String::new(), u32(1)))), "expected a name"),
        (Box::new(|f| f.set("x", 13u32.to_le_bytes().to_vec())), "a type of 0..=12"),
        (Box::new(|f| f.set("x", array(9, 0, &[]))), "an array of numbers or texts"),
        (Box::new(|f| f.set("x", array(4, 1 << 40, &[]))), "as the file ends"),
        (Box::new(|f| f.set("x", array(8, 1, &[255; 8]))), "the file ends"),
        (Box::new(|f| f.set("x", [7, 0, 0, 0, 2].into())), "a bool of 0 or 1"),
        (Box::new(|f| f.set("general.alignment", u32(48))), "a power of two"),
        (Box::new(|f| f.set("general.alignment", u32(0))), "a power of two"),
        (Box::new(|f| f.tensors.push(f.tensors[0].clone())), "each tensor once"),
        (Box::new(move |f| f.tensor(second).shape = vec![1; 5]), "1 to 4 dimensions"),
        (Box::new(move |f| f.tensor(second).shape = vec![]), "1 to 4 dimensions"),
        (Box::new(move |f| f.tensor(second).shape = vec![0]), "dimensions in 1..2^31"),
        (Box::new(move |f| f.tensor(second).shape = vec![1 << 30; 4]), "bytes within the file"),
        (Box::new(move |f| f.tensor(second).shape = vec![1 << 30]), "a file of"),
        (Box::new(move |f| f.tensor(second).kind = 10), "element type Q2_K, expected F32"),
        (Box::new(move |f| f.tensor(second).kind = 12), "rows of a multiple of 256"),
        (Box::new(move |f| f.tensor(second).offset = Some(4)), "a multiple of 32"),
        (Box::new(move |f| f.tensor(second).offset = Some(u64::MAX - 31)), "bytes within the file"),
        (Box::new(move |f| f.tensor(second).offset = Some(0)), "behind"),
        (Box::new(move |f| f.tensor(second).offset = Some(1 << 40)), "a file of"),
    ];
    for (change, expected) in cases {
        let message = message(change);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn what_is_missing_or_not_computed_is_named() {
    let without = |key: &'static str| move |file: &mut File| file.keys.retain(|(name, _)| name != key);
    for key in ["llama.block_count", "llama.embedding_length", "llama.attention.layer_norm_rms_epsilon"] {
        let message = message(without(key));
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
    assert!(message(without("tokenizer.ggml.scores")).contains("tokenizer.ggml.scores"));
    for (key, value) in [
        ("general.architecture", text("qwen2")),
        ("llama.block_count", u32(1000)),
        ("llama.block_count", text("1")),
        ("llama.attention.head_count", array(4, 1, &[1, 0, 0, 0])),
        ("llama.attention.head_count_kv", u32(3)),
        ("llama.attention.key_length", u32(7)),
        ("llama.attention.value_length", u32(8)),
        ("llama.rope.dimension_count", u32(8)),
        ("llama.rope.freq_base", f32(f32::NAN)),
        ("llama.rope.scaling.type", text("yarn")),
        ("llama.rope.scaling.factor", f32(4.0)),
        ("llama.expert_count", u32(8)),
        ("llama.attention.causal", flag(false)),
        ("split.count", u32(3)),
        ("tokenizer.ggml.model", text("t5")),
        ("tokenizer.ggml.tokens", u32(3)),
        ("tokenizer.ggml.eos_token_id", text("</s>")),
        ("tokenizer.ggml.add_bos_token", u32(1)),
        ("tokenizer.ggml.remove_extra_whitespaces", flag(true)),
        ("tokenizer.ggml.token_type", array(5, 4, &[9; 16])),
    ] {
        let message = message(|file| file.set(key, value));
        assert!(message.contains(key), "{key}: {message}");
    }
    let message = message(|file| {
        file.set("tokenizer.ggml.model", text("gpt2"));
        file.set("tokenizer.ggml.pre", text("qwen2"));
        file.set("tokenizer.ggml.merges", texts(&[]));
    });
    assert!(message.contains("tokenizer.ggml.pre: expected one of gpt-2"), "{message}");
}

#[test]
fn tensors_that_nothing_computes_are_named() {
    for name in ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.0.ffn_gate_inp.weight"] {
        let mut file = File::tiny();
        file.tensors.push(writer::Tensor { name: name.into(), ..file.tensors[1].clone() });
        let error = load(written(&file).path()).unwrap_err();
        assert!(matches!(&error, Error::Tensors { unknown, .. } if unknown == &[name]), "{error}");
    }
    let mut file = File::tiny();
    file.tensors.push(writer::Tensor { name: "model.norm.weight".into(), ..file.tensors[1].clone() });
    assert!(load(written(&file).path()).unwrap_err().to_string().contains("it under both names"));
}

/// Cut anywhere, a file is an error and nothing worse. (Behind the last number there is only padding.)
#[test]
fn truncated_files_are_errors() {
    for bytes in [File::tiny().bytes(), File::byte_level().bytes()] {
        for len in 0..bytes.len() {
            assert!(open_bytes(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
        }
        // From a file, too, at some of the lengths: an empty one, and parts of everything that is in it.
        for len in (0..bytes.len()).step_by(17) {
            assert!(load_bytes(&bytes[..len]).is_err(), "{len} of {} bytes, from a file", bytes.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever bytes of the header are changed to: a model or an error, no panic.
    #[test]
    fn changed_bytes_never_panic(
        changes in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 1..8),
        is_byte_level in any::<bool>(),
    ) {
        let file = if is_byte_level { File::byte_level() } else { File::tiny() };
        let mut bytes = file.bytes();
        let header = bytes.len() - file.tensors.iter().map(|tensor| tensor.bytes.len()).sum::<usize>();
        for (at, byte) in changes {
            bytes[(at * header as f64) as usize] = byte;
        }
        let _ = load_bytes(&bytes);
    }
}
