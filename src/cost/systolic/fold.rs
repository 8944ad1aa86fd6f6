//! How a matrix product folds onto an R×C array, and what the folds cost.
//!
//! An operation Y\[M×N\] = X\[M×K\]·W\[N×K\]ᵀ is laid out on the array by its dataflow (Samajdar et al., ISPASS'20, table 1):
//!
//! | dataflow | array rows Sr | array columns Sc | streamed steps T |
//! | --- | --- | --- | --- |
//! | output-stationary | M | N | K |
//! | weight-stationary | K | N | M |
//! | input-stationary | K | M | N |
//!
//! It takes ⌈Sr/R⌉·⌈Sc/C⌉ folds. Operands move one processing element a cycle, so element (r, c) works r + c cycles after
//! element (0, 0). With that skew a fold alone takes **T + 2R + C − 2** cycles under every dataflow: a stationary operand
//! is loaded in R cycles before T + R + C − 2 cycles of streaming; stationary outputs are drained in R cycles after as
//! many. A partial fold costs a whole one, because operands cross the elements that are idle.
//!
//! [`Folding::Serial`] runs them one after another. [`Folding::Overlapped`] double-buffers the stationary register (as
//! the TPU's weights, Jouppi et al., ISCA'17, §2): the next fold starts max(T, R) cycles after the current one, and only one
//! fill and drain remains. The register-level simulator in `crate::simulate::systolic` finds the same cycles by moving
//! operands.

use crate::error::{Error, Result};
use crate::profile::systolic::{Dataflow, Folding};

/// The array: its extents and how it is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// R.
    pub rows: u64,
    /// C.
    pub cols: u64,
    /// Which operand is stationary.
    pub dataflow: Dataflow,
    /// How folds follow one another.
    pub folding: Folding,
}

/// One matrix product as the array sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of activations.
    pub m: u64,
    /// Output features.
    pub n: u64,
    /// The reduction.
    pub k: u64,
}

/// What the work of an operation on the array amounts to: cycles and accesses, in elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cycles without memory stalls.
    pub cycles: u64,
    /// Folds that ran.
    pub folds: u64,
    /// Cycles of processing elements that multiplied a stored weight: issued MACs.
    pub active: u64,
    /// Input elements read from SRAM at the array's edge.
    pub inputs: u64,
    /// Weight values read from SRAM.
    pub weights: u64,
    /// Outputs and partial sums written to SRAM.
    pub outputs: u64,
    /// Partial sums read back from SRAM.
    pub partials: u64,
}

impl Counts {
    /// Busy processing elements over all of them, in \[0, 1\].
    pub fn utilization(&self, array: Array) -> f64 {
        if self.cycles == 0 {
            return 0.0;
        }
        self.active as f64 / (self.cycles as f64 * array.rows as f64 * array.cols as f64)
    }
}

/// A sequence of folds, reduced to what its duration depends on.
///
/// `steps` are a fold's T. Folds without a step are skipped, so they never enter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoldSum {
    /// Folds that run.
    pub folds: u64,
    /// Σ T.
    pub steps: u64,
    /// Σ max(T, R).
    pub issue: u64,
    /// T of the first fold.
    pub first: u64,
    /// T of the last fold.
    pub last: u64,
}

impl FoldSum {
    /// Appends `count` folds of `steps` each.
    pub fn push(&mut self, rows: u64, count: u64, steps: u64) {
        if count == 0 || steps == 0 {
            return;
        }
        if self.folds == 0 {
            self.first = steps;
        }
        self.last = steps;
        self.folds = self.folds.saturating_add(count);
        self.steps = self.steps.saturating_add(count.saturating_mul(steps));
        self.issue = self.issue.saturating_add(count.saturating_mul(steps.max(rows)));
    }

