//! What a network's stored weights look like: zeros and the structure they form, dead and duplicate channels, subnormals.

use super::estimate::{Request, Target, default_dtype, estimate};
use super::table::PLAIN;
use crate::cost::{Options, Timing};
use crate::error::Result;
use crate::lower::Assignment;
use crate::lower::assign::Rule;
use crate::pattern::SparsityPattern;
use crate::profile::Profile;
use crate::prune::plan::view;
use crate::prune::tensor::View;
use crate::sparsity::structure::Structure;
use crate::workload::layer::{Layer, Param, Role};
use crate::workload::weights::{Stored, decode, width};
use crate::workload::{Graph, onnx::Model};
use comfy_table::{CellAlignment, ContentArrangement, Table};
use rayon::prelude::*;
use serde::Serialize;

/// The answer of `hwsim inspect --weights`.
#[derive(Clone, Debug, Serialize)]
pub struct WeightReport {
    /// The network.
    pub name: String,
    /// One row a weight, in the order of the network.
    pub tensors: Vec<TensorReport>,
    /// What it comes to.
    pub sentences: Vec<String>,
}

/// One weight.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// The layer.
    pub layer: String,
    /// The stored tensor.
    pub tensor: String,
    /// Its type.
    pub dtype: String,
    /// Elements.
    pub elements: u64,
    /// Of them zero.
    pub zeros: u64,
    /// The strictest pattern that describes the zeros; empty where there are too few to describe.
    pub structure: String,
    /// Outputs without a nonzero weight.
    pub dead_outputs: u64,
    /// Inputs without a nonzero weight.
    pub dead_inputs: u64,
    /// Outputs that repeat an earlier one.
    pub duplicate_outputs: u64,
    /// Numbers too small for a normal float.
    pub subnormals: u64,
    /// Infinities and NaNs.
    pub non_finite: u64,
    /// Predicted speedup of the layer on the profile, running it in the form that its zeros allow.
    pub speedup: Option<f64>,
    /// Why it was not looked at.
    pub note: String,
}

impl WeightReport {
    /// Looks at every weight, layers in parallel, each as fp32 for as long as it is looked at. With a profile, says
    /// which structure it can use.
    ///
    /// # Errors
    /// What estimating on the profile refuses.
    pub fn of(model: &Model, profile: Option<&Profile>) -> Result<Self> {
        let weights: Vec<(&Layer, &Param)> = model
            .graph
            .layers()
            .flat_map(|l| l.params.iter().filter(|p| p.role == Role::Weight).map(move |p| (l, p)))
            .collect();
        let mut tensors: Vec<(TensorReport, Option<SparsityPattern>)> =
            weights.par_iter().map(|(layer, param)| row(model, layer, param)).collect();
        if let Some(profile) = profile {
            speedups(&model.graph, profile, &mut tensors)?;
        }
        let sentences = sentences(&tensors, profile);
        let tensors = tensors.into_iter().map(|(row, _)| row).collect();
        Ok(Self { name: model.graph.name.clone(), tensors, sentences })
    }

    /// For people.
    pub fn table(&self, width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(PLAIN).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = width {
            table.set_width(width);
        }
        table.set_header([
            "layer",
            "dtype",
            "elements",
            "% zero",
            "structure",
            "dead out",
            "dead in",
            "twice",
            "subnormal",
        ]);
        let some = |n: u64| if n == 0 { String::new() } else { n.to_string() };
        for t in &self.tensors {
            let share = 100.0 * t.zeros as f64 / t.elements.max(1) as f64;
            table.add_row([
                t.layer.clone(),
                t.dtype.clone(),
                t.elements.to_string(),
                if t.note.is_empty() { format!("{share:.1}") } else { t.note.clone() },
                t.structure.clone(),
                some(t.dead_outputs),
                some(t.dead_inputs),
                some(t.duplicate_outputs),
                some(t.subnormals),
            ]);
        }
        for column in [2, 3, 5, 6, 7, 8] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{}\n\n{}", table.trim_fmt(), self.sentences.join("\n"))
    }
}

fn row(model: &Model, layer: &Layer, param: &Param) -> (TensorReport, Option<SparsityPattern>) {
    let mut row = TensorReport {
        layer: layer.name.clone(),
        tensor: param.name.clone(),
        dtype: String::new(),
        elements: param.elements().unwrap_or(0),
        zeros: 0,
        structure: String::new(),
        dead_outputs: 0,
        dead_inputs: 0,
        duplicate_outputs: 0,
        subnormals: 0,
        non_finite: 0,
        speedup: None,
        note: String::new(),
    };
    let looked = look(model, layer, param, &mut row);
    match looked {
        Ok(s) => {
            row.zeros = s.zeros;
            row.structure = s.pattern.map_or_else(String::new, named);
            row.dead_outputs = s.zero_rows;
            row.dead_inputs = s.zero_columns;
            row.duplicate_outputs = s.duplicate_rows;
            row.subnormals = s.subnormals;
            row.non_finite = s.non_finite;
            (row, s.pattern)
        }
        Err(note) => {
            row.note = note;
            (row, None)
        }
    }
}

/// A pattern with its fraction in two digits.
fn named(pattern: SparsityPattern) -> String {
    let text = pattern.to_string();
    match text.split_once('@') {
        Some((kind, _)) => format!("{kind}@{:.2}", 1.0 - pattern.density()),
        None => text,
    }
}

