//! Calibration data from a file to the layers that they speak of: inputs of the network, which is then run, or statistics
//! that are there already.
//!
//! Arrays of statistics are named `LAYER:WHAT` (or `PARAMETER:g` by the name of a weight):
//! `:x` inputs `[samples, k]` (im2col rows for a convolution) · `:norms` ‖x_j‖₂, `[k]` · `:h` Σ x·xᵀ, `[k, k]` ·
//! `:g` gradients in the weight's stored shape, with a leading axis of samples for the empirical Fisher · `:gamma` batch
//! norm scales, `[n]`. `scripts/calibration_statistics.py` writes them with onnxruntime.

use super::activations::Observed;
use super::npz::{self, Array};
use super::plan::view;
use crate::error::{Error, Result};
use crate::sparsity::saliency::Statistics;
use crate::workload::graph::Graph;
use crate::workload::layer::{Layer, Param};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What calibration data say of a network.
#[derive(Debug, Default)]
pub struct Calibration {
    /// By layer.
    pub statistics: HashMap<String, Statistics>,
    /// What the network made of the inputs, where the file holds such.
    pub observed: Option<Observed>,
}

/// What each array of statistics says.
const KINDS: [&str; 5] = ["x", "norms", "h", "g", "gamma"];

/// Reads an `.npz` file: statistics where every array is named as one, inputs of the network in `network` otherwise.
///
/// # Errors
/// What [`npz::read`] refuses; names that are no layer's, shapes that do not fit it; what [`Observed::of`] refuses.
pub fn read(path: &Path, graph: &Graph, network: &Path) -> Result<Calibration> {
    let arrays = npz::read(path)?;
    let kind = |name: &str| name.rsplit_once(':').map(|(_, kind)| kind.to_ascii_lowercase());
    if arrays.is_empty() {
        return Err(Error::Model { path: path.into(), reason: "holds no arrays".into() });
    }
    if arrays.keys().all(|name| kind(name).is_some_and(|k| KINDS.contains(&k.as_str()))) {
        return Ok(Calibration { statistics: of_arrays(arrays, path, graph)?, observed: None });
    }
    if network.extension().is_none_or(|e| !e.eq_ignore_ascii_case("onnx")) {
        let reason =
            "is not all arrays named LAYER:x, :norms, :h, :g or :gamma, and inputs can be run through an .onnx alone";
        return Err(Error::Model { path: path.into(), reason: reason.into() });
    }
    let mut observed = Observed::of(network, graph, arrays, path)?;
    Ok(Calibration { statistics: std::mem::take(&mut observed.statistics), observed: Some(observed) })
}

/// Statistics by layer name, from arrays; `path` is for messages.
///
/// # Errors
/// Names that are no layer's, shapes that do not fit it.
pub fn of_arrays(arrays: BTreeMap<String, Array>, path: &Path, graph: &Graph) -> Result<HashMap<String, Statistics>> {
    let bad = |reason: String| Error::Model { path: path.into(), reason };
    let mut found: HashMap<String, Statistics> = HashMap::new();
    for (name, array) in arrays {
        let (owner, what) = name
            .rsplit_once(':')
            .ok_or_else(|| bad(format!("array `{name}` is not named LAYER:x, :norms, :h, :g or :gamma")))?;
        let layer = graph
            .layers()
            .find(|l| l.name == owner && l.weight().is_some())
            .or_else(|| graph.layers().find(|l| l.weight().is_some_and(|w| w.name == owner)));
        let Some((layer, weight)) = layer.and_then(|l| Some((l, l.weight()?))) else {
            let known = graph.layers().filter(|l| l.weight().is_some()).map(|l| l.name.as_str());
            return Err(Error::unknown("layer with weights (in the calibration statistics)", owner, known));
        };
        let (n, k) = extents(layer, weight).ok_or_else(|| bad(format!("`{}` has no weight matrix", layer.name)))?;
        let expect = |shape: &[u64]| {
            let wrong = format!("array `{name}` is {:?} where `{}` needs {shape:?}", array.shape, layer.name);
            if array.shape == shape { Ok(()) } else { Err(bad(wrong)) }
        };
        let slot = found.entry(layer.name.clone()).or_default();
        match what.to_ascii_lowercase().as_str() {
            "x" => {
                let samples = array.values.len() as u64 / k.max(1);
                expect(&[samples, k])?;
                slot.inputs = Some(array.values);
            }
            "norms" => {
                expect(&[k])?;
                slot.norms = Some(array.values.iter().map(|&x| f64::from(x)).collect());
            }
            "h" => {
                expect(&[k, k])?;
                slot.products = Some(array.values.iter().map(|&x| f64::from(x)).collect());
            }
            "gamma" => {
                expect(&[n])?;
                slot.gamma = Some(array.values);
            }
            "g" => {
                let samples = array.values.len() as u64 / (n * k).max(1);
                if array.shape != weight.shape {
                    let rows: Vec<u64> = std::iter::once(samples).chain(weight.shape.iter().copied()).collect();
                    expect(&rows)?;
                }
                let rows = as_matrix(layer, weight, array.values, samples as usize);
                let rows = rows.ok_or_else(|| bad(format!("`{}` has no weight matrix", layer.name)))?;
                *slot = std::mem::take(slot).with_gradients(rows, samples as usize);
            }
            other => {
                return Err(bad(format!("array `{name}`: `{other}` is none of x, norms, h, g, gamma")));
            }
        }
    }
    Ok(found)
}

fn extents(layer: &Layer, weight: &Param) -> Option<(u64, u64)> {
    let v = view(layer, weight, &weight.shape)?;
    Some(((v.groups * v.n) as u64, v.k as u64))
}

/// Samples of a weight's shape as `[n, k]` matrices, outputs by inputs.
fn as_matrix(layer: &Layer, weight: &Param, values: Vec<f32>, samples: usize) -> Option<Vec<f32>> {
    let v = view(layer, weight, &weight.shape)?;
    if !v.transposed {
        return Some(values);
    }
    let size = v.groups * v.n * v.k;
    let mut rows = vec![0f32; samples * size];
    for (i, &x) in values.iter().enumerate() {
        let (sample, at) = (i / size, i % size);
        let (group, c, r) = (at / (v.n * v.k), at / v.n % v.k, at % v.n);
        rows[sample * size + (group * v.n + r) * v.k + c] = x;
    }
    Some(rows)
}
