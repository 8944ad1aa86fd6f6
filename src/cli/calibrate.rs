//! `hwsim calibrate`: fits constants to measurements.

use anyhow::ensure;
use hwsim::bench::Sample;
use hwsim::calibrate::validate::{fit_with_intervals, profiles_for};
use hwsim::profile::Profile;
use hwsim::report::export::write_whole;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Profile of the machine that was measured [default: the built-in one of each row's device]
    #[arg(long, short)]
    profile: Option<String>,
    /// Sample file (CSV)
    #[arg(long, short, value_name = "S.csv")]
    measurements: PathBuf,
    /// Where the constants go; profiles are never touched
    #[arg(short, long, value_name = "P.calib.toml")]
    output: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let name = args.output.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    ensure!(
        name.ends_with(".calib.toml"),
        "{}: fitted constants go to a file whose name ends in .calib.toml, apart from the facts",
        args.output.display()
    );
    let samples = Sample::read(&args.measurements)?;
    let given = args.profile.as_deref().map(super::profile).transpose()?;
    let built_in: Vec<Profile> = Profile::built_in()?.into_iter().map(|(_, p)| p).collect();
    let profiles = profiles_for(&samples, given.as_ref(), &built_in);
    ensure!(
        profiles.iter().any(Option::is_some),
        "{}: no profile answers to any of its devices; name one with --profile",
        args.measurements.display()
    );
    let file = args.measurements.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let calibration = fit_with_intervals(&samples, &profiles, file)?;
    let p = &calibration.provenance;
    if let Some(cpu) = &calibration.cpu {
        for (format, error) in &cpu.held_out {
            eprintln!("{format}: mean error {error:.1} % on shapes that the fit did not see");
        }
    }
    eprintln!("{} rows of {} devices", p.rows, p.devices.len());
    for (op, e) in &p.errors {
        eprintln!("{op}: mean error {:.1} % before, {:.1} % after", e.before, e.after);
    }
    let text = format!(
        "# Fitted by `hwsim calibrate`; facts are in the profiles. Each constant's meaning: docs of hwsim::profile::calibration.\n{}",
        toml::to_string(&calibration)?
    );
    write_whole(&args.output, |to| to.write_all(text.as_bytes()))?;
    eprintln!("wrote {}", args.output.display());
    Ok(())
}
