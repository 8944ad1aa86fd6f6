//! Networks written as TOML: layers in order, blocks that recur, or the configuration of a transformer.
//!
//! ```toml
//! name  = "two blocks"
//! input = [1, 16, 8, 8]                  # the first axis is the batch; several inputs: input = { a = […], b = […] }
//! [[layer]]
//! name = "stem"
//! op.conv2d = { out = 16, kernel = 3, pad = 1 }
//! [[repeat]]                             # written once, used `times` times
//! name  = "block.{i}"                    # its layers are called block.0.conv, block.0.add, block.1.conv, …
//! times = 2
//! [[repeat.layer]]
//! name = "conv"                          # reads what stands above: the stem, then the block before
//! op.conv2d = { out = 16, kernel = 3, pad = 1 }
//! [[repeat.layer]]
//! name   = "add"
//! inputs = ["conv", "@input"]            # a name of the same copy wins; `@input` is what the copy reads
//! op.add = {}
//! ```
//! Instead of layers, a `[transformer]` table may hold the keys of a Hugging Face `config.json`.

mod fields;
mod ops;

use super::graph::{Graph, LayerSpec};
use super::huggingface::Strict;
use super::layer::{Op, Shape};
use super::options::Options;
use super::transformer;
use crate::error::{Error, Result};
use ::toml::Spanned;
use fields::{Extent, Inputs};
use ops::OpSpec;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, HashSet};

/// The input of a block, inside of it.
const BLOCK_INPUT: &str = "@input";

/// The index of a copy, in the names and inputs of a block.
const INDEX: &str = "{i}";

/// The dimension that the caller's sequence length binds.
const SEQ: &str = "seq";

/// Layers that one block may become; more is a slip of the keyboard, not a network.
const MOST_LAYERS: u64 = 1 << 24;

/// Bytes of a long file that are read as one document.
const PART: usize = 1 << 18;

/// A whole file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Network {
    name: String,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    input: Inputs,
    #[serde(default)]
    dims: BTreeMap<String, u64>,
    #[serde(default)]
    #[schemars(with = "Vec<LayerEntry>")]
    layer: Vec<Spanned<LayerEntry>>,
    #[serde(default)]
    #[schemars(with = "Vec<Repeat>")]
    repeat: Vec<Spanned<Repeat>>,
    transformer: Option<Strict>,
}

/// A stretch of a long file that begins at a `[[layer]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(default)]
    layer: Vec<Spanned<LayerEntry>>,
    #[serde(default)]
    repeat: Vec<Spanned<Repeat>>,
}

/// `[[layer]]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LayerEntry {
    name: String,
    inputs: Option<Vec<String>>,
    op: OpSpec,
}

/// `[[repeat]]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Repeat {
    name: Indexed,
    times: u64,
    #[serde(default)]
    from: u64,
    layer: Vec<LayerEntry>,
}

/// The name of a block's copies.
#[derive(JsonSchema)]
struct Indexed(#[schemars(regex(pattern = r"\{i\}"))] String);

impl<'de> Deserialize<'de> for Indexed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.contains(INDEX) {
            return Ok(Self(name));
        }
        let reason = format!("the copies of `{name}` would share their names; put {INDEX} where the index belongs");
        Err(serde::de::Error::custom(reason))
    }
}

/// The JSON Schema of a network's file, from which editors complete and check it.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Network).to_value()
}

/// What stands in the file at one place.
enum Item {
    Layer(LayerEntry),
    Repeat(Repeat),
}

/// Reads a network from text; `origin` names the file in messages.
///
/// # Errors
/// Text that is not TOML, unknown keys, missing fields (with line and caret); what [`Graph::build`] refuses.
pub fn parse(text: &str, origin: &str, options: &Options) -> Result<Graph> {
    let (network, parts) = match in_parts(text) {
        Some(read) => read,
        None => {
            let message = |e: ::toml::de::Error| Error::Parse { origin: origin.into(), message: e.to_string() };
            (::toml::from_str(text).map_err(message)?, Vec::new())
        }
    };
    if let Some(config) = network.transformer {
        if !(network.layer.is_empty() && network.repeat.is_empty() && network.input.0.is_empty()) {
            let message = "[transformer] generates every layer and input; remove the others".to_owned();
            return Err(Error::Parse { origin: origin.into(), message });
        }
        let mut graph = transformer::build(&network.name, &config.into(), options)?;
        graph.sources = network.sources;
        return Ok(graph);
    }
    if options.context.is_some() {
        let reason = format!("`{}` is no [transformer] that could decode; it keeps no key/value cache", network.name);
        return Err(Error::argument("context", reason));
    }
    let shapes = input_shapes(&network, options)?;
    let mut specs: Vec<LayerSpec> = Vec::with_capacity(shapes.len() + network.layer.len());
    for (name, shape) in shapes {
        let spelled = "input".to_owned();
        specs.push(LayerSpec { name, op: Op::Input, inputs: Vec::new(), shape: Some(shape), spelled });
    }
    let first = Part { layer: network.layer, repeat: network.repeat };
    for part in std::iter::once(first).chain(parts) {
        for item in part.items() {
            match item {
                Item::Layer(layer) => {
                    let inputs = wired(layer.inputs, &specs);
                    specs.push(spec(layer.name, inputs, layer.op));
                }
                Item::Repeat(repeat) => unroll(&network.name, repeat, &mut specs)?,
            }
        }
    }
    let mut graph = Graph::build(&network.name, specs)?;
    graph.sources = network.sources;
    if options.seq.is_some() && !network.dims.contains_key(SEQ) {
        graph.warnings.push(format!("`{}` has no dimension `{SEQ}`; the sequence length changes nothing", graph.name));
    }
    Ok(graph)
}

