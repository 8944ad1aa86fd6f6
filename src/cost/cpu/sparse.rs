//! Sparse weights by dense activations in fp32: rows of CSR, N:M and V:N:M, blocks of BSR; blocks on matrix tiles.

use super::dense::Shape;
use super::hierarchy::{Demand, Operand};
use super::machine::Machine;
use super::traffic::{self, Stored, Touches};
use crate::lower::blocking::block_k;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Index {
    /// A column index a value.
    Csr,
    /// Bits of position within a group.
    Nm,
    /// An index a block.
    Block,
}

/// Vectors of columns in one pass of the register tile of a single row.
const PANEL: f64 = 8.0;

/// The kernel for many columns, its blocks of k as long as it packs them, and the one for a single column.
pub(super) fn product(machine: &Machine, s: &Shape, z: &Nonzeros, rate: f64) -> [Option<Demand>; 2] {
    let vectors = machine.vectors();
    let (m, n) = s.whole;
    let blocks = z.units / s.part.weights;
    let (rows, cols) = (z.rows.min(n).max(1.0), z.cols.min(s.k).max(1.0));
    let density = blocks / ((n / rows).ceil() * (s.k / cols).ceil());
    let kb = block_k(s.k as u64, rows as u64, cols as u64, density.min(1.0), m as u64, vectors) as f64;
    // Indices of 16 bits, and where a block row begins among them (4) and among the values (8); N:M has codes alone.
    let (index, start) = if z.index == Index::Nm { (s.weights.1 / z.units.max(1.0), 0.0) } else { (2.0, 12.0) };
    let stored = Stored { m, n, k: s.k, rows, cols, blocks, block_k: kb, index, start };
    let touches = traffic::blocks(&stored, &vectors, machine.caches[0].line)
        .divided(s.part)
        .at_least(Operand::Weights, s.weights.0)
        .at_least(Operand::Metadata, s.weights.1)
        .at_least(Operand::Inputs, s.inputs)
        .at_least(Operand::Outputs, s.outputs);
    if s.m <= 1.0 {
        return [None, Some(single(machine, s, z, rate, touches))];
    }
    [Some(columns(machine, s, z, rate, kb.min(s.k), touches)), None]
}

/// Vectors along the columns of activations, blocks of `kb` inputs.
fn columns(machine: &Machine, s: &Shape, z: &Nonzeros, rate: f64, kb: f64, touches: Touches) -> Demand {
    let (p, lanes, e) = (&machine.p, machine.lanes(), s.element);
    let vectors = (s.m / lanes).ceil();
    let panels = (vectors / PANEL).ceil();
    // A register tile of several rows holds fewer vectors of each.
    let tile_rows = z.rows.min(machine.tile.1);
    let tile_vectors = (machine.tile.0 * machine.tile.1 / tile_rows).floor().clamp(1.0, PANEL);
    let passes = (vectors / tile_vectors).ceil() * (z.rows / tile_rows).ceil();
    let issued = z.units * z.rows * z.cols * vectors * lanes;
    let decode = match z.index {
        Index::Csr => p.csr_decode * panels,
        Index::Nm => p.nm_decode * panels,
        // A block of several columns is a loop whose exit is mispredicted.
        Index::Block => (p.block_decode + if z.cols > 1.0 { p.row_start } else { 0.0 }) * passes,
    };
    // A row alone takes each activation as a memory operand; rows that share a column load it once.
    let share = if z.rows > 1.0 { p.microkernel } else { p.memory_operand };
    let blocks_k = (s.k / kb).ceil();
    let starts = (s.n / z.rows).ceil() * blocks_k * passes.max(panels);
    let vector_loads = issued / tile_rows * 4.0;
    let broadcasts = z.units * z.rows * z.cols * (vectors / tile_vectors).ceil() * machine.vector;
    let results = 2.0 * s.m * s.n * 4.0 * blocks_k;
    let packed = s.m * s.k * e;
    Demand {
        overlap: issued / (rate * share) + decode * z.units + starts * p.row_start,
        l1: vector_loads + results + if z.rows > 1.0 { broadcasts } else { 0.0 },
        serial: p.pack * packed + p.call,
        issued,
        touches,
    }
}

/// Vectors along k, one column of activations after another: CSR gathers, N:M permutes, blocks load.
fn single(machine: &Machine, s: &Shape, z: &Nonzeros, rate: f64, touches: Touches) -> Demand {
    let (p, lanes, e) = (&machine.p, machine.lanes(), s.element);
    let values = z.units * z.rows * z.cols;
    let along = if z.rows >= lanes || z.cols == 1.0 { z.rows } else { z.cols };
    let (issued, find) = match z.index {
        Index::Csr => ((values / lanes).ceil() * lanes, values * p.gather),
        Index::Nm => ((values / lanes).ceil() * lanes, values / lanes * p.permute),
        Index::Block => (values / along * (along / lanes).ceil() * lanes, z.units * p.block_decode),
    };
    let stored = s.weights.0 + s.weights.1;
    Demand {
        overlap: s.m * (issued / (rate * p.memory_operand) + find + (s.n / z.rows).ceil() * p.row_start / 2.0),
        l1: s.m * (stored + values * e) + s.outputs,
        serial: p.call,
        issued: issued * s.m,
        touches,
    }
}

/// Blocks on matrix tiles: whole tiles of weights, activations in tile order; no tile is shared by two block rows.
pub(super) fn tiles(machine: &Machine, s: &Shape, z: &Nonzeros, rate: f64) -> Demand {
    let (p, e) = (&machine.p, s.element);
    let columns = (s.m / 16.0).ceil() * 16.0;
    let issued = z.units * z.rows * z.cols * columns;
    // A block row of 16 has one tile row; of 32, two that share the activations.
    let (rows, wide) = (z.rows.min(32.0), columns.min(32.0));
    let loads = issued * e * (1.0 / rows + 1.0 / wide);
    let stored = s.weights.0 + s.weights.1;
    let packed = s.m * s.k * e;
    let touches = (issued * e / rows / packed).max(1.0);
    let passes = (columns / wide).ceil() * (z.rows / rows).ceil();
    let mut t = Touches::default();
    t.direct(Operand::Weights, s.weights.0, (columns / wide).ceil(), stored / (s.n / z.rows).max(1.0));
    t.direct(Operand::Metadata, s.weights.1, 1.0, 0.0);
    t.direct(Operand::Inputs, s.inputs, 1.0, 0.0);
    t.packed(Operand::Inputs, packed, packed, (touches, packed));
    t.direct(Operand::Outputs, s.outputs, 1.0, 0.0);
    Demand {
        overlap: issued / (rate * p.tile_kernel) + z.units * passes * p.block_decode,
        l1: loads + s.outputs,
        serial: p.pack * packed
            + p.interleave * s.m * (s.k + s.n)
            + p.row_start * (s.n / z.rows).ceil() * passes
            + p.call,
        issued,
        touches: t,
    }
}
