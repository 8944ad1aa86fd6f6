//! `hwsim inspect`: what a network is, without a machine.

use super::output::{self, ObjectFormat};
use hwsim::report::inspect::Inspection;
use hwsim::report::weights::WeightReport;
use hwsim::workload::resolve::with_weights;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Network: .onnx, config.json, .toml, or a name (`hwsim workloads` lists them)
    workload: String,
    #[command(flatten)]
    sizes: super::workload::Sizes,
    /// Look at the stored weights: zeros and their structure, dead and duplicate channels, subnormals
    #[arg(long)]
    weights: bool,
    /// With --weights, say what of it this machine can use
    #[arg(long, short, requires = "weights")]
    profile: Option<String>,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: ObjectFormat,
    /// Write the answer to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let to = args.output.as_deref();
    if args.weights {
        let model = with_weights(Path::new(&args.workload), &args.sizes.options()?)?;
        model.graph.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
        let profile = args.profile.as_deref().map(super::profile).transpose()?;
        let answer = WeightReport::of(&model, profile.as_ref())?;
        return deliver(to, out, args.format, &answer, || answer.table(output::width()));
    }
    let graph = args.sizes.load(&args.workload)?;
    let answer = Inspection::of(&graph)?;
    answer.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    deliver(to, out, args.format, &answer, || {
        format!("{}\n\n{}", answer.table(output::width()), super::estimate::FOOTER)
    })
}

fn deliver(
    to: Option<&Path>,
    out: &mut dyn Write,
    format: ObjectFormat,
    answer: &impl Serialize,
    table: impl Fn() -> String,
) -> anyhow::Result<()> {
    output::deliver(to, out, |out| match format {
        ObjectFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, answer)?;
            writeln!(out)
        }
        ObjectFormat::Table => writeln!(out, "{}", table()),
    })
}
