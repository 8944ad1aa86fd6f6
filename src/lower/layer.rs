//! One layer becomes the operations that a machine runs for it.

use super::{Attention, ConvShape, Epilogue, Gemm, Lowered, Source, SparseGemm, Stream, StreamKind};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::lower::assign::Choice;
use crate::pattern::SparsityPattern;
use crate::sparsity::WeightStats;
use crate::units::Bytes;
use crate::workload::layer::{Conv, Linear, NormKind, Op, elements};
use crate::workload::{Layer, Role};

/// Lowers a layer with inputs of the given shapes; views (reshape, split, graph inputs …) become nothing.
///
/// # Errors
/// Counts past 2^64 − 1, or shapes that the graph should have refused.
pub fn lower(layer: &Layer, inputs: &[&[u64]], choice: Choice, dtype: DType) -> Result<Vec<Lowered>> {
    let overflow = || Error::Overflow { what: format!("the work of layer `{}`", layer.name) };
    let gemm = |gemm: Gemm, source: Source| -> Result<Lowered> {
        gemm.macs().ok_or_else(overflow)?;
        Ok(Lowered::Gemm(product(gemm, source, choice, dtype)?))
    };
    let out = layer.shape();
    let count = |shape: &[u64]| elements(shape).ok_or_else(overflow);
    Ok(match &layer.op {
        Op::Input | Op::Parameter | Op::Reshape { .. } | Op::Split { .. } | Op::Expand { .. } => Vec::new(),
        Op::Slice { ranges } if ranges.iter().all(|r| r.step == 1) => Vec::new(),
        Op::Conv(conv) => {
            let (shape, source) = convolution(conv, inputs[0], out).ok_or_else(overflow)?;
            vec![gemm(shape, Source::Conv(source))?]
        }
        Op::Linear(linear) => {
            let (shape, source) = fully_connected(linear, inputs[0], out).ok_or_else(overflow)?;
            vec![gemm(shape, source)?]
        }
        Op::MatMul { transpose_a, .. } => {
            let [.., m, n] = *out else { return Err(overflow()) };
            let a = inputs[0];
            let k = a[a.len() - if *transpose_a { 2 } else { 1 }];
            let groups = count(&out[..out.len() - 2])?;
            vec![gemm(Gemm { groups, m, n, k }, Source::Activations)?]
        }
        Op::Attention(a) => {
            let (q, k) = (inputs[0], inputs[1]);
            vec![Lowered::Attention(Attention {
                batch: q[0],
                heads: a.heads,
                kv_heads: a.kv_heads,
                queries: q[1],
                keys: k[1].checked_add(a.past).ok_or_else(overflow)?,
                head_dim: a.head_dim,
                causal: a.causal,
                window: a.window,
                dtype,
                resident: Bytes::ZERO,
            })]
        }
        Op::Recurrent(r) => {
            let [a, b, features] = *inputs[0] else { return Err(overflow()) };
            let (steps, batch) = if r.batch_first { (b, a) } else { (a, b) };
            let (groups, n) = (r.directions, r.cell.gates() * r.hidden);
            let m = steps.checked_mul(batch).ok_or_else(overflow)?;
            // All steps' input products are one large GEMM; the state's must wait for one another.
            vec![
                gemm(Gemm { groups, m, n, k: features }, Source::Linear)?,
                gemm(Gemm { groups, m: batch, n, k: r.hidden }, Source::Recurrent { steps })?,
            ]
        }
        Op::Transpose { perm } if is_view(perm, inputs[0]) => Vec::new(),
        _ => vec![Lowered::Stream(stream(layer, inputs, dtype)?)],
    })
}

fn product(gemm: Gemm, source: Source, choice: Choice, dtype: DType) -> Result<SparseGemm> {
    let asked = if source == Source::Activations || choice.pattern.shrinks_graph() { Choice::DENSE } else { choice };
    let expected = WeightStats::expected(asked.pattern, gemm.n, gemm.k);
    // What removes nothing costs what dense costs, unless a format was asked for by name.
    let weights = if asked.format.is_none() { expected.settled() } else { expected };
    let settled = Choice { pattern: weights.pattern(), ..asked };
    Ok(SparseGemm {
        gemm,
        weights,
        format: settled.storage()?,
        dtype,
        out_dtype: dtype.output(),
        source,
        epilogue: Epilogue::default(),
        resident: Bytes::ZERO,
        format_free: asked.format.is_none(),
    })
}

