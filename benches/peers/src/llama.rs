//! llama.cpp, in process: `llama-cpp-2` where it has what is needed, the functions below it where it has not.

use crate::Result;
use crate::work::{Runner, prompt_ids};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;
use std::ffi::CString;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

/// Starts the library once, silently.
fn start() -> Result<()> {
    static BACKEND: OnceLock<std::result::Result<LlamaBackend, String>> = OnceLock::new();
    let started = BACKEND.get_or_init(|| {
        let mut backend = LlamaBackend::init().map_err(|error| error.to_string())?;
        backend.void_logs();
        Ok(backend)
    });
    started.as_ref().map(|_| ()).map_err(|error| error.clone().into())
}

/// What the library was compiled for.
pub fn system_info() -> Result<String> {
    start()?;
    // SAFETY: the text is the library's own and ends with a zero.
    let text = unsafe { std::ffi::CStr::from_ptr(sys::llama_print_system_info()) };
    Ok(text.to_string_lossy().into_owned())
}

/// The types that files are quantised to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    F32,
    Bf16,
    Q8_0,
    Q4_0,
    Q4KM,
}

impl FileType {
    pub fn name(self) -> &'static str {
        match self {
            FileType::F32 => "F32",
            FileType::Bf16 => "BF16",
            FileType::Q8_0 => "Q8_0",
            FileType::Q4_0 => "Q4_0",
            FileType::Q4KM => "Q4_K_M",
        }
    }
}

/// Writes the file `to` from the file `from`, as `llama-quantize` does.
pub fn quantise(from: &Path, to: &Path, file_type: FileType) -> Result<()> {
    start()?;
    let (from, part) = (c_path(from)?, to.with_extension("part"));
    // SAFETY: paths end with a zero; the parameters are the library's defaults but for plain numbers.
    let status = unsafe {
        let mut params = sys::llama_model_quantize_default_params();
        params.ftype = match file_type {
            FileType::F32 => sys::LLAMA_FTYPE_ALL_F32,
            FileType::Bf16 => sys::LLAMA_FTYPE_MOSTLY_BF16,
            FileType::Q8_0 => sys::LLAMA_FTYPE_MOSTLY_Q8_0,
            FileType::Q4_0 => sys::LLAMA_FTYPE_MOSTLY_Q4_0,
            FileType::Q4KM => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
        };
        sys::llama_model_quantize(from.as_ptr(), c_path(&part)?.as_ptr(), &params)
    };
    if status != 0 {
        return Err(format!("{}: llama_model_quantize failed with {status}", to.display()).into());
    }
    Ok(std::fs::rename(part, to)?)
}

fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Weights are rearranged for the CPU where there is an arrangement for their type (`use_extra_bufts`).
    pub repack: bool,
    /// Flash attention.
    pub flash: bool,
    /// One cache for all sequences (`kv_unified`): only matters with several.
    pub unified: bool,
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on = |on| if on { "on" } else { "off" };
        write!(f, "repack {}, flash attention {}", on(self.repack), on(self.flash))?;
        if self.unified { write!(f, ", one cache") } else { Ok(()) }
    }
}

/// A loaded file.
pub struct Model {
    ptr: *mut sys::llama_model,
    vocab_size: usize,
}

impl Model {
    pub fn load(path: &Path, repack: bool) -> Result<Self> {
        start()?;
        // SAFETY: the path ends with a zero, the parameters are the library's defaults but for plain numbers.
        let ptr = unsafe {
            let mut params = sys::llama_model_default_params();
            params.use_extra_bufts = repack;
            params.n_gpu_layers = 0;
            sys::llama_model_load_from_file(c_path(path)?.as_ptr(), params)
        };
        if ptr.is_null() {
            return Err(format!("{}: llama.cpp does not load it", path.display()).into());
        }
        // SAFETY: the model was just loaded.
        let vocab_size = unsafe { sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(ptr)) } as usize;
        Ok(Self { ptr, vocab_size })
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: loaded once, freed once, after its contexts: they borrow it.
        unsafe { sys::llama_model_free(self.ptr) }
    }
}

/// A model with room for `n_seqs` sequences of `n_ctx` tokens.
pub struct Context<'a> {
    ptr: *mut sys::llama_context,
    batch: sys::llama_batch,
    model: &'a Model,
    n_seqs: usize,
    last: Vec<u32>,
}

/// Tokens in a batch at most: `n_batch` and `n_ubatch`.
pub const BATCH: usize = 512;

impl<'a> Context<'a> {
    pub fn new(
        model: &'a Model,
        settings: Settings,
        n_seqs: usize,
        n_ctx: usize,
        embeds: bool,
    ) -> Result<Self> {
        let n_threads = std::thread::available_parallelism()?.get() as i32;
        // SAFETY: the model lives as long as the context; parameters as above.
        let ptr = unsafe {
            let mut params = sys::llama_context_default_params();
            params.n_ctx = (n_ctx * n_seqs).next_multiple_of(256 * n_seqs) as u32;
            (params.n_batch, params.n_ubatch) = (BATCH as u32, BATCH as u32);
            params.n_seq_max = n_seqs as u32;
            (params.n_threads, params.n_threads_batch) = (n_threads, n_threads);
            params.flash_attn_type = match settings.flash {
                true => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
                false => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
            };
            params.kv_unified = settings.unified;
            params.embeddings = embeds;
            if embeds {
                // The last token's vector, like ours; pooled by the library it would compute the logits of every token.
                params.pooling_type = sys::LLAMA_POOLING_TYPE_NONE;
            }
            params.no_perf = true;
            sys::llama_init_from_model(model.ptr, params)
        };
        if ptr.is_null() {
            return Err("llama.cpp makes no context".into());
        }
        // SAFETY: freed when this is dropped.
        let batch = unsafe { sys::llama_batch_init(BATCH as i32, 0, 1) };
        Ok(Self { ptr, batch, model, n_seqs, last: vec![] })
    }

