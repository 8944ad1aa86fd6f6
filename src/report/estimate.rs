//! One question answered: a network (or one product) on one machine under an assignment of patterns.

use super::row::{ConventionRow, LevelBytes, Machine, Row, Totals, bound_name};
use crate::cost::network::{NetworkCost, network};
use crate::cost::{self, CostModel, LayerCost};
use crate::dtype::DType;
use crate::error::Result;
use crate::lower::eager::{Framework, framework_steps, kernels};
use crate::lower::shrink::Outcome;
use crate::lower::{self, Assignment, Gemm, Lowered, Masks, SparseGemm, Step, count_masks, steps};
use crate::pattern::SparsityPattern;
use crate::profile::Profile;
use crate::sparsity::StorageFormat;
use crate::units::{Bytes, Seconds};
use crate::workload::{Graph, Layer};
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What is asked.
pub struct Request<'a> {
    /// The machine.
    pub profile: &'a Profile,
    /// Patterns by layer.
    pub assignment: &'a Assignment,
    /// Number format of operands.
    pub dtype: DType,
    /// Cache state, threads.
    pub options: cost::Options,
    /// Queues on which independent branches may overlap; 1 runs everything in order.
    pub queues: usize,
    /// Whether pointwise work joins the operation before it.
    pub fuse: bool,
    /// The framework that runs the network, where none of the inference runtimes does.
    pub framework: Option<Framework>,
}

/// What is asked about.
pub enum Target<'a> {
    /// A whole network.
    Network(&'a Graph),
    /// One product.
    Gemm(Gemm),
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Estimate {
    /// The machine's name.
    pub profile: String,
    /// The network's name, or the product's shape.
    pub workload: String,
    /// Number format.
    pub dtype: DType,
    /// Extent of the first input's first axis; 1 for a single product.
    pub batch: u64,
    /// The machine's peaks.
    #[serde(default)]
    pub machine: Machine,
    /// The whole.
    pub total: Totals,
    /// Step by step, in order.
    pub layers: Vec<Row>,
    /// What the masks of real weights leave, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<super::quality::QualityReport>,
    /// What was refused, rounded or could not be followed.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// The machine's memory levels.
    #[serde(skip)]
    pub levels: Vec<String>,
    /// Last cache level, for the closing words.
    #[serde(skip)]
    pub last_level: Bytes,
}

/// Answers a request.
///
/// # Errors
/// Rules that match nothing or cannot be carried out, counts past 2^64 − 1, operations that the machine cannot run.
pub fn estimate(target: &Target<'_>, request: &Request<'_>) -> Result<Estimate> {
    estimate_pruned(target, request, &Pruned::default())
}

/// What is known of a pruned network beyond its patterns.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Masks of real weights: what they count replaces what their layers' patterns expect.
    pub masks: Masks,
    /// Extents that channel and head removal leaves are multiples of this; 0 and 1 leave them as they come.
    pub round_to: u64,
}

/// The same for a network of which more is known than its patterns.
///
/// # Errors
/// As [`estimate`].
pub fn estimate_pruned(target: &Target<'_>, request: &Request<'_>, pruned: &Pruned) -> Result<Estimate> {
    let model = cost::model(request.profile, request.options)?;
    match target {
        Target::Network(graph) => whole_network(graph, request, pruned, &*model),
        Target::Gemm(gemm) => single_product(*gemm, request, &*model),
    }
}

/// The dtype in which a machine usually runs inference: 16-bit floats on tensor cores, 8-bit integers on arrays, fp32
/// elsewhere.
pub fn default_dtype(profile: &Profile) -> DType {
    use crate::profile::Device;
    match &profile.device {
        Device::Gpu(gpu) if gpu.tensor_core.is_some() => DType::Fp16,
        Device::Gpu(_) | Device::Cpu(_) => DType::Fp32,
        Device::Systolic(_) => DType::Int8,
    }
}

