//! `hwsim compare`: one network, several machines, several patterns, one table.

use super::output::{self, Format};
use super::question::{Patterns, Use};
use hwsim::lower::Assignment;
use hwsim::report::compare::{Machine, csv, entries, grid, words};
use rayon::prelude::*;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    workload: super::workload::Source,
    #[command(flatten)]
    machines: Use,
    #[command(flatten)]
    patterns: Patterns,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write the answer to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let graph = args.workload.load()?;
    let patterns = args.patterns.list()?;
    let machines: Vec<Machine> = args
        .machines
        .machines()?
        .into_iter()
        .map(|machine| {
            let ask = |rules: &Assignment| args.machines.ask(&graph, &machine, rules);
            let dense = ask(&Assignment::dense())?;
            let patterns =
                patterns.par_iter().map(|p| (p.text.clone(), ask(&p.rules).map_err(|e| e.to_string()))).collect();
            Ok(Machine { label: machine.label, dense, patterns })
        })
        .collect::<hwsim::error::Result<_>>()?;
    for warning in graph.warnings.iter() {
        eprintln!("warning: {warning}");
    }
    let head = machines.first().map_or_else(String::new, |m| format!("{}, batch {}", m.dense.workload, m.dense.batch));
    output::deliver(args.output.as_deref(), out, |out| match args.format {
        Format::Table => {
            writeln!(out, "{head}\n\n{}\n", grid(&machines).text(output::width(), output::colour()))?;
            write!(out, "{}", words(&machines))
        }
        Format::Csv => csv(&entries(&machines), out),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &entries(&machines))?;
            writeln!(out)
        }
        Format::Md => {
            write!(out, "{head}\n\n{}\n{}", grid(&machines).markdown(), words(&machines).replace('\n', "  \n"))
        }
        Format::Latex => write!(out, "{}", grid(&machines).latex()),
    })
}
