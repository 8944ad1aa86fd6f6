//! Fusion: pointwise work joins the operation before it, so that intermediates are never written.
//!
//! A batch norm, activation or residual add joins the convolution or product that feeds it (its epilogue); chains of
//! pointwise operations become one. An operation joins the **latest** of the groups that feed it, so that no group
//! ever waits for itself; a tensor that someone else reads is still written.

use super::assign::Assignment;
use super::layer::{has_weights, lower, remainder};
use super::{Attention, Lowered};
use crate::dtype::DType;
use crate::error::Result;
use crate::lower::StreamKind;
use crate::units::Bytes;
use crate::workload::layer::{NormKind, Op, elements};
use crate::workload::{Graph, Layer};
use petgraph::graph::NodeIndex;

/// What a machine runs for one layer and those fused into it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The layer that leads the group.
    pub lead: NodeIndex,
    /// Layers fused behind it, in order.
    pub fused: Vec<NodeIndex>,
    /// The operations, one after another.
    pub ops: Vec<Lowered>,
    /// Steps whose results it reads, with the bytes of each tensor; ascending, once each.
    pub reads: Vec<(usize, Bytes)>,
    /// Bytes that it writes for others.
    pub writes: Bytes,
    /// Multiply–accumulates of its layers.
    pub macs: u64,
    /// The pattern asked for, as text, and what the lowering has to say of it.
    pub note: Option<String>,
    /// Whether sparsity patterns apply to it.
    pub prunable: bool,
}

/// Lowers a network to steps in topological order. `fuse = false` keeps one step a layer.
///
/// # Errors
/// What [`lower`] refuses.
pub fn steps(graph: &Graph, assignment: &Assignment, dtype: DType, fuse: bool) -> Result<Vec<Step>> {
    let order = graph.order();
    let mut group_of = vec![usize::MAX; order.len()];
    let mut members: Vec<Vec<NodeIndex>> = Vec::with_capacity(order.len());
    for &node in order {
        let layer = graph.layer(node);
        let host = if fuse && joins(layer) { host(graph, node, &group_of, &members) } else { None };
        let index = host.unwrap_or_else(|| {
            members.push(Vec::with_capacity(1));
            members.len() - 1
        });
        members[index].push(node);
        group_of[node.index()] = index;
    }
    if fuse {
        merge_attention(graph, &mut group_of, &mut members);
    }
    let mut step_of_group = vec![usize::MAX; members.len()];
    let mut steps: Vec<Step> = Vec::with_capacity(members.len());
    for (index, group) in members.iter().enumerate() {
        if group.is_empty() {
            continue;
        }
        step_of_group[index] = steps.len();
        steps.push(step(graph, group, index, &group_of, &step_of_group, assignment, dtype)?);
    }
    Ok(steps)
}

/// Whether a layer can be computed on the fly behind another.
fn joins(layer: &Layer) -> bool {
    match &layer.op {
        Op::Pointwise(_) => true,
        Op::Norm(n) => n.kind == NormKind::Batch,
        _ => false,
    }
}

/// Whether a group led by this layer computes its outputs element by element at the end.
fn leads(layer: &Layer) -> bool {
    matches!(layer.op, Op::Conv(_) | Op::Linear(_) | Op::MatMul { .. } | Op::Pointwise(_)) || joins(layer)
}

fn host(graph: &Graph, node: NodeIndex, group_of: &[usize], members: &[Vec<NodeIndex>]) -> Option<usize> {
    let shape = graph.layer(node).shape();
    let inputs = graph.inputs(node);
    let latest = inputs.iter().map(|&(n, _)| group_of[n.index()]).max()?;
    let (producer, output) = *inputs.iter().find(|&&(n, _)| group_of[n.index()] == latest)?;
    let same_shape = graph.layer(producer).outputs[output as usize].shape == shape;
    (leads(graph.layer(members[latest][0])) && same_shape).then_some(latest)
}

/// QKᵀ, scaling and masking, softmax, and the product with V become one attention step, as every current runtime
/// runs them. The group of the second product takes over the others.
fn merge_attention(graph: &Graph, group_of: &mut [usize], members: &mut [Vec<NodeIndex>]) {
    for index in 0..members.len() {
        let Some(&lead) = members[index].first() else { continue };
        if !matches!(graph.layer(lead).op, Op::MatMul { .. }) {
            continue;
        }
        let Some(&(softmax, 0)) = graph.inputs(lead).first() else { continue };
        let rank = graph.layer(softmax).shape().len();
        let last = |axis: usize| axis + 1 == rank;
        if !matches!(graph.layer(softmax).op, Op::Softmax { axis } if last(axis)) || graph.consumers(softmax).len() != 1
        {
            continue;
        }
        let Some(&(scores, _)) = graph.inputs(softmax).first() else { continue };
        let first = group_of[scores.index()];
        let alone = members[first]
            .iter()
            .all(|&n| graph.consumers(n).iter().all(|&(c, _)| group_of[c.index()] == first || c == softmax));
        let product = members[first][0];
        if first >= index || !alone || !matches!(graph.layer(product).op, Op::MatMul { .. }) {
            continue;
        }
        let absorbed = std::mem::take(&mut members[first]);
        let softmax_group = std::mem::take(&mut members[group_of[softmax.index()]]);
        for &n in absorbed.iter().chain(&softmax_group) {
            group_of[n.index()] = index;
        }
        let own = std::mem::take(&mut members[index]);
        members[index] = absorbed.into_iter().chain(softmax_group).chain(own).collect();
    }
}

