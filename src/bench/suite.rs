//! What is measured: shapes, and for each the patterns and kernels that answer the same question.

use crate::error::{Error, Result};
use crate::kernels::Kernel;
use crate::kernels::tiles;
use crate::lower::{Lowered, Source, Step};
use crate::pattern::SparsityPattern;
use std::str::FromStr;

/// A built-in list of shapes and patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Two minutes: few shapes, the patterns that matter most.
    Quick,
    /// Squares, transformer layers and lowered convolutions, 1 to 512 columns: ten minutes on an idle machine, half an hour on
    /// a busy one.
    Full,
}

impl FromStr for Suite {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "quick" => Ok(Self::Quick),
            "full" => Ok(Self::Full),
            _ => Err(Error::unknown("suite", text, ["quick", "full"])),
        }
    }
}

/// A product `[n, k] · [k, m]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Columns of activations.
    pub m: u64,
    /// Outputs.
    pub n: u64,
    /// Reduction.
    pub k: u64,
}

/// A shape and the patterns in which it is measured, dense first.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The product.
    pub shape: Shape,
    /// Patterns of its weights.
    pub patterns: Vec<SparsityPattern>,
}

/// Outputs by inputs: squares, transformer layers, lowered convolutions (also with extents that no vector divides).
const FULL: &[(u64, u64)] = &[
    (128, 576),
    (256, 256),
    (384, 1152),
    (512, 512),
    (200, 1000),
    (768, 3072),
    (1024, 1024),
    (3072, 768),
    (2048, 2048),
    (1000, 4608),
    (4096, 4096),
];
const COLUMNS: &[u64] = &[1, 16, 49, 128, 384];

const COMMON: &[&str] = &[
    "dense",
    "unstructured@0.5",
    "unstructured@0.7",
    "unstructured@0.8",
    "unstructured@0.9",
    "unstructured@0.95",
    "unstructured@0.99",
    "block:8x1@0.5",
    "block:8x1@0.8",
    "block:8x1@0.9",
    "block:8x1@0.95",
    "block:16x16@0.5",
    "block:16x16@0.8",
    "block:16x16@0.9",
    "block:16x16@0.95",
    "2:4",
    "1:4",
    "8:2:4",
];
/// Further patterns, on shapes up to this many weights.
const MORE: &[&str] = &[
    "block:4x4@0.6",
    "block:4x4@0.9",
    "block:32x32@0.7",
    "block:32x32@0.9",
    "block:16x1@0.75",
    "block:4x1@0.85",
    "block:1x16@0.8",
    "4:8",
    "16:2:8",
    "row@0.5",
    "column@0.5",
    "column@0.8",
];
const SMALL: u64 = 1 << 20;
/// Patterns whose blocks are whole matrix tiles, where the processor has those.
const TILES: &[&str] = &[
    "block:16x32@0.8",
    "block:32x32@0.5",
    "block:32x32@0.8",
    "block:16x64@0.9",
    "block:32x64@0.5",
    "block:32x64@0.8",
    "block:32x64@0.95",
    "block:64x64@0.7",
    "block:64x64@0.9",
];

impl Suite {
    /// Its cases.
    pub fn cases(self) -> Vec<Case> {
        let parse = |texts: &[&str]| -> Vec<SparsityPattern> { texts.iter().filter_map(|t| t.parse().ok()).collect() };
        let of = |sizes: &[(u64, u64)], columns: &[u64], more: bool| {
            let mut cases = Vec::new();
            for &(n, k) in sizes {
                let mut patterns = parse(COMMON);
                if tiles::usable().is_ok() {
                    patterns.extend(parse(TILES));
                }
                if more && n * k <= SMALL {
                    patterns.extend(parse(MORE));
                }
                for &m in columns {
                    cases.push(Case { shape: Shape { m, n, k }, patterns: patterns.clone() });
                }
            }
            cases
        };
        match self {
            Self::Quick => of(&[(256, 256), (512, 512), (768, 3072), (1024, 1024)], &[1, 32, 128], false),
            Self::Full => of(FULL, COLUMNS, true),
        }
    }
}

/// The distinct products of a network's steps, each dense and in the pattern that it was given.
pub fn of_steps(steps: &[Step]) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for op in steps.iter().flat_map(|s| &s.ops) {
        let Lowered::Gemm(g) = op else { continue };
        if matches!(g.source, Source::Activations) {
            continue;
        }
        let shape = Shape { m: g.gemm.m, n: g.gemm.n, k: g.gemm.k };
        let at = cases.iter().position(|c| c.shape == shape).unwrap_or_else(|| {
            cases.push(Case { shape, patterns: vec![SparsityPattern::Dense] });
            cases.len() - 1
        });
        let pattern = g.weights.pattern();
        if !cases[at].patterns.contains(&pattern) {
            cases[at].patterns.push(pattern);
        }
    }
    cases
}

/// Whether a kernel is measured on a pattern: it must run it, and know of it. A dense kernel meets every pattern at the
/// same speed; compressed rows are the alternative to blocks and N:M.
pub fn meets(kernel: &dyn Kernel, pattern: SparsityPattern, shape: Shape) -> bool {
    let dense = kernel.refusal(&SparsityPattern::Dense, 64, 64).is_none();
    let knows = match (kernel.name(), pattern) {
        ("csr", SparsityPattern::Unstructured(_)) => true,
        ("csr", SparsityPattern::Nm { .. } | SparsityPattern::Vnm { .. }) => shape.n * shape.k <= SMALL,
        ("csr", _) => false,
        (_, p) if p.is_dense() => dense,
        // What removes whole rows or columns is dense on what is left, where a kernel says so by its own name.
        (_, _) => kernel.refusal(&SparsityPattern::Dense, 64, 64).is_some() || kernel.name() == "pruned",
    };
    knows && kernel.refusal(&pattern, shape.n as usize, shape.k as usize).is_none()
}
