//! `hwsim prune`: the network without what its patterns take, as a file that other tools run.

use super::estimate::{RoundTo, round_to};
use super::output::{self, RowFormat};
use super::pruning::{Scope, calibrate, warn_unseen};
use anyhow::{bail, ensure};
use hwsim::cost::preferred::preferred_multiple;
use hwsim::error::Error;
use hwsim::lower::Assignment;
use hwsim::prune::activations::Observed;
use hwsim::prune::calibration::Calibration;
use hwsim::prune::judge::Judge;
use hwsim::prune::onnx::{Output, Rewrite, Source};
use hwsim::prune::safetensors::Checkpoint;
use hwsim::prune::saliency::Selector;
use hwsim::prune::tensor::Tally;
use hwsim::prune::{Choose, Magnitude, Plan, Request};
use hwsim::report::estimate::default_dtype;
use hwsim::report::export::write_whole;
use hwsim::report::prune::Pruning;
use hwsim::report::quality::{LayerQuality, QualityReport};
use hwsim::sparsity::{Criterion, Quality};
use hwsim::workload::layer::Layer;
use hwsim::workload::weights::Weights;
use hwsim::workload::{Graph, safetensors};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Network with weights: .onnx, .safetensors (or its index), or a folder with config.json and one of them
    #[arg(long, short)]
    workload: PathBuf,
    #[command(flatten)]
    sizes: super::workload::Sizes,
    /// Pattern, or GLOB=PATTERN; the last match wins. channel@s and head@s make the network smaller, the others write zeros
    #[arg(short, long = "sparsity", value_name = "[GLOB=]PATTERN", required = true)]
    sparsity: Vec<String>,
    /// What decides which weights stay: magnitude (l1), l2, obd, wanda, sparsegpt, bn, taylor, random
    #[arg(long, value_name = "CRITERION", default_value_t)]
    saliency: Criterion,
    /// Calibration inputs: .npz with arrays named like the network's inputs, which is run on them (samples along the first
    /// axis, or NAME/0, NAME/1, …); or statistics of such, arrays LAYER:x, :norms, :h, :g or :gamma
    #[arg(long, visible_alias = "calibration", value_name = "NPZ")]
    calibration_data: Option<PathBuf>,
    /// Seed of the random criterion and of the search for an order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Whether the channels (heads) of a pattern compete within their dependency group or across the network
    #[arg(long, value_enum, default_value_t)]
    scope: Scope,
    /// Channels and heads left in multiples of this; `auto` takes what the profile's dtype runs best
    #[arg(long, value_name = "N|auto", value_parser = round_to)]
    round_to: Option<RoundTo>,
    /// The machine that --round-to auto rounds for: path or name
    #[arg(long, short, requires = "round_to")]
    profile: Option<String>,
    /// Put channels into an order under which N:M keeps more, through every layer that makes or reads them; the dense
    /// network computes the same
    #[arg(long)]
    permute: bool,
    /// Write zeros where channels and heads would go, and keep every shape
    #[arg(long)]
    keep_shapes: bool,
    /// The pruned network: .onnx, or .safetensors for its weights alone
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How to print what went
    #[arg(long, value_enum, default_value_t)]
    format: RowFormat,
    /// Write what went to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// What decides for a network.
struct Decision {
    selector: Selector,
    /// What the network makes of calibration inputs.
    observed: Option<Observed>,
    /// Whether the inputs of layers are known, so that what masks change can be said.
    informed: bool,
}

impl Decision {
    fn of(args: &Args, assignment: &Assignment, graph: &Graph, weights: &Weights) -> Result<Self, Error> {
        let data = args.calibration_data.as_deref();
        let Calibration { statistics, observed } = calibrate(data, graph, &args.workload)?;
        warn_unseen(&observed, assignment);
        let selector = Selector { criterion: args.saliency, seed: args.seed, statistics, ..Selector::default() };
        Ok(Self { selector: selector.with_scales(graph, weights), observed, informed: data.is_some() })
    }

    fn choose<'a>(&'a self, judge: &'a Judge<'a>) -> &'a dyn Choose {
        match self.selector.criterion {
            _ if self.informed => judge,
            Criterion::Magnitude => &Magnitude,
            _ => &self.selector,
        }
    }

    /// What the masks changed, where it can be said.
    fn quality(&self, judge: &Judge, graph: &Graph, pruned: &Path) -> Result<Option<QualityReport>, Error> {
        if !self.informed {
            return Ok(None);
        }
        let mut found: HashMap<String, (String, Quality)> =
            judge.verdicts().into_iter().map(|(layer, pattern, quality)| (layer, (pattern, quality))).collect();
        let row = |layer: &Layer| {
            let (pattern, quality) = found.remove(&layer.name)?;
            Some(LayerQuality { name: layer.name.clone(), pattern, quality })
        };
        let rows = graph.layers().filter_map(row).collect();
        let mut report = QualityReport::new(self.selector.criterion.name(), false, rows);
        if let Some(observed) = &self.observed
            && ending(pruned) == "onnx"
        {
            report.outputs = observed.compare(pruned)?;
        }
        Ok(Some(report))
    }
}

/// A file's ending in lower case.
fn ending(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase()
}

