//! The operations in the shapes of Mistral-7B, on any backend: what the benchmark of a GPU times and the report of the
//! kernels counts. The same case on the CPU gives the result that it is held against.

mod check;
mod prepare;

pub use prepare::Number;

use komt_cache::first_visible;
use komt_kernels::{AttnShape, KvFormat, WeightFormat};

pub const DIM: usize = 4096;
pub const HIDDEN_DIM: usize = 14336;
pub const VOCAB_SIZE: usize = 32_000;
pub const ATTN: AttnShape = AttnShape { n_heads: 32, n_kv_heads: 8, head_dim: 128, window: Some(4096) };

/// An operation and what it does not take from the model's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Embed,
    RmsNorm,
    /// `[outs, cols]`.
    Matmul(usize, usize),
    MatmulAdd(usize, usize),
    MatmulF32(usize, usize),
    /// `[outs, cols]`, gate and up together: outs is twice the width of the result.
    MatmulSwiglu(usize, usize),
    RopeStore,
    /// One row a sequence; the i-th of n sequences has i / n of this many tokens.
    Decode(usize),
    /// The last rows of one sequence of this many tokens.
    Prefill(usize),
    Swiglu,
    TakeRows,
    Argmax,
    /// This many of the largest logits.
    TopCandidates(usize),
    /// The rows of this many sequences.
    Pool(usize),
}

/// An operation at a number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub op: Op,
    pub rows: usize,
    /// Q8 or Q4, where the matrix is quantised; Q8, where the cache is in 8 bits.
    pub quantised: Option<WeightFormat>,
    /// Attention's: the model's own, or another for which there are kernels.
    pub head_dim: usize,
}

impl Case {
    /// With weights and a cache in 16 bits.
    pub fn new(op: Op, rows: usize) -> Self {
        Self { op, rows, quantised: None, head_dim: ATTN.head_dim }
    }

    fn attn(&self) -> AttnShape {
        AttnShape { head_dim: self.head_dim, ..ATTN }
    }

    /// Numbers that are streamed: weights, or keys and values.
    pub fn numbers(&self) -> u64 {
        match self.matrix() {
            Some((outs, cols)) => (outs * cols) as u64,
            None => (2 * self.n_keys() * self.attn().kv_dim()) as u64,
        }
    }

    /// The matrix, gate and up together.
    pub fn matrix(&self) -> Option<(usize, usize)> {
        match self.op {
            Op::Matmul(o, c) | Op::MatmulAdd(o, c) | Op::MatmulF32(o, c) | Op::MatmulSwiglu(o, c) => {
                Some((o, c))
            }
            _ => None,
        }
    }

    /// Tokens whose keys and values somebody sees, of all sequences.
    fn n_keys(&self) -> usize {
        let kept = |(context, n): (usize, usize)| context - first_visible(context - n, ATTN.window);
        match self.op {
            Op::Decode(_) | Op::Prefill(_) => self.sequences().into_iter().map(kept).sum(),
            _ => 0,
        }
    }

    /// How the cache is stored, where all else is in 16 bits.
    fn kv_format(&self) -> KvFormat {
        if self.quantised == Some(WeightFormat::Q8) { KvFormat::Q8 } else { KvFormat::Bf16 }
    }

