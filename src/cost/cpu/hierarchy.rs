//! Bytes per cache level from tile footprints, and the ECM time of what one core does.
//!
//! Execution–cache–memory (Hofmann, Hager et al., CCPE 2018): arithmetic overlaps with transfers, transfers do not
//! overlap with one another: `max(T_OL, T_nOL + Σ T_level)`. A byte from main memory goes to the private caches
//! directly (non-inclusive last level), so the shared level is paid for what it serves itself.

use super::machine::Machine;
use super::traffic::Touches;
use crate::cost::{MAX_LEVELS, OperandBytes};
use crate::units::Bytes;

/// Whose bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Weights,
    Metadata,
    Inputs,
    Outputs,
    /// Further operands of a fused epilogue.
    Epilogue,
}

/// What one core does for one product, in cycles and bytes.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// In-core cycles that overlap with transfers.
    pub overlap: f64,
    /// Bytes over the load and store ports of L1, per operand where it matters: all together.
    pub l1: f64,
    /// In-core cycles before and beside the kernel: packing, rows, call.
    pub serial: f64,
    /// Multiply–accumulates issued.
    pub issued: f64,
    /// What it touches, and when again.
    pub touches: Touches,
    /// How its first touches meet main memory.
    pub first: First,
}

/// How operands are met, and what arithmetic does not hide of first touches. Activations are packed before they are used,
/// or met in the order of the weights; results are stored in rows. A run of adjacent bytes begins with a wait that
/// prefetching shortens and cannot avoid.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct First {
    /// Adjacent bytes of inputs; 0 where they are read as one stream.
    pub inputs: f64,
    /// Adjacent bytes of outputs; 0 where they are written as one stream.
    pub outputs: f64,
    /// Time that weights from main memory are waited for, over a stream's: a loop with much work for each cannot run far
    /// ahead.
    pub weights: f64,
    /// Several rows meet each weight at once: those from caches are waited for too.
    pub tall: bool,
    /// Inputs are met in the order of the weights, not one line after another, at any time.
    pub scattered: bool,
}

/// How the operands' first touches are served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Residency {
    /// Bytes of the whole operation where everything was touched just before; infinite after other work.
    pub warm: f64,
    /// Share of the inputs that the last level still holds.
    pub inputs: f64,
    /// Bytes touched since they were written, and since the buffer of the outputs was read.
    pub near: f64,
}

/// Traffic that the caches inside each level miss, innermost first; index `depth` is main memory.
pub(super) type Flow = [OperandBytes; MAX_LEVELS];

/// Cores on the operation and how each operand is divided among them; fractions where some have less to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    pub groups: f64,
    pub n: f64,
    pub m: f64,
}

impl Split {
    pub fn cores(&self) -> f64 {
        self.groups * self.n * self.m
    }

    /// Disjoint shares of an operand; the other cores read the same bytes.
    fn shares(&self, operand: Operand) -> f64 {
        match operand {
            Operand::Weights | Operand::Metadata => self.groups * self.n,
            Operand::Inputs => self.groups * self.m,
            Operand::Outputs | Operand::Epilogue => self.cores(),
        }
    }
}

/// ECM time of an operation in cycles and its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priced {
    pub cycles: f64,
    pub arithmetic: f64,
    pub overhead: f64,
    /// The level that takes most of the transfers: 0 is L1, `depth` main memory.
    pub slowest: usize,
    pub memory_bound: bool,
    pub flow: Flow,
    pub issued: f64,
}

