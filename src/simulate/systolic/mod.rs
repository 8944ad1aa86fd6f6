//! A systolic array stepped cycle by cycle, at the level of its processing elements' registers.
//!
//! Every operand enters at an edge and moves one element a cycle; every partial sum or finished output leaves the same
//! way. Nothing here knows the closed forms of `crate::cost::systolic`: cycles are what the clock says when the last
//! output has left, accesses are counted where words cross an edge, and the product is what the elements computed.
//!
//! The software side (which fold holds what) is in `plan`; the elements are in `stationary` (weight- and
//! input-stationary) and `output` (output-stationary); [`buffer`] steps the double buffer in front of them.

pub mod buffer;
mod experiment;
mod output;
mod plan;
mod stationary;

pub use experiment::{Report, Words, experiment};

use crate::cost::systolic::fold::{Array, Counts};
use crate::cost::systolic::sparse::Skipping;
use crate::error::{Error, Result};
use crate::profile::systolic::Dataflow;
use crate::sparsity::Mask;

/// Operands of Y = X·Wᵀ, row-major.
#[derive(Clone, Debug)]
pub struct Operands {
    /// Rows of activations.
    pub m: u64,
    /// X, \[m, k\].
    pub inputs: Vec<f64>,
    /// W, \[n, k\]; zero where the mask is.
    pub weights: Vec<f64>,
    /// Which weights are stored, \[n, k\].
    pub mask: Mask,
}

/// What a run returns.
#[derive(Clone, Debug)]
pub struct Run {
    /// Y, \[m, n\], as the array computed it.
    pub product: Vec<f64>,
    /// Cycles, busy element cycles, and SRAM accesses.
    pub counts: Counts,
    /// Element cycles that were stepped: R·C·cycles.
    pub stepped: u64,
}

impl Operands {
    /// Small integers from a seed, so that every sum is exact in floating point.
    pub fn draw(m: u64, mask: Mask, seed: u64) -> Self {
        let (n, k) = (mask.rows(), mask.cols());
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        // SplitMix64 (Steele et al., OOPSLA'14): one line, and values need no more.
        let mut next = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let inputs = (0..m * k).map(|_| (next() % 15) as f64 - 7.0).collect();
        let mut weights = vec![0.0; (n * k) as usize];
        for r in 0..n {
            for c in mask.columns(r) {
                weights[(r * k + c) as usize] = (next() % 7 + 1) as f64 * if next() % 2 == 0 { 1.0 } else { -1.0 };
            }
        }
        Self { m, inputs, weights, mask }
    }

    /// X·Wᵀ by three loops.
    pub fn product(&self) -> Vec<f64> {
        let (n, k) = (self.mask.rows() as usize, self.mask.cols() as usize);
        let mut product = vec![0.0; self.m as usize * n];
        for i in 0..self.m as usize {
            for j in 0..n {
                let (x, w) = (&self.inputs[i * k..][..k], &self.weights[j * k..][..k]);
                product[i * n + j] = x.iter().zip(w).map(|(a, b)| a * b).sum();
            }
        }
        product
    }
}

/// Steps the array through the whole product.
///
/// With [`Skipping::ColumnCombining`] and collisions allowed, the weights that lose a collision are pruned first, in
/// `operands` too, so that its product stays the reference.
///
/// # Errors
/// [`Error::Argument`] where the mask is not what the hardware takes.
pub fn run(array: Array, operands: &mut Operands, skipping: Skipping) -> Result<Run> {
    if array.rows == 0 || array.cols == 0 {
        return Err(Error::argument("array", "has no elements; give at least one row and one column"));
    }
    let plan = plan::compile(array, operands, skipping)?;
    match array.dataflow {
        Dataflow::OutputStationary => output::run(array, operands, &plan),
        Dataflow::WeightStationary | Dataflow::InputStationary => stationary::run(array, operands, &plan),
    }
}

/// A word that holds nothing.
const NONE: u64 = u64::MAX;

/// The accumulators or output SRAM behind the array's lower edge.
struct Sink<'a> {
    product: &'a mut [f64],
    written: Vec<bool>,
    outputs: u64,
    partials: u64,
}

impl<'a> Sink<'a> {
    fn new(product: &'a mut [f64]) -> Self {
        Self { written: vec![false; product.len()], product, outputs: 0, partials: 0 }
    }

    /// Adds a sum that left the array to what is there.
    fn write(&mut self, index: usize, value: f64) {
        if self.written[index] {
            self.partials += 1;
        }
        self.written[index] = true;
        self.product[index] += value;
        self.outputs += 1;
    }
}
