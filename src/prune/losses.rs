//! What a network's own weights lose under each pattern: the losses that a search weighs.

use super::saliency::{Selector, choose};
use super::{Plan, Request, units};
use crate::error::Result;
use crate::lower::{Assignment, Choice, Rule};
use crate::sparsity::Quality;
use crate::workload::graph::Graph;
use crate::workload::weights::Weights;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Losses by layer and pattern (as it is displayed), each a share in [0, 1] of its layer.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// What was found.
    pub table: BTreeMap<(String, String), f64>,
    /// Layers whose weights could not be read, with the reason.
    pub skipped: BTreeMap<String, String>,
}

/// Prunes every layer by every pattern. A mask loses the squared relative error of the layer's output where its inputs are
/// known, and otherwise the share of the weights' energy that goes; channels and heads lose the energy of the rows that
/// made them.
///
/// # Errors
/// What the criterion lacks for a layer.
pub fn losses(graph: &Graph, weights: &Weights, patterns: &[Choice], selector: &Selector) -> Result<Losses> {
    let mut losses = Losses::default();
    for &pattern in patterns.iter().filter(|p| !p.pattern.is_dense()) {
        let assignment = Assignment { rules: vec![Rule::everywhere(pattern)] };
        let spelled = pattern.pattern.to_string();
        if pattern.pattern.shrinks_graph() {
            for (layer, lost) in removed(graph, weights, &assignment, selector)? {
                losses.table.insert((layer, spelled.clone()), lost);
            }
            continue;
        }
        let choices = choose(graph, weights, &assignment, selector)?;
        let share = |q: &Quality| q.output_error.map_or(1.0 - q.kept_energy, |e| e * e).clamp(0.0, 1.0);
        let rows = choices.layers.iter().map(|c| ((c.layer.clone(), spelled.clone()), share(&c.quality)));
        losses.table.extend(rows);
        losses.skipped.extend(choices.skipped);
    }
    Ok(losses)
}

/// Energy that each layer loses when the groups of an assignment go.
fn removed(
    graph: &Graph,
    weights: &Weights,
    assignment: &Assignment,
    selector: &Selector,
) -> Result<BTreeMap<String, f64>> {
    let request = Request {
        assignment,
        choose: selector,
        zero_in_place: true,
        strict: false,
        zeros: HashMap::new(),
        round_to: 1,
        global: false,
        permute: None,
    };
    let plan = Plan::of(graph, weights, &request, &BTreeMap::new(), &BTreeSet::new())?;
    // A layer may make channels of several groups (of a concatenation): their energies add up.
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for cut in &plan.removed {
        for layer in &cut.producers {
            let energies = units::energies(graph, weights, &plan.groups, cut.class, layer)?;
            let entry = sums.entry(layer.clone()).or_default();
            for (energy, stays) in energies.iter().zip(&cut.keep) {
                entry.0 += if *stays { 0.0 } else { *energy };
                entry.1 += energy;
            }
        }
    }
    Ok(sums.into_iter().filter(|(_, (_, all))| *all > 0.0).map(|(l, (lost, all))| (l, lost / all)).collect())
}
