//! `hwsim estimate`: the main job.

use super::output::Format;
use super::{output, resolve};
use clap::ValueEnum;
use hwsim::cost::{Options, Timing};
use hwsim::dtype::DType;
use hwsim::lower::Assignment;
use hwsim::report::estimate::default_dtype;
use hwsim::report::table::{Order, Style, grid, headline, table};
use hwsim::report::{Request, Target, estimate, export, why};
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Hardware profile: a path or a name (`hwsim profiles` lists them)
    #[arg(long, short)]
    profile: String,
    /// Constants that `hwsim calibrate` fitted on this CPU [default: P.calib.toml beside P, where it is]
    #[arg(long, value_name = "C.calib.toml")]
    calibration: Option<PathBuf>,
    #[command(flatten)]
    workload: super::workload::Source,
    /// One matrix product MxNxK instead of a network
    #[arg(long, conflicts_with = "workload")]
    gemm: Option<String>,
    /// Independent products of that shape
    #[arg(long, default_value_t = 1, requires = "gemm")]
    groups: u64,
    /// Pattern, or GLOB=PATTERN, with an optional /FORMAT; the last match wins
    #[arg(short, long = "sparsity", value_name = "[GLOB=]PATTERN[/FORMAT]")]
    sparsity: Vec<String>,
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

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut profile = super::profile(&args.profile)?;
    if let Some(path) = &args.calibration {
        super::calibrate_with(&mut profile, path)?;
    }
    let assignment = Assignment::parse(&args.sparsity)?;
    let timing = match args.timing {
        TimingArg::Cold => Timing::Cold,
        TimingArg::Warm => Timing::Warm,
        TimingArg::Host => Timing::Host,
    };
    let request = Request {
        profile: &profile,
        assignment: &assignment,
        dtype: args.dtype.unwrap_or_else(|| default_dtype(&profile)),
        options: Options { threads: args.threads, timing },
        queues: args.queues.max(1),
        fuse: !args.no_fuse,
    };
    let answer = match &args.gemm {
        Some(shape) => estimate(&Target::Gemm(resolve::gemm(shape, args.groups)?), &request)?,
        None => estimate(&Target::Network(&args.workload.load()?), &request)?,
    };
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
            writeln!(out, "\n{}", FOOTER)
        }
    })
}

pub const FOOTER: &str =
    "MACs: one multiply-add each; bias, norms and activations not counted; attention products counted in full.";

/// Breaks a paragraph at the terminal's width, at most 110 columns.
fn wrap(text: &str) -> String {
    let width = output::width().map_or(110, |w| usize::from(w).clamp(40, 110));
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
