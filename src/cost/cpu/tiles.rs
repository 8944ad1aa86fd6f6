//! Products on matrix tiles, dense or by stored blocks: the loops of `kernels::tiles`.

use super::dense::Shape;
use super::hierarchy::{Demand, First, Operand};
use super::machine::Machine;
use super::traffic::Touches;
use crate::lower::blocking::{TILE_PANEL, TILE_STEPS, tile_columns};

/// Blocks of weights that one core has: whole tiles. Dense weights are one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// How many.
    pub units: f64,
    /// Outputs and inputs of one.
    pub rows: f64,
    /// Inputs of one.
    pub cols: f64,
}

/// Rows, and lines of bytes, of a tile.
const TILE: f64 = 16.0;
const LINE: f64 = 64.0;

/// Strips of up to two tiles of rows by panels of up to two tiles of columns; activations of a group of columns and a block
/// of K are converted first.
pub(super) fn product(machine: &Machine, s: &Shape, z: &Blocks, rate: f64) -> Demand {
    let (p, e) = (&machine.p, s.element);
    let pad = |x: f64, unit: f64| (x / unit).ceil() * unit;
    // Tiles in a strip and a panel, on average where a block or the columns have an odd number.
    let evenly = |extent: f64| pad(extent, TILE) / (extent / TILE_PANEL as f64).ceil();
    let (tall, wide) = (evenly(z.rows.min(s.n)), evenly(s.m));
    let (columns, depth) = (pad(s.m, TILE), LINE / e);
    let issued = z.units * pad(z.rows.min(s.n), TILE) * pad(z.cols, depth) * columns;
    let steps = (s.k / depth).ceil();
    let blocks = (steps / TILE_STEPS as f64).ceil();
    let group = (tile_columns(steps as u64) as f64).min(s.m);
    let (groups, panels) = ((s.m / group).ceil(), (group / TILE_PANEL as f64).ceil());
    let strips = (s.n / tall).ceil();
    let converted = steps.min(TILE_STEPS as f64) * LINE * pad(group, TILE);
    let strip = s.weights.0 / (strips * blocks);
    let packed = columns * steps * LINE;
    let mut t = Touches::new(machine.caches());
    t.direct(Operand::Weights, s.weights.0, groups, s.weights.0 + converted);
    let again = s.weights.0 * groups * (panels - 1.0);
    t.after(Operand::Weights, again, strip * (1.0 + wide / tall), false);
    t.direct(Operand::Metadata, s.weights.1, 1.0, 0.0);
    // Bytes are scaled by the largest magnitude of their column, which is read first.
    let sweeps = if e < 2.0 { 2.0 } else { 1.0 };
    t.direct(Operand::Inputs, s.inputs, sweeps, s.inputs * group / s.m);
    let reads = (issued * e / tall / packed).max(1.0);
    t.packed(Operand::Inputs, packed, converted, (reads, converted + strip));
    t.direct(Operand::Outputs, s.outputs, 2.0 * blocks - 1.0, s.n * group * s.output + converted);
    // Threads convert whole panels.
    let threads = (1.0 / s.part.outputs).min(panels).max(1.0);
    Demand {
        overlap: issued / (rate * p.tile_kernel),
        l1: issued * e * (1.0 / tall + 1.0 / wide) + s.outputs * (2.0 * blocks - 1.0),
        serial: p.interleave * s.m * (s.k / threads + s.n * blocks)
            + p.row_start * strips * panels * groups * blocks
            + p.call,
        issued,
        touches: t,
        first: First { outputs: group * s.output, ..First::default() },
    }
}
