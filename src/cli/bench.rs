//! `hwsim bench`: measures this machine and its kernels.

use clap::ValueEnum;
use hwsim::bench::run::{self, Settings, Times};
use hwsim::bench::suite::{Case, Shape, Suite, of_steps};
use hwsim::bench::{Measured, micro};
use hwsim::dtype::DType;
use hwsim::error::Error;
use hwsim::kernels::Isa;
use hwsim::lower::{Assignment, steps};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::{Device, Profile};
use hwsim::report::export::write_whole;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(clap::Args)]
pub struct Args {
    /// What to measure on
    #[arg(long, value_enum, default_value_t)]
    device: DeviceArg,
    /// Built-in shapes and patterns: quick (two minutes) or full (ten on an idle machine, half an hour on a busy one)
    #[arg(long, conflicts_with_all = ["workload", "gemm"], default_value = "quick")]
    suite: Suite,
    #[command(flatten)]
    workload: super::workload::Source,
    /// These products MxNxK instead of a suite
    #[arg(long, conflicts_with = "workload", value_name = "MxNxK")]
    gemm: Vec<String>,
    /// Pattern, or GLOB=PATTERN with a workload; for --gemm, every pattern is measured
    #[arg(short, long = "sparsity", value_name = "[GLOB=]PATTERN")]
    sparsity: Vec<String>,
    /// Threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Passes over all of it, at most: they end when one lowers the fastest times by less than 1 % on average
    /// [default: 8, and 4 for quick]
    #[arg(long)]
    passes: Option<usize>,
    /// Rounds of each measurement in a pass, half as many with operands in main memory; the fastest of all counts
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds of a round
    #[arg(long, default_value_t = 0.7, value_name = "MS")]
    round: f64,
    /// Leave out the measurements with operands in main memory
    #[arg(long)]
    no_cold: bool,
    /// Seed of masks and values
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the samples go; the measured profile goes beside it, S.profile.toml
    #[arg(short, long, value_name = "S.csv")]
    output: PathBuf,
}

