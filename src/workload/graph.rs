//! The network as a directed acyclic graph (petgraph) with validation and shape inference.

use super::layer::*;
use super::shape;
use crate::dtype::DType;
use crate::error::{Error, Result};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A tensor flows from output `output` of one layer into input `input` of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Which output of the producer.
    pub output: u32,
    /// Which input of the consumer.
    pub input: u32,
}

/// A layer as a specification names it, before shapes are known.
#[derive(Clone, Debug)]
pub struct LayerSpec {
    /// Unique name.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Names of the layers it reads, in order; `name:i` for output i of a layer with several.
    pub inputs: Vec<String>,
    /// Shape of an [`Op::Input`] or [`Op::Parameter`].
    pub shape: Option<Shape>,
    /// How the source spells the operator.
    pub spelled: String,
}

/// A validated network: acyclic, every input connected, every shape known, layers in a stable topological order.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The network's name.
    pub name: String,
    /// Papers or files it was taken from.
    pub sources: Vec<String>,
    /// What the importer could not follow exactly.
    pub warnings: Vec<String>,
    /// Named tensors that no layer produces (initializers, folded constants); only importers fill it.
    pub constants: Vec<Tensor>,
    /// Stored elements that no layer has as a parameter (inputs of folded constants, branches that do not run); only
    /// importers fill it.
    pub unowned: u64,
    /// Names of tensors that the network answers with although layers read them too; what nobody reads is an answer anyway.
    pub answers: Vec<String>,
    /// Format in which the source stores most of its weights, where it says.
    pub dtype: Option<DType>,
    dag: DiGraph<Layer, Edge>,
    order: Vec<NodeIndex>,
}

impl Graph {
    /// Connects named layers, checks the result and infers every shape and parameter.
    ///
    /// # Errors
    /// Duplicate names, inputs that nothing produces, cycles (the layers of one are named), shapes that do not fit,
    /// counts past 2^64 − 1.
    pub fn build(name: &str, specs: Vec<LayerSpec>) -> Result<Self> {
        let wires = wires(name, &specs)?;
        let mut dag = DiGraph::with_capacity(specs.len(), wires.len());
        for spec in specs {
            let outputs = match (&spec.op, spec.shape) {
                (Op::Input | Op::Parameter, None) => {
                    return Err(Error::layer(name, &spec.name, "an input needs a shape"));
                }
                (_, None) => Vec::new(),
                (_, Some(shape)) => vec![Tensor { name: spec.name.clone(), shape }],
            };
            let params = match (&spec.op, outputs.first()) {
                (Op::Parameter, Some(t)) => vec![Param::new(Role::Constant, t.shape.clone())],
                _ => Vec::new(),
            };
            dag.add_node(Layer { name: spec.name, op: spec.op, spelled: spec.spelled, outputs, params });
        }
        for (source, node, edge) in wires {
            dag.add_edge(NodeIndex::new(source), NodeIndex::new(node), edge);
        }
        let mut graph = Self::ordered(name, dag)?;
        graph.infer()?;
        Ok(graph)
    }

    /// Takes layers whose output shapes and parameters are already known (an importer's), with edges
    /// `(producer, output, consumer, input)` by position in `layers`.
    ///
    /// # Errors
    /// Duplicate names, edges out of range, cycles.
    pub fn from_layers(name: &str, layers: Vec<Layer>, edges: &[(usize, u32, usize, u32)]) -> Result<Self> {
        let mut dag = DiGraph::with_capacity(layers.len(), edges.len());
        let mut seen = HashMap::with_capacity(layers.len());
        for layer in layers {
            if seen.insert(layer.name.clone(), ()).is_some() {
                return Err(Error::layer(name, &layer.name, "a second layer has this name; names must be unique"));
            }
            dag.add_node(layer);
        }
        for &(from, output, to, input) in edges {
            let valid = from < dag.node_count()
                && to < dag.node_count()
                && (output as usize) < dag[NodeIndex::new(from)].outputs.len();
            if !valid {
                let reason = format!("an edge {from}:{output} → {to}:{input} connects nothing");
                return Err(Error::Graph { graph: name.into(), layer: None, reason });
            }
            dag.add_edge(NodeIndex::new(from), NodeIndex::new(to), Edge { output, input });
        }
        Self::ordered(name, dag)
    }

