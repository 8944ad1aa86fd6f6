//! From costs to answers: rows, tables, CSV, JSON, and the paragraph that says why.

pub mod estimate;
pub mod export;
pub mod inspect;
pub mod plot;
pub mod row;
pub mod table;
pub mod validation;
pub mod why;

pub use estimate::{Estimate, Request, Target, estimate};
pub use row::{Row, Totals};
