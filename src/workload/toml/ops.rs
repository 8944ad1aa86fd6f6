//! The vocabulary of `op.NAME = { … }` and what each name means as an [`Op`].

use super::fields::{Extents, Padding};
use crate::workload::layer::*;
use schemars::JsonSchema;
use serde::Deserialize;

/// An operation as a TOML network spells it.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OpSpec {
    Conv1d(ConvSpec),
    Conv2d(ConvSpec),
    Conv3d(ConvSpec),
    ConvTranspose1d(ConvSpec),
    ConvTranspose2d(ConvSpec),
    ConvTranspose3d(ConvSpec),
    Linear(LinearSpec),
    Matmul(MatmulSpec),
    Attention(AttentionSpec),
    Lstm(RecurrentSpec),
    Gru(RecurrentSpec),
    Rnn(RecurrentSpec),
    Embedding(EmbeddingSpec),
    BatchNorm(ChannelNormSpec),
    InstanceNorm(ChannelNormSpec),
    GroupNorm(GroupNormSpec),
    LayerNorm(TokenNormSpec),
    RmsNorm(TokenNormSpec),
    Lrn(Nothing),
    Add(Nothing),
    Sub(Nothing),
    Mul(Nothing),
    Div(Nothing),
    Relu(Nothing),
    Relu6(Nothing),
    LeakyRelu(Nothing),
    Gelu(Nothing),
    Silu(Nothing),
    Sigmoid(Nothing),
    HardSigmoid(Nothing),
    Tanh(Nothing),
    HardSwish(Nothing),
    Rotary(Nothing),
    Pointwise(Nothing),
    Softmax(AxisSpec),
    LogSoftmax(AxisSpec),
    MaxPool(WindowSpec),
    AvgPool(WindowSpec),
    AdaptiveAvgPool(AdaptiveSpec),
    AdaptiveMaxPool(AdaptiveSpec),
    GlobalAvgPool(Nothing),
    GlobalMaxPool(Nothing),
    Sum(ReduceSpec),
    Mean(ReduceSpec),
    Max(ReduceSpec),
    Concat(JoinSpec),
    Split(SplitSpec),
    Slice(SliceSpec),
    Flatten(FlattenSpec),
    Reshape(ReshapeSpec),
    Transpose(TransposeSpec),
    Pad(PadSpec),
    Resize(ShapeSpec),
    Expand(ShapeSpec),
    Gather(JoinSpec),
    Parameter(ShapeSpec),
    Opaque(Nothing),
}