    fn ordered(name: &str, dag: DiGraph<Layer, Edge>) -> Result<Self> {
        if dag.node_count() == 0 {
            return Err(Error::Graph { graph: name.into(), layer: None, reason: "it has no layers".into() });
        }
        let order = topological_order(&dag).ok_or_else(|| {
            let cycle = petgraph::algo::tarjan_scc(&dag)
                .into_iter()
                .find(|c| c.len() > 1 || dag.find_edge(c[0], c[0]).is_some())
                .unwrap_or_default();
            let names: Vec<_> = cycle.iter().rev().take(6).map(|&n| dag[n].name.as_str()).collect();
            let reason =
                format!("layers form a cycle ({} → …); remove the edge that points backwards", names.join(" → "));
            Error::layer(name, names.first().copied().unwrap_or_default(), reason)
        })?;
        Ok(Self {
            name: name.into(),
            sources: Vec::new(),
            warnings: Vec::new(),
            constants: Vec::new(),
            unowned: 0,
            answers: Vec::new(),
            dtype: None,
            dag,
            order,
        })
    }

    fn infer(&mut self) -> Result<()> {
        for i in 0..self.order.len() {
            let node = self.order[i];
            if !self.dag[node].outputs.is_empty() {
                continue;
            }
            // Taken out and put back settled: the shapes that it is settled with are borrowed from the same graph.
            let mut op = std::mem::replace(&mut self.dag[node].op, Op::Opaque);
            let at = |reason: String| Error::layer(&self.name, &self.dag[node].name, reason);
            let mut inputs: Vec<(u32, &[u64])> = Vec::with_capacity(2);
            for edge in self.dag.edges_directed(node, Direction::Incoming) {
                let Edge { output, input } = *edge.weight();
                let producer = &self.dag[edge.source()];
                let tensor = producer
                    .outputs
                    .get(output as usize)
                    .ok_or_else(|| at(format!("`{}` has no output {output}", producer.name)))?;
                inputs.push((input, &tensor.shape));
            }
            inputs.sort_unstable_by_key(|&(i, _)| i);
            let shapes: Vec<&[u64]> = inputs.into_iter().map(|(_, s)| s).collect();
            shape::settle(&mut op, &shapes).map_err(at)?;
            let outputs = shape::infer(&op, &shapes).map_err(at)?;
            let params = shape::parameters(&op, &shapes).map_err(at)?;
            let name = self.dag[node].name.clone();
            let outputs = outputs.into_iter().enumerate().map(|(o, shape)| {
                let name = if o == 0 { name.clone() } else { format!("{name}:{o}") };
                Tensor { name, shape }
            });
            let outputs: Vec<Tensor> = outputs.collect();
            if outputs.iter().any(|t| elements(&t.shape).is_none()) {
                return Err(Error::Overflow { what: format!("the output of layer `{name}`") });
            }
            let layer = &mut self.dag[node];
            layer.op = op;
            layer.outputs = outputs;
            layer.params = params;
        }
        Ok(())
    }

    /// Number of layers, graph inputs included.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether it has no layers; a built graph always has some.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Nodes in topological order: the source's own order wherever that is one.
    pub fn order(&self) -> &[NodeIndex] {
        &self.order
    }

    /// The layer at a node.
    pub fn layer(&self, node: NodeIndex) -> &Layer {
        &self.dag[node]
    }

    /// The layer at a node, to be changed; its shapes are the caller's to keep consistent.
    pub fn layer_mut(&mut self, node: NodeIndex) -> &mut Layer {
        &mut self.dag[node]
    }

