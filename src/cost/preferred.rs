//! Extents that a machine's compute units fill: what channel counts are best rounded to.

use crate::dtype::DType;
use crate::profile::{Device, Profile};

/// Bytes of one row of operands that tensor cores take at full rate (NVIDIA, *Matrix Multiplication Background*: extents
/// in multiples of 128 bytes on A100 and later, 16 bytes before; the wider is right for both).
const TENSOR_CORE_ROW: f64 = 128.0;

/// Threads of a warp, which compute neighbouring outputs.
const WARP: u64 = 32;

/// The multiple that output extents should have: 128 bytes of the dtype for tensor cores, a warp for plain lanes, one
/// vector register for a CPU, a whole side of an array (the larger, so that both roles of a channel fill it).
pub fn preferred_multiple(profile: &Profile, dtype: DType) -> u64 {
    match &profile.device {
        Device::Gpu(gpu) if gpu.tensor_core.as_ref().is_some_and(|t| t.dense.contains_key(&dtype)) => {
            (TENSOR_CORE_ROW / dtype.bytes()).max(1.0) as u64
        }
        Device::Gpu(_) => WARP,
        Device::Cpu(cpu) => match (cpu.vector, cpu.macs.get(&DType::Fp32)) {
            (Some(width), _) => (width.get() / dtype.bytes()).max(1.0) as u64,
            // Two ports of one vector each.
            (None, Some(rate)) => (rate.get() / 2.0 * 4.0 / dtype.bytes()).max(1.0) as u64,
            (None, None) => 1,
        },
        Device::Systolic(array) => array.rows.max(array.cols),
    }
}
