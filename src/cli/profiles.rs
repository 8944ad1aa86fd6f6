//! `hwsim profiles`: which machines are known, what is known of them, and of this one.

use super::output;
use hwsim::profile::detect::{self, CacheFiles, HostFiles};
use hwsim::profile::{Device, Profile};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Name every built-in profile (the default)
    List,
    /// Print a profile as TOML
    Show {
        /// Path, name or alias; `host` is this machine
        profile: String,
    },
    /// Say whether a file is a valid profile, and where it is not
    Check {
        /// A profile's TOML file
        file: PathBuf,
    },
    /// Write a CPU profile of this machine
    Detect {
        /// Write it to a file instead of stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    match args.action.unwrap_or(Action::List) {
        Action::List => list(out),
        Action::Show { profile } => Ok(write!(out, "{}", super::profile(&profile)?.to_toml())?),
        Action::Check { file } => {
            let profile = Profile::from_file(&file)?;
            Ok(writeln!(out, "{}: ok, {} ({})", file.display(), profile.name, profile.device.family())?)
        }
        Action::Detect { output } => {
            let text = host()?.to_toml();
            output::deliver(output.as_deref(), out, |out| {
                writeln!(
                    out,
                    "# Bandwidths of caches and memory are estimates; replace them by measured ones where you have them."
                )?;
                write!(out, "{text}")
            })
        }
    }
}

fn list(out: &mut dyn Write) -> anyhow::Result<()> {
    let all = Profile::built_in()?;
    let width = all.iter().map(|(stem, _)| stem.len()).max().unwrap_or(0);
    for (stem, profile) in all {
        let size = match &profile.device {
            Device::Cpu(d) => format!("{} cores", d.cores),
            Device::Gpu(d) => format!("{} SMs", d.sms),
            Device::Systolic(d) => format!("{}x{}", d.rows, d.cols),
        };
        let family = profile.device.family();
        let bandwidth = profile.memory.bandwidth.to_string();
        writeln!(
            out,
            "{stem:width$}  {family:8}  {size:>9}  {:>9}  {bandwidth:>9}  {}",
            profile.clock.to_string(),
            profile.name
        )?;
    }
    Ok(())
}

/// The profile of this machine.
pub fn host() -> hwsim::error::Result<Profile> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let cpu = Path::new("/sys/devices/system/cpu/cpu0");
    let mut caches: Vec<CacheFiles> = Vec::new();
    for index in 0..16 {
        let file = |name: &str| read(&cpu.join(format!("cache/index{index}/{name}"))).unwrap_or_default();
        let level = file("level");
        if level.is_empty() {
            break;
        }
        caches.push(CacheFiles {
            level,
            kind: file("type"),
            size: file("size"),
            line: file("coherency_line_size"),
            ways: file("ways_of_associativity"),
            shared: file("shared_cpu_list"),
        });
    }
    let first_version = || {
        let part = |name: &str| read(&Path::new("/sys/fs/cgroup/cpu").join(name));
        Some(format!("{} {}", part("cpu.cfs_quota_us")?.trim(), part("cpu.cfs_period_us")?.trim()))
    };
    let cpuinfo = Path::new("/proc/cpuinfo");
    detect::linux(&HostFiles {
        cpuinfo: fs::read_to_string(cpuinfo).map_err(|e| hwsim::error::Error::io(cpuinfo, e))?,
        caches,
        max_khz: read(&cpu.join("cpufreq/cpuinfo_max_freq")),
        quota: read(Path::new("/sys/fs/cgroup/cpu.max")).or_else(first_version),
    })
}
