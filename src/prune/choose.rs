//! Which weights stay: the seam between what is known of a layer and what is written.

use crate::error::Result;
use crate::pattern::SparsityPattern;
use crate::sparsity::Mask;
use crate::sparsity::mask::{kept, vnm_columns};

/// A part of a layer's weight matrix.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// The layer's name.
    pub layer: &'a str,
    /// Which of its matrices.
    pub group: usize,
    /// First row.
    pub row: usize,
    /// First column.
    pub col: usize,
    /// Rows.
    pub n: usize,
    /// Columns.
    pub k: usize,
}

/// What stays of a tile.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The weights that stay.
    pub mask: Mask,
    /// What they become, where the criterion lets them make up for the others; `[n, k]`, row-major.
    pub updated: Option<Vec<f32>>,
}

/// Chooses what stays.
pub trait Choose: Sync {
    /// Whether the choice inside a group of the pattern needs nothing from outside of it, so that tiles can be chosen
    /// one by one.
    fn is_local(&self, pattern: SparsityPattern) -> bool;

    /// What stays of a tile `[n, k]`, row-major.
    ///
    /// # Errors
    /// What the criterion lacks for this layer.
    fn choose(&self, tile: &Tile, weights: Vec<f32>, pattern: SparsityPattern) -> Result<Choice>;

    /// How much a weight counts where whole channels or heads are ranked by the sum over their weights.
    fn weight(&self, w: f32) -> f64;
}

/// The largest magnitudes stay; of equal ones the first.
pub struct Magnitude;

impl Choose for Magnitude {
    fn is_local(&self, pattern: SparsityPattern) -> bool {
        matches!(pattern, SparsityPattern::Nm { .. } | SparsityPattern::Vnm { .. })
    }

    fn choose(&self, tile: &Tile, weights: Vec<f32>, pattern: SparsityPattern) -> Result<Choice> {
        Ok(Choice { mask: magnitude(&weights, tile.n, tile.k, pattern), updated: None })
    }

    fn weight(&self, w: f32) -> f64 {
        f64::from(w.abs())
    }
}

fn magnitude(weights: &[f32], n: usize, k: usize, pattern: SparsityPattern) -> Mask {
    let score = |r: usize, c: usize| weights[r * k + c].abs();
    let top = |scores: &[f64], keep: u64| -> Vec<bool> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let mut stays = vec![false; scores.len()];
        order.into_iter().take(keep as usize).for_each(|i| stays[i] = true);
        stays
    };
    let (rows, cols) = (n as u64, k as u64);
    let sums = |br: usize, bc: usize| -> Vec<f64> {
        let across = k.div_ceil(bc);
        let mut all = vec![0f64; n.div_ceil(br) * across];
        for r in 0..n {
            for c in 0..k {
                all[r / br * across + c / bc] += f64::from(score(r, c));
            }
        }
        all
    };
    match pattern {
        SparsityPattern::Dense | SparsityPattern::Channel(_) | SparsityPattern::Head(_) => {
            Mask::from_fn(rows, cols, |_, _| true)
        }
        SparsityPattern::Nm { n: keep, m } => {
            let mut mask = Mask::empty(rows, cols);
            let mut order: Vec<usize> = Vec::with_capacity(m as usize);
            for r in 0..n {
                for start in (0..k).step_by(m as usize) {
                    order.clear();
                    order.extend(start..(start + m as usize).min(k));
                    order.sort_by(|&a, &b| score(r, b).total_cmp(&score(r, a)).then(a.cmp(&b)));
                    order.iter().take(keep as usize).for_each(|&c| mask.set(r as u64, c as u64));
                }
            }
            mask
        }
        SparsityPattern::Vnm { v, n: keep, m } => {
            let mut mask = Mask::empty(rows, cols);
            for top_row in (0..n).step_by(v as usize) {
                let bottom = (top_row + v as usize).min(n);
                for start in (0..k).step_by(m as usize) {
                    let end = (start + m as usize).min(k);
                    let sum = |c: usize| (top_row..bottom).map(|r| f64::from(score(r, c))).sum::<f64>();
                    let columns: Vec<f64> = (start..end).map(sum).collect();
                    let stays = top(&columns, vnm_columns(keep, m));
                    for r in top_row..bottom {
                        let own = (start..end).map(|c| if stays[c - start] { f64::from(score(r, c)) } else { -1.0 });
                        let kept = top(&own.collect::<Vec<_>>(), keep);
                        (start..end).filter(|c| kept[c - start] && stays[c - start]).for_each(|c| {
                            mask.set(r as u64, c as u64);
                        });
                    }
                }
            }
            mask
        }
        SparsityPattern::Unstructured(s) => {
            let stays = top(&weights.iter().map(|w| f64::from(w.abs())).collect::<Vec<_>>(), kept(rows * cols, s));
            Mask::from_fn(rows, cols, |r, c| stays[r as usize * k + c as usize])
        }
        SparsityPattern::Block { rows: br, cols: bc, sparsity } => {
            let scores = sums((br as usize).min(n.max(1)), (bc as usize).min(k.max(1)));
            let across = k.div_ceil((bc as usize).min(k.max(1)));
            let stays = top(&scores, kept(scores.len() as u64, sparsity));
            Mask::from_fn(rows, cols, |r, c| stays[(r / br) as usize * across + (c / bc) as usize])
        }
        SparsityPattern::Row(s) => {
            let stays = top(&sums(1, k.max(1)), kept(rows, s));
            Mask::from_fn(rows, cols, |r, _| stays[r as usize])
        }
        SparsityPattern::Column(s) => {
            let stays = top(&sums(n.max(1), 1), kept(cols, s));
            Mask::from_fn(rows, cols, |_, c| stays[c as usize])
        }
    }
}
