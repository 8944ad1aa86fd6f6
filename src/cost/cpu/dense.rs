//! Dense products: packed and blocked, skinny, and depthwise convolutions.

use super::hierarchy::{Demand, First, Operand};
use super::machine::{Machine, Unit};
use super::tiles::{self, Blocks};
use super::touch_dense;
use super::traffic::{Part, Touches};
use crate::lower::blocking::{COLUMN_ROWS, Goto, narrow_columns};
use std::cell::OnceCell;

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

/// The kernels that may serve it, and the names of those that are not the blocked product.
pub(super) fn product(
    machine: &Machine,
    s: &Shape,
    unit: Unit,
    vector_rate: f64,
    kept: &OnceCell<Touches>,
) -> Vec<(Demand, Option<&'static str>)> {
    let column = s.whole.0 <= 1.0;
    let skinny = || (skinny(machine, s, vector_rate, kept), Some("skinny GEMM"));
    match (s.element < 4.0, column) {
        (narrow, false) if unit.matrix => {
            let all = Blocks { units: 1.0, rows: s.n, cols: s.k };
            let on_tiles = (tiles::product(machine, s, &all, unit.rate), None);
            if narrow || s.m > machine.lanes() { vec![on_tiles] } else { vec![on_tiles, skinny()] }
        }
        // A single column leaves tiles empty.
        (true, true) if unit.matrix => vec![(dots(machine, s, vector_rate), Some("skinny GEMM"))],
        (true, _) => vec![(dots(machine, s, unit.rate), column.then_some("skinny GEMM"))],
        (false, true) => vec![skinny()],
        (false, false) => vec![(packed(machine, s, unit.rate, kept), None)],
    }
}

/// The blocking and the touches of the packed product's own loops; it is blocked as a whole, and threads divide its tiles.
/// `kept` has the touches of the whole product once they are known.
fn blocking(machine: &Machine, s: &Shape, kept: &OnceCell<Touches>) -> (Goto, Touches) {
    let mut caches = [(0, 0); 3];
    let depth = machine.depth.min(3);
    for (to, cache) in caches.iter_mut().zip(machine.caches()) {
        *to = (cache.capacity as u64, cache.ways as u64);
    }
    let (m, n) = s.whole;
    let goto = Goto::new(m as u64, n as u64, s.k as u64, machine.vectors(), &caches[..depth]);
    let touches = kept
        .get_or_init(|| touch_dense::dense(machine.caches(), (m, n, s.k), &goto))
        .clone()
        .divided(s.part)
        .at_least(Operand::Weights, s.weights.0)
        .at_least(Operand::Metadata, s.weights.1)
        .at_least(Operand::Inputs, s.inputs)
        .at_least(Operand::Outputs, s.outputs);
    (goto, touches)
}

/// Packed and blocked, vectors along the columns of activations ([`Goto`]).
fn packed(machine: &Machine, s: &Shape, rate: f64, kept: &OnceCell<Touches>) -> Demand {
    let (p, lanes, e) = (&machine.p, machine.lanes(), s.element);
    let (goto, touches) = blocking(machine, s, kept);
    let (fmas, loads) = (rate / lanes, machine.l1() / machine.vector);
    let vectors = (s.m / lanes).ceil();
    let rows = (goto.nr as f64).min(s.n);
    let slivers = (s.n / rows).ceil();
    // Full register tiles along the columns, and the rest of them: a step of k takes its products, its loads, or the
    // latency of an addition, whichever is longest.
    let tile = goto.mr as f64 / lanes;
    let step = |width: f64| {
        let products = rows * width / (fmas * p.microkernel);
        if width > 0.0 { products.max((rows + width) / loads).max(FMA_LATENCY) } else { 0.0 }
    };
    let (full, rest) = ((vectors / tile).floor(), vectors % tile);
    let steps = slivers * s.k * (full * step(tile) + step(rest));
    let blocks_k = (s.k / goto.kc as f64).ceil();
    let tiles = slivers * (vectors / tile).ceil() * blocks_k;
    let results = 2.0 * s.m * s.n * 4.0 * blocks_k;
    // Rows of a register tile that share one set evict one another between two blocks of k.
    let conflict = (rows / machine.caches[0].lines_at_stride(s.whole.0 * s.output)).max(1.0);
    let packs =
        goto.packs_all_inputs || goto.packs_inputs(goto.columns(s.whole.0 as u64), goto.nc.min(s.whole.1 as u64));
    let copied = s.k * e * (if packs { s.m } else { 0.0 } + if goto.packs_weights { s.n } else { 0.0 });
    // Activations and results are met a register tile's columns at a time, row after row.
    let adjacent = s.m.min(goto.mr as f64);
    Demand {
        overlap: steps + tiles * p.row_start,
        l1: slivers * s.k * (full * (rows + tile) + if rest > 0.0 { rows + rest } else { 0.0 }) * machine.vector
            + results * conflict,
        serial: p.pack * copied + p.call,
        issued: slivers * rows * vectors * lanes * s.k,
        touches,
        first: First { inputs: adjacent * e, outputs: adjacent * s.output, ..First::default() },
    }
}

