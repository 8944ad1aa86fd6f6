//! How each operation carries the structure of its inputs' axes to its outputs and parameters.

use super::axes::{Axis, Space};
use crate::workload::graph::Graph;
use crate::workload::layer::*;
use petgraph::graph::NodeIndex;

/// Structure of all axes of a tensor.
pub type Axes = Vec<Axis>;

/// What is known of one layer.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// For each output, its axes.
    pub outputs: Vec<Axes>,
    /// For each parameter, its axes as it is stored.
    pub params: Vec<Axes>,
    /// For a slice, what lies before the kept range, one entry a range.
    pub before: Vec<Axis>,
    /// Axis of output 0 that the layer's own weights make.
    pub made: Option<usize>,
}

/// The walk through the graph.
pub struct Follow<'a> {
    pub(super) graph: &'a Graph,
    /// The classes.
    pub space: Space,
    /// By node index.
    pub layouts: Vec<Layout>,
    /// Axes whose outermost class counts attention heads.
    pub heads: Vec<Axis>,
    /// Axes over which a statistic is taken, and by whom: removing their channels is not the same as zeroing them.
    pub mixed: Vec<(Axis, String)>,
}

fn fixed(shape: &[u64]) -> Axes {
    shape.iter().map(|&d| Axis::Fixed(d)).collect()
}

fn shape_of(axes: &[Axis]) -> Shape {
    axes.iter().map(Axis::extent).collect()
}

/// A tensor of `shape` that broadcasts against `axes`, aligned at the last axis.
fn broadcast_to(shape: &[u64], axes: &[Axis]) -> Axes {
    let ahead = axes.len().saturating_sub(shape.len());
    let at = |i: usize, d: u64| match axes.get(ahead + i) {
        Some(a) if d > 1 && a.extent() == d && shape.len() <= axes.len() => a.clone(),
        _ => Axis::Fixed(d),
    };
    shape.iter().enumerate().map(|(i, &d)| at(i, d)).collect()
}

impl<'a> Follow<'a> {
    /// Walks all layers in order; graph inputs stay fixed, and so does every output that nothing reads.
    pub fn run(graph: &'a Graph) -> Self {
        let layouts = vec![Layout::default(); graph.len()];
        let mut walk = Self { graph, space: Space::default(), layouts, heads: Vec::new(), mixed: Vec::new() };
        for &node in graph.order() {
            walk.layer(node);
        }
        walk.tie_shared_parameters();
        for &node in graph.order() {
            walk.freeze_answers(node);
        }
        walk.keep_one_factor();
        walk
    }

    fn place(&self, node: NodeIndex) -> String {
        let layer = self.graph.layer(node);
        let spelled = if layer.spelled.is_empty() { "layer" } else { &layer.spelled };
        format!("{spelled} `{}`", layer.name)
    }

    fn layer(&mut self, node: NodeIndex) {
        let layer = self.graph.layer(node);
        let inputs: Vec<Axes> = self
            .graph
            .inputs(node)
            .into_iter()
            .map(|(n, o)| self.layouts[n.index()].outputs.get(o as usize).cloned().unwrap_or_default())
            .collect();
        let inputs: Vec<Axes> =
            inputs.iter().map(|axes| axes.iter().map(|a| self.space.resolve(a)).collect()).collect();
        let place = self.place(node);
        let followed = self.rule(layer, &inputs, &place).filter(|l| {
            l.outputs.len() == layer.outputs.len()
                && l.outputs.iter().zip(&layer.outputs).all(|(a, t)| shape_of(a) == t.shape)
                && l.params.iter().zip(&layer.params).all(|(a, p)| shape_of(a) == p.shape)
        });
        let mut layout = followed.unwrap_or_else(|| {
            let reason = format!("{place} cannot be followed");
            inputs.iter().flatten().for_each(|a| self.space.freeze(a, &reason));
            self.stopped(layer, &reason)
        });
        for p in &layer.params[layout.params.len()..] {
            layout.params.push(fixed(&p.shape));
        }
        self.layouts[node.index()] = layout;
    }