impl Part {
    /// The two lists of tables are one list in the file: a layer reads what stands above it there.
    fn items(self) -> Vec<Item> {
        let layers = self.layer.into_iter().map(|l| (l.span().start, Item::Layer(l.into_inner())));
        let repeats = self.repeat.into_iter().map(|r| (r.span().start, Item::Repeat(r.into_inner())));
        let mut items: Vec<(usize, Item)> = layers.chain(repeats).collect();
        items.sort_by_key(|&(place, _)| place);
        items.into_iter().map(|(_, item)| item).collect()
    }
}

/// Reads a long file in parts, because the syntax tree of one takes a hundred times its text. `None` where the file is
/// short or a part does not stand alone; then the whole is read at once, which also knows the place of every error.
fn in_parts(text: &str) -> Option<(Network, Vec<Part>)> {
    let parts = parts(text);
    let (first, rest) = parts.split_first()?;
    if rest.is_empty() {
        return None;
    }
    let network = ::toml::from_str(first).ok()?;
    let rest: Option<Vec<Part>> = rest.par_iter().map(|part| ::toml::from_str(part).ok()).collect();
    Some((network, rest?))
}

/// Cuts a text before a `[[layer]]` about every [`PART`] bytes.
fn parts(text: &str) -> Vec<&str> {
    // Only inside a multi-line string could such a line be anything else.
    let strings = ["\"\"\"", "'''"].iter().any(|quote| text.contains(quote));
    let mut parts = Vec::new();
    let mut rest = text;
    while !strings && rest.len() > PART {
        let from = (PART..rest.len()).find(|&i| rest.is_char_boundary(i)).unwrap_or(rest.len());
        let Some(line) = rest[from..].find("\n[[layer]]") else { break };
        let (part, later) = rest.split_at(from + line + 1);
        parts.push(part);
        rest = later;
    }
    parts.push(rest);
    parts
}

fn spec(name: String, inputs: Vec<String>, op: OpSpec) -> LayerSpec {
    let (op, spelled, shape) = op.into_op();
    let inputs = if matches!(op, Op::Parameter) { Vec::new() } else { inputs };
    LayerSpec { name, op, inputs, shape, spelled: spelled.to_owned() }
}

/// The inputs as written, or else the layer above.
fn wired(inputs: Option<Vec<String>>, above: &[LayerSpec]) -> Vec<String> {
    inputs.unwrap_or_else(|| above.last().map(|l| l.name.clone()).into_iter().collect())
}

/// Adds the copies of a block.
fn unroll(network: &str, repeat: Repeat, specs: &mut Vec<LayerSpec>) -> Result<()> {
    let total = repeat.times.checked_mul(repeat.layer.len() as u64).filter(|&n| n <= MOST_LAYERS);
    if total.is_none() {
        let reason = format!("{} copies are more than {MOST_LAYERS} layers", repeat.times);
        return Err(Error::layer(network, &repeat.name.0, reason));
    }
    let last = repeat.from.checked_add(repeat.times);
    let last = last.ok_or_else(|| Error::layer(network, &repeat.name.0, "the index of its copies overflows"))?;
    let local: HashSet<&str> = repeat.layer.iter().map(|l| l.name.as_str()).collect();
    for i in repeat.from..last {
        let index = i.to_string();
        let prefix = repeat.name.0.replace(INDEX, &index);
        let block_input = specs.last().map(|l| l.name.clone());
        let resolve = |input: &String| {
            let base = input.rsplit_once(':').map_or(input.as_str(), |(base, _)| base);
            match &block_input {
                Some(above) if input == BLOCK_INPUT => above.clone(),
                _ if local.contains(input.as_str()) || local.contains(base) => format!("{prefix}.{input}"),
                _ => input.replace(INDEX, &index),
            }
        };
        for layer in &repeat.layer {
            let inputs = layer.inputs.as_ref().map(|names| names.iter().map(resolve).collect());
            let inputs = wired(inputs, specs);
            specs.push(spec(format!("{prefix}.{}", layer.name), inputs, layer.op.clone()));
        }
    }
    Ok(())
}

/// Shapes of the inputs: the file's, with the caller's batch and dimensions, unless the caller gives a whole shape.
fn input_shapes(network: &Network, options: &Options) -> Result<Vec<(String, Shape)>> {
    let declared = &network.input.0;
    let names = || declared.iter().map(|(name, _)| name.as_str());
    if let Some(name) = options.inputs.keys().find(|n| !names().any(|known| known == n.as_str())) {
        return Err(Error::unknown("input", name, names()));
    }
    if let Some(name) = options.dims.keys().find(|n| !network.dims.contains_key(n.as_str())) {
        return Err(Error::unknown("dimension", name, network.dims.keys().map(String::as_str)));
    }
    let value = |dim: &str| -> Result<u64> {
        let bound = options.dims.get(dim).copied().or(if dim == SEQ { options.seq } else { None });
        let bound = bound.or_else(|| network.dims.get(dim).copied());
        bound.ok_or_else(|| Error::unknown("dimension", dim, network.dims.keys().map(String::as_str)))
    };
    let shape = |(name, extents): &(String, Vec<Extent>)| -> Result<(String, Shape)> {
        if let Some(shape) = options.inputs.get(name) {
            return Ok((name.clone(), shape.clone()));
        }
        let mut shape: Shape = extents
            .iter()
            .map(|e| match e {
                Extent::Fixed(n) => Ok(*n),
                Extent::Named(dim) => value(dim),
            })
            .collect::<Result<_>>()?;
        if let (Some(first), Some(batch)) = (shape.first_mut(), options.batch) {
            *first = batch;
        }
        Ok((name.clone(), shape))
    };
    declared.iter().map(shape).collect()
}
