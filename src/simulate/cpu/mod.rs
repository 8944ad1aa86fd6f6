//! The caches of one CPU core under a kernel's address trace, line by line: the judge of the closed forms of
//! `crate::cost::cpu`.
//!
//! [`cache`] is the hierarchy, [`memory`] the arrays; [`blocks`] and [`dense`] repeat the loops of the kernels of
//! `crate::kernels` on a drawn mask and touch what they touch, in their order, vector by vector. One thread, caches
//! that hold nothing of the operands at first, and every written line written back at the end.

mod blocks;
pub mod cache;
mod dense;
mod memory;

use crate::error::{Error, Result};
use crate::lower::Gemm;
use crate::lower::blocking::{Goto, Vectors, stored};
use crate::pattern::SparsityPattern;
use crate::profile::{CacheLevel, Cpu};
use crate::sparsity::Mask;
use cache::{Hierarchy, Operand};
use serde::Serialize;

/// A kernel whose loops can be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// All weights, zeros too.
    Dense,
    /// Nonzero by nonzero.
    Csr,
    /// Blocks of the pattern.
    Bsr,
    /// Columns that V rows share.
    Vnm,
}

impl Kernel {
    /// Those that there are.
    pub const ALL: [Self; 4] = [Self::Dense, Self::Csr, Self::Bsr, Self::Vnm];

    /// As in sample files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Csr => "csr",
            Self::Bsr => "bsr",
            Self::Vnm => "vnm",
        }
    }

    /// The kernel of a name.
    ///
    /// # Errors
    /// [`Error::UnknownName`] where no kernel is called so.
    pub fn find(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|k| k.name() == name.to_lowercase());
        found.ok_or_else(|| Error::unknown("kernel", name, Self::ALL.map(Self::name)))
    }

    /// The kernel that a pattern is made for.
    pub fn of(pattern: &SparsityPattern) -> Self {
        match pattern {
            SparsityPattern::Dense | SparsityPattern::Channel(_) | SparsityPattern::Head(_) => Self::Dense,
            SparsityPattern::Block { .. } => Self::Bsr,
            SparsityPattern::Vnm { .. } => Self::Vnm,
            SparsityPattern::Unstructured(_)
            | SparsityPattern::Nm { .. }
            | SparsityPattern::Row(_)
            | SparsityPattern::Column(_) => Self::Csr,
        }
    }
}

/// What one operand moved through one level.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OperandReport {
    /// Whose.
    pub operand: Operand,
    /// Lines looked up in this level.
    pub lookups: u64,
    /// Lines found.
    pub hits: u64,
    /// Lines fetched from the next level.
    pub misses: u64,
    /// Bytes between this level and the next: lines fetched and written lines returned.
    pub bytes: u64,
}

/// One level.
#[derive(Clone, Debug, Serialize)]
pub struct LevelReport {
    /// `L1`, …
    pub level: String,
    /// Lines looked up.
    pub lookups: u64,
    /// Lines found.
    pub hits: u64,
    /// Lines fetched from the next level.
    pub misses: u64,
    /// Bytes fetched from the next level.
    pub bytes_in: u64,
    /// Bytes written back to it.
    pub bytes_out: u64,
    /// The same by operand.
    pub operands: Vec<OperandReport>,
}

/// What a replay counted.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// M, N, K.
    pub gemm: [u64; 3],
    /// Pattern that the mask was drawn from.
    pub pattern: String,
    /// Seed that it was drawn with.
    pub seed: u64,
    /// Whose loops.
    pub kernel: &'static str,
    /// fp32 elements of a vector.
    pub lanes: u64,
    /// Nonzero weights.
    pub nonzeros: u64,
    /// Bytes between registers and the innermost level.
    pub register_bytes: u64,
    /// Innermost first; the last level's next is memory.
    pub levels: Vec<LevelReport>,
}

/// What to replay.
#[derive(Clone, Copy, Debug)]
pub struct Experiment {
    /// m columns of activations, n outputs, k inputs; one group.
    pub gemm: Gemm,
    /// Of the weights.
    pub pattern: SparsityPattern,
    /// Of the mask.
    pub seed: u64,
    /// Whose loops; `None` for the pattern's own.
    pub kernel: Option<Kernel>,
    /// Vector registers.
    pub vectors: Vectors,
}

