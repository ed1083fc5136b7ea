//! The logits of every position, and on request hidden states, as a safetensors file: to hold komt against any
//! reference. `tools/reference-logits.py` writes the same from transformers, and compares.
//!
//! ```text
//! cargo run --release --example logits -- --model DIR --ids "1 415 6230" --layers out.safetensors
//! tools/reference-logits.py DIR reference.safetensors --ids ids.txt --layers --compare out.safetensors
//! ```
//!
//! `logits [T, vocab_size]` and `input_ids [T]` (i64); with --layers `embeddings [T, dim]`, `layer.N.output [T, dim]`
//! (the residual stream after layer N) and `final_hidden [T, dim]` (after the last norm). The forward pass knows nothing of
//! it: a `Tap` stands between it and the device.

use clap::Parser;
use komt_core::kernels::{Tap, TapEvent};
use komt_core::{Cpu, EmbedOptions, Embedder, Pooling, ScoreOptions, Scorer};
use komt_examples::{KvArgs, ModelArgs, Result, encode, exit, note, parse_ids};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;

/// The logits of every position, and on request hidden states, as a safetensors file.
#[derive(Parser)]
struct Args {
    /// The file to write
    out: PathBuf,
    /// Token ids, or a file of them: numbers between spaces or commas, with [ ] or without
    #[arg(long, required_unless_present = "text", conflicts_with = "text")]
    ids: Option<String>,
    /// Text, for the model's tokenizer
    #[arg(long)]
    text: Option<String>,
    /// Writes hidden states too: embeddings, layer.N.output, final_hidden
    #[arg(long)]
    layers: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    kv: KvArgs,
}

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let (seen, streams) = channel();
    let (with_layers, mut n_norms) = (args.layers, 0);
    // The norms of a step see the embeddings, then the stream after each attention and each feed-forward block.
    let tap = Tap::new(Cpu::with(args.model.cpu())?, move |event: TapEvent<'_>| {
        match event.residual {
            None if event.op == "embed" => n_norms = 0,
            Some(stream) if with_layers && n_norms % 2 == 0 => {
                let layer = |n: usize| format!("layer.{}.output", n - 1);
                let name = if n_norms == 0 { "embeddings".into() } else { layer(n_norms / 2) };
                let _ = seen.send((name, stream.to_vec())); // Nobody listens any more: nothing is lost.
            }
            _ => {}
        }
        n_norms += usize::from(event.residual.is_some());
        Ok(())
    });
    let model = args.model.load_on(tap)?;
    let ids = match (&args.ids, &args.text) {
        (Some(ids), _) => parse_ids(ids)?,
        (None, text) => encode(model.tokenizer()?, text.as_deref().unwrap_or_default())?,
    };

    let (n_tokens, context) = (ids.len(), ids.len().max(2));
    let mut tensors = BTreeMap::<String, Vec<u8>>::new();
    let mut options = ScoreOptions::default().max_context(context);
    options.kv_format = args.kv.format();
    Scorer::with(&model, options)?.each_logits(ids.clone(), |_, row| {
        tensors.entry("logits".into()).or_default().extend(bytes(row));
    })?;
    for (name, rows) in streams.try_iter() {
        tensors.entry(name).or_default().extend(bytes(&rows));
    }
    if args.layers {
        let mut options =
            EmbedOptions::default().pooling(Pooling::None).normalize(false).max_context(context);
        options.kv_format = args.kv.format();
        let rows = Embedder::new(&model, options)?.embed_ids(std::slice::from_ref(&ids), &[0])?.remove(0);
        tensors.insert("final_hidden".into(), bytes(&rows).collect());
    }

    let ids: Vec<u8> = ids.iter().flat_map(|&id| i64::from(id).to_le_bytes()).collect();
    let mut views = vec![("input_ids", TensorView::new(Dtype::I64, vec![n_tokens], &ids)?)];
    for (name, bytes) in &tensors {
        let shape = vec![n_tokens, bytes.len() / size_of::<f32>() / n_tokens];
        views.push((name, TensorView::new(Dtype::F32, shape, bytes)?));
    }
    let n_tensors = views.len();
    serialize_to_file(views, None, &args.out).map_err(|error| format!("{}: {error}", args.out.display()))?;
    note(format!("{}: {n_tokens} tokens, {n_tensors} tensors", args.out.display()));
    Ok(())
}

/// Numbers in the file's order of bytes.
fn bytes(row: &[f32]) -> impl Iterator<Item = u8> {
    row.iter().flat_map(|x| x.to_le_bytes())
}
