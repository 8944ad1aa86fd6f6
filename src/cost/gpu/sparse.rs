//! Sparse weights: 2:4 on sparse tensor cores, V:N:M and column vectors back on tensor cores, blocks, and compressed
//! rows on the ordinary lanes.

use super::facts::{Engine, Facts, Peak};
use super::gemm::{GemmCost, GemmWork, Raster, tiled};
use super::memory::{Footprint, Setting, larger, overlapped};
use crate::cost::OperandBytes;
use crate::dtype::DType;
use crate::lower::SparseGemm;
use crate::pattern::SparsityPattern;
use crate::profile::Generation;
use crate::profile::calibration::{GemmConstants, LibraryConstants, SparseConstants};
use crate::sparsity::StorageFormat;

/// Kernels of public libraries that read sparse weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Library {
    /// NVIDIA's 2:4 products on sparse tensor cores.
    CusparseLt,
    /// VENOM's V:N:M kernel (Castro et al., SC'23).
    Spatha,
    /// Column vectors on tensor cores (CLASP, Castro et al., PACT'22).
    Clasp,
    /// Block-compressed rows on tensor cores (Triton, blocked ELL).
    Block,
    /// NVIDIA's compressed rows on the ordinary lanes.
    CusparseCsr,
    /// Compressed rows with one-dimensional tiles (Gale et al., SC'20).
    Sputnik,
    /// Delta-coded rows for one column of activations (MACKO).
    Macko,
}

impl Library {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::CusparseLt, Self::Spatha, Self::Clasp, Self::Block, Self::CusparseCsr, Self::Sputnik, Self::Macko];

    /// Its name in calibrations and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CusparseLt => "cusparselt",
            Self::Spatha => "spatha",
            Self::Clasp => "clasp",
            Self::Block => "block-sparse",
            Self::CusparseCsr => "cusparse-csr",
            Self::Sputnik => "sputnik",
            Self::Macko => "macko",
        }
    }

    /// The library behind a kernel's name in a sample file, such as `cusparselt-0.8`.
    pub fn of_kernel(kernel: &str) -> Option<Self> {
        let kernel = kernel.to_lowercase();
        if kernel == "torch-cutlass" {
            return Some(Self::CusparseLt);
        }
        Self::ALL.into_iter().find(|l| kernel.starts_with(l.name()))
    }
}

/// Bytes and products of 2:4 relative to its dense work: half the values, two bits of position each, twice the issue.
pub fn half_weights(facts: &Facts, dense: &GemmWork, op: &SparseGemm, speedup: f64) -> GemmWork {
    let stored = op.format.bytes(&op.weights, op.dtype);
    let elements = op.weights.elements().max(1.0);
    GemmWork {
        weight: stored.total().get() / elements,
        rate: dense.rate * speedup,
        raster: match (dense.engine, facts.generation()) {
            (Engine::Tensor16, Some(Generation::AsyncCopy)) => Raster::AlongOutputs,
            _ => Raster::Swizzled,
        },
        footprint: Footprint {
            weights: stored.values.get() * dense.groups,
            metadata: stored.metadata.get() * dense.groups,
            ..dense.footprint
        },
        ..*dense
    }
}

/// The dense engine's constants, changed by what 2:4 changes.
pub fn half_constants(dense: &GemmConstants, s: &SparseConstants) -> GemmConstants {
    GemmConstants {
        issue: (dense.issue * s.issue).min(1.0),
        feed: dense.feed * s.feed,
        ramp: dense.ramp + s.ramp,
        step: dense.step * s.step,
        power: dense.power * s.energy,
        narrow: dense.narrow * s.narrow,
        combine: dense.combine * s.combine,
        ..*dense
    }
}

/// What a library's kernel works on, beyond the dense work.
#[derive(Clone, Copy, Debug)]
pub struct LibraryWork {
    /// The kernel.
    pub library: Library,
    /// The dense product.
    pub dense: GemmWork,
    /// Nonzeros of one group's weights.
    pub nonzeros: f64,
    /// Expected largest over mean share of the rows.
    pub imbalance: f64,
    /// Rows that share their column choice (V, or the block's height).
    pub height: f64,
    /// Rate of the ordinary lanes, and of the tensor cores with 2:4.
    pub lanes: f64,
    /// Issue rate of 2:4 over dense, where it exists.
    pub speedup: f64,
    /// Kept and dense group length of V:N:M.
    pub group: (f64, f64),
}

