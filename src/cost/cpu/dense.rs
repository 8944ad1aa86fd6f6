//! Dense products: packed and blocked, skinny, and depthwise convolutions.

use super::hierarchy::{Blocking, Demand, Operand};
use super::machine::Machine;
use super::traffic::{self, Part, Touches};
use crate::lower::blocking::Goto;

/// One core's dense product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub m: f64,
    pub n: f64,
    pub k: f64,
    /// Bytes of the weights as stored, and of what says where they belong.
    pub weights: (f64, f64),
    /// Bytes of the distinct inputs: of the image, for a convolution.
    pub inputs: f64,
    /// Bytes of an output element, and of all outputs, removed rows included.
    pub output: f64,
    /// See `output`.
    pub outputs: f64,
    /// Bytes of an operand element, as computed with.
    pub element: f64,
    /// Rows of activations and outputs of the whole product, of all cores.
    pub whole: (f64, f64),
    /// What this core has of the product.
    pub part: Part,
}

/// Candidates: packed and blocked with vectors along outputs or along rows, and reading the weights in place.
pub(super) fn product(machine: &Machine, s: &Shape, rate: f64, matrix: bool, vector_rate: f64) -> [Option<Demand>; 3] {
    // The fp32 kernel's own loops, whichever way its vectors lie.
    let touches = (!matrix && s.element == 4.0).then(|| packed(machine, s));
    let skinny = (s.m <= machine.lanes()).then(|| skinny(machine, s, vector_rate, touches.clone()));
    let blocked = |swap| Some(blocked(machine, s, rate, matrix, swap, touches.clone()));
    [blocked(false), blocked(true), skinny]
}

fn packed(machine: &Machine, s: &Shape) -> Touches {
    let mut caches = [(0, 0); 3];
    let depth = machine.depth.min(3);
    for (to, cache) in caches.iter_mut().zip(machine.caches()) {
        *to = (cache.capacity as u64, cache.ways as u64);
    }
    // The product is blocked as a whole; threads divide its tiles.
    let (m, n) = s.whole;
    let goto = Goto::new(m as u64, n as u64, s.k as u64, machine.vectors(), &caches[..depth]);
    traffic::dense(m, n, s.k, &goto, machine.caches[0].line)
        .divided(s.part)
        .at_least(Operand::Weights, s.weights.0)
        .at_least(Operand::Metadata, s.weights.1)
        .at_least(Operand::Inputs, s.inputs)
        .at_least(Operand::Outputs, s.outputs)
}

