//! From rows to figures: what is drawn of an estimate, of many, and of a search.

pub mod estimate;
pub mod totals;

pub use estimate::{layer_bars, network_graph, on_the_roof, too_many_boxes};
pub use totals::{Total, crossover, front};
