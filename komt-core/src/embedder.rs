//! [`Embedder`]: texts in, vectors out.

use crate::prefill::Prefill;
use crate::runner::Until;
use crate::{Error, Model, Result};
use komt_kernels::KvFormat;

/// How the hidden states of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pooling {
    /// The last token's: what decoder models are trained for (arXiv:2401.00368). Best with `eos`.
    #[default]
    Last,
    /// The mean of all tokens.
    Mean,
    /// The mean weighted by position, 1 for the first token, n for the n-th (SGPT, arXiv:2202.08904, equation 2).
    WeightedMean,
    /// None: the vectors of all tokens, one after the other, `[n_tokens, dim]`.
    None,
}

/// How an [`Embedder`] makes vectors. The default: last token, BOS in front, no EOS, all dimensions, length 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// From hidden states to a vector.
    pub pooling: Pooling,
    /// Puts BOS in front of every text, where the tokenizer has one.
    pub bos: bool,
    /// Puts EOS behind every text: the tokenizer's, or else the first that the model's files name.
    pub eos: bool,
    /// Leaves the tokens of BOS and the instruction out of the pooling.
    pub exclude_instruction: bool,
    /// Keeps only the first dimensions (Matryoshka, arXiv:2205.13147), before normalising.
    pub dimensions: Option<usize>,
    /// Scales each vector to length 1.
    pub normalize: bool,
    /// Tokens in one step.
    pub max_step_tokens: usize,
    /// The longest text. `None`: as `EngineOptions::max_context`.
    pub max_context: Option<usize>,
    /// How keys and values are stored. `None`: as `EngineOptions::kv_format`.
    pub kv_format: Option<KvFormat>,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self {
            pooling: Pooling::Last,
            bos: true,
            eos: false,
            exclude_instruction: false,
            dimensions: None,
            normalize: true,
            max_step_tokens: 512,
            max_context: None,
            kv_format: None,
        }
    }
}

impl EmbedOptions {
    /// With this pooling.
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = pooling;
        self
    }

    /// With BOS in front or not.
    pub fn bos(mut self, bos: bool) -> Self {
        self.bos = bos;
        self
    }

    /// With EOS behind or not.
    pub fn eos(mut self, eos: bool) -> Self {
        self.eos = eos;
        self
    }

    /// With the instruction left out of the pooling or not.
    pub fn exclude_instruction(mut self, exclude: bool) -> Self {
        self.exclude_instruction = exclude;
        self
    }

    /// With this number of dimensions.
    pub fn dimensions(mut self, n: usize) -> Self {
        self.dimensions = Some(n);
        self
    }

    /// With vectors of length 1 or not.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }

    /// With this longest text.
    pub fn max_context(mut self, n: usize) -> Self {
        self.max_context = Some(n);
        self
    }

    /// With keys and values stored like this.
    pub fn kv_format(mut self, format: KvFormat) -> Self {
        self.kv_format = Some(format);
        self
    }

    /// With this number of tokens in a step.
    pub fn max_step_tokens(mut self, n: usize) -> Self {
        self.max_step_tokens = n;
        self
    }
}

/// Makes embeddings of texts, of any number and length at once. A vector does not depend on the texts beside it.
///
/// It takes `&self` and can be shared by threads, which then wait for each other.
///
/// ```
/// use komt_core::{EmbedOptions, Embedder, LoadOptions, Model, Pooling};
/// # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo-model");
/// let model = Model::load(dir, LoadOptions::default())?;
/// let embedder = Embedder::new(&model, EmbedOptions::default().pooling(Pooling::Mean))?;
/// let vectors = embedder.embed(&["제주도 여행 코스", "a trip to Jeju"])?;
/// let cosine: f32 = vectors[0].iter().zip(&vectors[1]).map(|(a, b)| a * b).sum();
/// assert!((-1.0..=1.0).contains(&cosine));
/// # Ok::<(), komt_core::Error>(())
/// ```
pub struct Embedder {
    prefill: Prefill,
    options: EmbedOptions,
}

impl Embedder {
    /// An embedder on `model`, with all its memory.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::NotEnoughMemory`].
    pub fn new(model: &Model, options: EmbedOptions) -> Result<Self> {
        let dim = model.config().dim;
        if let Some(n) = options.dimensions
            && !(1..=dim).contains(&n)
        {
            let (expected, found) = (format!("1 to {dim}, the model's"), n.to_string());
            return Err(Error::Option { name: "dimensions", expected, found });
        }
        let prefill = Prefill::new(
            model,
            Until::Hidden,
            options.max_step_tokens,
            options.max_context,
            options.kv_format,
        )?;
        Ok(Self { prefill, options })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        self.prefill.model()
    }

    /// Width of the vectors.
    pub fn dim(&self) -> usize {
        self.options.dimensions.unwrap_or(self.model().config().dim)
    }

