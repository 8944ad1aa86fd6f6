//! The command line: one file a subcommand, each with its arguments and a `run` that writes the answer.

mod bench;
mod calibrate;
mod compare;
mod estimate;
mod import;
mod inspect;
mod merge;
mod output;
mod profiles;
mod provenance;
mod prune;
mod pruning;
mod question;
mod report;
mod resolve;
mod run;
mod search;
mod search_folder;
mod shell;
mod simulate;
#[cfg(feature = "train")]
mod study;
mod sweep;
#[cfg(feature = "train")]
mod train;
mod validate;
mod workload;
mod workloads;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};

/// For this network, which sparsity pattern, on which hardware, how fast, and why not faster.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Predict latency, traffic and energy of a network, layer by layer
    Estimate(estimate::Args),
    /// Compare patterns over machines in one table
    Compare(compare::Args),
    /// Write the long-form CSV of networks × machines × dtypes × batches × patterns
    Sweep(sweep::Args),
    /// Choose patterns layer by layer under a budget, or search patterns × hardware × dtype × batch
    Search(search::Args),
    /// Put the shards of a search together
    Merge(merge::Args),
    /// Turn results into one page and figures
    Report(report::Args),
    /// Show what a network is: layers, shapes, parameters, MACs
    Inspect(inspect::Args),
    /// List the built-in networks, or print one's file
    Workloads(workloads::Args),
    /// Write the network that patterns leave: zeros in its weights, or channels and heads removed
    Prune(prune::Args),
    /// Compare predictions with measurements
    Validate(validate::Args),
    /// Measure this machine and the kernels on it
    Bench(bench::Args),
    /// Run a network's products on this machine, predicted beside measured
    Run(run::Args),
    /// Train a small network under a regularizer, and remove what it made zero
    #[cfg(feature = "train")]
    Train(train::Args),
    /// Experiments from training to time
    #[cfg(feature = "train")]
    Study(study::Args),
    /// Fit a model's constants to measurements
    Calibrate(calibrate::Args),
    /// Step through one operation cycle by cycle, with real numbers
    Simulate(simulate::Args),
    /// Turn other tools' descriptions into profiles and networks
    Import(import::Args),
    /// List, show, check and detect hardware profiles
    Profiles(profiles::Args),
    /// Print a shell's completion script
    Completions(shell::Completions),
    /// Write the man pages into a folder
    Man(shell::Man),
    /// Print the JSON Schema of profiles or networks, for editors
    Schema(shell::Schema),
}

impl Cli {
    /// Runs the subcommand; stdout carries the answer alone.
    pub fn run(self) -> anyhow::Result<()> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        match self.command {
            Command::Estimate(args) => estimate::run(args, &mut out)?,
            Command::Compare(args) => compare::run(args, &mut out)?,
            Command::Sweep(args) => sweep::run(args, &mut out)?,
            Command::Search(args) => search::run(args, &mut out)?,
            Command::Merge(args) => merge::run(args, &mut out)?,
            Command::Report(args) => report::run(args)?,
            Command::Inspect(args) => inspect::run(args, &mut out)?,
            Command::Workloads(args) => workloads::run(args, &mut out)?,
            Command::Prune(args) => prune::run(args, &mut out)?,
            Command::Validate(args) => validate::run(args, &mut out)?,
            Command::Bench(args) => bench::run(args)?,
            Command::Run(args) => run::run(args, &mut out)?,
            #[cfg(feature = "train")]
            Command::Train(args) => train::run(args, &mut out)?,
            #[cfg(feature = "train")]
            Command::Study(args) => study::run(args, &mut out)?,
            Command::Calibrate(args) => calibrate::run(args)?,
            Command::Simulate(args) => simulate::run(args, &mut out)?,
            Command::Import(args) => import::run(args, &mut out)?,
            Command::Profiles(args) => profiles::run(args, &mut out)?,
            Command::Completions(args) => shell::completions(&args, &mut out)?,
            Command::Man(args) => shell::man(&args)?,
            Command::Schema(args) => shell::schema(&args, &mut out)?,
        }
        out.flush()?;
        Ok(())
    }
}

/// The profile of a path or name; `host` is this machine.
fn profile(name: &str) -> hwsim::error::Result<hwsim::profile::Profile> {
    let mut profile = if name == "host" { profiles::host()? } else { hwsim::profile::Profile::find(name)? };
    if let Some(path) = calibration_of(name) {
        calibrate_with(&mut profile, &path)?;
    }
    Ok(profile)
}

/// A calibration beside its profile (`X.toml`, `X.calib.toml`), or for `host` the one in the user's data folder.
fn calibration_of(name: &str) -> Option<PathBuf> {
    let path = if name == "host" {
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
        data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")))?
            .join("hwsim/host.calib.toml")
    } else {
        PathBuf::from(format!("{}.calib.toml", name.strip_suffix(".toml").unwrap_or(name)))
    };
    path.is_file().then_some(path)
}

/// Gives a CPU's profile the parameters of a calibration file.
fn calibrate_with(profile: &mut hwsim::profile::Profile, path: &Path) -> hwsim::error::Result<()> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
        let reason = "is an .npz, not constants of a machine; calibration inputs go to --calibration-data";
        return Err(hwsim::error::Error::argument(path.display().to_string(), reason));
    }
    let calibration = hwsim::profile::Calibration::from_file(path)?;
    if let (hwsim::profile::Device::Cpu(cpu), Some(fitted)) = (&mut profile.device, calibration.cpu) {
        if fitted.device != profile.name {
            let reason = format!("it was fitted on `{}`, which is not `{}`", fitted.device, profile.name);
            return Err(hwsim::error::Error::argument(path.display().to_string(), reason));
        }
        cpu.calibration = Some(std::sync::Arc::new(fitted));
    }
    Ok(())
}

/// Whether the reader of a pipe went away, which is no failure of ours (`hwsim … | head`).
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(closed_pipe)
}

/// Writers wrap the system's error in their own, and `io::Error` hides what it wraps from the chain of sources.
fn closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        return io.kind() == std::io::ErrorKind::BrokenPipe || io.get_ref().is_some_and(|inner| closed_pipe(inner));
    }
    if let Some(csv) = error.downcast_ref::<csv::Error>() {
        return matches!(csv.kind(), csv::ErrorKind::Io(io) if closed_pipe(io));
    }
    error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind)
        == Some(std::io::ErrorKind::BrokenPipe)
}
