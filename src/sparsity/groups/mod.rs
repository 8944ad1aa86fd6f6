//! Which channels and heads must go together: dependency groups through the graph (DepGraph, Fang et al., CVPR 2023).
//!
//! Every axis of every activation and parameter gets a structure ([`Axis`]) in terms of dimension classes; each class
//! that a layer's weights make is one group. A group that nothing freezes can lose any of its units: [`Axis::mask`]
//! says which indices of which stored tensor each unit stands for, [`Axis::extent_with`] what is left.

mod axes;
mod follow;
mod settle;

pub use axes::{Axis, ClassId};

use crate::workload::graph::Graph;
use crate::workload::layer::{Op, Role};
use axes::Space;
use follow::{Follow, Layout};
use petgraph::graph::NodeIndex;
use std::collections::{BTreeMap, BTreeSet};

/// What a unit of a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A channel or feature.
    Channel,
    /// An attention head; with grouped queries a key/value head and all its query heads.
    Head,
}

/// How a parameter takes part in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Rows of a weight matrix (and its bias): the layer makes the channels.
    Produces,
    /// Columns of a weight matrix: the layer reads the channels.
    Consumes,
    /// One value a channel on the way: normalisation, slopes, stored operands.
    Follows,
}

/// One axis of one stored tensor in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The layer's name.
    pub layer: String,
    /// The layer's place in the graph.
    pub node: NodeIndex,
    /// Position in the layer's parameters.
    pub param: usize,
    /// Axis of the stored tensor.
    pub axis: usize,
    /// What it does there.
    pub side: Side,
    /// Indices along the axis that one unit stands for.
    pub width: u64,
}

/// Channels or heads that must go together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its class, as it stands in every [`Axis`].
    pub class: ClassId,
    /// What a unit is.
    pub kind: Kind,
    /// Units that it has.
    pub size: u64,
    /// Output channels that one unit stands for in the first layer that makes them.
    pub width: u64,
    /// Everything stored that it touches, in the order of the graph.
    pub members: Vec<Member>,
    /// Why nothing of it may go; `None` where units may.
    pub frozen: Option<String>,
    /// A layer that takes a statistic over the channels (layer norm, mean): a network without them is valid, but
    /// differs from one where they are zero.
    pub mixed_by: Option<String>,
}

impl Group {
    /// Names of the layers that make its channels.
    pub fn producers(&self) -> Vec<&str> {
        self.names(Side::Produces)
    }

    /// Names of the layers that read its channels.
    pub fn consumers(&self) -> Vec<&str> {
        self.names(Side::Consumes)
    }

    fn names(&self, side: Side) -> Vec<&str> {
        let mut names: Vec<&str> = self.members.iter().filter(|m| m.side == side).map(|m| m.layer.as_str()).collect();
        names.dedup();
        names
    }
}

/// The dependency groups of a graph, with the structure of every axis.
#[derive(Clone, Debug)]
pub struct Groups {
    list: Vec<Group>,
    layouts: Vec<Layout>,
    space: Space,
}

