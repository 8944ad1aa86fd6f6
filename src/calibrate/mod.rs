//! From measurements to constants, and from constants to honest errors.
//!
//! Reading order: [`hierarchy`] (the fit), [`gpu`] (what is fitted on GPUs), [`predict`] (a row's prediction),
//! [`validate`] (errors and their groups), [`split`] (what is held out), [`fidelity`] (the report).

pub mod cpu;
pub mod fidelity;
pub mod gpu;
pub mod hierarchy;
mod network;
pub mod predict;
pub mod split;
pub mod validate;
