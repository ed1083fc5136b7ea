//! What CUDA makes of whole rows, so that they need not come down: argmax, candidates, pooling.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod cuda_support;

use cuda_support::{Gpu, Twin, compare, normal};
use half::{bf16, f16};
use komt_cache::StepPlan;
use komt_kernels::cuda::CudaAct;
use komt_kernels::{Backend, Cpu, MAX_CANDIDATES, NO_TOKEN, Rows, StepCapacity};

/// The k largest, largest first and lower ids first among equals, as the sampler orders them; 0 and -0 are equal.
fn largest(row: &[f32], k: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    ids.sort_by(|&a, &b| row[b as usize].partial_cmp(&row[a as usize]).unwrap().then(a.cmp(&b)));
    ids.truncate(k);
    ids
}

/// Argmax and k candidates of rows of logits.
fn on_device<A: CudaAct>(t: &mut Twin<A>, rows: &[Vec<f32>], k: usize) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
    let (n, cols) = (rows.len(), rows[0].len());
    let logits = t.residual(n, cols, &rows.concat());
    let mut best = t.cuda.alloc::<u32>(n).unwrap();
    let (mut ids, mut values) = (t.cuda.alloc::<u32>(n * k).unwrap(), t.cuda.alloc::<f32>(n * k).unwrap());
    assert!(t.cuda.argmax(&mut best, &logits.cuda).unwrap());
    assert!(t.cuda.top_candidates(&mut ids, &mut values, &logits.cuda, k).unwrap());
    let mut down = (vec![0; n], vec![0; n * k], vec![0.0; n * k]);
    t.cuda.download(&mut down.0, &best).unwrap();
    t.cuda.download(&mut down.1, &ids).unwrap();
    t.cuda.download(&mut down.2, &values).unwrap();
    down
}

#[test]
fn argmax_and_candidates_are_those_of_a_sorted_row() {
    for sm in [75, 80, 90, 120] {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<f16>();
        // Fewer than the threads of a block, around them, a real size, an odd one; all k from 1 to the row or the most.
        for (vocab_size, k) in [(1, 1), (7, 7), (1023, 5), (1024, 128), (1025, 64), (32000, 50), (3073, 128)]
        {
            let mut rows: Vec<Vec<f32>> = (0..3).map(|seed| normal(seed + 9, vocab_size)).collect();
            // Ties: the first row has few different values, and zeros of either sign.
            rows[0].iter_mut().for_each(|v| *v = v.round() * if *v < 0.0 { -0.5 } else { 0.5 } - 0.5);
            rows[0].iter_mut().step_by(3).for_each(|v| *v = -0.0);
            rows[1].iter_mut().skip(1).step_by(2).for_each(|v| *v = f32::NEG_INFINITY);
            let (best, ids, values) = on_device(&mut t, &rows, k);
            for (r, row) in rows.iter().enumerate() {
                let expected = largest(row, k);
                assert_eq!(best[r], expected[0], "sm_{sm} row {r} of {vocab_size}");
                let ids = &ids[r * k..][..k];
                // Many equal values may meet in the same threads: then there is no answer, but never a wrong one.
                if r > 0 || ids[0] != NO_TOKEN {
                    assert_eq!(ids, expected, "sm_{sm} row {r} of {vocab_size}, {k} candidates");
                    let logits: Vec<f32> = expected.iter().map(|&id| row[id as usize]).collect();
                    assert_eq!(values[r * k..][..k], logits, "sm_{sm} row {r} of {vocab_size}");
                }
            }
        }
        assert_eq!(MAX_CANDIDATES, 128, "the largest k above");
    }
}

