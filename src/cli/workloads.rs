//! `hwsim workloads`: the networks that travel inside the binary.

use clap::Subcommand;
use hwsim::embedded::WORKLOADS;
use hwsim::workload::resolve::built_in;
use hwsim::workload::{Graph, Op, Options, resolve};
use std::io::Write;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Default, Subcommand)]
enum Command {
    /// Names, sizes and sources
    #[default]
    List,
    /// A network's file, to copy and change
    Show {
        /// Its name
        workload: String,
    },
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    match args.command.unwrap_or_default() {
        Command::List => list(out),
        Command::Show { workload } => show(&workload, out),
    }
}

fn list(out: &mut dyn Write) -> anyhow::Result<()> {
    let widest = WORKLOADS.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("workload".len());
    writeln!(out, "{:widest$}  {:>10}  {:>10}  {:16}  source", "workload", "parameters", "MACs", "input")?;
    for (name, _) in WORKLOADS {
        let graph = resolve(name, &Options::default())?;
        let parameters = scaled(graph.total_parameters()?);
        let macs = scaled(graph.total_macs()?);
        let source = graph.sources.first().map_or("", String::as_str);
        writeln!(out, "{name:widest$}  {parameters:>10}  {macs:>10}  {:16}  {source}", first_input(&graph))?;
    }
    Ok(())
}

fn show(workload: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let (_, text) = built_in(workload)?;
    write!(out, "{text}")?;
    Ok(())
}

fn first_input(graph: &Graph) -> String {
    let input = graph.layers().find(|l| matches!(l.op, Op::Input));
    let extents: Vec<String> = input.map_or(&[][..], |l| l.shape()).iter().map(u64::to_string).collect();
    extents.join("×")
}

/// Three digits and a decimal prefix: 25.6 M.
fn scaled(count: u64) -> String {
    let (divisor, prefix) = match count {
        1_000_000_000_000.. => (1e12, " T"),
        1_000_000_000.. => (1e9, " G"),
        1_000_000.. => (1e6, " M"),
        1_000.. => (1e3, " k"),
        _ => (1.0, ""),
    };
    let value = count as f64 / divisor;
    let decimals = if value >= 100.0 || prefix.is_empty() {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}{prefix}")
}
