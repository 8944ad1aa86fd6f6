//! Groups of weights that a user defines: slices of layers that stay or go together.
//!
//! ```toml
//! sparsity = 0.5                # of the groups, the fraction that goes: those with the smallest mean score
//! [[group]]
//! name = "block 3"
//! [[group.slice]]
//! layer = "conv1"               # rows (outputs) and cols (inputs, im2col order) are half open; left out: all
//! rows  = [0, 8]
//! [[group.slice]]
//! layer = "conv2"
//! cols  = [0, 72]
//! ```
//!
//! Weights in no group stay. A layer that loses something has the pattern `unstructured@s` with its real fraction.

use super::saliency::{Chosen, Selector, at, matrix};
use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;
use crate::sparsity::mask::kept;
use crate::sparsity::saliency::Matrix;
use crate::sparsity::{Mask, Quality, select};
use crate::workload::graph::Graph;
use crate::workload::weights::Weights;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A file of groups.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regions {
    /// Fraction of the groups that goes.
    pub sparsity: f64,
    /// The groups.
    pub group: Vec<Region>,
}

/// Weights that stay or go together.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// For messages.
    pub name: String,
    /// What it is made of.
    pub slice: Vec<Slice>,
}

/// A rectangle of one layer's weight matrix.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// The layer.
    pub layer: String,
    /// Outputs, from and to (not included); all where left out.
    pub rows: Option<[usize; 2]>,
    /// Inputs, likewise.
    pub cols: Option<[usize; 2]>,
}

impl Regions {
    /// Reads a file of groups.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Parse`] with the place of what is wrong.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a file of groups.
    ///
    /// # Errors
    /// As [`Regions::load`].
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let bad = |message: String| Error::Parse { origin: origin.into(), message };
        let regions: Self = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        if !(0.0..1.0).contains(&regions.sparsity) {
            return Err(bad(format!("sparsity = {} is no fraction of groups in [0, 1)", regions.sparsity)));
        }
        if let Some(g) = regions.group.iter().find(|g| g.slice.is_empty()) {
            return Err(bad(format!("group `{}` has no slice", g.name)));
        }
        Ok(regions)
    }

    /// Masks of all layers that the groups name, in the order of the network.
    ///
    /// # Errors
    /// Layers without readable weights, slices outside of them, groups that overlap, statistics that are missing.
    pub fn choose(&self, graph: &Graph, weights: &Weights, selector: &Selector) -> Result<Vec<Chosen>> {
        let mut layers = BTreeMap::new();
        for (index, &node) in graph.order().iter().enumerate() {
            let layer = graph.layer(node);
            let named = self.group.iter().flat_map(|g| &g.slice).any(|s| s.layer == layer.name);
            let Some(param) = layer.weight().filter(|_| named) else { continue };
            let (values, n, k) =
                matrix(layer, param, weights).map_err(|r| Error::layer(&graph.name, &layer.name, r))?;
            let statistics = selector.statistics.get(&layer.name).cloned().unwrap_or_default();
            let seed = selector.seed.wrapping_add(index as u64);
            let m = Matrix { weights: &values, n, k };
            let scores = selector.criterion.scores(m, &statistics, seed).map_err(|e| at(e, layer))?;
            layers.insert(layer.name.as_str(), (index, values, scores, n, k, statistics));
        }
        // Which group owns each weight; −1 for none.
        let mut owners: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        let mut sums = vec![(0f64, 0u64); self.group.len()];
        for (g, region) in self.group.iter().enumerate() {
            for slice in &region.slice {
                let Some((_, _, scores, n, k, _)) = layers.get(slice.layer.as_str()) else {
                    let known = graph.layers().filter(|l| l.weight().is_some()).map(|l| l.name.as_str());
                    return Err(Error::unknown("layer with weights", &slice.layer, known));
                };
                let bad = |reason: String| {
                    Error::argument(format!("group `{}`, layer `{}`", region.name, slice.layer), reason)
                };
                let range = |asked: Option<[usize; 2]>, extent: usize, what: &str| match asked {
                    None => Ok(0..extent),
                    Some([from, to]) if from < to && to <= extent => Ok(from..to),
                    Some([from, to]) => Err(bad(format!("{what} {from}..{to} do not lie in 0..{extent}"))),
                };
                let (rows, cols) = (range(slice.rows, *n, "rows")?, range(slice.cols, *k, "cols")?);
                let owner = owners.entry(&slice.layer).or_insert_with(|| vec![-1; n * k]);
                for r in rows {
                    for c in cols.clone() {
                        let i = r * k + c;
                        if owner[i] >= 0 {
                            let other = &self.group[owner[i] as usize].name;
                            return Err(bad(format!("row {r}, column {c} is already in group `{other}`")));
                        }
                        owner[i] = g as i64;
                        sums[g].0 += f64::from(scores[i]);
                        sums[g].1 += 1;
                    }
                }
            }
        }
        let means: Vec<f64> = sums.iter().map(|(s, n)| s / (*n).max(1) as f64).collect();
        let stays = select::largest(&means, kept(means.len() as u64, self.sparsity));
        let mut chosen = Vec::new();
        for (name, (index, values, _, n, k, statistics)) in &layers {
            let Some(owner) = owners.get(name) else { continue };
            let keep = |i: usize| owner[i] < 0 || stays[owner[i] as usize];
            let mask = Mask::from_fn(*n as u64, *k as u64, |r, c| keep(r as usize * k + c as usize));
            let gone = 1.0 - mask.count() as f64 / (n * k).max(1) as f64;
            let m = Matrix { weights: values, n: *n, k: *k };
            let quality = Quality::of(m, &mask, None, statistics)?;
            // A pattern's fraction stays below one.
            let pattern = SparsityPattern::Unstructured(gone.min(1.0 - f64::EPSILON));
            chosen.push((*index, Chosen { layer: (*name).to_owned(), pattern, masks: vec![Arc::new(mask)], quality }));
        }
        chosen.sort_by_key(|(index, _)| *index);
        Ok(chosen.into_iter().map(|(_, c)| c).collect())
    }
}
