//! What structure a network has: exact zeros, units that nobody needs, subnormal weights.

use super::autodiff::logits;
use super::data::Dataset;
use super::network::Network;
use crate::error::Result;
use crate::sparsity::regularize::structure::Layer;

/// Zeros of a network, counted.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Structure {
    /// Weights, without biases.
    pub weights: u64,
    /// Weights that are exactly zero.
    pub zeros: u64,
    /// Weights within 1e-3 of zero, zeros included.
    pub small: u64,
    /// Weights nearer to zero than the smallest normal number.
    pub subnormals: u64,
    /// Inputs whose outgoing weights are all zero.
    pub zero_inputs: u64,
    /// Hidden units of every layer whose outgoing or incoming weights are all zero.
    pub zero_units: Vec<u64>,
    /// Hidden units of every layer.
    pub units: Vec<u64>,
}

impl Structure {
    /// Counts.
    pub fn of(network: &Network) -> Self {
        let w = &network.parameters;
        let count = |f: &dyn Fn(f32) -> bool| network.weights().filter(|&w| f(w)).count() as u64;
        let hidden = network.layers.iter().zip(network.layers.iter().skip(1));
        let dead = |(l, next): (&Layer, &Layer)| {
            (0..l.outputs).filter(|&u| zero(w, l.row(u)) || zero(w, next.column(u))).count() as u64
        };
        let first = network.layers.first();
        let inputs = first.map_or(0, |l| (0..l.units_before()).filter(|&u| zero(w, l.column(u))).count() as u64);
        Self {
            weights: count(&|_| true),
            zeros: count(&|w| w == 0.0),
            small: count(&|w| w.abs() < 1e-3),
            subnormals: count(&|w| w.is_subnormal()),
            zero_inputs: inputs,
            units: hidden.clone().map(|(l, _)| l.outputs as u64).collect(),
            zero_units: hidden.map(dead).collect(),
        }
    }

    /// Share of hidden units that are dead.
    pub fn dead_share(&self) -> f64 {
        self.zero_units.iter().sum::<u64>() as f64 / (self.units.iter().sum::<u64>() as f64).max(1.0)
    }

    /// Share of weights that are exactly zero.
    pub fn zero_share(&self) -> f64 {
        self.zeros as f64 / (self.weights as f64).max(1.0)
    }
}

fn zero(weights: &[f32], places: impl IntoIterator<Item = usize>) -> bool {
    places.into_iter().all(|i| weights[i] == 0.0)
}

/// Share of examples whose class has the largest output (the first of equal ones).
///
/// # Errors
/// Examples that do not fit the network.
pub fn accuracy(network: &Network, data: &Dataset) -> Result<f64> {
    let outputs = logits(network, &network.select(&data.inputs))?;
    let right = outputs.chunks_exact(network.classes().max(1)).zip(&data.labels).filter(|(row, label)| {
        let best = row.iter().enumerate().fold(0, |b, (i, v)| if *v > row[b] { i } else { b });
        best == **label as usize
    });
    Ok(right.count() as f64 / (data.len() as f64).max(1.0))
}
