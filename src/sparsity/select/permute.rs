//! Column order for N:M: exchanging columns between groups until more is kept (Pool & Yu, NeurIPS 2021, §3.2).

use crate::error::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Row visits that one search may spend; it bounds the time without a clock.
const BUDGET: u64 = 400_000_000;

/// An order of the columns under which `keep` of every `m` keep more: place `i` gets column `order[i]`. Greedy: the best
/// exchange between two groups, group pairs in a seeded random order, until a whole round improves nothing or the budget
/// of row visits is spent. Not optimal; never worse than the given order.
///
/// Only a layer whose producer takes the inverse order of its outputs runs it for free.
///
/// # Errors
/// As [`super::mask`].
pub fn permutation(scores: &[f32], n: usize, k: usize, keep: u64, m: u64, seed: u64) -> Result<Vec<usize>> {
    super::check(scores, n, k)?;
    let mut order: Vec<usize> = (0..k).collect();
    let m = usize::try_from(m).unwrap_or(usize::MAX);
    let groups = k / m.max(1);
    if groups < 2 || keep as usize >= m {
        return Ok(order);
    }
    // Column-major, because exchanges read whole columns.
    let mut columns = vec![0f32; n * k];
    scores.chunks_exact(k).enumerate().for_each(|(r, row)| {
        row.iter().enumerate().for_each(|(c, &s)| columns[c * n + r] = s);
    });
    let column = |c: usize| &columns[c * n..][..n];
    let value = |members: &[usize]| -> f64 {
        let mut line = vec![0f32; members.len()];
        let mut sum = 0.0;
        for r in 0..n {
            line.iter_mut().zip(members).for_each(|(x, &c)| *x = column(c)[r]);
            line.sort_unstable_by(|a, b| b.total_cmp(a));
            sum += line.iter().take(keep as usize).map(|&x| f64::from(x)).sum::<f64>();
        }
        sum
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pairs: Vec<(usize, usize)> = (0..groups).flat_map(|a| (a + 1..groups).map(move |b| (a, b))).collect();
    for i in (1..pairs.len()).rev() {
        pairs.swap(i, rng.random_range(0..=i));
    }
    let mut values: Vec<f64> = (0..groups).map(|g| value(&order[g * m..][..m])).collect();
    let mut spent = 0u64;
    loop {
        let mut improved = false;
        for &(a, b) in &pairs {
            spent += (2 * m * m * n) as u64;
            if spent > BUDGET {
                return Ok(order);
            }
            let now = values[a] + values[b];
            let mut best: Option<(f64, usize, usize, f64, f64)> = None;
            for i in 0..m {
                for j in 0..m {
                    order.swap(a * m + i, b * m + j);
                    let (va, vb) = (value(&order[a * m..][..m]), value(&order[b * m..][..m]));
                    order.swap(a * m + i, b * m + j);
                    if va + vb > best.map_or(now * (1.0 + 1e-9), |x| x.0) {
                        best = Some((va + vb, i, j, va, vb));
                    }
                }
            }
            if let Some((_, i, j, va, vb)) = best {
                order.swap(a * m + i, b * m + j);
                (values[a], values[b]) = (va, vb);
                improved = true;
            }
        }
        if !improved {
            return Ok(order);
        }
    }
}