    /// Layers in topological order.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.order.iter().map(|&n| &self.dag[n])
    }

    /// What a layer reads, by input position: (producer, which of its outputs).
    pub fn inputs(&self, node: NodeIndex) -> Vec<(NodeIndex, u32)> {
        let mut inputs: Vec<(u32, NodeIndex, u32)> = self
            .dag
            .edges_directed(node, Direction::Incoming)
            .map(|e| (e.weight().input, e.source(), e.weight().output))
            .collect();
        inputs.sort_unstable_by_key(|&(i, ..)| i);
        inputs.into_iter().map(|(_, n, o)| (n, o)).collect()
    }

    /// Shapes of what a layer reads, by input position.
    pub fn input_shapes(&self, node: NodeIndex) -> Vec<&[u64]> {
        self.inputs(node).into_iter().map(|(n, o)| &self.dag[n].outputs[o as usize].shape[..]).collect()
    }

    /// The layers that read a layer's outputs, with the edge; in order of position.
    pub fn consumers(&self, node: NodeIndex) -> Vec<(NodeIndex, Edge)> {
        let mut consumers: Vec<_> =
            self.dag.edges_directed(node, Direction::Outgoing).map(|e| (e.target(), *e.weight())).collect();
        consumers.sort_unstable_by_key(|&(n, e)| (n, e.input));
        consumers
    }

    /// Multiply–accumulates of one layer.
    ///
    /// # Errors
    /// [`Error::Overflow`] past 2^64 − 1.
    pub fn macs(&self, node: NodeIndex) -> Result<u64> {
        let layer = &self.dag[node];
        shape::macs(&layer.op, &self.input_shapes(node), &layer.outputs)
            .ok_or_else(|| Error::Overflow { what: format!("the MACs of layer `{}`", layer.name) })
    }

    /// Multiply–accumulates of the whole network.
    ///
    /// # Errors
    /// [`Error::Overflow`] past 2^64 − 1.
    pub fn total_macs(&self) -> Result<u64> {
        self.order.iter().try_fold(0u64, |sum, &n| {
            sum.checked_add(self.macs(n)?)
                .ok_or_else(|| Error::Overflow { what: format!("the MACs of `{}`", self.name) })
        })
    }

    /// Stored parameters of the whole network, shared ones once.
    ///
    /// # Errors
    /// [`Error::Overflow`] past 2^64 − 1.
    pub fn total_parameters(&self) -> Result<u64> {
        self.layers().try_fold(self.unowned, |sum, l| {
            sum.checked_add(l.parameter_count()?)
                .ok_or_else(|| Error::Overflow { what: format!("the parameters of `{}`", self.name) })
        })
    }
}

/// The edges (producer, consumer, which of their tensors) that the names of inputs mean.
fn wires(graph: &str, specs: &[LayerSpec]) -> Result<Vec<(usize, usize, Edge)>> {
    let mut index: HashMap<&str, usize> = HashMap::with_capacity(specs.len());
    for (i, spec) in specs.iter().enumerate() {
        if index.insert(&spec.name, i).is_some() {
            return Err(Error::layer(graph, &spec.name, "a second layer has this name; names must be unique"));
        }
    }
    let mut wires = Vec::with_capacity(specs.len());
    for (node, spec) in specs.iter().enumerate() {
        for (i, from) in spec.inputs.iter().enumerate() {
            let exact = index.get(from.as_str()).map(|&source| (source, 0));
            let indexed = || {
                let (base, output) = from.rsplit_once(':')?;
                Some((*index.get(base)?, output.parse().ok()?))
            };
            let Some((source, output)) = exact.or_else(indexed) else {
                let near = match Error::unknown("layer", from, specs.iter().map(|s| s.name.as_str())) {
                    Error::UnknownName { suggestion: Some(s), .. } => format!("; did you mean `{s}`?"),
                    _ => String::new(),
                };
                let reason = format!("input `{from}` is produced by no layer{near}");
                return Err(Error::layer(graph, &spec.name, reason));
            };
            wires.push((source, node, Edge { output, input: i as u32 }));
        }
    }
    Ok(wires)
}

/// Kahn's algorithm with the lowest position first, so that a source already in order keeps it. `None` on a cycle.
fn topological_order(dag: &DiGraph<Layer, Edge>) -> Option<Vec<NodeIndex>> {
    if dag.edge_references().all(|e| e.source() < e.target()) {
        return Some(dag.node_indices().collect());
    }
    let mut waiting: Vec<usize> =
        dag.node_indices().map(|n| dag.edges_directed(n, Direction::Incoming).count()).collect();
    let mut ready: BinaryHeap<Reverse<NodeIndex>> =
        dag.node_indices().filter(|n| waiting[n.index()] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(dag.node_count());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for next in dag.neighbors_directed(node, Direction::Outgoing) {
            waiting[next.index()] -= 1;
            if waiting[next.index()] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    (order.len() == dag.node_count()).then_some(order)
}
