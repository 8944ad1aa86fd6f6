//! SparseGPT: one-shot pruning with an optimal-brain-surgeon update of the remaining weights, column by column
//! (Frantar & Alistarh, ICML 2023, alg. 1).

use super::{Matrix, linalg};
use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;
use crate::sparsity::mask::{Mask, kept};
use crate::sparsity::select;
use rayon::prelude::*;

/// Share of the mean diagonal that is added to the Hessian's diagonal (§3.4).
pub const DAMPENING: f64 = 0.01;

/// The algorithm's numbers.
#[derive(Clone, Copy, Debug)]
pub struct SparseGpt {
    /// Columns between two lazy updates of everything behind them; for unstructured sparsity also the width within which
    /// masks are chosen (B and B_s of alg. 1).
    pub block: usize,
    /// Share of the mean diagonal that is added to the diagonal.
    pub dampening: f64,
}

impl Default for SparseGpt {
    fn default() -> Self {
        Self { block: 128, dampening: DAMPENING }
    }
}

impl SparseGpt {
    /// Patterns that the column-wise procedure serves: N:M and unstructured. For others the scores alone are used.
    pub fn supports(pattern: &SparsityPattern) -> bool {
        matches!(pattern, SparsityPattern::Nm { .. } | SparsityPattern::Unstructured(_))
    }

    /// Prunes `weights` (`[n, k]`) in place, compensating what follows each pruned weight, and returns the mask.
    /// `products` is Σ x·xᵀ over the calibration rows, `[k, k]`; its scale does not matter.
    ///
    /// # Errors
    /// A pattern that it does not serve, sizes that do not fit, products that are not positive semidefinite.
    pub fn prune(
        &self,
        weights: &mut [f32],
        n: usize,
        k: usize,
        products: &[f64],
        pattern: &SparsityPattern,
    ) -> Result<Mask> {
        if !Self::supports(pattern) {
            let reason = "SparseGPT works column by column: N:M and unstructured".to_owned();
            return Err(Error::Pattern { text: pattern.to_string(), reason });
        }
        select::check(weights, n, k)?;
        let (factor, dead) = factor(products, k, self.dampening)?;
        let mut w: Vec<f64> = weights.iter().map(|&x| f64::from(x)).collect();
        for row in w.chunks_exact_mut(k.max(1)) {
            row.iter_mut().zip(&dead).for_each(|(x, &d)| *x = if d { 0.0 } else { *x });
        }
        let mut mask = Mask::empty(n as u64, k as u64);
        // Groups must not straddle blocks.
        let block = match *pattern {
            SparsityPattern::Nm { m, .. } => {
                let m = usize::try_from(m).unwrap_or(usize::MAX).clamp(1, k.max(1));
                self.block.max(1).next_multiple_of(m)
            }
            _ => self.block.max(1),
        };
        for start in (0..k).step_by(block) {
            let end = (start + block).min(k);
            let width = end - start;
            let chosen = match *pattern {
                SparsityPattern::Unstructured(s) => {
                    let score =
                        |i: usize| score(w[i / width * k + start + i % width], factor[(start + i % width) * (k + 1)]);
                    let scores: Vec<f64> = (0..n * width).map(score).collect();
                    select::largest(&scores, kept((n * width) as u64, s))
                }
                _ => Vec::new(),
            };
            let stays: Vec<Vec<bool>> = w
                .par_chunks_exact_mut(k)
                .enumerate()
                .map(|(r, row)| {
                    let fixed = chosen.get(r * width..(r + 1) * width);
                    prune_row(row, start..end, &factor, k, pattern, fixed)
                })
                .collect();
            for (r, row) in stays.iter().enumerate() {
                row.iter().enumerate().filter(|(_, s)| **s).for_each(|(c, _)| mask.set(r as u64, (start + c) as u64));
            }
        }
        weights.iter_mut().zip(&w).for_each(|(to, &x)| *to = x as f32);
        Ok(mask)
    }
}

