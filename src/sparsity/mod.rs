//! What a pattern or a real mask leaves: statistics, storage formats, masks.

pub mod format;
pub mod groups;
pub mod mask;
pub mod quality;
pub mod regularize;
pub mod saliency;
pub mod select;
pub mod stats;
pub mod structure;

pub use format::{FormatName, StorageFormat, Stored};
pub use mask::Mask;
pub use quality::Quality;
pub use saliency::Criterion;
pub use stats::{Tile, TileClass, WeightStats};