fn convolution(conv: &Conv, x: &[u64], y: &[u64]) -> Option<(Gemm, ConvShape)> {
    let taps = elements(&conv.kernel)?;
    let groups = conv.groups.max(1);
    let batch = *x.first()?;
    let channels = *x.get(1)?;
    let (pixels_in, pixels_out) = (elements(&x[2..])?, elements(&y[2..])?);
    let gemm = if conv.transposed {
        // Every input pixel times every tap, scattered into the output afterwards.
        let n = (conv.out / groups).checked_mul(taps)?;
        Gemm { groups, m: batch.checked_mul(pixels_in)?, n, k: channels / groups }
    } else {
        let k = (channels / groups).checked_mul(taps)?;
        Gemm { groups, m: batch.checked_mul(pixels_out)?, n: conv.out / groups, k }
    };
    let shape = ConvShape {
        batch,
        channels,
        input: plane(&x[2..])?,
        output: plane(&y[2..])?,
        kernel: plane(&conv.kernel)?,
        stride: last_two(&conv.stride),
        dilation: last_two(&conv.dilation),
        transposed: conv.transposed,
    };
    Some((gemm, shape))
}

/// Any number of axes folded into two, the last kept.
fn plane(extents: &[u64]) -> Option<[u64; 2]> {
    let (last, rest) = extents.split_last()?;
    Some([elements(rest)?, *last])
}

fn last_two(list: &[u64]) -> [u64; 2] {
    match list {
        [] => [1, 1],
        [one] => [1, *one],
        [.., a, b] => [*a, *b],
    }
}

fn fully_connected(linear: &Linear, x: &[u64], y: &[u64]) -> Option<(Gemm, Source)> {
    let k = *x.last()?;
    let rows = elements(&y[..y.len() - 1])?;
    let Some(experts) = linear.experts else {
        return Some((Gemm { groups: 1, m: rows, n: linear.out, k }, Source::Linear));
    };
    // Tokens spread evenly over the experts that any of them visits.
    let visits = rows.checked_mul(experts.active)?;
    let busy = experts.count.min(visits).max(1);
    Some((Gemm { groups: busy, m: visits.div_ceil(busy), n: linear.out, k }, Source::Linear))
}

/// A transpose that only moves axes of extent 1 changes no byte.
fn is_view(perm: &[usize], x: &[u64]) -> bool {
    perm.iter().filter(|&&p| x[p] != 1).is_sorted()
}

