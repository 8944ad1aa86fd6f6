//! Sparse weights by dense activations in fp32: rows of CSR, N:M and V:N:M, blocks of BSR.

use super::dense::{FMA_LATENCY, Shape};
use super::hierarchy::{Demand, First, Operand};
use super::machine::Machine;
use super::touch_blocks::{self, Stored};
use super::traffic::Touches;
use crate::lower::blocking::{self, PANEL_VECTORS, block_k};
use std::cell::OnceCell;

/// What a kernel meets in one core's share of the matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nonzeros {
    /// Stored units: nonzeros, blocks, or groups of rows that share their columns.
    pub units: f64,
    /// Outputs and inputs of a unit.
    pub rows: f64,
    /// Inputs of a unit.
    pub cols: f64,
    /// How a unit says where it belongs.
    pub index: Index,
}

/// Cost of finding a unit's activations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Index {
    /// A column index a value.
    Csr,
    /// Bits of position within a group; the operations that bring one column's activations to a vector of values, over
    /// those of a chunk whose columns two registers hold.
    Nm(f64),
    /// An index a block.
    Block,
}

/// Vectors of columns in a panel of activations.
const PANEL: f64 = PANEL_VECTORS as f64;

/// Loading a strip's index in steps of its loop, where a step loads weights and an activation.
const INDEX: f64 = 0.25;

/// The kernel for many columns, its blocks of k as long as it packs them, and the one for a single column.
/// `kept` has the touches of the whole product once they are known.
pub(super) fn product(machine: &Machine, s: &Shape, z: &Nonzeros, rate: f64, kept: &OnceCell<Touches>) -> Demand {
    let vectors = machine.vectors();
    let (m, n) = s.whole;
    let blocks = z.units / s.part.weights;
    let (rows, cols) = (z.rows.min(n).max(1.0), z.cols.min(s.k).max(1.0));
    let density = blocks / ((n / rows).ceil() * (s.k / cols).ceil());
    let kb = block_k(s.k as u64, rows as u64, cols as u64, density.min(1.0), m as u64, vectors) as f64;
    // Indices of 16 bits, and for a block row where it begins among them (4), among the values (8), and which it is (4);
    // N:M has codes alone.
    let (index, start) =
        if matches!(z.index, Index::Nm(_)) { (s.weights.1 / z.units.max(1.0), 0.0) } else { (2.0, 16.0) };
    let stored = Stored { m, n, k: s.k, rows, cols, blocks, block_k: kb, index, start };
    // Blocks are stored as high as the matrix is, whatever a format says of those at its end.
    let weights = if z.index == Index::Block { 0.0 } else { s.weights.0 };
    let touches = kept
        .get_or_init(|| touch_blocks::blocks(machine.caches(), &stored, &vectors))
        .clone()
        .divided(s.part)
        .at_least(Operand::Weights, weights)
        .at_least(Operand::Metadata, s.weights.1)
        .at_least(Operand::Inputs, s.inputs)
        .at_least(Operand::Outputs, s.outputs);
    if m <= 1.0 { single(machine, s, z, rate, touches) } else { columns(machine, s, z, rate, kb.min(s.k), touches) }
}

/// Strips that a block row is cut into: how many of the tallest and of each lower one, and their height.
fn strips(rows: f64, tallest: u64) -> impl Iterator<Item = (f64, f64)> {
    let whole = ((rows / tallest as f64).floor(), tallest as f64);
    std::iter::once(whole).chain(blocking::strips(rows as u64 % tallest, tallest).map(|h| (1.0, h as f64)))
}

