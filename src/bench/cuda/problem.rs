//! What is measured: shapes, formats and patterns.

use crate::dtype::DType;
use crate::pattern::SparsityPattern;

/// One product Y[m×n] = X[m×k]·W[n×k]ᵀ with weights in a pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    /// Rows of activations.
    pub m: u64,
    /// Outputs.
    pub n: u64,
    /// Reduction.
    pub k: u64,
    /// Operand format.
    pub dtype: DType,
    /// Pattern of the weights.
    pub pattern: SparsityPattern,
}

/// The library that measures a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// Dense products.
    CublasLt,
    /// 2:4 on sparse tensor cores.
    CusparseLt,
    /// Compressed rows.
    CusparseCsr,
    /// Blocks, each row of blocks with as many.
    CusparseBlockedEll,
}

impl Library {
    /// Its name in sample files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CublasLt => "cublaslt",
            Self::CusparseLt => "cusparselt",
            Self::CusparseCsr => "cusparse-csr",
            Self::CusparseBlockedEll => "cusparse-blocked-ell",
        }
    }
}

impl Problem {
    /// The library that serves the pattern; `None` where none does.
    pub fn library(&self) -> Option<Library> {
        match self.pattern {
            SparsityPattern::Dense => Some(Library::CublasLt),
            SparsityPattern::Nm { n: 2, m: 4 } => Some(Library::CusparseLt),
            SparsityPattern::Unstructured(_) => Some(Library::CusparseCsr),
            SparsityPattern::Block { rows, cols, .. } if rows == cols => Some(Library::CusparseBlockedEll),
            _ => None,
        }
    }

    /// Bytes of the weights as stored, indices excluded.
    pub fn weight_bytes(&self) -> f64 {
        let kept = match self.pattern {
            SparsityPattern::Nm { n: 2, m: 4 } => 0.5 + 0.125 * 8.0 / self.dtype.bits() as f64,
            SparsityPattern::Unstructured(s) | SparsityPattern::Block { sparsity: s, .. } => 1.0 - s,
            _ => 1.0,
        };
        self.n as f64 * self.k as f64 * self.dtype.bytes() * kept
    }
}

/// Formats that are measured.
pub const DTYPES: [DType; 4] = [DType::Fp16, DType::Bf16, DType::Int8, DType::Fp8];
/// (n, k): layers of common transformers, and round sizes around them.
const WEIGHTS: [(u64, u64); 23] = [
    (1024, 1024),
    (2048, 2048),
    (2048, 8192),
    (2560, 2560),
    (3072, 768),
    (768, 3072),
    (4096, 1024),
    (4096, 4096),
    (4096, 11008),
    (11008, 4096),
    (4096, 14336),
    (14336, 4096),
    (6144, 4096),
    (5120, 5120),
    (5120, 13824),
    (13824, 5120),
    (8192, 1024),
    (8192, 8192),
    (8192, 28672),
    (28672, 8192),
    (16384, 2048),
    (1536, 6144),
    (3584, 18944),
];
/// Rows of activations, one token to a long prompt.
const ROWS: [u64; 14] = [1, 2, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];

/// Every shape dense and 2:4 in four formats, and in fp16 compressed rows at 90 % and blocks of 32 at 80 %.
pub fn suite() -> Vec<Problem> {
    let shapes = || WEIGHTS.into_iter().flat_map(|(n, k)| ROWS.into_iter().map(move |m| (m, n, k)));
    let half = SparsityPattern::Nm { n: 2, m: 4 };
    let mut problems = Vec::new();
    for (m, n, k) in shapes() {
        for dtype in DTYPES {
            for pattern in [SparsityPattern::Dense, half] {
                problems.push(Problem { m, n, k, dtype, pattern });
            }
        }
        for text in ["unstructured@0.9", "block:32x32@0.8"] {
            if let Ok(pattern) = text.parse() {
                problems.push(Problem { m, n, k, dtype: DType::Fp16, pattern });
            }
        }
    }
    problems
}
