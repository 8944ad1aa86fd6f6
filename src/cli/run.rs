//! `hwsim run`: a network's products on this machine, predicted beside measured.

use super::output::{self, RowFormat};
use hwsim::bench::network::{Product, measure, prepare};
use hwsim::bench::run::weights;
use hwsim::bench::suite::Shape;
use hwsim::cost::network::{most_resident, residency_of, set_resident};
use hwsim::cost::{self, CostModel, LayerCost, Options, Timing};
use hwsim::dtype::DType;
use hwsim::error::{Error, Result};
use hwsim::kernels::Isa;
use hwsim::kernels::float::{subnormals, with_flush_to_zero};
use hwsim::lower::{Assignment, Lowered, Masks, Source, SparseGemm, count_masks, steps};
use hwsim::profile::Device;
use hwsim::prune::saliency::matrix;
use hwsim::report::execution::{Execution, Run};
use hwsim::sparsity::Mask;
use hwsim::units::Bytes;
use hwsim::workload::onnx::Model;
use hwsim::workload::{Graph, Role};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    workload: super::workload::Source,
    /// Profile that predicts: this machine's own, as `hwsim bench` wrote it
    #[arg(long, short, default_value = "host")]
    profile: String,
    /// Constants that `hwsim calibrate` fitted on this CPU [default: P.calib.toml beside P, where it is]
    #[arg(long, value_name = "C.calib.toml")]
    calibration: Option<PathBuf>,
    /// Pattern, or GLOB=PATTERN, with an optional /FORMAT; the last match wins
    #[arg(short, long = "sparsity", value_name = "[GLOB=]PATTERN[/FORMAT]")]
    sparsity: Vec<String>,
    /// Format of products: fp32, bf16 or int8; weights are rounded when they are packed, activations in every call
    #[arg(long, default_value = "fp32")]
    dtype: DType,
    #[command(flatten)]
    pruning: super::pruning::Pruning,
    /// Threads of the kernels, and of the prediction
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Passes over the network; the fastest run of each product counts
    #[arg(long, default_value_t = 20)]
    passes: usize,
    /// Seed of weights that no file gives
    #[arg(long = "weights-seed", default_value_t = 0)]
    weights_seed: u64,
    /// What to print
    #[arg(long, value_enum, default_value_t)]
    format: RowFormat,
    /// Write the answer to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.threads == 0 {
        return Err(Error::argument("--threads", "0 threads do nothing; give at least 1").into());
    }
    let mut profile = super::profile(&args.profile)?;
    if let Some(path) = &args.calibration {
        super::calibrate_with(&mut profile, path)?;
    }
    let Device::Cpu(facts) = &profile.device else {
        let reason = format!("`{}` is not a CPU, and the kernels run on this machine's", profile.name);
        return Err(Error::argument("--profile", reason).into());
    };
    let last_level = facts.cache.last().map_or(32 << 20, |c| c.size.get() as usize);
    let mut assignment = Assignment::parse(&args.sparsity)?;
    let (graph, model, masks) = if args.pruning.asked() {
        let (model, path, options) = args.workload.with_weights()?;
        let chosen = args.pruning.choose(&model, (path, &options), 1, &mut assignment)?;
        (model.graph.clone(), Some(model), chosen.masks)
    } else {
        // A file's own weights, where it has some.
        match args.workload.with_weights() {
            Ok((model, ..)) => (model.graph.clone(), Some(model), Masks::new()),
            Err(_) => (args.workload.load()?, None, Masks::new()),
        }
    };
    if let Some(rule) = assignment.rules.iter().find(|r| r.choice.pattern.shrinks_graph()) {
        let reason = format!(
            "`{}` makes the network smaller; write that network with `hwsim prune` and run it",
            rule.choice.pattern
        );
        return Err(Error::argument("--sparsity", reason).into());
    }
    let weighted: Vec<&str> =
        graph.layers().filter(|l| hwsim::lower::layer::takes_rules(l)).map(|l| l.name.as_str()).collect();
    assignment.check(weighted.iter().copied())?;
    let options = Options { threads: Some(args.threads as u64), timing: Timing::Cold };
    let cost = cost::model(&profile, options)?;
    let (asked, left_out) = products(&graph, &assignment, (args.dtype, &masks), &*cost)?;
    if asked.is_empty() {
        return Err(
            Error::argument("--workload", "the network has no product with weights; there is nothing to run").into()
        );
    }

    let isa = Isa::detect();
    let pool = super::bench::pool(args.threads)?;
    let bar = ProgressBar::new((asked.len() + args.passes) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {elapsed} (left {eta})")?);
    bar.set_message("packing");
    let mut ready = Vec::with_capacity(asked.len());
    let mut subnormal = 0;
    for a in &asked {
        let product = product(a, &masks, model.as_ref(), args.weights_seed)?;
        subnormal += subnormals(&product.weights);
        ready.push(pool.install(|| prepare(isa, &product))?);
        bar.inc(1);
    }
    let running = super::bench::stop_on_interrupt()?;
    bar.set_message("running");
    let go_on = |_| {
        bar.inc(1);
        running.load(std::sync::atomic::Ordering::Relaxed)
    };
    let run = || measure(&ready, isa, (args.threads, args.passes), last_level, &go_on);
    let times = pool.install(run);
    // Flushing is a state of one thread.
    let flushed = (subnormal > 0 && args.threads == 1).then(|| pool.install(|| with_flush_to_zero(run)));
    bar.finish_and_clear();

    let rows = asked.iter().zip(&ready).zip(times).map(|((a, ready), seconds)| {
        let g = &a.op.gemm;
        Run {
            layer: a.layer.clone(),
            groups: g.groups,
            m: g.m.saturating_mul(a.op.steps()),
            n: g.n,
            k: g.k,
            pattern: a.cost.executed.pattern.to_string(),
            kernel: format!("{} {}", ready.kernel, ready.way()).trim().to_owned(),
            predicted_us: 1e6 * a.cost.time.get(),
            predicted_low_us: 1e6 * a.cost.interval.0.get(),
            predicted_high_us: 1e6 * a.cost.interval.1.get(),
            measured_us: (1e10 * seconds).round() / 1e4,
        }
    });
    let mut answer =
        Execution::new(graph.name.clone(), profile.name.clone(), args.threads as u64, rows.collect(), left_out);
    answer.subnormal_weights = subnormal;
    answer.flushed_us = flushed.map(|times| 1e6 * times.iter().sum::<f64>());
    output::deliver(args.output.as_deref(), out, |out| match args.format {
        RowFormat::Table => {
            writeln!(out, "{}\n", answer.grid().text(output::width(), args.output.is_none() && output::colour()))?;
            writeln!(out, "{}", answer.sentence())
        }
        RowFormat::Csv => {
            let mut rows = csv::Writer::from_writer(out);
            for row in &answer.layers {
                rows.serialize(row).map_err(std::io::Error::other)?;
            }
            rows.flush()
        }
        RowFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &answer)?;
            writeln!(out)
        }
    })
}