#[test]
fn rows_that_the_sampler_refuses_have_no_answer() {
    let Some(gpu) = Gpu::open(80) else { return };
    let mut t = gpu.twin::<bf16>();
    let with = |value: f32| {
        let mut row = normal(1, 2000);
        row[1500] = value;
        row
    };
    let nothing = vec![f32::NEG_INFINITY; 2000];
    let rows =
        [with(f32::NAN), with(-f32::NAN), with(f32::INFINITY), nothing, with(f32::MAX), with(-f32::MAX)];
    let (best, ids, _) = on_device(&mut t, &rows, 3);
    assert_eq!(best[..4], [NO_TOKEN; 4]);
    assert_eq!(ids[..12], [NO_TOKEN; 12]);
    assert_eq!((best[4], ids[12]), (1500, 1500));
    assert_eq!(best[5], largest(&rows[5], 1)[0]);
    // 2,100 of the largest in the numbers of three threads: more than are collected.
    let mut row = normal(1, 3 << 20);
    (0..700).for_each(|i| (0..3).for_each(|j| row[1024 * i + j] += 100.0));
    let (best, ids, _) = on_device(&mut t, &[row.clone()], 4);
    assert_eq!((best[0], ids[0]), (largest(&row, 1)[0], NO_TOKEN));
}

#[test]
fn pooled_rows_are_the_weighted_sums_of_sequences() {
    fn test<A: CudaAct>(sm: u32) {
        let Some(gpu) = Gpu::open(sm) else { return };
        let mut t = gpu.twin::<A>();
        for dim in [32, 256, 288, 4096] {
            let lens = [1, 2, 9, 40];
            let n: usize = lens.iter().sum();
            let mut plan = StepPlan::new(1);
            plan.ids = vec![0; n];
            (plan.positions, plan.slots) = (plan.ids.clone(), plan.ids.clone());
            plan.seq_of = (0..4).flat_map(|s| vec![s; lens[s as usize]]).collect();
            plan.q_start = vec![0, 1, 3, 12, 52];
            plan.pages = vec![0; 4];
            let capacity = StepCapacity { max_tokens: n + 2, max_seqs: 5, max_logits: 1, table_len: 1 };
            let step = t.step(&plan, capacity);
            // Weighted mean; the first rows, excluded, are NaN; of the last sequence the last row alone.
            let mut data = normal(1, n * dim);
            data[3 * dim..5 * dim].fill(f32::NAN);
            let weight = |r: usize| match r {
                3..=4 => 0.0,
                0..=11 => r as f32 + 1.0,
                _ => f32::from(u8::from(r == n - 1)),
            };
            let weights = t.vector(&(0..n).map(weight).collect::<Vec<_>>());
            let (h, mut out) = (t.acts(n, dim, &data), t.residual(4, dim, &vec![9.0; 4 * dim]));
            assert!(t.cuda.pool(&mut out.cuda, &h.cuda, &weights.cuda, &step.cuda).unwrap());
            let mut expected = vec![0.0f32; 4 * dim];
            for (r, &seq) in plan.seq_of.iter().enumerate().filter(|&(r, _)| weight(r) != 0.0) {
                let sum = &mut expected[seq as usize * dim..][..dim];
                sum.iter_mut().zip(&h.cpu.buf[r * dim..]).for_each(|(sum, h)| *sum += weight(r) * h);
            }
            // Sums of at most 10 rows in f32, in another order: 1e-14 each.
            compare(&format!("pool sm_{sm} {dim}"), &expected, &t.download(&out.cuda), dim, 1e-12);
        }
    }
    test::<f16>(75);
    test::<bf16>(80);
    test::<bf16>(90);
    test::<bf16>(120);
}

#[test]
fn a_cpu_leaves_rows_to_its_caller() {
    let mut cpu = Cpu::new().unwrap();
    let logits = Rows::<Cpu, f32>::alloc(&mut cpu, 1, 4).unwrap();
    assert!(!cpu.argmax(&mut vec![0], &logits).unwrap());
    assert!(!cpu.top_candidates(&mut vec![0], &mut vec![0.0], &logits, 1).unwrap());
}
