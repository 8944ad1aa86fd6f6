//! Kernels that run: what a CPU really does with a pattern.
//!
//! Weights are packed once ([`Kernel::pack`]) and multiplied many times ([`Packed::run`]), so that a runtime's load
//! time and its inference time are never mixed. Reading order: [`reference`] (what is computed), then one file a kernel.

pub mod reference;

use crate::dtype::DType;
use crate::error::Result;
use crate::pattern::SparsityPattern;

/// Weights as they come from a model: `[n, k]`, row-major (outputs by inputs), zeros where they were pruned.
#[derive(Clone, Copy, Debug)]
pub struct WeightMatrix<'a> {
    /// Output features.
    pub n: usize,
    /// Length of the reduction.
    pub k: usize,
    /// `n · k` values.
    pub values: &'a [f32],
}

/// Activations `[k, m]`, row-major: one row for each input feature, its `m` columns (tokens, or batch × pixels)
/// contiguous, so that a weight meets a vector of columns. The result is `[n, m]` likewise.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// Length of the reduction.
    pub k: usize,
    /// Columns.
    pub m: usize,
    /// `k · m` values.
    pub values: &'a [f32],
}

/// Instruction sets that a kernel has code for, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust: runs everywhere, also under valgrind.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, VL, DQ.
    Avx512,
}

/// A kernel: a way to store weights of some patterns and to multiply with them.
pub trait Kernel: Send + Sync {
    /// The name in sample files and answers.
    fn name(&self) -> &'static str;

    /// The format in which it multiplies; activations and results are fp32 in memory whatever it is.
    fn dtype(&self) -> DType {
        DType::Fp32
    }

    /// Why weights of this pattern and size cannot run here; `None` where they can.
    fn refusal(&self, pattern: &SparsityPattern, n: usize, k: usize) -> Option<String>;

    /// Brings weights into the kernel's own order.
    ///
    /// # Errors
    /// [`crate::error::Error::Pattern`] where the values do not have the pattern or [`Kernel::refusal`] says no.
    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern) -> Result<Box<dyn Packed>>;
}

/// Weights in a kernel's order.
pub trait Packed: Send + Sync {
    /// `y[n, m] = W[n, k] · x[k, m]`, on the threads of the current rayon pool; `y` is overwritten.
    fn run(&self, x: Activations<'_>, y: &mut [f32]);

    /// Bytes of the values and of the metadata as they are stored.
    fn bytes(&self) -> (u64, u64);
}
