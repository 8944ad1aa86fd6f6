//! Removal of what a penalty zeroed, the outputs unchanged.
//!
//! A unit whose outgoing weights are zero is read by nobody; one whose incoming weights are zero is the constant
//! max(0, bias), which goes into the biases of its readers (no layer here pads with zeros, so every reader sees the
//! constant everywhere). Either removal may empty a row or a column elsewhere, so it goes on until nothing changes.
//! `hwsim prune` ranks units and removes a share; here the units are given, inputs among them, and constants fold, so the
//! rows and columns are picked directly; a test holds both against one another.

use super::network::{Network, Selection, Stage, layers};
use crate::error::{Error, Result};

/// The network without dead units, dead inputs of vectors included. Every layer keeps one unit at least.
///
/// # Errors
/// None for a network that [`Network::parse`] made.
pub fn compact(network: &Network) -> Result<Network> {
    let mut folded = network.clone();
    let kept = fold(&mut folded);
    let vector = network.input[1] * network.input[2] == 1;
    let mut input = network.input;
    let mut selected = network.selected.clone();
    if vector && kept.inputs.len() < network.input[0] {
        input[0] = kept.inputs.len();
        selected = Some(match selected {
            None => Selection { of: network.input[0], features: kept.inputs.clone() },
            Some(s) => Selection { of: s.of, features: kept.inputs.iter().map(|&i| s.features[i]).collect() },
        });
    }
    let mut left = kept.units.iter().map(Vec::len);
    let stages: Vec<Stage> = network
        .stages
        .iter()
        .map(|stage| match *stage {
            Stage::Pool { side } => Stage::Pool { side },
            Stage::Conv { filters, side } => Stage::Conv { filters: left.next().unwrap_or(filters), side },
            Stage::Linear { outputs } => Stage::Linear { outputs: left.next().unwrap_or(outputs) },
        })
        .collect();
    let small = layers(input, &stages).map_err(|reason| Error::argument("--compact", reason))?;
    let mut parameters = Vec::new();
    let first: Vec<usize> =
        if vector { kept.inputs } else { (0..network.layers.first().map_or(0, |l| l.units_before())).collect() };
    let mut columns = &first;
    for (l, rows) in network.layers.iter().zip(&kept.units) {
        let width = l.spread * l.kernel;
        for &r in rows {
            let row = &folded.parameters[l.row(r)];
            columns.iter().for_each(|&u| parameters.extend_from_slice(&row[u * width..(u + 1) * width]));
        }
        if let Some(b) = l.bias {
            parameters.extend(rows.iter().map(|&r| folded.parameters[b + r]));
        }
        columns = rows;
    }
    Ok(Network { input, stages, layers: small, parameters, selected })
}

/// What stays.
struct Kept {
    inputs: Vec<usize>,
    /// Of every layer, the last included.
    units: Vec<Vec<usize>>,
}

/// Folds constants into biases and zeroes all of every dead unit, until nothing changes.
fn fold(network: &mut Network) -> Kept {
    let Network { layers, parameters: w, .. } = network;
    let mut dead: Vec<Vec<bool>> = layers.iter().map(|l| vec![false; l.outputs]).collect();
    let mut changed = true;
    while changed {
        changed = false;
        for (at, pair) in layers.windows(2).enumerate() {
            let (l, next) = (pair[0], pair[1]);
            for u in 0..l.outputs {
                if dead[at][u] {
                    continue;
                }
                let column = next.column(u);
                let unread = column.iter().all(|&i| w[i] == 0.0);
                if !unread && !l.row(u).all(|i| w[i] == 0.0) {
                    continue;
                }
                let constant = l.bias.map_or(0.0, |b| f64::from(w[b + u]).max(0.0));
                if let (false, Some(bias)) = (unread, next.bias) {
                    let width = column.len() / next.outputs.max(1);
                    for (o, some) in column.chunks_exact(width.max(1)).enumerate() {
                        let sum: f64 = some.iter().map(|&i| f64::from(w[i])).sum();
                        w[bias + o] = (f64::from(w[bias + o]) + constant * sum) as f32;
                    }
                }
                l.row(u).chain(column).chain(l.bias.map(|b| b + u)).for_each(|i| w[i] = 0.0);
                dead[at][u] = true;
                changed = true;
            }
        }
    }
    let alive = |dead: &[bool]| {
        let kept: Vec<usize> = (0..dead.len()).filter(|&u| !dead[u]).collect();
        // An extent of zero is no layer: one dead unit, all zeros, stands for them.
        if kept.is_empty() { vec![0] } else { kept }
    };
    let unread: Vec<bool> = layers
        .first()
        .map_or(Vec::new(), |l| (0..l.units_before()).map(|u| l.column(u).into_iter().all(|i| w[i] == 0.0)).collect());
    Kept { inputs: alive(&unread), units: dead.iter().map(|d| alive(d)).collect() }
}