    /// Name of the operation: the trait's method.
    pub fn op_name(&self) -> &'static str {
        match self.op {
            Op::Embed => "embed",
            Op::RmsNorm => "rms_norm",
            Op::Matmul(..) => "matmul",
            Op::MatmulAdd(..) => "matmul_add",
            Op::MatmulF32(..) => "matmul_f32",
            Op::MatmulSwiglu(..) => "matmul_swiglu",
            Op::RopeStore => "rope_store",
            Op::Decode(_) | Op::Prefill(_) => "attention",
            Op::Swiglu => "swiglu",
            Op::TakeRows => "take_rows",
            Op::Argmax => "argmax",
            Op::TopCandidates(_) => "top_candidates",
            Op::Pool(_) => "pool",
        }
    }

    /// What there is beside the operation's name.
    pub fn shape(&self) -> String {
        let format = match self.quantised {
            Some(WeightFormat::Q8) => ", q8",
            Some(WeightFormat::Q4) => ", q4",
            _ => "",
        };
        let heads = match self.head_dim == ATTN.head_dim {
            true => String::new(),
            false => format!(", heads of {}", self.head_dim),
        };
        let rows = format!("{} row{}{format}", self.rows, if self.rows == 1 { "" } else { "s" });
        match (self.op, self.matrix()) {
            (_, Some((outs, cols))) => format!("{outs} x {cols}, {rows}"),
            (Op::Decode(context), _) if self.rows == 1 => format!("decode at {context}{heads}{format}"),
            (Op::Decode(context), _) => {
                format!("decode, {} sequences up to {context}{heads}{format}", self.rows)
            }
            (Op::Prefill(context), _) => {
                format!("chunk of {} at {}{heads}{format}", self.rows, context - self.rows)
            }
            (Op::TopCandidates(k), _) => format!("{rows}, {k} largest"),
            (Op::Pool(n_seqs), _) => format!("{rows} of {n_seqs} sequences"),
            _ => rows,
        }
    }

    /// The steps' sequences: tokens in all, and of those the last ones that are the step's rows.
    fn sequences(&self) -> Vec<(usize, usize)> {
        match self.op {
            Op::Decode(context) => (1..=self.rows).map(|i| (context * i / self.rows, 1)).collect(),
            Op::Prefill(context) => vec![(context, self.rows)],
            Op::Pool(n_seqs) => vec![(self.rows / n_seqs, self.rows / n_seqs); n_seqs],
            _ => vec![(1024.max(self.rows), self.rows)],
        }
    }

    /// Bytes of weights, or of the keys and values that somebody sees: what must come from memory once. In 16 bits, or 4.5 and 8.25
    /// bits and of weights 4 bytes a row.
    pub fn streamed_bytes(&self) -> u64 {
        match (self.op, self.matrix()) {
            (_, Some((outs, cols))) => match self.quantised {
                Some(WeightFormat::Q8) => (outs * cols * 33 / 32 + 4 * outs) as u64,
                Some(WeightFormat::Q4) => (outs * cols * 9 / 16 + 4 * outs) as u64,
                _ => 2 * (outs * cols) as u64,
            },
            _ => (self.n_keys() * self.kv_format().token_bytes(self.attn())) as u64,
        }
    }

    /// Bytes of the other inputs and of the results.
    pub fn act_bytes(&self) -> u64 {
        let attn = self.attn();
        let per_row = match self.op {
            Op::Embed => {
                4 * DIM
                    + match self.quantised {
                        Some(format) => format.bytes(1, DIM) / 16, // of a block of 16 rows
                        None => 2 * DIM,
                    }
            }
            Op::RmsNorm => 4 * DIM + 2 * DIM,
            Op::Matmul(outs, cols) => 2 * cols + 2 * outs,
            Op::MatmulSwiglu(outs, cols) => 2 * cols + outs,
            Op::MatmulAdd(outs, cols) => 2 * cols + 2 * 4 * outs,
            Op::MatmulF32(outs, cols) => 2 * cols + 4 * outs,
            Op::RopeStore => 2 * (2 * attn.q_dim() + 3 * attn.kv_dim()) + self.kv_format().token_bytes(attn),
            Op::Decode(_) | Op::Prefill(_) => 2 * 2 * attn.q_dim(),
            Op::Swiglu => 2 * 3 * HIDDEN_DIM,
            Op::TakeRows => 2 * 2 * DIM,
            Op::Argmax => 4 * VOCAB_SIZE + 4,
            Op::TopCandidates(k) => 4 * VOCAB_SIZE + 8 * k,
            Op::Pool(_) => 2 * DIM + 4,
        };
        let sums = if let Op::Pool(n_seqs) = self.op { 4 * n_seqs * DIM } else { 0 };
        (self.rows * per_row + sums) as u64
    }

    /// Floating-point operations of the products: two a weight and row, four a visible key and column of the queries.
    pub fn flops(&self) -> u64 {
        let visible = |pos: usize| pos + 1 - first_visible(pos, ATTN.window);
        match (self.op, self.matrix()) {
            (_, Some((outs, cols))) => 2 * (self.rows * outs * cols) as u64,
            (Op::Decode(_) | Op::Prefill(_), _) => {
                let positions = self.sequences().into_iter().flat_map(|(context, n)| context - n..context);
                4 * (positions.map(visible).sum::<usize>() * self.attn().q_dim()) as u64
            }
            _ => 0,
        }
    }
}
