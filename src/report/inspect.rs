//! What a network is: layers, shapes, parameters, MACs.

use super::table::PLAIN;
use crate::dtype::DType;
use crate::error::Result;
use crate::sparsity::groups::Groups;
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
    /// Shape of every tensor that has a name: inputs, stored tensors, folded constants, outputs of layers.
    pub tensors: BTreeMap<String, Vec<u64>>,
    /// What the importer had to assume.
    pub warnings: Vec<String>,
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
        Ok(Self {
            name: graph.name.clone(),
            dtype: graph.dtype.unwrap_or(DType::Fp32),
            params: graph.total_parameters()?,
            macs: graph.total_macs()?,
            layers,
            groups: Groups::analyse(graph)
                .prunable()
                .map(|g| g.producers().into_iter().map(str::to_owned).collect::<Vec<_>>())
                .filter(|names| !names.is_empty())
                .collect(),
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
        table.trim_fmt()
    }
}

fn count(n: u64) -> String {
    if n == 0 { String::new() } else { n.to_string() }
}
