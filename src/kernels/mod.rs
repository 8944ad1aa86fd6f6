//! Kernels that run: what a CPU really does with a pattern.
//!
//! Weights are packed once ([`Kernel::pack`]) and multiplied many times ([`Packed::run`]), so that a runtime's load
//! time and its inference time are never mixed. Reading order: [`mod@reference`] (what is computed), [`panel`] (activations),
//! [`blocks`] (the engine of CSR and block-sparse rows),
//! [`dots`] and [`tiles`] (int8 and bf16), then one file a kernel.

mod aligned;
mod balance;
mod blocks;
mod bsr;
pub mod conv;
mod csr;
mod dense;
mod dots;
pub mod float;
mod lanes;
mod nm;
mod nm_column;
#[cfg(target_arch = "x86_64")]
mod nm_eights;
pub mod panel;
mod pruned;
pub mod random;
pub mod reference;
pub mod tiles;
mod vnm;
mod words;

pub use aligned::Buffer;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::lower::blocking::Vectors;
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

impl Isa {
    /// The best that this machine has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
            {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// All that this machine has, weakest first.
    pub fn available() -> Vec<Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|isa| *isa <= Self::detect()).collect()
    }

    /// fp32 elements of a vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Portable | Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
    }

    /// What its registers hold.
    pub fn vectors(self) -> Vectors {
        match self {
            Self::Portable => Vectors::PORTABLE,
            Self::Avx2 => Vectors::AVX2,
            Self::Avx512 => Vectors::AVX512,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// Every kernel, for an instruction set that this machine has.
pub fn all(isa: Isa) -> Vec<Box<dyn Kernel>> {
    let unit = tiles::Unit::of(isa);
    vec![
        Box::new(dense::Dense { isa }),
        Box::new(csr::Csr { isa }),
        Box::new(bsr::Bsr { isa }),
        Box::new(nm::Nm { isa }),
        Box::new(vnm::Vnm { isa }),
        Box::new(pruned::Pruned { isa }),
        Box::new(dots::Int8 { isa, tiles: unit }),
        Box::new(dots::Bf16 { isa, tiles: unit }),
        Box::new(tiles::TileBlocks { unit, format: tiles::Format::Bf16 }),
        Box::new(tiles::TileBlocks { unit, format: tiles::Format::Int8 }),
    ]
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

    /// Brings weights into the kernel's own order. `columns` is how many columns of activations are expected: it decides
    /// the blocking; any other number works too.
    ///
    /// # Errors
    /// [`crate::error::Error::Pattern`] where the values do not have the pattern or [`Kernel::refusal`] says no.
    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, columns: usize) -> Result<Box<dyn Packed>>;
}

/// Weights in a kernel's order.
pub trait Packed: Send + Sync {
    /// `y[n, m] = W[n, k] · x[k, m]`, on the threads of the current rayon pool; `y` is overwritten.
    fn run(&self, x: Activations<'_>, y: &mut [f32]);

    /// Bytes of the values and of the metadata as they are stored.
    fn bytes(&self) -> (u64, u64);
}

/// Counts of stored blocks are kept in 32 bits.
fn too_large(n: usize, k: usize) -> Option<String> {
    (n as u64)
        .checked_mul(k as u64)
        .is_none_or(|e| e > u64::from(u32::MAX))
        .then(|| format!("{n} x {k} weights are more than the 2^32 that a kernel's indices count; split the layer"))
}

/// What [`Kernel::pack`] refuses before it looks at single values.
fn check(kernel: &dyn Kernel, weights: WeightMatrix<'_>, pattern: &SparsityPattern) -> Result<()> {
    let WeightMatrix { n, k, values } = weights;
    let refuse = |reason: String| Error::Pattern { text: pattern.to_string(), reason };
    if let Some(reason) = kernel.refusal(pattern, n, k) {
        return Err(refuse(format!("{} cannot run it: {reason}", kernel.name())));
    }
    if n.checked_mul(k) != Some(values.len()) {
        return Err(refuse(format!("{} values are not {n} x {k} weights", values.len())));
    }
    Ok(())
}
