//! What a caller binds of a workload: batch, sequence, and the sizes that its source leaves open.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Sizes bound from outside. The default leaves everything as the source has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Replaces the first axis of every input.
    pub batch: Option<u64>,
    /// Tokens of a prompt, for networks with a token axis.
    pub seq: Option<u64>,
    /// Decode instead of prompt: one new token, attending to this many keys, itself included.
    pub context: Option<u64>,
    /// Whole shapes of inputs by name; they win over everything else.
    pub inputs: BTreeMap<String, Vec<u64>>,
    /// Values of symbolic dimensions by name.
    pub dims: BTreeMap<String, u64>,
}

impl Options {
    /// Refuses sizes of nothing: a network over no samples or no tokens has no latency.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the size.
    pub fn check(&self) -> Result<()> {
        let plain = [("batch", self.batch), ("seq", self.seq), ("context", self.context)];
        let empty = |shape: &[u64]| shape.contains(&0);
        let zero = plain
            .into_iter()
            .find(|(_, size)| *size == Some(0))
            .map(|(name, _)| name.to_owned())
            .or_else(|| self.inputs.iter().find(|(_, s)| empty(s)).map(|(name, _)| format!("input {name}")))
            .or_else(|| self.dims.iter().find(|(_, d)| **d == 0).map(|(name, _)| format!("dimension {name}")));
        zero.map_or(Ok(()), |name| Err(Error::argument(name, "a size of 0 leaves nothing to run; give 1 or more")))
    }
}
