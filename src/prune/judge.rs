//! What a mask changes of its layer, said while it is written.

use super::choose::{Choice, Choose, Tile};
use super::saliency::{Chosen, Selector};
use crate::error::Result;
use crate::pattern::SparsityPattern;
use crate::sparsity::saliency::Matrix;
use crate::sparsity::{Criterion, Mask, Quality};
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Chooses as a selector does, and keeps what each choice leaves.
pub struct Judge<'a> {
    selector: &'a Selector,
    /// By layer, pattern and matrix of the layer.
    found: Mutex<BTreeMap<(String, String, usize), Quality>>,
}

impl<'a> Judge<'a> {
    /// Of this selector's choices.
    pub fn new(selector: &'a Selector) -> Self {
        Self { selector, found: Mutex::default() }
    }

    /// What was left of every layer that was written: its name, its pattern, the proxies. By name.
    pub fn verdicts(&self) -> Vec<(String, String, Quality)> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut parts: BTreeMap<(&str, &str), Vec<Quality>> = BTreeMap::new();
        for ((layer, pattern, _), quality) in found.iter() {
            parts.entry((layer, pattern)).or_default().push(*quality);
        }
        parts.into_iter().map(|((l, p), q)| (l.to_owned(), p.to_owned(), Quality::network(&q))).collect()
    }
}

impl Choose for Judge<'_> {
    // Whole matrices alone can be judged.
    fn is_local(&self, _: SparsityPattern) -> bool {
        false
    }

    fn choose(&self, tile: &Tile, weights: Vec<f32>, pattern: SparsityPattern) -> Result<Choice> {
        let choice = self.selector.choose(tile, weights.clone(), pattern)?;
        let matrix = Matrix { weights: &weights, n: tile.n, k: tile.k };
        let statistics = self.selector.statistics_of(tile);
        let quality = Quality::of(matrix, &choice.mask, choice.updated.as_deref(), &statistics)?;
        let place = (tile.layer.to_owned(), pattern.to_string(), tile.group);
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(place, quality);
        Ok(choice)
    }

    fn scores(&self, layer: &str, weights: Matrix<'_>) -> Result<Vec<f32>> {
        self.selector.scores(layer, weights)
    }

    fn by_element(&self) -> bool {
        self.selector.by_element()
    }
}

/// Masks that were chosen before, to be written.
pub struct Settled<'a> {
    selector: &'a Selector,
    masks: HashMap<&'a str, &'a Chosen>,
}

impl<'a> Settled<'a> {
    /// These masks; layers without one are left to the selector.
    pub fn new(selector: &'a Selector, chosen: &'a [Chosen]) -> Self {
        Self { selector, masks: chosen.iter().map(|c| (c.layer.as_str(), c)).collect() }
    }
}

impl Choose for Settled<'_> {
    fn is_local(&self, _: SparsityPattern) -> bool {
        false
    }

    fn choose(&self, tile: &Tile, weights: Vec<f32>, pattern: SparsityPattern) -> Result<Choice> {
        // SparseGPT's weights change with its masks, and both come out of the same inputs again.
        let [mask] = self.masks.get(tile.layer).map_or(&[][..], |c| &c.masks[..]) else {
            return self.selector.choose(tile, weights, pattern);
        };
        let first = (tile.group * tile.n) as u64;
        let fits = mask.cols() == tile.k as u64 && first + tile.n as u64 <= mask.rows();
        if self.selector.criterion == Criterion::SparseGpt || !fits || tile.from.is_some() {
            return self.selector.choose(tile, weights, pattern);
        }
        let mask = Mask::from_fn(tile.n as u64, tile.k as u64, |r, c| mask.get(first + r, c));
        Ok(Choice { mask, updated: None })
    }

    fn scores(&self, layer: &str, weights: Matrix<'_>) -> Result<Vec<f32>> {
        self.selector.scores(layer, weights)
    }

    fn by_element(&self) -> bool {
        self.selector.by_element()
    }
}
