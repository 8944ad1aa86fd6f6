//! The operations of a network, with the axis semantics that shape inference and dependency analysis need.

use crate::error::{Error, Result};

/// Extent of a tensor along each axis, outermost first. A scalar is empty.
pub type Shape = Vec<u64>;

/// A named tensor that a layer produces.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name in the source file; the layer's name (with `:i` for a further output) where the source names none.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
}

/// One node of the network.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Unique in its graph.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// The operator as its source spells it (`Conv`, `QLinearConv`, `conv2d`, …).
    pub spelled: String,
    /// What it produces, in order. Filled by shape inference or by the importer.
    pub outputs: Vec<Tensor>,
    /// Its parameters, in the order of the source.
    pub params: Vec<Param>,
}

/// What a parameter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The matrix or filter that sparsity patterns act on; for [`Op::Conv`] `[out, in/groups, kernel…]` (transposed
    /// convolution: `[in, out/groups, kernel…]`), for [`Op::Linear`] `[out, in]` unless `Param::transposed`.
    Weight,
    /// Added to the output channels.
    Bias,
    /// Scale, shift or statistic of a normalisation, quantisation scales and zero points, PReLU slopes.
    Scale,
    /// Everything else that is stored with the model: embeddings, shape constants, tables.
    Constant,
}

/// A stored tensor that belongs to a layer.
#[derive(Clone, Debug)]
pub struct Param {
    /// Name in the source; empty for generated networks.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// What it is for.
    pub role: Role,
    /// Whether a weight matrix is stored `[in, out]` (ONNX MatMul) instead of `[out, in]`.
    pub transposed: bool,
    /// Whether another layer already counts it (tied embeddings, a shared initializer).
    pub shared: bool,
}

impl Param {
    /// A parameter that belongs to this layer alone, stored the usual way round.
    pub fn new(role: Role, shape: Shape) -> Self {
        Self { name: String::new(), shape, role, transposed: false, shared: false }
    }

    /// Elements of it, checked.
    pub fn elements(&self) -> Result<u64> {
        elements(&self.shape).ok_or_else(|| Error::Overflow { what: format!("parameter `{}`", self.name) })
    }
}

/// Elements of a shape; `None` past 2^64 − 1.
pub fn elements(shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(1u64, |a, &d| a.checked_mul(d))
}

/// What a layer computes. Weights are parameters of the layer; `inputs` below are activations.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A graph input: no inputs, one output.
    Input,
    /// A stored tensor used as an activation (class token, position table): no inputs, one output.
    Parameter,
    /// Convolution over `[batch, channels, spatial…]`.
    Conv(Conv),
    /// `Y = X·Wᵀ + b` over the last axis of X.
    Linear(Linear),
    /// Product of two activations over their last two axes, batch axes broadcast.
    MatMul {
        /// The last two axes of the first input are swapped before the product.
        transpose_a: bool,
        /// Likewise the second's.
        transpose_b: bool,
    },
    /// `softmax(Q·Kᵀ)·V` over already projected q, k, v of shape `[batch, tokens, heads · head_dim]`.
    Attention(Attention),
    /// LSTM, GRU or plain recurrence over `[steps, batch, in]` (or batch first).
    Recurrent(Recurrent),
    /// Table look-up: integer tensor in, one more axis of `dim` out. Costs bytes, no MACs.
    Embedding {
        /// Rows of the table.
        vocab: u64,
        /// Columns of the table.
        dim: u64,
    },
    /// Normalisation; shape is kept.
    Norm(Norm),
    /// Element by element over one or more inputs with broadcasting.
    Pointwise(Function),
    /// Softmax (or its logarithm) along an axis.
    Softmax {
        /// Counted from the front.
        axis: usize,
    },
    /// Local or global pooling over the spatial axes of `[batch, channels, spatial…]`.
    Pool(Pool),
    /// Sum, mean, max … over axes.
    Reduce {
        /// Counted from the front, ascending.
        axes: Vec<usize>,
        /// Whether reduced axes stay with extent 1.
        keep: bool,
    },
    /// Joins inputs along an axis.
    Concat {
        /// Counted from the front.
        axis: usize,
    },
    /// Cuts the input along an axis into consecutive parts, one an output.
    Split {
        /// Counted from the front.
        axis: usize,
        /// Extent of each output along it.
        sizes: Vec<u64>,
    },
    /// Keeps a range of each named axis.
    Slice {
        /// The ranges; axes not named stay whole.
        ranges: Vec<Range>,
    },
    /// Same elements in the same order, other axes. In a specification `0` copies the input's extent and one
    /// [`Op::INFER`] takes what is left; after inference the layer's output shape says what it became.
    Reshape {
        /// Extents asked for.
        shape: Shape,
    },
    /// Axes in another order.
    Transpose {
        /// Output axis i is input axis `perm[i]`.
        perm: Vec<usize>,
    },
    /// Constant border.
    Pad {
        /// Elements (before, after) each axis.
        pads: Vec<(u64, u64)>,
    },
    /// Up- or down-sampling to the stated extents.
    Resize {
        /// Output shape.
        shape: Shape,
    },
    /// Picks entries along an axis by an index tensor (the second input or a parameter).
    Gather {
        /// Counted from the front.
        axis: usize,
    },
    /// Repetition to a larger shape by the broadcasting rules or by tiling.
    Expand {
        /// Output shape.
        shape: Shape,
    },
    /// An operator whose meaning is not known: it reads its inputs and parameters and writes its outputs.
    Opaque,
}

impl Op {
    /// Marks the axis of a [`Op::Reshape`] whose extent follows from the others.
    pub const INFER: u64 = u64::MAX;