    /// A layout in which nothing may go; the axis that the layer makes still says why.
    fn stopped(&mut self, layer: &Layer, reason: &str) -> Layout {
        let made = match &layer.op {
            Op::Conv(_) => Some(1),
            Op::Linear(_) | Op::Embedding { .. } | Op::Recurrent(_) => layer.shape().len().checked_sub(1),
            _ => None,
        };
        let mut outputs: Vec<Axes> = layer.outputs.iter().map(|t| fixed(&t.shape)).collect();
        if let Some(axis) = made.and_then(|m| outputs.first_mut()?.get_mut(m)) {
            *axis = self.space.class(axis.extent());
            self.space.freeze(axis, reason);
        }
        Layout { outputs, made, ..Layout::default() }
    }

    fn rule(&mut self, layer: &Layer, inputs: &[Axes], place: &str) -> Option<Layout> {
        let same = |axes: Axes| Some(Layout { outputs: vec![axes], ..Layout::default() });
        match &layer.op {
            Op::Input => same(fixed(layer.shape())),
            Op::Parameter => {
                let axes: Axes = layer.shape().iter().map(|&d| self.space.class(d)).collect();
                let params =
                    layer.params.iter().map(|p| if p.shape == layer.shape() { axes.clone() } else { fixed(&p.shape) });
                Some(Layout { params: params.collect(), outputs: vec![axes], ..Layout::default() })
            }
            Op::Conv(c) => self.conv(layer, c, inputs, place),
            Op::Linear(l) => self.linear(layer, l, inputs, place),
            Op::MatMul { transpose_a, transpose_b } => self.matmul(layer, inputs, *transpose_a, *transpose_b, place),
            Op::Attention(a) => self.attention(layer, a, inputs, place),
            Op::Recurrent(_) => self.recurrent(layer, inputs, place),
            Op::Embedding { dim, .. } => {
                let features = self.space.class(*dim);
                let index = inputs.first()?;
                index.iter().for_each(|a| self.space.freeze(a, &format!("{place} reads it as indices")));
                let params = layer.params.iter().map(|p| match p.shape[..] {
                    [rows, d] if d == *dim => vec![Axis::Fixed(rows), features.clone()],
                    _ => fixed(&p.shape),
                });
                let params: Vec<Axes> = params.collect();
                if !params.iter().any(|p| p.contains(&features)) {
                    self.space.freeze(&features, &format!("{place} has no plain table"));
                }
                let outputs = vec![[&fixed(&layer.shape()[..layer.shape().len() - 1]), &[features][..]].concat()];
                Some(Layout { made: Some(outputs[0].len() - 1), outputs, params, ..Layout::default() })
            }
            Op::Norm(n) => self.norm(layer, n, inputs, place),
            Op::Pointwise(_) => self.pointwise(layer, inputs, place),
            Op::Softmax { axis } => {
                let x = inputs.first()?;
                self.space.freeze(x.get(*axis)?, &format!("{place} normalises over it"));
                same(x.clone())
            }
            Op::Pool(_) => {
                let x = inputs.first()?;
                let channels = if layer.spelled.starts_with("Nhwc") { x.len().checked_sub(1)? } else { 1 };
                let one = |t: &Tensor, space: &mut Space| -> Axes {
                    t.shape
                        .iter()
                        .enumerate()
                        .map(|(i, &d)| match x.get(i) {
                            Some(a) if i == 0 || i == channels => a.clone(),
                            Some(a) => {
                                space.freeze(a, &format!("{place} pools over it"));
                                Axis::Fixed(d)
                            }
                            None => Axis::Fixed(d),
                        })
                        .collect()
                };
                let outputs = layer.outputs.iter().map(|t| one(t, &mut self.space)).collect();
                Some(Layout { outputs, ..Layout::default() })
            }
            Op::Reduce { axes, keep } => {
                let x = inputs.first()?;
                let kind = layer.spelled.to_lowercase();
                let mut out = Axes::new();
                for (i, a) in x.iter().enumerate() {
                    if !axes.contains(&i) {
                        out.push(a.clone());
                        continue;
                    }
                    if kind.contains("arg") {
                        self.space.freeze(a, &format!("{place} answers with a position along it"));
                    } else if !matches!(
                        kind.as_str(),
                        "reducesum" | "reducesumsquare" | "reducel1" | "reducel2" | "sum"
                    ) {
                        self.mixed.push((a.clone(), place.to_owned()));
                    }
                    if *keep {
                        out.push(Axis::Fixed(1));
                    }
                }
                same(out)
            }
            Op::Concat { axis } => {
                let first = inputs.first()?;
                let parts: Vec<Axis> = inputs.iter().map(|x| x.get(*axis).cloned()).collect::<Option<_>>()?;
                for other in &inputs[1..] {
                    for i in (0..first.len()).filter(|i| i != axis) {
                        self.space.unify(&first[i], other.get(i)?, place);
                    }
                }
                let mut out = first.clone();
                out[*axis] = self.space.resolve(&Axis::Concat(parts));
                same(out)
            }
            Op::Split { axis, sizes } => {
                let x = inputs.first()?;
                let mut rest = x.get(*axis)?.clone();
                let mut outputs = Vec::with_capacity(sizes.len());
                for &size in sizes {
                    let (front, back) = self.space.split_at(&rest, size)?;
                    rest = back;
                    let mut axes = x.clone();
                    axes[*axis] = front;
                    outputs.push(axes);
                }
                Some(Layout { outputs, ..Layout::default() })
            }
            Op::Slice { ranges } => {
                let mut out = inputs.first()?.clone();
                let mut before = Vec::with_capacity(ranges.len());
                for r in ranges {
                    let x = out.get(r.axis)?.clone();
                    let cut = (r.step == 1).then(|| self.space.split_at(&x, r.start)).flatten();
                    let kept = cut.and_then(|(front, rest)| Some((front, self.space.split_at(&rest, r.len)?.0)));
                    let (front, kept) = kept.unwrap_or_else(|| {
                        self.space.freeze(&x, &format!("{place} cuts through it"));
                        (Axis::Fixed(r.start), Axis::Fixed(r.len))
                    });
                    before.push(front);
                    out[r.axis] = kept;
                }
                Some(Layout { outputs: vec![out], before, ..Layout::default() })
            }
            Op::Reshape { .. } => same(self.reshape(inputs.first()?, layer.shape())?),
            Op::Transpose { perm } => {
                let x = inputs.first()?;
                same(perm.iter().map(|&p| x.get(p).cloned()).collect::<Option<_>>()?)
            }
            Op::Pad { .. } | Op::Resize { .. } => {
                let x = inputs.first()?;
                let changed = format!("{place} changes its extent");
                let pads = if let Op::Pad { pads } = &layer.op { Some(pads) } else { None };
                let mut out = Axes::new();
                for (i, (a, &d)) in x.iter().zip(layer.shape()).enumerate() {
                    let whole = a.extent() == d && pads.is_none_or(|p| p.get(i) == Some(&(0, 0)));
                    if !whole {
                        self.space.freeze(a, &changed);
                    }
                    out.push(if whole { a.clone() } else { Axis::Fixed(d) });
                }
                same(out)
            }
            Op::Gather { axis } => {
                let (x, index) = (inputs.first()?, inputs.get(1)?);
                let reason = format!("{place} picks entries of it by number");
                self.space.freeze(x.get(*axis)?, &reason);
                index.iter().for_each(|a| self.space.freeze(a, &reason));
                same([&x[..*axis], &fixed(&shape_of(index)), &x[axis + 1..]].concat())
            }
            Op::Expand { .. } => {
                let x = inputs.first()?;
                let ahead = layer.shape().len().checked_sub(x.len())?;
                let mut out = fixed(layer.shape());
                for (i, a) in x.iter().enumerate() {
                    let extent = out[ahead + i].extent();
                    if a.extent() == extent {
                        out[ahead + i] = a.clone();
                    } else if a.extent() == 1 {
                        // Copies of one entry can be as many as their partners need.
                        out[ahead + i] = self.space.class(extent);
                    } else {
                        self.space.freeze(a, &format!("{place} repeats it"));
                    }
                }
                same(out)
            }
            Op::Opaque => {
                let reason = format!("operator {place} is not known");
                inputs.iter().flatten().for_each(|a| self.space.freeze(a, &reason));
                Some(Layout { outputs: layer.outputs.iter().map(|t| fixed(&t.shape)).collect(), ..Layout::default() })
            }
        }
    }

