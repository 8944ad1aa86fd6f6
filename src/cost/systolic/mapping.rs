//! From an operation to the array: which hardware option runs its pattern, how arrays share it, what is moved.

use super::dram::{Buffers, Channel, LoopOrder, Moved, Operands, Schedule, fold_turn};
use super::expected::{Work, work};
use super::fold::{Array, Shape, dense};
use super::sparse::Skipping;
use crate::cost::{Executed, Fallback};
use crate::error::Result;
use crate::lower::{Gemm, Source, SparseGemm};
use crate::pattern::SparsityPattern;
use crate::profile::systolic::{Dataflow, Grouping, SparseMode, Systolic};
use crate::sparsity::{StorageFormat, WeightStats};
use crate::units::Bytes;

/// An operation on the arrays.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapped {
    /// Cycles of the busiest array, stalls left out.
    pub cycles: f64,
    /// Work of all arrays.
    pub work: Work,
    /// Cycles in which the busiest array waits for memory.
    pub stalls: f64,
    /// Main-memory bytes.
    pub moved: MovedBytes,
    /// Metadata bytes read beside each weight from SRAM.
    pub metadata_per_weight: f64,
    /// Whether zeros are multiplied with gated operands.
    pub gated: bool,
    /// What really runs; the kernel's name says dataflow and loop order.
    pub executed: Executed,
    /// Arrays along M and N.
    pub split: (u64, u64),
}

/// Main-memory bytes by operand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MovedBytes {
    /// Weight values.
    pub weights: Bytes,
    /// Metadata.
    pub metadata: Bytes,
    /// Inputs.
    pub inputs: Bytes,
    /// Results and spilled partial sums.
    pub outputs: Bytes,
}

/// What the array makes of a pattern, or why it runs dense.
pub fn skipping(array: &Systolic, pattern: SparsityPattern) -> std::result::Result<Skipping, Fallback> {
    let refuse = |knows| Err(Fallback::NoKernel { pattern, knows });
    let mode = array.sparsity;
    let s = &array.skipping;
    match pattern {
        SparsityPattern::Dense | SparsityPattern::Channel(_) | SparsityPattern::Head(_) => return Ok(Skipping::None),
        // Whole rows and columns are cut out before the array sees them.
        SparsityPattern::Row(_) | SparsityPattern::Column(_) => return Ok(Skipping::Compaction),
        SparsityPattern::Nm { .. }
        | SparsityPattern::Vnm { .. }
        | SparsityPattern::Unstructured(_)
        | SparsityPattern::Block { .. } => {}
    }
    match mode {
        SparseMode::None => refuse("dense folds alone"),
        SparseMode::Gate => Ok(Skipping::Gating),
        SparseMode::SkipZeroTiles => Ok(Skipping::ZeroTiles),
        SparseMode::ColumnCombining => Ok(Skipping::ColumnCombining { limit: s.limit, conflicts: s.conflicts }),
        SparseMode::SkipUnstructured => Ok(Skipping::Queues { depth: s.depth }),
        SparseMode::NmRows => Ok(Skipping::NmRow { m: s.group }),
        SparseMode::Nm | SparseMode::NmLayer => match pattern {
            SparsityPattern::Nm { n, m } | SparsityPattern::Vnm { n, m, .. } => {
                if mode == SparseMode::Nm {
                    Ok(Skipping::NmColumn { n, m })
                } else {
                    Ok(Skipping::NmLayer { n, m })
                }
            }
            _ => refuse("N:M"),
        },
    }
}

/// Dataflow and loop order in words.
const fn kernel(dataflow: Dataflow, order: LoopOrder) -> &'static str {
    match (dataflow, order) {
        (Dataflow::OutputStationary, LoopOrder::RowsOuter) => "os, m outer",
        (Dataflow::OutputStationary, LoopOrder::ColsOuter) => "os, n outer",
        (Dataflow::WeightStationary, LoopOrder::RowsOuter) => "ws, k outer",
        (Dataflow::WeightStationary, LoopOrder::ColsOuter) => "ws, n outer",
        (Dataflow::InputStationary, LoopOrder::RowsOuter) => "is, k outer",
        (Dataflow::InputStationary, LoopOrder::ColsOuter) => "is, m outer",
    }
}

