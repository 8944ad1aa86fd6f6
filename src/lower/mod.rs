//! The narrow waist: what a device model sees of a layer.
//!
//! A device model never sees a layer and a layer never sees a device. Everything that a pattern does to an operation
//! (what is kept, how it is stored) is decided before this point; everything that hardware does with it after.

pub mod assign;
pub mod blocking;
pub mod eager;
pub mod fuse;
pub mod layer;
pub mod masks;
pub mod shrink;

pub use assign::{Assignment, Choice, Rule};
pub use fuse::{Step, steps};
pub use masks::{Masks, count_masks};
pub use shrink::{Shrunk, shrink};

use crate::dtype::DType;
use crate::pattern::SparsityPattern;
use crate::sparsity::{StorageFormat, WeightStats};
use crate::units::Bytes;

/// `Y[m×n] = X[m×k] · W[n×k]ᵀ`, repeated `groups` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Independent products of this shape.
    pub groups: u64,
    /// Rows of activations: tokens, or batch × output pixels.
    pub m: u64,
    /// Output features.
    pub n: u64,
    /// The reduction.
    pub k: u64,
}

impl Gemm {
    /// Multiply–accumulates of the dense product; `None` past 2^64 − 1.
    pub fn macs(&self) -> Option<u64> {
        self.groups.checked_mul(self.m)?.checked_mul(self.n)?.checked_mul(self.k)
    }
}

/// One operation as a device model sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum Lowered {
    /// A matrix product (also of convolutions and recurrences), possibly with sparse weights.
    Gemm(SparseGemm),
    /// Fused or unfused scaled dot-product attention.
    Attention(Attention),
    /// Everything that is bytes in, bytes out: pointwise, normalisation, pooling, softmax, copies, look-ups.
    Stream(Stream),
}

/// A matrix product whose second operand may be sparse.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseGemm {
    /// Its shape.
    pub gemm: Gemm,
    /// Statistics of one group's weight matrix, `[n, k]`.
    pub weights: WeightStats,
    /// How the weights are stored.
    pub format: StorageFormat,
    /// Format of both operands.
    pub dtype: DType,
    /// Format of the result.
    pub out_dtype: DType,
    /// Where the operands come from.
    pub source: Source,
    /// Pointwise work fused behind it: extra bytes read (a residual operand) and arithmetic on the outputs.
    pub epilogue: Epilogue,
    /// Bytes of the input activations that the previous operations left in the last-level cache. At most the input.
    pub resident: Bytes,
    /// Whether nobody asked for a storage format, so that a device may choose its own.
    pub format_free: bool,
}

/// Where the operands of a product come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A fully connected layer: X is read as it is.
    Linear,
    /// A convolution, lowered by im2col: X has m × k entries but only the image is in memory.
    Conv(ConvShape),
    /// Both operands are activations; there are no weights.
    Activations,
    /// Steps of a recurrence that must run one after another, each reading all weights again unless they stay cached.
    Recurrent {
        /// Sequential steps; `gemm` is one step.
        steps: u64,
    },
}

/// Geometry of a convolution before im2col. One- and three-dimensional ones fold their axes into two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Batch.
    pub batch: u64,
    /// Input channels, all groups together.
    pub channels: u64,
    /// Input height and width.
    pub input: [u64; 2],
    /// Output height and width.
    pub output: [u64; 2],
    /// Kernel height and width.
    pub kernel: [u64; 2],
    /// Strides.
    pub stride: [u64; 2],
    /// Dilations.
    pub dilation: [u64; 2],
    /// Whether it is the transposed form.
    pub transposed: bool,
}

impl ConvShape {
    /// Whether its product reads the image as it lies: no matrix is formed.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.input == self.output
    }
}

/// Pointwise work fused behind a product.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue {
    /// Further operands read (bias, residual).
    pub bytes: Bytes,
    /// Arithmetic operations on each output.
    pub operations: u64,
}

/// Scaled dot-product attention over projected q, k, v.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Sequences.
    pub batch: u64,
    /// Query heads.
    pub heads: u64,
    /// Key/value heads.
    pub kv_heads: u64,
    /// Query tokens.
    pub queries: u64,
    /// Key/value tokens, cached ones included.
    pub keys: u64,
    /// Features of a head.
    pub head_dim: u64,
    /// Whether later keys are masked.
    pub causal: bool,
    /// Keys that each query sees at most.
    pub window: Option<u64>,
    /// Format of the operands.
    pub dtype: DType,
    /// Bytes of the operands that the previous operations left in the last-level cache.
    pub resident: Bytes,
}

/// What kind of byte-moving work a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Element by element.
    Pointwise,
    /// Mean and variance of each row of `cols` (layer, RMS, group, batch, local response norm).
    Norm,
    /// Softmax of each row of `cols`.
    Softmax,
    /// Windows of the input.
    Pool,
    /// Sums along axes.
    Reduce,
    /// Data movement alone: transposes, concatenations, gathers, resizes, paddings.
    Move,
    /// Table look-ups.
    Lookup,
    /// An operator that is not known, carried as its bytes.
    Unknown,
}

