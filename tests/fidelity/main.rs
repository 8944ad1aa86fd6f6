//! How far predictions are from measurements and publications.

mod cpu;
mod gpu;
mod masks;
mod systolic;