/// A product of the network and what it is predicted to cost.
pub(super) struct Asked {
    layer: String,
    /// Which of its layer's products.
    at: usize,
    op: SparseGemm,
    cost: LayerCost,
}

/// A layer with arithmetic that no kernel here does, and why.
pub(super) type LeftOut = (String, String);

/// The products that kernels run, in order, and the layers with arithmetic that none does.
pub(super) fn products(
    graph: &Graph,
    assignment: &Assignment,
    (dtype, masks): (DType, &Masks),
    model: &dyn CostModel,
) -> Result<(Vec<Asked>, Vec<LeftOut>)> {
    let mut all = steps(graph, assignment, dtype, false)?;
    count_masks(&mut all, graph, masks);
    let resident = residency_of(&all, model);
    let (mut asked, mut left_out) = (Vec::new(), Vec::new());
    for (step, resident) in all.iter().zip(resident) {
        let layer = &graph.layer(step.lead).name;
        let mut left: Bytes = resident;
        let mut at = 0;
        for op in &step.ops {
            let mut op = op.clone();
            if let Lowered::Gemm(g) = &mut op {
                // Results are fp32 whatever was multiplied, and narrow groups are multiplied in it too.
                g.out_dtype = DType::Fp32;
                if matches!(g.source, Source::Conv(_)) && g.gemm.groups > 1 && g.gemm.n < 8 {
                    g.dtype = DType::Fp32;
                }
            }
            let share = left.min(most_resident(&op));
            left = left - share;
            set_resident(&mut op, share);
            let reason = match &op {
                Lowered::Stream(_) => continue,
                Lowered::Attention(_) => Some("attention has no kernel here"),
                Lowered::Gemm(g) => match g.source {
                    Source::Activations => Some("a product of two activations has no weights to pack"),
                    Source::Conv(c) if c.transposed && g.gemm.groups > 1 => Some("a grouped transposed convolution"),
                    Source::Linear if g.gemm.groups > 1 => Some("several products side by side"),
                    Source::Recurrent { .. } if g.gemm.groups > 1 => Some("several directions side by side"),
                    Source::Linear | Source::Conv(_) | Source::Recurrent { .. } => None,
                },
            };
            if let Some(reason) = reason {
                left_out.push((layer.clone(), reason.to_owned()));
                continue;
            }
            let cost = model.cost(&op)?;
            if let Lowered::Gemm(op) = op {
                asked.push(Asked { layer: layer.clone(), at, op, cost });
                at += 1;
            }
        }
    }
    Ok((asked, left_out))
}

/// The product with its weights: the file's under their mask where both are known, else seeded ones of the pattern.
pub(super) fn product(a: &Asked, masks: &Masks, model: Option<&Model>, seed: u64) -> Result<Product> {
    let gemm = a.op.gemm;
    let executed = &a.cost.executed;
    let mask = masks.get(&a.layer).and_then(|m| m.get(a.at)).filter(|_| gemm.groups == 1);
    let own = model.and_then(|model| {
        let (_, layer) = model.graph.layers().enumerate().find(|(_, l)| l.name == a.layer)?;
        let param = layer.params.iter().filter(|p| p.role == Role::Weight).nth(a.at)?;
        let (values, n, k) = matrix(layer, param, &model.weights).ok()?;
        (n as u64 == gemm.groups * gemm.n && k as u64 == gemm.k).then_some(values)
    });
    let shape = Shape { m: gemm.m, n: gemm.n, k: gemm.k };
    let weights = match (own, mask) {
        (Some(values), Some(mask)) => masked(values, mask),
        (Some(values), None) if executed.pattern.is_dense() => values,
        _ => (0..gemm.groups).flat_map(|group| weights(shape, executed.pattern, seed + group)).collect(),
    };
    Ok(Product {
        gemm,
        conv: match a.op.source {
            Source::Conv(c) if !c.transposed => Some(c),
            _ => None,
        },
        steps: a.op.steps(),
        pattern: executed.pattern,
        format: executed.format,
        dtype: a.op.dtype,
        weights,
    })
}

/// Weights without those that a mask takes.
fn masked(mut values: Vec<f32>, mask: &Mask) -> Vec<f32> {
    let k = (mask.cols() as usize).max(1);
    for (row, values) in values.chunks_mut(k).enumerate() {
        for (column, value) in values.iter_mut().enumerate() {
            if !mask.get(row as u64, column as u64) {
                *value = 0.0;
            }
        }
    }
    values
}
