//! `hwsim inspect`: what a network is, without a machine.

use super::output::{self, ObjectFormat};
use hwsim::report::inspect::Inspection;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Network: .onnx, config.json, .toml, or a name (`hwsim workloads` lists them)
    workload: String,
    #[command(flatten)]
    sizes: super::workload::Sizes,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: ObjectFormat,
    /// Write the answer to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let graph = args.sizes.load(&args.workload)?;
    let answer = Inspection::of(&graph)?;
    for warning in &answer.warnings {
        eprintln!("warning: {warning}");
    }
    output::deliver(args.output.as_deref(), out, |out| match args.format {
        ObjectFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &answer)?;
            writeln!(out)
        }
        ObjectFormat::Table => {
            writeln!(out, "{}\n", answer.table(output::width()))?;
            writeln!(out, "{}", super::estimate::FOOTER)
        }
    })
}
