//! Arguments that say which weights stay, shared by the subcommands that read real weights.

use clap::ValueEnum;
use hwsim::error::{Error, Result};
use hwsim::lower::{Assignment, Choice, Masks};
use hwsim::prune::Request;
use hwsim::prune::activations::{Observed, OutputError};
use hwsim::prune::calibration::{self, Calibration};
use hwsim::prune::judge::Settled;
use hwsim::prune::onnx::Source;
use hwsim::prune::regions::Regions;
use hwsim::prune::saliency::{self, Selector, choose};
use hwsim::report::quality::{LayerQuality, QualityReport};
use hwsim::search::quality::Proxy;
use hwsim::sparsity::Criterion;
use hwsim::workload::onnx::Model;
use hwsim::workload::{Graph, Options};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Pruning {
    /// Choose masks from the network's own weights by this criterion: magnitude (l1), l2, obd, wanda, sparsegpt, bn,
    /// taylor, random
    #[arg(long, value_name = "CRITERION")]
    saliency: Option<Criterion>,
    /// Calibration inputs: .npz with arrays named like the network's inputs, which is run on them (samples along the first
    /// axis, or NAME/0, NAME/1, …); or statistics of such, arrays LAYER:x, :norms, :h, :g or :gamma
    #[arg(long, value_name = "NPZ", requires = "saliency")]
    pub calibration_data: Option<PathBuf>,
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
    pub fn choose(
        &self,
        model: &Model,
        network: (&Path, &Options),
        round_to: u64,
        assignment: &mut Assignment,
    ) -> anyhow::Result<Chosen> {
        let criterion = self.saliency.unwrap_or_default();
        let global = self.scope == Scope::Global;
        if global && matches!(criterion, Criterion::SparseGpt) {
            let reason = "sparsegpt updates weights layer by layer and has no global scope; take --scope layer";
            return Err(Error::argument("--scope", reason).into());
        }
        let Calibration { statistics, observed } =
            calibrate(self.calibration_data.as_deref(), &model.graph, network.0)?;
        warn_unseen(&observed, assignment);
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
        let mut report = QualityReport::new(criterion.name(), global, choices.layers.iter().map(row).collect());
        if let Some(observed) = &observed {
            let settled = Settled::new(&selector, &choices.layers);
            match answers(observed, network, assignment, &settled, round_to) {
                Ok(outputs) => report.outputs = outputs,
                Err(e) => eprintln!("warning: how far the network's answers move is not known: {e:#}"),
            }
        }
        let masks = choices.layers.into_iter().map(|c| (c.layer, c.masks)).collect();
        Ok(Chosen { masks, report })
    }
}

/// What a file of calibration data says; nothing where there is none.
pub fn calibrate(data: Option<&Path>, graph: &Graph, network: &Path) -> Result<Calibration> {
    data.map_or_else(|| Ok(Calibration::default()), |data| calibration::read(data, graph, network))
}

/// Says which of the layers that are to be masked could not be seen.
pub fn warn_unseen(observed: &Option<Observed>, assignment: &Assignment) {
    let masked = |layer: &str| {
        let pattern = assignment.choice(layer).pattern;
        !pattern.is_dense() && !pattern.shrinks_graph()
    };
    let unseen = observed.iter().flat_map(|o| &o.skipped).filter(|(layer, _)| masked(layer)).collect::<Vec<_>>();
    if let [(layer, reason), more @ ..] = &unseen[..] {
        let others = if more.is_empty() { String::new() } else { format!(" (and {} more layers)", more.len()) };
        eprintln!("warning: what `{layer}`{others} reads of the calibration inputs is not known: {reason}");
    }
}

/// How far the answers of the network that would be written lie from the dense one's.
fn answers(
    observed: &Observed,
    (path, options): (&Path, &Options),
    assignment: &Assignment,
    choose: &Settled,
    round_to: u64,
) -> anyhow::Result<Vec<OutputError>> {
    let source = Source::open(path, options)?;
    let request = Request {
        assignment,
        choose,
        zero_in_place: false,
        strict: false,
        zeros: source.zero_points(),
        round_to,
        global: false,
        permute: None,
    };
    let rewrite = source.plan(&request)?;
    let folder = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
    let pruned = folder.path().join("pruned.onnx");
    super::prune::write_model(&rewrite, &pruned, choose)?;
    Ok(observed.compare(&pruned)?)
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
    let statistics = calibrate(data, &model.graph, path)?.statistics;
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