/// What the channels left are rounded to.
fn multiple(args: &Args) -> anyhow::Result<u64> {
    Ok(match (&args.round_to, &args.profile) {
        (None, _) => 1,
        (Some(RoundTo::Multiple(n)), _) => *n,
        (Some(RoundTo::Auto), Some(name)) => {
            let profile = super::profile(name)?;
            let dtype = default_dtype(&profile);
            let n = preferred_multiple(&profile, dtype);
            eprintln!("channels are rounded to multiples of {n} ({}, {dtype})", profile.name);
            n
        }
        (Some(RoundTo::Auto), None) => bail!("--round-to auto needs the machine that it rounds for: --profile P"),
    })
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let assignment = Assignment::parse(&args.sparsity)?;
    let (from, to) = (ending(&args.workload), ending(&args.output));
    ensure!(
        to == "safetensors" || to == "onnx" && from == "onnx",
        "{}: a pruned network ends in .safetensors, or in .onnx where the network is one",
        args.output.display()
    );
    let options = args.sizes.options()?;
    let round_to = multiple(&args)?;
    let request = |zeros, choose| Request {
        assignment: &assignment,
        choose,
        zero_in_place: args.keep_shapes,
        strict: true,
        zeros,
        round_to,
        global: args.scope == Scope::Global,
        permute: args.permute.then_some(args.seed),
    };
    let (graph, plan, tallies, before, quality);
    if from == "onnx" {
        let source = Source::open(&args.workload, &options)?;
        source.model.graph.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
        let decision = Decision::of(&args, &assignment, &source.model.graph, &source.model.weights)?;
        let judge = Judge::new(&decision.selector);
        let choose = decision.choose(&judge);
        let rewrite = source.plan(&request(source.zero_points(), choose))?;
        tallies = if to == "onnx" {
            write_model(&rewrite, &args.output, choose)?
        } else {
            let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
            let weights = &source.model.weights;
            let checkpoint = Checkpoint::of(&args.workload, weights, &rewrite.plan, Some(metadata))?;
            write_checkpoint(&checkpoint, &args.output, choose)?
        };
        quality = decision.quality(&judge, &source.model.graph, &args.output)?;
        before = size(&args.workload)? + source.outside();
        (graph, plan) = (source.model.graph.clone(), rewrite.plan);
    } else {
        let (model, metadata) = safetensors::import(&args.workload, &options)?;
        model.graph.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
        if let Some(rule) = assignment.rules.iter().find(|r| r.choice.pattern.shrinks_graph()) {
            bail!(
                "{}: a checkpoint without channels needs another config.json and code that knows it; export the network to .onnx",
                rule.text
            );
        }
        let decision = Decision::of(&args, &assignment, &model.graph, &model.weights)?;
        let judge = Judge::new(&decision.selector);
        let choose = decision.choose(&judge);
        plan = Plan::of(
            &model.graph,
            &model.weights,
            &request(HashMap::new(), choose),
            &BTreeMap::new(),
            &BTreeSet::new(),
        )?;
        let checkpoint = Checkpoint::of(&args.workload, &model.weights, &plan, metadata)?;
        tallies = write_checkpoint(&checkpoint, &args.output, choose)?;
        quality = decision.quality(&judge, &model.graph, &args.output)?;
        before = model.weights.iter().map(|s| s.bytes()).sum();
        graph = model.graph;
    }
    let data = beside(&args.output);
    let files = (before, size(&args.output)? + if to == "onnx" && data.exists() { size(&data)? } else { 0 });
    let mut report = Pruning::of(&graph, &plan, &tallies, args.saliency.name(), files)?;
    report.quality = quality;
    if report.tensors.is_empty() {
        eprintln!("warning: nothing was pruned; the reasons follow");
    }
    eprintln!("wrote {}", args.output.display());
    output::deliver(args.report.as_deref(), out, |out| match args.format {
        RowFormat::Table => writeln!(out, "{}", report.table()),
        RowFormat::Csv => report.csv(out),
        RowFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        }
    })
}

type Tallies = BTreeMap<usize, Tally>;

/// Writes the model, and where it would be too large for one file the elements beside it first.
pub(super) fn write_model(rewrite: &Rewrite, path: &Path, choose: &dyn Choose) -> anyhow::Result<Tallies> {
    let data = beside(path);
    let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Output { model, beside } = rewrite.splice(Some(&name))?;
    let mut tallies = Tallies::new();
    for (path, pieces) in beside.iter().map(|p| (data.as_path(), p)).chain([(path, &model)]) {
        write_whole(path, |to| {
            tallies.extend(rewrite.write(pieces, choose, to)?);
            Ok(())
        })?;
    }
    Ok(tallies)
}

fn write_checkpoint(checkpoint: &Checkpoint, path: &Path, choose: &dyn Choose) -> anyhow::Result<Tallies> {
    let mut tallies = Tallies::new();
    write_whole(path, |to| {
        tallies = checkpoint.write(choose, to)?;
        Ok(())
    })?;
    Ok(tallies)
}

fn size(path: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len())
}

/// The file that holds elements of a model that would be too large by itself.
fn beside(model: &Path) -> PathBuf {
    let mut name = model.file_name().unwrap_or_default().to_owned();
    name.push(".data");
    model.with_file_name(name)
}
