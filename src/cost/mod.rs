//! What an operation costs on a machine: time, traffic, energy, what bounds it, and what really ran.

pub mod cpu;
pub mod energy;
pub mod gpu;
pub mod network;
pub mod preferred;
pub mod roofline;
pub mod systolic;

use crate::error::{Error, Result};
use crate::lower::Lowered;
use crate::pattern::SparsityPattern;
use crate::profile::{Device, Profile};
use crate::sparsity::StorageFormat;
use crate::units::{Bytes, Cycles, Hertz, Joules, Seconds};
use std::fmt;

/// A device model. Pure: no I/O, no clock, no randomness; the same operation gives the same bits.
pub trait CostModel: Send + Sync {
    /// What one operation costs, alone on the machine.
    ///
    /// # Errors
    /// An operation whose dtype or shape the machine cannot run at all.
    fn cost(&self, op: &Lowered) -> Result<LayerCost>;

    /// The least time that the machine's peak rates admit: effectual MACs over the dense peak, and compulsory bytes
    /// (less what is resident) over main-memory bandwidth. No cost may be below it.
    fn roofline(&self, op: &Lowered) -> Seconds;

    /// Names of the memory levels of [`Traffic`], main memory (`dram`) first, innermost last.
    fn levels(&self) -> &[String];

    /// The clock that cycles count.
    fn clock(&self) -> Hertz;

    /// Capacity of the last level before main memory: activations that fit may stay there between layers.
    fn last_level(&self) -> Bytes;

    /// Time that a host needs to dispatch one kernel from a framework; none where the machine runs its own program.
    fn dispatch(&self) -> Seconds {
        Seconds(0.0)
    }
}

/// How the predicted run would be timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// Back-to-back loop over the same operands: what fits stays cached.
    Warm,
    /// Weights come from main memory, as in a network larger than the cache.
    #[default]
    Cold,
    /// Each call pays its framework.
    Host,
}

/// What a caller may choose about the run.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Options {
    /// CPU threads; all cores where left out.
    pub threads: Option<u64>,
    /// Cache state and launch cost.
    pub timing: Timing,
}

/// The cost model of a profile's family.
///
/// # Errors
/// A profile that lacks what its model needs, or no thread at all.
pub fn model(profile: &Profile, options: Options) -> Result<Box<dyn CostModel>> {
    if options.threads == Some(0) {
        return Err(Error::argument("threads", "at least one thread is needed"));
    }
    Ok(match &profile.device {
        Device::Cpu(_) => Box::new(cpu::CpuModel::new(profile, options)?),
        Device::Gpu(_) => Box::new(gpu::GpuModel::new(profile, options)?),
        Device::Systolic(array) => Box::new(systolic::SystolicModel::new(profile, array)),
    })
}

/// What one operation costs.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerCost {
    /// Predicted time.
    pub time: Seconds,
    /// 90 % prediction interval of the time.
    pub interval: (Seconds, Seconds),
    /// Cycles of arithmetic alone, without stalls and overhead.
    pub compute: Cycles,
    /// Launch, dispatch, prologue: time in which neither arithmetic nor memory is the limit.
    pub overhead: Seconds,
    /// Bytes moved per memory level.
    pub traffic: Traffic,
    /// Multiply–accumulates: asked, useful and issued.
    pub macs: MacCount,
    /// Energy, where the profile knows it.
    pub energy: Option<Joules>,
    /// What limits the time.
    pub bound: Bound,
    /// What really runs.
    pub executed: Executed,
    /// Effectual MACs over what the peak could have done in the time, in [0, 1].
    pub utilization: f64,
    /// Figures in the words of a published simulator, where the profile asks for its convention.
    pub convention: Option<Box<ConventionDetail>>,
}

/// Most memory levels that a machine may have, main memory included.
pub const MAX_LEVELS: usize = 6;

/// Bytes moved per memory level and operand. Level 0 is main memory; names are [`CostModel::levels`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Each level's bytes.
    pub levels: [OperandBytes; MAX_LEVELS],
}

/// Bytes by operand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OperandBytes {
    /// Weight values (tables and parameters of a stream, keys and values of attention).
    pub weights: Bytes,
    /// Indices, bitmaps, positions.
    pub metadata: Bytes,
    /// Activations read.
    pub inputs: Bytes,
    /// Activations written, partial sums included.
    pub outputs: Bytes,
}