/// `{}`: the operation has no attributes.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConvSpec {
    out: u64,
    kernel: Extents,
    #[serde(default = "ones")]
    stride: Extents,
    #[serde(default = "no_padding")]
    pad: Padding,
    #[serde(default = "ones")]
    dilation: Extents,
    #[serde(default = "one")]
    groups: u64,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default = "zeros")]
    output_pad: Extents,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LinearSpec {
    out: u64,
    #[serde(default = "yes")]
    bias: bool,
    experts: Option<ExpertsSpec>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpertsSpec {
    count: u64,
    active: u64,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MatmulSpec {
    #[serde(default)]
    transpose_a: bool,
    #[serde(default)]
    transpose_b: bool,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AttentionSpec {
    heads: u64,
    kv_heads: Option<u64>,
    head_dim: u64,
    #[serde(default)]
    causal: bool,
    #[serde(default)]
    past: u64,
    window: Option<u64>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecurrentSpec {
    hidden: u64,
    #[serde(default)]
    bidirectional: bool,
    #[serde(default)]
    batch_first: bool,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddingSpec {
    vocab: u64,
    dim: u64,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelNormSpec {
    #[serde(default = "first")]
    axis: i32,
    #[serde(default = "yes")]
    affine: bool,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupNormSpec {
    // Grouping moves neither bytes nor operations; it is read so that files may state it.
    #[serde(rename = "groups")]
    _groups: u64,
    #[serde(default = "first")]
    axis: i32,
    #[serde(default = "yes")]
    affine: bool,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenNormSpec {
    #[serde(default = "last")]
    axis: i32,
    #[serde(default = "yes")]
    affine: bool,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AxisSpec {
    #[serde(default = "last")]
    axis: i32,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinSpec {
    #[serde(default = "first")]
    axis: i32,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowSpec {
    kernel: Extents,
    stride: Option<Extents>,
    #[serde(default = "no_padding")]
    pad: Padding,
    #[serde(default)]
    ceil: bool,
    /// Spatial axes, where the kernel is one number; two unless said.
    #[serde(default = "two")]
    dims: usize,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdaptiveSpec {
    out: Extents,
    #[serde(default = "two")]
    dims: usize,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReduceSpec {
    axes: Vec<i32>,
    #[serde(default)]
    keep: bool,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SplitSpec {
    axis: i32,
    sizes: Vec<u64>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SliceSpec {
    axis: i32,
    #[serde(default)]
    start: u64,
    len: u64,
    #[serde(default = "forward")]
    step: i64,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FlattenSpec {
    /// First axis that is joined; all later ones join it.
    #[serde(default = "one")]
    axis: u64,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReshapeSpec {
    /// 0 copies the input's extent, one −1 takes what is left.
    shape: Vec<i64>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TransposeSpec {
    perm: Vec<usize>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PadSpec {
    pads: Padding,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShapeSpec {
    shape: Vec<u64>,
}

fn one() -> u64 {
    1
}
fn two() -> usize {
    2
}
fn yes() -> bool {
    true
}
fn first() -> i32 {
    1
}
fn last() -> i32 {
    -1
}
fn forward() -> i64 {
    1
}
fn ones() -> Extents {
    Extents::All(1)
}
fn zeros() -> Extents {
    Extents::All(0)
}
fn no_padding() -> Padding {
    Padding::NONE
}

/// An axis as [`Op`] has it: counted from the front, or from the back until shape inference knows the rank.
fn axis(written: i32) -> usize {
    if written < 0 { Op::axis_from_back(written.unsigned_abs() as usize) } else { written as usize }
}

impl OpSpec {
    /// The operation, its spelling, and the shape of a stored tensor.
    pub(super) fn into_op(self) -> (Op, &'static str, Option<Shape>) {
        let plain = |function, spelled| (Op::Pointwise(function), spelled, None);
        match self {
            Self::Conv1d(c) => (c.into_op(1, false), "conv1d", None),
            Self::Conv2d(c) => (c.into_op(2, false), "conv2d", None),
            Self::Conv3d(c) => (c.into_op(3, false), "conv3d", None),
            Self::ConvTranspose1d(c) => (c.into_op(1, true), "conv_transpose1d", None),
            Self::ConvTranspose2d(c) => (c.into_op(2, true), "conv_transpose2d", None),
            Self::ConvTranspose3d(c) => (c.into_op(3, true), "conv_transpose3d", None),
            Self::Linear(l) => {
                let experts = l.experts.map(|e| Experts { count: e.count, active: e.active });
                (Op::Linear(Linear { out: l.out, bias: l.bias, experts }), "linear", None)
            }
            Self::Matmul(m) => (Op::MatMul { transpose_a: m.transpose_a, transpose_b: m.transpose_b }, "matmul", None),
            Self::Attention(a) => (Op::Attention(a.into()), "attention", None),
            Self::Lstm(r) => (r.into_op(Cell::Lstm), "lstm", None),
            Self::Gru(r) => (r.into_op(Cell::Gru), "gru", None),
            Self::Rnn(r) => (r.into_op(Cell::Rnn), "rnn", None),
            Self::Embedding(e) => (Op::Embedding { vocab: e.vocab, dim: e.dim }, "embedding", None),
            Self::BatchNorm(n) => (norm(NormKind::Batch, n.axis, n.affine), "batch_norm", None),
            Self::InstanceNorm(n) => (norm(NormKind::Group, n.axis, n.affine), "instance_norm", None),
            Self::GroupNorm(n) => (norm(NormKind::Group, n.axis, n.affine), "group_norm", None),
            Self::LayerNorm(n) => (norm(NormKind::Layer, n.axis, n.affine), "layer_norm", None),
            Self::RmsNorm(n) => (norm(NormKind::Rms, n.axis, n.affine), "rms_norm", None),
            Self::Lrn(_) => (norm(NormKind::LocalResponse, 1, false), "lrn", None),
            Self::Add(_) => plain(Function::Add, "add"),
            Self::Sub(_) => plain(Function::Sub, "sub"),
            Self::Mul(_) => plain(Function::Mul, "mul"),
            Self::Div(_) => plain(Function::Div, "div"),
            Self::Relu(_) => plain(Function::Relu, "relu"),
            Self::Relu6(_) => plain(Function::Relu, "relu6"),
            Self::LeakyRelu(_) => plain(Function::Relu, "leaky_relu"),
            Self::Gelu(_) => plain(Function::Gelu, "gelu"),
            Self::Silu(_) => plain(Function::Silu, "silu"),
            Self::Sigmoid(_) => plain(Function::Sigmoid, "sigmoid"),
            Self::HardSigmoid(_) => plain(Function::Sigmoid, "hard_sigmoid"),
            Self::Tanh(_) => plain(Function::Tanh, "tanh"),
            Self::HardSwish(_) => plain(Function::HardSwish, "hard_swish"),
            Self::Rotary(_) => plain(Function::Rotary, "rotary"),
            Self::Pointwise(_) => plain(Function::Other, "pointwise"),
            Self::Softmax(s) => (Op::Softmax { axis: axis(s.axis) }, "softmax", None),
            Self::LogSoftmax(s) => (Op::Softmax { axis: axis(s.axis) }, "log_softmax", None),
            Self::MaxPool(w) => (w.into_op(PoolKind::Max), "max_pool", None),
            Self::AvgPool(w) => (w.into_op(PoolKind::Average), "avg_pool", None),
            Self::AdaptiveAvgPool(a) => (a.into_op(PoolKind::Average), "adaptive_avg_pool", None),
            Self::AdaptiveMaxPool(a) => (a.into_op(PoolKind::Max), "adaptive_max_pool", None),
            Self::GlobalAvgPool(_) => (global(PoolKind::Average), "global_avg_pool", None),
            Self::GlobalMaxPool(_) => (global(PoolKind::Max), "global_max_pool", None),
            Self::Sum(r) => (r.into_op(), "sum", None),
            Self::Mean(r) => (r.into_op(), "mean", None),
            Self::Max(r) => (r.into_op(), "max", None),
            Self::Concat(j) => (Op::Concat { axis: axis(j.axis) }, "concat", None),
            Self::Split(s) => (Op::Split { axis: axis(s.axis), sizes: s.sizes }, "split", None),
            Self::Slice(s) => {
                let range = Range { axis: axis(s.axis), start: s.start, len: s.len, step: s.step };
                (Op::Slice { ranges: vec![range] }, "slice", None)
            }
            Self::Flatten(f) => {
                // A first axis past any rank is refused by inference; it must not allocate here.
                let mut shape = vec![0; f.axis.min(16) as usize];
                shape.push(Op::INFER);
                (Op::Reshape { shape }, "flatten", None)
            }
            Self::Reshape(r) => {
                let shape = r.shape.iter().map(|&d| u64::try_from(d).unwrap_or(Op::INFER)).collect();
                (Op::Reshape { shape }, "reshape", None)
            }
            Self::Transpose(t) => (Op::Transpose { perm: t.perm }, "transpose", None),
            Self::Pad(p) => (Op::Pad { pads: p.pads.over(0) }, "pad", None),
            Self::Resize(r) => (Op::Resize { shape: r.shape }, "resize", None),
            Self::Expand(e) => (Op::Expand { shape: e.shape }, "expand", None),
            Self::Gather(g) => (Op::Gather { axis: axis(g.axis) }, "gather", None),
            Self::Parameter(p) => (Op::Parameter, "parameter", Some(p.shape)),
            Self::Opaque(_) => (Op::Opaque, "opaque", None),
        }
    }
}

fn norm(kind: NormKind, written: i32, affine: bool) -> Op {
    Op::Norm(Norm { kind, axis: axis(written), affine })
}

fn global(kind: PoolKind) -> Op {
    Op::Pool(Pool { kind, kernel: Vec::new(), stride: Vec::new(), pad: Vec::new(), ceil: false, adaptive: None })
}

impl ConvSpec {
    fn into_op(self, dims: usize, transposed: bool) -> Op {
        Op::Conv(Conv {
            out: self.out,
            kernel: self.kernel.over(dims),
            stride: self.stride.over(dims),
            pad: self.pad.over(dims),
            dilation: self.dilation.over(dims),
            groups: self.groups,
            bias: self.bias,
            transposed,
            output_pad: if transposed { self.output_pad.over(dims) } else { Vec::new() },
        })
    }
}

impl From<AttentionSpec> for Attention {
    fn from(a: AttentionSpec) -> Self {
        Self {
            heads: a.heads,
            kv_heads: a.kv_heads.unwrap_or(a.heads),
            head_dim: a.head_dim,
            causal: a.causal,
            past: a.past,
            window: a.window,
        }
    }
}

impl RecurrentSpec {
    fn into_op(self, cell: Cell) -> Op {
        let directions = if self.bidirectional { 2 } else { 1 };
        Op::Recurrent(Recurrent { cell, hidden: self.hidden, directions, batch_first: self.batch_first })
    }
}

impl WindowSpec {
    fn into_op(self, kind: PoolKind) -> Op {
        let dims = match &self.kernel {
            Extents::All(_) => self.dims.min(16),
            Extents::Each(list) => list.len(),
        };
        let kernel = self.kernel.over(dims);
        let stride = self.stride.map_or_else(|| kernel.clone(), |s| s.over(dims));
        Op::Pool(Pool { kind, kernel, stride, pad: self.pad.over(dims), ceil: self.ceil, adaptive: None })
    }
}

impl AdaptiveSpec {
    fn into_op(self, kind: PoolKind) -> Op {
        let adaptive = Some(self.out.over(self.dims.min(16)));
        Op::Pool(Pool { kind, kernel: Vec::new(), stride: Vec::new(), pad: Vec::new(), ceil: false, adaptive })
    }
}

impl ReduceSpec {
    fn into_op(self) -> Op {
        Op::Reduce { axes: self.axes.into_iter().map(axis).collect(), keep: self.keep }
    }
}
