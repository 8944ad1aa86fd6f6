//! What a network is: layers, shapes, parameters, MACs.

use super::table::PLAIN;
use crate::dtype::DType;
use crate::error::Result;
use crate::sparsity::groups::{Groups, Kind};
use crate::workload::Graph;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;
use std::collections::BTreeMap;

/// The answer of `hwsim inspect`.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The network.
    pub name: String,
    /// Format in which its weights are stored; `fp32` where the source does not say.
    pub dtype: DType,
    /// Stored elements, shared ones once.
    pub params: u64,
    /// Multiply–accumulates: bias excluded, attention products included, causal attention not halved.
    pub macs: u64,
    /// Layers in topological order.
    pub layers: Vec<InspectedLayer>,
    /// Layers whose channels must be pruned together.
    pub groups: Vec<Vec<String>>,
    /// Every dependency group, those that must stay whole with the reason.
    pub dependencies: Vec<Dependency>,
    /// Shape of every tensor that has a name: inputs, stored tensors, folded constants, outputs of layers.
    pub tensors: BTreeMap<String, Vec<u64>>,
    /// What the importer had to assume.
    pub warnings: Vec<String>,
}

/// Channels or heads that can only go together.
#[derive(Clone, Debug, Serialize)]
pub struct Dependency {
    /// `channel` or `head`.
    pub unit: &'static str,
    /// Units that there are.
    pub units: u64,
    /// Output channels of the first producer that one unit stands for.
    pub width: u64,
    /// Layers that make them.
    pub producers: Vec<String>,
    /// Layers that read them.
    pub consumers: Vec<String>,
    /// Why none may go, with the operator's name; `None` where they may.
    pub kept_by: Option<String>,
    /// An operator that takes a statistic over them: removing them is then not the same as zeroing them.
    pub statistic: Option<String>,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedLayer {
    /// Its name.
    pub name: String,
    /// The operator as the source spells it.
    pub op: String,
    /// The layers that it reads.
    pub inputs: Vec<String>,
    /// Shape of its first output.
    pub output_shape: Vec<u64>,
    /// Stored elements that it is the first to read.
    pub params: u64,
    /// Multiply–accumulates.
    pub macs: u64,
}

impl Inspection {
    /// Collects the facts of a network.
    ///
    /// # Errors
    /// Counts past 2^64 − 1.
    pub fn of(graph: &Graph) -> Result<Self> {
        let mut layers = Vec::with_capacity(graph.len());
        let mut tensors = BTreeMap::new();
        for t in &graph.constants {
            tensors.insert(t.name.clone(), t.shape.clone());
        }
        for &node in graph.order() {
            let layer = graph.layer(node);
            for t in &layer.outputs {
                tensors.insert(t.name.clone(), t.shape.clone());
            }
            layers.push(InspectedLayer {
                name: layer.name.clone(),
                op: layer.spelled.clone(),
                inputs: graph.inputs(node).into_iter().map(|(n, _)| graph.layer(n).name.clone()).collect(),
                output_shape: layer.shape().to_vec(),
                params: layer.parameter_count()?,
                macs: graph.macs(node)?,
            });
        }
        let groups = Groups::analyse(graph);
        let own = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let dependencies = groups.all().iter().map(|g| Dependency {
            unit: match g.kind {
                Kind::Channel => "channel",
                Kind::Head => "head",
            },
            units: g.size,
            width: g.width,
            producers: own(g.producers()),
            consumers: own(g.consumers()),
            kept_by: g.frozen.clone(),
            statistic: g.mixed_by.clone(),
        });
        Ok(Self {
            dependencies: dependencies.filter(|d| !d.producers.is_empty()).collect(),
            name: graph.name.clone(),
            dtype: graph.dtype.unwrap_or(DType::Fp32),
            params: graph.total_parameters()?,
            macs: graph.total_macs()?,
            layers,
            groups: groups.prunable().map(|g| own(g.producers())).filter(|names| !names.is_empty()).collect(),
            tensors,
            warnings: graph.warnings.clone(),
        })
    }

    /// For people.
    pub fn table(&self, width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(PLAIN).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = width {
            table.set_width(width);
        }
        table.set_header(["layer", "op", "output", "params", "MACs"]);
        for layer in &self.layers {
            let shape: Vec<String> = layer.output_shape.iter().map(u64::to_string).collect();
            table.add_row([
                layer.name.clone(),
                layer.op.clone(),
                shape.join("×"),
                count(layer.params),
                count(layer.macs),
            ]);
        }
        table.add_row([
            "total".to_owned(),
            format!("{} layers", self.layers.len()),
            String::new(),
            self.params.to_string(),
            self.macs.to_string(),
        ]);
        for column in [3, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        if self.dependencies.is_empty() {
            return table.trim_fmt();
        }
        format!("{}\n\n{}", table.trim_fmt(), self.groups_table(width))
    }

    /// The dependency groups: those that may lose units first, then those that stay whole and why.
    fn groups_table(&self, width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(PLAIN).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = width {
            table.set_width(width);
        }
        table.set_header(["channels that go together", "unit", "units", "kept whole by"]);
        let (free, kept): (Vec<_>, Vec<_>) = self.dependencies.iter().partition(|d| d.kept_by.is_none());
        for d in free.into_iter().chain(kept) {
            let names = match &d.producers[..] {
                [a, b, c, rest @ ..] if !rest.is_empty() => format!("{a}, {b}, {c} and {} more", rest.len()),
                all => all.join(", "),
            };
            let why = d.kept_by.clone().unwrap_or_default();
            table.add_row([names, d.unit.to_owned(), d.units.to_string(), why]);
        }
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt()
    }
}

fn count(n: u64) -> String {
    if n == 0 { String::new() } else { n.to_string() }
}