fn step(
    graph: &Graph,
    group: &[NodeIndex],
    index: usize,
    group_of: &[usize],
    step_of_group: &[usize],
    assignment: &Assignment,
    dtype: DType,
) -> Result<Step> {
    let lead = group[0];
    let layer = graph.layer(lead);
    let prunable = has_weights(layer);
    let choice = if prunable { assignment.choice(&layer.name) } else { super::assign::Choice::DENSE };
    let fused_attention = attention(graph, group, dtype);
    let mut ops = match &fused_attention {
        Some(a) => vec![Lowered::Attention(*a)],
        None => lower(layer, &graph.input_shapes(lead), choice, dtype)?,
    };
    let activations = dtype.output();
    let bytes = |shape: &[u64]| Bytes(elements(shape).unwrap_or(u64::MAX) as f64 * activations.bytes());
    let inside = |n: NodeIndex| group_of[n.index()] == index;

    let mut reads: Vec<(usize, Bytes)> = Vec::new();
    let mut extra = Bytes::ZERO;
    let mut operations = 0.0;
    let mut writes = Bytes::ZERO;
    let mut visible = 0u32;
    let mut macs = 0u64;
    for &node in group {
        let member = graph.layer(node);
        macs = macs.saturating_add(graph.macs(node)?);
        for (producer, output) in graph.inputs(node) {
            if inside(producer) {
                continue;
            }
            let size = bytes(&graph.layer(producer).outputs[output as usize].shape);
            let from = step_of_group[group_of[producer.index()]];
            match reads.iter_mut().find(|(s, _)| *s == from) {
                Some((_, known)) => *known = known.max(size),
                None => reads.push((from, size)),
            }
            if node != lead {
                extra += size;
            }
        }
        let consumers = graph.consumers(node);
        let answers = || member.outputs.iter().any(|t| graph.answers.contains(&t.name));
        if consumers.is_empty() || consumers.iter().any(|&(c, _)| !inside(c)) || answers() {
            writes += member.outputs.iter().map(|t| bytes(&t.shape)).sum();
            visible += 1;
        }
        if node != lead {
            let outputs = elements(member.shape()).unwrap_or(u64::MAX) as f64;
            operations += outputs
                * match &member.op {
                    Op::Pointwise(f) => f.operations() as f64,
                    _ => 2.0,
                };
        }
    }
    reads.sort_unstable_by_key(|&(s, _)| s);
    // The group's own result replaces the lead's; only what is visible beyond that costs more.
    if visible > 1 {
        extra += bytes(layer.shape()) * f64::from(visible - 1);
    }
    if fused_attention.is_none() && group.len() > 1 {
        attach(&mut ops, extra, operations);
    }
    let note = ops.iter().find_map(|op| match op {
        Lowered::Gemm(g) => remainder(g.weights.pattern(), g.gemm.n, g.gemm.k),
        _ => None,
    });
    Ok(Step { lead, fused: group[1..].to_vec(), ops, reads, writes, macs, note, prunable })
}

/// Gives the work of fused layers to the last operation of the lead.
fn attach(ops: &mut [Lowered], bytes: Bytes, operations: f64) {
    match ops.last_mut() {
        Some(Lowered::Gemm(g)) => {
            let outputs = g.gemm.groups as f64 * g.gemm.m as f64 * g.gemm.n as f64;
            g.epilogue.bytes += bytes;
            g.epilogue.operations += (operations / outputs.max(1.0)).ceil() as u64;
        }
        Some(Lowered::Stream(s)) => {
            s.input += bytes;
            s.operations += operations;
            s.kind = if s.kind == StreamKind::Norm { StreamKind::Pointwise } else { s.kind };
        }
        Some(Lowered::Attention(_)) | None => {}
    }
}

/// The attention that a merged group computes: `[batch…, heads, tokens, features]` operands.
fn attention(graph: &Graph, group: &[NodeIndex], dtype: DType) -> Option<Attention> {
    let is_product = |n: &&NodeIndex| matches!(graph.layer(**n).op, Op::MatMul { .. });
    let products: Vec<_> = group.iter().filter(is_product).collect();
    let [first, second] = products[..] else { return None };
    let scores = graph.layer(*first).shape();
    let [batch @ .., queries, keys] = scores else { return None };
    let (heads, batch) = match batch {
        [] => (1, 1),
        [rest @ .., h] => (*h, elements(rest)?),
    };
    let Op::MatMul { transpose_a, .. } = graph.layer(*first).op else { return None };
    let q = graph.input_shapes(*first)[0];
    let inner = q[q.len() - if transpose_a { 2 } else { 1 }];
    let outer = *graph.layer(*second).shape().last()?;
    Some(Attention {
        batch,
        heads,
        kv_heads: heads,
        queries: *queries,
        keys: *keys,
        // Both products count; unequal inner extents are averaged so that the MACs stay right.
        head_dim: (inner + outer).div_ceil(2),
        causal: false,
        window: None,
        dtype,
        resident: Bytes::ZERO,
    })
}