/// What SCALE-Sim runs: N:M by a shorter k, everything else dense.
pub(super) fn scale_sim_executed(array: &Systolic, op: &SparseGemm) -> Executed {
    let asked = op.weights.pattern();
    let known = asked.is_dense() || asked.shrinks_graph() || matches!(asked, SparsityPattern::Nm { .. });
    let kernel = match array.dataflow {
        Dataflow::OutputStationary => "scale-sim os",
        Dataflow::WeightStationary => "scale-sim ws",
        Dataflow::InputStationary => "scale-sim is",
    };
    if known {
        Executed { pattern: asked, format: op.format, kernel, fallback: None }
    } else {
        let fallback = Some(Fallback::NoKernel { pattern: asked, knows: "layer-wise N:M" });
        Executed { pattern: SparsityPattern::Dense, format: StorageFormat::Dense, kernel, fallback }
    }
}

/// The array as the closed forms know it.
pub(super) fn geometry(array: &Systolic) -> Array {
    Array { rows: array.rows, cols: array.cols, dataflow: array.dataflow, folding: array.folds }
}

/// Groups that run at once, and how often.
fn grouped(array: &Systolic, gemm: Gemm) -> Result<(Shape, u64)> {
    let one = Shape { m: gemm.m, n: gemm.n, k: gemm.k };
    if array.grouping == Grouping::OneByOne || gemm.groups == 1 {
        return Ok((one, gemm.groups));
    }
    let geometry = geometry(array);
    let (by_rows, by_cols) = match array.dataflow {
        Dataflow::OutputStationary => (u64::MAX, (array.cols / gemm.n).max(1)),
        Dataflow::WeightStationary => ((array.rows / gemm.k).max(1), (array.cols / gemm.n).max(1)),
        Dataflow::InputStationary => ((array.rows / gemm.k).max(1), u64::MAX),
    };
    let mut best = (one, gemm.groups);
    let mut least = u128::from(dense(geometry, one)?.cycles) * u128::from(gemm.groups);
    for pack in [by_rows.min(by_cols), by_rows, by_cols] {
        let pack = pack.min(gemm.groups);
        let Some((n, k)) = gemm.n.checked_mul(pack).zip(gemm.k.checked_mul(pack)) else { continue };
        let (shape, times) = (Shape { m: gemm.m, n, k }, gemm.groups.div_ceil(pack));
        let Ok(counts) = dense(geometry, shape) else { continue };
        let cycles = u128::from(counts.cycles) * u128::from(times);
        if cycles < least {
            least = cycles;
            best = (shape, times);
        }
    }
    Ok(best)
}

/// Ways to deal `arrays` out over M and N.
fn splits(arrays: u64) -> impl Iterator<Item = (u64, u64)> {
    (1..=arrays).filter(move |d| arrays.is_multiple_of(*d)).map(move |d| (d, arrays / d))
}

