//! Shape inference, parameters and MACs of one operation.
//!
//! MACs are multiply–accumulates of convolutions and matrix products, attention products included; biases,
//! normalisation and pointwise arithmetic are not counted, and causal attention is not halved.

use super::layer::*;
use crate::error::{Error, Result};

/// A reason in words; the graph adds the layer's name.
type Answer<T> = Result<T, String>;

/// Replaces axes that [`Op::axis_from_back`] made by the same counted from the front, now that the inputs are known.
///
/// # Errors
/// An axis before the first.
pub fn settle(op: &mut Op, inputs: &[&[u64]]) -> Answer<()> {
    let Some(rank) = inputs.first().map(|x| x.len()) else { return Ok(()) };
    let front = |axis: &mut usize| {
        if *axis > usize::MAX / 2 {
            let back = axis.wrapping_neg();
            *axis = rank.checked_sub(back).ok_or_else(|| format!("axis −{back} of a tensor with {rank} axes"))?;
        }
        Ok(())
    };
    match op {
        Op::Norm(n) => front(&mut n.axis),
        Op::Softmax { axis } | Op::Concat { axis } | Op::Split { axis, .. } | Op::Gather { axis } => front(axis),
        Op::Reduce { axes, .. } => {
            axes.iter_mut().try_for_each(front)?;
            axes.sort_unstable();
            Ok(())
        }
        Op::Slice { ranges } => ranges.iter_mut().try_for_each(|r| front(&mut r.axis)),
        Op::Input
        | Op::Parameter
        | Op::Conv(_)
        | Op::Linear(_)
        | Op::MatMul { .. }
        | Op::Attention(_)
        | Op::Recurrent(_)
        | Op::Embedding { .. }
        | Op::Pointwise(_)
        | Op::Pool(_)
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Pad { .. }
        | Op::Resize { .. }
        | Op::Expand { .. }
        | Op::Opaque => Ok(()),
    }
}