fn whole_network(graph: &Graph, request: &Request<'_>, known: &Pruned, model: &dyn CostModel) -> Result<Estimate> {
    let weighted: Vec<&str> =
        graph.layers().filter(|l| lower::layer::takes_rules(l)).map(|l| l.name.as_str()).collect();
    request.assignment.check(weighted.iter().copied())?;
    let mut warnings = graph.warnings.clone();
    let run = |graph: &Graph, assignment: &Assignment| -> Result<(Vec<Step>, NetworkCost)> {
        let mut steps = match request.framework {
            Some(framework) => framework_steps(graph, assignment, request.dtype, framework)?,
            None => steps(graph, assignment, request.dtype, request.fuse)?,
        };
        count_masks(&mut steps, graph, &known.masks);
        let mut cost = network(&steps, model, request.queues)?;
        if request.framework == Some(Framework::Eager) {
            cost.total = cost.total.dispatched(model.dispatch() * kernels(&steps) as f64);
        }
        Ok((steps, cost))
    };
    let dense = run(graph, &Assignment::dense())?;
    let shrunk = shrink(graph, request.assignment, known.round_to, &mut warnings)?;
    let asked = shrunk.as_ref().unwrap_or(graph);
    let pruned = if request.assignment.rules.is_empty() { None } else { Some(run(asked, request.assignment)?) };
    let (steps, cost) = pruned.as_ref().unwrap_or(&dense);

    let dense_times: HashMap<&str, Seconds> = dense
        .0
        .iter()
        .zip(&dense.1.steps)
        .filter_map(|(s, c)| Some((graph.layer(s.lead).name.as_str(), c.as_ref()?.time)))
        .collect();
    let mut layers = Vec::with_capacity(steps.len());
    let mut running: Vec<Vec<usize>> = Vec::with_capacity(steps.len());
    for (i, (step, cost)) in steps.iter().zip(&cost.steps).enumerate() {
        // A view runs nothing: who reads it reads what it shows.
        let mut reads: Vec<usize> = step.reads.iter().flat_map(|&(from, _)| running[from].iter().copied()).collect();
        reads.sort_unstable();
        reads.dedup();
        let Some(cost) = cost else {
            running.push(reads);
            continue;
        };
        let name = |s: usize| asked.layer(steps[s].lead).name.clone();
        let dense = dense_times.get(asked.layer(step.lead).name.as_str()).copied();
        let mut row = row(asked, step, cost, dense, request.assignment, model);
        row.inputs = reads.into_iter().map(name).collect();
        layers.push(row);
        running.push(vec![i]);
    }
    let total = &cost.total;
    let weight_bytes: f64 = layers.iter().map(|l| l.weight_bytes + l.metadata_bytes).sum();
    if let Some(capacity) = request.profile.memory.capacity.filter(|c| c.get() < weight_bytes) {
        warnings.push(format!(
            "the weights alone ({}) do not fit into the {capacity} of memory; the times are those of a machine with more",
            Bytes(weight_bytes)
        ));
    }
    let batch =
        graph.layers().find(|l| matches!(l.op, crate::workload::Op::Input)).and_then(|l| l.shape().first().copied());
    Ok(Estimate {
        profile: request.profile.name.clone(),
        workload: graph.name.clone(),
        dtype: request.dtype,
        batch: batch.unwrap_or(1),
        machine: Machine::of(request.profile, request.dtype, request.options),
        total: Totals {
            latency_s: total.time.get(),
            latency_low_s: total.interval.0.get(),
            latency_high_s: total.interval.1.get(),
            cycles: total.cycles.get(),
            macs_dense: graph.total_macs()?,
            macs_effectual: total.macs.effectual,
            macs_issued: total.macs.issued,
            dram_bytes: total.traffic.dram().get(),
            weight_bytes,
            energy_j: total.energy.map(|e| e.get()),
            dense_latency_s: dense.1.total.time.get(),
            speedup: dense.1.total.time / total.time,
            overhead_s: total.overhead.get(),
        },
        layers,
        quality: None,
        warnings,
        levels: model.levels().to_vec(),
        last_level: model.last_level(),
    })
}

