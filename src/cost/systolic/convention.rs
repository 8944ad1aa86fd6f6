//! SCALE-Sim 3.0.0's figures, for comparison with papers that used it.
//!
//! What it counts differently from hwsim's own model, and why:
//!
//! | figure | SCALE-Sim 3.0.0 | hwsim's default |
//! | --- | --- | --- |
//! | cycles of a layer | F folds less one cycle: it reports the index of the last cycle (scale-sim-v2 #125) | F folds |
//! | output-stationary fold | T + R + C − 2: outputs leave unseen (scale-sim-v3 #4) | T + 2R + C − 2: R cycles of drain |
//! | folds | always serial | serial, or overlapped where the profile says so |
//! | output-stationary writes | M·N + F·(R + C) (scale-sim-v2 #166) | M·N |
//! | partial sums | written, never read back | as many reads as writes, less one per output |
//! | compute utilization | over T + R + C − 2 (os) or T + 2R + 2C − 3 (ws, is) cycles a fold | over the cycles that are reported |
//! | overall utilization | dense MACs over elements × cycles, so sparse layers may exceed 100 % | issued MACs |
//! | N:M | k shrinks for all outputs alike; ws reads inputs m/n times | per column, row or layer; each block is read once |
//! | sparsity other than N:M | none | see `sparse` |
//! | DRAM reads | a set of ⌊SRAM/100⌋·50 words that is flushed when it is full | loop order over double-buffered tiles |
//! | word | one byte, whatever the dtype | the dtype's bytes |
//! | convolution output | ⌈(H − R + s)/s⌉: windows may reach past the image | ⌊(H + pads − R)/s⌋ + 1; the importer pads |
//! | stride past the image | reads nothing there | likewise |
//!
//! Rules were derived from the published description and from its answers; `tests/fidelity/systolic.rs` compares 747 runs.

use super::fold::{Shape, product};
use super::row_wise;
use super::sparse::compressed;
use super::stream::{Image, Reads, flush_when_full, repeated_sweep, repeated_tile};
use crate::cost::ConventionDetail;
use crate::error::Result;
use crate::lower::{ConvShape, Source, SparseGemm};
use crate::pattern::SparsityPattern;
use crate::profile::systolic::{Dataflow, Systolic};

/// One layer under the convention: its compute cycles and its counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Compute cycles.
    pub cycles: u64,
    /// Everything else.
    pub detail: ConventionDetail,
}

/// Kept and group length that SCALE-Sim would be given; patterns that it does not know run dense.
pub fn ratio(pattern: SparsityPattern) -> (u64, u64) {
    match pattern {
        SparsityPattern::Nm { n, m } => (n, m),
        _ => (1, 1),
    }
}

/// What SCALE-Sim 3.0.0 answers for a layer, its groups one after another.
///
/// # Errors
/// [`Error::Overflow`](crate::error::Error::Overflow) where a count does not fit in 64 bits.
pub fn answer(array: &Systolic, op: &SparseGemm) -> Result<Answer> {
    // With its optimized mapping it draws an N for every output and does not heed the layer's ratio.
    let drawn = array.row_wise.filter(|_| array.dataflow == Dataflow::WeightStationary);
    let (n, m) = if drawn.is_some() { (1, 1) } else { ratio(op.weights.pattern()) };
    let shape = Shape { m: op.gemm.m, n: op.gemm.n, k: op.gemm.k };
    let kept = drawn.map_or(compressed(shape.k, n, m), |d| row_wise::length(shape.k, d.block));
    let (rows, cols) = (array.rows, array.cols);
    let times = product(&[op.gemm.groups, op.steps()], "the repetitions of a layer")?;
    let what = "a layer's SCALE-Sim counts";
    product(&[times, shape.macs()?.max(kept.saturating_mul(shape.n)), 2], what)?;
    let reduced = Shape { k: kept, ..shape };
    let (sr, sc, steps) = reduced.spans(array.dataflow);
    let (down, across) = (sr.div_ceil(rows), sc.div_ceil(cols));
    let folds = product(&[down, across], what)?;
    let os = array.dataflow == Dataflow::OutputStationary;
    let fold = steps + rows + cols - 2 + if os { 0 } else { rows };
    let cycles = product(&[folds, fold], what)? - 1;
    let (mk, kn, mn) = (shape.m * kept, kept * shape.n, shape.m * shape.n);
    let sparse = m > 1;
    let (inputs, weights, outputs) = match array.dataflow {
        Dataflow::OutputStationary => {
            (product(&[mk, across], what)? as f64, product(&[kn, down], what)?, mn + folds * (rows + cols))
        }
        Dataflow::WeightStationary => {
            let again = if sparse { m as f64 / n as f64 } else { 1.0 };
            let inputs = match drawn {
                // Every row of B is fed all of its two blocks, at every cycle of the skewed stream.
                Some(d) => product(&[folds, shape.m + rows - 1, rows, d.block], what)? as f64,
                None => product(&[mk, across], what)? as f64 * again,
            };
            (inputs, kn, product(&[mn, down], what)?)
        }
        Dataflow::InputStationary => (mk as f64, product(&[kn, across], what)?, product(&[mn, down], what)?),
    };
    let elements = (rows * cols) as f64;
    let spanned = sr as f64 * sc as f64 / (folds as f64 * elements);
    let stored = drawn.map_or(kn, |d| row_wise::kept(shape.n, shape.k, d.block, d.seed));
    let mapped = if drawn.is_some() { stored as f64 / (folds as f64 * elements) } else { spanned };
    let spread = (fold + if os { 0 } else { cols - 1 }) as f64;
    let capacity = |bytes: f64| 50 * (bytes as u64 / 100);
    let weight_capacity = capacity(array.sram.weights.get());
    let dram_weights = match array.dataflow {
        Dataflow::OutputStationary => {
            repeated_tile(kn, kept * cols.min(shape.n), down, weight_capacity, shape.n.div_ceil(cols))
        }
        Dataflow::WeightStationary => stored,
        Dataflow::InputStationary => repeated_sweep(kn, across, weight_capacity),
    };
    let image = Image { m: shape.m, k: shape.k, conv: conv_of(op), kept: n, group: m };
    let height = if drawn.is_some() { 2 * rows } else { rows };
    let reads = Reads { dataflow: array.dataflow, rows: height, cols, sweeps: shape.n.div_ceil(cols) };
    let dram_inputs = flush_when_full(&image, &reads, capacity(array.sram.inputs.get()));
    Ok(Answer {
        cycles: product(&[times, cycles], what)?,
        detail: ConventionDetail {
            sram_inputs: inputs * times as f64,
            sram_weights: weights * times,
            sram_outputs: outputs * times,
            dram_inputs: dram_inputs * times,
            dram_weights: dram_weights * times,
            mapping_efficiency: 100.0 * mapped,
            compute_utilization: 100.0 * spanned * steps as f64 / spread,
            overall_utilization: 100.0 * (mn as f64 * shape.k as f64) / (cycles.max(1) as f64 * elements),
        },
    })
}

/// Geometry of one group's image.
fn conv_of(op: &SparseGemm) -> Option<ConvShape> {
    match op.source {
        Source::Conv(c) if !c.transposed => Some(ConvShape { channels: c.channels / op.gemm.groups.max(1), ..c }),
        _ => None,
    }
}
