//! What happens to which stored tensor, so that a network becomes what its assignment says.

use super::choose::{Choose, Origin};
use super::permute::{self, Permuted};
use super::tensor::{Edit, Masked, View};
use super::units;
use crate::error::{Error, Result};
use crate::lower::Assignment;
use crate::lower::shrink::{self, Outcome};
use crate::pattern::SparsityPattern;
use crate::sparsity::groups::{ClassId, Groups, Kind, Side};
use crate::sparsity::mask::kept;
use crate::sparsity::select;
use crate::workload::graph::Graph;
use crate::workload::layer::{Layer, Op, Param, Role};
use crate::workload::weights::{Stored, Weights, width};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is asked for.
#[derive(Clone)]
pub struct Request<'a> {
    /// Which layer gets which pattern.
    pub assignment: &'a Assignment,
    /// What decides which weights stay.
    pub choose: &'a dyn Choose,
    /// Channels and heads that go are zeroed in every stored tensor instead of removed.
    pub zero_in_place: bool,
    /// Whether a rule that names one layer must be followed, so that it is an error when it cannot be.
    pub strict: bool,
    /// What integers store for zero, by the tensor's name: one byte, or one for each output.
    pub zeros: HashMap<String, Vec<u8>>,
    /// Extents that channels and heads leave are multiples of this where that still removes something; 1: as they come.
    pub round_to: u64,
    /// Whether units of all groups of one kind and fraction compete with one another, by their mean score a weight.
    pub global: bool,
    /// A seed: channels may take another order under which N:M keeps more; none: they stay where they are.
    pub permute: Option<u64>,
}

impl Request<'_> {
    /// Whether what cannot be done at a layer is an error.
    fn insists(&self, layer: &str) -> bool {
        self.strict && self.assignment.rule(layer).is_some_and(|r| r.names_one_layer(layer))
    }
}

/// Units of a group that go.
#[derive(Clone, Debug)]
pub struct Removed {
    /// The group.
    pub class: ClassId,
    /// What a unit is.
    pub kind: Kind,
    /// Layers that make its channels.
    pub producers: Vec<String>,
    /// For each unit, whether it stays.
    pub keep: Vec<bool>,
    /// A layer that takes a statistic over the channels, so that removing is not zeroing.
    pub mixed_by: Option<String>,
}

/// A layer that keeps what a pattern asked to take, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untouched {
    /// The layer.
    pub layer: String,
    /// The pattern asked for.
    pub pattern: String,
    /// Why nothing went.
    pub reason: String,
}

/// Everything that is to happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Edits of stored tensors, in the order of the network.
    pub edits: Vec<Edit>,
    /// Place of a tensor's edit by its name.
    pub by_name: HashMap<String, usize>,
    /// Units that go.
    pub removed: Vec<Removed>,
    /// Channels that are in another order.
    pub permuted: Vec<Permuted>,
    /// The network as its shapes will be.
    pub after: Graph,
    /// Where a slice or split begins, by layer.
    pub groups: Groups,
    /// What was asked for and is not done.
    pub untouched: Vec<Untouched>,
    ambiguous: BTreeSet<String>,
}

impl Plan {
    /// Decides what happens. Groups in `refused` keep all their units, for the reason given; tensors in `ambiguous` stay
    /// as they are, because several have their name.
    ///
    /// # Errors
    /// A rule that matches nothing; a pattern that a rule asks of one layer by its name and that cannot be followed.
    pub fn of(
        graph: &Graph,
        weights: &Weights,
        request: &Request,
        refused: &BTreeMap<ClassId, String>,
        ambiguous: &BTreeSet<String>,
    ) -> Result<Self> {
        let layers: Vec<&str> = graph.layers().filter(|l| l.weight().is_some()).map(|l| l.name.as_str()).collect();
        request.assignment.check(layers.into_iter())?;
        let groups = Groups::analyse(graph);
        let mut plan = Self {
            edits: Vec::new(),
            by_name: HashMap::new(),
            removed: Vec::new(),
            permuted: Vec::new(),
            after: graph.clone(),
            groups,
            untouched: Vec::new(),
            ambiguous: ambiguous.clone(),
        };
        plan.units(graph, weights, request, refused)?;
        plan.slices(graph, weights, request)?;
        if let Some(seed) = request.permute {
            plan.orders(graph, weights, request, seed)?;
        }
        for layer in graph.layers() {
            plan.mask(layer, weights, request)?;
        }
        Ok(plan)
    }

