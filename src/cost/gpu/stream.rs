//! Byte-moving kernels: pointwise, normalisation, softmax, pooling, copies.

use super::facts::Facts;
use super::memory::{Footprint, Setting, overlapped};
use crate::cost::OperandBytes;
use crate::lower::{Stream, StreamKind};
use crate::profile::calibration::StreamConstants;

/// What a stream costs.
#[derive(Clone, Copy, Debug)]
pub struct StreamCost {
    /// Seconds of the kernel, launch excluded.
    pub time: f64,
    /// Seconds on the chip.
    pub chip: f64,
    /// Seconds of main memory.
    pub memory: f64,
    /// Seconds of start and end.
    pub ramp: f64,
    /// Main-memory bytes.
    pub dram: OperandBytes,
    /// Bytes through L2.
    pub l2: f64,
}

/// Kinds for which constants are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// One pass, element by element.
    Pointwise,
    /// Statistics of each row, then a pass.
    Norm,
    /// Maximum and sum of each row, then a pass.
    Softmax,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pointwise, Self::Norm, Self::Softmax];

    /// Its name in calibrations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pointwise => "pointwise",
            Self::Norm => "norm",
            Self::Softmax => "softmax",
        }
    }

    /// The class of a kind of stream.
    pub const fn of(kind: StreamKind) -> Self {
        match kind {
            StreamKind::Norm => Self::Norm,
            StreamKind::Softmax => Self::Softmax,
            StreamKind::Pointwise
            | StreamKind::Pool
            | StreamKind::Reduce
            | StreamKind::Move
            | StreamKind::Lookup
            | StreamKind::Unknown => Self::Pointwise,
        }
    }
}

/// Longest row that stays in registers between its passes (PyTorch's persistent softmax).
const REGISTERS: u64 = 1024;

/// Time of a stream.
pub fn stream(facts: &Facts, c: &StreamConstants, setting: &Setting, s: &Stream) -> StreamCost {
    let footprint = Footprint {
        weights: s.parameters.get(),
        metadata: 0.0,
        inputs: (s.input - s.resident).get().max(0.0),
        outputs: s.output.get(),
    };
    // Only as much of the cache as the loop leaves to this kernel's data.
    let dram = footprint.dram(facts.l2 * c.resident, setting, 0.0);
    let row_wise = !matches!(Class::of(s.kind), Class::Pointwise);
    // Rows too long for the registers are read again.
    let again = if row_wise && s.cols > REGISTERS { c.passes * s.input.get() } else { 0.0 };
    let memory = (dram.total().get() + again * dram.inputs.get() / s.input.get().max(1.0)) / (facts.bandwidth * c.dram);
    let moved = s.input.get() + s.parameters.get() + s.output.get() + again;
    let whole = facts.sms * facts.clock;
    let rows = if row_wise { s.rows as f64 * c.row / (whole * 8.0) } else { 0.0 };
    let chip = moved / (c.feed * whole) + rows;
    let ramp = c.ramp / facts.clock;
    StreamCost { time: overlapped(chip, memory, 3.0) + ramp, chip, memory, ramp, dram, l2: moved }
}