/// The network without the channels and heads that rules remove; `None` where no rule removes any.
fn shrink(graph: &Graph, assignment: &Assignment, round_to: u64, warnings: &mut Vec<String>) -> Result<Option<Graph>> {
    if !assignment.rules.iter().any(|r| r.choice.pattern.shrinks_graph()) {
        return Ok(None);
    }
    let asked = |layer: &Layer| {
        Some(assignment.choice(&layer.name).pattern).filter(|p| p.shrinks_graph() && lower::layer::takes_rules(layer))
    };
    let shrunk = lower::shrink::shrink_rounded(graph, asked, round_to)?;
    let mut skipped: Vec<(&str, &str)> = Vec::new();
    for outcome in &shrunk.outcomes {
        if assignment.rule(&outcome.layer).is_some_and(|r| r.names_one_layer(&outcome.layer)) {
            outcome.required()?;
        }
        if let Outcome::NotApplicable(reason) = &outcome.outcome {
            skipped.push((&outcome.layer, reason));
        }
    }
    if let (true, Some(first)) = (shrunk.cuts.is_empty(), shrunk.outcomes.first()) {
        first.required()?;
    }
    if let Some((layer, reason)) = skipped.first() {
        let others = match skipped.len() {
            1 => String::new(),
            n => format!(" (and {} more layers)", n - 1),
        };
        warnings.push(format!("`{layer}`{others} keeps its channels: {reason}"));
    }
    for cut in shrunk.cuts.iter().filter(|c| c.disagreement.is_some()) {
        warnings.push(format!(
            "the layers {} share their channels and ask for different fractions; {} of {} stay",
            cut.producers.join(", "),
            cut.kept,
            cut.total
        ));
    }
    Ok(Some(shrunk.graph))
}

fn single_product(gemm: Gemm, request: &Request<'_>, model: &dyn CostModel) -> Result<Estimate> {
    let name = format!("{}x{}x{}", gemm.m, gemm.n, gemm.k);
    let choice = request.assignment.choice(&name);
    let macs = gemm.macs().ok_or_else(|| crate::error::Error::Overflow { what: format!("the MACs of {name}") })?;
    let dense = SparseGemm::dense(gemm, request.dtype);
    let mut asked = gemm;
    if let SparsityPattern::Channel(s) | SparsityPattern::Head(s) = choice.pattern {
        asked.n = crate::sparsity::mask::kept(gemm.n, s).max(1);
    }
    let mut op = SparseGemm::with_pattern(asked, request.dtype, choice.pattern);
    if choice.format.is_some() && !choice.pattern.shrinks_graph() {
        op.weights = crate::sparsity::WeightStats::expected(choice.pattern, asked.n, asked.k);
        op.format = choice.storage()?;
        op.format_free = false;
    }
    let dense_cost = model.cost(&Lowered::Gemm(dense))?;
    let cost = model.cost(&Lowered::Gemm(op.clone()))?;
    let note = lower::layer::remainder(op.weights.pattern(), op.gemm.n, op.gemm.k);
    let mut layer = blank(name.clone(), "gemm".into(), &cost, model);
    fill_product(&mut layer, &op);
    layer.pattern = choice.pattern.to_string();
    layer.speedup = Some(dense_cost.time / cost.time);
    layer.dense_latency_s = Some(dense_cost.time.get());
    layer.note = notes(&cost, note, &[]);
    Ok(Estimate {
        profile: request.profile.name.clone(),
        workload: name,
        dtype: request.dtype,
        batch: 1,
        machine: Machine::of(request.profile, request.dtype, request.options),
        total: Totals {
            latency_s: cost.time.get(),
            latency_low_s: cost.interval.0.get(),
            latency_high_s: cost.interval.1.get(),
            cycles: cost.compute.get(),
            macs_dense: macs,
            macs_effectual: cost.macs.effectual,
            macs_issued: cost.macs.issued,
            dram_bytes: cost.traffic.dram().get(),
            weight_bytes: layer.weight_bytes + layer.metadata_bytes,
            energy_j: cost.energy.map(|e| e.get()),
            dense_latency_s: dense_cost.time.get(),
            speedup: dense_cost.time / cost.time,
            overhead_s: cost.overhead.get(),
        },
        layers: vec![layer],
        quality: None,
        warnings: Vec::new(),
        levels: model.levels().to_vec(),
        last_level: model.last_level(),
    })
}