/// Maps a product onto the arrays.
///
/// # Errors
/// [`Error::Overflow`](crate::error::Error::Overflow) where a count does not fit in 64 bits.
pub fn map_gemm(
    array: &Systolic,
    op: &SparseGemm,
    buffers: Buffers,
    channel: impl Fn(u64) -> Channel,
) -> Result<Mapped> {
    let geometry = geometry(array);
    let asked = op.weights.pattern();
    let weightless = matches!(op.source, Source::Activations);
    let (option, mut fallback) = match skipping(array, asked) {
        _ if weightless => (Skipping::None, None),
        Ok(option) => (option, None),
        Err(reason) => (Skipping::None, Some(reason)),
    };
    // Packing works on dense groups; a sparse group runs by itself.
    let (shape, times) = if matches!(option, Skipping::None) {
        grouped(array, op.gemm)?
    } else {
        (Shape { m: op.gemm.m, n: op.gemm.n, k: op.gemm.k }, op.gemm.groups)
    };
    let (mut split, mut part, mut rounds) = share(array, geometry, shape, times, &op.weights, option)?;
    let mut skipping = option;
    if !matches!(skipping, Skipping::None | Skipping::Gating) {
        let plain = share(array, geometry, shape, times, &op.weights, Skipping::None)?;
        let saved = part.cycles < plain.1.cycles || part.cycles == plain.1.cycles && part.inputs < plain.1.inputs;
        if !saved {
            // The array runs its dense folds, shared as suits them.
            fallback = Some(Fallback::Slower { pattern: asked });
            skipping = Skipping::None;
            (split, part, rounds) = plain;
        }
    }
    let sparse = !matches!(skipping, Skipping::None);
    let conflicts = conflict_factor(array, op.gemm.k);
    let cycles = part.cycles * conflicts;
    let copies = (split.0 * split.1) as f64;
    let stored = stored(op, skipping, geometry);
    let repeats = (rounds * op.steps()) as f64;
    let operands = Operands {
        inputs: op.input_bytes().get() / op.gemm.groups as f64 / split.0 as f64,
        weights: (stored.0 + stored.1).get() / split.1 as f64,
        outputs: op.output_bytes().get() / op.gemm.groups as f64 / copies,
        partials: part.shape.m as f64 * part.shape.n as f64 * array.partial_sum.get(),
    };
    let merged = shape.n / op.gemm.n.max(1);
    let operands = if sparse || merged <= 1 {
        operands
    } else {
        // Packed groups: their operands side by side; zero blocks are made on the way in.
        let merged = merged as f64;
        Operands {
            inputs: operands.inputs * merged,
            weights: operands.weights * merged,
            outputs: operands.outputs * merged,
            ..operands
        }
    };
    let schedule = Schedule::best(geometry, part.shape, operands, buffers);
    let (_, _, steps) = part.shape.spans(array.dataflow);
    let alone = fold_turn(geometry, steps).1;
    let folds = part.folds.max(1.0);
    let turn = if folds > 1.0 { ((cycles - alone).max(0.0) / (folds - 1.0)).max(0.0) } else { cycles };
    let sharers = (split.0 * split.1 * if times >= array.arrays { array.arrays } else { 1 }).max(1);
    let stalls = schedule.stalls(turn, alone.min(cycles), channel(sharers)) * repeats;
    let all = (op.gemm.groups as f64 / merged.max(1) as f64).ceil() * op.steps() as f64 * copies;
    let kept_weights = op.steps() > 1 && operands.weights <= buffers.weights;
    let moved = totals(&schedule.moved, all, stored, op, kept_weights);
    let (pattern, format) = if sparse { (asked, op.format) } else { (SparsityPattern::Dense, StorageFormat::Dense) };
    let fallback = if weightless && !asked.is_dense() { Some(Fallback::NoWeights) } else { fallback };
    let pattern = if matches!(skipping, Skipping::Gating) { SparsityPattern::Dense } else { pattern };
    let bits = match skipping {
        Skipping::NmColumn { m, .. } | Skipping::NmRow { m } => f64::from(64 - (m - 1).leading_zeros()),
        Skipping::ColumnCombining { limit, .. } => f64::from(64 - (limit - 1).leading_zeros()),
        Skipping::Queues { depth } => f64::from(64 - (depth - 1).leading_zeros()),
        Skipping::None | Skipping::Gating | Skipping::Compaction | Skipping::ZeroTiles | Skipping::NmLayer { .. } => {
            0.0
        }
    };
    Ok(Mapped {
        cycles: cycles * repeats,
        work: part.repeated(all),
        stalls,
        moved,
        metadata_per_weight: bits / 8.0,
        gated: matches!(skipping, Skipping::Gating),
        executed: Executed { pattern, format, kernel: kernel(array.dataflow, schedule.order), fallback },
        split,
    })
}

