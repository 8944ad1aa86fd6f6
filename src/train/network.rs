//! Multilayer perceptrons and small convolutional networks, their parameters in one flat slice.

use crate::error::{Error, Result};
use crate::sparsity::regularize::noise::normal;
use crate::sparsity::regularize::structure::Layer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A step of a network. Every one but pooling and the last is followed by max(0, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A convolution of stride 1 without padding.
    Conv {
        /// Filters.
        filters: usize,
        /// Side of the kernel.
        side: usize,
    },
    /// The largest of each square, without overlap.
    Pool {
        /// Side of the square.
        side: usize,
    },
    /// All inputs to all outputs.
    Linear {
        /// Outputs.
        outputs: usize,
    },
}

/// A network with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Channels, height and width of an example; a vector has height and width 1.
    pub input: [usize; 3],
    /// Its steps.
    pub stages: Vec<Stage>,
    /// Where each layer's parameters lie, in the order of the stages that have some.
    pub layers: Vec<Layer>,
    /// Weights and biases, layer after layer.
    pub parameters: Vec<f32>,
    /// Which features of an example are read, where not all of them are.
    pub selected: Option<Selection>,
}

/// Features of an example that a network reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Features of an example.
    pub of: usize,
    /// Those that are read, in order.
    pub features: Vec<usize>,
}

impl Network {
    /// From text: extents joined by `-`. The first is the input, `64` or `1x8x8`; then `16c3` is a convolution with 16
    /// filters of 3×3, `p2` a maximum over 2×2, a number a linear layer. Weights are drawn as He et al. (ICCV 2015,
    /// eq. 10) propose, biases are zero.
    ///
    /// # Errors
    /// Text that is no network, a kernel larger than its image, a last layer that is not linear.
    pub fn parse(text: &str, seed: u64) -> Result<Self> {
        let bad = |reason: String| Error::argument("--network", format!("`{text}`: {reason}"));
        let count = |t: &str| {
            let n = t.parse::<usize>().ok().filter(|n| (1..=1 << 16).contains(n));
            n.ok_or_else(|| {
                bad(format!("`{t}` is no extent from 1 to 65536; write e.g. 64-128-64-10 or 1x8x8-16c3-p2-10"))
            })
        };
        let mut parts = text.split('-');
        let input: Vec<usize> = parts.next().unwrap_or_default().split('x').map(count).collect::<Result<_>>()?;
        let input = match input[..] {
            [n] => [n, 1, 1],
            [c, h, w] => [c, h, w],
            _ => return Err(bad("the input is FEATURES or CHANNELSxHEIGHTxWIDTH".into())),
        };
        let stage = |part: &str| -> Result<Stage> {
            Ok(match (part.strip_prefix('p'), part.split_once('c')) {
                (Some(side), _) => Stage::Pool { side: count(side)? },
                (None, Some((filters, side))) => Stage::Conv { filters: count(filters)?, side: count(side)? },
                (None, None) => Stage::Linear { outputs: count(part)? },
            })
        };
        let stages: Vec<Stage> = parts.map(stage).collect::<Result<_>>()?;
        let layers = layers(input, &stages).map_err(bad)?;
        let size = layers.last().and_then(|l| l.bias.map(|b| b + l.outputs)).unwrap_or(0);
        if size > 1 << 26 {
            return Err(bad(format!("{size} parameters are more than the 2^26 that train here")));
        }
        let mut parameters = vec![0f32; size];
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for layer in &layers {
            let deviation = (2.0 / (layer.inputs * layer.kernel) as f64).sqrt();
            parameters[layer.weights()].iter_mut().for_each(|w| *w = (deviation * normal(&mut rng)) as f32);
        }
        Ok(Self { input, stages, layers, parameters, selected: None })
    }

    /// Numbers of an example as the first layer reads it.
    pub fn features(&self) -> usize {
        self.input.iter().product()
    }

    /// Outputs of the last layer.
    pub fn classes(&self) -> usize {
        self.layers.last().map_or(0, |l| l.outputs)
    }

    /// Weights of all layers, without biases.
    pub fn weights(&self) -> impl Iterator<Item = f32> + '_ {
        self.layers.iter().flat_map(|l| self.parameters[l.weights()].iter().copied())
    }

    /// Multiply–accumulates of one example.
    pub fn macs(&self) -> u64 {
        let mut shape = self.input;
        let mut layers = self.layers.iter();
        let mut sum = 0u64;
        for stage in &self.stages {
            // Stages were checked when the network was made.
            shape = after(shape, *stage).unwrap_or(shape);
            if !matches!(stage, Stage::Pool { .. })
                && let Some(l) = layers.next()
            {
                let pixels = (shape[1] * shape[2]) as u64;
                sum = sum.saturating_add((l.outputs * l.inputs * l.kernel) as u64 * pixels);
            }
        }
        sum
    }

    /// As text that [`Network::parse`] reads.
    pub fn describe(&self) -> String {
        let [c, h, w] = self.input;
        let mut text = if (h, w) == (1, 1) { c.to_string() } else { format!("{c}x{h}x{w}") };
        for stage in &self.stages {
            text.push_str(&match stage {
                Stage::Conv { filters, side } => format!("-{filters}c{side}"),
                Stage::Pool { side } => format!("-p{side}"),
                Stage::Linear { outputs } => format!("-{outputs}"),
            });
        }
        text
    }

    /// Examples with only the features that are read.
    pub fn select(&self, inputs: &[f32]) -> Vec<f32> {
        match &self.selected {
            None => inputs.to_vec(),
            Some(s) => inputs.chunks_exact(s.of.max(1)).flat_map(|row| s.features.iter().map(|&i| row[i])).collect(),
        }
    }
}

/// Extents after a stage.
pub(super) fn after([c, h, w]: [usize; 3], stage: Stage) -> Result<[usize; 3], String> {
    match stage {
        Stage::Conv { filters, side } if side <= h && side <= w => Ok([filters, h - side + 1, w - side + 1]),
        Stage::Conv { side, .. } => Err(format!("a kernel of {side}x{side} does not fit into {h}x{w}")),
        Stage::Pool { side } if side <= h && side <= w => Ok([c, h / side, w / side]),
        Stage::Pool { side } => Err(format!("a square of {side}x{side} does not fit into {h}x{w}")),
        Stage::Linear { outputs } => Ok([outputs, 1, 1]),
    }
}

/// Where parameters lie.
pub(super) fn layers(input: [usize; 3], stages: &[Stage]) -> Result<Vec<Layer>, String> {
    if !matches!(stages.last(), Some(Stage::Linear { .. })) {
        return Err("the last layer is linear: its outputs are the classes".into());
    }
    let (mut shape, mut at, mut all) = (input, 0, Vec::new());
    for &stage in stages {
        let [c, h, w] = shape;
        let (outputs, inputs, kernel, spread) = match stage {
            Stage::Conv { filters, side } => (filters, c, side * side, 1),
            // Features of an input are units of their own.
            Stage::Linear { outputs } => (outputs, c * h * w, 1, if all.is_empty() { 1 } else { h * w }),
            Stage::Pool { .. } => {
                shape = after(shape, stage)?;
                continue;
            }
        };
        shape = after(shape, stage)?;
        let bias = at + outputs * inputs * kernel;
        all.push(Layer { weight: at, bias: Some(bias), outputs, inputs, kernel, spread });
        at = bias + outputs;
    }
    Ok(all)
}
