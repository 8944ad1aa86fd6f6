//! Systolic arrays.
pub mod combine;
pub mod convention;
pub mod dram;
pub mod expected;
pub mod fold;
pub mod sparse;
pub mod stream;
