//! Tiled matrix products: tiles, waves, split-k, pipelining, L2 feed, main memory and the power limit.
//!
//! Tiles are dealt to multiprocessors in waves (LLMCompass, Zhang et al., ISCA'24, §4; NVIDIA, *Matrix Multiplication
//! Background*, "wave quantization"). Inside a tile, products, L2 reads and the latency of the pipelined main loop
//! overlap; start and end are paid once. The library's choice is the fastest of the tiles and splits it has.

use super::facts::{Engine, Facts};
use super::memory::{Footprint, Setting, kept, larger, overlapped};
use crate::cost::OperandBytes;
use crate::profile::Generation;
use crate::profile::calibration::GemmConstants;

/// A product in base units; bytes are per dense element.
#[derive(Clone, Copy, Debug)]
pub struct GemmWork {
    /// Independent products.
    pub groups: f64,
    /// Rows of activations.
    pub m: f64,
    /// Outputs.
    pub n: f64,
    /// Reduction.
    pub k: f64,
    /// Bytes of an activation element.
    pub input: f64,
    /// Bytes of weights per dense weight element, metadata included.
    pub weight: f64,
    /// Bytes of an output element.
    pub output: f64,
    /// Bytes of an operand element as the main loop steps through k.
    pub element: f64,
    /// Peak multiply–accumulates a second of the engine and mode, on dense-equivalent products.
    pub rate: f64,
    /// The engine.
    pub engine: Engine,
    /// Order in which tiles are dealt to multiprocessors.
    pub raster: Raster,
    /// Compulsory bytes.
    pub footprint: Footprint,
}

/// The order in which a kernel deals its tiles to multiprocessors, which decides what main memory is read for twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raster {
    /// Square patches of the output, so that both operands' panels are shared within a wave.
    Swizzled,
    /// Along the outputs, one row of tiles after the other: a wave narrower than a row reads all weights again for each.
    AlongOutputs,
}

/// What the tile search found.
#[derive(Clone, Copy, Debug)]
pub struct GemmCost {
    /// Seconds of the kernel, launch excluded.
    pub time: f64,
    /// Seconds of arithmetic with its tiles and waves.
    pub compute: f64,
    /// Seconds of main memory.
    pub memory: f64,
    /// Seconds of start and end.
    pub ramp: f64,
    /// Main-memory bytes.
    pub dram: OperandBytes,
    /// Bytes that pass from L2 into tiles.
    pub l2: f64,
    /// Rows and columns of the chosen tile.
    pub tile: (f64, f64),
    /// Parts into which k is split.
    pub split: f64,
    /// Dense-equivalent products issued, padding included.
    pub issued: f64,
}

const TENSOR_TILES: &[(f64, f64)] = &[
    (256.0, 128.0),
    (128.0, 256.0),
    (128.0, 128.0),
    (128.0, 64.0),
    (64.0, 128.0),
    (64.0, 64.0),
    (32.0, 128.0),
    (128.0, 32.0),
    (16.0, 128.0),
    (128.0, 16.0),
    (64.0, 32.0),
    (32.0, 64.0),
    (16.0, 64.0),
];
const LANE_TILES: &[(f64, f64)] = &[
    (128.0, 128.0),
    (256.0, 64.0),
    (128.0, 64.0),
    (64.0, 128.0),
    (64.0, 64.0),
    (32.0, 128.0),
    (128.0, 32.0),
    (64.0, 32.0),
    (32.0, 64.0),
];
const SPLITS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 8.0, 16.0];
/// Least k of a part.
const LEAST_PART: f64 = 128.0;
/// Cycles in which the parts of a split k wait for one another.
const MEET: f64 = 400.0;
/// Accumulators of one multiprocessor's register file: tiles of more elements share it with nothing.
const ACCUMULATORS: f64 = 32768.0;

/// The fastest tile and split, joined with main memory.
pub fn gemm(facts: &Facts, c: &GemmConstants, setting: &Setting, w: &GemmWork) -> GemmCost {
    let tiles = if w.engine.is_tensor() { TENSOR_TILES } else { LANE_TILES };
    tiled(facts, c, setting, w, tiles)
}

