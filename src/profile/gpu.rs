//! Facts of a GPU: multiprocessors, tensor cores, L2 and shared memory.

use super::Refusal;
use crate::dtype::DType;
use crate::pattern::SparsityPattern;
use crate::units::{Bytes, BytesPerCycle, MacsPerCycle, Seconds, Watts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its architecture; what the model's fitted constants are shared by. Unknown where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<GpuArch>,
    /// Streaming multiprocessors (compute units on AMD, Xe cores on Intel).
    pub sms: u64,
    /// Time to launch one kernel, back to back.
    pub launch: Seconds,
    /// Board power limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tdp: Option<Watts>,
    /// Second-level cache, shared by all multiprocessors.
    pub l2: Level,
    /// Shared memory of one multiprocessor.
    pub shared_memory: Level,
    /// Multiply–accumulates per cycle and multiprocessor on the ordinary lanes, by dtype.
    pub simt: BTreeMap<DType, MacsPerCycle>,
    /// Matrix units, where it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor_core: Option<TensorCore>,
}

/// One memory level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Capacity.
    pub size: Bytes,
    /// Bandwidth: of the whole for L2, of one multiprocessor for shared memory.
    pub bandwidth: BytesPerCycle,
}

/// Tensor cores (matrix cores, XMX).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorCore {
    /// Dense multiply–accumulates per cycle and multiprocessor, by dtype.
    pub dense: BTreeMap<DType, MacsPerCycle>,
    /// Sparse modes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sparse: Vec<SparseCore>,
}

/// A sparse mode of the tensor cores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseCore {
    /// The pattern it takes, such as `2:4`.
    #[serde(with = "as_text")]
    pub pattern: SparsityPattern,
    /// The dtypes for which it exists.
    pub dtypes: Vec<DType>,
    /// Issue rate over dense; metadata and the dense operand are still paid.
    pub speedup: f64,
}

/// GPU architectures whose kernels and fitted constants differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are the vendors' own")]
pub enum GpuArch {
    MaxwellGm200,
    PascalGp100,
    PascalGp10x,
    VoltaGv100,
    TuringTu10x,
    AmpereGa100,
    AmpereGa10x,
    Ada,
    HopperGh100,
    BlackwellGb100,
    BlackwellGb20x,
    Gcn5,
    Cdna1,
    Cdna2,
    Cdna3,
    Xe2,
}

impl Gpu {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.sms == 0 {
            return Err(("sms".into(), "at least one multiprocessor is needed".into()));
        }
        if self.simt.is_empty() {
            return Err(("simt".into(), "give at least one rate, such as { fp32 = \"64 MAC/cy\" }".into()));
        }
        for (i, sparse) in self.tensor_core.iter().flat_map(|t| &t.sparse).enumerate() {
            if !(sparse.speedup.is_finite() && sparse.speedup >= 1.0) {
                let field = format!("tensor_core.sparse[{i}].speedup");
                return Err((field, format!("{} is not a speedup; give a number of at least 1", sparse.speedup)));
            }
        }
        Ok(())
    }
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use std::fmt::Display;
    use std::str::FromStr;

    pub fn serialize<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}
