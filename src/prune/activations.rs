//! What a network computes of calibration inputs: the inputs of every weight layer as statistics, and its answers, with
//! which those of a pruned network are compared.

use super::npz::Array;
use super::rows::{self, Sums};
use super::runtime::{Extent, Port, Session};
use crate::error::{Error, Result};
use crate::sparsity::saliency::Statistics;
use crate::workload::graph::Graph;
use crate::workload::layer::Op;
use crate::workload::onnx;
use crate::workload::options::Options;
use petgraph::graph::NodeIndex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// What a network made of calibration inputs.
#[derive(Debug, Default)]
pub struct Observed {
    /// By layer.
    pub statistics: HashMap<String, Statistics>,
    /// Layers with weights of whose inputs nothing is known, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Runs of the network that the inputs are.
    pub batches: usize,
    feeds: Vec<BTreeMap<String, Array>>,
    outputs: Vec<String>,
    answers: Vec<Vec<Array>>,
}

/// How far an answer of the pruned network lies from the dense one's.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OutputError {
    /// The network's output.
    pub name: String,
    /// ‖y − ŷ‖ over ‖y‖ (Frobenius) over all calibration inputs.
    pub error: f64,
}

impl Observed {
    /// Runs the network of an ONNX file on calibration inputs: arrays named like its inputs, with samples along the first
    /// axis, or `NAME/0`, `NAME/1`, … for several batches. A batch that the file fixes, or that all its inputs and
    /// outputs name alike, is cut from the first axis; all else runs at once.
    ///
    /// # Errors
    /// Arrays that are missing, strange or of another shape or type; what [`Session`] refuses.
    pub fn of(network: &Path, graph: &Graph, arrays: BTreeMap<String, Array>, data: &Path) -> Result<Self> {
        let session = Session::open(network)?;
        let feeds = batches(&session, arrays).map_err(|reason| Error::Model { path: data.into(), reason })?;
        let mut observed = Self { batches: feeds.len(), ..Self::default() };
        observed.outputs = session.outputs().iter().map(|p| p.name.clone()).collect();
        let mut sums: HashMap<String, Vec<Sums>> = HashMap::new();
        let mut bound: Option<(Vec<Vec<u64>>, Graph)> = None;
        for feed in &feeds {
            session.check(feed)?;
            let shapes: Vec<Vec<u64>> = feed.values().map(|a| a.shape.clone()).collect();
            if bound.as_ref().is_none_or(|(of, _)| *of != shapes) {
                // Padding may depend on extents, so the network is read again with those of the inputs.
                let inputs = feed.iter().map(|(name, a)| (name.clone(), a.shape.clone())).collect();
                let options = Options { inputs, ..Options::default() };
                let graph = onnx::import(network, &options)?.graph;
                let readers = Readers::of(&graph, &session);
                observed.skipped = readers.skipped;
                sums.retain(|name, _| readers.list.iter().any(|&(_, node)| graph.layer(node).name == *name));
                bound = Some((shapes, graph));
            }
            let Some((_, graph)) = &bound else { continue };
            let readers = Readers::of(graph, &session).list;
            let mut wanted: Vec<&str> = observed.outputs.iter().map(String::as_str).collect();
            let mut place = HashMap::new();
            for (tensor, _) in &readers {
                place.entry(tensor.as_str()).or_insert_with(|| {
                    wanted.push(tensor);
                    wanted.len() - 1
                });
            }
            let mut values = session.run(feed, &wanted)?;
            for (tensor, node) in &readers {
                let layer = graph.layer(*node);
                let (Some(weight), value) = (layer.weight(), &values[place[tensor.as_str()]]) else { continue };
                let sum = sums.entry(layer.name.clone()).or_default();
                let mut add = |group: usize, rows: &[f32], k: usize| {
                    sum.resize_with(sum.len().max(group + 1), Sums::default);
                    sum[group].add(rows, k);
                };
                if let Err(reason) = rows::visit(layer, weight, value, &mut add) {
                    sums.remove(&layer.name);
                    if observed.skipped.iter().all(|(name, _)| *name != layer.name) {
                        observed.skipped.push((layer.name.clone(), reason));
                    }
                }
            }
            values.truncate(observed.outputs.len());
            observed.answers.push(values);
        }
        // The caller's graph may know fewer layers than that of the inputs' extents.
        let known: HashSet<&str> = graph.layers().map(|l| l.name.as_str()).collect();
        sums.retain(|name, _| known.contains(name.as_str()));
        observed.statistics = sums.into_iter().map(|(name, s)| (name, rows::statistics(s))).collect();
        observed.feeds = feeds;
        Ok(observed)
    }

