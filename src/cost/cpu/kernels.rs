//! Which kernel serves a pattern in a dtype, and why it isn't the one that was asked for.

use super::machine::Unit;
use crate::cost::{Executed, Fallback};
use crate::dtype::DType;
use crate::lower::blocking::{self, Vectors};
use crate::lower::{Source, SparseGemm};
use crate::pattern::SparsityPattern;
use crate::sparsity::StorageFormat;

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kernel {
    /// Packed or skinny, on the vector or matrix unit; removed rows and columns are cut out.
    Dense,
    /// A depthwise or narrow grouped convolution in place.
    Direct,
    /// Compressed rows.
    Csr,
    /// N of every M.
    Nm {
        /// Kept.
        n: u64,
        /// Group.
        m: u64,
    },
    /// Rows that share kept columns.
    Vnm {
        /// Rows.
        v: u64,
        /// Kept.
        n: u64,
        /// Group.
        m: u64,
    },
    /// Blocks on the vector unit.
    Bsr {
        /// Outputs.
        rows: u64,
        /// Inputs.
        cols: u64,
    },
    /// Blocks on the matrix unit.
    Tiles {
        /// Outputs.
        rows: u64,
        /// Inputs.
        cols: u64,
    },
}

const KNOWS: &str = "CSR, BSR, N:M and V:N:M in fp32, blocks on matrix tiles, and removed rows, columns and channels";

/// Chooses the kernel of the format that was asked for. A free format stays the pattern's natural one: a library that
/// stores 2:4 as CSR would only add indices.
pub(super) fn select(g: &SparseGemm, unit: Unit, vectors: Vectors) -> (Kernel, Executed) {
    let pattern = g.weights.pattern();
    let depthwise = matches!(g.source, Source::Conv(_)) && g.gemm.groups > 1 && g.gemm.n < 8;
    let dense = |fallback| {
        let (kernel, name) = match (depthwise, unit.matrix) {
            (true, _) => (Kernel::Direct, "direct convolution"),
            (false, true) => (Kernel::Dense, "blocked GEMM, matrix unit"),
            (false, false) => (Kernel::Dense, "blocked GEMM"),
        };
        let executed =
            Executed { pattern: SparsityPattern::Dense, format: StorageFormat::Dense, kernel: name, fallback };
        (kernel, executed)
    };
    let unserved = || dense(Some(Fallback::NoKernel { pattern, knows: KNOWS }));
    let sparse = |kernel, name| (kernel, Executed { pattern, format: g.format, kernel: name, fallback: None });
    if g.source == Source::Activations && !pattern.is_dense() {
        return dense(Some(Fallback::NoWeights));
    }
    match (g.format, pattern) {
        (StorageFormat::Dense, SparsityPattern::Dense | SparsityPattern::Channel(_) | SparsityPattern::Head(_)) => {
            return dense(None);
        }
        (StorageFormat::Dense, SparsityPattern::Row(_) | SparsityPattern::Column(_)) if !depthwise => {
            let (kernel, executed) = dense(None);
            return (kernel, Executed { pattern, ..executed });
        }
        (
            StorageFormat::Dense
            | StorageFormat::Bitmask
            | StorageFormat::Coo
            | StorageFormat::Ell
            | StorageFormat::RunLength,
            _,
        ) => return unserved(),
        _ if depthwise => return unserved(),
        _ => {}
    }
    let fp32 = matches!(g.dtype, DType::Fp32 | DType::Tf32) && unit.compute == DType::Fp32 && !unit.matrix;
    match g.format {
        StorageFormat::Bsr { rows, cols } if unit.matrix => {
            let depth = (64.0 / unit.compute.bytes()) as u64;
            let misfit = |axis, extent, multiple| dense(Some(Fallback::Alignment { pattern, axis, extent, multiple }));
            if rows % 16 != 0 {
                misfit("block rows", rows, 16)
            } else if cols % depth != 0 {
                misfit("block columns", cols, depth)
            } else {
                sparse(Kernel::Tiles { rows, cols }, "BSR, matrix unit")
            }
        }
        _ if !fp32 => dense(Some(Fallback::DType { pattern, dtype: g.dtype })),
        StorageFormat::Csr => sparse(Kernel::Csr, "CSR, K-blocked"),
        StorageFormat::Nm { n, m } if g.gemm.m == 1 && !blocking::permutes(n, m, vectors) => {
            let (kernel, executed) = sparse(Kernel::Csr, "N:M as CSR");
            (kernel, Executed { format: StorageFormat::Csr, ..executed })
        }
        StorageFormat::Nm { n, m } => sparse(Kernel::Nm { n, m }, "N:M rows"),
        StorageFormat::Vnm { v, n, m } => sparse(Kernel::Vnm { v, n, m }, "V:N:M strips"),
        StorageFormat::Bsr { rows, cols } => sparse(Kernel::Bsr { rows, cols }, "BSR"),
        StorageFormat::Dense
        | StorageFormat::Bitmask
        | StorageFormat::Coo
        | StorageFormat::Ell
        | StorageFormat::RunLength => unserved(),
    }
}
