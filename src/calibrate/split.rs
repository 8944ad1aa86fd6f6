//! What is held out of a fit: devices, or shapes by a fixed hash.

use crate::bench::Sample;
use crate::error::{Error, Result};
use std::str::FromStr;

/// Rows kept out of the fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Split {
    /// A share of the shapes, whatever they ran on: `shape:0.3`.
    Shape(f64),
    /// Each device in turn.
    LeaveOneDeviceOut,
}

impl FromStr for Split {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let share = text.strip_prefix("shape:").and_then(|s| s.parse::<f64>().ok());
        match share {
            Some(s) if s > 0.0 && s < 1.0 => Ok(Self::Shape(s)),
            _ => {
                Err(Error::argument("--split", format!("`{text}` is not a split; write shape:0.3, a share in (0, 1)")))
            }
        }
    }
}

/// A row's place in [0, 1): the same for every row of the same shape, on any device, in any pattern (FNV-1a).
pub fn shape_place(sample: &Sample) -> f64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let heads = sample.attrs.get("heads").and_then(serde_json::Value::as_u64).unwrap_or(0);
    for value in [sample.batch, sample.m, sample.n, sample.k, heads] {
        for byte in value.to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    (hash >> 11) as f64 / (1u64 << 53) as f64
}