    /// Runs the pruned network on the same inputs: how far each of its answers lies from the dense one's. Answers that
    /// are integers are not compared.
    ///
    /// # Errors
    /// What [`Session`] refuses; an answer of another shape.
    pub fn compare(&self, pruned: &Path) -> Result<Vec<OutputError>> {
        let session = Session::open(pruned)?;
        let wanted: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let mut sums = vec![(0f64, 0f64, false); wanted.len()];
        for (feed, dense) in self.feeds.iter().zip(&self.answers) {
            for (i, (y, dense)) in session.run(feed, &wanted)?.iter().zip(dense).enumerate() {
                if y.shape != dense.shape {
                    let reason = format!(
                        "its output `{}` is {:?} where the dense network's is {:?}",
                        wanted[i], y.shape, dense.shape
                    );
                    return Err(Error::Model { path: pruned.into(), reason });
                }
                if dense.integers.is_some() {
                    continue;
                }
                sums[i].2 = true;
                for (&a, &b) in dense.values.iter().zip(&y.values).filter(|(a, b)| a != b || a.is_finite()) {
                    sums[i].0 += (f64::from(a) - f64::from(b)).powi(2);
                    sums[i].1 += f64::from(a).powi(2);
                }
            }
        }
        let errors = self.outputs.iter().zip(sums).filter(|(_, (.., compared))| *compared);
        Ok(errors
            .map(|(name, (wrong, right, _))| OutputError {
                name: name.clone(),
                error: if right > 0.0 { (wrong / right).sqrt() } else { 0.0 },
            })
            .collect())
    }
}

/// The runs that arrays are, each with one array an input.
fn batches(session: &Session, arrays: BTreeMap<String, Array>) -> Result<Vec<BTreeMap<String, Array>>, String> {
    let mut lists: BTreeMap<&str, Vec<Array>> = BTreeMap::new();
    let ports = session.inputs();
    let names = || ports.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ");
    let mut numbered: BTreeMap<(&str, u64), Array> = BTreeMap::new();
    let batch = batch_axis(session);
    for (name, array) in arrays {
        if let Some(port) = ports.iter().find(|p| p.name == name) {
            lists.insert(&port.name, cut(port, array, batch.as_deref()));
            continue;
        }
        let apart = name
            .rsplit_once('/')
            .and_then(|(stem, i)| Some((ports.iter().find(|p| p.name == stem)?.name.as_str(), i.parse::<u64>().ok()?)));
        let place = apart.ok_or_else(|| {
            format!("array `{name}` is no input of the network, which reads {}; nor is it named LAYER:x", names())
        })?;
        numbered.insert(place, array);
    }
    for ((name, i), array) in numbered {
        let list = lists.entry(name).or_default();
        if list.len() as u64 != i {
            return Err(format!("array `{name}/{i}` follows {} others of `{name}`; number them from 0 on", list.len()));
        }
        list.push(array);
    }
    if let Some(port) = ports.iter().find(|p| !lists.contains_key(p.name.as_str())) {
        return Err(format!("has no array for the input `{}`; the network reads {}", port.name, names()));
    }
    let count = lists.values().map(Vec::len).max().unwrap_or(1);
    if let Some((name, list)) = lists.iter().find(|(_, l)| l.len() != count && l.len() != 1) {
        return Err(format!("input `{name}` has {} batches where others have {count}", list.len()));
    }
    let mut feeds = vec![BTreeMap::new(); count];
    for (name, mut list) in lists {
        if list.len() == 1 && count > 1 {
            list = vec![list.remove(0); count];
        }
        feeds.iter_mut().zip(list).for_each(|(feed, array)| drop(feed.insert(name.to_owned(), array)));
    }
    Ok(feeds)
}

/// The symbol of the first axis, where all inputs have the same, and all outputs whose extents are stated.
fn batch_axis(session: &Session) -> Option<String> {
    let mut symbol = None;
    let outputs = session.outputs().iter().filter(|p| p.shape.is_some());
    for port in session.inputs().iter().chain(outputs) {
        match port.shape.as_ref()?.first() {
            Some(Extent::Open(s)) if !s.is_empty() && symbol.as_ref().is_none_or(|known| known == s) => {
                symbol = Some(s.clone());
            }
            _ => return None,
        }
    }
    symbol
}

/// An input's samples as the batches that the network takes.
fn cut(port: &Port, array: Array, batch: Option<&str>) -> Vec<Array> {
    let size = match port.shape.as_ref().and_then(|s| s.first()) {
        Some(Extent::Fixed(n)) => *n,
        Some(Extent::Open(_)) if batch.is_some() => 1,
        _ => return vec![array],
    };
    match array.shape.first() {
        Some(&all) if size > 0 && all > size && all % size == 0 => {
            (0..all / size).map(|i| array.rows(i * size, size)).collect()
        }
        _ => vec![array],
    }
}

/// The layers whose inputs can be seen.
struct Readers {
    /// The tensor that each of them multiplies by its weights.
    list: Vec<(String, NodeIndex)>,
    skipped: Vec<(String, String)>,
}

impl Readers {
    fn of(graph: &Graph, session: &Session) -> Self {
        let mut readers = Self { list: Vec::new(), skipped: Vec::new() };
        for &node in graph.order() {
            let layer = graph.layer(node);
            if layer.weight().is_none() {
                continue;
            }
            let reason = match (&layer.op, graph.inputs(node).first()) {
                (Op::Conv(c), _) if c.transposed && c.groups > 1 => {
                    "its filters are transposed and in groups".to_owned()
                }
                (Op::Conv(_) | Op::Linear(_), Some(&(from, output))) => {
                    let tensor = &graph.layer(from).outputs[output as usize].name;
                    if session.knows(tensor) {
                        readers.list.push((tensor.clone(), node));
                        continue;
                    }
                    format!("`{tensor}`, which it reads, is no tensor of the file's main graph")
                }
                _ => format!("{} is no product of inputs that can be seen", layer.spelled),
            };
            readers.skipped.push((layer.name.clone(), reason));
        }
        readers
    }
}
