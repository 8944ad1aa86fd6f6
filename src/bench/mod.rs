//! Measurements: the sample file that `bench` writes and `validate` and `calibrate` read.

pub mod samples;

pub use samples::{Sample, SampleOp, Timing};