/// One block of one row: choose, zero, and push the error onto all later columns.
fn prune_row(
    row: &mut [f64],
    block: std::ops::Range<usize>,
    factor: &[f64],
    k: usize,
    pattern: &SparsityPattern,
    fixed: Option<&[bool]>,
) -> Vec<bool> {
    let mut stays = fixed.map_or_else(|| vec![true; block.len()], <[bool]>::to_vec);
    let mut errors = vec![0f64; block.len()];
    for c in block.clone() {
        let at = c - block.start;
        if let SparsityPattern::Nm { n, m } = *pattern
            && c as u64 % m == 0
        {
            let end = (c + m as usize).min(k);
            let scores: Vec<f64> = (c..end).map(|j| score(row[j], factor[j * (k + 1)])).collect();
            stays[at..at + scores.len()].copy_from_slice(&select::largest(&scores, n));
        }
        if stays[at] {
            continue;
        }
        let error = row[c] / factor[c * (k + 1)];
        let upper = &factor[c * k..];
        row[c..block.end].iter_mut().zip(&upper[c..block.end]).for_each(|(x, f)| *x -= error * f);
        row[c] = 0.0;
        errors[at] = error;
    }
    // The lazy part: what lies behind the block, once for all of its columns.
    for (at, error) in errors.into_iter().enumerate().filter(|(_, e)| *e != 0.0) {
        let upper = &factor[(block.start + at) * k..][..k];
        row[block.end..].iter_mut().zip(&upper[block.end..]).for_each(|(x, f)| *x -= error * f);
    }
    stays
}

fn score(w: f64, pivot: f64) -> f64 {
    w * w / (pivot * pivot)
}

/// The upper Cholesky factor U of H⁻¹ = Uᵀ·U, whose row j holds the update of column j (§3.3), and the inputs that are
/// never active.
fn factor(products: &[f64], k: usize, dampening: f64) -> Result<(Vec<f64>, Vec<bool>)> {
    let (inverse, dead) = inverse(products, k, dampening)?;
    let lower = linalg::cholesky(&inverse, k)?;
    let mut upper = vec![0f64; k * k];
    for i in 0..k {
        for j in 0..=i {
            upper[j * k + i] = lower[i * k + j];
        }
    }
    Ok((upper, dead))
}

/// (XXᵀ + λI)⁻¹ with λ the dampening times the mean diagonal; an input that is never active gets a diagonal of one.
fn inverse(products: &[f64], k: usize, dampening: f64) -> Result<(Vec<f64>, Vec<bool>)> {
    if products.len() != k * k {
        let reason = format!("{} products for {k} inputs; a Hessian is {k}×{k}", products.len());
        return Err(Error::argument("calibration statistics", reason));
    }
    let mut h = products.to_vec();
    let dead: Vec<bool> = (0..k).map(|j| h[j * (k + 1)] == 0.0).collect();
    dead.iter().enumerate().filter(|(_, d)| **d).for_each(|(j, _)| h[j * (k + 1)] = 1.0);
    let mean = (0..k).map(|j| h[j * (k + 1)]).sum::<f64>() / k.max(1) as f64;
    (0..k).for_each(|j| h[j * (k + 1)] += dampening * mean);
    Ok((linalg::inverse(&linalg::cholesky(&h, k)?, k), dead))
}

/// w²/[H⁻¹]_jj: the error of pruning one weight alone with the best update of all others (Hassibi & Stork 1993, eq. 5).
///
/// # Errors
/// Products that do not fit or are not positive semidefinite.
pub fn scores(w: Matrix<'_>, products: &[f64], dampening: f64) -> Result<Vec<f32>> {
    let (inverse, _) = inverse(products, w.k, dampening)?;
    let row = |row: &[f32]| -> Vec<f32> {
        row.iter().enumerate().map(|(j, &x)| (f64::from(x) * f64::from(x) / inverse[j * (w.k + 1)]) as f32).collect()
    };
    Ok(w.weights.chunks_exact(w.k.max(1)).flat_map(row).collect())
}