impl OperandBytes {
    /// All operands together.
    pub fn total(&self) -> Bytes {
        self.weights + self.metadata + self.inputs + self.outputs
    }
}

impl Traffic {
    /// Bytes of main memory.
    pub fn dram(&self) -> Bytes {
        self.levels[0].total()
    }

    /// Level by level sum of two.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.levels.iter_mut().zip(&other.levels) {
            mine.weights += theirs.weights;
            mine.metadata += theirs.metadata;
            mine.inputs += theirs.inputs;
            mine.outputs += theirs.outputs;
        }
    }
}

/// Multiply–accumulates of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MacCount {
    /// Of the dense operation.
    pub dense: f64,
    /// Whose weight is nonzero (expected).
    pub effectual: f64,
    /// That the hardware really executes, padding and multiplied zeros included.
    pub issued: f64,
}

/// What limits an operation's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Bandwidth of a memory level (an index into [`CostModel::levels`]).
    Memory(u8),
    /// Launch, dispatch, fill and drain.
    Overhead,
}

/// What really runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Executed {
    /// The pattern that the kernel makes use of; `dense` where it multiplies zeros like any number.
    pub pattern: SparsityPattern,
    /// The format that it reads.
    pub format: StorageFormat,
    /// The kernel or unit.
    pub kernel: &'static str,
    /// Why it isn't what was asked for.
    pub fallback: Option<Fallback>,
}

/// Why a kernel does not make use of the pattern that was asked for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fallback {
    /// No kernel on this machine reads the pattern in this dtype.
    NoKernel {
        /// The pattern asked for.
        pattern: SparsityPattern,
        /// What the machine does know.
        knows: &'static str,
    },
    /// The unit does not exist for this dtype.
    DType {
        /// What was asked for.
        pattern: SparsityPattern,
        /// In which dtype.
        dtype: crate::dtype::DType,
    },
    /// An extent does not meet the kernel's alignment.
    Alignment {
        /// The pattern asked for.
        pattern: SparsityPattern,
        /// Which extent (`k`, `n`).
        axis: &'static str,
        /// What it is.
        extent: u64,
        /// What it would have to be a multiple of.
        multiple: u64,
    },
    /// The kernel exists, but the dense one is faster here, and the runtime takes the faster.
    Slower {
        /// The pattern asked for.
        pattern: SparsityPattern,
    },
    /// Both operands are activations, so there are no weights to be sparse.
    NoWeights,
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKernel { pattern, knows } => {
                write!(f, "no kernel for {pattern} here (the machine knows {knows}); zeros are multiplied")
            }
            Self::DType { pattern, dtype } => write!(f, "no unit runs {pattern} in {dtype}; zeros are multiplied"),
            Self::Alignment { pattern, axis, extent, multiple } => {
                write!(f, "{pattern} needs {axis} to be a multiple of {multiple}, and it is {extent}; runs dense")
            }
            Self::Slower { pattern } => write!(f, "the {pattern} kernel is slower than the dense one at this size"),
            Self::NoWeights => write!(f, "both operands are activations: there are no weights to prune"),
        }
    }
}

/// Counts of one layer as SCALE-Sim reports them (elements, percent).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ConventionDetail {
    /// Input words read from SRAM; a fraction where it multiplies them by M/N.
    pub sram_inputs: f64,
    /// Weight words read from SRAM.
    pub sram_weights: u64,
    /// Output words written to SRAM.
    pub sram_outputs: u64,
    /// Input words read from DRAM.
    pub dram_inputs: u64,
    /// Weight words read from DRAM.
    pub dram_weights: u64,
    /// Mean share of processing elements that a fold maps, in percent.
    pub mapping_efficiency: f64,
    /// MACs over elements × compute cycles, in percent.
    pub compute_utilization: f64,
    /// MACs over elements × total cycles, in percent.
    pub overall_utilization: f64,
}

/// Relative half-width of the interval until a calibration says better: −30 % … +43 % (a factor of 1.43 either way).
pub const DEFAULT_SPREAD: f64 = 1.43;

/// The stated default interval around a time that no calibration covers.
pub fn default_interval(time: Seconds) -> (Seconds, Seconds) {
    (time / DEFAULT_SPREAD, time * DEFAULT_SPREAD)
}
