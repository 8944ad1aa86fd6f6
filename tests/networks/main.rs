//! Whole networks: pruned, measured, calibrated, trained.

#[cfg(feature = "train")]
#[path = "../common/executor.rs"]
mod executor;
#[path = "../common/onnx.rs"]
mod onnx;

#[cfg(feature = "cuda")]
mod bench_cuda;
#[cfg(feature = "runtime")]
mod calibration;
mod graphs;
mod groups_models;
mod prune;
mod saliency_models;
#[cfg(feature = "train")]
mod train;