/// Output shapes of `op` on inputs of the given shapes.
///
/// # Errors
/// The reason, without the layer's name, when the inputs do not fit the operation.
pub fn infer(op: &Op, inputs: &[&[u64]]) -> Answer<Vec<Shape>> {
    let one = |shape: Shape| Ok(vec![shape]);
    match op {
        Op::Input | Op::Parameter => Err("it has no shape of its own; give it one".into()),
        Op::Conv(c) => one(convolve(c, input(inputs, 0)?)?),
        Op::Linear(l) => {
            let mut shape = input(inputs, 0)?.to_vec();
            *shape.last_mut().ok_or("a linear layer needs an input with at least one axis")? = l.out;
            one(shape)
        }
        Op::MatMul { transpose_a, transpose_b } => {
            one(matmul(input(inputs, 0)?, input(inputs, 1)?, *transpose_a, *transpose_b)?)
        }
        Op::Attention(a) => one(attention(a, inputs)?),
        Op::Recurrent(r) => {
            let x = input(inputs, 0)?;
            let [a, b, _] = x[..] else {
                return Err(format!("a recurrent layer takes [steps, batch, features], not {x:?}"));
            };
            one(vec![a, b, r.directions.checked_mul(r.hidden).ok_or("hidden size overflows")?])
        }
        Op::Embedding { dim, .. } => {
            let mut shape = input(inputs, 0)?.to_vec();
            shape.push(*dim);
            one(shape)
        }
        Op::Norm(n) => {
            let x = input(inputs, 0)?;
            if n.axis >= x.len() {
                return Err(format!("normalises axis {} of a tensor with {} axes", n.axis, x.len()));
            }
            one(x.to_vec())
        }
        Op::Pointwise(_) => {
            let mut shape = input(inputs, 0)?.to_vec();
            for other in &inputs[1..] {
                shape = broadcast(&shape, other)?;
            }
            one(shape)
        }
        Op::Softmax { axis } => {
            let x = input(inputs, 0)?;
            if *axis >= x.len() {
                return Err(format!("softmax over axis {axis} of a tensor with {} axes", x.len()));
            }
            one(x.to_vec())
        }
        Op::Pool(p) => one(pool(p, input(inputs, 0)?)?),
        Op::Reduce { axes, keep } => {
            let x = input(inputs, 0)?;
            if let Some(axis) = axes.iter().find(|&&a| a >= x.len()) {
                return Err(format!("reduces axis {axis} of a tensor with {} axes", x.len()));
            }
            let mut shape = Vec::with_capacity(x.len());
            for (i, &d) in x.iter().enumerate() {
                match (axes.contains(&i), keep) {
                    (false, _) => shape.push(d),
                    (true, true) => shape.push(1),
                    (true, false) => {}
                }
            }
            one(shape)
        }
        Op::Concat { axis } => {
            let first = input(inputs, 0)?;
            if *axis >= first.len() {
                return Err(format!("joins axis {axis} of tensors with {} axes", first.len()));
            }
            let mut shape = first.to_vec();
            for other in &inputs[1..] {
                let fits = other.len() == shape.len() && (0..shape.len()).all(|i| i == *axis || other[i] == first[i]);
                if !fits {
                    return Err(format!("cannot join {first:?} and {other:?} along axis {axis}"));
                }
                shape[*axis] = shape[*axis].checked_add(other[*axis]).ok_or("joined extent overflows")?;
            }
            one(shape)
        }
        Op::Split { axis, sizes } => {
            let x = input(inputs, 0)?;
            let extent =
                *x.get(*axis).ok_or_else(|| format!("splits axis {axis} of a tensor with {} axes", x.len()))?;
            if sizes.iter().try_fold(0u64, |a, &b| a.checked_add(b)) != Some(extent) {
                return Err(format!("parts {sizes:?} do not add up to the {extent} of axis {axis}"));
            }
            Ok(sizes.iter().map(|&s| with(x, *axis, s)).collect())
        }
        Op::Slice { ranges } => {
            let mut shape = input(inputs, 0)?.to_vec();
            for r in ranges {
                let d =
                    shape.get_mut(r.axis).ok_or_else(|| format!("slices axis {}, which the input lacks", r.axis))?;
                let reach = u64::try_from(r.step).map_or(0, |s| r.len.saturating_sub(1).saturating_mul(s));
                if r.len > *d || r.len > 0 && r.start.saturating_add(reach) >= *d {
                    let Range { start, len, step, .. } = r;
                    return Err(format!(
                        "keeps {len} entries from {start} on, step {step}, of the {d} of axis {}",
                        r.axis
                    ));
                }
                *d = r.len;
            }
            one(shape)
        }
        Op::Reshape { shape } => one(reshape(shape, input(inputs, 0)?)?),
        Op::Transpose { perm } => {
            let x = input(inputs, 0)?;
            let mut seen = vec![false; x.len()];
            let valid =
                perm.len() == x.len() && perm.iter().all(|&p| p < x.len() && !std::mem::replace(&mut seen[p], true));
            if !valid {
                return Err(format!("{perm:?} is not an order of the {} axes", x.len()));
            }
            one(perm.iter().map(|&p| x[p]).collect())
        }
        Op::Pad { pads } => {
            let x = input(inputs, 0)?;
            if pads.len() != x.len() {
                return Err(format!("pads {} axes of a tensor with {}", pads.len(), x.len()));
            }
            let padded: Option<Shape> =
                x.iter().zip(pads).map(|(&d, &(a, b))| d.checked_add(a)?.checked_add(b)).collect();
            one(padded.ok_or("padded extent overflows")?)
        }
        Op::Resize { shape } | Op::Expand { shape } => one(shape.clone()),
        Op::Gather { axis } => {
            let (x, index) = (input(inputs, 0)?, input(inputs, 1)?);
            if *axis >= x.len() {
                return Err(format!("gathers along axis {axis} of a tensor with {} axes", x.len()));
            }
            one([&x[..*axis], index, &x[axis + 1..]].concat())
        }
        Op::Opaque => one(input(inputs, 0)?.to_vec()),
    }
}

