//! Real masks for a whole network: every layer's weights read, scored, selected and judged, layer by layer in parallel.

use super::choose::{Choice, Choose, Tile};
use super::plan::view;
use crate::error::{Error, Result};
use crate::lower::Assignment;
use crate::pattern::SparsityPattern;
use crate::sparsity::saliency::{Criterion, Matrix, Selection, Statistics};
use crate::sparsity::select::{self, global::Scored};
use crate::sparsity::{Mask, Quality};
use crate::workload::graph::Graph;
use crate::workload::layer::{Layer, NormKind, Op, Param, Role};
use crate::workload::weights::{Weights, decode, width};
use petgraph::graph::NodeIndex;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// How masks are chosen.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// What a weight counts.
    pub criterion: Criterion,
    /// Whether layers of one pattern share one budget.
    pub global: bool,
    /// Transposable N:M.
    pub transposable: bool,
    /// For the random criterion and searches.
    pub seed: u64,
    /// Calibration statistics by layer name.
    pub statistics: HashMap<String, Statistics>,
}

/// Prune writes what this chooses, SparseGPT's changed weights too. Whole channels and heads are ranked by the sum of their
/// weights' scores.
impl Choose for Selector {
    fn is_local(&self, pattern: SparsityPattern) -> bool {
        let in_groups = matches!(pattern, SparsityPattern::Nm { .. } | SparsityPattern::Vnm { .. });
        in_groups && !self.transposable && matches!(self.criterion, Criterion::Magnitude | Criterion::L2)
    }

    fn choose(&self, tile: &Tile, weights: Vec<f32>, pattern: SparsityPattern) -> Result<Choice> {
        let m = Matrix { weights: &weights, n: tile.n, k: tile.k };
        let chosen = self.pick(m, &self.statistics_of(tile), pattern, self.seed ^ stream(tile.layer, tile.group));
        let chosen = chosen.map_err(|e| named(e, tile.layer))?;
        Ok(Choice { mask: chosen.mask, updated: chosen.updated })
    }

    fn scores(&self, layer: &str, weights: Matrix<'_>) -> Result<Vec<f32>> {
        let none = Statistics::none();
        let statistics = self.statistics.get(layer).unwrap_or(&none);
        self.criterion.scores(weights, statistics, self.seed ^ stream(layer, 0)).map_err(|e| named(e, layer))
    }

    fn by_element(&self) -> bool {
        !self.criterion.needs_statistics()
    }
}

/// Every layer and matrix draws its own stream, whatever the order in which they are written.
fn stream(layer: &str, group: usize) -> u64 {
    layer.bytes().fold(group as u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

impl Selector {
    /// With the scales of the batch norms that stand behind layers, for layers whose statistics lack them.
    #[must_use]
    pub fn with_scales(mut self, graph: &Graph, weights: &Weights) -> Self {
        for &node in graph.order() {
            let layer = graph.layer(node);
            if layer.weight().is_none() {
                continue;
            }
            if let Some(gamma) = scales_behind(graph, node, weights) {
                self.statistics.entry(layer.name.clone()).or_default().gamma.get_or_insert(gamma);
            }
        }
        self
    }

    /// What is known of a tile that is all that is left of its matrix.
    pub(super) fn statistics_of(&self, tile: &Tile) -> Cow<'_, Statistics> {
        match (self.statistics.get(tile.layer), tile.from) {
            (None, _) => Cow::Owned(Statistics::none()),
            (Some(known), None) => Cow::Borrowed(known),
            (Some(known), Some(from)) => Cow::Owned(known.part(from.extents, Some(&from.rows), Some(&from.cols))),
        }
    }

    fn pick(&self, m: Matrix<'_>, statistics: &Statistics, pattern: SparsityPattern, seed: u64) -> Result<Selection> {
        match pattern {
            SparsityPattern::Nm { n: keep, m: group } if self.transposable => {
                let scores = self.criterion.scores(m, statistics, seed)?;
                let mask = select::transposable(&scores, m.n, m.k, keep, group)?;
                Ok(Selection { mask, updated: None })
            }
            _ => self.criterion.select(m, statistics, &pattern, seed),
        }
    }
}

/// One layer's masks.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The layer.
    pub layer: String,
    /// The pattern.
    pub pattern: SparsityPattern,
    /// One a weight parameter, in order.
    pub masks: Vec<Arc<Mask>>,
    /// What they leave.
    pub quality: Quality,
}