    /// Which units of which groups go.
    fn units(
        &mut self,
        graph: &Graph,
        weights: &Weights,
        request: &Request,
        refused: &BTreeMap<ClassId, String>,
    ) -> Result<()> {
        let asked = |l: &Layer| Some(request.assignment.choice(&l.name).pattern).filter(|_| l.weight().is_some());
        let shrunk = shrink::shrink_rounded(graph, asked, request.round_to)?;
        for outcome in shrunk.outcomes {
            let Outcome::NotApplicable(reason) = &outcome.outcome else { continue };
            if request.insists(&outcome.layer) {
                outcome.required()?;
            }
            let pattern = outcome.pattern.to_string();
            self.untouched.push(Untouched { layer: outcome.layer, pattern, reason: reason.clone() });
        }
        let mut cuts = Vec::new();
        for cut in shrunk.cuts {
            if cut.kept == cut.total && !request.global {
                continue;
            }
            let blocked = refused.get(&cut.class).cloned().or_else(|| self.unreachable(graph, weights, cut.class));
            let Some(reason) = blocked else {
                let scores = units::scores(graph, weights, &self.groups, cut.class, request.choose)?;
                cuts.push((cut, scores));
                continue;
            };
            for layer in &cut.producers {
                let pattern = request.assignment.choice(layer).pattern;
                if !pattern.shrinks_graph() {
                    continue;
                }
                if request.insists(layer) {
                    return Err(Error::Shrink { pattern: pattern.to_string(), layer: layer.clone(), reason });
                }
                let pattern = pattern.to_string();
                self.untouched.push(Untouched { layer: layer.clone(), pattern, reason: reason.clone() });
            }
        }
        if request.global {
            self.compete(graph, &mut cuts, request.round_to);
        }
        let mut sizes = BTreeMap::new();
        for (cut, scores) in cuts {
            let Some(group) = self.groups.group(cut.class) else { continue };
            if cut.kept == cut.total {
                continue;
            }
            sizes.insert(cut.class, cut.kept);
            self.removed.push(Removed {
                class: cut.class,
                kind: cut.kind,
                producers: cut.producers,
                keep: select::units(&scores, cut.kept),
                mixed_by: group.mixed_by.clone(),
            });
        }
        if !request.zero_in_place {
            self.after = shrink::resized(graph, &self.groups, &sizes)?;
        }
        Ok(())
    }

    /// Why the stored tensors of a group cannot be cut.
    pub(super) fn unreachable(&self, graph: &Graph, weights: &Weights, class: ClassId) -> Option<String> {
        let group = self.groups.group(class)?;
        group.members.iter().find_map(|m| {
            let layer = graph.layer(m.node);
            let param = &layer.params[m.param];
            let place = format!("{} `{}`", layer.spelled, layer.name);
            match weights.get(&param.name) {
                None => Some(format!("{place} reads `{}`, which other tensors are computed into", param.name)),
                Some(_) if self.ambiguous.contains(&param.name) => {
                    Some(format!("{place} reads one of several tensors with the name `{}`", param.name))
                }
                Some(_) if weights.reordered.contains(&param.name) => {
                    Some(format!("{place} reads `{}` with its axes in another order", param.name))
                }
                Some(stored) if aligned(&stored.shape, &param.shape).is_none() => {
                    Some(format!("{place} reads `{}` in another shape than it is stored in", param.name))
                }
                Some(stored) => match stored.raw() {
                    Err(e) => Some(format!("`{}` {e}", param.name)),
                    Ok(_) if stored.elem.bits() < 8 => Some(format!("`{}` packs elements into bytes", param.name)),
                    Ok(_) => None,
                },
            }
        })
    }