    /// Axes of the parameters beside the weight: one value a channel, or the same for all.
    fn per_channel(params: &[Param], weight: &[Axis], out: &Axis) -> Vec<Axes> {
        let one = |p: &Param| match p.role {
            Role::Weight if p.shape == shape_of(weight) => weight.to_vec(),
            _ => match p.shape.split_last() {
                Some((&d, ahead)) if d == out.extent() => [&fixed(ahead), &[out.clone()][..]].concat(),
                _ => fixed(&p.shape),
            },
        };
        params.iter().map(one).collect()
    }

    fn conv(&mut self, layer: &Layer, c: &Conv, inputs: &[Axes], place: &str) -> Option<Layout> {
        let (x, extra) = inputs.split_first()?;
        // Zero points may be computed; anything larger (a fused sum, weights) is not followed.
        if extra.iter().flatten().any(|a| a.extent() != 1) {
            return None;
        }
        let channels = x.get(1)?.clone();
        let (total, groups) = (channels.extent(), c.groups.max(1));
        let (out, inner) = if groups == 1 {
            (self.space.class(c.out), channels.clone())
        } else if groups == total {
            let multiplier = Axis::Fixed(c.out / groups);
            (self.space.resolve(&Axis::Product(vec![channels.clone(), multiplier])), Axis::Fixed(1))
        } else {
            let (outer, inner) = self.space.split_outer(&channels, groups)?;
            let reason = format!("{place} has {groups} groups, which all lose the same number of channels");
            self.space.freeze(&outer, &reason);
            let own = self.space.class(c.out / groups);
            (self.space.resolve(&Axis::Product(vec![Axis::Fixed(groups), own])), inner)
        };
        let mut weight = if c.transposed {
            let per_group = if groups == 1 {
                out.clone()
            } else if groups == total {
                Axis::Fixed(c.out / groups)
            } else {
                self.space.split_outer(&out, groups)?.1
            };
            vec![channels, per_group]
        } else {
            vec![out.clone(), inner]
        };
        weight.extend(fixed(&c.kernel));
        let stored = layer.weight()?;
        if stored.shape != shape_of(&weight) {
            return None;
        }
        for spatial in &x[2..] {
            self.space.freeze(spatial, &format!("{place} slides over it"));
        }
        let mut axes = fixed(layer.shape());
        axes[0] = x[0].clone();
        *axes.get_mut(1)? = out.clone();
        let params = Self::per_channel(&layer.params, &weight, &out);
        Some(Layout { outputs: vec![axes], params, made: Some(1), ..Layout::default() })
    }

