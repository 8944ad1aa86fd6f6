//! The long form: one record for each (network, layer, device, pattern, dtype, batch). `docs/columns.md` has the units.

use super::estimate::Estimate;
use super::ratio::{ratio, step_ratio};
use super::row::Row;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// One record. The order of the fields is the order of the columns; later versions append.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The network.
    pub workload: String,
    /// Tokens of the prompt, where the sweep sets them.
    pub seq_tokens: Option<u64>,
    /// Keys that the decoded token attends to, where the sweep decodes.
    pub context_tokens: Option<u64>,
    /// Samples of a batch.
    pub batch: u64,
    /// The machine.
    pub device: String,
    /// Number format of the operands.
    pub dtype: String,
    /// The rules of the whole network, `dense` for none.
    pub pattern: String,
    /// The layer; empty for the whole network.
    pub layer: String,
    /// Its operator; `network` for the whole.
    pub op: String,
    /// Independent products.
    pub groups: Option<u64>,
    /// Rows of activations.
    pub m: Option<u64>,
    /// Output features.
    pub n: Option<u64>,
    /// The reduction.
    pub k: Option<u64>,
    /// The pattern asked of this layer.
    pub layer_pattern: String,
    /// The pattern that the machine makes use of.
    pub executed: String,
    /// The storage format read.
    pub format: String,
    /// The kernel or unit that runs.
    pub kernel: String,
    /// `compute`, `overhead` or a memory level.
    pub bound: String,
    /// Predicted time in seconds.
    pub latency_s: f64,
    /// Lower end of its 90 % interval.
    pub latency_low_s: f64,
    /// Upper end.
    pub latency_high_s: f64,
    /// Time of the same layer dense, in seconds.
    pub dense_latency_s: Option<f64>,
    /// Dense over predicted time.
    pub speedup: Option<f64>,
    /// Lower end of the speedup's 90 % interval.
    pub speedup_low: Option<f64>,
    /// Upper end.
    pub speedup_high: Option<f64>,
    /// Seconds of launch and dispatch within the latency.
    pub overhead_s: f64,
    /// Effectual MACs over what the peak could do in the time; empty for the whole network.
    pub utilization: Option<f64>,
    /// Cycles of arithmetic.
    pub cycles: f64,
    /// Multiply–accumulates of the dense layer.
    pub macs_dense: f64,
    /// Those whose weight is nonzero.
    pub macs_effectual: f64,
    /// Those that the machine executes.
    pub macs_issued: f64,
    /// Bytes moved to and from main memory.
    pub dram_bytes: f64,
    /// Bytes of stored weights without metadata; with it for the whole network.
    pub weight_bytes: f64,
    /// Bytes of metadata; empty for the whole network.
    pub metadata_bytes: Option<f64>,
    /// Joules, where the profile knows them.
    pub energy_j: Option<f64>,
    /// Fallbacks, padding, what was fused.
    pub note: String,
}

/// What a record has besides the estimate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens of the prompt.
    pub seq: Option<u64>,
    /// Keys of a decoded token.
    pub context: Option<u64>,
}

/// One record a layer.
pub fn layers(estimate: &Estimate, dense: &Estimate, pattern: &str, sizes: &Sizes) -> Vec<Record> {
    let whole = whole(estimate, dense, pattern, sizes);
    let before: HashMap<&str, &Row> = dense.layers.iter().map(|r| (r.name.as_str(), r)).collect();
    estimate
        .layers
        .iter()
        .map(|r| {
            let speedup = before.get(r.name.as_str()).map(|b| step_ratio(b, r));
            let dram = r.traffic.0.iter().find(|(level, _)| level == "dram").map_or(0.0, |(_, b)| *b);
            Record {
                layer: r.name.clone(),
                op: r.op.clone(),
                groups: r.groups,
                m: r.m,
                n: r.n,
                k: r.k,
                layer_pattern: r.pattern.clone(),
                executed: r.executed.clone(),
                format: r.format.clone(),
                kernel: r.kernel.clone(),
                bound: r.bound.clone(),
                latency_s: r.latency_s,
                latency_low_s: r.latency_low_s,
                latency_high_s: r.latency_high_s,
                dense_latency_s: r.dense_latency_s,
                speedup: speedup.map(|s| s.value),
                speedup_low: speedup.map(|s| s.low),
                speedup_high: speedup.map(|s| s.high),
                overhead_s: r.overhead_s,
                utilization: Some(r.utilization),
                cycles: r.cycles,
                macs_dense: r.macs_dense,
                macs_effectual: r.macs_effectual,
                macs_issued: r.macs_issued,
                dram_bytes: dram,
                weight_bytes: r.weight_bytes,
                metadata_bytes: Some(r.metadata_bytes),
                energy_j: r.energy_j,
                note: r.note.clone(),
                ..whole.clone()
            }
        })
        .collect()
}

/// One record for the whole network.
pub fn whole(estimate: &Estimate, dense: &Estimate, pattern: &str, sizes: &Sizes) -> Record {
    let t = &estimate.total;
    let speedup = ratio(dense, estimate);
    Record {
        workload: estimate.workload.clone(),
        seq_tokens: sizes.seq,
        context_tokens: sizes.context,
        batch: estimate.batch,
        device: estimate.profile.clone(),
        dtype: estimate.dtype.to_string(),
        pattern: pattern.to_owned(),
        layer: String::new(),
        op: "network".into(),
        groups: None,
        m: None,
        n: None,
        k: None,
        layer_pattern: String::new(),
        executed: String::new(),
        format: String::new(),
        kernel: String::new(),
        bound: String::new(),
        latency_s: t.latency_s,
        latency_low_s: t.latency_low_s,
        latency_high_s: t.latency_high_s,
        dense_latency_s: Some(t.dense_latency_s),
        speedup: Some(speedup.value),
        speedup_low: Some(speedup.low),
        speedup_high: Some(speedup.high),
        overhead_s: t.overhead_s,
        utilization: None,
        cycles: t.cycles,
        macs_dense: t.macs_dense as f64,
        macs_effectual: t.macs_effectual,
        macs_issued: t.macs_issued,
        dram_bytes: t.dram_bytes,
        weight_bytes: t.weight_bytes,
        metadata_bytes: None,
        energy_j: t.energy_j,
        note: String::new(),
    }
}

/// Reads records; columns that they do not have are ignored.
///
/// # Errors
/// [`Error::Parse`] with the line at fault.
pub fn read(text: &[u8], origin: &str) -> Result<Vec<Record>> {
    let refuse = |e: csv::Error| Error::Parse { origin: origin.to_owned(), message: e.to_string() };
    csv::Reader::from_reader(text).deserialize().collect::<Result<_, _>>().map_err(refuse)
}
