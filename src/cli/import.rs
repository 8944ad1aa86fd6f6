//! `hwsim import`: other tools' descriptions become profiles and networks.

use clap::Subcommand;
use hwsim::error::Error;
use hwsim::profile::scale_sim::Configuration;
use hwsim::report::export::write_whole;
use hwsim::workload::scale_sim::Topology;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// SCALE-Sim's configuration and topology
    ScaleSim {
        /// The .cfg file
        configuration: PathBuf,
        /// The topology .csv, convolutions or matrix products
        topology: PathBuf,
        /// Folder to write the profile and the network to
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        output: PathBuf,
    },
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let What::ScaleSim { configuration, topology, output } = args.what;
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Error::io(path, e));
    let config = Configuration::parse(&read(&configuration)?, &configuration.display().to_string())?;
    let layers = Topology::parse(&read(&topology)?, &topology.display().to_string())?;
    let stem = |path: &Path| path.file_stem().map_or_else(|| "scale-sim".into(), |s| s.to_string_lossy().into_owned());
    let name = |path: &Path| path.file_name().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    std::fs::create_dir_all(&output).map_err(|e| Error::io(&output, e))?;
    let profile_path = output.join(format!("{}.profile.toml", stem(&configuration)));
    let network_path = output.join(format!("{}.toml", stem(&topology)));
    let profile = config.to_toml(&name(&configuration));
    let network = layers.to_toml(&stem(&topology), &name(&topology));
    write_whole(&profile_path, |f| f.write_all(profile.as_bytes()))?;
    write_whole(&network_path, |f| f.write_all(network.as_bytes()))?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    writeln!(out, "{}", profile_path.display())?;
    writeln!(out, "{}", network_path.display())?;
    let mut command =
        format!("hwsim estimate --profile {} --workload {}", profile_path.display(), network_path.display());
    for layer in layers.layers.iter().filter(|_| config.sparse) {
        if let Some((n, m)) = layer.sparsity {
            command.push_str(&format!(" -s '{}={n}:{m}'", layer.name));
        }
    }
    writeln!(out, "{command}")?;
    Ok(())
}
