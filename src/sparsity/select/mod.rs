//! Which weights stay, given how much each counts: the best mask that a pattern admits.
//!
//! Scores are one number a weight, larger means more worth keeping ([`super::saliency`] makes them); a mask's value is
//! the sum of the scores that it keeps. Of equal scores the first in row-major order stays, so that the answer is the
//! same everywhere. [`mask`] is optimal for every pattern but V:N:M with M > 8, where it says what it does.

pub mod global;
pub mod permute;
pub mod transposable;
pub mod units;
mod vnm;

pub use global::global;
pub use permute::{kept_in_order, permutation};
pub use transposable::transposable;
pub use units::{channels, round_units, units};

use super::mask::{Mask, kept};
use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;

/// The mask of `pattern` on an `[n, k]` matrix (row-major scores) whose kept scores have the largest sum.
///
/// Exactly `units − round(s · units)` of the weights, blocks, rows or columns stay, exactly N of each whole group for
/// N:M. Blocks, rows and columns count by the sum of their scores. For V:N:M the columns that `v` rows share are chosen
/// exactly where M ≤ 8 and otherwise by the largest column sums improved by single exchanges.
/// [`SparsityPattern::Channel`] and [`SparsityPattern::Head`] act on the graph ([`channels`]), so here all is kept.
///
/// # Errors
/// As many scores as the matrix has elements are needed, and all of them numbers.
pub fn mask(scores: &[f32], n: usize, k: usize, pattern: &SparsityPattern) -> Result<Mask> {
    check(scores, n, k)?;
    let (rows, cols) = (n as u64, k as u64);
    Ok(match *pattern {
        SparsityPattern::Dense | SparsityPattern::Channel(_) | SparsityPattern::Head(_) => {
            Mask::from_fn(rows, cols, |_, _| true)
        }
        SparsityPattern::Nm { n: keep, m } => best_of_groups(scores, n, k, keep, m),
        SparsityPattern::Vnm { v, n: keep, m } => vnm::mask(scores, n, k, v, keep, m),
        SparsityPattern::Unstructured(_)
        | SparsityPattern::Block { .. }
        | SparsityPattern::Row(_)
        | SparsityPattern::Column(_) => {
            let sums = unit_scores(scores, n, k, pattern);
            let keep = kept(sums.len() as u64, zeros(pattern));
            from_units(&largest(&sums, keep), n, k, pattern)
        }
    })
}

/// The same with every row compared within itself: `unstructured@s` keeps `k − round(s · k)` of each row, as Wanda does
/// (Sun et al., ICLR 2024, §3). Other patterns are as in [`mask`].
///
/// # Errors
/// As [`mask`].
pub fn mask_per_output(scores: &[f32], n: usize, k: usize, pattern: &SparsityPattern) -> Result<Mask> {
    let SparsityPattern::Unstructured(s) = *pattern else { return mask(scores, n, k, pattern) };
    check(scores, n, k)?;
    let keep = kept(k as u64, s);
    Ok(best_of_groups(scores, n, k, keep, (k as u64).max(1)))
}

/// Refuses scores that do not fit the matrix or are no numbers.
pub(crate) fn check(scores: &[f32], n: usize, k: usize) -> Result<()> {
    if n.checked_mul(k) != Some(scores.len()) {
        let reason = format!("{} scores do not fill a {n}×{k} matrix; give one a weight", scores.len());
        return Err(Error::argument("saliency scores", reason));
    }
    match scores.iter().position(|s| s.is_nan()) {
        Some(i) => {
            let place = format!("the score of row {}, column {} is not a number", i / k, i % k);
            Err(Error::argument("saliency scores", format!("{place}; check the weights and the calibration data")))
        }
        None => Ok(()),
    }
}

