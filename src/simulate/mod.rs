//! Simulators: slow, step by step, and the judges of the closed forms.

pub mod cpu;
pub mod systolic;
