//! Facts of a GPU: multiprocessors, tensor cores, L2 and shared memory.

use super::Refusal;
use crate::dtype::DType;
use crate::pattern::SparsityPattern;
use crate::units::{Bytes, BytesPerCycle, MacsPerCycle, Seconds, Watts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its architecture; what the model's fitted constants are shared by. Unknown where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<GpuArch>,
    /// Streaming multiprocessors (compute units on AMD, Xe cores on Intel).
    pub sms: u64,
    /// Dies that programs see as devices of their own (MI250: two). The profile's figures are the package's; a kernel
    /// runs on one die.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dies: Option<u64>,
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Capacity.
    pub size: Bytes,
    /// Bandwidth: of the whole for L2, of one multiprocessor for shared memory.
    pub bandwidth: BytesPerCycle,
}

/// Tensor cores (matrix cores, XMX).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TensorCore {
    /// Dense multiply–accumulates per cycle and multiprocessor, by dtype.
    pub dense: BTreeMap<DType, MacsPerCycle>,
    /// Sparse modes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sparse: Vec<SparseCore>,
}

/// A sparse mode of the tensor cores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SparseCore {
    /// The pattern it takes, such as `2:4`.
    #[serde(with = "as_text")]
    #[schemars(with = "String")]
    pub pattern: SparsityPattern,
    /// The dtypes for which it exists.
    pub dtypes: Vec<DType>,
    /// Issue rate over dense; metadata and the dense operand are still paid.
    pub speedup: f64,
}

/// GPU architectures whose kernels and fitted constants differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
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

/// Generations of architectures whose kernels are built alike, so that they lend each other fitted constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Generation {
    /// Ordinary lanes only.
    Lanes,
    /// First tensor cores, fed through registers.
    Register,
    /// Asynchronous copies into shared memory.
    AsyncCopy,
    /// Warpgroup products fed by a tensor memory accelerator.
    Warpgroup,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
}

impl GpuArch {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::MaxwellGm200,
        Self::PascalGp100,
        Self::PascalGp10x,
        Self::VoltaGv100,
        Self::TuringTu10x,
        Self::AmpereGa100,
        Self::AmpereGa10x,
        Self::Ada,
        Self::HopperGh100,
        Self::BlackwellGb100,
        Self::BlackwellGb20x,
        Self::Gcn5,
        Self::Cdna1,
        Self::Cdna2,
        Self::Cdna3,
        Self::Xe2,
    ];

    /// Its name in profiles and calibrations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxwellGm200 => "maxwell-gm200",
            Self::PascalGp100 => "pascal-gp100",
            Self::PascalGp10x => "pascal-gp10x",
            Self::VoltaGv100 => "volta-gv100",
            Self::TuringTu10x => "turing-tu10x",
            Self::AmpereGa100 => "ampere-ga100",
            Self::AmpereGa10x => "ampere-ga10x",
            Self::Ada => "ada",
            Self::HopperGh100 => "hopper-gh100",
            Self::BlackwellGb100 => "blackwell-gb100",
            Self::BlackwellGb20x => "blackwell-gb20x",
            Self::Gcn5 => "gcn5",
            Self::Cdna1 => "cdna1",
            Self::Cdna2 => "cdna2",
            Self::Cdna3 => "cdna3",
            Self::Xe2 => "xe2",
        }
    }

    /// The architecture whose fitted constants it shares: CDNA2's multiprocessor is CDNA1's.
    pub const fn kin(self) -> Self {
        match self {
            Self::Cdna1 => Self::Cdna2,
            other => other,
        }
    }

    /// Its generation.
    pub const fn generation(self) -> Generation {
        match self {
            Self::MaxwellGm200 | Self::PascalGp100 | Self::PascalGp10x => Generation::Lanes,
            Self::VoltaGv100 | Self::TuringTu10x => Generation::Register,
            Self::AmpereGa100 | Self::AmpereGa10x | Self::Ada | Self::BlackwellGb20x => Generation::AsyncCopy,
            Self::HopperGh100 | Self::BlackwellGb100 => Generation::Warpgroup,
            Self::Gcn5 | Self::Cdna1 | Self::Cdna2 | Self::Cdna3 => Generation::Amd,
            Self::Xe2 => Generation::Intel,
        }
    }

    /// Process node in nm (TSMC 28, 16, 12, 7 and 5/4N; Samsung 8; GlobalFoundries 14): the vendors' whitepapers.
    pub const fn nanometres(self) -> f64 {
        match self {
            Self::MaxwellGm200 => 28.0,
            Self::PascalGp100 | Self::PascalGp10x => 16.0,
            Self::Gcn5 => 14.0,
            Self::VoltaGv100 | Self::TuringTu10x => 12.0,
            Self::AmpereGa10x => 8.0,
            Self::AmpereGa100 | Self::Cdna1 => 7.0,
            Self::Cdna2 => 6.0,
            Self::Ada | Self::HopperGh100 | Self::BlackwellGb100 | Self::BlackwellGb20x | Self::Cdna3 | Self::Xe2 => {
                5.0
            }
        }
    }

    /// Board watts per multiprocessor and GHz of the architecture's usual boards, for a profile without `tdp`: P100
    /// 250 W/56/1.3, V100 300/80/1.53, A100 400/108/1.41, RTX 3090 350/82/1.7, L40S 350/142/2.52, H100 700/132/1.83,
    /// B200 1000/148/1.965, RTX 5080 360/84/2.62, MI210 300/104/1.7 and so on (the vendors' data sheets).
    pub const fn usual_watts(self) -> f64 {
        match self {
            Self::MaxwellGm200 => 9.6,
            Self::PascalGp100 => 3.4,
            Self::PascalGp10x => 5.3,
            Self::VoltaGv100 => 2.45,
            Self::TuringTu10x => 2.9,
            Self::AmpereGa100 => 2.6,
            Self::AmpereGa10x => 2.3,
            Self::Ada => 1.2,
            Self::HopperGh100 => 2.9,
            Self::BlackwellGb100 => 3.4,
            Self::BlackwellGb20x => 1.5,
            Self::Gcn5 => 3.1,
            Self::Cdna1 | Self::Cdna2 => 1.7,
            Self::Cdna3 => 1.2,
            Self::Xe2 => 4.2,
        }
    }
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
