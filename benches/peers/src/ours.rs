//! komt, as an application runs it.

use crate::Result;
use crate::work::{Runner, Work, prompt_ids};
use komt_core::{EmbedOptions, Embedder, Engine, EngineOptions, Event, GenerateOptions, Model};
use std::time::Instant;

/// A model with what one kind of work needs.
pub enum Ours {
    Engine(Box<Engine>),
    Embedder(Embedder),
}

impl Ours {
    pub fn new(model: &Model, work: Work) -> Result<Self> {
        let (n_seqs, n_ctx) = work.room();
        if let Work::Embed { .. } = work {
            return Ok(Self::Embedder(Embedder::new(model, EmbedOptions::default().max_context(n_ctx))?));
        }
        let options = EngineOptions::default().max_seqs(n_seqs).max_step_tokens(512).max_context(n_ctx + 8);
        let ring =
            model.memory_plan(&options)?.kv_bytes_per_seq / model.memory_plan(&options)?.kv_bytes_per_token;
        Ok(Self::Engine(Box::new(Engine::new(model, options.kv_tokens(n_seqs * ring as usize))?)))
    }
}

fn step(engine: &mut Engine) -> Result<usize> {
    let mut n_tokens = 0;
    for event in engine.step()? {
        match event {
            Event::Token { .. } => n_tokens += 1,
            Event::Failed { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    Ok(n_tokens)
}

impl Runner for Ours {
    fn prompt(&mut self, n_tokens: usize) -> Result<f64> {
        let Self::Engine(engine) = self else { return Err("an embedder has no logits".into()) };
        let ids = prompt_ids(engine.model().config().vocab_size, n_tokens, 0);
        let start = Instant::now();
        engine.submit(&ids, GenerateOptions::default().max_new_tokens(1).ignore_eos(true))?;
        while !engine.is_idle() {
            step(engine)?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn decode(&mut self, n_seqs: usize, context: usize, n_steps: usize) -> Result<f64> {
        let Self::Engine(engine) = self else { return Err("an embedder has no logits".into()) };
        let vocab_size = engine.model().config().vocab_size;
        let mut seqs = vec![];
        for seq in 0..n_seqs {
            // One by one, so that all decode together afterwards.
            let seq = engine.submit(&prompt_ids(vocab_size, context, seq), {
                GenerateOptions::default().max_new_tokens(n_steps + n_seqs + 1).ignore_eos(true)
            })?;
            seqs.push(seq);
        }
        while step(engine)? < n_seqs {}
        let start = Instant::now();
        for _ in 0..n_steps {
            let n_tokens = step(engine)?;
            assert_eq!(n_tokens, n_seqs, "tokens in a step");
        }
        let seconds = start.elapsed().as_secs_f64();
        seqs.into_iter().for_each(|seq| engine.close(seq));
        Ok(seconds)
    }

    fn embed(&mut self, n_texts: usize, n_tokens: usize) -> Result<f64> {
        let Self::Embedder(embedder) = self else { return Err("an engine has no vectors".into()) };
        let vocab_size = embedder.model().config().vocab_size;
        let texts: Vec<_> = (0..n_texts).map(|i| prompt_ids(vocab_size, n_tokens, i)).collect();
        let start = Instant::now();
        let vectors = embedder.embed_ids(&texts, &vec![0; n_texts])?;
        assert_eq!(vectors.len(), n_texts, "vectors");
        Ok(start.elapsed().as_secs_f64())
    }
}