    fn linear(&mut self, layer: &Layer, l: &Linear, inputs: &[Axes], place: &str) -> Option<Layout> {
        let x = inputs.first()?;
        let (features, rows) = x.split_last()?;
        let stored = layer.weight()?;
        let out = self.space.class(l.out);
        let tail = if stored.transposed { [features.clone(), out.clone()] } else { [out.clone(), features.clone()] };
        let ahead = stored.shape.len().checked_sub(2)?;
        let weight = [&fixed(&stored.shape[..ahead]), &tail[..]].concat();
        if stored.shape != shape_of(&weight) {
            return None;
        }
        let axes = [rows, std::slice::from_ref(&out)].concat();
        for extra in &inputs[1..] {
            self.tie_broadcast(&axes, extra, place);
        }
        let params = Self::per_channel(&layer.params, &weight, &out);
        Some(Layout { made: Some(axes.len() - 1), outputs: vec![axes], params, ..Layout::default() })
    }

    /// Ties the axes of two tensors that broadcast; returns those of the result.
    fn tie_broadcast(&mut self, a: &[Axis], b: &[Axis], place: &str) -> Axes {
        let rank = a.len().max(b.len());
        let at = |s: &[Axis], i: usize| (i + s.len()).checked_sub(rank).map_or(Axis::Fixed(1), |j| s[j].clone());
        (0..rank)
            .map(|i| match (at(a, i), at(b, i)) {
                (x, y) if y.extent() == 1 => x,
                (x, y) if x.extent() == 1 => y,
                (x, y) => {
                    self.space.unify(&x, &y, place);
                    self.space.resolve(&x)
                }
            })
            .collect()
    }

