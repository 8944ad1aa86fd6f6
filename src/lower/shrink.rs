//! Removal of channels and heads: a smaller graph, consistent in every shape, parameter and attribute.

use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;
use crate::sparsity::groups::{Axis, ClassId, Groups, Kind};
use crate::sparsity::select::round_units;
use crate::workload::graph::Graph;
use crate::workload::layer::*;
use crate::workload::shape;
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;

/// What became of a pattern that removes channels or heads.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The groups of the layer were shrunk, perhaps by less than asked where a partner asked for less.
    Applied,
    /// Nothing went, for this reason.
    NotApplicable(String),
}

/// What became of the pattern of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerOutcome {
    /// The layer's name.
    pub layer: String,
    /// The pattern that was asked for.
    pub pattern: SparsityPattern,
    /// What became of it.
    pub outcome: Outcome,
}

impl LayerOutcome {
    /// The outcome as an error, for a rule that named this layer alone and cannot be skipped.
    ///
    /// # Errors
    /// [`Error::Shrink`] with the reason where nothing was done.
    pub fn required(&self) -> Result<()> {
        match &self.outcome {
            Outcome::Applied => Ok(()),
            Outcome::NotApplicable(reason) => Err(Error::Shrink {
                pattern: self.pattern.to_string(),
                layer: self.layer.clone(),
                reason: reason.clone(),
            }),
        }
    }
}

/// What is left of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// Its class in [`Groups`] of the graph before.
    pub class: ClassId,
    /// What a unit is.
    pub kind: Kind,
    /// Layers that make its channels.
    pub producers: Vec<String>,
    /// Units that stay.
    pub kept: u64,
    /// Units that there were.
    pub total: u64,
    /// The fraction of zeros that was followed: the smallest that a producer asked for.
    pub fraction: f64,
    /// Largest fraction asked for, where producers disagree.
    pub disagreement: Option<f64>,
}

/// A graph without the removed channels and heads.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smaller graph; layers keep their names and order.
    pub graph: Graph,
    /// The groups that were touched, in the order of their first layer.
    pub cuts: Vec<Cut>,
    /// Each layer that had such a pattern, in the order of the graph.
    pub outcomes: Vec<LayerOutcome>,
}

/// Removes what the `channel@s` and `head@s` patterns of the layers ask for, with everything that depends on it.
///
/// A group goes when a layer that makes it has the pattern; where producers of one group ask for different fractions,
/// the smallest holds. Of `n` units `n − round(s·n)` stay, at least one. Which ones is no matter of shapes.
///
/// # Errors
/// [`Error::Shrink`] when the smaller graph contradicts itself at a layer, which is named.
pub fn shrink(graph: &Graph, assignment: impl Fn(&Layer) -> Option<SparsityPattern>) -> Result<Shrunk> {
    shrink_rounded(graph, assignment, 1)
}

/// The same with extents that are multiples of `multiple` wherever that still removes something (what vectors, tensor
/// cores or arrays like); see [`round_units`].
///
/// # Errors
/// As [`shrink`].
pub fn shrink_rounded(
    graph: &Graph,
    assignment: impl Fn(&Layer) -> Option<SparsityPattern>,
    multiple: u64,
) -> Result<Shrunk> {
    let asked: Vec<(NodeIndex, SparsityPattern)> = graph
        .order()
        .iter()
        .filter_map(|&n| assignment(graph.layer(n)).filter(SparsityPattern::shrinks_graph).map(|p| (n, p)))
        .collect();
    if asked.is_empty() {
        return Ok(Shrunk { graph: graph.clone(), cuts: Vec::new(), outcomes: Vec::new() });
    }
    let groups = Groups::analyse(graph);
    let mut fractions: BTreeMap<ClassId, (f64, f64)> = BTreeMap::new();
    let mut outcomes = Vec::with_capacity(asked.len());
    for (node, pattern) in asked {
        let outcome = match wanted(&groups, node, pattern) {
            Ok((classes, s)) => {
                for c in classes {
                    let f = fractions.entry(c).or_insert((s, s));
                    *f = (f.0.min(s), f.1.max(s));
                }
                Outcome::Applied
            }
            Err(reason) => Outcome::NotApplicable(reason),
        };
        outcomes.push(LayerOutcome { layer: graph.layer(node).name.clone(), pattern, outcome });
    }
    let mut cuts = Vec::with_capacity(fractions.len());
    for (class, (least, most)) in fractions {
        let Some(g) = groups.group(class) else { continue };
        cuts.push(Cut {
            class,
            kind: g.kind,
            producers: g.producers().into_iter().map(str::to_owned).collect(),
            kept: round_units(g.size, g.width, least, multiple),
            total: g.size,
            fraction: least,
            disagreement: (most > least).then_some(most),
        });
    }
    let sizes: BTreeMap<ClassId, u64> = cuts.iter().map(|c| (c.class, c.kept)).collect();
    let graph = resized(graph, &groups, &sizes)?;
    Ok(Shrunk { graph, cuts, outcomes })
}

