//! Facts of a systolic array: its rectangle, dataflow and buffers.

use super::Refusal;
use crate::units::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A systolic array of multiply–accumulate units with three operand buffers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Systolic {
    /// Rows of processing elements.
    pub rows: u64,
    /// Columns of processing elements.
    pub cols: u64,
    /// Which operand stays in the processing elements.
    pub dataflow: Dataflow,
    /// Operand buffers.
    pub sram: Sram,
    /// Whether each buffer is split in two halves, one filled while the other is read.
    #[serde(default = "yes")]
    pub double_buffered: bool,
    /// How consecutive folds follow one another.
    #[serde(default)]
    pub folds: Folding,
    /// What the array can skip.
    #[serde(default)]
    pub sparsity: SparseMode,
    /// Numbers of the sparse hardware.
    #[serde(default)]
    pub skipping: Skips,
    /// How the groups of a grouped convolution share the array.
    #[serde(default)]
    pub grouping: Grouping,
    /// Arrays of this shape that share the work; each has the buffers named here, all share main memory.
    #[serde(default = "one")]
    pub arrays: u64,
    /// Width of a partial sum.
    #[serde(default = "four_bytes")]
    pub partial_sum: Bytes,
    /// Elements that the vector unit takes a cycle (activation, pooling, softmax); as many as columns where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector_lanes: Option<u64>,
    /// Word-interleaved banks of the buffer at the array's left edge; no bank conflicts where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub banks: Option<u64>,
    /// Process in nanometres: with it, energy and area come from published tables scaled to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub technology_nm: Option<f64>,
    /// Reproduce a published simulator's way of counting instead of hwsim's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convention: Option<Convention>,
    /// Under the convention, weight-stationary: its `OptimizedMapping`, which draws an N of every block for each output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_wise: Option<RowWise>,
}

/// SCALE-Sim's `BlockSize` and `RandomNumberGeneratorSeed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowWise {
    /// Reduction indices in a block.
    pub block: u64,
    /// Seed of the draw.
    pub seed: u32,
}

fn yes() -> bool {
    true
}

fn one() -> u64 {
    1
}

fn four_bytes() -> Bytes {
    Bytes(4.0)
}

/// Numbers of the sparse hardware.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Skips {
    /// `skip-unstructured`: reduction indices in an element's window (its queue).
    pub depth: u64,
    /// `column-combining`: reduction indices that may share an array row (α).
    pub limit: u64,
    /// `column-combining`: collisions per output and row that retraining resolves (γ).
    pub conflicts: f64,
    /// `nm-rows`: group length.
    pub group: u64,
}

impl Default for Skips {
    fn default() -> Self {
        Self { depth: 16, limit: 8, conflicts: 0.0, group: 4 }
    }
}

/// How the groups of a grouped (or depthwise) convolution share the array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Grouping {
    /// One group after another, each on its own folds: what an array without special wiring does.
    #[default]
    OneByOne,
    /// Several groups at once as a block-diagonal matrix, as many as save cycles; the zero blocks occupy elements.
    Packed,
}

/// Which operand is stationary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dataflow {
    /// Each processing element accumulates one output; inputs enter at the left, weights at the top, outputs drain down.
    OutputStationary,
    /// Each processing element holds one weight; inputs enter at the left, partial sums run down.
    WeightStationary,
    /// Each processing element holds one input; weights enter at the left, partial sums run down.
    InputStationary,
}

impl Dataflow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OutputStationary, Self::WeightStationary, Self::InputStationary];

    /// SCALE-Sim's abbreviation.
    pub const fn short(self) -> &'static str {
        match self {
            Self::OutputStationary => "os",
            Self::WeightStationary => "ws",
            Self::InputStationary => "is",
        }
    }
}

/// How consecutive folds follow one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Folding {
    /// A fold starts when the one before it has left the array.
    #[default]
    Serial,
    /// The next stationary operand is loaded (finished outputs are drained) under the current fold.
    Overlapped,
}

/// Operand buffers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sram {
    /// For activations read.
    pub inputs: Bytes,
    /// For weights.
    pub weights: Bytes,
    /// For activations written.
    pub outputs: Bytes,
}

/// Sparse hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SparseMode {
    /// Zeros are multiplied like any number.
    #[default]
    None,
    /// Zeros are multiplied with their operands' clocks gated: saves energy, not cycles (Chen et al., Eyeriss, JSSC'17).
    Gate,
    /// Whole rows × cols weight tiles of zeros are not loaded.
    SkipZeroTiles,
    /// N:M weights are stored compressed and each element selects its activation from a block of M (S2TA, Liu et al.,
    /// HPCA'22).
    Nm,
    /// Row-wise N:M: each output has its own N of 1, 2, 4, … M (VEGETA, Jeong et al., HPCA'23).
    NmRows,
    /// N:M at the same positions for all outputs, so that k shrinks (SCALE-Sim v3).
    NmLayer,
    /// Sparse columns packed into shared array rows (Kung et al., ASPLOS'19).
    ColumnCombining,
    /// Unstructured zeros are skipped within a window; elements that share it wait for the fullest (SCNN, ISCA'17).
    SkipUnstructured,
}

/// A published simulator whose counts are to be reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Convention {
    /// SCALE-Sim 3.0.0.
    #[serde(rename = "scale-sim-3")]
    ScaleSim3,
}

impl Systolic {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        for (field, value) in [("rows", self.rows), ("cols", self.cols)] {
            if value == 0 || value > 1 << 20 {
                return Err((field.into(), format!("{value} is not an array extent; give 1 to 2^20")));
            }
        }
        for (field, value) in [
            ("arrays", Some(self.arrays)),
            ("vector_lanes", self.vector_lanes),
            ("banks", self.banks),
            ("skipping.depth", Some(self.skipping.depth)),
            ("skipping.limit", Some(self.skipping.limit)),
            ("skipping.group", Some(self.skipping.group)),
            ("row_wise.block", self.row_wise.map(|r| r.block)),
        ] {
            if value.is_some_and(|v| v == 0 || v > 1 << 20) {
                return Err((field.into(), "out of range; give 1 to 2^20".into()));
            }
        }
        if !(0.0..=64.0).contains(&self.skipping.conflicts) {
            return Err(("skipping.conflicts".into(), "out of range; give 0 to 64".into()));
        }
        if !self.skipping.group.is_power_of_two() {
            return Err(("skipping.group".into(), format!("{} is not a power of two", self.skipping.group)));
        }
        if self.technology_nm.is_some_and(|t| !(1.0..=250.0).contains(&t)) {
            return Err(("technology_nm".into(), "out of range; give 1 to 250 nanometres".into()));
        }
        Ok(())
    }
}
