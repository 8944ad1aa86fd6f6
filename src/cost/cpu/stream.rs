//! Bytes in, bytes out: bandwidth of the level where the operands lie, against vector arithmetic.

use super::hierarchy::{Demand, First, Operand};
use super::machine::Machine;
use super::traffic::Touches;
use crate::lower::{Stream, StreamKind};

/// One core's `1/share` of a stream.
pub(super) fn demand(machine: &Machine, s: &Stream, share: f64) -> Demand {
    let (p, lanes) = (&machine.p, machine.lanes());
    let rows = (s.rows as f64 / share).max(1.0);
    let row = s.input.get() / (s.rows as f64).max(1.0);
    let elements = s.rows as f64 * s.cols as f64 / share;
    // Statistics of a row come before its elements are written, so a row is read again.
    let passes = match s.kind {
        StreamKind::Norm | StreamKind::Softmax => 2.0,
        StreamKind::Pointwise
        | StreamKind::Pool
        | StreamKind::Reduce
        | StreamKind::Move
        | StreamKind::Lookup
        | StreamKind::Unknown => 1.0,
    };
    let exponentials = if s.kind == StreamKind::Softmax { elements / lanes * p.exponential } else { 0.0 };
    // Data movement shuffles elements one by one at worst; a vector at a time is what compilers reach.
    let shuffles = if s.kind == StreamKind::Move { elements / lanes * 2.0 } else { 0.0 };
    // A table's row shorter than a line still costs the line.
    let line = machine.last().line;
    let looked_up = s.kind == StreamKind::Lookup && s.rows > 0;
    let parameters = s.parameters.get().max(if looked_up { s.rows as f64 * line } else { 0.0 });
    let parameters = if s.parameters.get() > 0.0 { parameters } else { 0.0 };
    let (input, output) = (s.input.get() / share, s.output.get() / share);
    let mut touches = Touches::new(machine.caches());
    touches.direct(Operand::Weights, parameters / share, 1.0, 0.0);
    touches.direct(Operand::Inputs, input, passes, row);
    touches.direct(Operand::Outputs, output, 1.0, 0.0);
    Demand {
        overlap: s.operations / share / (2.0 * lanes) + exponentials + shuffles + rows.min(elements),
        l1: passes * input + output + parameters / share,
        serial: p.call,
        issued: 0.0,
        touches,
        first: First::default(),
    }
}
