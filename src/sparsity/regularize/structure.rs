//! Which weights of a layered network live and die together.
//!
//! Parameters lie in one flat slice, layer after layer: weights `[out, in, kernel]` row-major, then the biases.

use super::Group;
use std::ops::Range;

/// Where one layer's parameters lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// First weight.
    pub weight: usize,
    /// First bias, where there are biases.
    pub bias: Option<usize>,
    /// Output units (filters).
    pub outputs: usize,
    /// Inputs of a row: input channels, or features.
    pub inputs: usize,
    /// Taps of a kernel, 1 for a linear layer.
    pub kernel: usize,
    /// Inputs that one unit of the layer before stands for: 1, or the pixels of a channel after flattening.
    pub spread: usize,
}

impl Layer {
    /// Its weights.
    pub fn weights(&self) -> Range<usize> {
        self.weight..self.weight + self.outputs * self.inputs * self.kernel
    }

    /// Units of the layer before.
    pub fn units_before(&self) -> usize {
        self.inputs / self.spread
    }

    /// Weights of an output unit, without its bias.
    pub fn row(&self, unit: usize) -> Range<usize> {
        let length = self.inputs * self.kernel;
        self.weight + unit * length..self.weight + (unit + 1) * length
    }

    /// Weights that read a unit of the layer before.
    pub fn column(&self, unit: usize) -> Group {
        let length = self.inputs * self.kernel;
        let width = self.spread * self.kernel;
        (0..self.outputs)
            .flat_map(|o| {
                let start = self.weight + o * length + unit * width;
                start..start + width
            })
            .collect()
    }
}

/// Outgoing weights of every input and hidden unit, and every bias by itself (Scardapane et al. 2017, section 3): a unit
/// that nobody reads can go.
pub fn outgoing(layers: &[Layer]) -> Vec<Group> {
    let columns = layers.iter().flat_map(|l| (0..l.units_before()).map(|u| l.column(u)));
    let biases = layers.iter().flat_map(|l| l.bias.into_iter().flat_map(|b| (b..b + l.outputs).map(|i| vec![i])));
    columns.chain(biases).collect()
}

/// Incoming weights of every unit but the answers' (biases are free): a unit that reads nothing is a constant, which
/// folds into the biases of its readers.
pub fn incoming(layers: &[Layer]) -> Vec<Group> {
    hidden(layers).flat_map(|l| (0..l.outputs).map(|u| l.row(u).collect())).collect()
}

/// Incoming weights, bias and outgoing weights of every hidden unit as one group: all of a unit goes.
pub fn joint(layers: &[Layer]) -> Vec<Group> {
    hidden(layers)
        .zip(layers.iter().skip(1))
        .flat_map(|(l, next)| {
            (0..l.outputs).map(|u| {
                let bias = l.bias.map(|b| b + u);
                l.row(u).chain(bias).chain(next.column(u)).collect()
            })
        })
        .collect()
}

/// SSL's filters (Wen et al., NIPS 2016, eq. 3): the weights of an output channel, in every layer but the last.
pub fn filters(layers: &[Layer]) -> Vec<Group> {
    incoming(layers)
}

/// SSL's channels (eq. 3): the weights that read an input channel, in every layer but the first.
pub fn channels(layers: &[Layer]) -> Vec<Group> {
    layers.iter().skip(1).flat_map(|l| (0..l.units_before()).map(|u| l.column(u))).collect()
}

/// SSL's filter shapes (eq. 4): one input tap over all filters of a convolution, a column of the lowered matrix.
pub fn shapes(layers: &[Layer]) -> Vec<Group> {
    layers
        .iter()
        .filter(|l| l.kernel > 1)
        .flat_map(|l| {
            let length = l.inputs * l.kernel;
            (0..length).map(move |tap| (0..l.outputs).map(|o| l.weight + o * length + tap).collect())
        })
        .collect()
}

/// SSL's depth (eq. 5): all weights of a layer. Only layers that a shortcut bypasses may go, which the caller selects.
pub fn depth(layers: &[Layer]) -> Vec<Group> {
    layers.iter().map(|l| l.weights().collect()).collect()
}

fn hidden(layers: &[Layer]) -> impl Iterator<Item = &Layer> {
    layers[..layers.len().saturating_sub(1)].iter()
}
