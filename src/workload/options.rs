//! What a caller binds of a workload: batch, sequence, and the sizes that its source leaves open.

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
