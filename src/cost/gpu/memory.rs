//! Main memory and L2: what an operation must move, and what stays on the chip.

use super::facts::Facts;
use crate::cost::{OperandBytes, Timing};
use crate::units::Bytes;

/// Circumstances of a run: cache state and what surrounds the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// How the run is timed.
    pub timing: Timing,
    /// Copies of the weights that the loop cycles through; 0 for as many as it takes to leave the cache.
    pub copies: f64,
    /// Seconds a call outside the kernel.
    pub overhead: f64,
    /// Bytes per input element of a quantisation pass inside the call.
    pub quantise: f64,
    /// Whether the timed attention includes a serving stack's rotary embedding and cache write.
    pub serving: bool,
    /// Speed of the attention kernels relative to the fastest library's.
    pub pace: f64,
    /// Whether activations are left in L2 by the run before, as in a measuring loop.
    pub looped: bool,
}

impl Setting {
    /// One kernel of a network on a device: weights from main memory, the device's own launch.
    pub fn network(facts: &Facts, timing: Timing) -> Self {
        Self {
            timing,
            copies: 0.0,
            overhead: facts.launch,
            quantise: 0.0,
            serving: false,
            pace: 1.0,
            looped: timing != Timing::Cold,
        }
    }
}

/// Share of L2 that holds a kernel's own data; the rest holds tables, instructions and what the driver keeps.
const USABLE: f64 = 0.8;
/// Sweeps of a measuring loop after which the share that stays is read off. It has settled by then but for sets within
/// a tenth of the cache, where uneven slices blur the edge anyway.
const SWEEPS: usize = 12;

/// Share of a working set that survives in L2 until a loop reads it again. GPUs replace lines nearly at random (Mei and
/// Chu, *Dissecting GPU Memory Hierarchy through Microbenchmarking*, 2017), so a cyclic sweep over more than the cache
/// does not lose everything as under LRU: with x = bytes / capacity and a miss share p, a line sees x·p evictions for
/// each line of the cache before it is wanted again and is lost with probability 1 − exp(−x·p), the next sweep's p.
pub fn kept(bytes: f64, l2: f64) -> f64 {
    let ratio = bytes / (USABLE * l2);
    let missed = (0..SWEEPS).fold(1.0, |missed: f64, _| 1.0 - (-ratio * missed).exp());
    1.0 - missed
}

/// Main-memory bytes of an operation with these compulsory operands under a setting.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Weights (keys and values, tables).
    pub weights: f64,
    /// Indices and positions.
    pub metadata: f64,
    /// Activations read, less what the previous operation left on chip.
    pub inputs: f64,
    /// Activations written.
    pub outputs: f64,
}

impl Footprint {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.weights + self.metadata + self.inputs + self.outputs
    }

    /// Bytes that main memory really moves, with `l2` bytes of cache for it and
    /// `again` bytes of panels read more than once.
    pub fn dram(&self, l2: f64, setting: &Setting, again: f64) -> OperandBytes {
        let fixed = self.weights + self.metadata;
        let (weights, activations) = match setting.timing {
            Timing::Warm | Timing::Host => {
                let all = kept(self.total(), l2);
                (all, all)
            }
            Timing::Cold => {
                let looped = if setting.looped { kept(self.total(), l2) } else { 0.0 };
                let cycled = fixed * setting.copies + self.inputs + self.outputs;
                (if setting.copies > 0.0 { kept(cycled, l2) } else { 0.0 }, looped)
            }
        };
        OperandBytes {
            weights: Bytes(self.weights * (1.0 - weights)),
            metadata: Bytes(self.metadata * (1.0 - weights)),
            inputs: Bytes(self.inputs * (1.0 - activations) + again),
            outputs: Bytes(self.outputs * (1.0 - activations)),
        }
    }
}

/// The fourth-order norm: the larger of two overlapping times, rounded where they are close.
#[inline]
pub fn larger(a: f64, b: f64) -> f64 {
    let (a2, b2) = (a * a, b * b);
    (a2 * a2 + b2 * b2).sqrt().sqrt()
}

/// Joins two overlapping times by a norm of the given order.
#[inline]
pub fn overlapped(a: f64, b: f64, order: f64) -> f64 {
    let (most, least) = (a.max(b), a.min(b));
    if least <= 0.0 { most } else { most * (1.0 + (least / most).powf(order)).powf(1.0 / order) }
}
