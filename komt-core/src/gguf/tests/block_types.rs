//! Files of blocks against directories of the numbers that the blocks decode to: decoding itself has goldens, so what is left is
//! everything around it: offsets, row lengths, the order of rows, and types that differ within a file.

use super::logits;
use super::writer::{File, Tensor, u32};
use crate::gguf::blocks::ElementKind;
use crate::{Cpu, CpuOptions, LoadOptions, Model, Precision, Weights};
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::path::Path;

/// A small Mistral. Rows are of multiples of 256 columns, as the longest blocks; no two widths are equal.
const DIM: usize = 256;
const HIDDEN_DIM: usize = 768;
const HEAD_DIM: usize = 64;
const N_HEADS: usize = 8;
const N_KV_HEADS: usize = 2;
const VOCAB_SIZE: usize = 96;
const N_LAYERS: usize = 2;
const WINDOW: usize = 8;

/// ggml's name and Hugging Face's, rows and columns.
const OF_LAYER: [(&str, &str, usize, usize); 7] = [
    ("attn_q", "self_attn.q_proj", N_HEADS * HEAD_DIM, DIM),
    ("attn_k", "self_attn.k_proj", N_KV_HEADS * HEAD_DIM, DIM),
    ("attn_v", "self_attn.v_proj", N_KV_HEADS * HEAD_DIM, DIM),
    ("attn_output", "self_attn.o_proj", DIM, N_HEADS * HEAD_DIM),
    ("ffn_gate", "mlp.gate_proj", HIDDEN_DIM, DIM),
    ("ffn_up", "mlp.up_proj", HIDDEN_DIM, DIM),
    ("ffn_down", "mlp.down_proj", DIM, HIDDEN_DIM),
];

/// ggml's numbers of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K.
const BLOCK_TYPES: [u32; 8] = [2, 3, 6, 7, 8, 12, 13, 14];
const Q4_K: u32 = 12;
const Q6_K: u32 = 14;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0.5..1.5.
    fn about_one(&mut self) -> f32 {
        0.5 + (self.draw() >> 40) as f32 / (1 << 24) as f32
    }

    /// An f16 of about this size and of either sign.
    fn scale(&mut self, size: f32) -> [u8; 2] {
        let sign = if self.draw() & 1 == 0 { 1.0 } else { -1.0 };
        f16::from_f32(sign * size * self.about_one()).to_le_bytes()
    }
}

/// Where a block has its f16 numbers, and about how large they are where weights are 0.05. Any other byte may have any value.
fn scales(kind: ElementKind) -> &'static [(usize, f32)] {
    match kind {
        ElementKind::Q4_0 => &[(0, 8e-3)],
        ElementKind::Q4_1 => &[(0, 8e-3), (2, 6e-2)],
        ElementKind::Q5_0 => &[(0, 4e-3)],
        ElementKind::Q5_1 => &[(0, 4e-3), (2, 6e-2)],
        ElementKind::Q8_0 => &[(0, 5e-4)],
        ElementKind::Q4_K | ElementKind::Q5_K => &[(0, 1e-4), (2, 1e-3)],
        ElementKind::Q6_K => &[(208, 2e-5)],
        plain => panic!("{plain:?} has no blocks"),
    }
}

/// Random blocks of `n` numbers.
fn blocks(kind: ElementKind, n: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..n / kind.block_len() * kind.block_bytes()).map(|_| random.draw() as u8).collect();
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        for &(at, size) in scales(kind) {
            block[at..at + 2].copy_from_slice(&random.scale(size));
        }
    }
    bytes
}

/// Rows of heads in Hugging Face's order. In a file the halves of a head alternate: its even rows are the first half.
fn halves_apart(numbers: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(numbers.len());
    for head in numbers.chunks_exact(HEAD_DIM * DIM) {
        for first in [0, 1] {
            head.chunks_exact(DIM).skip(first).step_by(2).for_each(|row| out.extend_from_slice(row));
        }
    }
    out
}

/// The same model as a GGUF file and as a directory in f32.
struct Pair {
    file: File,
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
    random: Random,
}