fn row(
    graph: &Graph,
    step: &Step,
    cost: &LayerCost,
    dense: Option<Seconds>,
    assignment: &Assignment,
    model: &dyn CostModel,
) -> Row {
    let lead = graph.layer(step.lead);
    let mut row = blank(lead.name.clone(), lead.spelled.clone(), cost, model);
    let product = step.ops.iter().rev().find_map(|op| match op {
        Lowered::Gemm(g) => Some(g),
        _ => None,
    });
    if let Some(g) = product {
        fill_product(&mut row, g);
    }
    let all = |f: fn(&SparseGemm, StorageFormat) -> f64| -> f64 {
        step.ops
            .iter()
            .map(|op| match op {
                Lowered::Gemm(g) if !matches!(g.source, lower::Source::Activations) => f(g, g.format),
                _ => 0.0,
            })
            .sum()
    };
    row.weight_bytes = all(|g, f| f.bytes(&g.weights, g.dtype).values.get() * g.gemm.groups as f64);
    row.metadata_bytes = all(|g, f| f.bytes(&g.weights, g.dtype).metadata.get() * g.gemm.groups as f64);
    if step.prunable {
        row.pattern = assignment.choice(&lead.name).pattern.to_string();
    }
    row.speedup = dense.map(|d| d / cost.time);
    row.dense_latency_s = dense.map(Seconds::get);
    let fused: Vec<&str> = step.fused.iter().map(|&n: &NodeIndex| graph.layer(n).spelled.as_str()).collect();
    row.note = notes(cost, step.note.clone(), &fused);
    row
}

fn fill_product(row: &mut Row, g: &SparseGemm) {
    row.groups = Some(g.gemm.groups);
    row.m = Some(g.gemm.m.saturating_mul(g.steps()));
    row.n = Some(g.gemm.n);
    row.k = Some(g.gemm.k);
    if !matches!(g.source, lower::Source::Activations) {
        let stored = g.format.bytes(&g.weights, g.dtype);
        row.weight_bytes = stored.values.get() * g.gemm.groups as f64;
        row.metadata_bytes = stored.metadata.get() * g.gemm.groups as f64;
    }
}

fn blank(name: String, op: String, cost: &LayerCost, model: &dyn CostModel) -> Row {
    Row {
        name,
        op,
        groups: None,
        m: None,
        n: None,
        k: None,
        pattern: "dense".into(),
        format: cost.executed.format.name().to_string(),
        executed: cost.executed.pattern.to_string(),
        kernel: cost.executed.kernel.into(),
        latency_s: cost.time.get(),
        cycles: cost.compute.get(),
        bound: bound_name(model, cost),
        traffic: LevelBytes::new(model, &cost.traffic),
        utilization: cost.utilization,
        speedup: None,
        note: String::new(),
        latency_low_s: cost.interval.0.get(),
        latency_high_s: cost.interval.1.get(),
        dense_latency_s: None,
        overhead_s: cost.overhead.get(),
        macs_dense: cost.macs.dense,
        macs_effectual: cost.macs.effectual,
        macs_issued: cost.macs.issued,
        weight_bytes: 0.0,
        metadata_bytes: 0.0,
        energy_j: cost.energy.map(|e| e.get()),
        inputs: Vec::new(),
        convention: cost.convention.as_deref().map(ConventionRow::from),
    }
}

fn notes(cost: &LayerCost, remainder: Option<String>, fused: &[&str]) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(cost.executed.fallback.as_ref().map(ToString::to_string));
    parts.extend(remainder);
    if !fused.is_empty() {
        parts.push(format!("fused: {}", fused.join(", ")));
    }
    parts.join("; ")
}