/// Cycles until the result of a fused multiply–add can be added to: four on Intel since Skylake and AMD since Zen.
pub(super) const FMA_LATENCY: f64 = 4.0;

/// Formats narrower than four bytes on vectors, several products a lane: eight rows by three vectors of columns.
fn dots(machine: &Machine, s: &Shape, rate: f64) -> Demand {
    let (p, lanes, e) = (&machine.p, machine.lanes(), s.element);
    let pad = |x: f64, unit: f64| (x / unit).ceil() * unit;
    let per_lane = 4.0 / e;
    let words = (s.k / per_lane).ceil();
    let (dots, loads) = (rate / lanes / per_lane, machine.l1() / machine.vector);
    let (overlap, l1, issued) = if s.whole.0 <= 1.0 {
        // Sixteen rows at a time, one word of activations broadcast.
        let strips = (s.n / 16.0).ceil();
        let vectors = (16.0 / lanes).ceil();
        (
            words * strips * ((vectors + 1.0) / loads).max(vectors / (dots * p.dot_kernel)),
            words * strips * (vectors + 1.0) * machine.vector,
            words * per_lane * strips * 16.0,
        )
    } else {
        let vectors = pad(s.m, 16.0) / lanes;
        let (full, rest) = ((vectors / 3.0).floor(), vectors % 3.0);
        let slots = full * 11.0 + if rest > 0.0 { 8.0 + rest } else { 0.0 };
        let bands = (s.n / 8.0).ceil() * words;
        let busy = 8.0 * vectors / (dots * p.dot_kernel);
        (bands * busy.max(slots / loads), bands * slots * machine.vector, bands * per_lane * 8.0 * vectors * lanes)
    };
    let columns = (narrow_columns(words as u64) as f64).min(s.m);
    let groups = (s.m / columns).ceil();
    let converted = words * 4.0 * columns;
    let mut t = Touches::new(machine.caches());
    t.direct(Operand::Weights, s.weights.0, groups, s.weights.0 + converted);
    t.direct(Operand::Inputs, s.inputs, 1.0, 0.0);
    t.packed(Operand::Inputs, s.m * words * 4.0, converted, ((s.n / 8.0).ceil(), converted + words * 32.0));
    t.direct(Operand::Outputs, s.outputs, 1.0, 0.0);
    t.direct(Operand::Metadata, s.weights.1, 1.0, 0.0);
    Demand {
        overlap,
        l1: l1 + s.outputs,
        serial: p.interleave * s.m * (s.k + s.n) + p.call,
        issued,
        touches: t,
        first: First { outputs: s.m * s.output, ..First::default() },
    }
}

/// Few rows: weights are read once, where they lie, and meet every row in registers.
fn skinny(machine: &Machine, s: &Shape, rate: f64, kept: &OnceCell<Touches>) -> Demand {
    let lanes = machine.lanes();
    let e = s.element;
    let along = (s.k * e.min(4.0) / 4.0 / lanes).ceil();
    let rows = (COLUMN_ROWS as f64).min(s.n);
    // Rows that go together share the loads of activations.
    let loads = along * (s.n + (s.n / rows).ceil() * s.m);
    let issued = (s.k / lanes).ceil() * lanes * s.m * s.n;
    let x = s.m * s.k * e;
    let touches = if s.whole.0 <= 1.0 && e == 4.0 {
        blocking(machine, s, kept).1
    } else {
        let mut t = Touches::new(machine.caches());
        t.direct(Operand::Weights, s.weights.0, 1.0, 0.0);
        t.direct(Operand::Inputs, s.inputs, s.n / rows, x + rows * s.k * e);
        t.direct(Operand::Outputs, s.outputs, 1.0, 0.0);
        t.direct(Operand::Metadata, s.weights.1, 1.0, 0.0);
        t
    };
    Demand {
        overlap: (issued / rate).max(loads * machine.vector / machine.l1()) + machine.p.row_end * s.n * s.m,
        l1: loads * machine.vector + s.outputs,
        serial: machine.p.call,
        issued,
        touches,
        first: First::default(),
    }
}

/// Depthwise and narrow grouped convolutions, vectorised over channels or pixels: the image is a memory operand.
pub(super) fn direct(machine: &Machine, s: &Shape, groups: f64, rate: f64) -> Demand {
    let lanes = machine.lanes();
    let outputs = s.m * s.n * groups;
    let issued = (outputs / lanes).ceil() * lanes * s.k;
    // Rows of the image under the kernel stay in L1 or L2: taps re-read what was just touched.
    let row = (s.inputs * groups / s.m.sqrt()).max(s.element) * s.k.sqrt();
    let mut touches = Touches::new(machine.caches());
    touches.direct(Operand::Weights, s.weights.0 * groups, 1.0, 0.0);
    touches.direct(Operand::Inputs, s.inputs * groups, s.k.sqrt(), row);
    touches.direct(Operand::Outputs, s.outputs * groups, 1.0, 0.0);
    Demand {
        overlap: issued / (rate * machine.p.memory_operand),
        l1: issued * s.element.min(4.0) + outputs * s.output,
        serial: machine.p.call + machine.p.row_start * s.m.sqrt(),
        issued,
        touches,
        first: First::default(),
    }
}