/// Prices `count` repetitions of a core's demand on the cores of a split.
pub(super) fn price(machine: &Machine, demand: &Demand, count: f64, split: Split, residency: Residency) -> Priced {
    let depth = machine.depth;
    let cores = split.cores();
    let mut core = [0.0; MAX_LEVELS];
    // The same as bytes of a stream that take as long.
    let mut busy = [0.0; MAX_LEVELS];
    // What is not hidden, of those.
    let mut exposed = [0.0; MAX_LEVELS];
    let mut runs = 0.0;
    let mut distinct = [0.0; MAX_LEVELS];
    let mut flow: Flow = Default::default();
    for touch in demand.touches.iter() {
        let shares = split.shares(touch.operand);
        for (i, cache) in machine.caches().iter().enumerate() {
            let missed = match (touch.first, touch.operand) {
                (true, _) if residency.warm.is_finite() => {
                    // A private cache holds the share of its own core.
                    cache.miss(if cache.shared { residency.warm } else { residency.warm / cores })
                }
                // What runs before has just written the inputs, and read what is written now.
                (true, Operand::Inputs | Operand::Outputs) => {
                    let near = if cache.shared { residency.near } else { residency.near / cores };
                    let held = if i + 1 == depth { 1.0 } else { 1.0 - cache.miss(near) };
                    1.0 - residency.inputs * held
                }
                _ => touch.missed[i],
            };
            let once = count * touch.bytes * missed;
            let bytes = once * if touch.written { 2.0 } else { 1.0 };
            let first = touch.first;
            // What is written for the first time returns later, unless the caches are full of it.
            let paid = if first && touch.bytes <= machine.last().capacity { once } else { bytes };
            core[i + 1] += paid;
            let scattered = demand.first.scattered && touch.operand == Operand::Inputs && i + 1 < depth;
            let worth = paid / if scattered { machine.caches[i + 1].scattered } else { 1.0 };
            busy[i + 1] += worth;
            let adjacent = match touch.operand {
                Operand::Inputs => demand.first.inputs,
                Operand::Outputs => demand.first.outputs,
                Operand::Weights | Operand::Metadata | Operand::Epilogue => 0.0,
            };
            // Copies of inputs are written before arithmetic begins.
            let waited = match touch.operand {
                Operand::Inputs if touch.written || first => 1.0,
                Operand::Outputs if first => 1.0,
                Operand::Weights | Operand::Metadata if first && (i + 1 == depth || demand.first.tall) => {
                    demand.first.weights
                }
                _ => 0.0,
            };
            exposed[i + 1] += worth * waited;
            if first && i + 1 == depth && adjacent > 0.0 {
                runs += once / adjacent.max(cache.line);
            }
            distinct[i + 1] += bytes * shares;
            // Cores that read the same lines find them in the shared cache.
            let moved = if cache.shared || i + 1 == depth { bytes * shares } else { bytes * cores };
            add(&mut flow[i + 1], touch.operand, moved);
        }
    }
    // Levels farther out never move more than those inside them.
    for i in (1..depth).rev() {
        core[i] = core[i].max(core[i + 1]);
        busy[i] = busy[i].max(core[i]);
    }
    let l1 = count * demand.l1;
    let rest = (l1 * cores - flow[1].total().get()).max(0.0);
    add(&mut flow[0], Operand::Inputs, rest);
    flow[0] = sum(flow[0], flow[1]);
    let mut parts = [0.0; MAX_LEVELS];
    parts[0] = l1 / machine.l1();
    let mut waits = 0.0;
    for i in 1..depth {
        let cache = &machine.caches[i];
        let own = |bytes: &[f64; MAX_LEVELS]| if i + 1 == depth { bytes[i] - bytes[depth] } else { bytes[i] };
        parts[i] = own(&busy) / cache.bandwidth;
        waits += own(&exposed).max(0.0) / cache.bandwidth;
        if cache.shared {
            let all = cache.bandwidth * (machine.cores * machine.p.shared_saturation).max(1.0).min(cores);
            parts[i] = parts[i].max((distinct[i] - distinct[i + 1]) / all);
        }
    }
    parts[depth] = (core[depth] / machine.memory.0).max(distinct[depth] / machine.memory.1);
    waits += exposed[depth] / core[depth].max(1.0) * parts[depth];
    let transfers: f64 = parts[..=depth].iter().sum();
    // A run of adjacent bytes waits once, while others are under way.
    let begins = runs * machine.latency / machine.p.outstanding_lines;
    let arithmetic = count * demand.overlap;
    let overhead = count * demand.serial;
    let slowest = (0..=depth).fold(0, |most, i| if parts[i] > parts[most] { i } else { most });
    Priced {
        cycles: arithmetic.max(transfers - waits) + waits + begins + overhead,
        arithmetic,
        overhead,
        slowest,
        memory_bound: transfers + begins > arithmetic,
        flow,
        issued: count * demand.issued * cores,
    }
}

fn add(bytes: &mut OperandBytes, operand: Operand, amount: f64) {
    let amount = Bytes(amount);
    match operand {
        Operand::Weights => bytes.weights += amount,
        Operand::Metadata => bytes.metadata += amount,
        Operand::Inputs | Operand::Epilogue => bytes.inputs += amount,
        Operand::Outputs => bytes.outputs += amount,
    }
}

fn sum(a: OperandBytes, b: OperandBytes) -> OperandBytes {
    OperandBytes {
        weights: a.weights + b.weights,
        metadata: a.metadata + b.metadata,
        inputs: a.inputs + b.inputs,
        outputs: a.outputs + b.outputs,
    }
}
