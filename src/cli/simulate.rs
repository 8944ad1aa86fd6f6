//! `hwsim simulate`: one operation, step by step.

use super::output::ObjectFormat;
use super::{output, resolve};
use hwsim::error::Error;
use hwsim::pattern::SparsityPattern;
use hwsim::profile::Device;
use hwsim::simulate::systolic::{Report, experiment};
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Hardware profile: a path or a name
    #[arg(long, short)]
    profile: String,
    /// The matrix product MxNxK
    #[arg(long)]
    gemm: String,
    /// Pattern of the weights
    #[arg(short, long = "sparsity", value_name = "PATTERN", default_value = "dense")]
    sparsity: SparsityPattern,
    /// Seed of the mask and the operands
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: ObjectFormat,
    /// Write the answer to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let profile = super::profile(&args.profile)?;
    let gemm = resolve::gemm(&args.gemm, 1)?;
    let report = match &profile.device {
        Device::Systolic(array) => experiment(array, gemm, args.sparsity, args.seed)?,
        Device::Cpu(_) | Device::Gpu(_) => {
            let family = profile.device.family();
            let reason = format!("there is no simulator for the {family} family; give the profile of a systolic array");
            return Err(Error::argument("--profile", reason).into());
        }
    };
    output::deliver(args.output.as_deref(), out, |out| match args.format {
        ObjectFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        }
        ObjectFormat::Table => table(&report, &profile.name, out),
    })?;
    if !(report.product_is_right && report.closed_form_agrees) {
        anyhow::bail!(
            "simulator and reference disagree (see the answer above); please report the profile, shape and seed"
        );
    }
    Ok(())
}

fn table(r: &Report, name: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let [rows, cols] = r.array;
    let [m, n, k] = r.gemm;
    writeln!(out, "{name}: {rows}×{cols}, {}; {m}×{n}×{k}, {}", r.dataflow, r.pattern)?;
    if let Some(note) = &r.note {
        writeln!(out, "{note}")?;
    }
    writeln!(out, "cycles       {:>16}   closed form {}", r.cycles, r.closed_form_cycles)?;
    writeln!(out, "folds        {:>16}", r.folds)?;
    writeln!(out, "busy cycles  {:>16}   {:.1} % of {} element cycles", r.active, r.utilization * 100.0, r.stepped)?;
    writeln!(out, "SRAM reads   {:>16}   inputs", r.sram.inputs)?;
    writeln!(out, "             {:>16}   weights", r.sram.weights)?;
    writeln!(out, "             {:>16}   partial sums", r.sram.partials)?;
    writeln!(out, "SRAM writes  {:>16}   outputs", r.sram.outputs)?;
    let product = if r.product_is_right { "equals" } else { "DIFFERS FROM" };
    let agrees = if r.closed_form_agrees { "agrees in every count" } else { "DISAGREES" };
    writeln!(out, "The product {product} that of three loops; the closed form {agrees}.")
}
