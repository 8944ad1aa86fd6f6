//! Facts of a CPU: cores, arithmetic rates, cache hierarchy.

use super::Refusal;
use super::cpu_parameters::CpuCalibration;
use crate::dtype::DType;
use crate::units::{Bytes, BytesPerCycle, MacsPerCycle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A CPU (one socket).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Physical cores.
    pub cores: u64,
    /// Multiply–accumulates per cycle and core, operands in registers, by dtype.
    pub macs: BTreeMap<DType, MacsPerCycle>,
    /// Dense matrix units (AMX, SME) by dtype, per core; they exist beside the vector units.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub matrix: BTreeMap<DType, MacsPerCycle>,
    /// Vector register width. Left out: half the fp32 multiply–accumulates a cycle (two ports).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Bytes>,
    /// Caches, innermost first.
    pub cache: Vec<CacheLevel>,
    /// What `hwsim bench` measured. Where it is there, bandwidths of caches and memory are what a stream sustains, not
    /// what the maker states, and the model takes them as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// A calibration of this machine that was found beside the profile; never a part of its file.
    #[serde(skip)]
    pub calibration: Option<std::sync::Arc<CpuCalibration>>,
}

/// Rates that only a measurement tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// fp32 multiply–accumulates per cycle and core with one operand in L1.
    pub memory_operand: MacsPerCycle,
    /// Bytes per cycle that one core alone reads from main memory.
    pub stream: BytesPerCycle,
    /// Bytes per cycle that all cores together read from the last shared cache, as a multiple of what one reads.
    pub scaling: f64,
    /// Bytes that the last cache keeps for this machine: less than its size where it is partitioned, or where others use it
    /// too. Left out: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Bytes>,
}

/// One level of cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheLevel {
    /// `L1`, `L2`, …
    pub level: String,
    /// Capacity: of one core's cache, or of the whole where it is shared.
    pub size: Bytes,
    /// Line length.
    pub line: Bytes,
    /// Associativity.
    pub ways: u64,
    /// Bandwidth towards the core, per core.
    pub bandwidth: BytesPerCycle,
    /// Whether the cores share it.
    #[serde(default)]
    pub shared: bool,
}

impl Cpu {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.cores == 0 {
            return Err(("cores".into(), "at least one core is needed".into()));
        }
        if self.macs.is_empty() {
            return Err(("macs".into(), "give at least one rate, such as { fp32 = \"32 MAC/cy\" }".into()));
        }
        if self.cache.is_empty() {
            return Err(("cache".into(), "give at least one level".into()));
        }
        for (i, level) in self.cache.iter().enumerate() {
            let field = |name: &str| format!("cache[{i}].{name}");
            let sets = level.size / level.line / level.ways.max(1) as f64;
            if level.ways == 0 {
                return Err((field("ways"), "associativity is at least 1".into()));
            }
            if sets < 1.0 {
                return Err((field("size"), format!("{} is less than one set of {} lines", level.size, level.ways)));
            }
        }
        Ok(())
    }
}
