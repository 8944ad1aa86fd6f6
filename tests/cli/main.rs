//! The command line, run as a user runs it.

#[path = "../common/onnx.rs"]
mod onnx;

mod commands;
mod report;
mod saliency;
mod search;
mod simulate_cpu;
mod systolic;