/// Bytes of one group's weights as they lie in main memory: values and metadata.
///
/// Hardware that skips reads the compressed form; dense and gated folds need every element, which a compressed form that
/// was asked for by name still saves on the way in.
fn stored(op: &SparseGemm, skipping: Skipping, array: Array) -> (Bytes, Bytes) {
    let dense = StorageFormat::Dense.bytes(&op.weights, op.dtype);
    let whole = Bytes(op.weights.elements() * op.dtype.bytes());
    match skipping {
        Skipping::None => (whole, Bytes::ZERO),
        Skipping::Gating if op.format_free => (whole, Bytes::ZERO),
        Skipping::Compaction => (dense.values, dense.metadata),
        Skipping::ZeroTiles if op.format_free => {
            let tiles = StorageFormat::Bsr { rows: array.cols, cols: array.rows }.bytes(&op.weights, op.dtype);
            let named = op.format.bytes(&op.weights, op.dtype);
            // Whole tiles, edge tiles cut; never below what the pattern's own format takes.
            let values = tiles.values.min(whole).max(named.values);
            (
                values,
                tiles.metadata.max(if named.total() < values + tiles.metadata { Bytes::ZERO } else { named.metadata }),
            )
        }
        _ => {
            let named = op.format.bytes(&op.weights, op.dtype);
            if named.total() <= whole { (named.values, named.metadata) } else { (whole, Bytes::ZERO) }
        }
    }
}

fn totals(moved: &Moved, all: f64, stored: (Bytes, Bytes), op: &SparseGemm, kept_weights: bool) -> MovedBytes {
    let weights = Bytes(moved.weights * if kept_weights { all / op.steps() as f64 } else { all });
    let share = if (stored.0 + stored.1) > Bytes::ZERO { stored.1 / (stored.0 + stored.1) } else { 0.0 };
    MovedBytes {
        weights: weights * (1.0 - share),
        metadata: weights * share,
        inputs: (Bytes(moved.inputs * all) - op.resident).max(Bytes::ZERO),
        outputs: Bytes((moved.outputs + moved.partials) * all),
    }
}

/// The best way to share the work: groups first, then M and N. Returns the split, one array's work for one group, and the
/// groups that the busiest array runs.
fn share(
    array: &Systolic,
    geometry: Array,
    shape: Shape,
    times: u64,
    weights: &WeightStats,
    option: Skipping,
) -> Result<((u64, u64), Work, u64)> {
    let part = |m: u64, n: u64| -> Result<Work> {
        if matches!(option, Skipping::None | Skipping::Gating) {
            dense_part(geometry, Shape { m, n, ..shape }, (1, 1))
        } else {
            work(geometry, m, weights, option)
        }
    };
    if array.arrays == 1 || times >= array.arrays {
        return Ok(((1, 1), part(shape.m, shape.n)?, times.div_ceil(array.arrays)));
    }
    // Masks and patterns are of whole weight matrices, so sparse work is shared along M alone.
    let along_n = matches!(option, Skipping::None | Skipping::Gating);
    let mut best: Option<((u64, u64), Work)> = None;
    for (a, b) in splits(array.arrays).filter(|s| along_n || s.1 == 1) {
        let work = part(shape.m.div_ceil(a), shape.n.div_ceil(b))?;
        if best.as_ref().is_none_or(|(_, w)| work.cycles < w.cycles) {
            best = Some(((a, b), work));
        }
    }
    let (split, work) = match best {
        Some(found) => found,
        None => ((1, 1), part(shape.m, shape.n)?),
    };
    Ok((split, work, times))
}

fn dense_part(geometry: Array, shape: Shape, split: (u64, u64)) -> Result<Work> {
    let shape = Shape { m: shape.m.div_ceil(split.0), n: shape.n.div_ceil(split.1), k: shape.k };
    work(geometry, shape.m, &WeightStats::expected(SparsityPattern::Dense, shape.n, shape.k), Skipping::None)
}

/// Cycles that one step takes where the rows of the left edge read from word-interleaved banks.
///
/// Skewed rows of a row-major operand of width k read words k − 1 apart, so they meet in banks / gcd(k − 1, banks) banks.
fn conflict_factor(array: &Systolic, k: u64) -> f64 {
    let Some(banks) = array.banks else { return 1.0 };
    let stride = k.saturating_sub(1);
    if stride == 0 {
        return 1.0;
    }
    let distinct = banks / gcd(stride, banks);
    array.rows.min(distinct.saturating_mul(array.rows)).div_ceil(distinct) as f64
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