/// Vector registers of a CPU as the kernels would use them.
pub fn vectors(cpu: &Cpu) -> Vectors {
    let fp32 = cpu.macs.get(&crate::dtype::DType::Fp32).map_or(0.0, |r| r.get());
    Vectors::of_width(cpu.vector.map_or(fp32 / 2.0 * 4.0, |v| v.get()))
}

/// Replays one product through the caches.
///
/// # Errors
/// [`Error::Argument`] where the caches cannot be simulated, the product is larger than a simulator should step through,
/// or the kernel has no such pattern.
pub fn experiment(caches: &[CacheLevel], e: &Experiment) -> Result<Report> {
    let Gemm { groups, m, n, k } = e.gemm;
    let kernel = e.kernel.unwrap_or(Kernel::of(&e.pattern));
    if groups != 1 {
        return Err(Error::argument("--gemm", "one product is replayed at a time; give one group"));
    }
    let elements = n.checked_mul(k).filter(|&w| w <= 1 << 28);
    let Some(_) = elements.filter(|_| m.checked_mul(n.max(k)).is_some_and(|x| x <= 1 << 32)) else {
        return Err(Error::argument("--gemm", "is too large to be replayed line by line; give a smaller product"));
    };
    let mask = Mask::draw(e.pattern, n, k, e.seed);
    let mut core = memory::Core::new(Hierarchy::new(caches)?);
    let engine = |core: &mut memory::Core, block| {
        blocks::Blocks::store(&mask, block, m, e.vectors).run(core, m, e.vectors);
    };
    match (kernel, e.pattern) {
        (Kernel::Dense, _) => {
            let sizes: Vec<_> = caches.iter().map(|c| (c.size.get() as u64, c.ways)).collect();
            dense::Dense { m, n, k }.run(&mut core, e.vectors, &Goto::new(m, n, k, e.vectors, &sizes));
        }
        (Kernel::Csr, _) => engine(&mut core, (1, 1)),
        (Kernel::Bsr, SparsityPattern::Block { rows, cols, .. }) => engine(&mut core, stored((rows, cols), m)),
        (Kernel::Vnm, SparsityPattern::Vnm { v, .. }) => engine(&mut core, (v, 1)),
        (Kernel::Bsr | Kernel::Vnm, other) => {
            let wanted = if kernel == Kernel::Bsr { "block:RxC@s" } else { "V:N:M" };
            let reason = format!("{} stores {wanted}, not {other}; give another kernel or pattern", kernel.name());
            return Err(Error::argument("--kernel", reason));
        }
    }
    let mut hierarchy = core.caches;
    hierarchy.flush();
    Ok(Report {
        gemm: [m, n, k],
        pattern: e.pattern.to_string(),
        seed: e.seed,
        kernel: kernel.name(),
        lanes: e.vectors.lanes,
        nonzeros: mask.count(),
        register_bytes: hierarchy.accessed().iter().map(|(_, bytes)| bytes).sum(),
        levels: caches.iter().enumerate().map(|(i, cache)| level(&hierarchy, i, cache)).collect(),
    })
}

fn level(hierarchy: &Hierarchy, i: usize, cache: &CacheLevel) -> LevelReport {
    let counts = hierarchy.counts(i);
    let line = hierarchy.line(i);
    let sum = |of: fn(&cache::Count) -> u64| counts.iter().map(|(_, c)| of(c)).sum::<u64>();
    let (lookups, misses) = (sum(|c| c.lookups), sum(|c| c.misses));
    LevelReport {
        level: cache.level.clone(),
        lookups,
        hits: lookups - misses,
        misses,
        bytes_in: misses * line,
        bytes_out: sum(|c| c.write_backs) * line,
        operands: counts
            .iter()
            .filter(|(_, c)| *c != cache::Count::default())
            .map(|(operand, c)| OperandReport {
                operand: *operand,
                lookups: c.lookups,
                hits: c.lookups - c.misses,
                misses: c.misses,
                bytes: (c.misses + c.write_backs) * line,
            })
            .collect(),
    }
}
