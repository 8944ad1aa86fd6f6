//! Column order for N:M: exchanging columns between groups until more is kept (Pool & Yu, NeurIPS 2021, §3.2).

use crate::error::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Weights that one search may look at; it bounds the time without a clock.
const BUDGET: u64 = 1 << 32;

/// An order of the columns under which `keep` of every `m` keep more: place `i` gets column `order[i]`. Greedy: the best
/// exchange between two groups, group pairs in a seeded random order, until a whole round improves nothing or the budget
/// is spent. Not optimal; never worse than the given order.
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
        if let (&[a, b, c, d], 2) = (members, keep) {
            return two_of_four([column(a), column(b), column(c), column(d)]);
        }
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
            spent += (2 * m * m * m * n) as u64;
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

/// The two largest of four in every row, added up: the larger of both pairs' larger, and what is left of the second
/// place. Rows are added in parts of so many, whose sums keep their precision.
fn two_of_four(columns: [&[f32]; 4]) -> f64 {
    const PART: usize = 64;
    let n = columns[0].len();
    let mut sum = 0.0;
    for first in (0..n).step_by(PART) {
        let [a, b, c, d] = columns.map(|x| &x[first..(first + PART).min(n)]);
        let mut parts = [0f32; 8];
        for (i, (((&a, &b), &c), &d)) in a.iter().zip(b).zip(c).zip(d).enumerate() {
            let (large, small) = (larger(a, b), lesser(a, b));
            let (other, less) = (larger(c, d), lesser(c, d));
            parts[i % 8] += larger(large, other) + larger(lesser(large, other), larger(small, less));
        }
        sum += parts.iter().map(|&x| f64::from(x)).sum::<f64>();
    }
    sum
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if a > b { b } else { a }
}

/// Share of the scores `[_, k]` that `keep` of every `m` columns keep when the columns are in an order; 1 where all scores
/// are 0.
pub fn kept_in_order(scores: &[f32], k: usize, order: &[usize], keep: u64, m: u64) -> f64 {
    let m = usize::try_from(m).unwrap_or(usize::MAX).clamp(1, order.len().max(1));
    let (mut kept, mut all) = (0.0, 0.0);
    let mut line = Vec::with_capacity(m);
    for row in scores.chunks_exact(k.max(1)) {
        for group in order.chunks(m) {
            line.clear();
            line.extend(group.iter().map(|&c| row[c]));
            line.sort_unstable_by(|a, b| b.total_cmp(a));
            all += line.iter().map(|&x| f64::from(x)).sum::<f64>();
            kept += line.iter().take(keep as usize).map(|&x| f64::from(x)).sum::<f64>();
        }
    }
    if all > 0.0 { kept / all } else { 1.0 }
}