/// The `keep` largest of every aligned group of `m` along a row.
fn best_of_groups(scores: &[f32], n: usize, k: usize, keep: u64, m: u64) -> Mask {
    let mut mask = Mask::empty(n as u64, k as u64);
    let m = usize::try_from(m).unwrap_or(usize::MAX).min(k.max(1));
    let mut order: Vec<usize> = Vec::with_capacity(m);
    for (r, row) in scores.chunks_exact(k.max(1)).enumerate() {
        for start in (0..k).step_by(m) {
            let group = &row[start..(start + m).min(k)];
            if m <= 16 {
                // Small groups: an element stays when fewer than `keep` beat it.
                for (i, &x) in group.iter().enumerate() {
                    let better = group.iter().enumerate().filter(|&(j, &y)| y > x || (y == x && j < i)).count();
                    if (better as u64) < keep {
                        mask.set(r as u64, (start + i) as u64);
                    }
                }
                continue;
            }
            order.clear();
            order.extend(0..group.len());
            let keep = (keep as usize).min(group.len());
            if keep > 0 && keep < group.len() {
                order.select_nth_unstable_by(keep - 1, |&a, &b| group[b].total_cmp(&group[a]).then(a.cmp(&b)));
            }
            order[..keep].iter().for_each(|&i| mask.set(r as u64, (start + i) as u64));
        }
    }
    mask
}

/// The scores of what a pattern keeps or drops as a whole: weights, blocks (row-major), rows or columns.
pub(crate) fn unit_scores(scores: &[f32], n: usize, k: usize, pattern: &SparsityPattern) -> Vec<f64> {
    let (br, bc) = match *pattern {
        SparsityPattern::Block { rows, cols, .. } => (clamp(rows, n), clamp(cols, k)),
        SparsityPattern::Row(_) => (1, k.max(1)),
        SparsityPattern::Column(_) => (n.max(1), 1),
        _ => return scores.iter().map(|&s| f64::from(s)).collect(),
    };
    let across = k.div_ceil(bc);
    let mut sums = vec![0f64; n.div_ceil(br) * across];
    for (r, row) in scores.chunks_exact(k.max(1)).enumerate() {
        for (sum, part) in sums[r / br * across..].iter_mut().zip(row.chunks(bc)) {
            *sum += part.iter().map(|&s| f64::from(s)).sum::<f64>();
        }
    }
    sums
}

/// The mask of the units that stay.
pub(crate) fn from_units(stays: &[bool], n: usize, k: usize, pattern: &SparsityPattern) -> Mask {
    let (br, bc) = match *pattern {
        SparsityPattern::Block { rows, cols, .. } => (clamp(rows, n), clamp(cols, k)),
        SparsityPattern::Row(_) => (1, k.max(1)),
        SparsityPattern::Column(_) => (n.max(1), 1),
        _ => (1, 1),
    };
    let across = k.div_ceil(bc);
    Mask::from_fn(n as u64, k as u64, |r, c| stays[r as usize / br * across + c as usize / bc])
}

/// The fraction of zeros exactly as it was asked for: 1 − density would round differently.
pub(crate) fn zeros(pattern: &SparsityPattern) -> f64 {
    match *pattern {
        SparsityPattern::Unstructured(s)
        | SparsityPattern::Block { sparsity: s, .. }
        | SparsityPattern::Row(s)
        | SparsityPattern::Column(s)
        | SparsityPattern::Channel(s)
        | SparsityPattern::Head(s) => s,
        SparsityPattern::Dense | SparsityPattern::Nm { .. } | SparsityPattern::Vnm { .. } => 1.0 - pattern.density(),
    }
}

fn clamp(size: u64, extent: usize) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX).clamp(1, extent.max(1))
}

/// Marks the `keep` largest; of equal ones the first.
pub(crate) fn largest(scores: &[f64], keep: u64) -> Vec<bool> {
    let keep = usize::try_from(keep).unwrap_or(usize::MAX).min(scores.len());
    let mut stays = vec![false; scores.len()];
    if keep == 0 {
        return stays;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    if keep < order.len() {
        order.select_nth_unstable_by(keep - 1, |&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    }
    order[..keep].iter().for_each(|&i| stays[i] = true);
    stays
}
