//! From costs to answers: rows, tables, CSV, JSON, and the paragraph that says why.

pub mod compare;
pub mod estimate;
pub mod execution;
pub mod export;
pub mod figures;
pub mod grid;
pub mod html;
pub mod inputs;
pub mod inspect;
pub mod plot;
pub mod predictions;
pub mod prune;
pub mod published;
pub mod quality;
pub mod ratio;
pub mod row;
pub mod sections;
pub mod study;
pub mod sweep;
pub mod table;
pub mod validation;
pub mod weights;
pub mod why;

pub use estimate::{Estimate, Pruned, Request, Target, estimate, estimate_pruned};
pub use row::{Row, Totals};