/// Parameters that a generated network's layer has (an importer states its own).
pub fn parameters(op: &Op, inputs: &[&[u64]]) -> Answer<Vec<Param>> {
    Ok(match op {
        Op::Conv(c) => {
            let channels = channels(input(inputs, 0)?)?;
            let (first, second) =
                if c.transposed { (channels, c.out / c.groups) } else { (c.out, channels / c.groups) };
            let mut params = vec![Param::new(Role::Weight, [&[first, second], &c.kernel[..]].concat())];
            if c.bias {
                params.push(Param::new(Role::Bias, vec![c.out]));
            }
            params
        }
        Op::Linear(l) => {
            let features = *input(inputs, 0)?.last().ok_or("a linear layer needs an input with at least one axis")?;
            let experts = l.experts.map(|e| e.count);
            let shape = |tail: &[u64]| experts.iter().chain(tail).copied().collect::<Shape>();
            let mut params = vec![Param::new(Role::Weight, shape(&[l.out, features]))];
            if l.bias {
                params.push(Param::new(Role::Bias, shape(&[l.out])));
            }
            params
        }
        Op::Recurrent(r) => {
            let features = *input(inputs, 0)?.last().ok_or("a recurrent layer needs an input with features")?;
            let gates = r.cell.gates().checked_mul(r.hidden).filter(|g| g.checked_mul(2).is_some());
            let gates = gates.ok_or("hidden size overflows")?;
            vec![
                Param::new(Role::Weight, vec![r.directions, gates, features]),
                Param::new(Role::Weight, vec![r.directions, gates, r.hidden]),
                Param::new(Role::Bias, vec![r.directions, 2 * gates]),
            ]
        }
        Op::Embedding { vocab, dim } => vec![Param::new(Role::Constant, vec![*vocab, *dim])],
        Op::Norm(n) if n.affine => {
            let x = input(inputs, 0)?;
            let width = match n.kind {
                NormKind::Layer | NormKind::Rms => x[n.axis..].to_vec(),
                NormKind::Batch | NormKind::Group | NormKind::LocalResponse => vec![x[n.axis]],
            };
            let copies = if n.kind == NormKind::Rms { 1 } else { 2 };
            vec![Param::new(Role::Scale, width); copies]
        }
        _ => Vec::new(),
    })
}

/// Multiply–accumulates of a layer; `None` past 2^64 − 1.
pub fn macs(op: &Op, inputs: &[&[u64]], outputs: &[Tensor]) -> Option<u64> {
    let product = |factors: &[u64]| elements(factors);
    let out = outputs.first().map_or(&[][..], |t| &t.shape);
    match op {
        Op::Conv(c) => {
            let x = inputs.first()?;
            let taps = elements(&c.kernel)?;
            if c.transposed {
                // Each input pixel is multiplied into a window of outputs.
                product(&[elements(x)?, c.out / c.groups.max(1), taps])
            } else {
                product(&[elements(out)?, x.get(1)? / c.groups.max(1), taps])
            }
        }
        Op::Linear(l) => {
            let active = l.experts.map_or(1, |e| e.active);
            product(&[elements(out)?, *inputs.first()?.last()?, active])
        }
        Op::MatMul { transpose_a, .. } => {
            let a = inputs.first()?;
            let k = a.len().checked_sub(if *transpose_a && a.len() > 1 { 2 } else { 1 }).map(|i| a[i])?;
            product(&[elements(out)?, k])
        }
        Op::Attention(a) => {
            let (q, k) = (inputs.first()?, inputs.get(1)?);
            let [batch, tokens] = [*q.first()?, *q.get(1)?];
            let keys = k.get(1)?.checked_add(a.past)?;
            let keys = a.window.map_or(keys, |w| keys.min(w));
            product(&[2, batch, a.heads, tokens, keys, a.head_dim])
        }
        Op::Recurrent(r) => {
            let [a, b, features] = inputs.first()?[..] else { return None };
            let width = features.checked_add(r.hidden)?;
            product(&[a, b, r.directions, r.cell.gates(), r.hidden, width])
        }
        _ => Some(0),
    }
}

