//! hwsim: for this network, which sparsity pattern, on which hardware, how fast, and why not faster.
//!
//! Reading order: [`pattern`] and [`workload`] say what is computed, [`profile`] on what, [`lower`] brings both to the
//! operations that machines see, [`cost`] predicts them, [`search`] chooses among them.
#![warn(missing_docs)]
// A module's page names its private rooms as a map for readers of the code.
#![allow(rustdoc::private_intra_doc_links)]

pub mod bench;
pub mod calibrate;
pub mod cost;
pub mod dtype;
pub mod embedded;
pub mod error;
pub mod kernels;
pub mod lower;
pub mod pattern;
pub mod profile;
pub mod prune;
pub mod report;
pub mod search;
pub mod simulate;
pub mod sparsity;
#[cfg(feature = "train")]
pub mod train;
pub mod units;
pub mod workload;