/// Vectors along the columns of activations, blocks of `kb` inputs: the loops of `kernels::blocks` and `kernels::nm`.
fn columns(machine: &Machine, s: &Shape, z: &Nonzeros, rate: f64, kb: f64, touches: Touches) -> Demand {
    let (p, lanes, e) = (&machine.p, machine.lanes(), s.element);
    let (fmas, loads) = (rate / lanes, machine.l1() / machine.vector);
    let total = (s.m / lanes).ceil();
    let full = (total / PANEL).floor();
    let decode = match z.index {
        Index::Csr => p.csr_decode,
        Index::Nm(_) => p.nm_decode,
        Index::Block => p.block_decode,
    };
    let blocks_k = (s.k / kb).ceil();
    // Of one block row: cycles of a block, passes that begin and end, bytes that come from L1.
    let (mut work, mut starts, mut l1) = (0.0, 0.0, 0.0);
    for (panels, width) in [(full, PANEL), (1.0, total - full * PANEL)] {
        for (count, height) in strips(z.rows.min(s.n), machine.vectors().rows) {
            let tall = machine.vectors().tile(height as u64) as f64;
            let passes = (width / tall).ceil();
            let each = width / passes.max(1.0);
            // Rows that share a column load it once, and wait for their sums where those are few. A row alone takes each
            // activation as a memory operand; each column of its block costs what one of CSR does.
            let column = if height > 1.0 {
                (height * each / (fmas * p.microkernel)).max((height + each) / loads).max(FMA_LATENCY)
            } else if z.cols > 1.0 {
                (each / (fmas * p.memory_operand)).max((each + 1.0) / loads) + p.csr_decode
            } else {
                each / (fmas * p.memory_operand)
            };
            let all = panels * count * passes;
            work += all * (z.cols * column + decode);
            starts += all;
            l1 += all * z.cols * (each + if height > 1.0 { height } else { 0.0 }) * machine.vector;
        }
    }
    let results = 2.0 * s.m * s.n * 4.0 * blocks_k;
    // Columns that fill whole vectors of one panel are used, and their results are written, where they lie.
    let direct = s.whole.0 <= PANEL * lanes && s.whole.0 % lanes == 0.0;
    let copied = if direct { 0.0 } else { total * lanes * (s.k * e + s.n * 4.0) };
    // Rows of a block follow one another; copied rows lie a row of the matrix apart.
    let copied_run = s.m.min(PANEL * lanes);
    let run = match (direct, s.m > PANEL * lanes) {
        (true, _) => s.m * z.cols,
        (false, true) => copied_run,
        (false, false) => 0.0,
    };
    // Several rows meet each value at once, and the loop cannot run ahead of it.
    let weights = if z.rows > 1.0 { 1.0 } else { p.exposed_weights };
    Demand {
        overlap: z.units * work + (s.n / z.rows).ceil() * blocks_k * starts * p.row_start,
        l1: z.units * l1 + results,
        serial: p.pack * copied + p.call,
        issued: z.units * z.rows * z.cols * total * lanes,
        touches,
        first: First { inputs: run * e, outputs: copied_run * s.output, weights, tall: z.rows > 1.0, scattered: true },
    }
}

/// A single column of activations: CSR brings them one by one, N:M permutes, strips of blocks are vectors of rows.
fn single(machine: &Machine, s: &Shape, z: &Nonzeros, rate: f64, touches: Touches) -> Demand {
    let (p, lanes, e) = (&machine.p, machine.lanes(), s.element);
    let values = z.units * z.rows * z.cols;
    let down = (s.n / z.rows).ceil();
    let strips = strips(z.rows.min(s.n), machine.vectors().strip(1));
    // A block of one column is a step of its strip's loop and loads its index, of several it is a loop of its own; a row
    // alone takes a wide one's columns eight at a time.
    let (mut heights, mut block) = (0.0, 0.0);
    for (count, height) in strips {
        let steps = if height == 1.0 && z.cols >= 8.0 { (z.cols / 8.0).floor() + z.cols % 8.0 } else { z.cols };
        let each = if z.cols > 1.0 { steps * p.strip_column + p.strip_block } else { p.strip_column * (1.0 + INDEX) };
        heights += count;
        block += count * each;
    }
    let products = values / (rate * p.memory_operand);
    let (find, ends) = match z.index {
        Index::Csr => (products + values * p.gather, s.n * p.row_end),
        Index::Nm(effort) => (products + values / lanes * p.permute * effort, s.n * p.row_end),
        Index::Block => (z.units * block, down * (p.row_start + heights * p.row_end)),
    };
    Demand {
        overlap: find + ends,
        l1: s.weights.0 + s.weights.1 + values * e + s.outputs,
        serial: p.call,
        issued: values,
        touches,
        first: First { scattered: true, ..First::default() },
    }
}
