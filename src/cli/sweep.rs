//! `hwsim sweep`: networks × batches × machines × dtypes × patterns in the long form, with its provenance beside it.

use super::provenance::Provenance;
use super::question::{Machine, Patterns, Use};
use clap::ValueEnum;
use hwsim::lower::Assignment;
use hwsim::report::export::write_whole;
use hwsim::report::sweep::{Sizes, layers, whole};
use rayon::prelude::*;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Networks: paths or names, joined by commas
    #[arg(long, short, value_delimiter = ',', required = true, value_name = "W,…")]
    workload: Vec<String>,
    #[command(flatten)]
    machines: Use,
    #[command(flatten)]
    patterns: Patterns,
    /// Batch sizes, joined by commas [default: the networks' own]
    #[arg(long, value_delimiter = ',')]
    batch: Vec<u64>,
    /// Tokens of a sequence
    #[arg(long)]
    seq: Option<u64>,
    /// Decode: one new token that attends to this many keys, itself included
    #[arg(long, value_name = "CONTEXT", conflicts_with = "seq")]
    decode: Option<u64>,
    /// One record a layer, or one a network
    #[arg(long, value_enum, default_value_t)]
    per: Per,
    /// Write the records to a file instead of stdout, and to FILE.provenance.toml how they were made. `docs/columns.md`
    /// has the meaning and unit of each column
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Per {
    /// One record a layer
    #[default]
    Layer,
    /// One record a network
    Network,
}

/// Patterns that are estimated at once; a batch of them is written before the next begins.
const AT_ONCE: usize = 16;

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let machines = args.machines.machines()?;
    let mut provenance = Provenance::new();
    for machine in &machines {
        provenance.profile(&machine.profile);
    }
    for name in &args.workload {
        provenance.workload(name)?;
    }
    match &args.output {
        Some(path) => {
            let mut failed = None;
            write_whole(path, |to| {
                // The library's errors are not the writer's: they are carried past it.
                records(&args, &machines, &mut provenance, to).map_err(|e| {
                    e.downcast::<std::io::Error>().unwrap_or_else(|other| {
                        failed = Some(other);
                        std::io::Error::other("the sweep failed")
                    })
                })
            })
            .map_err(|e| failed.unwrap_or_else(|| e.into()))?;
            let beside = PathBuf::from(format!("{}.provenance.toml", path.display()));
            write_whole(&beside, |to| to.write_all(provenance.text().as_bytes()))?;
            eprintln!("wrote {} and {}", path.display(), beside.display());
            Ok(())
        }
        None => records(&args, &machines, &mut provenance, out),
    }
}

fn records(args: &Args, machines: &[Machine], provenance: &mut Provenance, out: &mut dyn Write) -> anyhow::Result<()> {
    let patterns = args.patterns.list()?;
    let batches: Vec<Option<u64>> =
        if args.batch.is_empty() { vec![None] } else { args.batch.iter().map(|&b| Some(b)).collect() };
    let sizes = Sizes { seq: args.seq, context: args.decode };
    let mut writer = csv::Writer::from_writer(out);
    for name in &args.workload {
        for &batch in &batches {
            let options = hwsim::workload::Options { batch, seq: args.seq, context: args.decode, ..Default::default() };
            let graph = hwsim::workload::resolve(name, &options)?;
            for machine in machines {
                let dense = args.machines.ask(&graph, machine, &Assignment::dense())?;
                let records_of = |estimate: &hwsim::report::Estimate, pattern: &str| match args.per {
                    Per::Layer => layers(estimate, &dense, pattern, &sizes),
                    Per::Network => vec![whole(estimate, &dense, pattern, &sizes)],
                };
                for record in records_of(&dense, "dense") {
                    writer.serialize(record).map_err(unwrapped)?;
                }
                for some in patterns.chunks(AT_ONCE) {
                    let answers: Vec<_> = some
                        .par_iter()
                        .map(|p| {
                            let answer = args.machines.ask(&graph, machine, &p.rules);
                            answer.map(|e| records_of(&e, &p.text)).map_err(|e| (p.text.clone(), e))
                        })
                        .collect();
                    for answer in answers {
                        match answer {
                            Ok(records) => {
                                for record in records {
                                    writer.serialize(record).map_err(unwrapped)?;
                                }
                            }
                            Err((pattern, error)) => {
                                let refused =
                                    format!("{name}, {}, {}, {pattern}: {error}", machine.profile.name, machine.dtype);
                                eprintln!("warning: left out {refused}");
                                provenance.refused(refused);
                            }
                        }
                    }
                }
            }
        }
    }
    writer.flush()?;
    Ok(())
}

/// The system's error inside the CSV writer's.
fn unwrapped(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(io) => io.into(),
        other => anyhow::anyhow!("cannot write a record: {other:?}"),
    }
}
