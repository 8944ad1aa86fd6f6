//! Measurements: the sample file that `bench` writes and `validate` and `calibrate` read, and how rows come about.
//!
//! Reading order: [`samples`] (a row), [`clock`], [`micro`] (facts of the machine), [`probes`] (the loops behind them).

pub mod clock;
pub mod micro;
mod probes;
pub mod samples;

pub use samples::{Sample, SampleOp, Timing};