/// The classes that a pattern on a layer speaks of, with the fraction of zeros.
fn wanted(groups: &Groups, node: NodeIndex, pattern: SparsityPattern) -> Result<(Vec<ClassId>, f64), String> {
    let (kind, s) = match pattern {
        SparsityPattern::Channel(s) => (Kind::Channel, s),
        SparsityPattern::Head(s) => (Kind::Head, s),
        _ => return Err("it is a mask, which removes nothing from the graph".into()),
    };
    let made = groups.made_by(node)?;
    let classes: Vec<ClassId> = made.iter().filter(|g| g.kind == kind).map(|g| g.class).collect();
    match (classes.is_empty(), kind) {
        (false, _) => Ok((classes, s)),
        (true, Kind::Channel) => Err("it makes attention heads, which go whole; ask for head@s".into()),
        (true, Kind::Head) => Err("it makes no attention heads; ask for channel@s".into()),
    }
}

/// The graph with each class at the size in `sizes`, all others as they are.
///
/// # Errors
/// [`Error::Shrink`] when a layer's operation does not give the shape that its axes say.
pub fn resized(graph: &Graph, groups: &Groups, sizes: &BTreeMap<ClassId, u64>) -> Result<Graph> {
    let mut small = graph.clone();
    let size = |c: ClassId, n: u64| sizes.get(&c).copied().unwrap_or(n);
    let extent = |axis: &Axis| axis.extent_with(&size);
    for &node in graph.order() {
        let inputs: Vec<Vec<u64>> = graph
            .inputs(node)
            .into_iter()
            .map(|(n, o)| groups.outputs(n).get(o as usize).map_or_else(Vec::new, |a| a.iter().map(extent).collect()))
            .collect();
        let layer = small.layer_mut(node);
        for (tensor, axes) in layer.outputs.iter_mut().zip(groups.outputs(node)) {
            tensor.shape = axes.iter().map(extent).collect();
        }
        for (param, axes) in layer.params.iter_mut().zip(groups.params(node)) {
            param.shape = axes.iter().map(extent).collect();
        }
        let old_channels = graph.input_shapes(node).first().and_then(|x| x.get(1)).copied();
        let new_channels = inputs.first().and_then(|x| x.get(1)).copied();
        let before = groups.before(node);
        let out = layer.outputs.first().map_or_else(Vec::new, |t| t.shape.clone());
        let parts: Vec<Vec<u64>> = layer.outputs.iter().map(|t| t.shape.clone()).collect();
        match &mut layer.op {
            Op::Conv(c) => {
                if let (Some(&n), Some(old), Some(new)) = (out.get(1), old_channels, new_channels) {
                    c.out = n;
                    if c.groups > 1 && c.groups == old {
                        c.groups = new;
                    }
                }
            }
            Op::Linear(l) => l.out = out.last().copied().unwrap_or(l.out),
            Op::Embedding { dim, .. } => *dim = out.last().copied().unwrap_or(*dim),
            Op::Attention(a) => {
                // Heads and features per head are frozen apart from one another: widths divide by the same head.
                let width = |i: usize| inputs.get(i).and_then(|x| x.last()).copied();
                let old = graph.input_shapes(node);
                let scaled = |heads: u64, i: usize| {
                    let per = old.get(i).and_then(|x| x.last()).map_or(0, |w| w / heads.max(1));
                    width(i).and_then(|w| w.checked_div(per)).unwrap_or(heads)
                };
                (a.heads, a.kv_heads) = (scaled(a.heads, 0), scaled(a.kv_heads, 1));
            }
            Op::Split { axis, sizes } => {
                for (size, shape) in sizes.iter_mut().zip(&parts) {
                    *size = shape.get(*axis).copied().unwrap_or(*size);
                }
            }
            Op::Slice { ranges } => {
                for (range, front) in ranges.iter_mut().zip(before) {
                    if range.step == 1 {
                        range.start = extent(front);
                        range.len = out.get(range.axis).copied().unwrap_or(range.len);
                    }
                }
            }
            // What stays keeps its spelling, copied and inferred extents included.
            Op::Reshape { shape } | Op::Resize { shape } | Op::Expand { shape } if out != graph.layer(node).shape() => {
                *shape = out;
            }
            Op::Reshape { .. } | Op::Resize { .. } | Op::Expand { .. } => {}
            Op::Input
            | Op::Parameter
            | Op::MatMul { .. }
            | Op::Recurrent(_)
            | Op::Norm(_)
            | Op::Pointwise(_)
            | Op::Softmax { .. }
            | Op::Pool(_)
            | Op::Reduce { .. }
            | Op::Concat { .. }
            | Op::Transpose { .. }
            | Op::Pad { .. }
            | Op::Gather { .. }
            | Op::Opaque => {}
        }
    }
    verify(graph, &small)?;
    Ok(small)
}

/// Infers every shape of the smaller graph again, wherever inference gives the shapes of the graph before.
fn verify(before: &Graph, after: &Graph) -> Result<()> {
    for &node in before.order() {
        let inferred = |g: &Graph| -> Option<bool> {
            let layer = g.layer(node);
            let shapes = shape::infer(&layer.op, &g.input_shapes(node)).ok()?;
            Some(shapes.iter().eq(layer.outputs.iter().map(|t| &t.shape)))
        };
        if inferred(before) == Some(true) && inferred(after) != Some(true) {
            let layer = after.layer(node);
            return Err(Error::Shrink {
                pattern: "channel or head removal".into(),
                layer: layer.name.clone(),
                reason: format!(
                    "the smaller graph contradicts itself here ({}); leave this layer dense",
                    layer.spelled
                ),
            });
        }
    }
    Ok(())
}