    fn pointwise(&mut self, layer: &Layer, inputs: &[Axes], place: &str) -> Option<Layout> {
        let mut axes = inputs.first()?.clone();
        for other in &inputs[1..] {
            axes = self.tie_broadcast(&axes, other, place);
        }
        // A stored operand may be larger than the activation that it meets.
        let ahead = layer.shape().len().checked_sub(axes.len())?;
        let mut out = fixed(layer.shape());
        for (i, a) in axes.into_iter().enumerate() {
            if a.extent() == out[ahead + i].extent() {
                out[ahead + i] = a;
            } else {
                self.space.freeze(&a, &format!("{place} repeats it"));
            }
        }
        let vector = |p: &Param| p.shape.len() == 1 && p.shape[0] > 1;
        if layer.spelled.contains("uantize") && layer.params.iter().any(vector) {
            // Their scales run along an axis that only an attribute names.
            return None;
        }
        if matches!(layer.spelled.as_str(), "CumSum" | "Trilu") {
            return None;
        }
        let params = layer.params.iter().map(|p| broadcast_to(&p.shape, &out)).collect();
        Some(Layout { outputs: vec![out], params, ..Layout::default() })
    }

    fn norm(&mut self, layer: &Layer, n: &Norm, inputs: &[Axes], place: &str) -> Option<Layout> {
        let x = inputs.first()?;
        let channels = x.get(n.axis)?;
        let tail = &x[n.axis..];
        let params = match n.kind {
            NormKind::Batch | NormKind::LocalResponse | NormKind::Group => {
                Self::per_channel(&layer.params, &[], channels)
            }
            NormKind::Layer | NormKind::Rms => layer.params.iter().map(|p| broadcast_to(&p.shape, tail)).collect(),
        };
        match n.kind {
            NormKind::Batch => {}
            NormKind::Group if layer.spelled.to_lowercase().contains("instance") => {}
            NormKind::Group => {
                self.space.freeze(channels, &format!("{place} takes statistics over groups of its channels"));
            }
            NormKind::LocalResponse => self.mixed.push((channels.clone(), place.to_owned())),
            NormKind::Layer | NormKind::Rms => {
                tail.iter().for_each(|a| self.mixed.push((a.clone(), place.to_owned())));
            }
        }
        // Further outputs are statistics, or the sum that was normalised.
        let mut outputs = vec![x.clone()];
        for t in &layer.outputs[1..] {
            outputs.push(broadcast_to(&t.shape, x));
        }
        for other in &inputs[1..] {
            self.tie_broadcast(x, other, place);
        }
        Some(Layout { outputs, params, ..Layout::default() })
    }

    fn matmul(&mut self, layer: &Layer, inputs: &[Axes], ta: bool, tb: bool, place: &str) -> Option<Layout> {
        let [a, b, ..] = inputs else { return None };
        let ([batch_a @ .., a1, a2], [batch_b @ .., b1, b2]) = (&a[..], &b[..]) else { return None };
        if layer.params.iter().any(|p| p.elements().is_ok_and(|n| n > 1)) {
            return None;
        }
        let (m, ka) = if ta { (a2, a1) } else { (a1, a2) };
        let (kb, n) = if tb { (b2, b1) } else { (b1, b2) };
        self.space.unify(ka, kb, place);
        let mut out = self.tie_broadcast(batch_a, batch_b, place);
        self.heads.extend(out.iter().cloned());
        out.extend([m.clone(), n.clone()]);
        for extra in &inputs[2..] {
            self.tie_broadcast(&out, extra, place);
        }
        Some(Layout { outputs: vec![out], ..Layout::default() })
    }

