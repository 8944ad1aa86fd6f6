//! Facts of a systolic array: its rectangle, dataflow and buffers.

use super::Refusal;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// A systolic array of multiply–accumulate units with three operand buffers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// What the array can skip.
    #[serde(default)]
    pub sparsity: SparseMode,
    /// Reproduce a published simulator's way of counting instead of hwsim's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convention: Option<Convention>,
}

fn yes() -> bool {
    true
}

/// Which operand is stationary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Folding {
    /// A fold starts when the one before it has left the array.
    #[default]
    Serial,
    /// The next stationary operand is loaded (finished outputs are drained) under the current fold.
    Overlapped,
}

/// Operand buffers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SparseMode {
    /// Zeros are multiplied like any number.
    #[default]
    None,
    /// Whole rows × cols weight tiles of zeros are not loaded.
    SkipZeroTiles,
    /// N:M weights are stored compressed and activations are selected.
    Nm,
}

/// A published simulator whose counts are to be reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        Ok(())
    }
}
