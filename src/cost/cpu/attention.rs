//! Attention as two products and a softmax per head, blocked over queries so that scores stay in the caches
//! (FlashAttention's order, Dao et al., NeurIPS 2022, which CPU runtimes use as well).

use super::hierarchy::{Demand, First, Operand};
use super::machine::{Machine, Unit};
use super::traffic::Touches;
use crate::lower::Attention;

/// One core's demand for `queries` of one key/value head and the query heads that share it.
pub(super) fn head(machine: &Machine, a: &Attention, unit: Unit, heads: f64, queries: f64) -> Demand {
    let (p, lanes) = (&machine.p, machine.lanes());
    let e = a.dtype.bytes();
    let (d, seen) = (a.head_dim as f64, a.pairs() / a.queries as f64);
    // Query heads of one key/value head are rows of the same product.
    let rows = queries * heads;
    let pairs = rows * seen;
    let vector_share = if rows < 4.0 { p.memory_operand } else { p.microkernel };
    let vector = (machine.vector_rate(a.dtype) * vector_share, (seen / lanes).ceil() * lanes / seen.max(1.0));
    let tiles = (unit.rate * p.tile_kernel, (rows / 16.0).ceil() * 16.0 / rows);
    // The rate and the padding of the unit that is done first.
    let (rate, padded) = if unit.matrix && tiles.1 / tiles.0 < vector.1 / vector.0 { tiles } else { vector };
    let issued = 2.0 * pairs * d * padded;
    let groups = (a.batch * a.kv_heads) as f64;
    let kv = a.kv_bytes().get() / groups;
    // As many rows of queries at a time as leave L2 room for their scores against a block of keys.
    let l2 = machine.caches[1.min(machine.depth - 1)].capacity;
    let block = (l2 / 4.0 / (d * 8.0 + 256.0 * 4.0)).clamp(1.0, rows.max(1.0));
    let x = rows * d * e;
    let out = rows * d * a.dtype.output().bytes();
    let softmax = pairs / lanes * (p.exponential + 3.0);
    let mut touches = Touches::new(machine.caches());
    touches.direct(Operand::Weights, kv, (rows / block).ceil(), kv + 2.0 * block * d * 4.0);
    touches.direct(Operand::Inputs, x, 1.0, 0.0);
    touches.direct(Operand::Outputs, out, 1.0, 0.0);
    Demand {
        overlap: issued / rate + softmax,
        l1: issued * e.min(4.0) / machine.tile.1.min(rows) + pairs * 4.0 * 4.0 + x + out,
        serial: p.call + p.row_start * 2.0 * (rows / block).ceil(),
        issued,
        touches,
        first: First::default(),
    }
}
