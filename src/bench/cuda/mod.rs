//! Measures products on an NVIDIA GPU: dense (cuBLASLt), 2:4 (cuSPARSELt), compressed rows and blocked ELL (cuSPARSE).
//!
//! The libraries are loaded when they are asked for, so that hwsim builds and runs without them. Reading order:
//! [`problem`] (what is measured), [`measure`] (how, on any [`Gpu`]), then the NVIDIA side: `loaded` (libraries and
//! their declarations), `device` (memory, events, graphs, clocks), `kernels` (one call of each library).
//!
//! The declarations follow NVIDIA's public headers (CUDA 12, cuSPARSELt 0.5 and newer). **The NVIDIA side has not yet
//! run on hardware**; the loop around it is tested with a simulated device.

mod device;
mod kernels;
mod loaded;
pub mod measure;
pub mod problem;

use super::Sample;
use crate::error::Result;
pub use measure::{Gpu, Identity, Prepared, Progress};
pub use problem::Problem;

/// Measures problems on the first NVIDIA GPU, warm and cold.
///
/// # Errors
/// No driver, no device, or a required library is not installed; the message is one sentence that names it. A single
/// problem that a library refuses is reported through `progress` and left out.
pub fn bench(problems: &[Problem], progress: &mut dyn FnMut(&Progress)) -> Result<Vec<Sample>> {
    let mut gpu = device::Nvidia::open()?;
    measure::all(&mut gpu, problems, progress)
}