    /// The sequence `times` over.
    pub fn repeated(mut self, times: u64) -> Self {
        self.folds = self.folds.saturating_mul(times);
        self.steps = self.steps.saturating_mul(times);
        self.issue = self.issue.saturating_mul(times);
        if times == 0 { Self::default() } else { self }
    }

    /// Cycles of the whole sequence on `array`.
    ///
    /// Serial: Σ (T + 2R + C − 2). Overlapped: Σ max(T, R) + 2R + C − 2, where the fold that overlaps with nothing (the
    /// last one of a stationary operand, the first one of stationary outputs) counts T.
    pub fn cycles(&self, array: Array) -> u64 {
        if self.folds == 0 {
            return 0;
        }
        let edge = (2 * array.rows + array.cols).saturating_sub(2);
        match array.folding {
            Folding::Serial => self.steps.saturating_add(self.folds.saturating_mul(edge)),
            Folding::Overlapped => {
                let lone = match array.dataflow {
                    Dataflow::OutputStationary => self.first,
                    Dataflow::WeightStationary | Dataflow::InputStationary => self.last,
                };
                (self.issue - lone.max(array.rows)).saturating_add(lone + edge)
            }
        }
    }
}

impl Shape {
    /// (Sr, Sc, T) under a dataflow.
    pub const fn spans(&self, dataflow: Dataflow) -> (u64, u64, u64) {
        match dataflow {
            Dataflow::OutputStationary => (self.m, self.n, self.k),
            Dataflow::WeightStationary => (self.k, self.n, self.m),
            Dataflow::InputStationary => (self.k, self.m, self.n),
        }
    }

    /// Multiply-accumulates, M·K·N.
    ///
    /// # Errors
    /// [`Error::Overflow`] where they do not fit.
    pub fn macs(&self) -> Result<u64> {
        product(&[self.m, self.n, self.k], "the MACs of a matrix product")
    }
}

/// A product that does not fit is an error, never a wrapped number.
pub(crate) fn product(factors: &[u64], what: &str) -> Result<u64> {
    factors.iter().try_fold(1u64, |a, &f| a.checked_mul(f)).ok_or_else(|| Error::Overflow { what: what.into() })
}

/// A dense matrix product on the array, in closed form.
///
/// SRAM reads: inputs os M·K·⌈N/C⌉, ws M·K·⌈N/C⌉, is M·K; weights os K·N·⌈M/R⌉, ws K·N, is K·N·⌈M/C⌉. Writes: os M·N,
/// ws and is M·N·⌈K/R⌉, of which all but the first per output read a partial sum back.
///
/// # Errors
/// [`Error::Overflow`] where a count does not fit in 64 bits.
pub fn dense(array: Array, shape: Shape) -> Result<Counts> {
    let (sr, sc, steps) = shape.spans(array.dataflow);
    let (down, across) = (sr.div_ceil(array.rows), sc.div_ceil(array.cols));
    let what = "the accesses of a matrix product";
    let folds = product(&[down, across], what)?;
    let active = shape.macs()?;
    // Bounds every count below: an operand is read at most once per fold it belongs to.
    product(&[folds, steps.max(array.rows) + 2 * array.rows + array.cols], "the cycles of a matrix product")?;
    let (mk, kn, mn) =
        (product(&[shape.m, shape.k], what)?, product(&[shape.k, shape.n], what)?, product(&[shape.m, shape.n], what)?);
    let mut sum = FoldSum::default();
    sum.push(array.rows, folds, steps);
    let (inputs, weights, outputs) = match array.dataflow {
        Dataflow::OutputStationary => (product(&[mk, across], what)?, product(&[kn, down], what)?, mn),
        Dataflow::WeightStationary => (product(&[mk, across], what)?, kn, product(&[mn, down], what)?),
        Dataflow::InputStationary => (mk, product(&[kn, across], what)?, product(&[mn, down], what)?),
    };
    let partials = outputs - mn;
    Ok(Counts { cycles: sum.cycles(array), folds, active, inputs, weights, outputs, partials })
}