    fn attention(&mut self, layer: &Layer, a: &Attention, inputs: &[Axes], place: &str) -> Option<Layout> {
        let [q, k, v, extra @ ..] = inputs else { return None };
        if layer.outputs.len() != 1 || layer.params.iter().any(|p| p.elements().is_ok_and(|n| n > 1)) {
            return None;
        }
        let whole = format!("{place} removes whole heads");
        let split = |space: &mut Space, x: &Axes, heads: u64| -> Option<Axis> {
            let (h, d) = space.split_outer(x.last()?, heads)?;
            space.freeze(&d, &whole);
            Some(h)
        };
        let per_kv = a.heads.checked_div(a.kv_heads)?;
        let hq = split(&mut self.space, q, a.heads)?;
        let hk = split(&mut self.space, k, a.kv_heads)?;
        let hv = split(&mut self.space, v, a.kv_heads)?;
        self.space.unify(&hk, &hv, place);
        let (shared, queries) = self.space.split_outer(&hq, a.kv_heads)?;
        self.space.freeze(&queries, &format!("{place} shares each key/value head among {per_kv} query heads"));
        self.space.unify(&shared, &hk, place);
        // Masks and caches come per head from outside.
        let per_head = |x: &Axes| x.iter().skip(1).any(|d| d.extent() == a.heads || d.extent() == a.kv_heads);
        if extra.iter().any(|x| x.len() >= 4 && per_head(x)) {
            self.space.freeze(&hk, &format!("{place} reads a mask or a cache of each head"));
        }
        self.heads.push(hk);
        let dim = layer.shape().last()? / a.heads.max(1);
        let mut out = q.clone();
        *out.last_mut()? = self.space.resolve(&Axis::Product(vec![hq, Axis::Fixed(dim)]));
        Some(Layout { outputs: vec![out], ..Layout::default() })
    }

    fn recurrent(&mut self, layer: &Layer, inputs: &[Axes], place: &str) -> Option<Layout> {
        let x = inputs.first()?;
        let features = x.last()?.clone();
        let reason = format!("{place} feeds its hidden state back");
        inputs[1..].iter().flatten().for_each(|a| self.space.freeze(a, &reason));
        x[..x.len() - 1].iter().for_each(|a| self.space.freeze(a, &reason));
        let mut layout = self.stopped(layer, &reason);
        let at = layer.params.iter().position(|p| p.role == Role::Weight);
        layout.params = layer.params.iter().map(|p| fixed(&p.shape)).collect();
        let columns = at.and_then(|i| {
            let p = &layer.params[i];
            let axis = if p.transposed { 1 } else { 2 };
            (p.shape.len() == 3 && p.shape[axis] == features.extent()).then_some((i, axis))
        });
        match columns {
            Some((i, axis)) => layout.params[i][axis] = features,
            None => self.space.freeze(&features, &reason),
        }
        Some(layout)
    }

    /// Same elements in the same order: factors are handed out from the outermost axis on.
    fn reshape(&mut self, x: &[Axis], shape: &[u64]) -> Option<Axes> {
        let mut rest = self.space.resolve(&Axis::Product(x.to_vec()));
        let mut left = rest.extent();
        let mut out = Axes::with_capacity(shape.len());
        for &d in shape {
            if d == 0 {
                return None;
            }
            if !left.is_multiple_of(d) {
                return None;
            }
            left /= d;
            let (axis, inner) = self.space.split_outer(&rest, d)?;
            rest = inner;
            out.push(axis);
        }
        Some(out)
    }
}