    /// Deals the units that stay over all groups of one kind and fraction: those with the largest mean score a weight,
    /// so that a group with long filters has no advantage; every group keeps one at least.
    fn compete(&self, graph: &Graph, cuts: &mut [(shrink::Cut, Vec<f64>)], round_to: u64) {
        let contests: BTreeSet<(bool, u64)> =
            cuts.iter().map(|(c, _)| (c.kind == Kind::Head, c.fraction.to_bits())).collect();
        for (heads, fraction) in contests {
            let inside = |c: &shrink::Cut| (c.kind == Kind::Head, c.fraction.to_bits()) == (heads, fraction);
            let mut all: Vec<(f64, usize, usize)> = Vec::new();
            for (place, (cut, scores)) in cuts.iter().enumerate().filter(|(_, (c, _))| inside(c)) {
                let weights = self.weights_of_a_unit(graph, cut.class, cut.total);
                all.extend(scores.iter().enumerate().map(|(unit, s)| (s / weights, place, unit)));
            }
            let keep = kept(all.len() as u64, f64::from_bits(fraction)) as usize;
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
            let mut stays = vec![0u64; cuts.len()];
            all[..keep.min(all.len())].iter().for_each(|&(_, place, _)| stays[place] += 1);
            for (place, (cut, _)) in cuts.iter_mut().enumerate().filter(|(_, (c, _))| inside(c)) {
                let width = self.groups.group(cut.class).map_or(1, |g| g.width);
                let share = 1.0 - stays[place].max(1) as f64 / cut.total as f64;
                cut.kept = select::round_units(cut.total, width, share, round_to);
            }
        }
    }

    /// Weights that make one unit of a group, on average.
    fn weights_of_a_unit(&self, graph: &Graph, class: ClassId, units: u64) -> f64 {
        let Some(group) = self.groups.group(class) else { return 1.0 };
        let made = group.members.iter().filter(|m| m.side == Side::Produces).map(|m| {
            let param = &graph.layer(m.node).params[m.param];
            let extent = param.shape[m.axis].max(1);
            let of = self.groups.params(m.node)[m.param][m.axis].width(class) * units;
            if param.role == Role::Weight {
                param.shape.iter().product::<u64>() as f64 * of as f64 / extent as f64
            } else {
                0.0
            }
        });
        (made.sum::<f64>() / units.max(1) as f64).max(1.0)
    }

    /// The indices that go from every stored tensor.
    fn slices(&mut self, graph: &Graph, weights: &Weights, request: &Request) -> Result<()> {
        let keep: HashMap<ClassId, Vec<bool>> = self.removed.iter().map(|r| (r.class, r.keep.clone())).collect();
        for &node in graph.order() {
            for (i, param) in graph.layer(node).params.iter().enumerate() {
                let axes = &self.groups.params(node)[i];
                let masks: Vec<Option<Vec<bool>>> = axes
                    .iter()
                    .map(|axis| {
                        let mut cut = false;
                        axis.each_class(&mut |c, _| cut |= keep.contains_key(&c));
                        cut.then(|| axis.mask(&|c, u| keep.get(&c).is_none_or(|k| k[u as usize])))
                    })
                    .collect();
                if masks.iter().all(Option::is_none) {
                    continue;
                }
                let Some(stored) = weights.get(&param.name) else { continue };
                let Some(places) = aligned(&stored.shape, &param.shape) else { continue };
                let at = self.edit(stored);
                self.edits[at].zero_in_place = request.zero_in_place;
                for (axis, mask) in masks.into_iter().enumerate() {
                    let (Some(mask), Some(place)) = (mask, places[axis]) else { continue };
                    let slot = &mut self.edits[at].keep[place];
                    if slot.as_ref().is_some_and(|old| *old != mask) {
                        return Err(Error::Shrink {
                            pattern: "channel or head removal".into(),
                            layer: graph.layer(node).name.clone(),
                            reason: format!("`{}` is shared by layers that lose different channels", param.name),
                        });
                    }
                    *slot = Some(mask);
                }
            }
        }
        Ok(())
    }

