//! Energy per operation and per byte, where a profile knows it.

use crate::dtype::DType;
use crate::units::{JoulesPerByte, JoulesPerMac, Watts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Energy table of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// Per executed multiply–accumulate, by dtype.
    pub mac: BTreeMap<DType, JoulesPerMac>,
    /// Per byte moved at each memory level, by the level's name in lower case (`dram`, `l2`, `sram`, …).
    pub byte: BTreeMap<String, JoulesPerByte>,
    /// Drawn all the time.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    pub idle: Option<Watts>,
}
