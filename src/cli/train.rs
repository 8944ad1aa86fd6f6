//! `hwsim train`: a small network under a regularizer, as files that the other commands read.

use super::output::ObjectFormat;
use anyhow::{Context, ensure};
use hwsim::report::export::write_whole;
use hwsim::train::data::Split;
use hwsim::train::method::METHODS;
use hwsim::train::{Dataset, Method, Network, Progress, Settings, audit, compact, export, fit};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,
    /// Extents joined by -: 64-128-64-10, or 1x8x8-16c3-32c3-p2-64-10 with convolutions of 3x3 and a maximum over 2x2
    /// [default: FEATURES-128-64-CLASSES]
    #[arg(long, short, value_name = "N-…-N")]
    network: Option<String>,
    /// Regularizer: none, l2, elimination, selective, adaptive, l1-subgradient, l1, group-subgradient, smooth-group, group,
    /// group-incoming, group-joint, sparse-group, noisy-group, ssl, proxsparse, sr-ste; by a share of zeros: spartan,
    /// spartan-units, obd, gradual, rigl, srigl
    #[arg(long, short, default_value = "none", value_parser = parse_method)]
    method: Method,
    /// λ of a penalty, or the share of zeros
    #[arg(long, short, default_value_t = 0.001)]
    strength: f64,
    #[command(flatten)]
    schedule: Schedule,
    /// Seed of the initial weights and of the order of examples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The trained network, .onnx or .safetensors; may be given several times
    #[arg(short, long, value_name = "FILE")]
    output: Vec<PathBuf>,
    /// The same without the units and inputs that are zero, .onnx or .safetensors
    #[arg(long, value_name = "FILE")]
    compact: Vec<PathBuf>,
    /// How to print what came out
    #[arg(long, value_enum, default_value_t)]
    format: ObjectFormat,
}

/// What is learnt.
#[derive(clap::Args)]
pub struct Data {
    /// Examples: .csv (numbers, the class last), .npz (arrays x and y), or `gratings`, a task made by code
    #[arg(long, short, default_value = "gratings")]
    data: String,
    /// Share of the examples that is kept for testing
    #[arg(long, default_value_t = 0.25)]
    test_share: f64,
    /// Seed of that split, and of the made task
    #[arg(long, default_value_t = 0)]
    data_seed: u64,
}

impl Data {
    pub fn name(&self) -> String {
        Path::new(&self.data).file_name().map_or(self.data.clone(), |n| n.to_string_lossy().into_owned())
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        (self.data != "gratings").then(|| Path::new(&self.data))
    }

    pub fn load(&self) -> hwsim::error::Result<Split> {
        let all = match self.file() {
            Some(path) => Dataset::from_file(path)?,
            None => Dataset::gratings(2000, self.data_seed),
        };
        all.split(self.test_share, self.data_seed)
    }
}

/// How long and how fast.
#[derive(clap::Args)]
pub struct Schedule {
    /// Passes over the examples
    #[arg(long, default_value_t = 100)]
    epochs: u64,
    /// Examples of a step
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Learning rate at the beginning
    #[arg(long, default_value_t = 0.2)]
    rate: f64,
}

impl Schedule {
    pub fn settings(&self, method: Method, strength: f64, seed: u64) -> Settings {
        Settings { method, strength, seed, epochs: self.epochs, batch: self.batch, rate: self.rate }
    }
}

pub fn parse_method(text: &str) -> Result<Method, String> {
    text.parse().map_err(|e: hwsim::error::Error| {
        let known: Vec<&str> = METHODS.iter().map(|row| row.1).collect();
        format!("{e}; known are {}", known.join(", "))
    })
}

/// What came out.
#[derive(Serialize)]
struct Outcome {
    network: String,
    data: String,
    train_examples: usize,
    test_examples: usize,
    method: String,
    strength: f64,
    epochs: u64,
    seed: u64,
    loss: f64,
    accuracy: f64,
    structure: audit::Structure,
    macs: u64,
    compact: String,
    compact_macs: u64,
    compact_accuracy: f64,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    for path in args.output.iter().chain(&args.compact) {
        let ending = path.extension().and_then(|e| e.to_str());
        ensure!(
            matches!(ending, Some("onnx" | "safetensors")),
            "{}: files end in .onnx or .safetensors",
            path.display()
        );
    }
    let data = args.data.load()?;
    let text = args.network.clone();
    let text = text.unwrap_or_else(|| format!("{}-128-64-{}", data.train.features, data.train.classes));
    let mut network = Network::parse(&text, args.seed)?;
    let settings = args.schedule.settings(args.method, args.strength, args.seed);
    let running = super::bench::stop_on_interrupt()?;
    let mut last = None;
    let each = (settings.epochs / 10).max(1);
    fit(&mut network, &data, &settings, each, &mut |p: Progress| {
        let s = &p.structure;
        eprintln!(
            "epoch {:>4}/{}  loss {:.4}  accuracy {:.2} %  zeros {:.1} %  dead units {}/{}  dead inputs {}",
            p.epoch,
            settings.epochs,
            p.loss,
            100.0 * p.accuracy,
            100.0 * s.zero_share(),
            s.zero_units.iter().sum::<u64>(),
            s.units.iter().sum::<u64>(),
            s.zero_inputs,
        );
        last = Some(p);
        running.load(std::sync::atomic::Ordering::Relaxed)
    })?;
    let last = last.context("the training was stopped before its first epoch")?;
    let small = compact::compact(&network)?;
    for (paths, network) in [(&args.output, &network), (&args.compact, &small)] {
        for path in paths {
            save(network, path)?;
        }
    }
    let answer = Outcome {
        network: network.describe(),
        data: args.data.name(),
        train_examples: data.train.len(),
        test_examples: data.test.len(),
        method: args.method.to_string(),
        strength: args.strength,
        epochs: last.epoch,
        seed: args.seed,
        loss: last.loss,
        accuracy: last.accuracy,
        macs: network.macs(),
        compact: small.describe(),
        compact_macs: small.macs(),
        compact_accuracy: audit::accuracy(&small, &data.test)?,
        structure: last.structure,
    };
    match args.format {
        ObjectFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &answer)?;
            writeln!(out)?;
        }
        ObjectFormat::Table => {
            let s = &answer.structure;
            writeln!(
                out,
                "{} on {}, {} (strength {}): accuracy {:.2} % on {} examples; {} of {} weights are zero ({:.1} %), {} \
                 subnormal; dead: {} of {} hidden units, {} inputs",
                answer.network,
                answer.data,
                args.method.words(),
                answer.strength,
                100.0 * answer.accuracy,
                answer.test_examples,
                s.zeros,
                s.weights,
                100.0 * s.zero_share(),
                s.subnormals,
                s.zero_units.iter().sum::<u64>(),
                s.units.iter().sum::<u64>(),
                s.zero_inputs,
            )?;
            writeln!(
                out,
                "without them {}: {} of {} MACs ({:.1} %), accuracy {:.2} %",
                answer.compact,
                answer.compact_macs,
                answer.macs,
                100.0 * answer.compact_macs as f64 / (answer.macs as f64).max(1.0),
                100.0 * answer.compact_accuracy,
            )?;
        }
    }
    Ok(())
}

/// Writes a network by its file's ending.
pub fn save(network: &Network, path: &Path) -> anyhow::Result<()> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let bytes = if path.extension().is_some_and(|e| e == "onnx") {
        export::onnx(network, &name, true)
    } else {
        export::safetensors(network)?
    };
    write_whole(path, |to| to.write_all(&bytes))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
