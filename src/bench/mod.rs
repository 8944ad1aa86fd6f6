//! Measurements: the sample file that `bench` writes and `validate` and `calibrate` read, and how rows come about.
//!
//! Reading order: [`samples`] (a row), [`clock`], [`micro`] (facts of the machine), [`probes`] (the loops behind them),
//! [`suite`] (what is measured), [`run`] (kernels against one another), `cuda` (NVIDIA GPUs).

pub mod clock;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod micro;
pub mod network;
mod probes;
pub mod run;
pub mod samples;
pub mod suite;

pub use samples::{Measured, Sample, SampleOp, Timing};
