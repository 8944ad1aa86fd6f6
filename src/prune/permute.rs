//! Column permutation: channels in an order under which N:M keeps more (Pool & Yu, NeurIPS 2021).
//!
//! The columns of a weight matrix are the channels that it reads. Every tensor that makes, follows or reads the channels
//! of a dependency group takes the same order, so that the dense network computes what it did; where that cannot be, the
//! layer keeps its order and the reason is given.

use super::plan::{Plan, Request, Untouched, view};
use super::saliency::{at, matrix};
use crate::error::Result;
use crate::pattern::SparsityPattern;
use crate::sparsity::groups::{Axis, ClassId, Group, Kind, Member, Side};
use crate::sparsity::saliency::Matrix;
use crate::sparsity::select;
use crate::workload::graph::Graph;
use crate::workload::layer::{Layer, NormKind, Op, Role};
use crate::workload::weights::Weights;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Channels of a group in another order.
#[derive(Clone, Debug, PartialEq)]
pub struct Permuted {
    /// The group.
    pub class: ClassId,
    /// Layers that make the channels.
    pub producers: Vec<String>,
    /// Layers whose N:M keeps more.
    pub consumers: Vec<String>,
    /// Share of their scores that N:M kept before, and keeps now.
    pub kept: (f64, f64),
    /// The channel that comes to each place.
    pub order: Vec<usize>,
}

/// The orders that keep more, and the layers with N:M whose channels must stay as they are. Of a network that is then
/// masked, the kept scores are never less than without.
///
/// # Errors
/// What the criterion lacks for a layer.
pub(super) fn orders(
    plan: &Plan,
    graph: &Graph,
    weights: &Weights,
    request: &Request,
    seed: u64,
) -> Result<(Vec<Permuted>, Vec<Untouched>)> {
    let search = Search { plan, graph, weights, request, seed };
    let found: Vec<(&Group, Option<Outcome>)> =
        plan.groups.all().par_iter().map(|group| Ok((group, search.group(group)?))).collect::<Result<_>>()?;
    let (mut orders, mut reasons, mut fed) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (group, outcome) in found {
        let Some(outcome) = outcome else { continue };
        fed.extend(search.readers(group).map(|m| m.node));
        match outcome {
            Outcome::Better(order) => orders.push(order),
            Outcome::AsGood => {}
            Outcome::Refused(reason) => {
                for member in search.readers(group) {
                    reasons.push(search.untouched(graph.layer(member.node), reason.clone()));
                }
            }
        }
    }
    for &node in graph.order() {
        let layer = graph.layer(node);
        if search.group_of(layer).is_some() && layer.weight().is_some() && !fed.contains(&node) {
            let reason = "what it reads is made of no channels that could change their order".to_owned();
            reasons.push(search.untouched(layer, reason));
        }
    }
    Ok((orders, reasons))
}

enum Outcome {
    Better(Permuted),
    AsGood,
    Refused(String),
}

struct Search<'a> {
    plan: &'a Plan,
    graph: &'a Graph,
    weights: &'a Weights,
    request: &'a Request<'a>,
    seed: u64,
}