/// The shape to which two tensors broadcast (NumPy's rule).
pub fn broadcast(a: &[u64], b: &[u64]) -> Answer<Shape> {
    let rank = a.len().max(b.len());
    let at = |s: &[u64], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

fn input<'a>(inputs: &[&'a [u64]], i: usize) -> Answer<&'a [u64]> {
    inputs.get(i).copied().ok_or_else(|| format!("input {} is missing", i + 1))
}

fn channels(x: &[u64]) -> Answer<u64> {
    x.get(1).copied().ok_or_else(|| format!("needs an input [batch, channels, …], not {x:?}"))
}

fn with(x: &[u64], axis: usize, extent: u64) -> Shape {
    let mut shape = x.to_vec();
    shape[axis] = extent;
    shape
}

fn convolve(c: &Conv, x: &[u64]) -> Answer<Shape> {
    let dims = c.kernel.len();
    if x.len() != dims + 2 {
        return Err(format!("a {dims}-D convolution takes [batch, channels, {dims} spatial axes], not {x:?}"));
    }
    let lists = [c.stride.len(), c.pad.len(), c.dilation.len()];
    if lists.iter().any(|&l| l != dims) {
        return Err(format!("stride, pad and dilation need {dims} entries each"));
    }
    if c.groups == 0 || x[1] % c.groups != 0 || c.out % c.groups != 0 {
        return Err(format!("{} input and {} output channels do not divide into {} groups", x[1], c.out, c.groups));
    }
    let mut shape = vec![x[0], c.out];
    for i in 0..dims {
        let (d, k, s, l) = (x[i + 2], c.kernel[i], c.stride[i], c.dilation[i]);
        if k == 0 || s == 0 || l == 0 {
            return Err("kernel, stride and dilation must be at least 1".into());
        }
        let reach = (k - 1).checked_mul(l).and_then(|r| r.checked_add(1)).ok_or("kernel extent overflows")?;
        let pads = c.pad[i].0.checked_add(c.pad[i].1).ok_or("padding overflows")?;
        let extent = if c.transposed {
            let extra = c.output_pad.get(i).copied().unwrap_or(0);
            (d.checked_sub(1).ok_or("empty input")?)
                .checked_mul(s)
                .and_then(|v| v.checked_add(reach)?.checked_add(extra)?.checked_sub(pads))
                .ok_or("transposed convolution leaves nothing or overflows")?
        } else {
            let padded = d.checked_add(pads).ok_or("padded extent overflows")?;
            padded
                .checked_sub(reach)
                .ok_or_else(|| format!("kernel reaches {reach} over an extent of {padded} (padding included)"))?
                / s
                + 1
        };
        shape.push(extent);
    }
    Ok(shape)
}

fn matmul(a: &[u64], b: &[u64], ta: bool, tb: bool) -> Answer<Shape> {
    let ([.., a1, a2], [.., b1, b2]) = (a, b) else {
        return Err(format!("a product of two activations needs two axes each, not {a:?} and {b:?}"));
    };
    let (m, ka) = if ta { (*a2, *a1) } else { (*a1, *a2) };
    let (kb, n) = if tb { (*b2, *b1) } else { (*b1, *b2) };
    if ka != kb {
        return Err(format!("inner extents {ka} and {kb} of {a:?} × {b:?} differ"));
    }
    let mut shape = broadcast(&a[..a.len() - 2], &b[..b.len() - 2])?;
    shape.extend([m, n]);
    Ok(shape)
}