/// As [`gemm()`], over given tiles (rows of activations by outputs).
pub fn tiled(facts: &Facts, c: &GemmConstants, setting: &Setting, w: &GemmWork, tiles: &[(f64, f64)]) -> GemmCost {
    let rate = w.rate / (facts.sms * facts.clock) * c.issue / (1.0 + c.tlb * scattered(facts, w));
    let step = w.element / 64.0 * c.step;

    let low = Side::new(if w.engine.is_tensor() { c.narrow } else { c.low });
    let narrow = Side::new(c.narrow);

    let (mut best, mut chosen) = (f64::INFINITY, (0.0, 0.0, 1.0));
    for &(tm, tn) in tiles {
        let blocks = w.groups * (w.m / tm).ceil() * (w.n / tn).ceil();
        let occupancy = (ACCUMULATORS / (tm * tn)).min(facts.shared / ((tm + tn) * 256.0)).clamp(1.0, 8.0).floor();
        let area = tm * tn;
        let per_k = larger(area / (rate * low.of(tm) * narrow.of(tn)), (tm * w.input + tn * w.weight) / c.feed);
        let epilogue = area * w.output / c.drain / occupancy.sqrt();
        for &split in SPLITS {
            if split > 1.0 && w.k / split < LEAST_PART {
                break;
            }
            let depth = w.k / split;
            let load = blocks * split / facts.sms;
            let waves = softened(load, c.tail);
            let rounds = softened(load / occupancy, c.tail);
            let mut cycles = larger(waves * per_k * depth, rounds * step * depth) + waves * epilogue + c.ramp;
            if split > 1.0 {
                cycles += MEET + w.groups * w.m * w.n * split * 8.0 / (c.combine * facts.sms);
            }
            if cycles < best {
                (best, chosen) = (cycles, (tm, tn, split));
            }
            // More parts cannot fill waves that are full.
            if load > 8.0 {
                break;
            }
        }
    }
    let (tm, tn, split) = chosen;
    let macs = w.groups * w.m * w.n * w.k;
    let compute = (best / facts.clock).max(macs / (w.rate * sustained(facts, c, w.rate)));

    let panels = w.groups * w.k * (w.m * w.input + w.n * w.weight);
    let again = match w.raster {
        Raster::Swizzled => spilled(facts, w, panels),
        Raster::AlongOutputs => reread(facts, w),
    };
    let dram = w.footprint.dram(facts.l2, setting, again);
    let memory = dram.total().get() / (facts.bandwidth * c.dram);
    let blocks = w.groups * (w.m / tm).ceil() * (w.n / tn).ceil();
    GemmCost {
        time: overlapped(compute, memory, c.overlap) + quantisation(facts, c, setting, w),
        compute,
        memory,
        ramp: c.ramp / facts.clock,
        dram,
        l2: blocks * w.k * (tm * w.input + tn * w.weight) + w.groups * w.m * w.n * w.output,
        tile: (tm, tn),
        split,
        issued: blocks * tm * tn * w.k,
    }
}

/// Bytes of an activation before it is quantised.
const WIDE: f64 = 2.0;

/// Seconds of the pass that quantises the activations inside a timed call. A loop leaves them in L2 where they fit.
fn quantisation(facts: &Facts, c: &GemmConstants, setting: &Setting, w: &GemmWork) -> f64 {
    if setting.quantise <= 0.0 {
        return 0.0;
    }
    let elements = w.groups * w.m * w.k;
    let inside = kept(elements * WIDE, facts.l2);
    let per_byte = (1.0 - inside) / (facts.bandwidth * c.dram) + inside / (facts.l2_bandwidth * facts.clock);
    setting.quantise * elements * per_byte
}

/// Share of the issue rate that a tile's side leaves, a power of the side over 128.
struct Side {
    exponent: f64,
    halved: f64,
}

impl Side {
    fn new(exponent: f64) -> Self {
        Self { exponent, halved: (-exponent).exp2() }
    }

    /// Of a side; tiles have mostly powers of two, which need no transcendental function.
    #[inline]
    fn of(&self, side: f64) -> f64 {
        let h = self.halved;
        if side >= 128.0 {
            1.0
        } else if side == 64.0 {
            h
        } else if side == 32.0 {
            h * h
        } else if side == 16.0 {
            h * h * h
        } else {
            (side / 128.0).powf(self.exponent)
        }
    }
}