/// What was chosen and what could not be.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// In the order of the network.
    pub layers: Vec<Chosen>,
    /// Layers that keep their expectations, with the reason.
    pub skipped: Vec<(String, String)>,
}

struct Work<'a> {
    layer: &'a Layer,
    pattern: SparsityPattern,
    seed: u64,
    statistics: Statistics,
}

/// Chooses masks for every layer whose pattern is one. Memory: the matrices of as many layers as there are threads, and
/// for a global budget the scores of all layers that share it.
///
/// # Errors
/// Statistics that the criterion needs and that a layer lacks; statistics of no layer.
pub fn choose(graph: &Graph, weights: &Weights, assignment: &Assignment, selector: &Selector) -> Result<Choices> {
    let known = |name: &str| graph.layers().any(|l| l.name == name && l.weight().is_some());
    if let Some(stranger) = selector.statistics.keys().filter(|n| !known(n)).min() {
        let layers = graph.layers().filter(|l| l.weight().is_some()).map(|l| l.name.as_str());
        return Err(Error::unknown("layer with weights (in the calibration statistics)", stranger, layers));
    }
    let mut work = Vec::new();
    for (index, &node) in graph.order().iter().enumerate() {
        let layer = graph.layer(node);
        let pattern = assignment.choice(&layer.name).pattern;
        if layer.weight().is_none() || pattern.is_dense() || pattern.shrinks_graph() {
            continue;
        }
        let mut statistics = selector.statistics.get(&layer.name).cloned().unwrap_or_default();
        if statistics.gamma.is_none() {
            statistics.gamma = scales_behind(graph, node, weights);
        }
        // Each layer draws its own stream from the one seed.
        let seed = selector.seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        work.push(Work { layer, pattern, seed, statistics });
    }
    if selector.global {
        return together(&work, weights, selector);
    }
    let done: Vec<Result<Result<Chosen, String>>> = work.par_iter().map(|w| alone(w, weights, selector)).collect();
    let mut choices = Choices::default();
    for (w, outcome) in work.iter().zip(done) {
        match outcome? {
            Ok(chosen) => choices.layers.push(chosen),
            Err(reason) => choices.skipped.push((w.layer.name.clone(), reason)),
        }
    }
    Ok(choices)
}

/// A layer by itself; the inner error says why its weights cannot be read.
fn alone(w: &Work, weights: &Weights, selector: &Selector) -> Result<Result<Chosen, String>> {
    let (mut masks, mut parts) = (Vec::new(), Vec::new());
    for param in w.layer.params.iter().filter(|p| p.role == Role::Weight) {
        let (values, n, k) = match matrix(w.layer, param, weights) {
            Ok(m) => m,
            Err(reason) => return Ok(Err(reason)),
        };
        let m = Matrix { weights: &values, n, k };
        let place = |e: Error| at(e, w.layer);
        let Selection { mask, updated } = selector.pick(m, &w.statistics, w.pattern, w.seed).map_err(place)?;
        parts.push(Quality::of(m, &mask, updated.as_deref(), &w.statistics).map_err(place)?);
        masks.push(Arc::new(mask));
    }
    let quality = Quality::network(&parts);
    Ok(Ok(Chosen { layer: w.layer.name.clone(), pattern: w.pattern, masks, quality }))
}