fn attention(a: &Attention, inputs: &[&[u64]]) -> Answer<Shape> {
    let (q, k, v) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
    if a.kv_heads == 0 || a.heads % a.kv_heads != 0 {
        return Err(format!("{} query heads do not divide over {} key/value heads", a.heads, a.kv_heads));
    }
    let width = |heads: u64| heads.checked_mul(a.head_dim).ok_or("head extents overflow".to_owned());
    let (wide, narrow) = (width(a.heads)?, width(a.kv_heads)?);
    let fits = |x: &[u64], w: u64| matches!(x, [_, _, last] if *last == w);
    if !(fits(q, wide) && fits(k, narrow) && fits(v, narrow) && q[0] == k[0] && k[..2] == v[..2]) {
        return Err(format!(
            "attention of {} × {} takes q [batch, tokens, {wide}] and k, v [batch, keys, {narrow}], not {q:?}, {k:?}, {v:?}",
            a.heads, a.head_dim
        ));
    }
    Ok(q.to_vec())
}

fn pool(p: &Pool, x: &[u64]) -> Answer<Shape> {
    if x.len() < 3 {
        return Err(format!("pooling takes [batch, channels, spatial…], not {x:?}"));
    }
    let dims = x.len() - 2;
    if let Some(extents) = &p.adaptive {
        if extents.len() != dims {
            return Err(format!("adaptive pooling needs {dims} extents"));
        }
        return Ok([&x[..2], extents].concat());
    }
    if p.kernel.is_empty() {
        return Ok([&x[..2], &vec![1; dims]].concat());
    }
    if p.kernel.len() != dims || p.stride.len() != dims || p.pad.len() != dims {
        return Err(format!("kernel, stride and pad need {dims} entries each"));
    }
    let mut shape = x[..2].to_vec();
    for i in 0..dims {
        if p.stride[i] == 0 || p.kernel[i] == 0 {
            return Err("kernel and stride must be at least 1".into());
        }
        let padded =
            x[i + 2].checked_add(p.pad[i].0).and_then(|d| d.checked_add(p.pad[i].1)).ok_or("padding overflows")?;
        let span = padded
            .checked_sub(p.kernel[i])
            .ok_or_else(|| format!("window of {} over an extent of {padded} (padding included)", p.kernel[i]))?;
        let mut extent = if p.ceil { span.div_ceil(p.stride[i]) } else { span / p.stride[i] } + 1;
        // A window that would begin in the far padding does not exist.
        if p.ceil && (extent - 1).saturating_mul(p.stride[i]) >= x[i + 2] + p.pad[i].0 {
            extent -= 1;
        }
        shape.push(extent);
    }
    Ok(shape)
}

fn reshape(target: &[u64], x: &[u64]) -> Answer<Shape> {
    let total = elements(x).ok_or("input is too large")?;
    let mut shape: Shape = target
        .iter()
        .enumerate()
        .map(|(i, &d)| {
            if d == 0 {
                x.get(i).copied().ok_or(format!("axis {i} copies an extent that the input lacks"))
            } else {
                Ok(d)
            }
        })
        .collect::<Answer<_>>()?;
    let known = shape
        .iter()
        .filter(|&&d| d != Op::INFER)
        .try_fold(1u64, |a, &d| a.checked_mul(d))
        .ok_or("target is too large")?;
    match shape.iter().filter(|&&d| d == Op::INFER).count() {
        0 if known == total => {}
        1 if known > 0 && total % known == 0 => {
            shape.iter_mut().filter(|d| **d == Op::INFER).for_each(|d| *d = total / known);
        }
        _ => return Err(format!("{total} elements of {x:?} do not fit the asked shape {target:?}")),
    }
    Ok(shape)
}

/// Elements of all tensors, checked, for callers that need an error.
pub fn checked_elements(what: &str, shape: &[u64]) -> Result<u64> {
    elements(shape).ok_or_else(|| Error::Overflow { what: what.to_owned() })
}