    /// The order of every stored tensor's indices, where channels take another one.
    fn orders(&mut self, graph: &Graph, weights: &Weights, request: &Request, seed: u64) -> Result<()> {
        if !request.choose.by_element() {
            let reason = "needs a criterion that looks at weights one by one (magnitude, l2, random): statistics name \
                          columns by their places";
            return Err(Error::argument("--permute", reason));
        }
        let (permuted, untouched) = permute::orders(self, graph, weights, request, seed)?;
        let orders: HashMap<ClassId, &[usize]> = permuted.iter().map(|p| (p.class, &p.order[..])).collect();
        for &node in graph.order() {
            for (i, param) in graph.layer(node).params.iter().enumerate() {
                let mut found = Vec::new();
                for (axis, tree) in self.groups.params(node)[i].iter().enumerate() {
                    let mut moves = false;
                    tree.each_class(&mut |c, _| moves |= orders.contains_key(&c));
                    if moves {
                        found.push((axis, tree.reordered(&|c| orders.get(&c).copied())));
                    }
                }
                let Some(stored) = weights.get(&param.name).filter(|_| !found.is_empty()) else { continue };
                let Some(places) = aligned(&stored.shape, &param.shape) else { continue };
                let at = self.edit(stored);
                for (axis, order) in found {
                    if let Some(place) = places[axis] {
                        self.edits[at].order[place] = Some(order);
                    }
                }
            }
        }
        self.permuted = permuted;
        self.untouched.extend(untouched);
        Ok(())
    }

    fn edit(&mut self, stored: &Stored) -> usize {
        *self.by_name.entry(stored.name.clone()).or_insert_with(|| {
            self.edits.push(Edit::new(stored.clone()));
            self.edits.len() - 1
        })
    }

    /// The mask of a layer's weights.
    fn mask(&mut self, layer: &Layer, weights: &Weights, request: &Request) -> Result<()> {
        let pattern = request.assignment.choice(&layer.name).pattern;
        if pattern.shrinks_graph() || pattern.is_dense() {
            return Ok(());
        }
        for param in layer.params.iter().filter(|p| p.role == Role::Weight) {
            if let Err(reason) = self.mask_param(layer, param, weights, request, pattern) {
                if request.insists(&layer.name) {
                    let text = format!("{}={pattern}", layer.name);
                    return Err(Error::Pattern { text, reason });
                }
                self.untouched.push(Untouched { layer: layer.name.clone(), pattern: pattern.to_string(), reason });
            }
        }
        Ok(())
    }

    fn mask_param(
        &mut self,
        layer: &Layer,
        param: &Param,
        weights: &Weights,
        request: &Request,
        pattern: SparsityPattern,
    ) -> Result<(), String> {
        let name = &param.name;
        let stored = weights.get(name).ok_or_else(|| format!("`{name}` is computed from other tensors"))?;
        if weights.reordered.contains(name) {
            return Err(format!("`{name}` reaches it with its axes in another order"));
        }
        if self.ambiguous.contains(name) {
            return Err(format!("several tensors have the name `{name}`"));
        }
        if width(stored.elem).is_none() {
            return Err(format!("`{name}` is stored as {:?}, which is not masked", stored.elem));
        }
        if stored.elements() != param.elements().map_err(|e| e.to_string())? {
            return Err(format!("`{name}` has another number of elements there"));
        }
        stored.raw().map_err(|e| format!("`{name}` {e}"))?;
        let at = self.edit(stored);
        if let Some(first) = &self.edits[at].mask {
            if first.pattern == pattern {
                return Ok(());
            }
            return Err(format!("`{name}` is shared with `{}`, whose pattern it has", first.layer));
        }
        let shape: Vec<u64> = if self.edits[at].is_cut() && !request.zero_in_place {
            let places = aligned(&stored.shape, &param.shape).ok_or_else(|| format!("`{name}` has another shape"))?;
            let after = self.edits[at].shape();
            places.iter().map(|p| p.map_or(1, |p| after[p])).collect()
        } else {
            param.shape.clone()
        };
        let view = view(layer, param, &shape).ok_or_else(|| format!("`{name}` is no matrix of outputs by inputs"))?;
        let zero = request.zeros.get(name).cloned().unwrap_or_default();
        let from = self.origin(&self.edits[at], layer, param);
        self.edits[at].mask = Some(Masked { layer: layer.name.clone(), pattern, view, zero, from });
        Ok(())
    }