impl Args {
    /// Whether the suite of two minutes is meant.
    fn is_quick(&self) -> bool {
        self.suite == Suite::Quick && self.gemm.is_empty() && !self.workload.is_given()
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum DeviceArg {
    /// This machine's processor
    #[default]
    Cpu,
    /// An NVIDIA GPU
    Cuda,
}

/// Passes end when one lowers the fastest times by less than this share on average.
const SETTLED: f64 = 0.01;

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.device {
        DeviceArg::Cpu => cpu(&args),
        DeviceArg::Cuda => cuda(&args),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: &Args) -> anyhow::Result<()> {
    let reason = "this build measures processors only (feature `cuda` is off); use --device cpu";
    Err(Error::argument("--device cuda", reason).into())
}

/// Measures an NVIDIA GPU: the products asked for in four formats, or the built-in suite.
#[cfg(feature = "cuda")]
fn cuda(args: &Args) -> anyhow::Result<()> {
    use hwsim::bench::cuda::problem::{DTYPES, suite};
    use hwsim::bench::cuda::{Problem, bench};
    let asked = !args.gemm.is_empty() || args.workload.is_given();
    let problems = if asked {
        let mut problems = Vec::new();
        for case in cases(args)? {
            let Shape { m, n, k } = case.shape;
            for pattern in case.patterns {
                problems.extend(DTYPES.into_iter().map(|dtype| Problem { m, n, k, dtype, pattern }));
            }
        }
        problems
    } else {
        suite()
    };
    let bar = ProgressBar::new(problems.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {elapsed} (left {eta})")?);
    let samples = bench(&problems, &mut |p| {
        bar.set_position(p.done as u64);
        let Problem { m, n, k, dtype, pattern } = p.problem;
        match &p.outcome {
            Ok(us) => bar.set_message(format!("{m}x{n}x{k} {dtype} {pattern}: {us:.1} us")),
            Err(why) => bar.suspend(|| eprintln!("left out {m}x{n}x{k} {dtype} {pattern}: {why}")),
        }
    })?;
    bar.finish_and_clear();
    write_whole(&args.output, |to| hwsim::bench::Sample::write(&samples, to).map_err(std::io::Error::other))?;
    eprintln!("wrote {} ({} rows)", args.output.display(), samples.len());
    Ok(())
}

fn cpu(args: &Args) -> anyhow::Result<()> {
    let detected = super::profiles::host()?;
    let Device::Cpu(facts) = &detected.device else {
        return Err(Error::argument("host", "this machine's profile is not a CPU's").into());
    };
    if args.threads == 0 {
        return Err(Error::argument("--threads", "0 threads do nothing; give at least 1").into());
    }
    let cases = cases(args)?;
    let pool = pool(args.threads)?;
    let everyone = pool_of(facts.cores as usize)?;
    let running = stop_on_interrupt()?;
    let isa = Isa::detect();
    let most = args.passes.unwrap_or(if args.is_quick() { 4 } else { 8 }).max(1);
    let bar = ProgressBar::new((most * (cases.len() + 1)) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {elapsed} (left {eta})")?);
    let settings = Settings {
        isa,
        threads: args.threads,
        rounds: args.rounds,
        round: args.round * 1e-3,
        cold: !args.no_cold,
        last_level: facts.cache.last().map_or(32 << 20, |c| c.size.get() as usize),
        seed: args.seed,
        source: "hwsim".into(),
        device: detected.name.clone(),
    };
    let go_on = || running.load(Ordering::Relaxed);
    let mut machine: Option<micro::Facts> = None;
    let mut times: Vec<Vec<Times>> = vec![Vec::new(); cases.len()];
    'passes: for pass in 1..=most {
        let mut lowered = Vec::new();
        bar.set_message(format!("pass {pass}: micro-profile"));
        let again = everyone.install(|| micro::measure(facts, isa, facts.cores as usize));
        let best = machine.map_or(again.clone(), |m| m.best(again));
        let profile = micro::profile(&detected, facts, isa, &best, facts.cores as usize);
        write_profile(&args.output, &profile, &micro::comment(&best))?;
        machine = Some(best);
        bar.inc(1);
        for (at, case) in cases.iter().enumerate() {
            let Shape { m, n, k } = case.shape;
            bar.set_message(format!("pass {pass}: {m}x{n}x{k}"));
            let again = pool.install(|| run::case(&settings, case, &go_on))?;
            if times[at].is_empty() {
                times[at] = again;
            } else {
                for (times, again) in times[at].iter_mut().zip(again) {
                    lowered.extend(times.lowered_by(&again));
                    times.extend(again);
                }
            }
            if !go_on() {
                bar.suspend(|| eprintln!("interrupted: what was measured is kept"));
                break 'passes;
            }
            write_samples(&args.output, &settings, &cases, &times)?;
            bar.inc(1);
        }
        if pass > 1 && lowered.iter().sum::<f64>() < SETTLED * lowered.len() as f64 {
            break;
        }
    }
    bar.finish_and_clear();
    let rows = write_samples(&args.output, &settings, &cases, &times)?;
    eprintln!(
        "wrote {} and {} ({rows} rows)",
        args.output.with_extension("profile.toml").display(),
        args.output.display()
    );
    Ok(())
}

/// Writes what was measured, whole or not at all, and says how many rows it is.
fn write_samples(to: &Path, settings: &Settings, cases: &[Case], times: &[Vec<Times>]) -> anyhow::Result<usize> {
    let rows: Vec<Measured> =
        cases.iter().zip(times).flat_map(|(case, times)| run::rows(settings, case.shape, times)).collect();
    write_whole(to, |to| Measured::write(&rows, to))?;
    Ok(rows.len())
}

fn cases(args: &Args) -> anyhow::Result<Vec<Case>> {
    if !args.gemm.is_empty() {
        let mut patterns = vec![SparsityPattern::Dense];
        for text in &args.sparsity {
            let pattern: SparsityPattern = text.parse()?;
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        let shapes = args.gemm.iter().map(|text| super::resolve::gemm(text, 1));
        return shapes
            .map(|g| g.map(|g| Case { shape: Shape { m: g.m, n: g.n, k: g.k }, patterns: patterns.clone() }))
            .collect::<Result<_, _>>()
            .map_err(Into::into);
    }
    if args.workload.is_given() {
        let graph = args.workload.load()?;
        let assignment = Assignment::parse(&args.sparsity)?;
        return Ok(of_steps(&steps(&graph, &assignment, DType::Fp32, true)?));
    }
    Ok(args.suite.cases())
}

/// A pool of so many threads.
fn pool_of(threads: usize) -> anyhow::Result<rayon::ThreadPool> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?)
}

pub(super) fn pool(threads: usize) -> anyhow::Result<rayon::ThreadPool> {
    pool_of(threads)
}

/// A flag that Ctrl-C takes down.
pub(super) fn stop_on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let running = Arc::new(AtomicBool::new(true));
    let flag = running.clone();
    ctrlc::set_handler(move || flag.store(false, Ordering::Relaxed))?;
    Ok(running)
}

fn write_profile(samples: &Path, profile: &Profile, comment: &str) -> anyhow::Result<()> {
    let path = samples.with_extension("profile.toml");
    write_whole(&path, |to| write!(to, "{comment}{}", profile.to_toml()))?;
    Ok(())
}
