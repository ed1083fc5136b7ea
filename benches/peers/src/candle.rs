//! candle: its quantised Llama, which reads GGUF, and its Mistral, which reads safetensors.

use crate::Result;
use crate::work::{Runner, prompt_ids};
use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{mistral, quantized_llama};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A GGUF file in candle's quantised Llama.
pub struct Quantised {
    model: quantized_llama::ModelWeights,
    vocab_size: usize,
}

impl Quantised {
    pub fn load(path: &Path) -> Result<Self> {
        let mut file = std::io::BufReader::new(std::fs::File::open(path)?);
        let content = gguf_file::Content::read(&mut file)?;
        let embed = content.tensor_infos.get("token_embd.weight").ok_or("no token_embd.weight")?;
        let vocab_size = embed.shape.dims()[0];
        let model = quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
        Ok(Self { model, vocab_size })
    }

    fn forward(&mut self, ids: &[u32], pos: usize) -> Result<u32> {
        let logits = self.model.forward(&Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?, pos)?;
        Ok(logits.squeeze(0)?.argmax(0)?.to_scalar()?)
    }
}

impl Runner for Quantised {
    fn prompt(&mut self, n_tokens: usize) -> Result<f64> {
        let ids = prompt_ids(self.vocab_size, n_tokens, 0);
        self.model.clear_kv_cache();
        let start = Instant::now();
        self.forward(&ids, 0)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn decode(&mut self, n_seqs: usize, context: usize, n_steps: usize) -> Result<f64> {
        if n_seqs != 1 {
            return Err("candle decodes one sequence".into());
        }
        self.model.clear_kv_cache();
        let mut id = self.forward(&prompt_ids(self.vocab_size, context, 0), 0)?;
        let start = Instant::now();
        for step in 0..n_steps {
            id = self.forward(&[id], context + step)?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn embed(&mut self, _: usize, _: usize) -> Result<f64> {
        Err("candle's Llama has no vectors".into())
    }
}

/// candle's Mistral, in f32 or f16.
pub struct Mistral {
    model: mistral::Model,
    vocab_size: usize,
}

impl Mistral {
    pub fn load(dir: &Path, dtype: DType) -> Result<Self> {
        let config: mistral::Config = serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?;
        let mut files: Vec<PathBuf> = vec![];
        for entry in std::fs::read_dir(dir)? {
            files.extend(
                Some(entry?.path()).filter(|path| path.extension().is_some_and(|e| e == "safetensors")),
            );
        }
        // SAFETY: nobody writes to the files while this program runs.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, dtype, &Device::Cpu)? };
        Ok(Self { model: mistral::Model::new(&config, weights)?, vocab_size: config.vocab_size })
    }
}

impl Runner for Mistral {
    fn prompt(&mut self, n_tokens: usize) -> Result<f64> {
        let ids = Tensor::new(prompt_ids(self.vocab_size, n_tokens, 0), &Device::Cpu)?.unsqueeze(0)?;
        self.model.clear_kv_cache();
        let start = Instant::now();
        let logits = self.model.forward(&ids, 0)?.to_dtype(DType::F32)?;
        std::hint::black_box(logits.flatten_all()?.to_vec1::<f32>()?);
        Ok(start.elapsed().as_secs_f64())
    }

    fn decode(&mut self, _: usize, _: usize, _: usize) -> Result<f64> {
        Err("only prompts are asked of candle's Mistral".into())
    }

    fn embed(&mut self, _: usize, _: usize) -> Result<f64> {
        Err("only prompts are asked of candle's Mistral".into())
    }
}
