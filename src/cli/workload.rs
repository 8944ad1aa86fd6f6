//! The network that a command speaks of: its name or path, and what binds its free sizes.

use super::resolve;
use hwsim::error::{Error, Result};
use hwsim::workload::onnx::Model;
use hwsim::workload::{Graph, Options};
use std::path::Path;

/// Used where nobody names a network.
const DEFAULT: &str = "resnet50";

#[derive(clap::Args)]
pub struct Source {
    /// Network: .onnx, config.json, .toml, or a name (`hwsim workloads` lists them) [default: resnet50]
    #[arg(long, short)]
    workload: Option<String>,
    #[command(flatten)]
    sizes: Sizes,
}

/// What binds the free sizes of a network.
#[derive(clap::Args)]
pub struct Sizes {
    /// Batch size
    #[arg(long)]
    batch: Option<u64>,
    #[command(flatten)]
    shapes: Shapes,
}

/// What binds the free sizes of a network besides its batch.
#[derive(clap::Args)]
pub struct Shapes {
    /// Tokens of a sequence
    #[arg(long)]
    seq: Option<u64>,
    /// Decode: one new token that attends to this many keys, itself included
    #[arg(long, value_name = "CONTEXT", conflicts_with = "seq")]
    decode: Option<u64>,
    /// Shape of an input, NAME=1x3x224x224
    #[arg(long, value_name = "NAME=SHAPE")]
    input: Vec<String>,
    /// Value of a symbolic dimension, NAME=8
    #[arg(long, value_name = "NAME=SIZE")]
    dim: Vec<String>,
}

impl Source {
    /// Whether a network was named.
    pub fn is_given(&self) -> bool {
        self.workload.is_some()
    }

    /// The network with its weights, from a file that has some; the file, and what binds its sizes.
    pub fn with_weights(&self) -> Result<(Model, &Path, Options)> {
        let Some(path) = self.workload.as_deref().map(Path::new) else {
            let reason = "masks of real weights need a network that has some: an .onnx or .safetensors file";
            return Err(Error::argument("--workload", reason));
        };
        let options = self.sizes.options()?;
        Ok((hwsim::workload::resolve::with_weights(path, &options)?, path, options))
    }

    /// The network, shapes inferred.
    pub fn load(&self) -> Result<Graph> {
        let name = self.workload.as_deref().unwrap_or_else(|| {
            eprintln!("no --workload given: {DEFAULT}");
            DEFAULT
        });
        self.sizes.load(name)
    }
}

impl Sizes {
    /// What they bind.
    pub fn options(&self) -> Result<Options> {
        self.shapes.options(self.batch)
    }

    /// The network of a name with these sizes.
    pub fn load(&self, name: &str) -> Result<Graph> {
        hwsim::workload::resolve(name, &self.options()?)
    }
}

impl Shapes {
    /// What they bind, at a batch size.
    pub fn options(&self, batch: Option<u64>) -> Result<Options> {
        let options = Options {
            batch,
            seq: self.seq,
            context: self.decode,
            inputs: self.input.iter().map(|t| resolve::shape(t)).collect::<Result<_>>()?,
            dims: self.dim.iter().map(|t| resolve::dimension(t)).collect::<Result<_>>()?,
        };
        options.check()?;
        Ok(options)
    }
}
