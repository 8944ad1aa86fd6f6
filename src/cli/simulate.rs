//! `hwsim simulate`: one operation, step by step on an array, line by line through the caches of a CPU.

use super::output::ObjectFormat;
use super::{output, resolve};
use hwsim::error::Error;
use hwsim::lower::Gemm;
use hwsim::lower::blocking::Vectors;
use hwsim::pattern::SparsityPattern;
use hwsim::profile::{Cpu, Device};
use hwsim::simulate::cpu;
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
    /// CPU: the kernel whose loops are replayed: csr, bsr, … [default: the pattern's own]
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// CPU: vector registers of the kernel [default: the profile's]
    #[arg(long, value_enum)]
    isa: Option<Isa>,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: ObjectFormat,
    /// Write the answer to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Code paths that the kernels have.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Isa {
    /// Plain code
    Portable,
    /// AVX2 and FMA
    Avx2,
    /// AVX-512
    Avx512,
}

impl Isa {
    fn vectors(self) -> Vectors {
        match self {
            Self::Portable => Vectors::PORTABLE,
            Self::Avx2 => Vectors::AVX2,
            Self::Avx512 => Vectors::AVX512,
        }
    }
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let profile = super::profile(&args.profile)?;
    let gemm = resolve::gemm(&args.gemm, 1)?;
    let report = match &profile.device {
        Device::Systolic(array) => {
            if args.kernel.is_some() || args.isa.is_some() {
                return Err(Error::argument("--kernel", "and --isa choose loops of a CPU; this is an array").into());
            }
            experiment(array, gemm, args.sparsity, args.seed)?
        }
        Device::Cpu(device) => return caches(&args, device, gemm, &profile.name, out),
        Device::Gpu(_) => {
            let reason = "there is no simulator for GPUs; give the profile of a systolic array or a CPU";
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

fn caches(args: &Args, device: &Cpu, gemm: Gemm, name: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let kernel = args.kernel.as_deref().map(cpu::Kernel::find).transpose()?;
    let vectors = args.isa.map_or_else(|| cpu::vectors(device), Isa::vectors);
    let experiment = cpu::Experiment { gemm, pattern: args.sparsity, seed: args.seed, kernel, vectors };
    let report = cpu::experiment(&device.cache, &experiment)?;
    output::deliver(args.output.as_deref(), out, |out| match args.format {
        ObjectFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        }
        ObjectFormat::Table => cache_table(&report, name, out),
    })
}

fn cache_table(r: &cpu::Report, name: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let [m, n, k] = r.gemm;
    writeln!(
        out,
        "{name}: {m}×{n}×{k}, {}, {} nonzeros; kernel {}, vectors of {} fp32, one thread, caches cold",
        r.pattern, r.nonzeros, r.kernel, r.lanes
    )?;
    writeln!(
        out,
        "{:6} {:9} {:>14} {:>14} {:>14} {:>17}",
        "level", "operand", "lookups", "hits", "misses", "bytes beyond"
    )?;
    for level in &r.levels {
        let mut row = |operand: &str, lookups: u64, hits: u64, misses: u64, bytes: u64| {
            writeln!(out, "{:6} {operand:9} {lookups:>14} {hits:>14} {misses:>14} {bytes:>17}", level.level)
        };
        for o in &level.operands {
            row(o.operand.name(), o.lookups, o.hits, o.misses, o.bytes)?;
        }
        row("all", level.lookups, level.hits, level.misses, level.bytes_in + level.bytes_out)?;
    }
    writeln!(
        out,
        "Lookups are lines; bytes beyond a level are lines fetched from the next one and written lines returned to it."
    )
}
