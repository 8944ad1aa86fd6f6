//! Networks that are really smaller: what a pattern takes from the weights, and the files without it.
//!
//! [`plan`] decides what happens to which stored tensor ([`tensor`]), with [`choose`] for which weights and
//! [`units`] for which channels stay and [`permute`] for the order that they are in; [`losses`] is what a search asks;
//! [`onnx`] splices the edits into the file's own bytes ([`wire`]) and lets [`nodes`] adjust the constants and attributes
//! that name extents; [`safetensors`] writes checkpoints. Both stream through [`behind`]; [`largest`] is the short way of
//! magnitude N:M. What criteria know of a layer's inputs comes from [`calibration`] files; where these hold inputs,
//! [`runtime`] runs the network, [`activations`] sees what its layers read (`rows`), and [`judge`] says what a mask changes.

pub mod activations;
pub mod behind;
pub mod calibration;
pub mod choose;
pub mod judge;
pub mod largest;
pub mod losses;
pub mod nodes;
pub mod npz;
pub mod onnx;
pub mod permute;
pub mod plan;
pub mod regions;
mod rows;
pub mod runtime;
pub mod safetensors;
pub mod saliency;
pub mod tensor;
pub mod units;
pub mod wire;

pub use choose::{Choose, Magnitude};
pub use plan::{Plan, Request};
