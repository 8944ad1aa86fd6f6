//! Transformers from their configuration: one generator for what is read from `config.json` and from TOML.
//!
//! Layers carry the names of the published checkpoints (`model.layers.0.self_attn.q_proj`), so that a glob over a
//! checkpoint's tensors means the same layers here. Rotation, norms, residual sums, activations and gates are layers of
//! their own: they are what is left when the products get fast.

mod bert;
mod decoder;
mod gpt2;
mod net;
mod opt;
mod switch;
mod vit;

use super::graph::Graph;
use super::huggingface::Config;
use super::layer::Function;
use super::options::Options;
use crate::error::{Error, Result};
use net::Net;

/// The architectures that can be generated, by the library's `model_type`.
pub const MODEL_TYPES: [&str; 10] =
    ["bert", "gemma", "gpt2", "llama", "mistral", "mixtral", "opt", "qwen2", "switch_transformers", "vit"];

/// Tokens of a prompt where nobody says.
pub const DEFAULT_SEQ: u64 = 128;

/// Generates the network of a configuration.
///
/// # Errors
/// An unknown `model_type` (the supported are listed), an activation that is not known, sizes that contradict one
/// another or leave the position table, options that mean nothing to the architecture, and what [`Graph::build`] refuses.
pub fn build(name: &str, config: &Config, options: &Options) -> Result<Graph> {
    let family = config.model_type.as_deref().unwrap_or_default();
    let net = match family {
        "bert" => bert::net(name, config, &Tokens::of_prompt(name, "input_ids", options)?)?,
        "gpt2" => gpt2::net(name, config, &Tokens::of(name, "input_ids", options)?)?,
        "opt" => opt::net(name, config, &Tokens::of(name, "input_ids", options)?)?,
        "switch_transformers" => switch::net(name, config, &Tokens::of_prompt(name, "input_ids", options)?)?,
        "vit" => vit::net(name, config, options)?,
        "llama" | "mistral" | "qwen2" | "gemma" | "mixtral" => {
            let decoder = decoder::Decoder::read(name, family, config)?;
            decoder.net(&Tokens::of(name, "input_ids", options)?)
        }
        _ => {
            let supported = MODEL_TYPES.join(", ");
            let reason = format!("model_type `{family}` cannot be generated; supported: {supported}");
            return Err(refuse(name, reason));
        }
    };
    net.build(name)
}

/// Sizes of one pass.
struct Tokens {
    batch: u64,
    /// New tokens of each sequence.
    new: u64,
    /// Tokens whose keys and values are cached.
    past: u64,
}

impl Tokens {
    /// A prompt, or with a context the last tokens of it.
    fn of(name: &str, input: &str, options: &Options) -> Result<Self> {
        known_inputs(input, options)?;
        let dim = |dim: &str| options.dims.get(dim).copied();
        let shape = match options.inputs.get(input).map(Vec::as_slice) {
            None => None,
            Some(&[batch, seq]) => Some((batch, seq)),
            Some(other) => {
                return Err(Error::argument(
                    format!("input `{input}`"),
                    format!("it is [batch, tokens], not {other:?}"),
                ));
            }
        };
        let batch = shape.map(|s| s.0).or(options.batch).or(dim("batch")).unwrap_or(1);
        let asked = shape.map(|s| s.1).or(options.seq).or(dim("seq"));
        let new = asked.unwrap_or(if options.context.is_some() { 1 } else { DEFAULT_SEQ });
        if batch == 0 || new == 0 {
            return Err(refuse(name, "batch and sequence are at least 1"));
        }
        let Some(context) = options.context else { return Ok(Self { batch, new, past: 0 }) };
        let past = context.checked_sub(new).ok_or_else(|| {
            Error::argument(
                "context",
                format!("{new} new tokens do not fit in a context of {context}; it includes them"),
            )
        })?;
        Ok(Self { batch, new, past })
    }

    /// Sizes for an encoder, which has no cache to decode with.
    fn of_prompt(name: &str, input: &str, options: &Options) -> Result<Self> {
        no_context(name, options)?;
        Self::of(name, input, options)
    }

    /// The position table must reach the last token.
    fn within(&self, name: &str, positions: u64) -> Result<()> {
        match self.past.checked_add(self.new) {
            Some(last) if last <= positions => Ok(()),
            _ => {
                let asked = self.past.saturating_add(self.new);
                Err(refuse(name, format!("{asked} tokens are asked for, but its position table has {positions} rows")))
            }
        }
    }
}

fn refuse(name: &str, reason: impl Into<String>) -> Error {
    Error::Graph { graph: name.into(), layer: None, reason: reason.into() }
}

fn no_context(name: &str, options: &Options) -> Result<()> {
    match options.context {
        None => Ok(()),
        Some(_) => Err(Error::argument("context", format!("`{name}` does not decode; it has no key/value cache"))),
    }
}

fn known_inputs(input: &str, options: &Options) -> Result<()> {
    if let Some(name) = options.inputs.keys().find(|n| *n != input) {
        return Err(Error::unknown("input", name, [input]));
    }
    match options.dims.keys().find(|n| *n != "batch" && *n != "seq") {
        Some(name) => Err(Error::unknown("dimension", name, ["batch", "seq"])),
        None => Ok(()),
    }
}

/// An activation by the library's name (its `ACT2FN`), with the spelling for reports.
fn activation(name: &str, written: &str) -> Result<(Function, &'static str)> {
    match written {
        "gelu" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python" | "quick_gelu" => Ok((Function::Gelu, "gelu")),
        // The library writes this one out, operation by operation.
        "gelu_new" => Ok((Function::Gelu, "gelu_new")),
        "silu" | "swish" => Ok((Function::Silu, "silu")),
        "relu" | "relu6" | "leaky_relu" => Ok((Function::Relu, "relu")),
        "relu2" => Ok((Function::Other, "relu2")),
        "tanh" => Ok((Function::Tanh, "tanh")),
        "sigmoid" => Ok((Function::Sigmoid, "sigmoid")),
        _ => Err(refuse(
            name,
            format!("activation `{written}` is not known; gelu, silu, relu, relu2, tanh, sigmoid are"),
        )),
    }
}

/// Features of one head when the configuration leaves them to division.
fn head_dim(name: &str, hidden: u64, heads: u64) -> Result<u64> {
    match hidden.checked_rem(heads) {
        Some(0) => Ok(hidden / heads),
        _ => Err(refuse(name, format!("hidden size {hidden} does not divide into {heads} heads"))),
    }
}

/// Blocks, kept to a number that fits in memory.
fn blocks(name: &str, count: u64) -> Result<u64> {
    const MOST: u64 = 1 << 20;
    if count <= MOST { Ok(count) } else { Err(refuse(name, format!("{count} blocks are more than {MOST}"))) }
}
