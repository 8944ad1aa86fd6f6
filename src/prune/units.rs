//! What whole channels and heads count, by any criterion: the scores of every weight that makes them.

use super::choose::Choose;
use super::plan::view;
use super::saliency::matrix;
use crate::error::Result;
use crate::sparsity::groups::{ClassId, Groups, Side};
use crate::sparsity::saliency::Matrix;
use crate::sparsity::select;
use crate::workload::graph::Graph;
use crate::workload::layer::{Layer, Param, Role};
use crate::workload::weights::{Weights, decode, width};
use std::collections::BTreeSet;

/// What each unit of a group counts, summed over all weights that make its channels. Embedding tables, which are no
/// matrices of outputs by inputs, count where the criterion looks at weights one by one.
///
/// # Errors
/// What the criterion lacks for a layer of the group.
pub fn scores(
    graph: &Graph,
    weights: &Weights,
    groups: &Groups,
    class: ClassId,
    choose: &dyn Choose,
) -> Result<Vec<f64>> {
    sums(graph, weights, groups, class, choose.by_element(), &|layer, m| choose.scores(layer, m), &|_| true)
}

/// Squares of the weights with which one layer makes each unit of a group.
///
/// # Errors
/// Weights that are no numbers.
pub fn energies(graph: &Graph, weights: &Weights, groups: &Groups, class: ClassId, layer: &str) -> Result<Vec<f64>> {
    let squares = |_: &str, m: Matrix<'_>| Ok(m.weights.iter().map(|w| w * w).collect());
    sums(graph, weights, groups, class, true, &squares, &|name| name == layer)
}

type Score<'a> = &'a dyn Fn(&str, Matrix<'_>) -> Result<Vec<f32>>;

fn sums(
    graph: &Graph,
    weights: &Weights,
    groups: &Groups,
    class: ClassId,
    by_element: bool,
    score: Score<'_>,
    counts: &dyn Fn(&str) -> bool,
) -> Result<Vec<f64>> {
    let mut seen = BTreeSet::new();
    let mut failure = None;
    let sums = select::channels(groups, class, |m| {
        let layer = graph.layer(m.node);
        let param = &layer.params[m.param];
        if m.side != Side::Produces
            || param.role != Role::Weight
            || !counts(&layer.name)
            || !seen.insert((param.name.clone(), m.axis))
        {
            return None;
        }
        let scores = match in_order(layer, param, weights, by_element)? {
            Elements::Matrix { values, n, k, groups, transposed } => {
                let scored = score(&layer.name, Matrix { weights: &values, n, k });
                scored.map(|s| if transposed { stored_order(&s, n / groups, k, groups) } else { s })
            }
            Elements::Plain(values) => score(&layer.name, Matrix { weights: &values, n: 1, k: values.len() }),
        };
        scores.map_err(|e| failure = Some(e)).ok()
    })?;
    match failure {
        Some(e) => Err(e),
        None => Ok(sums),
    }
}

enum Elements {
    Matrix { values: Vec<f32>, n: usize, k: usize, groups: usize, transposed: bool },
    Plain(Vec<f32>),
}

/// A parameter's elements as the criterion wants them; `None` where they cannot be read that way.
fn in_order(layer: &Layer, param: &Param, weights: &Weights, by_element: bool) -> Option<Elements> {
    if by_element {
        let stored = weights.get(&param.name)?;
        let (raw, bytes) = (stored.raw().ok()?, width(stored.elem)?);
        let mut values = vec![0f32; raw.len() / bytes];
        decode(stored.elem, &raw, &mut values);
        return Some(Elements::Plain(values));
    }
    let v = view(layer, param, &param.shape)?;
    let (values, n, k) = matrix(layer, param, weights).ok()?;
    Some(Elements::Matrix { values, n, k, groups: v.groups, transposed: v.transposed })
}

/// Scores of `[n, k]` matrices as the elements are stored, `[k, n]` each.
fn stored_order(scores: &[f32], n: usize, k: usize, groups: usize) -> Vec<f32> {
    let mut stored = vec![0f32; scores.len()];
    for group in 0..groups {
        for r in 0..n {
            let row = &scores[(group * n + r) * k..][..k];
            row.iter().enumerate().for_each(|(c, &s)| stored[(group * k + c) * n + r] = s);
        }
    }
    stored
}
