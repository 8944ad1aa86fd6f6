//! Recurrent networks.

use super::Op;
use crate::workload::onnx::value::{Info, Result, extent, show};

/// Extents of a recurrent layer.
#[derive(Clone, Copy, Debug)]
pub struct Recurrent {
    /// Matrix rows for each hidden unit: 4 for LSTM, 3 for GRU, 1 for RNN.
    pub gates: u64,
    /// Steps.
    pub steps: u64,
    /// Batch.
    pub batch: u64,
    /// Hidden units.
    pub hidden: u64,
    /// 1, or 2 when bidirectional.
    pub directions: u64,
    /// Whether the batch comes before the steps.
    pub batch_first: bool,
}

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    let Some(r) = recurrent(op)? else { return Ok(None) };
    let elem = op.input(0)?.elem;
    let (all, last) = if r.batch_first {
        (vec![r.batch, r.steps, r.directions, r.hidden], vec![r.batch, r.directions, r.hidden])
    } else {
        (vec![r.steps, r.directions, r.batch, r.hidden], vec![r.directions, r.batch, r.hidden])
    };
    let mut outs = vec![Info::new(elem, all), Info::new(elem, last.clone())];
    if r.gates == 4 {
        outs.push(Info::new(elem, last));
    }
    Ok(Some(outs))
}

/// Extents of an LSTM, GRU or RNN node; `None` for other operators.
pub fn recurrent(op: &Op) -> Result<Option<Recurrent>> {
    let gates = match op.kind() {
        "LSTM" | "DynamicQuantizeLSTM" => 4,
        "GRU" => 3,
        "RNN" => 1,
        _ => return Ok(None),
    };
    let (x, w) = (op.input(0)?, op.input(1)?);
    let [a, b, input] = x.shape[..] else { return Err(format!("needs three axes, has {}", show(&x.shape))) };
    let [directions, w1, w2] = w.shape[..] else {
        return Err(format!("its weight {} needs three axes", show(&w.shape)));
    };
    // The quantized form stores its weights transposed.
    let (rows, columns) = if op.kind() == "LSTM" || gates != 4 { (w1, w2) } else { (w2, w1) };
    if columns != input {
        return Err(format!("its input {} does not fit its weight {}", show(&x.shape), show(&w.shape)));
    }
    let hidden = match op.int("hidden_size") {
        Some(h) => extent(h, "hidden_size")?,
        None => rows / gates,
    };
    if gates.checked_mul(hidden) != Some(rows) {
        return Err(format!("{rows} rows of its weight are not {gates} gates of {hidden} units"));
    }
    let batch_first = op.int_or("layout", 0) != 0;
    let (steps, batch) = if batch_first { (b, a) } else { (a, b) };
    Ok(Some(Recurrent { gates, steps, batch, hidden, directions, batch_first }))
}