/// Row of an operand, in bytes, from which its translations count.
const PAGE: f64 = 57344.0;
/// Bytes of operands that Pascal's translation buffers reach.
const REACH: f64 = 4e8;
/// Bytes after which AMD's memory channels repeat: 32 of them, 4 KiB each.
const CHANNELS: f64 = 131_072.0;

/// How far a tile's rows lie scattered in memory, from 0 to 1: the share of `tlb` that is paid. Rows longer than a page need a
/// translation each. Before Volta the loss also grows with what the rows in flight span beyond the reach of the
/// translation buffers; activations count more, because a wave of tiles runs along them. AMD does not hash its
/// channels: rows that lie a multiple of all channels apart queue at one.
fn scattered(facts: &Facts, w: &GemmWork) -> f64 {
    let row = w.k * w.element;
    let pages2 = (row / PAGE) * (row / PAGE);
    match facts.generation() {
        Some(Generation::Amd) if row % (2.0 * CHANNELS) == 0.0 => 1.0,
        Some(Generation::Amd) if row % CHANNELS == 0.0 => 0.5,
        Some(Generation::Amd) => 0.0,
        Some(Generation::Lanes) => {
            let span = (w.m * w.input + w.n * w.weight / 8.0) * w.k / REACH;
            pages2 / (1.0 + pages2) * span / (1.0 + span)
        }
        _ => pages2 * pages2 / (1.0 + pages2 * pages2),
    }
}

/// Waves that a load takes: between the exact quotient and the next whole number, at least one.
#[inline]
fn softened(load: f64, tail: f64) -> f64 {
    if load <= 1.0 { 1.0 } else { load + (load.ceil() - load) * tail }
}

/// Share of the peak that the board's power sustains. At a given voltage an operation costs energy in proportion to the
/// capacitance that it switches, and the voltage rises with the clock: E = C·V², C and V² together with the feature size to
/// the power of 4/3, V with the listed clock. Below the clock that the watts cannot feed, frequency and voltage fall
/// together, so the sustained share is a power law of the watts per operation over that energy, until the clock's own
/// limit. Measured: in 16 bit seven architectures from 5 to 12 nm and 1.4 to 2.5 GHz lie within 15 % of one constant, in
/// fp32 P4, A100 and L4 (16, 7 and 5 nm; 75, 300 and 72 W).
fn sustained(facts: &Facts, c: &GemmConstants, rate: f64) -> f64 {
    let watts_per_tera = facts.watts / (2e-12 * rate);
    (c.power * (watts_per_tera / facts.energy).powf(c.alpha)).min(1.0)
}

/// Weights read again by a raster along the outputs: a wave of 128×128 tiles spans some rows of tiles, and once the
/// weights outgrow L2 every further span reads them from main memory. (cuSPARSELt's 16-bit kernels of compute
/// capability 8 and 12: GB10 falls from 130 to 45 TFLOP/s as the compressed weights pass its 24 MiB, RTX 5080 from 225
/// to 185, A100 from 370 to 270 where a row of tiles fills its multiprocessors.)
fn reread(facts: &Facts, w: &GemmWork) -> f64 {
    let rows = (facts.sms / (w.n / 128.0).ceil()).max(1.0);
    let spans = ((w.m / 128.0).ceil() / rows).max(1.0);
    let weights = w.n * w.k * w.weight;
    w.groups * weights * (spans - 1.0) * (1.0 - kept(weights, facts.l2))
}

/// Bytes read again because neither operand's panels stay in L2 over a wave of tiles.
fn spilled(facts: &Facts, w: &GemmWork, panels: f64) -> f64 {
    let smaller = (w.m * w.input).min(w.n * w.weight) * w.k;
    let ratio = 0.6 * facts.l2 / smaller.max(1.0);
    let share = 1.0 / (1.0 + ratio * ratio);
    let side = (facts.sms * 16384.0).sqrt();
    share * (w.groups * w.m * w.n * w.k * (w.input + w.weight) / side - panels).max(0.0)
}
