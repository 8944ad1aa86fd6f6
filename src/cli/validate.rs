//! `hwsim validate`: predictions against measurements.

use super::output::{self, Format};
use hwsim::bench::Sample;
use hwsim::calibrate::fidelity::{Way, gains, summary};
use hwsim::calibrate::split::Split;
use hwsim::calibrate::validate::{predict, predict_held_out, profiles_for, validate};
use hwsim::profile::{Calibration, Profile};
use hwsim::report::export::write_whole;
use hwsim::report::plot::Figure;
use hwsim::report::predictions::{gain_figure, predictions, scatter, write};
use hwsim::report::validation;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Sample file (CSV)
    #[arg(long, short, value_name = "S.csv")]
    measurements: PathBuf,
    /// Predict every row with this profile, instead of the one that answers to the row's device
    #[arg(long, short)]
    profile: Option<String>,
    /// Fitted constants, instead of those that travel with hwsim
    #[arg(long, value_name = "C.calib.toml", conflicts_with_all = ["leave_one_device_out", "split"])]
    calibration: Option<PathBuf>,
    /// Predict each device with constants that were fitted without its rows
    #[arg(long, conflicts_with = "split")]
    leave_one_device_out: bool,
    /// Fit without a share of the shapes and predict those alone: shape:0.3
    #[arg(long)]
    split: Option<Split>,
    /// Only rows of these operations
    #[arg(long, value_delimiter = ',', value_name = "OP")]
    op: Vec<String>,
    /// Write the fidelity report (fitted, unseen shapes, unseen devices; gain of 2:4) into this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["leave_one_device_out", "split"])]
    report: Option<PathBuf>,
    /// Draw predicted against measured into this SVG file
    #[arg(long, value_name = "FILE.svg", conflicts_with = "report")]
    plot: Option<PathBuf>,
    /// Write every row's prediction into this CSV file
    #[arg(long, value_name = "FILE.csv", conflicts_with = "report")]
    predictions: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write the answer to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut samples = Sample::read(&args.measurements)?;
    for op in &args.op {
        op.parse::<hwsim::bench::SampleOp>()?;
    }
    samples.retain(|s| args.op.is_empty() || args.op.iter().any(|op| op == s.op.name()));
    let given = args.profile.as_deref().map(super::profile).transpose()?;
    let built_in: Vec<Profile> = Profile::built_in()?.into_iter().map(|(_, p)| p).collect();
    let profiles = profiles_for(&samples, given.as_ref(), &built_in);
    if let Some(folder) = &args.report {
        let own = args.calibration.as_deref().map(Calibration::from_file).transpose()?;
        return report(&samples, &profiles, own.as_ref().unwrap_or(Calibration::shipped()), folder);
    }
    let split = if args.leave_one_device_out { Some(Split::LeaveOneDeviceOut) } else { args.split };
    let outcomes = match (split, &args.calibration) {
        (Some(split), _) => predict_held_out(&samples, &profiles, split)?,
        (None, Some(path)) => predict(&samples, &profiles, &Calibration::from_file(path)?)?,
        (None, None) => predict(&samples, &profiles, Calibration::shipped())?,
    };
    let answer = validate(&samples, &outcomes);
    let records = predictions(&samples, &outcomes);
    if let Some(path) = &args.predictions {
        write_whole(path, |to| write(&records, to))?;
        eprintln!("wrote {}", path.display());
    }
    if let Some(path) = &args.plot {
        let title = match given {
            Some(profile) => format!("Predicted against measured, {}", profile.name),
            None => "Predicted against measured".into(),
        };
        draw(scatter(&title, &records), path)?;
    }
    output::deliver(args.output.as_deref(), out, |to| match args.format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *to, &answer)?;
            writeln!(to)
        }
        Format::Csv => validation::csv(&answer, to),
        Format::Md => to.write_all(validation::grid(&answer).markdown().as_bytes()),
        Format::Latex => to.write_all(validation::grid(&answer).latex().as_bytes()),
        Format::Table => to.write_all(validation::table(&answer).as_bytes()),
    })
}

/// Predicts all rows in three ways and writes what came out.
fn report(
    samples: &[Sample],
    profiles: &[Option<&Profile>],
    calibration: &Calibration,
    folder: &Path,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let ways = [
        ("fitted", predict(samples, profiles, calibration)?),
        ("unseen shapes", predict_held_out(samples, profiles, Split::Shape(0.3))?),
        ("unseen devices", predict_held_out(samples, profiles, Split::LeaveOneDeviceOut)?),
    ];
    let validations: Vec<_> = ways.iter().map(|(_, outcomes)| validate(samples, outcomes)).collect();
    for ((name, _), answer) in ways.iter().zip(&validations) {
        let file = folder.join(format!("{}.csv", name.replace(' ', "-")));
        write_whole(&file, |to| validation::csv(answer, to))?;
        eprintln!("wrote {}", file.display());
    }
    let file = folder.join("gain-2-4.csv");
    write_whole(&file, |to| {
        let mut writer = csv::Writer::from_writer(to);
        for gain in gains(samples, &ways[0].1) {
            writer.serialize(gain).map_err(std::io::Error::other)?;
        }
        writer.flush()
    })?;
    for (name, outcomes) in &ways {
        let title = format!("Predicted against measured, {name}");
        draw(
            scatter(&title, &predictions(samples, outcomes)),
            &folder.join(format!("{}.svg", name.replace(' ', "-"))),
        )?;
    }
    let file = folder.join("gain-2-4.svg");
    draw(gain_figure(&gains(samples, &ways[0].1)), &file)?;
    let shown: Vec<Way> = ways
        .iter()
        .zip(&validations)
        .map(|((name, outcomes), validation)| Way { name, outcomes, validation })
        .collect();
    let file = folder.join("README.md");
    write_whole(&file, |to| to.write_all(summary(samples, &shown).as_bytes()))?;
    eprintln!("wrote {}", file.display());
    Ok(())
}

/// Writes a figure; says so where there is nothing to draw.
fn draw(figure: Option<Figure>, path: &Path) -> anyhow::Result<()> {
    let Some(figure) = figure else {
        eprintln!("nothing was predicted: {} is not written", path.display());
        return Ok(());
    };
    write_whole(path, |to| to.write_all(figure.standalone().as_bytes()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