fn blocked(machine: &Machine, s: &Shape, rate: f64, matrix: bool, swap: bool, known: Option<Touches>) -> Demand {
    let (p, lanes) = (&machine.p, machine.lanes());
    let pad = |x: f64, unit: f64| (x / unit).ceil() * unit;
    let (u, v) = if swap { (s.m, s.n) } else { (s.n, s.m) };
    let e = s.element;
    let (padded, tile, share, depth) = if matrix {
        // Tiles of 16 rows of one line, two by two.
        ((pad(u, 16.0), pad(v, 16.0)), (32.0, 32.0), p.tile_kernel, pad(s.k, 64.0 / e))
    } else {
        let (vectors, scalars) = machine.tile;
        // Fewer independent accumulators than latency × ports leave the pipelines idle.
        let chains = (u / lanes).ceil().min(vectors) * v.min(scalars);
        let share = p.microkernel * (chains / 8.0).min(1.0);
        ((pad(u, lanes), v), (vectors * lanes, scalars), share, pad(s.k, 4.0 / e.min(4.0)))
    };
    let b = Blocking::new(machine, tile, e, (padded.0, v, s.k));
    let issued = padded.0 * padded.1 * depth;
    let blocks_k = (s.k / b.kc).ceil();
    // A broadcast takes a load slot like a whole vector; tiles load both operands by the line.
    let slot = if matrix { e } else { machine.vector };
    let loads = issued * (e / b.nr + slot / b.mr);
    let results = 2.0 * s.m * s.n * 4.0 * blocks_k;
    let (vector_operand, scalar_operand) =
        if swap { (Operand::Inputs, Operand::Weights) } else { (Operand::Weights, Operand::Inputs) };
    let source = |operand| if operand == Operand::Weights { s.weights.0 } else { s.inputs };
    let block = b.mc * b.kc * e;
    let sliver = b.kc * b.nr * e;
    let repacks = (v / b.nc).ceil();
    let touches = known.unwrap_or_else(|| {
        let mut t = Touches::default();
        let own = source(vector_operand);
        t.direct(vector_operand, own, repacks, own + b.nc * b.kc * e);
        t.packed(vector_operand, u * s.k * e * repacks, block, ((b.nc / b.nr).ceil(), block + sliver));
        t.direct(scalar_operand, source(scalar_operand), 1.0, 0.0);
        t.packed(scalar_operand, v * s.k * e, b.kc * b.nc * e, ((u / b.mc).ceil(), b.kc * b.nc * e + block));
        t.direct(Operand::Outputs, s.outputs, 2.0 * blocks_k - 1.0, u * b.nc * s.output + block);
        t.direct(Operand::Metadata, s.weights.1, 1.0, 0.0);
        t
    });
    // Rows of a register tile that share one set evict one another between two blocks of k.
    let conflict = (b.nr / machine.caches[0].lines_at_stride(s.n * s.output)).max(1.0);
    let interleaved = if e < 4.0 { s.m * (s.k + s.n) } else { 0.0 };
    let packing = p.pack * e * (u * repacks + v) * s.k + p.interleave * interleaved;
    Demand {
        overlap: issued / (rate * share),
        l1: loads + results * conflict,
        serial: packing + p.call,
        issued,
        touches,
    }
}

/// Few rows: weights are read once, where they lie, and meet every row in registers.
fn skinny(machine: &Machine, s: &Shape, rate: f64, known: Option<Touches>) -> Demand {
    let lanes = machine.lanes();
    let issued = (s.k / lanes).ceil() * lanes * s.m * s.n;
    let e = s.element;
    // With one row each weight is a memory operand; more rows reuse the loaded vector.
    let share = if s.m <= 1.0 { machine.p.memory_operand } else { machine.p.microkernel };
    let rows = 4.0f64.min(s.n);
    let x = s.m * s.k * e;
    Demand {
        overlap: issued / (rate * share) + machine.p.row_start * s.n * s.m / rows,
        l1: s.weights.0 + x * s.n / rows + s.outputs,
        serial: machine.p.call,
        issued,
        touches: known.unwrap_or_else(|| {
            let mut t = Touches::default();
            t.direct(Operand::Weights, s.weights.0, 1.0, 0.0);
            t.direct(Operand::Inputs, s.inputs, s.n / rows, x + rows * s.k * e);
            t.direct(Operand::Outputs, s.outputs, 1.0, 0.0);
            t.direct(Operand::Metadata, s.weights.1, 1.0, 0.0);
            t
        }),
    }
}

/// Depthwise and narrow grouped convolutions, vectorised over channels or pixels: the image is a memory operand.
pub(super) fn direct(machine: &Machine, s: &Shape, groups: f64, rate: f64) -> Demand {
    let lanes = machine.lanes();
    let outputs = s.m * s.n * groups;
    let issued = (outputs / lanes).ceil() * lanes * s.k;
    // Rows of the image under the kernel stay in L1 or L2: taps re-read what was just touched.
    let row = (s.inputs * groups / s.m.sqrt()).max(s.element) * s.k.sqrt();
    let mut touches = Touches::default();
    touches.direct(Operand::Weights, s.weights.0 * groups, 1.0, 0.0);
    touches.direct(Operand::Inputs, s.inputs * groups, s.k.sqrt(), row);
    touches.direct(Operand::Outputs, s.outputs * groups, 1.0, 0.0);
    Demand {
        overlap: issued / (rate * machine.p.memory_operand),
        l1: issued * s.element.min(4.0) + outputs * s.output,
        serial: machine.p.call + machine.p.row_start * s.m.sqrt(),
        issued,
        touches,
    }
}