/// Bytes in, bytes out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stream {
    /// What it is.
    pub kind: StreamKind,
    /// Independent rows.
    pub rows: u64,
    /// Elements of a row (of the output).
    pub cols: u64,
    /// Activations read.
    pub input: Bytes,
    /// Parameters and tables read.
    pub parameters: Bytes,
    /// Activations written.
    pub output: Bytes,
    /// Arithmetic operations in all.
    pub operations: f64,
    /// Format of the elements.
    pub dtype: DType,
    /// Bytes of the inputs that the previous operations left in the last-level cache.
    pub resident: Bytes,
}

impl SparseGemm {
    /// A dense product of a fully connected layer, alone and with nothing cached.
    pub fn dense(gemm: Gemm, dtype: DType) -> Self {
        Self::with_pattern(gemm, dtype, SparsityPattern::Dense)
    }

    /// A product of a fully connected layer whose weights follow a pattern, in its natural format. A pattern that
    /// removes nothing is dense.
    pub fn with_pattern(gemm: Gemm, dtype: DType, pattern: SparsityPattern) -> Self {
        let weights = WeightStats::expected(pattern, gemm.n, gemm.k).settled();
        let pattern = weights.pattern();
        Self {
            gemm,
            weights,
            format: StorageFormat::natural(pattern),
            dtype,
            out_dtype: dtype.output(),
            source: Source::Linear,
            epilogue: Epilogue::default(),
            resident: Bytes::ZERO,
            format_free: true,
        }
    }

    /// Times that the product runs one after another.
    pub fn steps(&self) -> u64 {
        match self.source {
            Source::Recurrent { steps } => steps,
            Source::Linear | Source::Conv(_) | Source::Activations => 1,
        }
    }

    /// Bytes of the distinct input activations (a convolution's image, not its im2col matrix).
    pub fn input_bytes(&self) -> Bytes {
        let g = &self.gemm;
        let elements = match &self.source {
            Source::Conv(c) => c.batch as f64 * c.channels as f64 * (c.input[0] as f64 * c.input[1] as f64),
            _ => g.groups as f64 * g.m as f64 * g.k as f64,
        };
        Bytes(elements * self.dtype.bytes())
    }

    /// Bytes of the result.
    pub fn output_bytes(&self) -> Bytes {
        let g = &self.gemm;
        Bytes(g.groups as f64 * g.m as f64 * g.n as f64 * self.out_dtype.bytes())
    }

    /// Multiply–accumulates of the dense product, all steps.
    pub fn dense_macs(&self) -> f64 {
        let g = &self.gemm;
        g.groups as f64 * g.m as f64 * g.n as f64 * g.k as f64 * self.steps() as f64
    }

    /// Multiply–accumulates whose weight is nonzero.
    pub fn effectual_macs(&self) -> f64 {
        self.gemm.groups as f64 * self.gemm.m as f64 * self.weights.nonzeros() * self.steps() as f64
    }
}

impl Attention {
    /// Query–key pairs of one head that are really computed.
    pub fn pairs(&self) -> f64 {
        let (q, k) = (self.queries as f64, self.keys as f64);
        let past = (k - q).max(0.0);
        let seen = |keys: f64| self.window.map_or(keys, |w| keys.min(w as f64));
        if !self.causal {
            return q * seen(k);
        }
        match self.window {
            None => q * past + q * (q + 1.0) / 2.0,
            Some(w) => {
                // Query i sees min(past + i + 1, w) keys: a ramp, then a plateau.
                let w = w as f64;
                let ramp = (w - past).clamp(0.0, q);
                ramp * past + ramp * (ramp + 1.0) / 2.0 + (q - ramp) * w
            }
        }
    }

    /// Multiply–accumulates of both products over the full rectangle (the convention of MAC counts).
    pub fn dense_macs(&self) -> f64 {
        2.0 * (self.batch * self.heads) as f64 * self.queries as f64 * self.keys as f64 * self.head_dim as f64
    }

    /// Multiply–accumulates that masks leave.
    pub fn effectual_macs(&self) -> f64 {
        2.0 * (self.batch * self.heads) as f64 * self.pairs() * self.head_dim as f64
    }

    /// Distinct bytes of queries.
    pub fn query_bytes(&self) -> Bytes {
        Bytes((self.batch * self.heads) as f64 * (self.queries * self.head_dim) as f64 * self.dtype.bytes())
    }

    /// Distinct bytes of keys and values.
    pub fn kv_bytes(&self) -> Bytes {
        let keys = self.window.map_or(self.keys, |w| self.keys.min(w.saturating_add(self.queries)));
        Bytes(2.0 * (self.batch * self.kv_heads) as f64 * keys as f64 * self.head_dim as f64 * self.dtype.bytes())
    }

    /// Bytes of the result.
    pub fn output_bytes(&self) -> Bytes {
        Bytes((self.batch * self.heads) as f64 * (self.queries * self.head_dim) as f64 * self.dtype.output().bytes())
    }
}
