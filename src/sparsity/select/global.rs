//! One budget for several layers: the units with the largest scores of the whole network stay (`--scope global`).

use crate::error::Result;
use crate::pattern::SparsityPattern;
use crate::sparsity::mask::{Mask, kept};

/// One layer's scores.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// One a weight, row-major.
    pub scores: &'a [f32],
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
}

/// Masks of all layers under one pattern, with units compared across layers by their **mean** score a weight, so that a
/// large block or row has no advantage over a small one. The network keeps `Σ elements − round(s · Σ elements)` weights
/// as nearly as whole units go; N:M and V:N:M fix every group's count, so there the layers are independent.
///
/// # Errors
/// As [`super::mask`].
pub fn global(layers: &[Scored<'_>], pattern: &SparsityPattern) -> Result<Vec<Mask>> {
    let ranked = matches!(
        pattern,
        SparsityPattern::Unstructured(_)
            | SparsityPattern::Block { .. }
            | SparsityPattern::Row(_)
            | SparsityPattern::Column(_)
    );
    if !ranked {
        return layers.iter().map(|l| super::mask(l.scores, l.n, l.k, pattern)).collect();
    }
    let mut all: Vec<(f64, u32, u32, u64)> = Vec::new();
    let mut lengths = Vec::with_capacity(layers.len());
    for (index, l) in layers.iter().enumerate() {
        super::check(l.scores, l.n, l.k)?;
        let sums = super::unit_scores(l.scores, l.n, l.k, pattern);
        lengths.push(sums.len());
        for (unit, sum) in sums.iter().enumerate() {
            let size = unit_size(l, unit, pattern);
            all.push((sum / size.max(1) as f64, index as u32, unit as u32, size));
        }
    }
    let total: u64 = all.iter().map(|u| u.3).sum();
    let mut budget = kept(total, super::zeros(pattern));
    all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut stays: Vec<Vec<bool>> = lengths.into_iter().map(|n| vec![false; n]).collect();
    for (_, layer, unit, size) in all {
        // A unit that crosses the budget stays when more than half of it lies inside.
        if budget * 2 <= size && budget < size {
            break;
        }
        stays[layer as usize][unit as usize] = true;
        budget = budget.saturating_sub(size);
        if budget == 0 {
            break;
        }
    }
    Ok(layers.iter().zip(&stays).map(|(l, s)| super::from_units(s, l.n, l.k, pattern)).collect())
}

/// Weights in a unit; those at an edge are smaller.
fn unit_size(l: &Scored<'_>, unit: usize, pattern: &SparsityPattern) -> u64 {
    match *pattern {
        SparsityPattern::Row(_) => l.k as u64,
        SparsityPattern::Column(_) => l.n as u64,
        SparsityPattern::Block { rows, cols, .. } => {
            let (n, k) = (l.n as u64, l.k as u64);
            let (br, bc) = (rows.clamp(1, n.max(1)), cols.clamp(1, k.max(1)));
            let across = k.div_ceil(bc).max(1);
            let (r, c) = (unit as u64 / across * br, unit as u64 % across * bc);
            br.min(n - r) * bc.min(k - c)
        }
        _ => 1,
    }
}
