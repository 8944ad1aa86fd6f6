//! The only schema: what a row of an estimate says, in JSON, CSV and tables alike.

use crate::cost::roofline::Peaks;
use crate::cost::{Bound, ConventionDetail, CostModel, LayerCost, OperandBytes, Options, Traffic};
use crate::dtype::DType;
use crate::profile::{Device, Profile};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

/// One step of the network (a layer and what was fused into it).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the leading layer.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Independent products; empty where the step is no matrix product.
    pub groups: Option<u64>,
    /// Rows of activations.
    pub m: Option<u64>,
    /// Output features.
    pub n: Option<u64>,
    /// The reduction.
    pub k: Option<u64>,
    /// The pattern asked for.
    pub pattern: String,
    /// The storage format read.
    pub format: String,
    /// The pattern that the machine makes use of.
    pub executed: String,
    /// The kernel or unit that runs.
    pub kernel: String,
    /// Predicted time in seconds.
    pub latency_s: f64,
    /// Cycles of arithmetic, without stalls and overhead.
    pub cycles: f64,
    /// `compute`, `overhead`, or the memory level that limits.
    pub bound: String,
    /// Bytes moved at each memory level.
    pub traffic: LevelBytes,
    /// Effectual MACs over what the peak could do in the time.
    pub utilization: f64,
    /// Time of the same step dense, over this time; empty where the dense network lacks the step.
    pub speedup: Option<f64>,
    /// Fallbacks, padding, what was fused.
    pub note: String,
    /// Lower end of the 90 % interval in seconds.
    pub latency_low_s: f64,
    /// Upper end.
    pub latency_high_s: f64,
    /// Time of the same step dense, in seconds.
    pub dense_latency_s: Option<f64>,
    /// Time in launch and dispatch, in seconds.
    pub overhead_s: f64,
    /// Multiply–accumulates of the dense step.
    pub macs_dense: f64,
    /// Those whose weight is nonzero.
    pub macs_effectual: f64,
    /// Those that the machine executes.
    pub macs_issued: f64,
    /// Bytes of stored weights (values).
    pub weight_bytes: f64,
    /// Bytes of metadata.
    pub metadata_bytes: f64,
    /// Energy in joules, where the profile knows it.
    pub energy_j: Option<f64>,
    /// Names of the steps whose results it reads.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// Counts in a published simulator's words, where the profile asks for its convention.
    #[serde(flatten)]
    pub convention: Option<ConventionRow>,
}

/// Bytes by memory level, in the order of the machine's levels (`dram` first).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LevelBytes(pub Vec<(String, f64)>);

impl Serialize for LevelBytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (level, bytes) in &self.0 {
            map.serialize_entry(level, bytes)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LevelBytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let object = serde_json::Map::deserialize(d)?;
        let bytes = |v: &serde_json::Value| v.as_f64().ok_or_else(|| serde::de::Error::custom("bytes are a number"));
        object.iter().map(|(level, v)| Ok((level.clone(), bytes(v)?))).collect::<Result<_, _>>().map(Self)
    }
}

impl LevelBytes {
    /// Names a model's levels.
    pub fn new(model: &dyn CostModel, traffic: &Traffic) -> Self {
        let named = model.levels().iter().zip(&traffic.levels);
        Self(named.map(|(name, b): (&String, &OperandBytes)| (name.clone(), b.total().get())).collect())
    }
}

/// Words of SCALE-Sim's reports.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConventionRow {
    /// SRAM reads in elements.
    pub sram_reads: Reads,
    /// SRAM writes in elements.
    pub sram_writes: Writes,
    /// DRAM reads in elements.
    pub dram_reads: Reads,
    /// Percent.
    pub mapping_efficiency: f64,
    /// Percent.
    pub compute_utilization: f64,
    /// Percent.
    pub overall_utilization: f64,
}

/// Elements read by operand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reads {
    /// Activations; SCALE-Sim's count of SRAM reads is a fraction where it multiplies by M/N.
    #[serde(serialize_with = "whole_if_whole")]
    pub inputs: f64,
    /// Weights.
    pub weights: u64,
}

fn whole_if_whole<S: Serializer>(count: &f64, s: S) -> Result<S::Ok, S::Error> {
    if count.fract() == 0.0 && *count < 9e15 { s.serialize_u64(*count as u64) } else { s.serialize_f64(*count) }
}

/// Elements written by operand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Writes {
    /// Results.
    pub outputs: u64,
}

impl From<&ConventionDetail> for ConventionRow {
    fn from(d: &ConventionDetail) -> Self {
        Self {
            sram_reads: Reads { inputs: d.sram_inputs, weights: d.sram_weights },
            sram_writes: Writes { outputs: d.sram_outputs },
            dram_reads: Reads { inputs: d.dram_inputs as f64, weights: d.dram_weights },
            mapping_efficiency: d.mapping_efficiency,
            compute_utilization: d.compute_utilization,
            overall_utilization: d.overall_utilization,
        }
    }
}

/// Totals of an estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Predicted latency in seconds.
    pub latency_s: f64,
    /// Lower end of the 90 % interval.
    pub latency_low_s: f64,
    /// Upper end.
    pub latency_high_s: f64,
    /// Cycles of arithmetic, without stalls and overhead.
    pub cycles: f64,
    /// Multiply–accumulates of the unpruned network (exact).
    pub macs_dense: u64,
    /// Multiply–accumulates whose weight is nonzero.
    pub macs_effectual: f64,
    /// Multiply–accumulates that the machine executes.
    pub macs_issued: f64,
    /// Main-memory bytes moved.
    pub dram_bytes: f64,
    /// Bytes of stored weights, metadata included.
    pub weight_bytes: f64,
    /// Energy in joules, where the profile knows it.
    pub energy_j: Option<f64>,
    /// Latency of the unpruned network in seconds.
    pub dense_latency_s: f64,
    /// Dense latency over latency.
    pub speedup: f64,
    /// Seconds of launch and dispatch within the latency.
    pub overhead_s: f64,
}

/// What a machine could do at its peak in the dtype of an estimate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// `cpu`, `gpu` or `systolic`.
    pub family: String,
    /// Dense multiply–accumulates per second of the cores in use.
    pub peak_macs_per_s: f64,
    /// Main-memory bandwidth in bytes per second.
    pub dram_bytes_per_s: f64,
}

impl Machine {
    /// The peaks of a profile in a dtype, with as many threads of a CPU as the options grant.
    pub fn of(profile: &Profile, dtype: DType, options: Options) -> Self {
        let in_use = match &profile.device {
            Device::Cpu(cpu) => options.threads.map_or(1.0, |t| t.min(cpu.cores) as f64 / cpu.cores as f64),
            Device::Gpu(_) | Device::Systolic(_) => 1.0,
        };
        Self {
            family: profile.device.family().into(),
            peak_macs_per_s: Peaks::of(profile).macs(dtype) * in_use,
            dram_bytes_per_s: profile.memory.bandwidth.get(),
        }
    }
}

/// The bound in words.
pub fn bound_name(model: &dyn CostModel, cost: &LayerCost) -> String {
    match cost.bound {
        Bound::Compute => "compute".into(),
        Bound::Overhead => "overhead".into(),
        Bound::Memory(level) => model.levels().get(level as usize).cloned().unwrap_or_else(|| "memory".into()),
    }
}
