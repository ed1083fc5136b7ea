//! A case's result beside the CPU's.

use super::prepare::{Device, Outs, Ready};
use super::{Case, DIM, Op, VOCAB_SIZE};
use komt_kernels::{Cpu, CpuOptions, Elem, Precision, WeightFormat};

/// Normalised mean squared error of a result in 16 bits: of attention's it is that of two roundings, p's and the result's
/// (2.8e-6 each in bf16, 4.3e-8 in f16; p's with a cache in 8 bits up to twice that), of a product with quantised weights the
/// weights' and the result's; a factor of two beyond.
fn bound(format: WeightFormat) -> f64 {
    2.0 * 2.0 * if format == WeightFormat::F16 { 4.3e-8 } else { 2.8e-6 }
}

impl Case {
    /// Holds the result of the first run on `b` against that of the CPU from the same numbers: the normalised mean squared
    /// error.
    ///
    /// # Errors
    /// The difference, when it is too large.
    pub fn check<B: Device>(
        &self,
        b: &mut B,
        ready: &Ready<B>,
        format: WeightFormat,
    ) -> std::result::Result<f64, Box<dyn std::error::Error>> {
        let mut cpu = Cpu::with(CpuOptions::default().precision(Precision::Exact))?;
        let mut reference = self.prepare(&mut cpu, format, 1)?;
        reference.run(&mut cpu)?;
        self.complete(&mut reference.outs, format);
        let mut act = vec![B::Act::default(); reference.outs.act.buf.len()];
        let mut wide = vec![0f32; reference.outs.f32.buf.len()];
        b.download(&mut act, &ready.outs.act.buf)?;
        b.download(&mut wide, &ready.outs.f32.buf)?;
        let mut ids = vec![0u32; reference.outs.ids.len()];
        b.download(&mut ids, &ready.outs.ids)?;
        if ids != reference.outs.ids {
            return Err(format!("{} {}: other ids than on the CPU", self.op_name(), self.shape()).into());
        }
        let got = act.into_iter().map(Elem::to_f32).chain(wide);
        let expected = reference.outs.act.buf.iter().chain(&reference.outs.f32.buf);
        let (mut error, mut size) = (0.0, 0.0);
        for (got, &expected) in got.zip(expected) {
            error += (f64::from(got) - f64::from(expected)).powi(2);
            size += f64::from(expected).powi(2);
        }
        let nmse = if error == 0.0 { 0.0 } else { error / size };
        match nmse <= bound(format) {
            true => Ok(nmse),
            false => {
                Err(format!("{} {}: NMSE {nmse:e} against the CPU", self.op_name(), self.shape()).into())
            }
        }
    }

    /// What a CPU leaves to its caller.
    fn complete(&self, outs: &mut Outs<Cpu>, format: WeightFormat) {
        match self.op {
            Op::Argmax | Op::TopCandidates(_) => {
                let k = outs.ids.len() / self.rows;
                for (r, row) in self.logits().chunks_exact(VOCAB_SIZE).enumerate() {
                    let mut ids: Vec<u32> = (0..VOCAB_SIZE as u32).collect();
                    // Stable: lower ids first among equals.
                    ids.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
                    outs.ids[r * k..][..k].copy_from_slice(&ids[..k]);
                    if self.op != Op::Argmax {
                        let values = outs.f32.buf[r * k..][..k].iter_mut();
                        values.zip(ids).for_each(|(value, id)| *value = row[id as usize]);
                    }
                }
            }
            Op::Pool(n_seqs) => {
                let ([h, weights], n) = (self.pooled(format), self.rows / n_seqs);
                for (seq, sums) in outs.f32.buf.chunks_exact_mut(DIM).enumerate() {
                    for (col, sum) in sums.iter_mut().enumerate() {
                        let of_row = |r: usize| f64::from(weights[r]) * f64::from(h[r * DIM + col]);
                        *sum = (seq * n..(seq + 1) * n).map(of_row).sum::<f64>() as f32;
                    }
                }
            }
            _ => {}
        }
    }
}
