//! Arguments that say which weights stay, shared by the subcommands that read real weights.

use clap::ValueEnum;
use hwsim::error::{Error, Result};
use hwsim::lower::{Assignment, Choice, Masks};
use hwsim::prune::calibration;
use hwsim::prune::regions::Regions;
use hwsim::prune::saliency::{self, Selector, choose};
use hwsim::report::quality::{LayerQuality, QualityReport};
use hwsim::search::quality::Proxy;
use hwsim::sparsity::Criterion;
use hwsim::workload::Options;
use hwsim::workload::onnx::Model;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Pruning {
    /// Choose masks from the network's own weights by this criterion: magnitude (l1), l2, obd, wanda, sparsegpt, bn,
    /// taylor, random
    #[arg(long, value_name = "CRITERION")]
    saliency: Option<Criterion>,
    /// Statistics of calibration inputs: .npz with arrays LAYER:x, :norms, :h, :g or :gamma
    #[arg(long, value_name = "NPZ", requires = "saliency")]
    calibration_data: Option<PathBuf>,
    /// Whether weights compete within their layer or across the network
    #[arg(long, value_enum, default_value_t, requires = "saliency")]
    scope: Scope,
    /// Seed of the random criterion
    #[arg(long, default_value_t = 0, requires = "saliency")]
    seed: u64,
    /// Groups of weights that stay or go together: a TOML of slices of layers
    #[arg(long, value_name = "TOML", requires = "saliency", conflicts_with = "scope")]
    prune_groups: Option<PathBuf>,
    /// N:M along columns too, so that the transposed product has it
    #[arg(long, requires = "saliency")]
    transposable: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Each layer (or dependency group) by itself
    #[default]
    Layer,
    /// One budget for all layers of a pattern
    Global,
}

/// What was chosen.
pub struct Chosen {
    /// By layer.
    pub masks: Masks,
    /// What they leave.
    pub report: QualityReport,
}

impl Pruning {
    /// Whether weights are to be read.
    pub fn asked(&self) -> bool {
        self.saliency.is_some()
    }

    /// Masks of the network's weights with the proxies of what they leave; user-defined groups add their layers' patterns
    /// to the assignment.
    ///
    /// # Errors
    /// What reading and choosing refuse.
    pub fn choose(&self, model: &Model, assignment: &mut Assignment) -> Result<Chosen> {
        let criterion = self.saliency.unwrap_or_default();
        let global = self.scope == Scope::Global;
        if global && matches!(criterion, Criterion::SparseGpt) {
            let reason = "sparsegpt updates weights layer by layer and has no global scope; take --scope layer";
            return Err(Error::argument("--scope", reason));
        }
        let statistics = match &self.calibration_data {
            Some(path) => calibration::load(path, &model.graph)?,
            None => Default::default(),
        };
        let selector = Selector { criterion, global, transposable: self.transposable, seed: self.seed, statistics };
        let mut choices = choose(&model.graph, &model.weights, assignment, &selector)?;
        if let Some(path) = &self.prune_groups {
            let own = Regions::load(path)?.choose(&model.graph, &model.weights, &selector)?;
            for layer in &own {
                let rule = format!("{}={}", globset::escape(&layer.layer), layer.pattern);
                assignment.rules.push(rule.parse()?);
            }
            choices.layers.retain(|c| own.iter().all(|o| o.layer != c.layer));
            choices.layers.extend(own);
        }
        if let Some((layer, reason)) = choices.skipped.first() {
            let more = choices.skipped.len() - 1;
            let others = if more > 0 { format!(" (and {more} more layers)") } else { String::new() };
            eprintln!("warning: `{layer}`{others} is costed by what its pattern expects: {reason}");
        }
        let row = |c: &saliency::Chosen| LayerQuality {
            name: c.layer.clone(),
            pattern: c.pattern.to_string(),
            quality: c.quality,
        };
        let report = QualityReport::new(criterion.name(), global, choices.layers.iter().map(row).collect());
        let masks = choices.layers.into_iter().map(|c| (c.layer, c.masks)).collect();
        Ok(Chosen { masks, report })
    }
}

/// What the weights of a file lose under each pattern, for a search.
pub fn losses(
    path: &Path,
    options: &Options,
    patterns: &[Choice],
    criterion: Criterion,
    data: Option<&Path>,
    seed: u64,
) -> anyhow::Result<Proxy> {
    let model = hwsim::workload::resolve::with_weights(path, options)?;
    let statistics = match data {
        Some(data) => calibration::load(data, &model.graph)?,
        None => Default::default(),
    };
    let selector = Selector { criterion, seed, statistics, ..Selector::default() };
    let selector = selector.with_scales(&model.graph, &model.weights);
    let found = hwsim::prune::losses::losses(&model.graph, &model.weights, patterns, &selector)?;
    if let Some((layer, reason)) = found.skipped.first_key_value() {
        let others = match found.skipped.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more layers)"),
        };
        eprintln!("warning: `{layer}`{others} loses what normal weights would: {reason}");
    }
    Ok(Proxy::Weights(found.table))
}
