//! One product on a profile's array: draw operands, run, and lay the closed form beside it.

use super::{Operands, run};
use crate::cost::systolic::fold::{Array, Counts};
use crate::cost::systolic::skipping;
use crate::cost::systolic::sparse::{Skipping, counted};
use crate::error::{Error, Result};
use crate::lower::Gemm;
use crate::pattern::SparsityPattern;
use crate::profile::systolic::Systolic;
use crate::sparsity::Mask;
use serde::Serialize;

/// Element cycles beyond which a run takes minutes.
const MOST_STEPS: u128 = 20_000_000_000;
/// Words of the operands and the product beyond which they do not fit in memory comfortably.
const MOST_WORDS: u128 = 1 << 28;

/// What an experiment shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Rows and columns of the array.
    pub array: [u64; 2],
    /// `os`, `ws` or `is`.
    pub dataflow: &'static str,
    /// M, N, K.
    pub gemm: [u64; 3],
    /// The pattern whose mask was drawn.
    pub pattern: String,
    /// Why the array runs it dense, if it does.
    pub note: Option<String>,
    /// Cycles until the last word left.
    pub cycles: u64,
    /// Folds that ran.
    pub folds: u64,
    /// Cycles of elements that multiplied a stored weight.
    pub active: u64,
    /// Those over elements × cycles.
    pub utilization: f64,
    /// Words that crossed the array's edges.
    pub sram: Words,
    /// Whether the product equals that of three plain loops.
    pub product_is_right: bool,
    /// Whether the closed form says the same, count by count.
    pub closed_form_agrees: bool,
    /// Cycles in closed form.
    pub closed_form_cycles: u64,
    /// Element cycles that were stepped.
    pub stepped: u64,
}

/// SRAM words by operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Words {
    /// Inputs read.
    pub inputs: u64,
    /// Weights read.
    pub weights: u64,
    /// Results and partial sums written.
    pub outputs: u64,
    /// Partial sums read.
    pub partials: u64,
}

/// Runs one product with weights that follow `pattern`, drawn from `seed`.
///
/// # Errors
/// [`Error::Argument`] where the run would take too long or too much memory.
pub fn experiment(array: &Systolic, gemm: Gemm, pattern: SparsityPattern, seed: u64) -> Result<Report> {
    let geometry = Array { rows: array.rows, cols: array.cols, dataflow: array.dataflow, folding: array.folds };
    let (option, note) = match skipping(array, pattern) {
        Ok(option) => (option, None),
        Err(reason) => (Skipping::None, Some(reason.to_string())),
    };
    let Gemm { m, n, k, .. } = gemm;
    let words = [(m, k), (n, k), (m, n)].iter().map(|&(a, b)| u128::from(a) * u128::from(b)).sum::<u128>();
    if words > MOST_WORDS {
        return Err(Error::argument(
            "--gemm",
            format!("has {words} words; the simulator holds up to {MOST_WORDS}: take a smaller product"),
        ));
    }
    let mask = draw(option, pattern, n, k, seed);
    let expected = counted(geometry, m, &mask, option)?;
    let steps = u128::from(expected.cycles) * u128::from(array.rows) * u128::from(array.cols);
    if steps > MOST_STEPS {
        let reason = format!(
            "takes {steps} element cycles; the simulator steps up to {MOST_STEPS}: take a smaller product or array"
        );
        return Err(Error::argument("--gemm", reason));
    }
    let mut operands = Operands::draw(m, mask, seed);
    let run = run(geometry, &mut operands, option)?;
    let Counts { cycles, folds, active, inputs, weights, outputs, partials } = run.counts;
    Ok(Report {
        array: [array.rows, array.cols],
        dataflow: array.dataflow.short(),
        gemm: [m, n, k],
        pattern: pattern.to_string(),
        note,
        cycles,
        folds,
        active,
        utilization: run.counts.utilization(geometry),
        sram: Words { inputs, weights, outputs, partials },
        product_is_right: run.product == operands.product(),
        closed_form_agrees: run.counts == expected,
        closed_form_cycles: expected.cycles,
        stepped: run.stepped,
    })
}

/// A mask of the pattern that the hardware can take: layer-wise N:M needs the same positions in all outputs.
fn draw(option: Skipping, pattern: SparsityPattern, n: u64, k: u64, seed: u64) -> Mask {
    let mask = Mask::draw(pattern, n, k, seed);
    match option {
        Skipping::NmLayer { .. } => Mask::from_fn(n, k, |_, c| mask.get(0, c)),
        _ => mask,
    }
}
