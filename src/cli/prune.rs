//! `hwsim prune`: the network without what its patterns take, as a file that other tools run.

use super::output::{self, RowFormat};
use anyhow::bail;
use clap::ValueEnum;
use hwsim::error::Error;
use hwsim::lower::Assignment;
use hwsim::prune::onnx::{Output, Source};
use hwsim::prune::safetensors::Checkpoint;
use hwsim::prune::{Choose, Magnitude, Request};
use hwsim::report::export::write_whole;
use hwsim::report::prune::Pruning;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Network with weights: .onnx
    #[arg(long, short)]
    workload: PathBuf,
    #[command(flatten)]
    sizes: super::workload::Sizes,
    /// Pattern, or GLOB=PATTERN; the last match wins. channel@s and head@s make the network smaller, the others write zeros
    #[arg(short, long = "sparsity", value_name = "[GLOB=]PATTERN", required = true)]
    sparsity: Vec<String>,
    /// What decides which weights stay
    #[arg(long, value_enum, default_value_t)]
    saliency: Saliency,
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

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Saliency {
    /// The largest absolute values stay
    #[default]
    Magnitude,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let assignment = Assignment::parse(&args.sparsity)?;
    let ending = |p: &Path| p.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    let (from, to) = (ending(&args.workload), ending(&args.output));
    if from != "onnx" {
        bail!("{}: weights are pruned in .onnx files; export the network to one", args.workload.display());
    }
    if to != "onnx" && to != "safetensors" {
        bail!("{}: a pruned network ends in .onnx or .safetensors", args.output.display());
    }
    let source = Source::open(&args.workload, &args.sizes.options()?)?;
    source.model.graph.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    let choose = Magnitude;
    let request = Request {
        assignment: &assignment,
        choose: &choose,
        zero_in_place: args.keep_shapes,
        strict: true,
        zeros: source.zero_points(),
    };
    let rewrite = source.plan(&request)?;
    let mut tallies = Default::default();
    if to == "safetensors" {
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let checkpoint = Checkpoint::of(&args.workload, &source.model.weights, &rewrite.plan, Some(metadata))?;
        write_whole(&args.output, |to| {
            tallies = checkpoint.write(&choose as &dyn Choose, to)?;
            Ok(())
        })?;
    } else {
        let data = beside(&args.output);
        let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Output { model, beside } = rewrite.splice(Some(&name))?;
        if let Some(pieces) = &beside {
            write_whole(&data, |to| {
                tallies = rewrite.write(pieces, &choose, to)?;
                Ok(())
            })?;
        }
        write_whole(&args.output, |to| {
            tallies.extend(rewrite.write(&model, &choose, to)?);
            Ok(())
        })?;
    }
    let size = |p: &Path| std::fs::metadata(p).map(|m| m.len()).map_err(|e| Error::io(p, e));
    let files = (size(&args.workload)? + source.outside(), size(&args.output)?);
    let Saliency::Magnitude = args.saliency;
    let report = Pruning::of(&source.model.graph, &rewrite.plan, &tallies, "magnitude", files)?;
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

/// The file that holds elements of a model that would be too large by itself.
fn beside(model: &Path) -> PathBuf {
    let mut name = model.file_name().unwrap_or_default().to_owned();
    name.push(".data");
    model.with_file_name(name)
}
