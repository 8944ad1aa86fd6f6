//! Systolic arrays.
pub mod combine;
pub mod fold;
pub mod sparse;