    /// Which rows and columns of a layer's one matrix an edit leaves, in their new order; `None` where it leaves all as
    /// they are.
    fn origin(&self, edit: &Edit, layer: &Layer, param: &Param) -> Option<Origin> {
        let places = aligned(&edit.source.shape, &param.shape)?;
        let before = view(layer, param, &param.shape).filter(|v| v.groups == 1)?;
        let moved = |p: usize| edit.order[p].is_some() || edit.keep[p].is_some() && !edit.zero_in_place;
        if !places.iter().flatten().any(|&p| moved(p)) {
            return None;
        }
        let left = |axis: usize| -> Vec<usize> {
            let Some(place) = places[axis] else { return vec![0] };
            let order = edit.order[place].clone();
            let all = order.unwrap_or_else(|| (0..param.shape[axis] as usize).collect());
            let stays = |i: &usize| edit.zero_in_place || edit.keep[place].as_ref().is_none_or(|k| k[*i]);
            all.into_iter().filter(stays).collect()
        };
        let flat = |axes: std::ops::Range<usize>| {
            axes.fold(vec![0], |outer: Vec<usize>, axis| {
                let (inner, extent) = (left(axis), param.shape[axis] as usize);
                outer.iter().flat_map(|o| inner.iter().map(move |i| o * extent + i)).collect()
            })
        };
        let rank = param.shape.len();
        // Outputs are the first axis, or the last of a matrix that is stored the other way; filters' taps go with inputs,
        // a transposed convolution's with outputs.
        let (rows, cols) = match &layer.op {
            Op::Conv(c) if c.transposed => (flat(1..rank), flat(0..1)),
            Op::Conv(_) => (flat(0..1), flat(1..rank)),
            _ if param.transposed => (flat(rank - 1..rank), flat(0..rank - 1)),
            _ => (flat(0..rank - 1), flat(rank - 1..rank)),
        };
        Some(Origin { extents: (before.n, before.k), rows, cols })
    }

    /// Whether shapes differ from those before.
    pub fn after_differs(&self) -> bool {
        self.edits.iter().any(|e| e.shape() != e.source.shape)
    }
}

/// For each axis of `param`, the axis of `stored` that it is, where the two differ in axes of extent 1 alone.
fn aligned(stored: &[u64], param: &[u64]) -> Option<Vec<Option<usize>>> {
    if stored == param {
        return Some((0..param.len()).map(Some).collect());
    }
    let mut long = stored.iter().enumerate().filter(|(_, d)| **d != 1);
    let mut places = Vec::with_capacity(param.len());
    for &d in param {
        places.push(if d == 1 { None } else { Some(long.next().filter(|(_, s)| **s == d)?.0) });
    }
    long.next().is_none().then_some(places)
}

/// How a layer's weight of this shape is matrices. Grouped filters are one matrix of all outputs, as `[out, in]` is.
pub fn view(layer: &Layer, param: &Param, shape: &[u64]) -> Option<View> {
    let size = |dims: &[u64]| usize::try_from(dims.iter().product::<u64>()).ok();
    let (groups, n, k, transposed) = match &layer.op {
        Op::Conv(c) if c.transposed => {
            let groups = usize::try_from(c.groups.max(1)).ok()?;
            (groups, size(&shape[1..])?, size(&shape[..1])? / groups, true)
        }
        Op::Conv(_) => (1, size(&shape[..1])?, size(&shape[1..])?, false),
        Op::Linear(_) | Op::Recurrent(_) if shape.len() >= 2 => {
            let (ahead, last) = shape.split_at(shape.len() - 2);
            let (a, b) = (size(&last[..1])?, size(&last[1..])?);
            if param.transposed { (size(ahead)?, b, a, true) } else { (1, size(ahead)? * a, b, false) }
        }
        _ => return None,
    };
    (groups * n * k > 0).then_some(View { groups, n, k, transposed })
}