impl Groups {
    /// Follows every axis of every tensor through the graph. What cannot be followed is frozen with the operator's name.
    pub fn analyse(graph: &Graph) -> Self {
        let Follow { mut space, mut layouts, heads, mixed, .. } = Follow::run(graph);
        for layout in &mut layouts {
            let tensors = layout.outputs.iter_mut().chain(&mut layout.params);
            for axis in tensors.flatten().chain(&mut layout.before) {
                *axis = space.resolve(axis);
            }
        }
        let mut head_classes = BTreeSet::new();
        for axis in &heads {
            space.resolve(axis).each_class(&mut |c, _| {
                head_classes.insert(c);
            });
        }
        let mut mixed_by: BTreeMap<ClassId, String> = BTreeMap::new();
        for (axis, place) in &mixed {
            space.resolve(axis).each_class(&mut |c, _| {
                mixed_by.entry(c).or_insert_with(|| place.clone());
            });
        }
        let mut members: BTreeMap<ClassId, (u64, Vec<Member>)> = BTreeMap::new();
        for &node in graph.order() {
            let layout = &layouts[node.index()];
            for (param, axes) in layout.params.iter().enumerate() {
                for (axis, tree) in axes.iter().enumerate() {
                    let side = side(graph, node, param, axis);
                    let mut seen = BTreeMap::new();
                    tree.each_class(&mut |c, n| {
                        seen.insert(c, n);
                    });
                    for (c, n) in seen {
                        let layer = graph.layer(node).name.clone();
                        let member = Member { layer, node, param, axis, side, width: tree.width(c) };
                        members.entry(c).or_insert_with(|| (n, Vec::new())).1.push(member);
                    }
                }
            }
        }
        let list = members
            .into_iter()
            .filter_map(|(class, (size, members))| {
                let width = members.iter().find(|m| m.side == Side::Produces)?.width;
                let kind = if head_classes.contains(&class) { Kind::Head } else { Kind::Channel };
                let frozen = space.reason(class).map(str::to_owned);
                Some(Group { class, kind, size, width, members, frozen, mixed_by: mixed_by.remove(&class) })
            })
            .collect();
        Self { list, layouts, space }
    }

    /// All groups in the order of their first layer, frozen ones included.
    pub fn all(&self) -> &[Group] {
        &self.list
    }

    /// The groups that may lose units.
    pub fn prunable(&self) -> impl Iterator<Item = &Group> {
        self.list.iter().filter(|g| g.frozen.is_none())
    }

    /// The group of a class.
    pub fn group(&self, class: ClassId) -> Option<&Group> {
        self.list.binary_search_by_key(&class, |g| g.class).ok().map(|i| &self.list[i])
    }

    /// The groups of the channels that a layer's weights make.
    ///
    /// # Errors
    /// Why none of them may lose a unit, in words.
    pub fn made_by(&self, node: NodeIndex) -> Result<Vec<&Group>, String> {
        let layout = &self.layouts[node.index()];
        let axis = layout.made.and_then(|a| layout.outputs.first()?.get(a));
        let axis = axis.ok_or("it makes no channels")?;
        let mut classes = BTreeSet::new();
        axis.each_class(&mut |c, _| {
            classes.insert(c);
        });
        let free: Vec<&Group> = classes.iter().filter_map(|&c| self.group(c)).filter(|g| g.frozen.is_none()).collect();
        if free.is_empty() {
            let why = self.space.first_reason(axis);
            return Err(why.unwrap_or_else(|| "its channels are tied to an axis that is not made of channels".into()));
        }
        Ok(free)
    }

    /// Structure of the axes of a layer's outputs.
    pub fn outputs(&self, node: NodeIndex) -> &[Vec<Axis>] {
        &self.layouts[node.index()].outputs
    }

    /// Structure of the axes of a layer's parameters, as they are stored.
    pub fn params(&self, node: NodeIndex) -> &[Vec<Axis>] {
        &self.layouts[node.index()].params
    }

    /// For a slice, what lies before each of its ranges.
    pub fn before(&self, node: NodeIndex) -> &[Axis] {
        &self.layouts[node.index()].before
    }
}

fn side(graph: &Graph, node: NodeIndex, param: usize, axis: usize) -> Side {
    let layer = graph.layer(node);
    let p = &layer.params[param];
    let columns = match &layer.op {
        Op::Conv(c) if c.groups > 1 && p.shape.get(1) == Some(&1) => false,
        Op::Conv(c) => (axis == 1) != c.transposed,
        Op::Linear(_) => (axis + 1 == p.shape.len()) != p.transposed,
        Op::Recurrent(_) => true,
        Op::Embedding { .. } => return Side::Produces,
        _ => return Side::Follows,
    };
    if columns && p.role == Role::Weight { Side::Consumes } else { Side::Produces }
}
