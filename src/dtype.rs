//! Number formats of operands.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A number format in which operands are multiplied. Stored width is [`DType::bits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE binary32.
    Fp32,
    /// NVIDIA TensorFloat-32: stored as binary32, multiplied with 10 mantissa bits.
    Tf32,
    /// IEEE binary16.
    Fp16,
    /// bfloat16.
    Bf16,
    /// 8-bit floats (E4M3, E5M2, and the MX forms of them).
    Fp8,
    /// 8-bit integers.
    Int8,
    /// 4-bit floats (E2M1).
    Fp4,
}

impl DType {
    /// All of them, widest first.
    pub const ALL: [Self; 7] = [Self::Fp32, Self::Tf32, Self::Fp16, Self::Bf16, Self::Fp8, Self::Int8, Self::Fp4];

    /// Bits of one stored element.
    pub const fn bits(self) -> u64 {
        match self {
            Self::Fp32 | Self::Tf32 => 32,
            Self::Fp16 | Self::Bf16 => 16,
            Self::Fp8 | Self::Int8 => 8,
            Self::Fp4 => 4,
        }
    }

    /// Bytes of one stored element (a half for 4-bit formats).
    pub const fn bytes(self) -> f64 {
        self.bits() as f64 / 8.0
    }

    /// The format in which results of a product in this format are usually stored: inference keeps activations of
    /// 8- and 4-bit networks in 16 bits.
    pub const fn output(self) -> Self {
        match self {
            Self::Fp32 | Self::Tf32 => Self::Fp32,
            Self::Fp16 => Self::Fp16,
            Self::Bf16 | Self::Fp8 | Self::Int8 | Self::Fp4 => Self::Bf16,
        }
    }

    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
            Self::Fp4 => "fp4",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let lower = text.to_lowercase();
        let canonical = match lower.as_str() {
            "f32" | "float32" | "float" | "single" => "fp32",
            "f16" | "float16" | "half" => "fp16",
            "bfloat16" => "bf16",
            "f8" | "e4m3" | "e5m2" | "mxfp8" | "fp8_e4m3" => "fp8",
            "i8" => "int8",
            "f4" | "e2m1" | "mxfp4" | "nvfp4" => "fp4",
            other => other,
        };
        Self::ALL
            .into_iter()
            .find(|d| d.name() == canonical)
            .ok_or_else(|| Error::unknown("dtype", text, Self::ALL.iter().map(|d| d.name())))
    }
}
