//! Which weights stay: the seam between what is known of a layer and what is written.

use super::saliency::named;
use crate::error::Result;
use crate::pattern::SparsityPattern;
use crate::sparsity::saliency::{Matrix, magnitude};
use crate::sparsity::{Mask, select};

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
    /// Where others were removed or all changed places: which row and column of the layer's matrix each one was, and the
    /// extents of that matrix.
    pub from: Option<&'a Origin>,
}

/// Rows and columns that are left of a matrix, or in another order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Rows and columns before.
    pub extents: (usize, usize),
    /// Which row each row was.
    pub rows: Vec<usize>,
    /// Which column each column was.
    pub cols: Vec<usize>,
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

    /// Whether the largest magnitudes of a group stay and nothing else counts, so that it can be done to elements as they
    /// are stored.
    fn by_magnitude(&self) -> bool {
        false
    }

    /// What stays of a tile `[n, k]`, row-major.
    ///
    /// # Errors
    /// What the criterion lacks for this layer.
    fn choose(&self, tile: &Tile, weights: Vec<f32>, pattern: SparsityPattern) -> Result<Choice>;

    /// How much each weight counts where whole channels or heads are ranked by the sum over their weights.
    ///
    /// # Errors
    /// What the criterion lacks for this layer.
    fn scores(&self, layer: &str, weights: Matrix<'_>) -> Result<Vec<f32>>;

    /// Whether a weight's score depends on nothing but itself, so that any order of the elements will do.
    fn by_element(&self) -> bool;
}

/// The largest magnitudes stay; of equal ones the first.
pub struct Magnitude;

impl Choose for Magnitude {
    fn by_magnitude(&self) -> bool {
        true
    }

    fn is_local(&self, pattern: SparsityPattern) -> bool {
        matches!(pattern, SparsityPattern::Nm { .. } | SparsityPattern::Vnm { .. })
    }

    fn choose(&self, tile: &Tile, mut weights: Vec<f32>, pattern: SparsityPattern) -> Result<Choice> {
        // The weights are not needed again: their place serves for their scores.
        weights.iter_mut().for_each(|w| *w = w.abs());
        let mask = select::mask(&weights, tile.n, tile.k, &pattern).map_err(|e| named(e, tile.layer))?;
        Ok(Choice { mask, updated: None })
    }

    fn scores(&self, _: &str, weights: Matrix<'_>) -> Result<Vec<f32>> {
        Ok(magnitude::l1(weights.weights))
    }

    fn by_element(&self) -> bool {
        true
    }
}