    /// One vector `[dim]` for each text, in their order; with [`Pooling::None`] one `[n_tokens, dim]`.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::Text`], the device's.
    pub fn embed(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>> {
        self.embed_with("", texts)
    }

    /// The same with an instruction in front of every text, as embedding models want it in front of queries.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn embed_with(&self, instruction: &str, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>> {
        let mut all = vec![];
        let mut n_excluded = vec![];
        let prefix = self.ids(instruction, "")?;
        let eos = if self.options.eos { Some(self.eos()?) } else { None };
        for text in texts {
            let mut ids = self.ids(instruction, text.as_ref())?;
            // Where the text's first letters join a token of the instruction, that token is the text's.
            let n_prefix = ids.iter().zip(&prefix).take_while(|(a, b)| a == b).count();
            n_excluded.push(if self.options.exclude_instruction { n_prefix } else { 0 });
            ids.extend(eos);
            all.push(ids);
        }
        self.embed_ids(&all, &n_excluded)
    }

    fn eos(&self) -> Result<u32> {
        let eos = self.model().tokenizer()?.eos().or(self.model().eos().first().copied());
        let (expected, found) = ("a model with an EOS token", "none in its files");
        eos.ok_or_else(|| Error::Option { name: "eos", expected: expected.into(), found: found.into() })
    }

    /// BOS if wanted, the instruction and the text, as ids.
    fn ids(&self, instruction: &str, text: &str) -> Result<Vec<u32>> {
        let tokenizer = self.model().tokenizer()?;
        let mut ids: Vec<u32> = tokenizer.bos().filter(|_| self.options.bos).into_iter().collect();
        if !instruction.is_empty() || !text.is_empty() {
            ids.extend(tokenizer.encode_plain(&format!("{instruction}{text}"))?);
        }
        Ok(ids)
    }

    /// Vectors of token ids, as they are; the first `n_excluded` tokens of each are left out of the pooling.
    ///
    /// # Errors
    /// [`Error::Text`], which says which text and why: [`Error::EmptyPrompt`] (also when nothing is left to pool),
    /// [`Error::TokenId`], [`Error::TooLong`], [`Error::NotFinite`]. [`Error::Option`] when the two slices differ in
    /// length; the device's.
    pub fn embed_ids(&self, texts: &[Vec<u32>], n_excluded: &[usize]) -> Result<Vec<Vec<f32>>> {
        if texts.len() != n_excluded.len() {
            let (expected, found) =
                (format!("{}, one for each text", texts.len()), n_excluded.len().to_string());
            return Err(Error::Option { name: "n_excluded", expected, found });
        }
        if let Some(text) = texts.iter().zip(n_excluded).position(|(ids, &n)| n >= ids.len()) {
            return Err(Error::EmptyPrompt.of_text(text));
        }
        let vectors = match self.options.pooling {
            Pooling::None => self.rows(texts, n_excluded),
            _ => self.pooled(texts, n_excluded),
        }?;
        match vectors.iter().position(|vector| vector.iter().any(|x| !x.is_finite())) {
            Some(text) => Err(Error::NotFinite.of_text(text)),
            None => Ok(vectors),
        }
    }

    /// The vectors of all tokens.
    fn rows(&self, texts: &[Vec<u32>], n_excluded: &[usize]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = vec![vec![]; texts.len()];
        self.prefill.each_row(texts, &mut |text, pos, row| {
            if pos >= n_excluded[text] {
                let row: Vec<_> = row.iter().map(|&x| f64::from(x)).collect();
                vectors[text].extend(self.finish(&row, 1.0));
            }
        })?;
        Ok(vectors)
    }

    /// One vector of each text. What a step finds of it is summed up where the hidden states are.
    fn pooled(&self, texts: &[Vec<u32>], n_excluded: &[usize]) -> Result<Vec<Vec<f32>>> {
        let weight = |text: usize, pos: usize| match self.options.pooling {
            _ if pos < n_excluded[text] => 0.0,
            Pooling::Last if pos + 1 < texts[text].len() => 0.0,
            Pooling::WeightedMean => (pos + 1) as f32,
            _ => 1.0,
        };
        let mut vectors = vec![];
        self.prefill.each_sum(texts, &weight, &mut |text, sum| {
            let weights = (0..texts[text].len()).map(|pos| f64::from(weight(text, pos))).sum();
            vectors.push(self.finish(sum, weights));
        })?;
        Ok(vectors)
    }

    /// A sum of rows to their mean, `weights` being the sum of their weights; fewer dimensions, length 1.
    fn finish(&self, sum: &[f64], weights: f64) -> Vec<f32> {
        let sum = &sum[..self.dim()];
        let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        let scale = if self.options.normalize && length > 0.0 { length } else { weights };
        sum.iter().map(|x| (x / scale) as f32).collect()
    }
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedder").field("model", self.model()).field("options", &self.options).finish()
    }
}