fn stream(layer: &Layer, inputs: &[&[u64]], dtype: DType) -> Result<Stream> {
    let overflow = || Error::Overflow { what: format!("the tensors of layer `{}`", layer.name) };
    let bytes = |n: u64, d: DType| Bytes(n as f64 * d.bytes());
    let activations = dtype.output();
    let mut written = 0u64;
    for t in &layer.outputs {
        written = written.checked_add(elements(&t.shape).ok_or_else(overflow)?).ok_or_else(overflow)?;
    }
    let mut read = 0u64;
    for shape in inputs {
        read = read.checked_add(elements(shape).ok_or_else(overflow)?).ok_or_else(overflow)?;
    }
    let mut stored = 0u64;
    for p in &layer.params {
        stored = stored.saturating_add(p.elements()?);
    }
    let x = inputs.first().copied().unwrap_or(&[]);
    let (kind, cols, operations) = match &layer.op {
        Op::Pointwise(f) => (StreamKind::Pointwise, innermost(layer.shape()), written as f64 * f.operations() as f64),
        Op::Norm(n) => {
            let cols = match n.kind {
                NormKind::Layer | NormKind::Rms => elements(&x[n.axis..]).unwrap_or(1),
                NormKind::Batch | NormKind::LocalResponse | NormKind::Group => {
                    elements(&x[(n.axis + 1).min(x.len())..]).unwrap_or(1)
                }
            };
            let per_element = match n.kind {
                NormKind::Batch => 2.0,
                NormKind::Rms => 4.0,
                NormKind::Layer | NormKind::Group => 8.0,
                NormKind::LocalResponse => 20.0,
            };
            (StreamKind::Norm, cols, per_element * written as f64)
        }
        Op::Softmax { axis } => (StreamKind::Softmax, x[*axis], 12.0 * written as f64),
        Op::Pool(p) => {
            let window = if p.kernel.is_empty() || p.adaptive.is_some() {
                read / written.max(1)
            } else {
                elements(&p.kernel).unwrap_or(1)
            };
            (StreamKind::Pool, innermost(layer.shape()), written as f64 * window as f64)
        }
        Op::Reduce { .. } => (StreamKind::Reduce, read / written.max(1), read as f64),
        Op::Embedding { dim, .. } => {
            // Only the rows that are looked up are read, and the indices are four bytes each.
            let table = bytes(written, activations);
            return Ok(Stream {
                kind: StreamKind::Lookup,
                rows: written / (*dim).max(1),
                cols: *dim,
                input: Bytes(read as f64 * 4.0),
                parameters: table,
                output: bytes(written, activations),
                operations: 0.0,
                dtype: activations,
                resident: Bytes::ZERO,
            });
        }
        Op::Gather { .. } => {
            // Gathered entries are read once each; the rest of the source is not touched.
            read = read.min(written.saturating_mul(2));
            stored = stored.min(written);
            (StreamKind::Lookup, innermost(layer.shape()), 0.0)
        }
        Op::Slice { .. } => {
            read = written;
            (StreamKind::Move, innermost(layer.shape()), 0.0)
        }
        Op::Concat { .. } | Op::Transpose { .. } | Op::Pad { .. } => (StreamKind::Move, innermost(layer.shape()), 0.0),
        Op::Resize { .. } => (StreamKind::Move, innermost(layer.shape()), 4.0 * written as f64),
        _ => (StreamKind::Unknown, innermost(layer.shape()), written as f64),
    };
    let cols = cols.max(1);
    Ok(Stream {
        kind,
        rows: (written / cols).max(1),
        cols,
        input: bytes(read, activations),
        parameters: bytes(stored, activations),
        output: bytes(written, activations),
        operations,
        dtype: activations,
        resident: Bytes::ZERO,
    })
}

fn innermost(shape: &[u64]) -> u64 {
    shape.last().copied().unwrap_or(1)
}

/// Whether sparsity patterns apply to the layer at all.
pub fn has_weights(layer: &Layer) -> bool {
    matches!(layer.op, Op::Conv(_) | Op::Linear(_) | Op::Recurrent(_))
        && layer.params.iter().any(|p| p.role == Role::Weight)
}

/// Whether a rule may name the layer: it has weights, or heads to remove.
pub fn takes_rules(layer: &Layer) -> bool {
    has_weights(layer) || matches!(layer.op, Op::Attention(_))
}

/// Whether a mask pattern leaves a remainder on an `[n, k]` matrix, in words; such a matrix is padded with zeros.
pub fn remainder(pattern: SparsityPattern, n: u64, k: u64) -> Option<String> {
    match pattern {
        SparsityPattern::Nm { m, .. } if k % m != 0 => Some(format!("k = {k} is padded to {}", k.next_multiple_of(m))),
        SparsityPattern::Vnm { v, m, .. } if k % m != 0 || n % v != 0 => {
            Some(format!("{n}×{k} is padded to {}×{}", n.next_multiple_of(v), k.next_multiple_of(m)))
        }
        SparsityPattern::Block { rows, cols, .. } if n % rows != 0 || k % cols != 0 => {
            Some(format!("{n}×{k} is padded to {}×{}", n.next_multiple_of(rows), k.next_multiple_of(cols)))
        }
        _ => None,
    }
}