fn look(model: &Model, layer: &Layer, param: &Param, row: &mut TensorReport) -> Result<Structure, String> {
    let stored: &Stored = model.weights.get(&param.name).ok_or("computed from other tensors")?;
    row.dtype = format!("{:?}", stored.elem).to_lowercase();
    if stored.elements() != row.elements || width(stored.elem).is_none() {
        return Err("not stored as a matrix of numbers".to_owned());
    }
    let raw = stored.raw()?;
    let view = view(layer, param, &param.shape).ok_or("not a matrix of outputs by inputs")?;
    if model.weights.reordered.contains(&param.name) {
        return Err("reaches the layer with its axes in another order".to_owned());
    }
    let View { groups, n, k, transposed } = view;
    let mut all = vec![0f32; groups * n * k];
    decode(stored.elem, &raw, &mut all);
    if transposed {
        let mut turned = vec![0f32; all.len()];
        for g in 0..groups {
            for c in 0..k {
                for r in 0..n {
                    turned[(g * n + r) * k + c] = all[(g * k + c) * n + r];
                }
            }
        }
        all = turned;
    }
    Ok(Structure::of(&all, groups * n, k))
}

/// What the profile makes of each layer's structure, by the same model that estimates networks.
fn speedups(graph: &Graph, profile: &Profile, tensors: &mut [(TensorReport, Option<SparsityPattern>)]) -> Result<()> {
    let rules: Vec<Rule> = tensors
        .iter()
        .filter_map(|(row, pattern)| Some(format!("{}={}", globset::escape(&row.layer), (*pattern)?)))
        .filter_map(|text| text.parse().ok())
        .collect();
    if rules.is_empty() {
        return Ok(());
    }
    let request = Request {
        profile,
        assignment: &Assignment { rules },
        dtype: graph.dtype.unwrap_or_else(|| default_dtype(profile)),
        options: Options { threads: None, timing: Timing::Cold },
        queues: 1,
        fuse: true,
        framework: None,
    };
    let answer = estimate(&Target::Network(graph), &request)?;
    for (row, pattern) in tensors.iter_mut().filter(|t| t.1.is_some()) {
        let layer = answer.layers.iter().find(|l| l.name == row.layer);
        row.speedup = pattern.and(layer).and_then(|l| l.speedup);
    }
    Ok(())
}

/// Whether zeros lie where a kernel could expect them.
fn is_structured(pattern: SparsityPattern) -> bool {
    !pattern.is_dense() && !matches!(pattern, SparsityPattern::Unstructured(_))
}

/// Below this a predicted speedup is within what measurements vary by.
const USEFUL: f64 = 1.02;

fn sentences(tensors: &[(TensorReport, Option<SparsityPattern>)], profile: Option<&Profile>) -> Vec<String> {
    let seen: Vec<&(TensorReport, Option<SparsityPattern>)> = tensors.iter().filter(|t| t.0.note.is_empty()).collect();
    let sum = |f: fn(&TensorReport) -> u64| seen.iter().map(|t| f(&t.0)).sum::<u64>();
    let (elements, zeros) = (sum(|t| t.elements), sum(|t| t.zeros));
    if elements == 0 {
        return vec!["no stored weights could be looked at".to_owned()];
    }
    let share = 100.0 * zeros as f64 / elements as f64;
    let mut text = Vec::new();
    let mut kinds: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    for (row, pattern) in &seen {
        let kind = match pattern {
            Some(SparsityPattern::Nm { n, m }) => format!("{n}:{m}"),
            Some(SparsityPattern::Block { rows, cols, .. }) => format!("blocks of {rows}x{cols}"),
            Some(SparsityPattern::Row(_)) => "whole rows".to_owned(),
            Some(SparsityPattern::Column(_)) => "whole columns".to_owned(),
            Some(_) => "no structure".to_owned(),
            None => "dense".to_owned(),
        };
        *kinds.entry(kind).or_default() += row.elements;
    }
    let main = kinds.iter().max_by_key(|(_, n)| **n).map(|(k, n)| (k.as_str(), *n as f64 / elements as f64));
    match main {
        Some((kind, part)) if part > 0.95 && kind != "dense" && kind != "no structure" => {
            text.push(format!("this checkpoint is {kind} already: {share:.1} % zeros"));
        }
        Some(("dense", part)) if part > 0.95 => text.push(format!("{share:.1} % zeros: this checkpoint is dense")),
        _ => {
            let part =
                |(k, n): (&String, &u64)| format!("{k} in {:.0} % of the weights", 100.0 * *n as f64 / elements as f64);
            text.push(format!("{share:.1} % zeros: {}", kinds.iter().map(part).collect::<Vec<_>>().join(", ")));
        }
    }
    if let Some(profile) = profile {
        let useful = seen.iter().filter(|t| t.0.speedup.is_some_and(|s| s > USEFUL)).count();
        let sparse = seen.iter().filter(|t| t.1.is_some()).count();
        text.push(match (sparse, useful) {
            (0, _) => format!("{share:.1} % zeros, nothing that {} could skip", profile.name),
            (_, 0) if seen.iter().any(|t| t.1.is_some_and(is_structured)) => format!(
                "{share:.1} % zeros, from whose structure {} gains nothing at these sizes in the format they are stored in",
                profile.name
            ),
            (_, 0) => format!("{share:.1} % zeros, no structure that {} can use", profile.name),
            (all, some) => format!("{} gains from the zeros of {some} of {all} sparse layers", profile.name),
        });
    }
    let counts = [
        (sum(|t| t.dead_outputs), "outputs have no nonzero weight: their channels can be removed"),
        (sum(|t| t.duplicate_outputs), "outputs repeat another one of their layer exactly: they can be merged"),
        (
            sum(|t| t.subnormals),
            "weights are subnormal: they slow down CPUs that do not flush them to zero; zero them, or run with flush-to-zero",
        ),
        (sum(|t| t.non_finite), "weights are infinite or not a number: the checkpoint is damaged"),
    ];
    text.extend(counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    text
}