impl Pair {
    /// With matrices of the types that `kind` says, by ggml's names.
    fn new(mut kind: impl FnMut(&str) -> u32) -> Self {
        let mut pair = Self { file: File::tiny(), tensors: vec![], random: Random(0) };
        pair.set_keys();
        pair.norm("output_norm".into(), "model.norm".into());
        for i in 0..N_LAYERS {
            let names =
                |own: &str, theirs: &str| (format!("blk.{i}.{own}"), format!("model.layers.{i}.{theirs}"));
            for (own, theirs) in [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")]
            {
                let (own, theirs) = names(own, theirs);
                pair.norm(own, theirs);
            }
            for (own, theirs, rows, cols) in OF_LAYER {
                let (own, theirs) = names(own, theirs);
                let kind = kind(&own);
                pair.matrix(own, theirs, [rows, cols], kind);
            }
        }
        for (own, theirs) in [("token_embd", "model.embed_tokens"), ("output", "lm_head")] {
            pair.matrix(own.into(), theirs.into(), [VOCAB_SIZE, DIM], kind(own));
        }
        pair
    }

    /// In place of the tiny model's.
    fn set_keys(&mut self) {
        self.file.tensors.clear();
        self.file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
        for (name, n) in [
            ("embedding_length", DIM),
            ("block_count", N_LAYERS),
            ("feed_forward_length", HIDDEN_DIM),
            ("attention.head_count", N_HEADS),
            ("attention.head_count_kv", N_KV_HEADS),
            ("attention.key_length", HEAD_DIM),
            ("attention.sliding_window", WINDOW),
        ] {
            self.file.set(&format!("llama.{name}"), u32(n as u32));
        }
    }

    fn norm(&mut self, own: String, theirs: String) {
        let bytes: Vec<u8> = (0..DIM).flat_map(|_| self.random.about_one().to_le_bytes()).collect();
        self.push(own, vec![DIM], 0, bytes.clone());
        self.tensors.push((format!("{theirs}.weight"), vec![DIM], bytes));
    }

    fn matrix(&mut self, own: String, theirs: String, shape: [usize; 2], number: u32) {
        let kind = ElementKind::of_number(number).unwrap();
        let n = shape[0] * shape[1];
        let bytes = blocks(kind, n, &mut self.random);
        let mut numbers = vec![0.0; n];
        kind.decode(&bytes, &mut numbers);
        if own.ends_with("attn_q") || own.ends_with("attn_k") {
            numbers = halves_apart(&numbers);
        }
        self.push(own, shape.into(), number, bytes);
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.tensors.push((format!("{theirs}.weight"), shape.into(), bytes));
    }

    fn push(&mut self, own: String, shape: Vec<usize>, kind: u32, bytes: Vec<u8>) {
        let shape = shape.iter().map(|&dim| dim as u64).collect();
        self.file.tensors.push(Tensor { name: format!("{own}.weight"), shape, kind, bytes, offset: None });
    }

    fn directory(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({
            "architectures": ["MistralForCausalLM"],
            "hidden_size": DIM,
            "intermediate_size": HIDDEN_DIM,
            "num_hidden_layers": N_LAYERS,
            "num_attention_heads": N_HEADS,
            "num_key_value_heads": N_KV_HEADS,
            "head_dim": HEAD_DIM,
            "vocab_size": VOCAB_SIZE,
            "sliding_window": WINDOW,
            "max_position_embeddings": 64,
            "rope_theta": 10_000.0,
            "rms_norm_eps": 1e-5,
        });
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let views = self
            .tensors
            .iter()
            .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors")).unwrap();
        dir
    }

    /// Both give the same logits, every bit of them.
    fn check(&self, what: &str) {
        let (file, dir) = (super::written(&self.file), self.directory());
        let ids: Vec<u32> = (0..2 * WINDOW as u32 + 5).map(|i| i * 37 % VOCAB_SIZE as u32).collect();
        let of = |path: &Path, weights| {
            let model = load(path, weights);
            (logits(&model, &ids), model.config().clone())
        };
        for weights in [Weights::Q8, Weights::Bf16] {
            let (a, b) = (of(file.path(), weights), of(dir.path(), weights));
            assert_eq!(a.1, b.1, "{what}");
            assert!(a.0 == b.0, "{what} in {}: logits", weights.name());
            let numbers = || a.0.iter().map(|&bits| f32::from_bits(bits));
            let largest = numbers().fold(0.0, |largest: f32, x| largest.max(x.abs()));
            assert!(numbers().all(f32::is_finite) && largest > 0.1, "{what}: {largest} shows something");
        }
        // What there are no kernels for is stored as q8.
        let (stored, q8) = (of(file.path(), Weights::Stored), of(dir.path(), Weights::Q8));
        assert!(stored == q8, "{what}, as stored");
    }
}

fn load(path: &Path, weights: Weights) -> Model {
    let cpu = CpuOptions::default().threads(2).precision(Precision::Exact);
    Model::load_on(Cpu::with(cpu).unwrap(), path, LoadOptions::default().weights(weights)).unwrap()
}

#[test]
fn every_block_type_gives_the_logits_of_its_numbers() {
    for number in BLOCK_TYPES {
        let kind = ElementKind::of_number(number).unwrap();
        Pair::new(|_| number).check(&format!("{kind:?}"));
    }
}

#[test]
fn types_may_differ_within_a_file() {
    // As in the files that are called Q4_K_M: Q6_K where errors are felt most, in some of the layers.
    let is_felt = |name: &str| matches!(name, "output" | "blk.0.attn_v" | "blk.0.ffn_down");
    Pair::new(|name| if is_felt(name) { Q6_K } else { Q4_K }).check("Q4_K_M");
    // Within q|k|v and gate|up, too.
    let mut types = BLOCK_TYPES.into_iter().cycle();
    Pair::new(|_| types.next().unwrap()).check("all types");
}

#[test]
fn the_order_of_rows_by_eye() {
    // Each row has its own number in the file: 0 1 2 3 .. 63, and 64 on.
    let numbers: Vec<f32> = (0..2 * HEAD_DIM).flat_map(|row| [row as f32; DIM]).collect();
    let order: Vec<f32> = halves_apart(&numbers).chunks_exact(DIM).map(|row| row[0]).collect();
    assert_eq!(order[..3], [0.0, 2.0, 4.0]);
    assert_eq!(order[31..34], [62.0, 1.0, 3.0]);
    assert_eq!(order[63..66], [63.0, 64.0, 66.0]);
}