    fn clear(&mut self) {
        self.batch.n_tokens = 0;
        // SAFETY: the context is alive.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.ptr), false) }
    }

    fn push(&mut self, token: u32, pos: usize, seq: usize, wants_output: bool) {
        let i = self.batch.n_tokens as usize;
        assert!(i < BATCH, "a batch has {BATCH} tokens");
        // SAFETY: `llama_batch_init` has made room for BATCH tokens, each of one sequence.
        unsafe {
            *self.batch.token.add(i) = token as i32;
            *self.batch.pos.add(i) = pos as i32;
            *self.batch.n_seq_id.add(i) = 1;
            **self.batch.seq_id.add(i) = seq as i32;
            *self.batch.logits.add(i) = wants_output.into();
        }
        self.batch.n_tokens += 1;
    }

    /// Runs what was pushed.
    fn decode(&mut self) -> Result<()> {
        // SAFETY: context and batch are alive, and the batch is filled up to `n_tokens`.
        let status = unsafe { sys::llama_decode(self.ptr, self.batch) };
        self.batch.n_tokens = 0;
        if status == 0 { Ok(()) } else { Err(format!("llama_decode: {status}").into()) }
    }

    /// Logits after token `i` of the last batch.
    fn logits(&self, i: usize) -> &[f32] {
        // SAFETY: the token wanted output; the row is as long as the vocabulary.
        unsafe {
            std::slice::from_raw_parts(sys::llama_get_logits_ith(self.ptr, i as i32), self.model.vocab_size)
        }
    }

    fn greedy(&self, i: usize) -> u32 {
        let logits = self.logits(i);
        (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0) as u32
    }

    /// One prompt, in batches, and its last token's choice.
    fn prefill(&mut self, ids: &[u32], seq: usize) -> Result<u32> {
        let mut choice = 0;
        for (chunk, part) in ids.chunks(BATCH).enumerate() {
            for (i, &id) in part.iter().enumerate() {
                let pos = chunk * BATCH + i;
                self.push(id, pos, seq, pos + 1 == ids.len());
            }
            self.decode()?;
            if chunk * BATCH + part.len() == ids.len() {
                choice = self.greedy(part.len() - 1);
            }
        }
        Ok(choice)
    }

    /// The logits of every token of `ids`, row by row.
    pub fn each_logits(&mut self, ids: &[u32], mut visit: impl FnMut(usize, &[f32])) -> Result<()> {
        self.clear();
        for (chunk, part) in ids.chunks(BATCH).enumerate() {
            for (i, &id) in part.iter().enumerate() {
                self.push(id, chunk * BATCH + i, 0, true);
            }
            self.decode()?;
            (0..part.len()).for_each(|i| visit(chunk * BATCH + i, self.logits(i)));
        }
        Ok(())
    }
}

impl Runner for Context<'_> {
    fn prompt(&mut self, n_tokens: usize) -> Result<f64> {
        let ids = prompt_ids(self.model.vocab_size, n_tokens, 0);
        self.clear();
        let start = Instant::now();
        self.prefill(&ids, 0)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn decode(&mut self, n_seqs: usize, context: usize, n_steps: usize) -> Result<f64> {
        assert!(n_seqs <= self.n_seqs, "{n_seqs} sequences");
        self.clear();
        self.last.clear();
        for seq in 0..n_seqs {
            let choice = self.prefill(&prompt_ids(self.model.vocab_size, context, seq), seq)?;
            self.last.push(choice);
        }
        let start = Instant::now();
        for step in 0..n_steps {
            for seq in 0..n_seqs {
                self.push(self.last[seq], context + step, seq, true);
            }
            Context::decode(self)?;
            for seq in 0..n_seqs {
                self.last[seq] = self.greedy(seq);
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn embed(&mut self, n_texts: usize, n_tokens: usize) -> Result<f64> {
        let texts: Vec<_> = (0..n_texts).map(|i| prompt_ids(self.model.vocab_size, n_tokens, i)).collect();
        let start = Instant::now();
        let mut sum = 0.0;
        for texts in texts.chunks(BATCH / n_tokens) {
            self.clear();
            for (seq, ids) in texts.iter().enumerate() {
                for (pos, &id) in ids.iter().enumerate() {
                    self.push(id, pos, seq, pos + 1 == ids.len());
                }
            }
            Context::decode(self)?;
            for seq in 0..texts.len() {
                // SAFETY: the last token of each text wanted output, and a vector has at least one number.
                sum += unsafe { *sys::llama_get_embeddings_ith(self.ptr, ((seq + 1) * n_tokens - 1) as i32) };
            }
        }
        std::hint::black_box(sum);
        Ok(start.elapsed().as_secs_f64())
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: made once, freed once.
        unsafe {
            sys::llama_batch_free(self.batch);
            sys::llama_free(self.ptr);
        }
    }
}