/// The work of a library's kernel on an operation; `None` where it cannot read the pattern or the machine lacks its unit.
pub fn library_work(facts: &Facts, library: Library, op: &SparseGemm, dense: &GemmWork) -> Option<LibraryWork> {
    let Peak { engine, .. } = facts.peak(op.dtype)?;
    let pattern = op.weights.pattern();
    let speedup = facts.sparse_speedup(op.dtype);
    let mut work = LibraryWork {
        library,
        dense: *dense,
        nonzeros: op.weights.nonzeros(),
        imbalance: 1.0,
        height: 1.0,
        lanes: facts.lanes32(),
        speedup: speedup.unwrap_or(1.0),
        group: (1.0, 1.0),
    };
    let format = match (library, pattern) {
        (Library::Spatha, SparsityPattern::Vnm { v, n, m }) if engine == Engine::Tensor16 => {
            speedup?;
            work.height = v as f64;
            work.group = (n as f64, m as f64);
            StorageFormat::Vnm { v, n, m }
        }
        (Library::Clasp, SparsityPattern::Block { rows, cols: 1, .. }) if engine == Engine::Tensor16 && rows >= 2 => {
            work.height = rows as f64;
            StorageFormat::Bsr { rows, cols: 1 }
        }
        (Library::Block, SparsityPattern::Block { rows, cols, .. })
            if engine.is_tensor() && rows >= 16 && cols >= 16 =>
        {
            work.height = rows as f64;
            StorageFormat::Bsr { rows, cols }
        }
        (Library::Macko, _) if dense.m > 1.0 || !matches!(op.dtype, DType::Fp16) => return None,
        (Library::Sputnik, _) if !matches!(op.dtype, DType::Fp16 | DType::Fp32) => return None,
        (Library::CusparseCsr | Library::Sputnik | Library::Macko, _) => StorageFormat::Csr,
        _ => return None,
    };
    let stored = format.bytes(&op.weights, op.dtype);
    // Delta coding spends four bits a nonzero where compressed rows spend an index (MACKO).
    let metadata = if library == Library::Macko { work.nonzeros / 2.0 } else { stored.metadata.get() };
    // Where the operand's own format stores more than compressed rows would (blocks over the edge), that is what is read.
    let asked =
        op.format.bytes(&op.weights, op.dtype).total().min(StorageFormat::Dense.bytes(&op.weights, op.dtype).total());
    let metadata = metadata.max(if library == Library::Macko { 0.0 } else { (asked - stored.values).get() });
    let units = (facts.sms * 4.0).min(op.weights.rows() as f64 / work.height).max(1.0);
    work.imbalance = op.weights.imbalance(units as u64);
    if let StorageFormat::Bsr { .. } = format {
        work.nonzeros = stored.values.get() / op.dtype.bytes();
    }
    work.dense.footprint.weights = stored.values.get() * dense.groups;
    work.dense.footprint.metadata = metadata * dense.groups;
    Some(work)
}

/// Bytes per cycle and multiprocessor that an ordinary gather draws from L2.
const GATHER: f64 = 32.0;

/// A library's kernel.
pub fn library(
    facts: &Facts,
    c: &LibraryConstants,
    gemm: &GemmConstants,
    setting: &Setting,
    w: &LibraryWork,
) -> GemmCost {
    let d = &w.dense;
    if w.library == Library::Spatha {
        return venom(facts, c, gemm, setting, w);
    }
    let whole = facts.sms * facts.clock;
    let columns = d.m;
    // Vectors shorter than an instruction's eight rows waste the rest of it.
    let (rate, padding) = match w.library {
        Library::Clasp => (d.rate, (8.0 / w.height).max(1.0)),
        Library::Block => (d.rate, 1.0),
        _ => (w.lanes, 1.0),
    };
    let macs = d.groups * w.nonzeros * columns * padding;
    let compute = macs / (rate * c.issue) * w.imbalance.powf(c.imbalance);
    // Each stored vector or row reads its row of activations; taller ones read it once for all their rows.
    let reads = d.groups * w.nonzeros / w.height.powf(c.reuse) * columns * d.input;
    let feed = reads / (GATHER * c.feed * whole);
    let decode = d.groups * w.nonzeros / w.height * (columns / 64.0).ceil() * c.decode / (whole * 32.0)
        * w.imbalance.powf(c.imbalance);
    // One column only: the kernel walks a row in a way that slows down with its length.
    let long =
        if columns > 1.0 { 0.0 } else { d.groups * w.nonzeros * (w.nonzeros / d.n) * 1e-6 * c.quadratic / facts.clock };
    let rows = d.groups * (d.n / w.height).ceil() * (columns / 64.0).ceil() * c.row / whole;
    let dram = d.footprint.dram(facts.l2, setting, 0.0);
    let memory = dram.total().get() / (facts.bandwidth * c.dram);
    let busy = larger(compute, feed) + decode + rows + long;
    let ramp = c.ramp / facts.clock;
    finish(overlapped(busy, memory, 4.0) + ramp, busy, memory, ramp, dram, reads, macs)
}

/// V:N:M: the kept columns of each group make a dense-width product of `k·4/M`, which runs as 2:4; activations are
/// gathered, because each V rows choose their own columns.
fn venom(facts: &Facts, c: &LibraryConstants, gemm: &GemmConstants, setting: &Setting, w: &LibraryWork) -> GemmCost {
    let d = &w.dense;
    let (n, m) = w.group;
    let columns = (2.0 * n).min(m);
    let k = (d.k / m).ceil() * columns;
    let work = GemmWork { k, rate: d.rate * w.speedup, weight: d.element * 0.5 + 1.0 / 8.0, ..*d };
    let constants = GemmConstants {
        issue: (gemm.issue * c.issue).min(1.0),
        feed: gemm.feed * c.feed,
        dram: c.dram,
        ramp: c.ramp + c.row * (d.k / m),
        step: gemm.step * c.decode,
        drain: gemm.drain / c.reuse,
        ..*gemm
    };
    let v = w.height.min(128.0);
    tiled(facts, &constants, setting, &work, &[(128.0, v), (64.0, v), (32.0, v)])
}

fn finish(time: f64, compute: f64, memory: f64, ramp: f64, dram: OperandBytes, l2: f64, issued: f64) -> GemmCost {
    GemmCost { time, compute, memory, ramp, dram, l2, tile: (0.0, 0.0), split: 1.0, issued }
}
