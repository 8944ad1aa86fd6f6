//! Predicted beside measured: a network's products as the kernels ran them.

use super::grid::Grid;
use serde::{Deserialize, Serialize};

/// One product.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The layer.
    pub layer: String,
    /// Independent products.
    pub groups: u64,
    /// Columns of activations.
    pub m: u64,
    /// Outputs.
    pub n: u64,
    /// Reduction.
    pub k: u64,
    /// What the weights follow.
    pub pattern: String,
    /// The kernel that ran, and how activations reached it.
    pub kernel: String,
    /// Predicted latency.
    pub predicted_us: f64,
    /// Ends of its 90 % interval.
    pub predicted_low_us: f64,
    /// See `predicted_low_us`.
    pub predicted_high_us: f64,
    /// Latency of the fastest pass.
    pub measured_us: f64,
}

/// A network's products, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Execution {
    /// The network.
    pub workload: String,
    /// The machine's name.
    pub profile: String,
    /// Threads of the kernels.
    pub threads: u64,
    /// Sum of the predictions.
    pub predicted_us: f64,
    /// Sum of the measurements.
    pub measured_us: f64,
    /// Weights nearer to zero than the smallest normal number.
    pub subnormal_weights: u64,
    /// Sum of the measurements with subnormal numbers taken for zero, where there are such weights.
    pub flushed_us: Option<f64>,
    /// The products.
    pub layers: Vec<Run>,
    /// Layers with arithmetic that no kernel ran, with the reason.
    pub left_out: Vec<(String, String)>,
}

impl Execution {
    /// Sums up what was measured.
    pub fn new(
        workload: String,
        profile: String,
        threads: u64,
        layers: Vec<Run>,
        left_out: Vec<(String, String)>,
    ) -> Self {
        let sum = |f: fn(&Run) -> f64| layers.iter().map(f).sum();
        let (predicted_us, measured_us) = (sum(|r| r.predicted_us), sum(|r| r.measured_us));
        Self { workload, profile, threads, predicted_us, measured_us, layers, left_out, ..Self::default() }
    }

    /// The products as a table, the sum last.
    pub fn grid(&self) -> Grid {
        let mut grid =
            Grid::new(&["layer", "#m", "#n", "#k", "pattern", "kernel", "#predicted us", "#measured us", "#ratio"]);
        let tail = |predicted: f64, measured: f64| {
            [format!("{predicted:.1}"), format!("{measured:.1}"), format!("{:.2}", predicted / measured)]
        };
        for r in &self.layers {
            let n = if r.groups > 1 { format!("{}x{}", r.groups, r.n) } else { r.n.to_string() };
            let head = [r.layer.clone(), r.m.to_string(), n, r.k.to_string(), r.pattern.clone(), r.kernel.clone()];
            grid.push(head.into_iter().chain(tail(r.predicted_us, r.measured_us)));
        }
        let head = ["total", "", "", "", "", ""].map(String::from);
        grid.push(head.into_iter().chain(tail(self.predicted_us, self.measured_us)));
        grid
    }

    /// How far the prediction is off, in words.
    pub fn sentence(&self) -> String {
        let mut errors: Vec<f64> =
            self.layers.iter().map(|r| 100.0 * (r.predicted_us / r.measured_us - 1.0).abs()).collect();
        errors.sort_by(f64::total_cmp);
        let median = errors.get(errors.len() / 2).copied().unwrap_or(0.0);
        let mut text = format!(
            "{} products on {} thread{}: predicted {:.2} ms, measured {:.2} ms ({:+.1} %); median error of a layer {median:.1} %.",
            self.layers.len(),
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            self.predicted_us / 1e3,
            self.measured_us / 1e3,
            100.0 * (self.predicted_us / self.measured_us - 1.0),
        );
        if self.subnormal_weights > 0 {
            text.push_str(&format!(" {} weights are subnormal", self.subnormal_weights));
            if let Some(flushed) = self.flushed_us {
                text.push_str(&format!("; with flush-to-zero the products take {:.2} ms", flushed / 1e3));
            }
            text.push('.');
        }
        if let Some((layer, reason)) = self.left_out.first() {
            let more = match self.left_out.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            text.push_str(&format!(" Not run: `{layer}`{more} ({reason})."));
        }
        text
    }
}