/// All layers of one pattern under one budget.
fn together(work: &[Work], weights: &Weights, selector: &Selector) -> Result<Choices> {
    let mut choices = Choices::default();
    let mut patterns: Vec<SparsityPattern> = Vec::new();
    for w in work {
        if !patterns.contains(&w.pattern) {
            patterns.push(w.pattern);
        }
    }
    let mut found: HashMap<&str, Chosen> = HashMap::new();
    for pattern in patterns {
        let mut owners = Vec::new();
        let mut scored = Vec::new();
        for w in work.iter().filter(|w| w.pattern == pattern) {
            let read: Result<Vec<_>, String> =
                w.layer.params.iter().filter(|p| p.role == Role::Weight).map(|p| matrix(w.layer, p, weights)).collect();
            match read {
                Err(reason) => choices.skipped.push((w.layer.name.clone(), reason)),
                Ok(matrices) => {
                    for (values, n, k) in matrices {
                        let m = Matrix { weights: &values, n, k };
                        scored.push((
                            selector.criterion.scores(m, &w.statistics, w.seed).map_err(|e| at(e, w.layer))?,
                            n,
                            k,
                        ));
                        owners.push(w);
                    }
                }
            }
        }
        let views: Vec<Scored> = scored.iter().map(|(s, n, k)| Scored { scores: s, n: *n, k: *k }).collect();
        let masks = select::global(&views, &pattern)?;
        drop(scored);
        for (w, mask) in owners.into_iter().zip(masks) {
            let entry = found.entry(&w.layer.name).or_insert_with(|| Chosen {
                layer: w.layer.name.clone(),
                pattern,
                masks: Vec::new(),
                quality: Quality::default(),
            });
            entry.masks.push(Arc::new(mask));
        }
    }
    for w in work {
        let Some(mut chosen) = found.remove(w.layer.name.as_str()) else { continue };
        let params = w.layer.params.iter().filter(|p| p.role == Role::Weight);
        let mut parts = Vec::new();
        for (param, mask) in params.zip(&chosen.masks) {
            if let Ok((values, n, k)) = matrix(w.layer, param, weights) {
                parts.push(
                    Quality::of(Matrix { weights: &values, n, k }, mask, None, &w.statistics)
                        .map_err(|e| at(e, w.layer))?,
                );
            }
        }
        chosen.quality = Quality::network(&parts);
        choices.layers.push(chosen);
    }
    Ok(choices)
}

/// The error with the layer's name before it.
pub(super) fn at(error: Error, layer: &Layer) -> Error {
    named(error, &layer.name)
}

pub(super) fn named(error: Error, layer: &str) -> Error {
    match error {
        Error::Argument { argument, reason } => {
            Error::Argument { argument: format!("layer `{layer}`, {argument}"), reason }
        }
        other => other,
    }
}

/// A weight parameter as an `[n, k]` fp32 matrix, outputs by inputs; several stored matrices stand one under another.
/// Integers are taken as they are stored, as if their zero point were 0 and all outputs had one scale.
///
/// # Errors
/// Why it cannot be read, in words.
pub fn matrix(layer: &Layer, param: &Param, weights: &Weights) -> Result<(Vec<f32>, usize, usize), String> {
    let name = &param.name;
    let stored = weights.get(name).ok_or_else(|| format!("`{name}` is not stored as it is used"))?;
    if weights.reordered.contains(name) {
        return Err(format!("`{name}` reaches it with its axes in another order"));
    }
    let bytes =
        width(stored.elem).ok_or_else(|| format!("`{name}` is stored as {:?}, which is not read", stored.elem))?;
    if stored.elements() != param.elements().map_err(|e| e.to_string())? {
        return Err(format!("`{name}` has another number of elements there"));
    }
    let raw = stored.raw().map_err(|e| format!("`{name}` {e}"))?;
    let v = view(layer, param, &param.shape).ok_or_else(|| format!("`{name}` is no matrix of outputs by inputs"))?;
    let mut values = vec![0f32; v.groups * v.n * v.k];
    if v.transposed {
        let mut line = vec![0f32; v.n];
        for (i, raw) in raw.chunks_exact((v.n * bytes).max(1)).enumerate() {
            decode(stored.elem, raw, &mut line);
            let (group, c) = (i / v.k, i % v.k);
            line.iter().enumerate().for_each(|(r, &x)| values[(group * v.n + r) * v.k + c] = x);
        }
    } else {
        decode(stored.elem, &raw, &mut values);
    }
    Ok((values, v.groups * v.n, v.k))
}

/// γ of a batch norm that is the only reader of a layer.
fn scales_behind(graph: &Graph, node: NodeIndex, weights: &Weights) -> Option<Vec<f32>> {
    let [(next, _)] = graph.consumers(node)[..] else { return None };
    let norm = graph.layer(next);
    if !matches!(&norm.op, Op::Norm(n) if n.kind == NormKind::Batch) {
        return None;
    }
    let gamma = norm.params.iter().find(|p| p.role == Role::Scale)?;
    let stored = weights.get(&gamma.name)?;
    let (raw, bytes) = (stored.raw().ok()?, width(stored.elem)?);
    let mut values = vec![0f32; raw.len() / bytes];
    decode(stored.elem, &raw, &mut values);
    Some(values)
}
