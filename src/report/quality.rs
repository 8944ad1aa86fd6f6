//! What masks of real weights leave, beside the cost: training-free proxies, no accuracy.

use super::published::{self, Published};
use super::table::{PLAIN, percent};
use crate::prune::activations::OutputError;
use crate::sparsity::Quality;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The proxies of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QualityReport {
    /// What decided which weights stay.
    pub saliency: String,
    /// `layer` or `global`.
    pub scope: String,
    /// All masked layers together.
    pub network: Quality,
    /// Each of them, in the order of the network.
    pub layers: Vec<LayerQuality>,
    /// How far each answer of the pruned network lies from the dense one's, where calibration inputs were run.
    #[serde(default)]
    pub outputs: Vec<OutputError>,
    /// What others published for networks under the same patterns; nothing here is predicted from it.
    #[serde(default)]
    pub published: Vec<Published>,
}

/// The proxies of one layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerQuality {
    /// The layer.
    pub name: String,
    /// Its pattern.
    pub pattern: String,
    /// What its mask leaves.
    #[serde(flatten)]
    pub quality: Quality,
}

impl QualityReport {
    /// From each layer's name, pattern and proxies.
    pub fn new(saliency: &str, global: bool, layers: Vec<LayerQuality>) -> Self {
        let parts: Vec<Quality> = layers.iter().map(|l| l.quality).collect();
        let scope = if global { "global" } else { "layer" };
        let patterns: BTreeSet<&str> = layers.iter().map(|l| l.pattern.as_str()).collect();
        let published = patterns.into_iter().filter_map(|p| p.parse().ok()).flat_map(published::of).collect();
        let network = Quality::network(&parts);
        Self { saliency: saliency.into(), scope: scope.into(), network, layers, outputs: Vec::new(), published }
    }

    /// Published results, a line each, under a heading; empty where there are none.
    pub fn beside(&self) -> String {
        published::beside(&self.published)
    }

    /// One sentence for the foot of a table.
    pub fn sentence(&self) -> String {
        let q = &self.network;
        let mut text = format!(
            "By {} ({} scope), {} of the {} weights under masks stay with {} of their magnitude and {} of their energy",
            self.saliency,
            self.scope,
            percent(q.kept as f64 / q.weights.max(1) as f64),
            q.weights,
            percent(q.kept_l1),
            percent(q.kept_energy),
        );
        if let Some(e) = q.output_error {
            text += &format!("; outputs of single layers change by {} (root mean square over layers)", percent(e));
        }
        match &self.outputs[..] {
            [] => {}
            [one] => text += &format!("; `{}`, which the network answers, changes by {}", one.name, percent(one.error)),
            all => {
                let each: Vec<String> = all.iter().map(|o| format!("`{}` by {}", o.name, percent(o.error))).collect();
                text += &format!("; of what the network answers change {}", each.join(", "));
            }
        }
        text + ". These are proxies, not an accuracy."
    }

    /// One line a layer.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(PLAIN).set_header([
            "layer",
            "pattern",
            "kept",
            "L1",
            "energy",
            "OBD",
            "Wanda",
            "output error",
        ]);
        let some = |x: Option<f64>, show: fn(f64) -> String| x.map_or_else(String::new, show);
        for l in &self.layers {
            let q = &l.quality;
            table.add_row([
                l.name.clone(),
                l.pattern.clone(),
                percent(q.kept as f64 / q.weights.max(1) as f64),
                percent(q.kept_l1),
                percent(q.kept_energy),
                some(q.obd_increase, |x| format!("{x:.3e}")),
                some(q.kept_wanda, percent),
                some(q.output_error, percent),
            ]);
        }
        for c in 2..8 {
            if let Some(column) = table.column_mut(c) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt()
    }
}
