//! Simulators: slow, step by step, and the judge of the closed forms.
pub mod systolic;
