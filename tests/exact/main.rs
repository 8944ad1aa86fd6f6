//! What must come out exactly, by hand, by definition or by brute force.

#[path = "../common/executor.rs"]
mod executor;

mod bench;
mod conv;
mod eager;
mod gpu;
mod graphs;
mod groups;
mod huggingface;
mod kernels;
mod regularizers;
mod saliency;
mod search;
mod sparsity;
mod systolic;
mod systolic_simulator;
mod systolic_stalls;
mod zoo;
