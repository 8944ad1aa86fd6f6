//! How a framework runs a network when no inference runtime fuses it: kernel by kernel, as PyTorch and the transformers
//! library (`attn_implementation = "eager"`) write their operations.

use super::fuse::{Step, steps};
use super::{Assignment, Attention, Epilogue, Gemm, Lowered, Source, SparseGemm, Stream, StreamKind};
use crate::dtype::DType;
use crate::error::Result;
use crate::units::Bytes;
use crate::workload::layer::{NormKind, Op};
use crate::workload::{Graph, Layer};

/// Who decides what becomes one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// Every written operation is a kernel of its own (PyTorch's default).
    Eager,
    /// Chains of pointwise work become one kernel, products and attention's two halves stay the library's own
    /// (`torch.compile`).
    Compiled,
}

/// A network as a framework runs it.
///
/// # Errors
/// What [`steps`] refuses.
pub fn framework_steps(
    graph: &Graph,
    assignment: &Assignment,
    dtype: DType,
    framework: Framework,
) -> Result<Vec<Step>> {
    let fuse = framework == Framework::Compiled;
    let mut steps = steps(graph, assignment, dtype, fuse)?;
    for step in &mut steps {
        let layer = graph.layer(step.lead);
        step.ops = std::mem::take(&mut step.ops).into_iter().flat_map(|op| launched(op, layer, framework)).collect();
    }
    Ok(steps)
}

/// Kernels that steps launch.
pub fn kernels(steps: &[Step]) -> usize {
    steps.iter().map(|s| s.ops.len()).sum()
}

/// The kernels that a framework launches for one operation.
fn launched(op: Lowered, layer: &Layer, framework: Framework) -> Vec<Lowered> {
    match op {
        Lowered::Attention(a) => attention(&a, framework),
        Lowered::Gemm(g) => product(g),
        Lowered::Stream(s) => match (&layer.op, layer.spelled.as_str(), framework) {
            // x/2·(1 + tanh(c·(x + 0.044715·x³))): five kernels of one operand, three scalings among them, two sums and a
            // product of two.
            (Op::Pointwise(_), "gelu_new", Framework::Eager) => chain(&s, &[1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0]),
            // Square, mean, scaling by the inverse root, weight.
            (Op::Norm(n), _, Framework::Eager) if n.kind == NormKind::Rms => chain(&s, &[1.0, 0.0, 1.0, 1.0]),
            _ => vec![Lowered::Stream(s)],
        },
    }
}

/// Kernels over a tensor of the stream's output, each given by the tensors of that size that it reads; none reads one
/// and writes a number a row.
fn chain(of: &Stream, reads: &[f64]) -> Vec<Lowered> {
    let one = |&reads: &f64| {
        let written = if reads > 0.0 { 1.0 } else { 1.0 / of.cols.max(1) as f64 };
        let kind = if reads > 0.0 { StreamKind::Pointwise } else { StreamKind::Reduce };
        Lowered::Stream(Stream {
            kind,
            input: of.output * reads.max(1.0),
            parameters: Bytes::ZERO,
            output: of.output * written,
            ..*of
        })
    };
    reads.iter().map(one).collect()
}

/// A library's product adds its bias alone; what a runtime would fuse behind it is a kernel.
fn product(mut g: SparseGemm) -> Vec<Lowered> {
    let behind = std::mem::take(&mut g.epilogue);
    if behind == Epilogue::default() {
        return vec![Lowered::Gemm(g)];
    }
    let output = g.output_bytes();
    let stream = Stream {
        kind: StreamKind::Pointwise,
        rows: g.gemm.groups * g.gemm.m,
        cols: g.gemm.n,
        input: output + behind.bytes,
        parameters: Bytes::ZERO,
        output,
        operations: behind.operations as f64 * g.gemm.groups as f64 * g.gemm.m as f64 * g.gemm.n as f64,
        dtype: g.out_dtype,
        resident: Bytes::ZERO,
    };
    vec![Lowered::Gemm(g), Lowered::Stream(stream)]
}

/// Unfused attention: heads are copied together, QKᵀ, scaling, mask, softmax, the product with V, and the way back. A
/// compiler joins scaling and mask to the softmax and leaves the copies to the kernels around.
fn attention(a: &Attention, framework: Framework) -> Vec<Lowered> {
    let heads = a.batch * a.heads;
    let element = a.dtype.output();
    let stream = |kind: StreamKind, rows: u64, cols: u64, reads: f64| {
        let output = Bytes((heads * rows) as f64 * cols as f64 * element.bytes());
        Lowered::Stream(Stream {
            kind,
            rows: heads * rows,
            cols,
            input: output * reads,
            parameters: Bytes::ZERO,
            output,
            operations: (heads * rows) as f64 * cols as f64,
            dtype: element,
            resident: Bytes::ZERO,
        })
    };
    let product = |n: u64, k: u64| {
        let mut op = SparseGemm::dense(Gemm { groups: heads, m: a.queries, n, k }, a.dtype);
        op.source = Source::Activations;
        Lowered::Gemm(op)
    };
    let copy = |rows: u64| stream(StreamKind::Move, rows, a.head_dim, 1.0);
    let scores = |kind: StreamKind| stream(kind, a.queries, a.keys, 1.0);
    let (first, second) = (product(a.keys, a.head_dim), product(a.head_dim, a.keys));
    match framework {
        Framework::Eager => vec![
            copy(a.queries),
            copy(a.keys),
            first,
            scores(StreamKind::Pointwise),
            scores(StreamKind::Pointwise),
            scores(StreamKind::Softmax),
            copy(a.keys),
            second,
            copy(a.queries),
        ],
        Framework::Compiled => vec![first, scores(StreamKind::Softmax), second, copy(a.queries)],
    }
}
