//! `hwsim study subnormals`: pure L2 decay in fp32, and the time of a product on the way down.

use crate::cli::provenance::Provenance;
use hwsim::bench::network::{Product, measure, prepare};
use hwsim::dtype::DType;
use hwsim::error::Error;
use hwsim::kernels::Isa;
use hwsim::kernels::float::{subnormals, with_flush_to_zero};
use hwsim::lower::Gemm;
use hwsim::pattern::SparsityPattern;
use hwsim::report::export::write_whole;
use hwsim::report::grid::Grid;
use hwsim::sparsity::StorageFormat;
use hwsim::sparsity::regularize::{decay, noise};
use rand::SeedableRng;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Rows and columns of the weights
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Columns of activations
    #[arg(long, default_value_t = 128)]
    columns: u64,
    /// Learning rate times λ: the share of each weight that a step takes
    #[arg(long, default_value_t = 0.1)]
    decay: f64,
    /// Steps
    #[arg(long, default_value_t = 1200)]
    steps: u64,
    /// Steps between two timings
    #[arg(long, default_value_t = 100)]
    every: u64,
    /// Seed of the initial weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the rows as CSV, and to FILE.provenance.toml how they were made
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let sizes = 1..=1 << 13;
    if !sizes.contains(&args.size) || !sizes.contains(&args.columns) || args.every == 0 || args.steps > 1 << 20 {
        return Err(Error::argument("--size", "sizes are 1 to 8192, steps up to 2^20, --every above 0").into());
    }
    if !(args.decay > 0.0 && args.decay < 1.0) {
        return Err(Error::argument("--decay", "a step takes more than nothing and less than all: 0 < D < 1").into());
    }
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(args.seed);
    let deviation = (2.0 / args.size as f64).sqrt();
    let count = (args.size * args.size) as usize;
    let mut weights: Vec<f32> = (0..count).map(|_| (deviation * noise::normal(&mut rng)) as f32).collect();
    let mut gradient = vec![0f32; count];
    let mut grid =
        Grid::new(&["#step", "#largest weight", "#subnormal %", "#zero %", "#product us", "#flushed us", "#slowdown"]);
    let mut rows = Vec::new();
    let mut first = None;
    for step in 0..=args.steps {
        if step > 0 {
            gradient.fill(0.0);
            decay::l2_gradient(&weights, args.decay, &mut gradient);
            weights.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= g);
        }
        if step % args.every != 0 {
            continue;
        }
        let (plain, flushed) = time(&args, &weights)?;
        let before = *first.get_or_insert(plain);
        let share = |n: usize| 100.0 * n as f64 / count as f64;
        let row = [
            step.to_string(),
            format!("{:.1e}", weights.iter().fold(0f32, |m, w| m.max(w.abs()))),
            format!("{:.1}", share(subnormals(&weights) as usize)),
            format!("{:.1}", share(weights.iter().filter(|w| **w == 0.0).count())),
            format!("{:.1}", 1e6 * plain),
            format!("{:.1}", 1e6 * flushed),
            format!("{:.2}", plain / before),
        ];
        eprintln!("step {:>5}: largest {}, {} % subnormal, product {} us", row[0], row[1], row[2], row[4]);
        rows.push((row.clone(), plain, flushed));
        grid.push(row);
    }
    if let Some(path) = &args.output {
        write_whole(path, |to| {
            let mut csv = csv::Writer::from_writer(to);
            csv.write_record([
                "step",
                "largest_weight",
                "subnormal_pct",
                "zero_pct",
                "product_us",
                "flushed_us",
                "slowdown",
            ])?;
            for (row, ..) in &rows {
                csv.write_record(row)?;
            }
            csv.flush()
        })?;
        let beside = PathBuf::from(format!("{}.provenance.toml", path.display()));
        write_whole(&beside, |to| to.write_all(Provenance::new().text().as_bytes()))?;
        eprintln!("wrote {} and {}", path.display(), beside.display());
    }
    writeln!(out, "{}\n", grid.text(crate::cli::output::width(), false))?;
    if let (Some((row, plain, flushed)), Some(before)) = (rows.last(), first) {
        writeln!(
            out,
            "Pure decay by {} a step leaves {} % of {count} weights subnormal after {} steps and {} % at zero. The product then \
             takes {:.2} times what it took at first ({:.0} against {:.0} us), with flush-to-zero {:.2} times ({:.0} us).",
            args.decay,
            row[2],
            row[0],
            row[3],
            plain / before,
            1e6 * plain,
            1e6 * before,
            flushed / before,
            1e6 * flushed,
        )?;
    }
    Ok(())
}

/// Seconds of the product on one thread, as it is and with subnormals taken for zero.
fn time(args: &Args, weights: &[f32]) -> anyhow::Result<(f64, f64)> {
    let isa = Isa::detect();
    let product = Product {
        gemm: Gemm { groups: 1, m: args.columns, n: args.size, k: args.size },
        conv: None,
        steps: 1,
        pattern: SparsityPattern::Dense,
        format: StorageFormat::Dense,
        dtype: DType::Fp32,
        weights: weights.to_vec(),
    };
    let pool = crate::cli::bench::pool(1)?;
    let ready = [pool.install(|| prepare(isa, &product))?];
    let run = || measure(&ready, isa, (1, 9), 1 << 22, &|_| true)[0];
    Ok((pool.install(run), pool.install(|| with_flush_to_zero(run))))
}
