//! What must hold for every input.

mod cost;
mod cpu;
mod cpu_traffic;
mod groups;
mod selection;
mod sparsity;
mod systolic;
mod systolic_expected;
mod workloads;
