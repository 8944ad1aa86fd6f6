//! `hwsim estimate`: the main job.

use super::output::Format;
use super::{output, resolve};
use anyhow::bail;
use clap::ValueEnum;
use hwsim::cost::preferred::preferred_multiple;
use hwsim::cost::{Options, Timing};
use hwsim::dtype::DType;
use hwsim::lower::Assignment;
use hwsim::lower::eager::Framework;
use hwsim::report::estimate::default_dtype;
use hwsim::report::table::{Order, Style, grid, headline, table};
use hwsim::report::{Pruned, Request, Target, estimate_pruned, export, why};
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Hardware profile: a path or a name (`hwsim profiles` lists them)
    #[arg(long, short)]
    profile: String,
    /// Constants that `hwsim calibrate` fitted on this CPU [default: P.calib.toml beside P, where it is]; an .npz is taken
    /// for --calibration-data
    #[arg(long, value_name = "C.calib.toml")]
    calibration: Option<PathBuf>,
    #[command(flatten)]
    workload: super::workload::Source,
    /// One matrix product MxNxK instead of a network
    #[arg(long, conflicts_with_all = ["workload", "saliency"])]
    gemm: Option<String>,
    /// Independent products of that shape
    #[arg(long, default_value_t = 1, requires = "gemm")]
    groups: u64,
    /// Pattern, or GLOB=PATTERN, with an optional /FORMAT; the last match wins
    #[arg(short, long = "sparsity", value_name = "[GLOB=]PATTERN[/FORMAT]")]
    sparsity: Vec<String>,
    #[command(flatten)]
    pruning: super::pruning::Pruning,
    /// Round the channels and heads that stay to a multiple of N, or to what the machine's units fill (auto)
    #[arg(long, value_name = "N|auto", value_parser = round_to, conflicts_with = "gemm")]
    round_to: Option<RoundTo>,
    /// Number format: fp32, tf32, fp16, bf16, fp8, int8, fp4
    #[arg(long)]
    dtype: Option<DType>,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<u64>,
    /// Cache state before each layer
    #[arg(long, value_enum, default_value_t)]
    timing: TimingArg,
    /// Queues on which independent branches may overlap
    #[arg(long, default_value_t = 1)]
    queues: usize,
    /// Keep every pointwise layer as a kernel of its own
    #[arg(long)]
    no_fuse: bool,
    /// Run the network as PyTorch does: every written operation a kernel that the host dispatches, or compiled
    #[arg(long, value_enum, conflicts_with_all = ["gemm", "no_fuse"])]
    framework: Option<RunBy>,
    /// Show the dense time of each layer as well
    #[arg(long)]
    baseline: bool,
    /// Order of the layers in the table
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Show only the first N layers of the table
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write the answer to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Sort {
    /// As the layers run
    #[default]
    Network,
    /// Longest first
    Latency,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum TimingArg {
    /// Weights come from main memory
    #[default]
    Cold,
    /// Back-to-back loop: what fits stays cached
    Warm,
    /// Every call pays its framework
    Host,
}

/// Who runs the network.
#[derive(Clone, Copy, clap::ValueEnum)]
enum RunBy {
    /// PyTorch, operation by operation
    Eager,
    /// torch.compile
    Compiled,
}

impl From<RunBy> for Framework {
    fn from(by: RunBy) -> Self {
        match by {
            RunBy::Eager => Self::Eager,
            RunBy::Compiled => Self::Compiled,
        }
    }
}

/// What channel counts are rounded to.
#[derive(Clone, Copy, Debug)]
pub enum RoundTo {
    Multiple(u64),
    Auto,
}

pub fn round_to(text: &str) -> Result<RoundTo, String> {
    match text.parse::<u64>() {
        _ if text == "auto" => Ok(RoundTo::Auto),
        Ok(n) if n > 0 => Ok(RoundTo::Multiple(n)),
        _ => Err("give a multiple of at least 1, or auto".into()),
    }
}

pub fn run(mut args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let inputs = args.calibration.take_if(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")));
    if let Some(path) = inputs {
        if !args.pruning.asked() {
            bail!("{}: calibration inputs decide which weights stay; name a criterion with --saliency", path.display());
        }
        if args.pruning.calibration_data.replace(path).is_some() {
            bail!("--calibration and --calibration-data both name calibration inputs; give one");
        }
    }
    let mut profile = super::profile(&args.profile)?;
    if let Some(path) = &args.calibration {
        super::calibrate_with(&mut profile, path)?;
    }
    let mut assignment = Assignment::parse(&args.sparsity)?;
    let timing = match args.timing {
        TimingArg::Cold => Timing::Cold,
        TimingArg::Warm => Timing::Warm,
        TimingArg::Host => Timing::Host,
    };
    let dtype = args.dtype.unwrap_or_else(|| default_dtype(&profile));
    let mut pruned = Pruned {
        round_to: match args.round_to {
            None => 1,
            Some(RoundTo::Multiple(n)) => n,
            Some(RoundTo::Auto) => preferred_multiple(&profile, dtype),
        },
        ..Pruned::default()
    };
    let (graph, quality);
    let target = match &args.gemm {
        Some(shape) => {
            quality = None;
            Target::Gemm(resolve::gemm(shape, args.groups)?)
        }
        None => {
            (graph, quality) = match args.pruning.asked() {
                true => {
                    let (model, path, options) = args.workload.with_weights()?;
                    let network = (path, &options);
                    let chosen = args.pruning.choose(&model, network, pruned.round_to, &mut assignment)?;
                    pruned.masks = chosen.masks;
                    (model.graph, Some(chosen.report))
                }
                false => (args.workload.load()?, None),
            };
            Target::Network(&graph)
        }
    };
    let request = Request {
        profile: &profile,
        assignment: &assignment,
        dtype,
        options: Options { threads: args.threads, timing },
        queues: args.queues.max(1),
        fuse: !args.no_fuse,
        framework: args.framework.map(Into::into),
    };
    let mut answer = estimate_pruned(&target, &request, &pruned)?;
    answer.quality = quality;
    for warning in &answer.warnings {
        eprintln!("warning: {warning}");
    }
    let style = Style {
        order: match args.sort {
            Sort::Network => Order::Network,
            Sort::Latency => Order::Latency,
        },
        top: args.top,
        baseline: args.baseline,
        width: output::width(),
        colour: args.output.is_none() && output::colour(),
    };
    output::deliver(args.output.as_deref(), out, |out| match args.format {
        Format::Json => export::json(&answer, out),
        Format::Csv => export::csv(&answer, out),
        Format::Md => write!(out, "{}", grid(&answer, style).markdown()),
        Format::Latex => write!(out, "{}", grid(&answer, style).latex()),
        Format::Table => {
            writeln!(out, "{}\n", headline(&answer))?;
            writeln!(out, "{}\n", table(&answer, style))?;
            writeln!(out, "{}", wrap(&why::why(&answer)))?;
            if let Some(q) = &answer.quality {
                writeln!(out, "\n{}\n\n{}", q.table(), wrap(&q.sentence()))?;
                if !q.published.is_empty() {
                    writeln!(out, "\n{}", q.beside())?;
                }
            }
            writeln!(out, "\n{}", FOOTER)
        }
    })
}

pub const FOOTER: &str =
    "MACs: one multiply-add each; bias, norms and activations not counted; attention products counted in full.";

/// Breaks a paragraph at the terminal's width, at most 110 columns.
fn wrap(text: &str) -> String {
    let width = output::width().map_or(110, |w| usize::from(w).clamp(40, 110));
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}