    /// An axis counted from the back (1 is the last), to stand where one counted from the front is due until
    /// [`Graph::build`](super::Graph::build) knows the rank.
    pub const fn axis_from_back(axis: usize) -> usize {
        axis.wrapping_neg()
    }
}

/// Convolution attributes. Every list has one entry a spatial axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Output channels.
    pub out: u64,
    /// Kernel extents.
    pub kernel: Vec<u64>,
    /// Strides.
    pub stride: Vec<u64>,
    /// Zero padding (before, after).
    pub pad: Vec<(u64, u64)>,
    /// Dilations.
    pub dilation: Vec<u64>,
    /// Groups; equal to the input channels for a depthwise convolution.
    pub groups: u64,
    /// Whether it has a bias.
    pub bias: bool,
    /// Whether it is the transposed (fractionally strided) form.
    pub transposed: bool,
    /// Extra rows at the far edge of a transposed convolution's output.
    pub output_pad: Vec<u64>,
}

/// Fully connected layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Output features.
    pub out: u64,
    /// Whether it has a bias.
    pub bias: bool,
    /// Mixture of experts: the layer exists `count` times and each token goes through `active` of them.
    pub experts: Option<Experts>,
}

/// Routing of a mixture-of-experts layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Experts that exist (parameters).
    pub count: u64,
    /// Experts that each token visits (MACs).
    pub active: u64,
}

/// Scaled dot-product attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: u64,
    /// Key and value heads; fewer than `heads` with grouped queries.
    pub kv_heads: u64,
    /// Features of one head.
    pub head_dim: u64,
    /// Whether later keys are masked.
    pub causal: bool,
    /// Tokens already in the key/value cache, read in addition to the new ones.
    pub past: u64,
    /// Sliding window: each query sees at most this many keys.
    pub window: Option<u64>,
}

/// Kind of recurrence: how many gates share the two products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Four gates.
    Lstm,
    /// Three gates.
    Gru,
    /// One.
    Rnn,
}

impl Cell {
    /// Gate products per step.
    pub const fn gates(self) -> u64 {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
            Self::Rnn => 1,
        }
    }
}

/// A recurrent layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// Its cell.
    pub cell: Cell,
    /// Features of the state.
    pub hidden: u64,
    /// 1, or 2 for a bidirectional layer.
    pub directions: u64,
    /// Input is `[batch, steps, in]` instead of `[steps, batch, in]`.
    pub batch_first: bool,
}

/// Kind of normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Per channel with stored statistics; folds into a preceding convolution.
    Batch,
    /// Over the last axes of each token.
    Layer,
    /// Like layer norm, without mean and shift.
    Rms,
    /// Over channel groups of each sample (one channel a group: instance norm).
    Group,
    /// AlexNet's local response normalisation.
    LocalResponse,
}

/// A normalisation layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// Which.
    pub kind: NormKind,
    /// Axis of the channels that scale and shift belong to.
    pub axis: usize,
    /// Whether it has a scale (and, but for RMS, a shift).
    pub affine: bool,
}

/// What a pointwise layer computes; it matters for fusion and for the operations per element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Sum of the inputs.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Quotient.
    Div,
    /// max(0, x), with or without an upper bound, and its leaky and parametric forms.
    Relu,
    /// Gaussian error linear unit.
    Gelu,
    /// x·σ(x).
    Silu,
    /// Logistic function, also its piecewise linear forms.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// x·hard σ(x).
    HardSwish,
    /// Rotary position embedding.
    Rotary,
    /// Cast, quantise, dequantise, clip, exp, log, sqrt, erf, power, comparisons, selections …
    Other,
}

impl Function {
    /// Arithmetic operations an element, roughly; transcendental functions count as their usual polynomial.
    pub const fn operations(self) -> u64 {
        match self {
            Self::Add | Self::Sub | Self::Mul | Self::Relu | Self::Other => 1,
            Self::Div | Self::HardSwish => 4,
            Self::Rotary => 3,
            Self::Sigmoid | Self::Tanh | Self::Silu => 8,
            Self::Gelu => 12,
        }
    }
}

/// Kind of pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Largest of the window.
    Max,
    /// Mean of the window.
    Average,
}

/// Pooling attributes; an empty kernel pools globally, to `[batch, channels, 1…]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Which.
    pub kind: PoolKind,
    /// Window extents; empty: global.
    pub kernel: Vec<u64>,
    /// Strides.
    pub stride: Vec<u64>,
    /// Padding (before, after).
    pub pad: Vec<(u64, u64)>,
    /// Whether a last partial window counts.
    pub ceil: bool,
    /// Output extents of adaptive pooling; overrides the window.
    pub adaptive: Option<Vec<u64>>,
}

/// A range of one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The axis, counted from the front.
    pub axis: usize,
    /// First kept entry.
    pub start: u64,
    /// Kept entries.
    pub len: u64,
    /// Distance between kept entries; 1 is contiguous, negative walks backwards.
    pub step: i64,
}

impl Layer {
    /// Shape of the first output; empty before inference.
    pub fn shape(&self) -> &[u64] {
        self.outputs.first().map_or(&[], |t| &t.shape)
    }

    /// Stored elements that this layer counts (a shared tensor counts once in the graph).
    pub fn parameter_count(&self) -> Result<u64> {
        self.params.iter().filter(|p| !p.shared).try_fold(0u64, |sum, p| {
            sum.checked_add(p.elements()?)
                .ok_or_else(|| Error::Overflow { what: format!("parameters of `{}`", self.name) })
        })
    }

    /// The parameter that sparsity patterns act on.
    pub fn weight(&self) -> Option<&Param> {
        self.params.iter().find(|p| p.role == Role::Weight)
    }
}