impl Search<'_> {
    /// N and M of a layer's pattern, where it is one.
    fn group_of(&self, layer: &Layer) -> Option<(u64, u64)> {
        match self.request.assignment.choice(&layer.name).pattern {
            SparsityPattern::Nm { n, m } => Some((n, m)),
            _ => None,
        }
    }

    fn readers<'g>(&'g self, group: &'g Group) -> impl Iterator<Item = &'g Member> {
        let reads = |m: &&Member| m.side == Side::Consumes && self.group_of(self.graph.layer(m.node)).is_some();
        group.members.iter().filter(reads)
    }

    fn untouched(&self, layer: &Layer, reason: String) -> Untouched {
        let pattern = self.request.assignment.choice(&layer.name).pattern;
        let reason = format!("is masked in the order of its columns as they are: {reason}");
        Untouched { layer: layer.name.clone(), pattern: pattern.to_string(), reason }
    }

    /// `None` for a group that no layer with N:M reads.
    fn group(&self, group: &Group) -> Result<Option<Outcome>> {
        if self.readers(group).next().is_none() {
            return Ok(None);
        }
        if let Some(reason) = self.refusal(group) {
            return Ok(Some(Outcome::Refused(reason)));
        }
        let (mut scores, mut rows, mut seen, mut nm) = (Vec::new(), 0, BTreeSet::new(), None);
        for member in self.readers(group) {
            let layer = self.graph.layer(member.node);
            let param = &layer.params[member.param];
            if !seen.insert(param.name.as_str()) {
                continue;
            }
            let own = self.group_of(layer);
            if nm.is_some() && nm != own {
                return Ok(Some(Outcome::Refused("its channels are read under two patterns".to_owned())));
            }
            nm = own;
            let (values, n, k) = match matrix(layer, param, self.weights) {
                Ok(read) => read,
                Err(reason) => return Ok(Some(Outcome::Refused(reason))),
            };
            let scored = self.request.choose.scores(&layer.name, Matrix { weights: &values, n, k });
            scores.extend(scored.map_err(|e| at(e, layer))?);
            rows += n;
        }
        let (Some((n, m)), Ok(columns)) = (nm, usize::try_from(group.size)) else { return Ok(None) };
        let order = select::permutation(&scores, rows, columns, n, m, self.seed)?;
        let plain: Vec<usize> = (0..columns).collect();
        let kept = |order: &[usize]| select::kept_in_order(&scores, columns, order, n, m);
        let kept = (kept(&plain), kept(&order));
        let names = |side| {
            let names = group.members.iter().filter(|m| m.side == side);
            let names: BTreeSet<_> = names.map(|m| (m.node, m.layer.clone())).collect();
            names.into_iter().map(|(_, name)| name).collect()
        };
        Ok(Some(if kept.1 > kept.0 {
            let (producers, consumers) = (names(Side::Produces), names(Side::Consumes));
            Outcome::Better(Permuted { class: group.class, producers, consumers, kept, order })
        } else {
            Outcome::AsGood
        }))
    }

    /// Why the channels of a group cannot change their order, or why it would not help.
    fn refusal(&self, group: &Group) -> Option<String> {
        if let Some(reason) = &group.frozen {
            return Some(reason.clone());
        }
        if group.kind == Kind::Head {
            return Some("what it reads are heads, whose order changes nothing within them".to_owned());
        }
        if self.plan.removed.iter().any(|r| r.class == group.class) {
            return Some("some of the channels that it reads are removed".to_owned());
        }
        if let Some(reason) = self.plan.unreachable(self.graph, self.weights, group.class) {
            return Some(reason);
        }
        for member in self.readers(group) {
            let layer = self.graph.layer(member.node);
            let param = &layer.params[member.param];
            let plain =
                self.plan.groups.params(member.node)[member.param][member.axis] == Axis::Class(group.class, group.size);
            if !plain {
                return Some(format!("`{}` reads the channels joined with others or in several places", layer.name));
            }
            if view(layer, param, &param.shape).is_none_or(|v| v.k as u64 != group.size || v.transposed && v.groups > 1)
            {
                return Some(format!("each channel is several columns of `{}`", layer.name));
            }
        }
        for member in &group.members {
            let layer = self.graph.layer(member.node);
            let param = &layer.params[member.param];
            let pattern = self.request.assignment.choice(&layer.name).pattern;
            let rows = matches!(pattern, SparsityPattern::Block { .. } | SparsityPattern::Vnm { .. });
            if rows && param.role == Role::Weight {
                return Some(format!("`{}` has {pattern}, whose units another order would tear", layer.name));
            }
            if self.request.zeros.get(&param.name).is_some_and(|z| z.len() > 1) {
                return Some(format!("`{}` has a zero point for each of its rows", layer.name));
            }
        }
        let adjacent = |layer: &&Layer| matches!(&layer.op, Op::Norm(n) if n.kind == NormKind::LocalResponse);
        let touches = |node| {
            let mut found = false;
            let axes = self.plan.groups.outputs(node).iter().flatten();
            axes.for_each(|a| a.each_class(&mut |c, _| found |= c == group.class));
            found
        };
        let order = self.graph.order().iter().filter(|&&node| touches(node)).map(|&node| self.graph.layer(node));
        let neighbours = order.filter(adjacent).map(|l| format!("`{}` looks at neighbouring channels", l.name));
        neighbours.into_iter().next()
    }
}
